#!/bin/bash
# run.sh [single|batch|read|latency|cost|wal]...
#
# The benchmarks: each compares two ways in the same run, in turns, and reports
# ratios; at the end a table with the aims.  Ten minutes or less.
#   BENCH_QUICK=1    about a minute, and rough
#   BENCH_ROUNDS=n   rounds of each, 5 (3 when quick)
# Called by itself it starts a private server with ../scripts/with-server.sh.
# Writes nothing outside the temporary folder of that server.
set -u
cd "$(dirname "$0")" || exit 1
if [ -z "${PGT_DATADIR:-}" ] || [ -z "${PGT_BINDIR:-}" ] || [ -z "${PGT_TMP:-}" ]; then
	exec ../scripts/with-server.sh --copy -o 'fsync = on' env CC="${CC:-}" BENCH_QUICK="${BENCH_QUICK:-}" \
		BENCH_ROUNDS="${BENCH_ROUNDS:-}" bash test/bench/run.sh "$@"
fi

[ $# -gt 0 ] || set -- single batch read latency cost wal
dir=$PGT_TMP/bench
raw=$dir/raw
PATH=$PGT_BINDIR:$PATH
mkdir -p "$dir" || exit 1
if [ "${BENCH_QUICK:-}" = 1 ]; then
	rounds=${BENCH_ROUNDS:-} seconds=2
	rounds=${rounds:-3}
else
	rounds=${BENCH_ROUNDS:-} seconds=5
	rounds=${rounds:-5}
fi
export BENCH_ROUNDS=$rounds

# shellcheck disable=SC2046
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -I"$("$PG_CONFIG" --includedir)" \
	-o "$dir/bench" ./*.c -L"$("$PG_CONFIG" --libdir)" -lpq -lpthread || exit 1

# No checkpoint in the middle of a measurement, and a cache that is not tiny.
psql -Xq -v ON_ERROR_STOP=1 <<'SQL' >/dev/null || exit 1
ALTER SYSTEM SET max_wal_size = '16GB';
ALTER SYSTEM SET checkpoint_timeout = '1h';
ALTER SYSTEM SET shared_buffers = '512MB';
CREATE EXTENSION IF NOT EXISTS pgtopic;
SQL
(cd / && pg_ctl restart -s -w -D "$PGT_DATADIR" -l "$PGHOST/log") </dev/null >&2 || exit 1

# pgbench_round VARIANT SCRIPT ROUND OPTIONS: transactions a second of 8 clients; round 0 only warms up
pgbench_round()
{
	local tps time=$seconds
	[ "$3" != 0 ] || time=1
	tps=$(PGOPTIONS=$4 pgbench -n -M prepared -c 8 -j 2 -T "$time" -f "$dir/$2.sql" -D value="$payload" 2>"$dir/pgbench.err" |
		sed -n 's/^tps = \([0-9.]*\).*/\1/p')
	if [ -z "$tps" ]; then
		cat "$dir/pgbench.err" >&2
		return 1
	fi
	[ "$3" = 0 ] || printf 'single\t%s\t%s\t%s\n' "$1" "$3" "$tps"
}

# One message in each transaction, 8 clients, against an INSERT of the same.
bench_single()
{
	local round what variant script options async='-c synchronous_commit=off'
	payload=$(printf 'message-%.0s' 1 2 3 4 5 6 7 8 9 10 11 12)-end
	psql -Xq -v ON_ERROR_STOP=1 <<-'SQL' >/dev/null || return 1
		CREATE TABLE bench_plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			"timestamp" timestamptz NOT NULL DEFAULT now(), key text, value text);
		SELECT create_topic('bench_single', partitions => 4);
		SELECT create_topic('bench_single_1', partitions => 1);
	SQL
	cat >"$dir/insert.sql" <<-'SQL'
		\set key random(1, 1000000)
		INSERT INTO bench_plain (key, value) VALUES (:key::text, :value::text) RETURNING id;
	SQL
	cat >"$dir/produce.sql" <<-'SQL'
		\set key random(1, 1000000)
		SELECT * FROM produce('bench_single', :value::text, key => :key::text);
	SQL
	sed 's/bench_single/bench_single_1/' "$dir/produce.sql" >"$dir/produce1.sql"
	for round in $(seq 0 "$rounds"); do
		# each first half the time
		local order=("INSERT|insert|" "produce|produce|" "produce, 1 partition|produce1|"
			"INSERT, asynchronous commit|insert|$async" "produce, asynchronous commit|produce|$async")
		if [ $((round % 2)) = 1 ]; then
			order=("${order[2]}" "${order[1]}" "${order[0]}" "${order[4]}" "${order[3]}")
		fi
		for what in "${order[@]}"; do
			IFS="|" read -r variant script options <<<"$what"
			pgbench_round "$variant" "$script" "$round" "$options" || return 1
		done
	done
	psql -Xq -c 'DROP TABLE bench_plain' -c "SELECT drop_topic('bench_single')" \
		-c "SELECT drop_topic('bench_single_1')" -c CHECKPOINT >/dev/null
}

status=0
: >"$raw"
for name in "$@"; do
	echo "# $name"
	case $name in
		single) bench_single ;;
		batch | read | latency | cost | wal) "$dir/bench" "$name" ;;
		*) echo "run.sh: no such benchmark: $name" >&2; exit 2 ;;
	esac > >(tee -a "$raw") || { echo "$name failed" >&2; status=1; }
	wait $!
done
echo
psql -XAtc "SELECT version()"
echo "$(nproc) cores, $rounds rounds, ${BENCH_QUICK:+quick, }fsync $(psql -XAtc 'SHOW fsync')"
perl report.pl "$raw" || status=1
exit $status
