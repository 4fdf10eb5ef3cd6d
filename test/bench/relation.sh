#!/bin/bash
# relation.sh: a topic as a relation.  Runs in with-server.sh (make bench-relation).
#
# COPY of a million rows of 100 bytes into a topic, and into a table with an identity primary key, in turns; then a SELECT
# of all of them, and of the last ten, from the topic.  BENCH_ROUNDS=n, BENCH_ROWS=n.
set -euo pipefail
rounds=${BENCH_ROUNDS:-5}
rows=${BENCH_ROWS:-1000000}
data=$PGT_TMP/rows.txt

run() { psql -XqAt -v ON_ERROR_STOP=1 "$@"; }
# Milliseconds that a statement takes, by psql's clock.
took() { run -c '\timing on' -c "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'; }
# Milliseconds of a query's execution, without the client.
executed() {
	run -c "EXPLAIN (ANALYZE, TIMING OFF) $1" | sed -n 's/^Execution Time: \([0-9.]*\) ms.*/\1/p'
}
median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

run -c "COPY (SELECT lpad(n::text, 100, 'x') FROM generate_series(1, $rows) n) TO '$data'"
run -c 'CREATE EXTENSION IF NOT EXISTS pgtopic'
: > "$PGT_TMP/copies"; : > "$PGT_TMP/selects"; : > "$PGT_TMP/last"
for round in $(seq 0 "$rounds"); do
	run -o /dev/null -c "SELECT create_topic('bench.copy')" \
		-c 'CREATE TABLE bench_copy (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, value text)' -c CHECKPOINT
	topic=$(took "COPY topics.\"bench.copy\" (value) FROM '$data'")
	run -c CHECKPOINT
	table=$(took "COPY bench_copy (value) FROM '$data'")
	select=$(executed 'SELECT count(value), sum(length(value)) FROM topics."bench.copy"')
	took 'SELECT * FROM topics."bench.copy" ORDER BY log_offset DESC LIMIT 10' >> "$PGT_TMP/last"
	[ "$(run -c 'SELECT count(*) FROM topics."bench.copy"')" = "$rows" ]
	run -o /dev/null -c "SELECT drop_topic('bench.copy')" -c 'DROP TABLE bench_copy'
	# the first one warms up
	[ "$round" = 0 ] && continue
	echo "$topic $table" >> "$PGT_TMP/copies"
	awk -v ms="$select" -v rows="$rows" 'BEGIN { print rows / ms / 1000 }' >> "$PGT_TMP/selects"
done

awk -v rows="$rows" '{ print rows / $1 / 1000 }' "$PGT_TMP/copies" | median | xargs printf 'COPY into a topic: %.2f million rows/s\n'
awk -v rows="$rows" '{ print rows / $2 / 1000 }' "$PGT_TMP/copies" | median | xargs printf 'COPY into a table with a primary key: %.2f million rows/s\n'
awk '{ print $2 / $1 }' "$PGT_TMP/copies" | median | xargs printf 'ratio: %.2f\n'
median < "$PGT_TMP/selects" | xargs printf 'SELECT count(value), sum(length(value)) of all: %.2f million messages/s\n'
median < "$PGT_TMP/last" | xargs printf 'SELECT … ORDER BY log_offset DESC LIMIT 10, in a new session: %.2f ms\n'
