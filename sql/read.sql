-- fetch_messages() and offsets_at().

SET timezone = 'UTC';
SET datestyle = 'ISO';

--
-- Types and columns
--
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
WHERE a.attrelid = (SELECT typrelid FROM pg_type WHERE oid = 'message'::regtype) AND a.attnum > 0 ORDER BY a.attnum;
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
WHERE a.attrelid = (SELECT typrelid FROM pg_type WHERE oid = 'message_bytes'::regtype) AND a.attnum > 0 ORDER BY a.attnum;

SELECT create_topic('read.log', partitions => 2);
SELECT * FROM fetch_messages('read.log', 0, 0);
SELECT * FROM produce('read.log', 'single', key => 'k', headers => '{"n": 1}', partition => 0, "timestamp" => '2024-05-06 07:08:09.123456');
SELECT * FROM fetch_messages('read.log', 0, 0);
SELECT * FROM fetch_messages('read.log', partition => 0, from_offset => 0, max_messages => 1, max_wait => '0');
SELECT m, (m).value FROM fetch_messages('read.log', 0, 0) m;
SELECT * FROM fetch_messages_bytes('read.log', 0, 0);
-- stored as what they are
CREATE TEMP TABLE read_stored AS SELECT m FROM fetch_messages('read.log', 0, 0) m;
SELECT pg_typeof(m), (m).key, (m)."timestamp" FROM read_stored;

--
-- From any offset, up to any number
--
SELECT * FROM produce_batch('read.log', ARRAY(SELECT 'a' || i FROM generate_series(1, 9) i), partition => 0);
SELECT * FROM produce('read.log', 'b10', partition => 0);
SELECT * FROM produce_batch('read.log', ARRAY(SELECT 'c' || i FROM generate_series(11, 19) i), partition => 0);
-- from the middle of a batch, over its end, up to the middle of the next but one
SELECT log_offset, value FROM fetch_messages('read.log', 0, 7, 6);
SELECT log_offset, value FROM fetch_messages('read.log', 0, 9, 1);
SELECT log_offset, value FROM fetch_messages('read.log', 0, 10, 2);
SELECT log_offset, value FROM fetch_messages('read.log', 0, 19);
-- every range there is
SELECT count(*), bool_and(n = LEAST(max, 20 - start)) AS right_number, bool_and(first = start) AS right_start, bool_and(last = start + n - 1) AS right_end
FROM generate_series(0, 19) start, generate_series(1, 21) max,
    LATERAL (SELECT count(*) AS n, min(log_offset) AS first, max(log_offset) AS last FROM fetch_messages('read.log', 0, start, max)) m;
SELECT count(*) FROM fetch_messages('read.log', 0, 0, 2147483647);
-- 500 unless said
SELECT count(*) FROM produce_batch('read.log', ARRAY(SELECT i::text FROM generate_series(1, 1000) i), partition => 1);
SELECT count(*), max(log_offset) FROM fetch_messages('read.log', 1, 0);
SELECT count(*), max(log_offset) FROM fetch_messages('read.log', 1, 100);
-- the end of the log is a position too: there is nothing yet
SELECT * FROM fetch_messages('read.log', 0, 20);

--
-- Out of range
--
SELECT * FROM fetch_messages('read.log', 0, 21); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 0, 9223372036854775807); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 0, -1); \echo :SQLSTATE
SELECT delete_messages('read.log', 0, 5);
SELECT * FROM fetch_messages('read.log', 0, 4); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 0, 0); \echo :SQLSTATE
SELECT log_offset, value FROM fetch_messages('read.log', 0, 5, 1);
SELECT log_offset, value FROM fetch_messages_bytes('read.log', 0, 4); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 2, 0); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', -1, 0); \echo :SQLSTATE
-- arguments that make no sense
SELECT * FROM fetch_messages('read.log', 0, 5, 0); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 0, 5, -1); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.nothing', 0, 0); \echo :SQLSTATE
SELECT * FROM fetch_messages(NULL, 0, 5); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', NULL, 5); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 0, NULL); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 0, 5, NULL); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.log', 0, 5, 1, NULL); \echo :SQLSTATE

--
-- Bytes are not text
--
SELECT create_topic('read.bytes', value_format => 'bytes');
SELECT (produce('read.bytes', '\xff00'::bytea, '\x00'::bytea, '{"a": "ä"}')).log_offset;
SELECT * FROM fetch_messages('read.bytes', 0, 0); \echo :SQLSTATE
SELECT * FROM fetch_messages('read.bytes', 0, 1); \echo :SQLSTATE
SELECT log_offset, key, value, headers FROM fetch_messages_bytes('read.bytes', 0, 0);

--
-- Gaps
--
SELECT create_topic('read.gaps', segment_messages => 1000);
BEGIN;
SELECT count(*) FROM produce_batch('read.gaps', array_fill('rolled back'::text, ARRAY[10]));
ROLLBACK;
SELECT high_watermark, log_end_offset FROM partition_status WHERE topic = 'read.gaps';
SELECT count(*) FROM generate_series(0, 10) o, LATERAL fetch_messages('read.gaps', 0, o) m;
SELECT * FROM fetch_messages('read.gaps', 0, 11); \echo :SQLSTATE
SELECT * FROM produce_batch('read.gaps', ARRAY['10', '11', '12']);
BEGIN;
SELECT * FROM produce('read.gaps', 'rolled back');
ROLLBACK;
SELECT * FROM produce('read.gaps', '14');
SELECT log_offset, value FROM fetch_messages('read.gaps', 0, 0);
SELECT log_offset, value FROM fetch_messages('read.gaps', 0, 3, 2);
SELECT log_offset, value FROM fetch_messages('read.gaps', 0, 12, 2);
SELECT log_offset, value FROM fetch_messages('read.gaps', 0, 13, 1);
-- a gap of several segments
BEGIN;
SELECT count(*) FROM produce_batch('read.gaps', array_fill('rolled back'::text, ARRAY[1500]));
SELECT count(*) FROM produce_batch('read.gaps', array_fill('rolled back'::text, ARRAY[1500]));
ROLLBACK;
SELECT (produce('read.gaps', '3015')).log_offset;
SELECT log_offset, value FROM fetch_messages('read.gaps', 0, 14);
SELECT log_offset, value FROM fetch_messages('read.gaps', 0, 1999);
-- vacuum takes what was rolled back, and nothing else
\set ECHO none
SELECT format('VACUUM %s', segment) FROM segment_status WHERE topic = 'read.gaps' \gexec
\set ECHO all
SELECT count(*), min(log_offset), max(log_offset) FROM fetch_messages('read.gaps', 0, 0);

--
-- What is not committed is not there, not even for us
--
SELECT create_topic('read.open');
SELECT * FROM produce('read.open', 'committed');
BEGIN;
SELECT * FROM produce_batch('read.open', ARRAY['open', 'open']);
SELECT log_offset, value FROM fetch_messages('read.open', 0, 0);
SELECT log_offset, value FROM fetch_messages('read.open', 0, 1);
-- offsets that are handed out are in the log
SELECT log_offset, value FROM fetch_messages('read.open', 0, 2);
SELECT log_offset, value FROM fetch_messages('read.open', 0, 3);
SELECT log_offset, value FROM fetch_messages('read.open', 0, 4); \echo :SQLSTATE
ROLLBACK;
SELECT log_offset, value FROM fetch_messages('read.open', 0, 0);
-- reading goes on in a read-only transaction, in each isolation level
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT log_offset, value FROM fetch_messages('read.open', 0, 0);
SELECT * FROM offsets_at('read.open', '-infinity');
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT log_offset, value FROM fetch_messages('read.open', 0, 0);
COMMIT;

--
-- Over many segments
--
SELECT create_topic('read.segments', segment_messages => 1000);
SELECT sum(last_offset - first_offset + 1) FROM generate_series(0, 19) n,
    LATERAL produce_batch('read.segments', ARRAY(SELECT (n * 250 + i)::text FROM generate_series(0, 249) i));
SELECT count(*), count(*) FILTER (WHERE value::int = log_offset) AS right_value FROM fetch_messages('read.segments', 0, 0, 10000);
SELECT count(*), bool_and(n = 10) AS right_number, bool_and(first = start) AS right_start, bool_and(ordered) AS in_order
FROM generate_series(0, 4990, 7) start,
    LATERAL (SELECT count(*) AS n, min(log_offset) AS first, array_agg(log_offset) = ARRAY(SELECT generate_series(start, start + 9)::bigint) AS ordered FROM fetch_messages('read.segments', 0, start, 10)) m;

--
-- offsets_at
--
SELECT create_topic('read.times', partitions => 3, retention => NULL);
-- partition 0: out of order, in batches of several rows; 1: in order, single; 2: none
SELECT * FROM produce_batch('read.times', ARRAY['a', 'b', 'c', 'd'], partition => 0, timestamps => '{2024-01-10,2024-01-30,2024-01-20,2024-01-05}');
SELECT * FROM produce_batch('read.times', ARRAY['e', 'f'], partition => 0, timestamps => '{2024-01-15,2024-02-10}');
SELECT (produce('read.times', 'g', partition => 0, "timestamp" => '2024-01-01')).log_offset;
SELECT (produce('read.times', d::text, partition => 1, "timestamp" => d)).log_offset FROM generate_series(timestamptz '2024-01-01', '2024-02-01', '10 days') d;
SELECT t, array_agg(o.log_offset ORDER BY o.partition)
FROM unnest('{-infinity,2023-12-31,2024-01-01,2024-01-05,2024-01-10,2024-01-10 00:00:00.000001,2024-01-20,2024-01-21,2024-01-30,2024-01-31,2024-02-10,2024-02-11,infinity}'::timestamptz[]) t,
    LATERAL offsets_at('read.times', t) o GROUP BY t ORDER BY t;
-- what it says is where fetch_messages() finds it
SELECT partition, log_offset, m."timestamp" FROM offsets_at('read.times', '2024-01-12') o, LATERAL (SELECT "timestamp" FROM fetch_messages('read.times', o.partition, o.log_offset, 1)) m;
-- not before the log's start, and not a rolled-back message
SELECT delete_messages('read.times', 0, 2), delete_messages('read.times', 1, 4);
SELECT t, array_agg(o.log_offset ORDER BY o.partition) FROM unnest('{-infinity,2024-01-10,2024-01-30,infinity}'::timestamptz[]) t, LATERAL offsets_at('read.times', t) o GROUP BY t ORDER BY t;
BEGIN;
SELECT (produce('read.times', 'rolled back', partition => 2, "timestamp" => '2025-01-01')).log_offset;
ROLLBACK;
SELECT * FROM offsets_at('read.times', '2025-01-01');
SELECT (produce('read.times', 'stays', partition => 2, "timestamp" => '2025-01-01')).log_offset;
SELECT * FROM offsets_at('read.times', '2025-01-01');
SELECT * FROM offsets_at('read.times', '2025-01-02');
SELECT * FROM offsets_at('read.times', NULL); \echo :SQLSTATE
SELECT * FROM offsets_at(NULL, now()); \echo :SQLSTATE
SELECT * FROM offsets_at('read.nothing', now()); \echo :SQLSTATE

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'read.%') d;
