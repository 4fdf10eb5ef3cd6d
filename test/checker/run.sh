#!/bin/bash
# run.sh [--brokers N] [--duration SECONDS] [--seed N] [--no-nemesis]
#        [--producers N] [--numbered N] [--consumers N] [--pipes N] [--fetchers N] [--no-check-test]
#
# The history checker: runs a workload with faults against a private server, or,
# with --brokers 3 or 5, a cluster of them, and judges what its clients saw; prints
# TAP.  README.md says what it looks for.
# The variables DURATION (seconds, 30 or 25 unless given), SEED and BROKERS do the same as the
# options.  Called by itself it starts servers with ../scripts/with-server.sh,
# which KEEP=1 tells to leave histories and logs.
set -u
cd "$(dirname "$0")" || exit 1

duration=${DURATION:-}
seed=${SEED:-}
brokers=${BROKERS:-1}
options=()
check_options=()
check_test=yes
arguments=("$@")
while [ $# -gt 0 ]; do
	case $1 in
		--duration) duration=$2; shift 2 ;;
		--seed) seed=$2; shift 2 ;;
		--brokers) brokers=$2; shift 2 ;;
		--no-check-test) check_test=no; shift ;;
		--no-nemesis) options+=("$1"); check_options+=(--no-minimum); shift ;;
		--producers | --numbered | --consumers | --pipes | --fetchers) options+=("$1" "$2"); shift 2 ;;
		*) sed -n '2,/^[^#]/s/^# \?//p' run.sh >&2; exit 2 ;;
	esac
done
seed=${seed:-$((RANDOM * 32768 + RANDOM))}
# a cluster takes longer to set up and to compare
duration=${duration:-$([ "$brokers" = 1 ] && echo 30 || echo 25)}
if [ -z "${PGT_DATADIR:-}" ] || [ -z "${PGT_BINDIR:-}" ] || [ -z "${PGT_TMP:-}" ]; then
	exec ../scripts/with-server.sh --copy --servers "$brokers" env DURATION="$duration" SEED="$seed" BROKERS="$brokers" \
		CC="${CC:-}" bash test/checker/run.sh "${arguments[@]}"
fi

dir=$PGT_TMP/checker-$seed
mkdir -p "$dir/history" || exit 1
PATH=$PGT_BINDIR:$PATH

bail_out()
{
	echo "Bail out! $*"
	echo "not ok 1 - $*"
	echo "1..1"
	exit 1
}

# The tests' numbers follow each other, over several sources of TAP.
tests=0
failed=0
tap()
{
	local line
	while IFS= read -r line; do
		case $line in
			1..*) ;;
			"ok "*)
				tests=$((tests + 1))
				echo "ok $tests - ${line#*- }"
				;;
			"not ok "*)
				tests=$((tests + 1)) failed=$((failed + 1))
				echo "not ok $tests - ${line#*- }"
				;;
			*) echo "$line" ;;
		esac
	done
}

# sql N SQL: at the Nth server
sql()
{
	psql -Xq -v ON_ERROR_STOP=1 -At -h "${folder[$1]}" -p "${port[$1]}" -c "$2"
}

# A port of 127.0.0.1 that nobody listens on right now.
free_port()
{
	perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 1)->sockport'
}

# start_broker N: with its own service file and shim
start_broker()
{
	(cd / && PGSERVICEFILE=${folder[$1]}/pg_service.conf PGT_SHIM=${folder[$1]}/shim LD_PRELOAD=$dir/shim.so \
		pg_ctl start -w -t 60 -s -D "${datadir[$1]}" -l "${folder[$1]}/log") </dev/null >&2
}

# What is the same for all brokers.  Timeouts are short, so that a run has many failovers.
broker_conf()
{
	cat <<-CONF
		listen_addresses = '127.0.0.1'
		log_line_prefix = '%m [%p] %b %e %q%a '
		wal_level = logical
		# flushes go to the shim
		fsync = on
		max_connections = 150
		max_worker_processes = 40
		max_replication_slots = 20
		max_wal_senders = 20
		max_logical_replication_workers = 24
		max_sync_workers_per_subscription = 4
		max_prepared_transactions = 0
		wal_sender_timeout = 4s
		wal_receiver_timeout = 4s
		wal_retrieve_retry_interval = 200ms
		client_connection_check_interval = 1s
		shared_buffers = 32MB
		pgtopic.checkpoint_interval = 200
		pgtopic.broker_session_timeout = 2s
		pgtopic.replica_lag_time_max = 3s
		pgtopic.leader_rebalance_interval = 10s
	CONF
	if [ "${PGT_VERSION:-15}" -ge 18 ]; then echo 'max_active_replication_origins = 20'; fi
}

# Servers of with-server.sh become a cluster in which each reaches the others through proxies.
make_cluster()
{
	local i j from to at password n=${#datadir[@]} ports=()

	password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
	for ((i = 0; i < n; i++)); do
		pg_ctl stop -s -w -m immediate -D "${datadir[$i]}" || return 1
		port[i]=$(free_port)
		ports+=("${port[$i]}")
		{ broker_conf; echo "port = ${port[$i]}"; } >>"${datadir[$i]}/postgresql.conf"
		echo 'host all pgtopic_peer 127.0.0.1/32 scram-sha-256' >"${datadir[$i]}/pg_hba.conf"
		echo 'local all all trust' >>"${datadir[$i]}/pg_hba.conf"
		head -c 16 /dev/zero >"${folder[$i]}/shim"
	done

	# They end with us.
	mkfifo "$dir/proxies" || return 1
	perl proxies.pl "$dir/proxies.socket" "${ports[@]}" >"$dir/proxies" 2>"$dir/proxies.err" &
	proxies=$!
	while read -r from to at && [ "$from" != ready ]; do
		(umask 077 && printf '[broker%s]\nhost=127.0.0.1\nport=%s\ndbname=postgres\nuser=pgtopic_peer\npassword=%s\nconnect_timeout=3\n\n' \
			"$to" "$at" "$password" >>"${folder[$((from - 1))]}/pg_service.conf")
	done <"$dir/proxies"
	[ "${from:-}" = ready ] || return 1
	for ((i = 0; i < n; i++)); do
		# a broker looks whether its own conninfo leads to it
		(umask 077 && printf '[broker%s]\nhost=127.0.0.1\nport=%s\ndbname=postgres\nuser=pgtopic_peer\npassword=%s\n\n' \
			$((i + 1)) "${port[$i]}" "$password" >>"${folder[$i]}/pg_service.conf")
		start_broker "$i" || return 1
		sql "$i" "CREATE EXTENSION IF NOT EXISTS pgtopic; CREATE ROLE pgtopic_peer LOGIN REPLICATION PASSWORD '$password';
			SELECT allow_peer('pgtopic_peer')" >/dev/null || return 1
	done
	sql 0 "SELECT create_cluster('service=broker1')" >/dev/null || return 1
	for ((i = 1; i < n; i++)); do
		sql "$i" "SELECT join_cluster('service=broker1', 'service=broker$((i + 1))')" >/dev/null || return 1
	done
	for ((i = 1; i < n; i++)); do
		psql -Xq -h "${folder[$i]}" -p "${port[$i]}" -f schema.sql >/dev/null || return 1
	done
	# as an application that begins when all is well
	psql -Xq -h "${folder[0]}" -p "${port[0]}" -v replicas=3 -f schema.sql >/dev/null || return 1
	for ((j = 0; j < 300; j++)); do
		for ((i = 0; i < n; i++)); do
			[ "$(sql "$i" "SELECT count(*) FROM partition_status WHERE cardinality(isr) = 3" 2>/dev/null)" = 6 ] || break
		done
		[ "$i" != "$n" ] || return 0
		sleep 0.1
	done
	return 1
}

if [ $check_test = yes ]; then
	tap < <(perl check-test.pl 2>&1)
fi

# shellcheck disable=SC2046
${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror -I"$("$PG_CONFIG" --includedir)" \
	-o "$dir/workload" $(ls ./*.c | grep -v shim) -L"$("$PG_CONFIG" --libdir)" -lpq || bail_out 'the workload does not compile'

datadir=() folder=() port=()
while read -r a b c; do
	if [ -n "$a" ] && [ ${#datadir[@]} -lt "$brokers" ]; then
		datadir+=("$a") folder+=("$b") port+=("$c")
	fi
done <<<"$PGT_SERVERS"
[ ${#datadir[@]} = "$brokers" ] || bail_out "there are ${#datadir[@]} servers, not $brokers"
if [ "$brokers" -gt 1 ]; then
	${CC:-gcc} -std=gnu11 -O2 -Wall -Wextra -Werror -fPIC -shared -o "$dir/shim.so" shim.c -ldl ||
		bail_out 'the shim does not compile'
	# the servers log what they do in the meantime as well
	make_cluster || bail_out "there is no cluster: $(cat "$dir/proxies.err" 2>/dev/null)"
	options+=(--proxies "$dir/proxies.socket" --shim "$dir/shim.so")
else
	psql -Xq -v replicas=1 -f schema.sql >/dev/null || bail_out 'the schema cannot be made'
fi

# Crashes come often, so that recovery should be short; and vacuum is to run.
from=()
for ((i = 0; i < brokers; i++)); do
	psql -Xq -v ON_ERROR_STOP=1 -h "${folder[$i]}" -p "${port[$i]}" <<-'SQL' >/dev/null || bail_out 'a server cannot be set up'
		ALTER SYSTEM SET checkpoint_timeout = '30s';
		ALTER SYSTEM SET autovacuum_naptime = '1s';
		ALTER SYSTEM SET restart_after_crash = on;
		SELECT pg_reload_conf();
	SQL
	from+=("$(stat -c %s "${folder[$i]}/log" 2>/dev/null || echo 0)")
	options+=(--broker "${datadir[$i]} ${folder[$i]} ${port[$i]}")
done

echo "# $duration s with seed $seed, $brokers broker(s), after $SECONDS s of preparing"
"$dir/workload" --dir "$dir/history" --bindir "$PGT_BINDIR" --duration "$duration" --seed "$seed" "${options[@]}" 2>"$dir/workload.err"
status=$?
for ((i = 0; i < brokers; i++)); do
	tail -c "+$((from[i] + 1))" "${folder[$i]}/log" >"$dir/server$((i + 1)).log"
	check_options+=(--server-log "$dir/server$((i + 1)).log")
done
if [ $status = 0 ]; then
	tap <<<"ok - the workload ran to its end"
else
	tap <<<"not ok - the workload ran to its end"
	sed 's/^/# /' "$dir/workload.err"
fi
tap < <(perl check.pl "${check_options[@]}" "$dir/history" 2>&1 || echo "# check.pl ended with status $?")
# Storage is written without the executor: do its indexes agree with its tables?
if [ -x "$PGT_BINDIR/pg_amcheck" ]; then
	for ((i = 0; i < brokers; i++)); do
		what="tables and indexes of the log are sound$([ "$brokers" = 1 ] || echo " at broker $((i + 1))")"
		if amcheck=$(pg_amcheck -h "${folder[$i]}" -p "${port[$i]}" --install-missing --heapallindexed --schema=pgtopic 2>&1); then
			tap <<<"ok - $what"
		else
			tap <<<"not ok - $what"
			echo "$amcheck" | head -n 20 | sed 's/^/# /'
		fi
	done
fi
[ -z "${proxies:-}" ] || kill "$proxies"
echo "# $SECONDS s in all"
echo "1..$tests"
if [ $failed != 0 ]; then
	echo "# run again with: test/checker/run.sh --brokers $brokers --duration $duration --seed $seed (KEEP=1 leaves the histories)"
	exit 1
fi
# Something that printed no TAP at all is a failure as well.
[ $tests -gt 20 ]
