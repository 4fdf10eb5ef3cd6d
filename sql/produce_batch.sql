-- produce_batch(): many messages in one call.

SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null <NULL>
SELECT create_topic('batch.text', partitions => 3);
SELECT create_topic('batch.bytes', value_format => 'bytes');
SELECT create_topic('batch.json', value_format => 'json');

--
-- Overloads
--
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b', 'c'], partition => 0);
-- every argument
SELECT * FROM produce_batch('batch.text', '{d,NULL,"null",""}'::text[], '{k1,k2,NULL,""}', ARRAY['{"h": 1}', NULL, '{}', NULL]::jsonb[], 0, '{2024-01-01,NULL,2023-01-01 00:00+01,2024-01-02}');
SELECT log_offset, key, value, headers, CASE WHEN "timestamp" > now() - interval '1 hour' THEN 'now' ELSE "timestamp"::text END AS "timestamp"
FROM fetch_messages('batch.text', 0, 0);
SELECT * FROM produce_batch('batch.bytes', ARRAY['\x00', NULL, '\xff', '']::bytea[], ARRAY[NULL, '\x00', '\xfe', '']::bytea[]);
SELECT log_offset, key, value FROM fetch_messages_bytes('batch.bytes', 0, 0);
SELECT * FROM produce_batch('batch.json', ARRAY['{"b": 1,"a":2}', '[]', 'null', NULL]::jsonb[], '{a,b,c,d}');
SELECT * FROM produce_batch('batch.json', ARRAY['{"b": 1,"a":2}', ' 7 ', NULL]);
SELECT log_offset, key, value FROM fetch_messages('batch.json', 0, 0);
SELECT * FROM produce_batch('batch.text', ARRAY['varchar']::varchar[], ARRAY['k']::varchar[], partition => 1);
-- a literal must say which array it is
SELECT * FROM produce_batch('batch.text', '{a,b}'); \echo :SQLSTATE

--
-- Where they go
--
-- without keys: all to one partition, that of the transaction
SELECT create_topic('batch.where', partitions => 4);
BEGIN;
SELECT count(*), sum(last_offset - first_offset + 1) FROM produce_batch('batch.where', array_fill('x'::text, ARRAY[1000]));
SELECT count(DISTINCT partition) FROM (
    SELECT partition FROM produce_batch('batch.where', ARRAY['x', 'y']) UNION ALL
    SELECT partition FROM produce_batch('batch.where', ARRAY['x'], ARRAY[NULL]) UNION ALL
    SELECT partition FROM produce_batch('batch.where', ARRAY['x', 'y'], ARRAY[NULL, NULL]) UNION ALL
    SELECT partition FROM produce('batch.where', 'x')) p;
SELECT count(*) FROM partition_status WHERE topic = 'batch.where' AND log_end_offset > 0;
COMMIT;
-- with keys: one range a partition, ascending, in the order of the array
SELECT create_topic('batch.keys', partitions => 4);
SELECT count(*), min(first_offset), sum(last_offset - first_offset + 1), array_agg(partition) AS partitions
FROM produce_batch('batch.keys', ARRAY(SELECT i::text FROM generate_series(1, 2000) i), ARRAY(SELECT 'key ' || i % 100 FROM generate_series(1, 2000) i));
SELECT count(*), count(DISTINCT value), bool_and(ordered) AS ordered, bool_and(key = 'key ' || value::int % 100) AS own_key
FROM (SELECT m.*, COALESCE(value::int > lag(value::int) OVER (PARTITION BY partition ORDER BY log_offset), true) AS ordered
      FROM generate_series(0, 3) p, LATERAL fetch_messages('batch.keys', p, 0, 10000) m) m;
SELECT count(*) FROM (
    SELECT key FROM generate_series(0, 3) p, LATERAL fetch_messages('batch.keys', p, 0, 10000) GROUP BY key HAVING count(DISTINCT partition) > 1) k;
-- headers and timestamps go with their messages
SELECT create_topic('batch.with', partitions => 4);
SELECT count(*) FROM produce_batch('batch.with', ARRAY(SELECT i::text FROM generate_series(1, 500) i), ARRAY(SELECT (i % 7)::text FROM generate_series(1, 500) i),
    ARRAY(SELECT jsonb_build_object('i', i) FROM generate_series(1, 500) i), timestamps => ARRAY(SELECT to_timestamp(i) FROM generate_series(1, 500) i));
SELECT count(*), bool_and((headers ->> 'i') = value) AS headers, bool_and("timestamp" = to_timestamp(value::int)) AS timestamps
FROM generate_series(0, 3) p, LATERAL fetch_messages('batch.with', p, 0, 10000);
-- keys where some are NULL: those go where messages without a key go, together
SELECT count(DISTINCT partition), count(*) FROM generate_series(0, 3) p, LATERAL fetch_messages('batch.with', p, 0, 10000) WHERE key IS NULL;
BEGIN;
SELECT count(*) > 1 AS several FROM produce_batch('batch.with', ARRAY(SELECT i::text FROM generate_series(1, 500) i), ARRAY(SELECT CASE WHEN i % 2 = 0 THEN i::text END FROM generate_series(1, 500) i));
COMMIT;
SELECT count(DISTINCT partition), count(*) FROM generate_series(0, 3) p, LATERAL fetch_messages('batch.with', p, 0, 10000) WHERE key IS NULL;
-- a partition that is asked for goes before keys
SELECT first_offset, last_offset FROM produce_batch('batch.where', ARRAY(SELECT i::text FROM generate_series(1, 100) i), ARRAY(SELECT i::text FROM generate_series(1, 100) i), partition => (SELECT min(partition) FROM partition_status WHERE topic = 'batch.where' AND log_end_offset = 0));

--
-- Arrays
--
SELECT * FROM produce_batch('batch.text', '{}'::text[]);
SELECT * FROM produce_batch('batch.text', '{}'::text[], '{}', '{}', 0, '{}');
SELECT * FROM produce_batch('batch.text', '[5:7]={x,y,z}'::text[], '[-1:1]={a,b,c}', partition => 2);
SELECT log_offset, key, value FROM fetch_messages('batch.text', 2, 0);
SELECT * FROM produce_batch('batch.text', NULL::text[]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b'], ARRAY['k']); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b'], '{}'); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', '{}'::text[], ARRAY['k']); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b'], headers => ARRAY['{}', '{}', '{}']::jsonb[]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b'], timestamps => ARRAY[now()]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY[['a', 'b'], ['c', 'd']]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b'], ARRAY[['a', 'b']]); \echo :SQLSTATE
SELECT * FROM produce_batch(NULL, ARRAY['a']); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.nothing', ARRAY['a']); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a'], partition => 3); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', '{}'::text[], partition => 3); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY[1, 2]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', 'a'::text); \echo :SQLSTATE

--
-- One wrong message fails the whole call, before anything is written
--
SELECT partition, log_end_offset FROM partition_status WHERE topic = 'batch.text' ORDER BY 1;
SELECT * FROM produce_batch('batch.text', ARRAY['\x61', '\x62', '\xff', '\x63']::bytea[]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['\x61', '\x62']::bytea[], ARRAY['\x61', '\x6100']::bytea[]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.json', ARRAY['{}', '[]', '{]']); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b'], headers => ARRAY['{}', '[]']::jsonb[]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', 'b'], timestamps => ARRAY[now(), 'infinity']); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', repeat('b', 1048577)]); \echo :SQLSTATE
SELECT * FROM produce_batch('batch.text', ARRAY['a', repeat('b', 1048570)], ARRAY['12', '1234567']); \echo :SQLSTATE
SELECT partition, log_end_offset FROM partition_status WHERE topic = 'batch.text' ORDER BY 1;
-- each message is measured for itself
SELECT partition, first_offset, last_offset FROM produce_batch('batch.text', array_fill(repeat('b', 1048576), ARRAY[8]), partition => 1);
SELECT count(*), sum(length(value)) FROM fetch_messages('batch.text', 1, 1);

--
-- Small ones share a row, large ones have their own, and all come back as they were
--
SELECT create_topic('batch.sizes');
CREATE TEMP TABLE batch_source AS
    SELECT i, CASE WHEN i % 50 = 7 THEN NULL ELSE repeat(chr(97 + i % 26), i * i % 4001 * CASE WHEN i % 10 = 0 THEN 10 ELSE 1 END) END AS value,
           CASE WHEN i % 3 = 0 THEN repeat('k', i % 500) END AS key, CASE WHEN i % 4 = 0 THEN jsonb_build_object('i', i, repeat('h', i % 300), i) END AS headers,
           timestamptz '2024-01-01' + i * interval '1 s' AS "timestamp"
    FROM generate_series(0, 2999) i;
SELECT b.* FROM (SELECT array_agg(value ORDER BY i) AS v, array_agg(key ORDER BY i) AS k, array_agg(headers ORDER BY i) AS h, array_agg("timestamp" ORDER BY i) AS t FROM batch_source) s,
    LATERAL produce_batch('batch.sizes', v, k, h, NULL, t) b;
SELECT count(*), count(*) FILTER (WHERE (m.value, m.key, m.headers, m."timestamp") IS NOT DISTINCT FROM (s.value, s.key, s.headers, s."timestamp")) AS same
FROM fetch_messages('batch.sizes', 0, 0, 10000) m JOIN batch_source s ON s.i = m.log_offset;
DROP TABLE batch_source;

-- batches, single messages and rolled-back ones in a row
SELECT create_topic('batch.mixed');
BEGIN;
SELECT * FROM produce_batch('batch.mixed', ARRAY['0', '1']);
SELECT * FROM produce('batch.mixed', '2');
SAVEPOINT s;
SELECT * FROM produce_batch('batch.mixed', ARRAY['3', '4', '5']);
ROLLBACK TO s;
SELECT * FROM produce_batch('batch.mixed', ARRAY['6', '7']);
COMMIT;
SELECT log_offset, value FROM fetch_messages('batch.mixed', 0, 0);

--
-- A million values in one call
--
SELECT create_topic('batch.million', partitions => 2);
SELECT * FROM produce_batch('batch.million', (SELECT array_agg('value ' || i ORDER BY i) FROM generate_series(0, 999999) i), partition => 0);
SELECT log_start_offset, high_watermark, log_end_offset FROM partition_status WHERE topic = 'batch.million' AND partition = 0;
SELECT count(*), min(log_offset), max(log_offset), bool_and(value = 'value ' || log_offset) AS in_order, count(DISTINCT "timestamp") AS timestamps, count(key), count(headers)
FROM fetch_messages('batch.million', 0, 0, max_messages => 2000000);
SELECT log_offset, value FROM fetch_messages('batch.million', 0, 654321, 3);
-- with keys, over both partitions
SELECT sum(last_offset - first_offset + 1) FROM produce_batch('batch.million', (SELECT array_agg(i::text ORDER BY i) FROM generate_series(1, 1000000) i), (SELECT array_agg((i % 1000)::text ORDER BY i) FROM generate_series(1, 1000000) i));
SELECT count(*), count(DISTINCT value), bool_and(ordered) AS in_order, bool_and(key = (value::int % 1000)::text) AS own_key
FROM (SELECT m.*, COALESCE(value::int > lag(value::int) OVER (PARTITION BY m.partition ORDER BY log_offset), true) AS ordered
      FROM (VALUES (0, 1000000), (1, 0)) p (number, start), LATERAL fetch_messages('batch.million', p.number, p.start, 2000000) m) m;
-- and rolled back
BEGIN;
SELECT count(*) FROM produce_batch('batch.million', array_fill('x'::text, ARRAY[1000000]), partition => 1);
ROLLBACK;
SELECT count(*) FROM fetch_messages('batch.million', 1, 0, 3000000) WHERE value = 'x';

-- interrupted in the middle: nothing of it is there, and the session goes on
CREATE TEMP TABLE many AS SELECT array_fill(repeat('x', 100), ARRAY[2000000]) AS v;
SET statement_timeout = '100ms';
SELECT count(*) FROM many, produce_batch('batch.million', v, partition => 0);
RESET statement_timeout;
SELECT count(*) FROM fetch_messages('batch.million', 0, 0, 5000000) WHERE length(value) = 100;
SELECT count(*) FROM produce('batch.million', 'after');
DROP TABLE many;

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'batch.%') d;
