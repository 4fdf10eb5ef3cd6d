# Sourced by the bash scripts here.  Sets TOP, the top of the tree; the functions
# set and use the PGT_* variables described at each of them.

set -u
umask 022
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
SCRIPTS=$TOP/test/scripts

# A variable that names somebody else's server must not lead a test there.
unset PGSERVICE PGSERVICEFILE PGHOSTADDR PGPASSWORD PGPASSFILE PGOPTIONS PGAPPNAME \
	PGCLIENTENCODING PGDATESTYLE PGTZ PGSSLMODE PGREQUIRESSL PGCONNECT_TIMEOUT \
	PGTARGETSESSIONATTRS PGDATA PGSYSCONFDIR PGHOST PGPORT PGUSER PGDATABASE
# Not the messages' language, but the encoding of new databases: UTF-8.
unset LC_ALL LANGUAGE
export LANG=C.UTF-8

say()
{
	printf '%s\n' "$*"
}

die()
{
	printf '%s\n' "$*" >&2
	exit 1
}

# sudo may ask for a password where somebody is there to type it.
if [ -t 0 ]; then SUDO=(sudo); else SUDO=(sudo -n); fi

# as_root COMMAND...: runs it as root, through sudo where need be.
as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif ! command -v sudo >/dev/null; then
		die "this needs root, and there is no sudo: $*"
	else
		"${SUDO[@]}" "$@"
	fi
}

# as_user USER COMMAND...: runs it as USER with that user's groups.  No shell and
# no session of PAM in between, so that signals reach the command.
as_user()
{
	local user=$1
	shift
	if [ "$(id -un)" = "$user" ]; then
		"$@"
	elif command -v setpriv >/dev/null; then
		setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "$@"
	else
		runuser -u "$user" -- "$@"
	fi
}

# A server refuses to run as root: PGT_USER is who runs it, and the tests.
choose_user()
{
	if [ "$(id -u)" != 0 ]; then
		PGT_USER=$(id -un)
	elif [ -z "${PGT_USER:-}" ]; then
		if id postgres >/dev/null 2>&1; then PGT_USER=postgres; else PGT_USER=nobody; fi
	fi
	export PGT_USER
}

# Sets PG_CONFIG, PGT_BINDIR, PGT_VERSION (major), PGT_PGXS_SRC (where PGXS keeps pg_regress
# and the Perl modules).
find_postgres()
{
	PG_CONFIG=$("$SCRIPTS/find-pg-config.sh")
	[ -n "$PG_CONFIG" ] || return 1
	PG_CONFIG=$(command -v "$PG_CONFIG")
	PGT_BINDIR=$("$PG_CONFIG" --bindir)
	PGT_VERSION=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	PGT_PGXS_SRC=$(cd "$(dirname "$("$PG_CONFIG" --pgxs)")/.." && pwd)
	export PG_CONFIG PGT_BINDIR PGT_VERSION PGT_PGXS_SRC
}

# run_make ARGUMENT...: make in the tree, not as a part of a make that called this script.
run_make()
{
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "${MAKE:-make}" --no-print-directory -s -C "$PGT_BUILD" \
		PG_CONFIG="$PG_CONFIG" "$@"
}

# Builds and installs.  In the tree itself, as its owner, so that a run as root (or
# under sudo) leaves no file there that its owner cannot overwrite; in a copy, in
# $1, where the tree is not writable.  One build at a time in one tree.
build_and_install()
{
	local copy=$1 owner log=$1/build.log lock
	mkdir -p "$copy"
	PGT_BUILD=$TOP
	owner=$(stat -c %U "$TOP")
	if [ "$(id -u)" != 0 ]; then
		owner=$(id -un)
	fi
	if ! as_user "$owner" test -w "$TOP" -a -w "$TOP/src"; then
		PGT_BUILD=$copy/build
		owner=$(id -un)
		mkdir -p "$PGT_BUILD"
		copy_tree "$PGT_BUILD"
	fi
	exec 9<"$PGT_BUILD/Makefile"
	if command -v flock >/dev/null; then flock 9; fi
	if ! { as_user "$owner" env MAKE="${MAKE:-make}" bash -c ". '$SCRIPTS/lib.sh'; PG_CONFIG='$PG_CONFIG' PGT_BUILD='$PGT_BUILD'
			run_make -j '$(nproc 2>/dev/null || echo 2)' WERROR=1 all" &&
		if [ -w "$("$PG_CONFIG" --pkglibdir)" ] && [ -w "$("$PG_CONFIG" --sharedir)/extension" ]; then
			run_make WERROR=1 install
		else
			# in a shell of its own, so that what it dies of is shown below
			(as_root env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "${MAKE:-make}" --no-print-directory -s \
				-C "$PGT_BUILD" PG_CONFIG="$PG_CONFIG" WERROR=1 install)
		fi; } >"$log" 2>&1 9<&-
	then
		exec 9<&-
		cat "$log" >&2
		return 1
	fi
	exec 9<&-
}

# copy_tree FOLDER: what tests need, without build products.
copy_tree()
{
	(cd "$TOP" && tar -cf - --exclude='*.o' --exclude='*.so' --exclude='*.d' --exclude='*.bc' \
		--exclude=.build-config \
		$(ls -d README.md Makefile extension src sql expected test 2>/dev/null)) | tar -C "$1" -xf - --no-same-owner
}

# Makes PGT_TMP, which only PGT_USER (and root) can enter: the server's sockets in it trust everybody.
make_temp()
{
	# Not TMPDIR when it is long: the path of a socket may have 107 bytes.
	local base=${TMPDIR:-/tmp}
	if [ ${#base} -gt 50 ] || ! as_user "$PGT_USER" test -w "$base" -a -x "$base"; then
		base=/tmp
	fi
	PGT_TMP=$(mktemp -d "$base/pgtopic-$1-XXXXXX") || exit 1
	if [ "$(id -u)" = 0 ]; then
		chown "$PGT_USER" "$PGT_TMP"
	fi
	export PGT_TMP
}

# in_temp COMMAND...: runs it as PGT_USER with a home and the server's programs.
in_temp()
{
	as_user "$PGT_USER" env HOME="$PGT_TMP" TMPDIR="$PGT_TMP" USER="$PGT_USER" LOGNAME="$PGT_USER" PATH="$PGT_BINDIR:$PATH" "$@"
}

# start_server FOLDER: a new private server in FOLDER below PGT_TMP.  Exports PGHOST, PGPORT, PGUSER, PGDATABASE
# and PGT_DATADIR, and puts a line "PGT_DATADIR PGHOST PGPORT" in front of PGT_SERVERS.  It listens on a socket in the folder alone, so that its port cannot meet another server's.
# Lines of PGT_CONF (\n separates too) go to the end of postgresql.conf and so override what is set here.
start_server()
{
	local dir=$PGT_TMP/$1
	PGT_DATADIR=$dir/data
	PGHOST=$dir
	PGPORT=$((20000 + RANDOM % 20000))
	PGUSER=postgres
	PGDATABASE=postgres
	export PGHOST PGPORT PGUSER PGDATABASE PGT_DATADIR
	PGT_SERVERS="$PGT_DATADIR $PGHOST $PGPORT"$'\n'${PGT_SERVERS:-}
	export PGT_SERVERS
	in_temp mkdir -p "$dir" || return 1
	if ! (cd / && in_temp initdb -D "$PGT_DATADIR" -U postgres -A trust -E UTF8 --no-locale --no-sync) \
		>"$PGT_TMP/$1.initdb.log" 2>&1; then
		cat "$PGT_TMP/$1.initdb.log" >&2
		return 1
	fi
	{
		cat <<-EOF
			listen_addresses = ''
			unix_socket_directories = '$dir'
			port = $PGPORT
			shared_preload_libraries = 'pgtopic'
			fsync = off
			max_prepared_transactions = 10
			log_line_prefix = '%m [%p] %b %q%a '
		EOF
		printf '%b\n' "${PGT_CONF:-}"
	} | in_temp tee -a "$PGT_DATADIR/postgresql.conf" >/dev/null
	if ! (cd / && in_temp pg_ctl start -w -t 60 -s -D "$PGT_DATADIR" -l "$dir/log") </dev/null >&2 9<&-; then
		tail -n 30 "$dir/log" >&2
		return 1
	fi
}

# Stops the server of PGT_DATADIR, if it runs.  A process id in a file says little after a crash or a
# reboot: it must be a process that works in that folder.
stop_server()
{
	local pid=
	if [ -n "${PGT_DATADIR:-}" ] && as_user "$PGT_USER" test -f "$PGT_DATADIR/postmaster.pid"; then
		pid=$(as_user "$PGT_USER" head -n 1 "$PGT_DATADIR/postmaster.pid")
	fi
	if [ -n "$pid" ] && as_user "$PGT_USER" test "/proc/$pid/cwd" -ef "$PGT_DATADIR"; then
		(cd / && in_temp pg_ctl stop -s -w -t 30 -m "${1:-fast}" -D "$PGT_DATADIR") >&2 ||
			(cd / && in_temp pg_ctl stop -s -w -t 10 -m immediate -D "$PGT_DATADIR") >&2
	fi
}

# For a trap on EXIT: stops the servers, removes PGT_TMP unless KEEP=1.
clean_up()
{
	cd / || :
	stop_server "${1:-fast}" 2>/dev/null
	while read -r PGT_DATADIR _; do
		stop_server "${1:-fast}" 2>/dev/null </dev/null
	done <<<"${PGT_SERVERS:-}"
	if [ -n "${PGT_TMP:-}" ]; then
		if [ "${KEEP:-}" = 1 ]; then
			say "kept: $PGT_TMP" >&2
		else
			rm -rf "$PGT_TMP"
		fi
	fi
}

# under_subreaper "$@": runs this very script again as the child of a subreaper, once.
under_subreaper()
{
	if [ -z "${PGT_UNDER_SUBREAPER:-}" ]; then
		PGT_UNDER_SUBREAPER=1 exec "$SCRIPTS/subreaper" --kill-rest "$BASH" "$0" "$@"
	fi
	unset PGT_UNDER_SUBREAPER
}
