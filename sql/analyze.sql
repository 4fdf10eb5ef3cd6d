-- ANALYZE of a topic's relation, and the plans of joins.

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_analyze;
RESET client_min_messages;

-- the rows that the planner expects at each node
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN ' || query LOOP
        RETURN NEXT regexp_replace(line, '\(cost=\S+ rows=(\d+) width=\d+\)', '(rows=\1)');
    END LOOP;
END $$;
-- what ANALYZE says of it
CREATE FUNCTION rows_of(topic text) RETURNS bigint LANGUAGE sql AS $$
    SELECT reltuples::bigint FROM pg_class WHERE oid = format('topics.%I', topic)::regclass $$;

SELECT create_topic('analyze', partitions => 2, segment_messages => 1000);
SELECT create_topic('analyze.json', value_format => 'json');
SELECT create_topic('analyze.bytes', value_format => 'bytes');
SELECT create_topic('analyze.empty');

-- nothing, and little
ANALYZE topics."analyze.empty";
SELECT rows_of('analyze.empty');
INSERT INTO topics.analyze (partition, key, value)
    SELECT n % 4 / 3, 'k' || n % 50, CASE WHEN n % 10 > 0 THEN 'v' || n END FROM generate_series(0, 3999) n;
ANALYZE topics.analyze;
SELECT rows_of('analyze'), relpages > 10 AS has_pages FROM pg_class WHERE oid = 'topics.analyze'::regclass;
SELECT attname, null_frac, n_distinct FROM pg_stats WHERE schemaname = 'topics' AND tablename = 'analyze' ORDER BY 1;
SELECT attname, round(correlation) AS correlation FROM pg_stats WHERE tablename = 'analyze' AND attname = 'partition';
-- what JSON is, and what is bytes
INSERT INTO topics."analyze.json" (value) SELECT jsonb_build_object('n', n % 3) FROM generate_series(1, 30) n;
INSERT INTO topics."analyze.bytes" (key, value) SELECT '\x00', decode(lpad(to_hex(n), 8, '0'), 'hex') FROM generate_series(1, 30) n;
ANALYZE topics."analyze.json", topics."analyze.bytes" (value);
SELECT tablename, attname, n_distinct FROM pg_stats WHERE tablename IN ('analyze.json', 'analyze.bytes') AND attname IN ('key', 'value') ORDER BY 1, 2;
SELECT most_common_vals FROM pg_stats WHERE tablename = 'analyze.json' AND attname = 'value';

-- it makes plans: of filters, and of joins
SELECT plan($$SELECT * FROM topics.analyze WHERE key = 'k7'$$);
CREATE TABLE analyze_done (part int, log_off bigint, PRIMARY KEY (part, log_off));
INSERT INTO analyze_done SELECT n % 2, n / 2 FROM generate_series(0, 1999) n;
ANALYZE analyze_done;
SELECT plan($$SELECT * FROM topics.analyze m JOIN analyze_done d ON d.part = m.partition AND d.log_off = m.log_offset$$);
-- a few of them: no more is read than that
SET enable_bitmapscan = off;
SET enable_indexscan = off;
SELECT plan($$SELECT * FROM analyze_done d JOIN topics.analyze m ON m.partition = d.part AND m.log_offset = d.log_off WHERE d.log_off < 3$$);
RESET enable_bitmapscan;
RESET enable_indexscan;
-- of many partitions: not each for each row, unless it is known which one it is
SELECT create_topic('analyze.many', partitions => 50);
INSERT INTO topics."analyze.many" (partition, value) SELECT n % 50, 'v' || n FROM generate_series(0, 49999) n;
CREATE TABLE analyze_ids AS SELECT n % 50 AS partition, n * 20::bigint AS log_offset FROM generate_series(0, 49) n;
ANALYZE analyze_ids;
SELECT plan($$SELECT * FROM analyze_ids JOIN topics."analyze.many" USING (log_offset)$$);
SELECT count(*), count(DISTINCT value) FROM analyze_ids JOIN topics."analyze.many" USING (log_offset);
SELECT plan($$SELECT * FROM analyze_ids JOIN topics."analyze.many" USING (partition, log_offset)$$);

-- a sample is a sample, and offsets that were rolled back are no messages
BEGIN;
INSERT INTO topics."analyze.empty" (value) SELECT 'gone' FROM generate_series(1, 20000);
ROLLBACK;
INSERT INTO topics."analyze.empty" (key, value) SELECT n % 10, 'here' FROM generate_series(1, 20000) n;
SET default_statistics_target = 10;
ANALYZE topics."analyze.empty";
SELECT rows_of('analyze.empty') BETWEEN 16000 AND 24000 AS about_half;
SELECT attname, null_frac, n_distinct FROM pg_stats WHERE tablename = 'analyze.empty' AND attname IN ('key', 'value') ORDER BY 1;
SELECT abs(avg(f) - 0.1) < 0.001 AND max(f) < 0.15 AND min(f) > 0.05 AS each_is_as_likely FROM pg_stats, unnest(most_common_freqs) f WHERE tablename = 'analyze.empty' AND attname = 'key';
RESET default_statistics_target;

-- long values do not take more memory than they may
SELECT create_topic('analyze.long');
INSERT INTO topics."analyze.long" (value) SELECT repeat('x', 100000) || n FROM generate_series(1, 100) n;
SET maintenance_work_mem = '1MB';
ANALYZE topics."analyze.long";
RESET maintenance_work_mem;
SELECT cardinality(histogram_bounds::text::bigint[]) AS in_sample FROM pg_stats WHERE tablename = 'analyze.long' AND attname = 'log_offset';
SELECT rows_of('analyze.long');
SELECT avg_width FROM pg_stats WHERE tablename = 'analyze.long' AND attname = 'value';

-- in a transaction, with what it has produced
BEGIN;
INSERT INTO topics."analyze.bytes" (value) SELECT '\x01' FROM generate_series(1, 10);
ANALYZE topics."analyze.bytes";
SELECT rows_of('analyze.bytes');
ROLLBACK;
-- it is the owner's to do; who does it without being it, is warned, in words of the server's version
CREATE ROLE regress_analyze;
GRANT SELECT, INSERT ON topics.analyze TO regress_analyze;
SET ROLE regress_analyze;
INSERT INTO topics.analyze (partition, value) VALUES (0, 'one more');
SET client_min_messages = error;
ANALYZE topics.analyze;
RESET client_min_messages;
RESET ROLE;
SELECT rows_of('analyze');
ALTER FOREIGN TABLE topics.analyze OWNER TO regress_analyze;
SET ROLE regress_analyze;
ANALYZE topics.analyze;
RESET ROLE;
SELECT rows_of('analyze');
-- statistics of several columns are asked for as of any table
CREATE STATISTICS analyze_both ON partition, key FROM topics.analyze;
ANALYZE topics.analyze;
SELECT n_distinct FROM pg_stats_ext WHERE statistics_name = 'analyze_both';

-- a topic can be a child of a table, or a partition of one
CREATE TABLE analyze_all (partition int, log_offset bigint, "timestamp" timestamptz, key text, value text, headers jsonb);
ALTER FOREIGN TABLE topics.analyze INHERIT analyze_all;
SELECT tableoid::regclass, count(*) FROM analyze_all GROUP BY 1;
ANALYZE analyze_all;
SELECT attname, n_distinct FROM pg_stats WHERE tablename = 'analyze_all' AND inherited AND attname IN ('partition', 'key') ORDER BY 1;
DELETE FROM analyze_all;
-- ... whose columns stay as they are
ALTER TABLE analyze_all ADD COLUMN more text; \echo :SQLSTATE
ALTER TABLE analyze_all RENAME COLUMN key TO k; \echo :SQLSTATE
ALTER TABLE analyze_all ALTER COLUMN value TYPE varchar; \echo :SQLSTATE
ALTER EVENT TRIGGER pgtopic_relation_altered DISABLE;
BEGIN;
ALTER TABLE analyze_all ADD COLUMN more text;
SAVEPOINT s;
SELECT * FROM topics.analyze; \echo :SQLSTATE
ROLLBACK TO s;
INSERT INTO topics.analyze (value) VALUES ('x'); \echo :SQLSTATE
ROLLBACK TO s;
COPY topics.analyze (value) FROM '/dev/null'; \echo :SQLSTATE
ROLLBACK TO s;
ANALYZE topics.analyze; \echo :SQLSTATE
ROLLBACK;
ALTER EVENT TRIGGER pgtopic_relation_altered ENABLE ALWAYS;
ALTER FOREIGN TABLE topics.analyze NO INHERIT analyze_all;
DROP TABLE analyze_all;
CREATE TABLE analyze_all (source text, partition int, log_offset bigint, "timestamp" timestamptz, key text, value text, headers jsonb) PARTITION BY LIST (partition);
ALTER TABLE analyze_all DROP COLUMN source;
ALTER TABLE analyze_all ATTACH PARTITION topics.analyze FOR VALUES IN (0, 1);
INSERT INTO analyze_all (partition, key, value) VALUES (1, 'routed', 'row') RETURNING partition, log_offset, value;
COPY analyze_all (partition, key, value) FROM stdin;
1	routed	copy
\.
SELECT log_offset, value FROM analyze_all WHERE key = 'routed' ORDER BY log_offset DESC;
ALTER TABLE analyze_all DETACH PARTITION topics.analyze;
DROP TABLE analyze_all;

DROP FUNCTION plan(text);
DROP FUNCTION rows_of(text);
DROP TABLE analyze_done, analyze_ids;
SELECT drop_topic(t::topic) FROM unnest('{analyze,analyze.json,analyze.bytes,analyze.empty,analyze.long,analyze.many}'::text[]) t;
DROP ROLE regress_analyze;
