#!/bin/bash
# The main job on real input: this machine's package history goes through a topic and becomes a table of
# each package's current state, by three consumers of which one is killed.  Says what it does, checks
# what it claims, and ends with an error where that does not hold.  The server stays, for a look around;
# demo-stop.sh removes it.
. "$(dirname "$0")/lib.sh"

TOPIC=package-history

step()
{
	printf '\n== %s\n' "$*"
}

# sql TEXT: shows it and its result.
sql()
{
	printf '%s\n' "$1" | sed 's/^/    /'
	psql_demo -P footer=off -c "$1" || fail "the statement above failed"
}

# value TEXT: its one result, shown by nobody.
value()
{
	psql_demo -AtX -c "$1"
}

psql_demo()
{
	in_temp psql -X -q -v ON_ERROR_STOP=1 -d demo "$@"
}

# claim WORDS SQL: SQL must be true.
claim()
{
	local result
	result=$(value "$2")
	if [ "$result" != t ]; then
		printf '%s\n' "$2" | sed 's/^/    /' >&2
		fail "this does not hold: $1"
	fi
	say "  checked: $1"
}

fail()
{
	{
		printf '\nDEMO FAILED: %s\n' "$*"
		for log in "$PGT_TMP"/consumer-*.log; do
			if [ -s "$log" ]; then
				say "-- ${log##*/}"
				tail -n 10 "$log"
			fi
		done
		say "-- the server's log"
		tail -n 20 "$PGHOST/log"
		say "The server still runs: $LOOK"
		say "'make demo-stop' removes it."
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
	done
}

is_true()
{
	[ "$(value "$1")" = t ]
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
PGT_DATADIR=
trap 'clean_up immediate' EXIT
say "== build and install for PostgreSQL $PGT_VERSION"
build_and_install "$PGT_TMP" || exit 1
# A folder that the server's user can read, which the tree need not be.
cd "$PGT_TMP" || exit 1

PGT_CONF='fsync = on' start_server s || exit 1
(umask 077; set -C; printf '%s\n' "$PGT_TMP" "$PGT_DATADIR" "$PGT_BINDIR" "$PGT_USER" >"$STATE") ||
	die "cannot write $STATE"
trap - EXIT
trap 'exit 130' INT
psql=psql
[ "$(command -v psql)" ] || psql=$PGT_BINDIR/psql
LOOK="$psql -h $PGHOST -p $PGPORT -U postgres demo"
say "   a private server runs in $PGT_TMP"

step "A database with the extension, and a topic with 4 partitions"
in_temp psql -X -q -d postgres -c 'CREATE DATABASE demo' || fail "no database"
sql 'CREATE EXTENSION pgtopic'
sql "SELECT create_topic('$TOPIC', partitions => 4)"

step "This machine's package history: every line becomes a message, its key is the package"
psql_demo -f - <"$TOP/test/demo/setup.sql" || fail "setup.sql"
read_history | psql_demo -c "COPY log_line FROM STDIN (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')" ||
	fail "could not read the history"
lines=$(value 'SELECT count(*) FROM log_line')
[ "$lines" -gt 0 ] || fail "there is no history on this machine"
say "  $lines lines about $(value 'SELECT count(DISTINCT package) FROM log_line') packages"
sql "SELECT * FROM produce_batch('$TOPIC',
       (SELECT array_agg(line ORDER BY line_no) FROM log_line),
       keys => (SELECT array_agg(package ORDER BY line_no) FROM log_line),
       headers => (SELECT array_agg(jsonb_build_object('line', line_no) ORDER BY line_no) FROM log_line))"
claim "the topic holds as many messages as the history has lines" \
	"SELECT sum(log_end_offset - log_start_offset) = $lines FROM partition_status WHERE topic = '$TOPIC'"

step "Three consumers of one group, in three sessions, apply them to the table package_state"
batch=$((lines / 200))
[ $batch -ge 1 ] || batch=1
[ $batch -le 100 ] || batch=100
say "  each takes up to $batch messages a transaction, and applies them in that transaction"
sql "SELECT create_consumer_group('package-state', '$TOPIC')"

# A session of ours holds two locks: 1 until all consumers are there, 2 to hold the first one before a commit.
coproc CONTROL { in_temp psql -X -q -At -d demo 2>&1; }
control()
{
	local answer
	printf '%s\n' "$1" "\\echo done" >&"${CONTROL[1]}"
	while read -r -t 60 answer <&"${CONTROL[0]}"; do
		[ "$answer" != done ] || return 0
	done
	fail "the controlling session does not answer"
}
control 'SELECT pg_advisory_lock(1), pg_advisory_lock(2);'

consumers=()
for i in 1 2 3; do
	PGAPPNAME=consumer-$i psql_demo \
		-c "CALL consume_all('consumer-$i', '$TOPIC', $batch$([ $i = 1 ] && echo ', pause_after => 2'))" \
		>"$PGT_TMP/consumer-$i.log" 2>&1 </dev/null &
	consumers+=($!)
done
wait_until "three consumers" is_true \
	"SELECT count(*) = 3 FROM pg_stat_activity WHERE application_name LIKE 'consumer-%' AND wait_event = 'advisory'"
control 'SELECT pg_advisory_unlock(1);'

step "One of them is killed, in the middle"
wait_until "consumer-1 to be in the middle" is_true \
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'consumer-1' AND wait_event = 'advisory'
	 AND EXISTS (SELECT FROM applied WHERE consumer = 'consumer-1')"
read -r partition first last held <<<"$(sed -n 's/.*holds \(.*\)/\1/p' "$PGT_TMP/consumer-1.log")"
[ -n "${held:-}" ] || fail "consumer-1 holds nothing"
before=$(value "SELECT count(*) FROM applied WHERE consumer = 'consumer-1'")
say "  consumer-1 has committed $before messages, and has applied $held more without a commit:"
say "  partition $partition, offsets $first to $last"
claim "it was midway: it had committed some, and for the group there were messages left" \
	"SELECT $before > 0 AND (SELECT sum(lag) >= $held FROM consumer_group_status WHERE consumer_group = 'package-state')"
claim "nobody sees what it has not committed" \
	"SELECT NOT EXISTS (SELECT FROM applied WHERE partition = $partition AND log_offset BETWEEN $first AND $last)"
sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'consumer-1'"
if wait "${consumers[0]}"; then
	fail "consumer-1 ended by itself"
fi
grep -q 'terminating connection' "$PGT_TMP/consumer-1.log" || fail "consumer-1 ended in another way"

say "  the other two go on"
wait "${consumers[1]}" || fail "consumer-2 ended with an error"
wait "${consumers[2]}" || fail "consumer-3 ended with an error"
printf '\\q\n' >&"${CONTROL[1]}"
sql "SELECT consumer, count(*) AS messages, array_agg(DISTINCT partition) AS partitions
     FROM applied GROUP BY consumer ORDER BY consumer"
claim "consumer-1 added nothing after its last commit: what it held was rolled back" \
	"SELECT count(*) = $before FROM applied WHERE consumer = 'consumer-1'"
claim "the others took over what it held" \
	"SELECT count(*) = $held AND bool_and(consumer <> 'consumer-1')
	 FROM applied WHERE partition = $partition AND log_offset BETWEEN $first AND $last"

step "Every line exactly once, each package's lines in the order of the log"
claim "all $lines lines were applied, none twice" \
	"SELECT count(*) = $lines AND count(DISTINCT line_no) = $lines FROM applied"
claim "and they are the lines of the log" \
	"SELECT NOT EXISTS (SELECT line_no, package FROM log_line EXCEPT SELECT line_no, package FROM applied)"
claim "the order of each package's lines is the log's" \
	"SELECT NOT EXISTS (
	   SELECT FROM (SELECT line_no, lag(line_no) OVER (PARTITION BY package ORDER BY seq) AS before
	                FROM applied WHERE package IS NOT NULL) a
	   WHERE before >= line_no)"
value "CREATE VIEW package_state_expected AS
	SELECT package, (array_agg(line ORDER BY line_no DESC))[1] AS last_line, max(line_no) AS last_line_no, count(*) AS lines
	FROM log_line WHERE package IS NOT NULL GROUP BY package" || fail "no view"
claim "package_state is what the log says" \
	"SELECT NOT EXISTS (TABLE package_state EXCEPT TABLE package_state_expected)
	 AND NOT EXISTS (TABLE package_state_expected EXCEPT TABLE package_state)"
sql "SELECT package, lines, last_line FROM package_state ORDER BY last_line_no DESC LIMIT 5"

step "Positions and lag"
sql "SELECT topic, partition, committed_offset, log_end_offset, lag FROM consumer_group_status
     WHERE consumer_group = 'package-state' ORDER BY partition"
claim "the group is at the end of all 4 partitions" \
	"SELECT count(*) = 4 AND bool_and(lag = 0 AND committed_offset = log_end_offset)
	 FROM consumer_group_status WHERE consumer_group = 'package-state'"

step "A second group reads it all again, from the start"
replay="INSERT INTO package_state_replayed AS s
     SELECT key, (array_agg(value ORDER BY log_offset DESC))[1], max((headers->>'line')::bigint), count(*)
     FROM consume('$TOPIC', 'replay', max_messages => 1000) WHERE key IS NOT NULL GROUP BY key
     ON CONFLICT (package) DO UPDATE
     SET last_line = excluded.last_line, last_line_no = excluded.last_line_no, lines = s.lines + excluded.lines"
sql "SELECT create_consumer_group('replay', '$TOPIC')"
say "  again and again, until its lag is 0:"
printf '%s\n' "$replay" | sed 's/^/    /'
rounds=0
until is_true "SELECT NOT EXISTS (SELECT FROM consumer_group_status WHERE consumer_group = 'replay' AND lag > 0)"; do
	value "$replay" || fail "the replay failed"
	rounds=$((rounds + 1))
	[ $rounds -le $((lines / 1000 + 100)) ] || fail "the replay does not come to an end"
done
claim "the second group came to the same state" \
	"SELECT NOT EXISTS (TABLE package_state_replayed EXCEPT TABLE package_state)
	 AND NOT EXISTS (TABLE package_state EXCEPT TABLE package_state_replayed)"
claim "and the first group's positions did not move" \
	"SELECT bool_and(lag = 0) FROM consumer_group_status WHERE consumer_group = 'package-state'"

step "All of it held. The server goes on running; look around with"
say "  $LOOK"
say "for example:"
say "  SELECT * FROM partition_status;"
say "  SELECT * FROM consumer_group_status;"
say "  SELECT * FROM fetch_messages('$TOPIC', 0, 0, max_messages => 5);"
say "  SELECT * FROM package_state WHERE package LIKE 'libc%';"
say "'make demo-stop' stops it and removes everything."
