#!/bin/sh
# Prints the pg_config to build against, or nothing when no server headers are
# installed.  PG_CONFIG, when set, is the only candidate.  Otherwise: the one on
# PATH, then Debian's versions, newest first; one whose server is installed
# too wins over one with headers alone.  (On Debian /usr/bin/pg_config may come
# from libpq-dev and know no server headers.)

usable()
{
	pgxs=$("$1" --pgxs 2>/dev/null) || return 1
	inc=$("$1" --includedir-server 2>/dev/null) || return 1
	[ -f "$pgxs" ] && [ -f "$inc/postgres.h" ] || return 1
	version=$("$1" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	[ "$version" -ge 15 ] 2>/dev/null
}

if [ -n "${PG_CONFIG:-}" ]; then
	usable "$PG_CONFIG" && echo "$PG_CONFIG"
	exit 0
fi

candidates=$(command -v pg_config
	ls -d /usr/lib/postgresql/*/bin/pg_config /usr/pgsql-*/bin/pg_config \
		/usr/local/pgsql/bin/pg_config 2>/dev/null | sort -rV)

for want_server in yes no; do
	for candidate in $candidates; do
		usable "$candidate" || continue
		if [ $want_server = no ] || [ -x "$("$candidate" --bindir)/postgres" ]; then
			echo "$candidate"
			exit 0
		fi
	done
done
exit 0
