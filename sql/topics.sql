-- Making, changing and dropping topics.

-- What a topic is set to, without its id
CREATE VIEW topics_options AS
    SELECT t.name, t.partitions, t.replication_factor, t.retention, t.retention_bytes, t.segment_messages,
           t.max_message_bytes, t.value_format, t.min_insync_replicas
    FROM pgtopic.topic t WHERE t.name LIKE 'topics.%';
-- The tables of a topic, without its id
CREATE VIEW topics_tables AS
    SELECT t.name, regexp_replace(c.relname, '^t\d+', 't#') AS "table", c.relkind, c.relispartition
    FROM pgtopic.topic t JOIN pg_class c
        ON c.relnamespace = 'pgtopic'::regnamespace AND c.relname ~ ('^t' || t.id || '(_|$)') AND c.relkind IN ('r', 'p')
    WHERE t.name LIKE 'topics.%';

--
-- create_topic
--
SELECT create_topic('topics.plain');
SELECT * FROM topics_options \gx
SELECT * FROM topics_tables WHERE "table" !~ '_s[2-9]' ORDER BY "table" COLLATE "C";
SELECT name FROM pgtopic.topic WHERE name LIKE 'topics.%' AND created_at BETWEEN now() - interval '1 hour' AND now();
SELECT pg_get_userbyid(c.relowner) = current_user AS own
FROM pgtopic.topic t, pg_class c WHERE t.name = 'topics.plain' AND c.oid = ('pgtopic.t' || t.id)::regclass;
SELECT topic, partitions, replication_factor, value_format, retention, retention_bytes, messages, size_bytes > 0 AS size_bytes FROM topic_status WHERE topic = 'topics.plain' \gx

-- every option; NULL stands for no limit where there can be one
SELECT create_topic('topics.all', partitions => 3, replication_factor => 1, retention => '36 hours', retention_bytes => 1000000000,
                    segment_messages => 50000, max_message_bytes => 2000, value_format => 'json', min_insync_replicas => 1);
SELECT create_topic('topics.forever', retention => NULL, retention_bytes => NULL, value_format => 'bytes');
SELECT create_topic('topics.positional', 2, 1, '1 mon 2 days', 0, 1000, 1, 'text', NULL);
SELECT * FROM topics_options ORDER BY name COLLATE "C" \gx
SELECT topic, partition, log_start_offset, high_watermark, log_end_offset FROM partition_status
WHERE topic IN ('topics.all', 'topics.forever', 'topics.positional') ORDER BY topic, partition;

-- names: Kafka's rules, but for the length
SELECT create_topic('topics.' || repeat('x', 56)), length('topics.' || repeat('x', 56));
SELECT create_topic('topics.' || repeat('x', 57)); \echo :SQLSTATE
SELECT create_topic('topics.A-b_C.0'), create_topic('topics.a-B_c.0');
SELECT create_topic('...'), create_topic('-'), create_topic('_'), create_topic('1');
SELECT create_topic(''); \echo :SQLSTATE
SELECT create_topic('.'); \echo :SQLSTATE
SELECT create_topic('..'); \echo :SQLSTATE
SELECT create_topic('topics orders'); \echo :SQLSTATE
SELECT create_topic('topics/orders'); \echo :SQLSTATE
SELECT create_topic('topics"orders'); \echo :SQLSTATE
SELECT create_topic('topics.größe'); \echo :SQLSTATE
SELECT create_topic(E'topics.\n'); \echo :SQLSTATE
SELECT create_topic(NULL); \echo :SQLSTATE
SELECT count(drop_topic(t)) FROM unnest('{...,-,_,1}'::text[]) t;

-- a name that is taken
SELECT create_topic('topics.plain', partitions => 5); \echo :SQLSTATE
SELECT partitions FROM topic_status WHERE topic = 'topics.plain';

-- each option, out of its range
SELECT create_topic('topics.wrong', partitions => 0); \echo :SQLSTATE
SELECT create_topic('topics.wrong', partitions => -1); \echo :SQLSTATE
SELECT create_topic('topics.wrong', partitions => 10001); \echo :SQLSTATE
SELECT create_topic('topics.wrong', partitions => NULL); \echo :SQLSTATE
SELECT create_topic('topics.wrong', replication_factor => 0); \echo :SQLSTATE
SELECT create_topic('topics.wrong', replication_factor => 3); \echo :SQLSTATE
SELECT create_topic('topics.wrong', replication_factor => NULL); \echo :SQLSTATE
SELECT create_topic('topics.wrong', retention => '0'); \echo :SQLSTATE
SELECT create_topic('topics.wrong', retention => '-1 day'); \echo :SQLSTATE
SELECT create_topic('topics.wrong', retention => '1 mon -31 days'); \echo :SQLSTATE
SELECT create_topic('topics.wrong', retention_bytes => -1); \echo :SQLSTATE
SELECT create_topic('topics.wrong', segment_messages => 999); \echo :SQLSTATE
SELECT create_topic('topics.wrong', segment_messages => 9223372036854775807); \echo :SQLSTATE
SELECT create_topic('topics.wrong', segment_messages => NULL); \echo :SQLSTATE
SELECT create_topic('topics.wrong', max_message_bytes => 0); \echo :SQLSTATE
SELECT create_topic('topics.wrong', max_message_bytes => 268435457); \echo :SQLSTATE
SELECT create_topic('topics.wrong', max_message_bytes => NULL); \echo :SQLSTATE
SELECT create_topic('topics.wrong', value_format => 'avro'); \echo :SQLSTATE
SELECT create_topic('topics.wrong', value_format => 'TEXT'); \echo :SQLSTATE
SELECT create_topic('topics.wrong', value_format => NULL); \echo :SQLSTATE
SELECT create_topic('topics.wrong', min_insync_replicas => 0); \echo :SQLSTATE
SELECT create_topic('topics.wrong', min_insync_replicas => 2); \echo :SQLSTATE
SELECT create_topic('topics.wrong', colour => 'red'); \echo :SQLSTATE
SELECT count(*) FROM topics_options WHERE name = 'topics.wrong';

BEGIN READ ONLY;
SELECT create_topic('topics.wrong'); \echo :SQLSTATE
ROLLBACK;

--
-- alter_topic
--
SELECT alter_topic('topics.plain', 'retention', '1 day 12:00'), alter_topic('topics.plain', 'retention_bytes', '5000000000'),
       alter_topic('topics.plain', 'segment_messages', '2000'), alter_topic('topics.plain', 'max_message_bytes', '100'),
       alter_topic('topics.plain', 'min_insync_replicas', '1');
SELECT * FROM topics_options WHERE name = 'topics.plain' \gx
-- at once, here and in another session
SELECT produce('topics.plain', repeat('x', 101)); \echo :SQLSTATE
\c -
SELECT produce('topics.plain', repeat('x', 101)); \echo :SQLSTATE
SELECT retention, retention_bytes FROM topic_status WHERE topic = 'topics.plain';
SELECT alter_topic('topics.plain', 'retention', 'forever');
SELECT retention IS NULL AS forever FROM topic_status WHERE topic = 'topics.plain';
-- options that were left out at creation are set back to what they would have been
SELECT alter_topic('topics.all', o, 'default')
FROM unnest('{retention,retention_bytes,segment_messages,max_message_bytes,min_insync_replicas}'::text[]) o;
SELECT alter_topic('topics.plain', o, 'default')
FROM unnest('{retention,retention_bytes,segment_messages,max_message_bytes,min_insync_replicas}'::text[]) o;
SELECT * FROM topics_options WHERE name IN ('topics.all', 'topics.plain') ORDER BY name \gx
SELECT alter_topic('topics.plain', 'retention_bytes', '0');
SELECT retention_bytes FROM topic_status WHERE topic = 'topics.plain';

-- a change that is rolled back
BEGIN;
SELECT alter_topic('topics.plain', 'max_message_bytes', '3');
SELECT produce('topics.plain', 'four'); \echo :SQLSTATE
ROLLBACK;
SELECT * FROM produce('topics.plain', 'four');
BEGIN;
SAVEPOINT s;
SELECT alter_topic('topics.plain', 'max_message_bytes', '3');
ROLLBACK TO s;
SELECT * FROM produce('topics.plain', 'five!');
COMMIT;

SELECT alter_topic('topics.plain', 'colour', 'red'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', '', 'red'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'name', 'topics.other'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'RETENTION', '1 day'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention = NULL --', '1 day'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'partitions', '7'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'value_format', 'json'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'replication_factor', '1'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention', 'a while'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention', '0'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention', '-2 days'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention', '1 day'', retention_bytes = 7'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention_bytes', '1 GB'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention_bytes', '-1'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'segment_messages', '999'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'segment_messages', '1e6'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'max_message_bytes', '0'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'max_message_bytes', '268435457'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'min_insync_replicas', '2'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'max_message_bytes', 'forever'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', NULL, '1'); \echo :SQLSTATE
SELECT alter_topic('topics.plain', 'retention', NULL); \echo :SQLSTATE
SELECT alter_topic(NULL, 'retention', '1 day'); \echo :SQLSTATE
SELECT alter_topic('topics.nothing', 'retention', '1 day'); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT alter_topic('topics.plain', 'retention', '1 day'); \echo :SQLSTATE
ROLLBACK;
SELECT * FROM topics_options WHERE name = 'topics.plain' \gx

--
-- add_partitions
--
SELECT p.* FROM generate_series(1, 3) i, LATERAL produce('topics.all', to_jsonb(i), key => 'k', partition => 2) p;
SELECT add_partitions('topics.all', 5);
SELECT partitions FROM topic_status WHERE topic = 'topics.all';
SELECT partition, log_start_offset, high_watermark FROM partition_status WHERE topic = 'topics.all' ORDER BY partition;
SELECT * FROM produce('topics.all', '5', partition => 4);
SELECT * FROM produce('topics.all', '6', partition => 5); \echo :SQLSTATE
SELECT partition, log_offset, value FROM fetch_messages('topics.all', 2, 0);
-- a group finds the new partitions, and starts at their beginning
SELECT count(DISTINCT partition), sum(n) FROM (
    SELECT partition, count(*) AS n FROM (
        SELECT * FROM consume('topics.all', 'topics') UNION ALL SELECT * FROM consume('topics.all', 'topics')) c GROUP BY 1) c;
SELECT add_partitions('topics.all', 5); \echo :SQLSTATE
SELECT add_partitions('topics.all', 4); \echo :SQLSTATE
SELECT add_partitions('topics.all', 0); \echo :SQLSTATE
SELECT add_partitions('topics.all', 10001); \echo :SQLSTATE
SELECT add_partitions('topics.all', NULL); \echo :SQLSTATE
SELECT add_partitions('topics.nothing', 4); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT add_partitions('topics.all', 6); \echo :SQLSTATE
ROLLBACK;
-- rolled back, with messages; and again
BEGIN;
SELECT add_partitions('topics.all', 7);
SELECT * FROM produce('topics.all', '1', partition => 6);
SAVEPOINT s;
SELECT add_partitions('topics.all', 8);
SELECT * FROM produce('topics.all', '1', partition => 7);
ROLLBACK TO s;
SELECT * FROM produce('topics.all', '1', partition => 7); \echo :SQLSTATE
ROLLBACK;
SELECT * FROM produce('topics.all', '1', partition => 6); \echo :SQLSTATE
SELECT add_partitions('topics.all', 7);
SELECT * FROM produce('topics.all', '1', partition => 6);

--
-- drop_topic
--
SELECT drop_topic('topics.all');
SELECT create_consumer_group('g', 'topics.forever');
SELECT produce_batch('topics.forever', ARRAY['a', 'b']);
SELECT drop_topic('topics.forever');
SELECT 'topics.forever'::topic; \echo :SQLSTATE
SELECT produce('topics.forever', 'x'); \echo :SQLSTATE
SELECT count(*) FROM topics_tables WHERE name IN ('topics.all', 'topics.forever');
SELECT drop_topic('topics.forever'); \echo :SQLSTATE
SELECT drop_topic(NULL); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT drop_topic('topics.plain'); \echo :SQLSTATE
ROLLBACK;
-- rolled back: all is there as it was
BEGIN;
SELECT * FROM produce('topics.plain', 'about to go');
SELECT drop_topic('topics.plain');
SELECT produce('topics.plain', 'x'); \echo :SQLSTATE
ROLLBACK;
SELECT log_offset, value FROM fetch_messages('topics.plain', 0, 0);
-- a session that has planned for a topic, as a pool's sessions have, finds that it is gone, and the next one by that name
PREPARE topics_produce AS SELECT log_offset FROM produce('topics.positional', 'x', partition => 0);
CREATE FUNCTION topics_produce() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN p.log_offset FROM produce('topics.positional', 'x', partition => 0) p;
END $$;
EXECUTE topics_produce;
SELECT topics_produce();
SELECT drop_topic('topics.positional');
EXECUTE topics_produce; \echo :SQLSTATE
\set VERBOSITY terse
SELECT topics_produce(); \echo :SQLSTATE
\set VERBOSITY default
SELECT create_topic('topics.positional');
EXECUTE topics_produce;
SELECT topics_produce();
DEALLOCATE topics_produce;
DROP FUNCTION topics_produce();
SELECT drop_topic('topics.positional');
SELECT create_topic('topics.positional');
-- again by the same name: a new log
SELECT * FROM produce('topics.positional', 'first');

--
-- In one transaction
--
-- create, produce, drop and create again
BEGIN;
SELECT create_topic('topics.brief');
SELECT * FROM produce('topics.brief', 'one');
SELECT drop_topic('topics.brief');
SELECT create_topic('topics.brief', partitions => 2);
SELECT * FROM produce('topics.brief', 'two', partition => 1);
COMMIT;
SELECT partition, log_offset, value FROM fetch_messages('topics.brief', 1, 0);
SELECT "table" FROM topics_tables WHERE name = 'topics.brief' AND "table" !~ '_s[1-9]' ORDER BY "table" COLLATE "C";
-- rolled back, in whole and in part
BEGIN;
SELECT create_topic('topics.undone');
SELECT * FROM produce('topics.undone', 'x');
ROLLBACK;
SELECT 'topics.undone'::topic; \echo :SQLSTATE
BEGIN;
SAVEPOINT s;
SELECT create_topic('topics.undone', partitions => 2);
SELECT * FROM produce('topics.undone', 'x', partition => 1);
ROLLBACK TO s;
SELECT 'topics.undone'::topic; \echo :SQLSTATE
ROLLBACK TO s;
SELECT create_topic('topics.undone');
SELECT * FROM produce('topics.undone', 'y');
COMMIT;
SELECT log_offset, value FROM fetch_messages('topics.undone', 0, 0);

-- more messages than the segments that a topic starts with, and than one more
BEGIN;
SELECT create_topic('topics.segments', segment_messages => 1000);
SELECT * FROM produce_batch('topics.segments', ARRAY(SELECT 'm' || i FROM generate_series(0, 4999) i));
SELECT (produce('topics.segments', 'one more')).log_offset;
SELECT count(*) >= 6 AS segments, sum(messages), bool_and(to_offset - from_offset = 1000) AS size
FROM segment_status WHERE topic = 'topics.segments';
COMMIT;
SELECT count(*) >= 6 AS segments, sum(messages), bool_and(to_offset - from_offset = 1000) AS size
FROM segment_status WHERE topic = 'topics.segments';
SELECT count(*), min(log_offset), max(log_offset), count(*) FILTER (WHERE value = 'm' || log_offset) AS right_value
FROM fetch_messages('topics.segments', 0, 0, max_messages => 10000);
-- then too, with the worker's help
SELECT * FROM produce_batch('topics.segments', ARRAY(SELECT 'm' || i FROM generate_series(5001, 19999) i));
SELECT count(*), count(DISTINCT log_offset), max(log_offset), count(*) FILTER (WHERE value = 'm' || log_offset) AS right_value
FROM fetch_messages('topics.segments', 0, 0, max_messages => 100000);
SELECT count(*), min(from_offset), sum(messages), bool_and(to_offset - from_offset = 1000) AS size
FROM segment_status WHERE topic = 'topics.segments' AND from_offset < 20000;
-- and message by message
BEGIN;
SELECT create_topic('topics.single', segment_messages => 1000);
SELECT count(p.log_offset), max(p.log_offset) FROM generate_series(0, 4999) i, LATERAL produce('topics.single', 'm' || i) p;
COMMIT;
SELECT count(*), max(log_offset), count(*) FILTER (WHERE value = 'm' || log_offset) AS right_value
FROM fetch_messages('topics.single', 0, 0, max_messages => 100000);
-- segments of another size from then on
SELECT alter_topic('topics.single', 'segment_messages', '3000');
SELECT * FROM produce_batch('topics.single', ARRAY(SELECT 'm' || i FROM generate_series(5000, 49999) i));
SELECT count(*), max(log_offset), count(*) FILTER (WHERE value = 'm' || log_offset) AS right_value
FROM fetch_messages('topics.single', 0, 0, max_messages => 100000);
SELECT bool_and(to_offset - from_offset = 1000) FILTER (WHERE from_offset < 5000) AS small,
       bool_and(to_offset - from_offset = 3000) FILTER (WHERE from_offset >= 10000) AS large
FROM segment_status WHERE topic = 'topics.single' AND from_offset < 50000;

-- many topics at once, and gone again
BEGIN;
SELECT count(create_topic('topics.many.' || i, partitions => 2)) FROM generate_series(1, 100) i;
SELECT sum(p.log_offset) FROM generate_series(1, 100) i, LATERAL produce('topics.many.' || i, i::text, partition => i % 2) p;
COMMIT;
SELECT count(*), sum(messages) FROM topic_status WHERE topic::text LIKE 'topics.many.%';
SELECT count(*), sum(value::int) FROM generate_series(1, 100) i, LATERAL fetch_messages('topics.many.' || i, i % 2, 0);
SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'topics.many.%') d;
SELECT count(*) FROM topic_status WHERE topic::text LIKE 'topics.many.%';

-- not for two-phase commit
BEGIN;
SELECT create_topic('topics.prepared');
PREPARE TRANSACTION 'topics'; \echo :SQLSTATE
SELECT 'topics.prepared'::topic; \echo :SQLSTATE
BEGIN;
SELECT alter_topic('topics.plain', 'retention', '3 days');
PREPARE TRANSACTION 'topics'; \echo :SQLSTATE
\set VERBOSITY terse
BEGIN;
SELECT add_partitions('topics.plain', 2);
PREPARE TRANSACTION 'topics'; \echo :SQLSTATE
\set VERBOSITY default
BEGIN;
SELECT drop_topic('topics.plain');
PREPARE TRANSACTION 'topics'; \echo :SQLSTATE
SELECT partitions, retention FROM topic_status WHERE topic = 'topics.plain';

-- nothing of all that is left
SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'topics.%') d;
SELECT count(*) FROM pg_class c
WHERE c.relnamespace = 'pgtopic'::regnamespace AND c.relname ~ '^t\d+'
AND NOT EXISTS (SELECT FROM pgtopic.topic t WHERE c.relname ~ ('^t' || t.id || '(_|$)'));
SELECT count(*) FROM pgtopic.partition p WHERE NOT EXISTS (SELECT FROM pgtopic.topic t WHERE t.id = p.topic_id);
DROP VIEW topics_options, topics_tables;
