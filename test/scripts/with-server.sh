#!/bin/bash
# with-server.sh [--build] [--copy] [--servers N] [-o 'SETTING = VALUE']... COMMAND [ARGUMENT...]
#
# Runs COMMAND with a private server, in a temporary folder, that has pgtopic
# preloaded, then stops the server.  Ends with COMMAND's exit status.
#
# COMMAND runs as an unprivileged user (root: PGT_USER, or postgres, or nobody) and gets
#   PGHOST PGPORT PGUSER PGDATABASE   how to connect; the user is a superuser there
#   PGT_BINDIR PGT_DATADIR            to stop and start the server with pg_ctl
#   PGT_TMP                           a folder to write to
#   PG_CONFIG PGT_VERSION             pg_config, and the major version
# --build  installs what is missing, builds and installs the extension first
# --copy   runs it in a copy of the tree in PGT_TMP, which it may write to
# --servers  starts so many alike; PGT_SERVERS has a line "datadir host port" for each, and
#          the variables above are about the first
# -o       adds a setting, like lines in the variable PGT_CONF; an example of both:
#            PGT_CONF='fsync = on\nmax_connections = 50' with-server.sh -o work_mem=1GB psql
# KEEP=1   leaves the temporary folder
# The server may be killed: orphans are adopted and reaped (see subreaper).
. "$(dirname "$0")/lib.sh"
under_subreaper "$@"

build=no
copy=no
servers=1
PGT_CONF=${PGT_CONF:-}
while :; do
	case ${1:-} in
		--build) build=yes; shift ;;
		--copy) copy=yes; shift ;;
		--servers) servers=$2; shift 2 ;;
		-o) PGT_CONF+="\n$2"; shift 2 ;;
		--) shift; break ;;
		*) break ;;
	esac
done
[ $# -gt 0 ] || die "usage: with-server.sh [--build] [--copy] [--servers N] [-o 'SETTING = VALUE']... COMMAND [ARGUMENT...]"

if [ $build = yes ]; then
	"$SCRIPTS/install-deps.sh" || exit 1
fi
find_postgres || die "no PostgreSQL 15 or later with server headers found; 'make deps' installs it"
choose_user
trap 'clean_up fast' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
make_temp server
if [ $build = yes ]; then
	build_and_install "$PGT_TMP" || exit 1
fi
for ((i = servers; i > 0; i--)); do
	start_server s$i || exit 1
done
if [ $copy = yes ]; then
	in_temp mkdir "$PGT_TMP/tree"
	copy_tree "$PGT_TMP/tree"
	if [ "$(id -u)" = 0 ]; then chown -R "$PGT_USER" "$PGT_TMP/tree"; fi
	cd "$PGT_TMP/tree" || exit 1
fi
in_temp "$@"
