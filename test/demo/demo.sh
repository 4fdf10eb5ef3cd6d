#!/bin/bash
# The main job on real input, in a cluster: three servers of this machine become brokers, this machine's package
# history is produced from all three at once to a topic with three replicas of each partition, and becomes tables
# of each package's current state, by consumers on all three of which one is killed.  Then a broker is stopped
# for a while.  Says what it does, checks what it claims, and ends with an error where that does not
# hold.  The servers stay, for a look around; demo-stop.sh removes them.
. "$(dirname "$0")/lib.sh"

TOPIC=package-history
PORT=5501				# of broker 1, then 5502, 5503: names of sockets in a folder of their own

step()
{
	printf '\n== %s\n' "$*"
}

# psql_demo BROKER ARGUMENT...
psql_demo()
{
	local broker=$1
	shift
	in_temp psql -X -q -v ON_ERROR_STOP=1 -h "$PGT_TMP" -p $((PORT + broker - 1)) -U postgres -d demo "$@"
}

# sql BROKER TEXT: shows it and its result.
sql()
{
	say "  broker $1"
	printf '%s\n' "$2" | sed 's/^/    /'
	psql_demo "$1" -P footer=off -c "$2" || fail "the statement above failed"
}

# value BROKER TEXT: its one result, shown by nobody.
value()
{
	psql_demo "$1" -AtX -c "$2"
}

# each TEXT: at all brokers, shown by nobody.
each()
{
	local broker
	for broker in 1 2 3; do
		value $broker "$1" || fail "broker $broker: $1"
	done
}

# total TEXT: the sum of a number over all brokers.
total()
{
	each "$1" | awk '{ n += $1 } END { print n + 0 }'
}

# claim WORDS BROKER SQL: SQL must be true.
claim()
{
	local result
	result=$(value "$2" "$3")
	if [ "$result" != t ]; then
		printf '%s\n' "$3" | sed 's/^/    /' >&2
		fail "this does not hold: $1"
	fi
	say "  checked: $1"
}

# claim_equal WORDS IS WANTED
claim_equal()
{
	[ "$2" = "$3" ] || fail "this does not hold: $1 ('$2' instead of '$3')"
	say "  checked: $1"
}

fail()
{
	{
		printf '\nDEMO FAILED: %s\n' "$*"
		for log in "$PGT_TMP"/*.out "$PGT_TMP"/broker*/log; do
			if [ -s "$log" ]; then
				say "-- ${log#"$PGT_TMP"/}"
				tail -n 10 "$log"
			fi
		done
		say "The servers still run: $LOOK"
		say "'make demo-stop' removes them."
	} >&2
	exit 1
}

# wait_until WHAT COMMAND...: until it succeeds (a query, which takes its time), at most a minute.
wait_until()
{
	local what=$1 deadline=$((SECONDS + 60))
	shift
	until "$@"; do
		[ $SECONDS -lt $deadline ] || fail "waited a minute for $what"
		sleep 0.05
	done
}

is_true()
{
	[ "$(value "$1" "$2")" = t ]
}

all_are_true()
{
	is_true 1 "$1" && is_true 2 "$1" && is_true 3 "$1"
}

# The machine's history, oldest line first, as: line number, package, line.
read_history()
{
	local files
	files=$(ls -rv /var/log/dpkg.log /var/log/dpkg.log.[0-9]* 2>/dev/null | grep -E '/dpkg\.log(\.[0-9]+(\.gz)?)?$')
	# shellcheck disable=SC2086
	if [ -n "$files" ] && [ -n "$(zcat -f $files | head -n 1)" ]; then
		# 2025-03-01 10:00:00 status installed libc6:amd64 2.36-9; … install libc6:amd64 …; … startup archives unpack
		zcat -f $files | iconv -c -f UTF-8 -t UTF-8 | awk -v OFS='\001' '
			{ package = "" }
			$3 == "status" { package = $5 }
			$3 ~ /^(install|upgrade|configure|trigproc|remove|purge|disappear)$/ { package = $4 }
			{ print NR, package, $0 }'
	else
		dpkg-query -W | iconv -c -f UTF-8 -t UTF-8 | awk -v OFS='\001' '{ print NR, $1, $0 }'
	fi
}

command -v dpkg-query >/dev/null || die "the demo reads this machine's package history, and there is no dpkg here"

"$SCRIPTS/install-deps.sh" || exit 1
if (stop_demo); then
	say "== removed the demo that was running"
fi
find_postgres || exit 1
choose_user
make_temp demo
trap remove_demo EXIT
say "== build and install for PostgreSQL $PGT_VERSION"
build_and_install "$PGT_TMP" || exit 1
# A folder that the servers' user can read, which the tree need not be.
cd "$PGT_TMP" || exit 1

# start_broker NUMBER: a server that can be a broker; the settings are those of README.md, "Clusters".
start_broker()
{
	PGT_CONF="port = $((PORT + $1 - 1))
		unix_socket_directories = '$PGT_TMP'
		wal_level = logical
		max_worker_processes = 16
		wal_retrieve_retry_interval = 200ms
		pgtopic.replica_lag_time_max = 3s
		fsync = on" start_server "broker$1"
}
starting=()
for broker in 1 2 3; do
	start_broker $broker &
	starting+=($!)
done
for pid in "${starting[@]}"; do
	wait "$pid" || die "a server does not start"
done
PGT_DATADIR=$PGT_TMP/broker1/data
(umask 077; set -C; printf '%s\n' "$PGT_TMP" "$PGT_DATADIR" "$PGT_BINDIR" "$PGT_USER" >"$STATE") ||
	die "cannot write $STATE"
trap - EXIT
trap 'exit 130' INT
psql=psql
[ "$(command -v psql)" ] || psql=$PGT_BINDIR/psql
LOOK="$psql -h $PGT_TMP -p $PORT -U postgres demo"
say "   three private servers run in $PGT_TMP"

step "Three servers become a cluster: each has the extension, and a role that the others connect as"
for broker in 1 2 3; do
	in_temp psql -X -q -h "$PGT_TMP" -p $((PORT + broker - 1)) -U postgres -d postgres -c 'CREATE DATABASE demo' || fail "no database"
done
prepare="CREATE EXTENSION pgtopic;
CREATE ROLE pgtopic_peer LOGIN REPLICATION;
SELECT allow_peer('pgtopic_peer')"
say "  each broker"
printf '%s\n' "$prepare" | sed 's/^/    /'
each "$prepare" >/dev/null
conninfo()
{
	say "host=$PGT_TMP port=$((PORT + $1 - 1)) user=pgtopic_peer dbname=demo"
}
sql 1 "SELECT create_cluster('$(conninfo 1)')"
sql 2 "SELECT join_cluster('$(conninfo 1)', '$(conninfo 2)')"
sql 3 "SELECT join_cluster('$(conninfo 1)', '$(conninfo 3)')"
wait_until "brokers to know each other" all_are_true "SELECT count(*) = 3 AND bool_and(state = 'online') FROM broker_status"
sql 2 "SELECT broker, is_self, is_controller, state, last_seen FROM broker_status"

step "A topic with 6 partitions, each with 3 replicas"
sql 3 "SELECT create_topic('$TOPIC', partitions => 6, replication_factor => 3)"
wait_until "the topic to be everywhere" all_are_true "SELECT count(*) = 6 FROM partition_status"
sql 1 "SELECT partition, leader, replicas, isr FROM partition_status ORDER BY partition"
claim "each broker leads two of them, and has a copy of the others" 1 \
	"SELECT count(*) = 3 AND bool_and(partitions_led = 2 AND replicas = 6) FROM broker_status"
wait_until "followers to copy" all_are_true "SELECT count(*) = 8 AND bool_and(state = 'ready' AND in_sync) FROM replication_status"
sql 1 "SELECT topic, partition, follower, in_sync, state FROM replication_status"

step "This machine's package history: every line becomes a message, its key is the package"
for broker in 1 2 3; do
	psql_demo $broker -f - <"$TOP/test/demo/setup.sql" || fail "setup.sql"
	psql_demo $broker -c "CREATE TABLE history (line_no bigint, package text, line text)" \
		-c "COPY history FROM STDIN (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')" < <(read_history) ||
		fail "could not read the history"
	# all lines about one package are produced at one broker, so that their order is that of the history
	value $broker "INSERT INTO log_line (line_no, package, line)
		SELECT line_no, package, line FROM history WHERE abs(hashtext(coalesce(package, line_no::text))) % 3 = $broker - 1" ||
		fail "no lines for broker $broker"
done
lines=$(value 1 'SELECT count(*) FROM history')
[ "$lines" -gt 0 ] || fail "there is no history on this machine"
say "  $lines lines about $(value 1 'SELECT count(DISTINCT package) FROM history') packages"
shares=$(each 'SELECT count(*) FROM log_line')
claim_equal "each line is in the share of one broker: $(printf '%s' "$shares" | tr '\n' ' ')" \
	"$(total 'SELECT count(*) FROM log_line')" "$lines"

batch=$((lines / 150))
[ $batch -ge 1 ] || batch=1
[ $batch -le 500 ] || batch=500
step "Three producers at once, one at each broker, $batch messages a transaction, each to partitions of all brokers"
producers=()
for broker in 1 2 3; do
	psql_demo $broker -c "CALL produce_all($broker, '$TOPIC', $batch)" >"$PGT_TMP/producer-$broker.out" 2>&1 </dev/null &
	producers+=($!)
done
wait_until "three producers" all_are_true "SELECT count(*) = 1 FROM ready"
each 'INSERT INTO go DEFAULT VALUES'
for broker in 1 2 3; do
	wait "${producers[broker - 1]}" || fail "the producer at broker $broker ended with an error"
done
claim_equal "every line is marked as produced, in the transaction that produced it" \
	"$(total 'SELECT count(*) FROM log_line WHERE produced')" "$lines"
wait_until "watermarks to come to all brokers" all_are_true \
	"SELECT sum(high_watermark) >= $lines AND bool_and(high_watermark = log_end_offset) FROM partition_status"
sql 1 "SELECT partition, leader, replicas, isr, log_start_offset, high_watermark, log_end_offset
     FROM partition_status ORDER BY partition"
watermarks="SELECT string_agg(concat_ws(' ', partition, high_watermark), ', ' ORDER BY partition) FROM partition_status"
claim_equal "all three brokers have the same high watermarks" "$(each "$watermarks" | sort -u | wc -l)" 1
claim "the topic holds as many messages as the history has lines" 2 \
	"SELECT sum(high_watermark - log_start_offset) = $lines FROM partition_status"
claim "the producers worked at the same time: in each partition messages of all three are mixed" 3 \
	"SELECT bool_and(begins < ends) FROM (
	   SELECT partition, max(first) AS begins, min(last) AS ends FROM (
	     SELECT partition, headers->>'produced at broker' AS broker, min(log_offset) AS first, max(log_offset) AS last
	     FROM own_copy('$TOPIC') GROUP BY 1, 2) b
	   GROUP BY partition HAVING count(*) = 3 OR $lines > 1000) p"

step "Three consumers of one group, one at each broker, apply them to tables of their brokers"
batch=$((lines / 200))
[ $batch -ge 1 ] || batch=1
[ $batch -le 100 ] || batch=100
say "  each takes up to $batch messages a transaction, from whichever partition is free, and applies them in that transaction"
sql 1 "SELECT create_consumer_group('package-state', '$TOPIC')"
each 'TRUNCATE ready, go'
consumers=()
for i in 1 2 3; do
	PGAPPNAME=consumer-$i psql_demo $i \
		-c "CALL consume_all('consumer-$i', '$TOPIC', $batch$([ $i = 1 ] && echo ', pause_after => 2'))" \
		>"$PGT_TMP/consumer-$i.out" 2>&1 </dev/null &
	consumers+=($!)
done
wait_until "three consumers" all_are_true "SELECT count(*) = 1 FROM ready"
each 'INSERT INTO go DEFAULT VALUES'

step "The one at broker 1 is killed, in the middle"
wait_until "consumer-1 to be in the middle" is_true 1 \
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'consumer-1' AND wait_event = 'PgSleep'
	 AND EXISTS (SELECT FROM applied WHERE consumer = 'consumer-1')"
read -r partition first last held <<<"$(sed -n 's/.*holds \(.*\)/\1/p' "$PGT_TMP/consumer-1.out")"
[ -n "${held:-}" ] || fail "consumer-1 holds nothing"
before=$(value 1 "SELECT count(*) FROM applied")
say "  consumer-1 has committed $before messages, and has applied $held more without a commit:"
say "  partition $partition, which broker $(value 1 "SELECT leader FROM partition_status WHERE partition = $partition") leads, offsets $first to $last"
[ "$before" -gt 0 ] || fail "consumer-1 has committed nothing"
lag=$(value 2 "SELECT sum(lag) FROM consumer_group_status WHERE consumer_group = 'package-state'")
[ "$lag" -ge "$held" ] || fail "there was nothing left to consume"
held_elsewhere="SELECT count(*) FROM applied WHERE partition = $partition AND log_offset BETWEEN $first AND $last"
claim_equal "nobody sees what it has not committed" "$(total "$held_elsewhere")" 0
sql 1 "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'consumer-1'"
if wait "${consumers[0]}"; then
	fail "consumer-1 ended by itself"
fi
grep -q 'terminating connection' "$PGT_TMP/consumer-1.out" || fail "consumer-1 ended in another way"

say "  the other two go on"
wait "${consumers[1]}" || fail "consumer-2 ended with an error"
wait "${consumers[2]}" || fail "consumer-3 ended with an error"
for broker in 1 2 3; do
	psql_demo $broker -At -c "SELECT format('  broker %s: %s has applied %s messages of partitions %s', $broker,
		max(consumer), count(*), string_agg(DISTINCT partition::text, ', ')) FROM applied"
done
claim "consumer-1 added nothing after its last commit: what it held was rolled back" 1 \
	"SELECT count(*) = $before FROM applied"
claim_equal "the others took over the $held messages that it held" "$(total "$held_elsewhere")" "$held"

step "Every line exactly once, each package's lines in the order of the log"
# what was applied at the others comes to broker 1, to be looked at together
value 1 "CREATE TABLE applied_everywhere AS SELECT 1 AS broker, * FROM applied;
	CREATE TABLE state_everywhere AS SELECT 1 AS broker, * FROM package_state" || fail "no tables"
for broker in 2 3; do
	for table in applied package_state; do
		psql_demo $broker -c "COPY (SELECT $broker, * FROM $table) TO STDOUT" |
			psql_demo 1 -c "COPY $([ $table = applied ] && echo applied || echo state)_everywhere FROM STDIN" ||
			fail "could not copy $table from broker $broker"
	done
done
claim "all $lines lines were applied, none twice" 1 \
	"SELECT count(*) = $lines AND count(DISTINCT line_no) = $lines FROM applied_everywhere"
claim "and they are the lines of the log" 1 \
	"SELECT NOT EXISTS (SELECT line_no, package FROM history EXCEPT SELECT line_no, package FROM applied_everywhere)"
claim "the order of each package's lines is the log's, whoever applied them" 1 \
	"SELECT NOT EXISTS (
	   SELECT FROM (SELECT line_no, lag(line_no) OVER (PARTITION BY package ORDER BY applied_at, log_offset) AS before
	                FROM applied_everywhere WHERE package IS NOT NULL) a
	   WHERE before >= line_no)"
value 1 "CREATE VIEW package_state_expected AS
	SELECT package, (array_agg(line ORDER BY line_no DESC))[1] AS last_line, max(line_no) AS last_line_no, count(*) AS lines
	FROM history WHERE package IS NOT NULL GROUP BY package;
	CREATE VIEW package_state_together AS
	SELECT package, (array_agg(last_line ORDER BY last_line_no DESC))[1] AS last_line, max(last_line_no) AS last_line_no,
	       sum(lines)::bigint AS lines
	FROM state_everywhere GROUP BY package" || fail "no view"
claim "package_state of the three brokers together is what the log says" 1 \
	"SELECT NOT EXISTS (TABLE package_state_together EXCEPT TABLE package_state_expected)
	 AND NOT EXISTS (TABLE package_state_expected EXCEPT TABLE package_state_together)"
sql 1 "SELECT package, lines, last_line FROM package_state_together ORDER BY last_line_no DESC LIMIT 5"

step "Positions and lag, the same wherever one looks"
positions="SELECT partition, committed_offset, log_end_offset, lag FROM consumer_group_status
     WHERE consumer_group = 'package-state' ORDER BY partition"
at_the_end="SELECT count(*) = 6 AND bool_and(lag = 0 AND committed_offset = log_end_offset)
	 FROM consumer_group_status WHERE consumer_group = 'package-state'"
wait_until "positions to come to all brokers" all_are_true "$at_the_end"
sql 3 "$positions"

step "A broker is stopped. Before that, what it leads is handed over"
for partition in $(value 2 'SELECT partition FROM partition_status WHERE leader = 3 ORDER BY 1'); do
	sql 2 "SELECT elect_leader('$TOPIC', $partition, (SELECT min(b) FROM partition_status, unnest(isr) b
                                          WHERE partition = $partition AND b <> leader))"
done
claim "broker 3 leads nothing any more" 2 "SELECT count(*) = 0 FROM partition_status WHERE leader = 3"
wait_until "broker 3 to have copied from the new leaders" is_true 3 \
	"SELECT count(*) = 6 AND bool_and(state = 'ready') FROM replication_status"
PGT_DATADIR=$PGT_TMP/broker3/data stop_server fast
say "  broker 3 is stopped. A commit waits for it until it counts as not in sync (here 3 s, by default 10 s):"
started=$SECONDS
sql 1 "SELECT count(*) AS partitions, sum(last_offset - first_offset + 1) AS messages FROM produce_batch('$TOPIC',
       ARRAY(SELECT 'produced while broker 3 is away ' || n FROM generate_series(1, 1000) n),
       keys => ARRAY(SELECT 'away ' || n FROM generate_series(1, 1000) n))"
say "  that took $((SECONDS - started)) s. From now on it does not:"
sql 2 "SELECT * FROM produce('$TOPIC', 'another one', key => 'away')"
wait_until "the ISR to shrink" is_true 1 "SELECT bool_and(isr <@ '{1,2}') FROM partition_status"
sql 1 "SELECT partition, leader, replicas, isr, high_watermark FROM partition_status ORDER BY partition"
sql 1 "SELECT broker, state, last_seen, partitions_led, replicas FROM broker_status"

step "It comes back, copies what it has missed, and leads again what it led"
PGT_DATADIR=$PGT_TMP/broker3/data
(cd / && in_temp pg_ctl start -w -t 60 -s -D "$PGT_DATADIR" -l "$PGT_TMP/broker3/log") </dev/null >&2 ||
	fail "broker 3 does not start"
wait_until "broker 3 to catch up" all_are_true \
	"SELECT bool_and(cardinality(isr) = 3) AND (SELECT bool_and(state = 'ready') FROM replication_status) FROM partition_status"
for partition in $(value 1 'SELECT partition FROM partition_status WHERE leader <> replicas[1] ORDER BY 1'); do
	sql 1 "SELECT elect_leader('$TOPIC', $partition)"
done
wait_until "all to know" all_are_true "SELECT bool_and(leader = replicas[1] AND cardinality(isr) = 3) FROM partition_status"
wait_until "watermarks to come to all brokers" all_are_true \
	"SELECT sum(high_watermark) >= $((lines + 1001)) AND bool_and(high_watermark = log_end_offset) FROM partition_status"
sql 3 "SELECT partition, leader, leader_epoch, replicas, isr, high_watermark FROM partition_status ORDER BY partition"

step "All replicas have the same: a checksum of each partition, from each broker's own tables"
checksums()
{
	psql_demo "$1" -At -F ' ' -c 'SELECT partition, messages, checksum FROM own_copy_checksums ORDER BY partition'
}
checksums 1 >"$PGT_TMP/sums1"
checksums 2 >"$PGT_TMP/sums2"
checksums 3 >"$PGT_TMP/sums3"
paste -d ' ' "$PGT_TMP"/sums[123] | awk '
	BEGIN { printf "  %-10s%-10s%-34s%-34s%-34s\n", "partition", "messages", "broker 1", "broker 2", "broker 3" }
	{ printf "  %-10s%-10s%-34s%-34s%-34s\n", $1, $2, $3, $6, $9 }'
claim_equal "content is there" "$(awk '{ n += $2 } END { print NR, n }' "$PGT_TMP/sums1")" "6 $((lines + 1001))"
claim_equal "and it is equal on all three brokers" "$(cat "$PGT_TMP"/sums[123] | sort -u | wc -l)" 6
rm -f "$PGT_TMP"/sums[123]

step "A second group reads it all again, from the start, through broker 2"
replay="INSERT INTO replayed
     SELECT partition, log_offset FROM consume('$TOPIC', 'replay', max_messages => 1000)"
value 2 'CREATE TABLE replayed (partition int, log_offset bigint)' || fail "no table"
sql 2 "SELECT create_consumer_group('replay', '$TOPIC')"
say "  again and again, until its lag is 0:"
printf '%s\n' "$replay" | sed 's/^/    /'
rounds=0
until is_true 2 "SELECT NOT EXISTS (SELECT FROM consumer_group_status WHERE consumer_group = 'replay' AND lag > 0)"; do
	value 2 "$replay" || fail "the replay failed"
	rounds=$((rounds + 1))
	[ $rounds -le $((lines / 1000 + 100)) ] || fail "the replay does not come to an end"
done
claim "the second group had every message once" 2 \
	"SELECT count(*) = $((lines + 1001)) AND count(DISTINCT (partition, log_offset)) = $((lines + 1001)) FROM replayed"

step "All of it held. The servers go on running; look around with"
for broker in 1 2 3; do
	say "  $psql -h $PGT_TMP -p $((PORT + broker - 1)) -U postgres demo      # broker $broker"
done
say "for example:"
say "  SELECT * FROM broker_status;"
say "  SELECT * FROM partition_status;"
say "  SELECT * FROM replication_status;"
say "  SELECT * FROM consumer_group_status;"
say "  SELECT * FROM fetch_messages('$TOPIC', 0, 0, max_messages => 5);"
say "  SELECT * FROM own_copy_checksums;"
say "'make demo-stop' stops them and removes everything."
