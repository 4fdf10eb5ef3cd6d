#!/bin/bash
# Installs what a build and the tests need and what is not there, through apt; says
# what is missing where there is no apt.  Prints nothing when nothing is missing.
#
# No database cluster comes into being: Debian's server package creates and starts one, "main",
# when it is installed for the first time.  It does not where createcluster.conf says so, and that file includes
# a folder, in which we put a file while apt runs and from which we take it away again.  So the machine's
# configuration is as the packages have it; whoever wants a cluster later makes it with pg_createcluster.
. "$(dirname "$0")/lib.sh"

OLDEST=15
given=${PG_CONFIG:-}

# What is missing, as words for people (missing) and as Debian packages (packages).
look()
{
	missing=()
	packages=()

	if ! echo '#include <stdio.h>' | ${CC:-gcc} -fsyntax-only -xc - 2>/dev/null; then
		missing+=("a C compiler (gcc) with the C library's headers")
		packages+=(gcc libc6-dev)
	fi
	if ! command -v make >/dev/null; then
		missing+=("make")
		packages+=(make)
	fi
	if ! perl -MTest::More -MTAP::Harness -MTime::HiRes -MPOSIX -e 1 2>/dev/null; then
		missing+=("perl with its standard modules")
		packages+=(perl)
	fi
	if ! perl -MIPC::Run -e 1 2>/dev/null; then
		missing+=("the Perl module IPC::Run")
		packages+=(libipc-run-perl)
	fi

	PG_CONFIG=$given
	if find_postgres && [ -x "$PGT_BINDIR/postgres" ] && [ -x "$PGT_BINDIR/initdb" ] &&
		[ -x "$PGT_BINDIR/psql" ] && [ -x "$PGT_BINDIR/pgbench" ]; then
		if [ ! -f "$("$PG_CONFIG" --includedir)/libpq-fe.h" ]; then
			missing+=("libpq's header (libpq-fe.h)")
			packages+=(libpq-dev)
		fi
		if [ ! -x "$PGT_PGXS_SRC/test/regress/pg_regress" ] || [ ! -f "$PGT_PGXS_SRC/test/perl/PostgreSQL/Test/Cluster.pm" ]; then
			missing+=("pg_regress and PostgreSQL's Perl test modules in $PGT_PGXS_SRC/test (PostgreSQL configured with --enable-tap-tests)")
		fi
	else
		missing+=("PostgreSQL $OLDEST or later: the server, its client programs, libpq's header, and the server's headers with PGXS")
		packages+=(postgresql)
	fi
}

# The major version to install: that of a server which is there without its headers, else the one
# that this system calls its PostgreSQL.
choose_version()
{
	local version
	for version in $(ls /usr/lib/postgresql 2>/dev/null | sort -rn); do
		if [ "$version" -ge $OLDEST ] 2>/dev/null && [ -x "/usr/lib/postgresql/$version/bin/postgres" ] &&
			apt-cache show "postgresql-server-dev-$version" >/dev/null 2>&1; then
			say "$version"
			return
		fi
	done
	apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1
}

look
[ ${#missing[@]} -gt 0 ] || exit 0

list()
{
	printf '  - %s\n' "${missing[@]}"
}

if [ -n "$given" ] && [ -z "$PG_CONFIG" ]; then
	die "PG_CONFIG=$given is no pg_config of a PostgreSQL $OLDEST or later with server headers"
fi
if ! command -v apt-get >/dev/null || [ ${#packages[@]} = 0 ]; then
	say "This needs, and does not find:" >&2
	list >&2
	die "Install it with this system's package manager (or put pg_config on PATH, or set PG_CONFIG), and run this again."
fi

say "== installing what is missing, through apt"
list
apt()
{
	as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null
}
log=$(mktemp) || exit 1
apt update >"$log" 2>&1 || { say "apt-get update failed, trying with the package lists that are there:" >&2; cat "$log" >&2; }

wanted=()
for package in "${packages[@]}"; do
	if [ "$package" = postgresql ]; then
		version=$(choose_version)
		if [ -z "$version" ]; then
			die "apt knows no package postgresql; this needs PostgreSQL $OLDEST or later (postgresql-NN, postgresql-server-dev-NN)"
		elif [ "$version" -lt $OLDEST ]; then
			die "apt offers PostgreSQL $version here, and this needs $OLDEST or later: add a package source that has it (such as the PostgreSQL project's), install postgresql-NN and postgresql-server-dev-NN, and run this again"
		fi
		wanted+=("postgresql-$version" "postgresql-server-dev-$version" libpq-dev)
	else
		wanted+=("$package")
	fi
done

folder=/etc/postgresql-common/createcluster.d
made_folders=()
for path in /etc/postgresql-common $folder; do
	if [ ! -d $path ]; then
		as_root mkdir $path
		made_folders=($path "${made_folders[@]}")
	fi
done
file=$folder/zz-pgtopic-$$.conf
undo()
{
	as_root rm -f "$file"
	for path in "${made_folders[@]}"; do
		as_root rmdir --ignore-fail-on-non-empty "$path"
	done
	rm -f "$log"
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
echo 'create_main_cluster = false' | as_root tee "$file" >/dev/null

if ! apt install -y --no-install-recommends "${wanted[@]}" >"$log" 2>&1; then
	cat "$log" >&2
	die "apt could not install: ${wanted[*]}"
fi

hash -r
look
if [ ${#missing[@]} -gt 0 ]; then
	say "Installed ${wanted[*]}, and still miss:" >&2
	list >&2
	exit 1
fi
