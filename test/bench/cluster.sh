#!/bin/bash
# cluster.sh [batch|single|failover|busy]...
#
# The benchmarks of a cluster of three brokers, all on this machine: what is
# replicated beside what is not, in turns in the same run.  Ten minutes or so.
# Those that have to be asked for:
#   failover   how long a dead leader is missed; six minutes
#   busy       whether brokers are fenced that only have too much to do, by session timeout; five minutes
#   BENCH_QUICK=1    two minutes, and rough
#   BENCH_ROUNDS=n   rounds of each, 3 (2 when quick); of failover 30 (5)
#   BENCH_CONF='...' more settings of the servers, \n between them
# Called by itself it starts private servers with ../scripts/with-server.sh.
# Writes nothing outside the temporary folder of these servers.
set -u
cd "$(dirname "$0")" || exit 1
if [ -z "${PGT_SERVERS:-}" ] || [ -z "${PGT_BINDIR:-}" ] || [ -z "${PGT_TMP:-}" ]; then
	exec ../scripts/with-server.sh --copy --servers 3 -o 'fsync = on' env CC="${CC:-}" BENCH_QUICK="${BENCH_QUICK:-}" \
		BENCH_ROUNDS="${BENCH_ROUNDS:-}" BENCH_CONF="${BENCH_CONF:-}" bash test/bench/cluster.sh "$@"
fi

[ $# -gt 0 ] || set -- batch single
dir=$PGT_TMP/bench
raw=$dir/raw
PATH=$PGT_BINDIR:$PATH
mkdir -p "$dir" || exit 1
rounds=${BENCH_ROUNDS:-$([ "${BENCH_QUICK:-}" = 1 ] && echo 2 || echo 3)}
failovers=${BENCH_ROUNDS:-$([ "${BENCH_QUICK:-}" = 1 ] && echo 5 || echo 30)}

# shellcheck disable=SC2046
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -I"$("$PG_CONFIG" --includedir)" \
	-o "$dir/bench" ./*.c -L"$("$PG_CONFIG" --libdir)" -lpq -lpthread || exit 1

# sql BROKER SQL
sql()
{
	psql -Xq -v ON_ERROR_STOP=1 -At -d "${brokers[$1]}" -c "$2" "${@:3}"
}

# No checkpoint in the middle of a measurement, and a cache that is not tiny.
brokers=()
datadirs=()
logs=()
while read -r datadir host port; do
	[ -n "$datadir" ] || continue
	{
		cat <<-'CONF'
			wal_level = logical
			max_worker_processes = 32
			max_logical_replication_workers = 16
			max_wal_size = 16GB
			checkpoint_timeout = 1h
			shared_buffers = 512MB
		CONF
		printf '%b\n' "${BENCH_CONF:-}"
	} >>"$datadir/postgresql.conf"
	(cd / && pg_ctl restart -s -w -D "$datadir" -l "$host/log") </dev/null >&2 || exit 1
	datadirs+=("$datadir")
	logs+=("$host/log")
	brokers+=("host=$host port=$port dbname=postgres user=postgres")
done <<<"$PGT_SERVERS"
for i in "${!brokers[@]}"; do
	sql "$i" 'CREATE EXTENSION pgtopic' || exit 1
done
sql 0 "SELECT create_cluster('${brokers[0]}')" >/dev/null || exit 1
for _ in $(seq 300); do
	[ "$(sql 0 'SELECT count(*) FROM pgtopic.broker')" = 0 ] || break
	sleep 0.1
done
for ((i = 1; i < ${#brokers[@]}; i++)); do
	sql "$i" "SELECT join_cluster('${brokers[0]}', '${brokers[$i]}')" >/dev/null || exit 1
done
# the bench connects to broker n by line n
BENCH_BROKERS=$(printf '%s\n' "${brokers[@]}")
BENCH_DATADIRS=$(printf '%s\n' "${datadirs[@]}")
export BENCH_BROKERS BENCH_DATADIRS

# Each of four session timeouts for a minute, with 4 producing clients at each broker and
# processes that only compute; how many lines of the log say that somebody is gone.
busy()
{
	local timeout before after i pids

	echo "SELECT produce('busy', repeat('x', 100));" >"$dir/busy.sql"
	sql 0 "SELECT create_topic('busy', partitions => 6, replication_factor => 3)" >/dev/null || return 1
	for timeout in 500 1000 2000 5000; do
		for i in "${!brokers[@]}"; do
			sql "$i" "ALTER SYSTEM SET pgtopic.broker_session_timeout = $timeout" -c 'SELECT pg_reload_conf()' >/dev/null || return 1
		done
		sleep 5
		before=$(cat "${logs[@]}" | grep -c 'counted as gone')
		pids=()
		for i in $(seq $((12 * $(nproc)))); do
			timeout 60 sh -c 'while :; do :; done' &
			pids+=($!)
		done
		for i in "${!brokers[@]}"; do
			pgbench -n -f "$dir/busy.sql" -c 4 -j 2 -T 55 "${brokers[$i]}" >"$dir/busy.$i" 2>&1 &
			pids+=($!)
		done
		wait "${pids[@]}"
		after=$(cat "${logs[@]}" | grep -c 'counted as gone')
		printf 'busy\t%d ms\t1\t%d\n' "$timeout" $((after - before))
	done
	sql 0 "SELECT drop_topic('busy')" >/dev/null
}

status=0
: >"$raw"
for name in "$@"; do
	echo "# $name"
	case $name in
		batch | single) BENCH_ROUNDS=$rounds "$dir/bench" "cluster-$name" ;;
		busy) busy ;;
		failover) BENCH_ROUNDS=$failovers "$dir/bench" failover ;;
		*) echo "cluster.sh: no such benchmark: $name" >&2; exit 2 ;;
	esac > >(tee -a "$raw") || { echo "$name failed" >&2; status=1; }
	wait $!
done
echo
sql 0 'SELECT version()'
echo "$(nproc) cores, ${BENCH_QUICK:+quick, }session timeout $(sql 0 'SHOW pgtopic.broker_session_timeout'), fsync $(sql 0 'SHOW fsync'), ${#brokers[@]} servers"
perl report.pl "$raw" || status=1
exit $status
