-- CREATE EXTENSION and DROP EXTENSION, in databases of their own.

CREATE DATABASE regress_pgtopic;
\c regress_pgtopic
SELECT extname FROM pg_extension WHERE extname = 'pgtopic';
-- what was there before, to compare with
CREATE TABLE extension_before AS SELECT 'relation' AS kind, oid FROM pg_class UNION ALL SELECT 'type', oid FROM pg_type UNION ALL SELECT 'function', oid FROM pg_proc
    UNION ALL SELECT 'schema', oid FROM pg_namespace UNION ALL SELECT 'operator', oid FROM pg_operator UNION ALL SELECT 'operator class', oid FROM pg_opclass
    UNION ALL SELECT 'operator family', oid FROM pg_opfamily UNION ALL SELECT 'cast', oid FROM pg_cast UNION ALL SELECT 'event trigger', oid FROM pg_event_trigger UNION ALL SELECT 'trigger', oid FROM pg_trigger;
CREATE VIEW extension_left AS
    SELECT kind, count(*) FROM (SELECT 'relation' AS kind, oid FROM pg_class UNION ALL SELECT 'type', oid FROM pg_type UNION ALL SELECT 'function', oid FROM pg_proc
    UNION ALL SELECT 'schema', oid FROM pg_namespace UNION ALL SELECT 'operator', oid FROM pg_operator UNION ALL SELECT 'operator class', oid FROM pg_opclass
    UNION ALL SELECT 'operator family', oid FROM pg_opfamily UNION ALL SELECT 'cast', oid FROM pg_cast UNION ALL SELECT 'event trigger', oid FROM pg_event_trigger UNION ALL SELECT 'trigger', oid FROM pg_trigger) o
    -- this view and that table themselves, with their types, row types, TOAST tables
    WHERE (kind, oid) NOT IN (SELECT kind, oid FROM extension_before)
    AND NOT (kind = 'relation' AND oid IN (SELECT c.oid FROM pg_class c WHERE relname LIKE 'extension\_%' OR c.oid IN (SELECT unnest(ARRAY[t.reltoastrelid, (SELECT indexrelid FROM pg_index WHERE indrelid = t.reltoastrelid)]) FROM pg_class t WHERE t.relname LIKE 'extension\_%')))
    AND NOT (kind = 'type' AND oid IN (SELECT t.oid FROM pg_type t WHERE typname LIKE 'extension\_%' OR typname LIKE '\_extension\_%'))
    GROUP BY kind;
SELECT * FROM extension_left;

--
-- Topics, messages, positions, columns of its types; then drop it
--
CREATE EXTENSION pgtopic;
SELECT create_topic('a', partitions => 3, segment_messages => 1000), create_topic('b', value_format => 'bytes');
SELECT count(*) FROM produce_batch('a', array_fill('x'::text, ARRAY[5000]), partition => 2);
SELECT * FROM produce('a', repeat('large', 100000), partition => 0);
SELECT count(*) FROM consume('a', 'g', 1);
CREATE TABLE extension_user (t topic, tp topic_partition);
INSERT INTO extension_user VALUES ('a', 'a-2');
\set VERBOSITY terse
DROP EXTENSION pgtopic; \echo :SQLSTATE
\set VERBOSITY default
SELECT topic, messages FROM topic_status ORDER BY 1;
-- rolled back, nothing has happened
BEGIN;
DROP TABLE extension_user;
DROP EXTENSION pgtopic;
SELECT create_topic('c'); \echo :SQLSTATE
ROLLBACK;
SELECT topic, messages FROM topic_status ORDER BY 1;
SELECT * FROM produce('a', 'y', partition => 2);
SELECT count(*), max(log_offset) FROM fetch_messages('a', 2, 0, 10000);
-- storage is not to be taken apart
\set VERBOSITY terse
DROP TABLE pgtopic.topic; \echo :SQLSTATE
DROP FUNCTION pgtopic.can_use(int); \echo :SQLSTATE
DROP EVENT TRIGGER pgtopic_storage_dropped; \echo :SQLSTATE
DROP SCHEMA pgtopic; \echo :SQLSTATE
DROP SCHEMA topics CASCADE; \echo :SQLSTATE
ALTER EXTENSION pgtopic SET SCHEMA pg_catalog; \echo :SQLSTATE
CREATE EXTENSION pgtopic SCHEMA topics; \echo :SQLSTATE
\set VERBOSITY default
-- what somebody has put into schema topics is in the way
CREATE TABLE topics.mine (n int);
DROP TABLE extension_user;
DROP EXTENSION pgtopic; \echo :SQLSTATE
DROP TABLE topics.mine;
DROP EXTENSION pgtopic;
SELECT * FROM extension_left;
SELECT produce('a', 'x'); \echo :SQLSTATE
SELECT 'a'::topic; \echo :SQLSTATE
-- the worker goes with it
DO $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance' AND datname = current_database());
        PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
    END LOOP;
END $$;
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgtopic maintenance' AND datname = current_database();

--
-- Once more, in the same session: all is new
--
CREATE EXTENSION pgtopic;
SELECT count(*) FROM topic_status;
SELECT create_topic('a', partitions => 2, segment_messages => 1000);
SELECT * FROM produce('a', 'first', partition => 0);
SELECT log_offset, value FROM fetch_messages('a', 0, 0);
SELECT * FROM fetch_messages('a', 2, 0); \echo :SQLSTATE
SELECT log_offset, value FROM consume('a', 'g');
-- with a worker
SELECT last_offset FROM produce_batch('a', array_fill('x'::text, ARRAY[10000]), partition => 1);
CREATE TABLE extension_user (id int, t topic);
INSERT INTO extension_user VALUES (1, 'a');
SET client_min_messages = warning;
DROP EXTENSION pgtopic CASCADE;
RESET client_min_messages;
SELECT * FROM extension_user;
DROP TABLE extension_user;
SELECT * FROM extension_left;

--
-- In a schema of its own
--
CREATE SCHEMA kafka;
CREATE EXTENSION pgtopic SCHEMA kafka;
SELECT kafka.create_topic('a', partitions => 2, segment_messages => 1000, retention => NULL);
SELECT * FROM kafka.produce('a', 'one', key => '21', partition => 0);
SELECT * FROM kafka.produce('a', '{"a": 1}'::jsonb, partition => 0);
SELECT * FROM kafka.produce('a', 'three'::bytea, partition => 0);
SELECT * FROM kafka.produce_batch('a', array_fill('x'::text, ARRAY[5000]), partition => 1);
SELECT log_offset, value FROM kafka.fetch_messages('a', 0, 0);
SELECT log_offset, value FROM kafka.fetch_messages_bytes('a', 0, 1, 1);
SELECT count(*) FROM kafka.consume('a', 'g', 1);
SELECT kafka.create_consumer_group('h', 'a', 'latest'), kafka.commit_offset('h', 'a', 0, 1);
CALL kafka.wait_for_messages('a', 'h', '1 day');
SELECT * FROM kafka.reset_offsets('h', 'a', '-1');
SELECT kafka.drop_consumer_group('h');
SELECT * FROM kafka.offsets_at('a', '-infinity');
\set VERBOSITY terse
SELECT kafka.add_partitions('a', 3);
\set VERBOSITY default
SELECT kafka.alter_topic('a', 'retention', '1 day'), kafka.delete_messages('a', 0, 1);
SELECT topic, partitions, messages FROM kafka.topic_status;
SELECT count(*) FROM kafka.partition_status WHERE topic OPERATOR(kafka.=) 'a';
SELECT count(*) > 0 AS segments FROM kafka.segment_status;
SELECT DISTINCT consumer_group FROM kafka.consumer_group_status;
SELECT count(*) FROM kafka.worker_status WHERE worker = 'launcher';
SELECT kafka.topic('a-1'::kafka.topic_partition), kafka.partition('a-1'), kafka.topic_partition('a', 1);
CREATE TABLE extension_user (t kafka.topic PRIMARY KEY, tp kafka.topic_partition UNIQUE);
INSERT INTO extension_user VALUES ('a', 'a-2');
SELECT * FROM extension_user WHERE t OPERATOR(kafka.=) 'a';
DROP TABLE extension_user;
-- the schema takes the extension with it
SET client_min_messages = warning;
DROP SCHEMA kafka CASCADE;
RESET client_min_messages;
SELECT * FROM extension_left;
-- one whose name must be quoted
CREATE SCHEMA "Kafka log";
CREATE EXTENSION pgtopic SCHEMA "Kafka log";
SELECT "Kafka log".create_topic('a');
SELECT * FROM "Kafka log".produce('a', 'one');
SELECT topic, messages FROM "Kafka log".topic_status;
DROP EXTENSION pgtopic;
DROP SCHEMA "Kafka log";
SELECT * FROM extension_left;

--
-- A database with topics: copied, renamed, dropped, while its worker runs
--
CREATE EXTENSION pgtopic;
SELECT create_topic('a'), create_topic('b', segment_messages => 1000);
SELECT * FROM produce('a', 'one');
SELECT * FROM produce_batch('b', array_fill('x'::text, ARRAY[4000]));
SELECT log_offset FROM consume('a', 'g');
\c contrib_regression
CREATE DATABASE regress_pgtopic_copy TEMPLATE regress_pgtopic;
ALTER DATABASE regress_pgtopic RENAME TO regress_pgtopic_renamed;
\c regress_pgtopic_copy
SELECT * FROM produce('a', 'two of the copy');
SELECT log_offset, value FROM consume('a', 'g');
SELECT * FROM produce_batch('b', array_fill('x'::text, ARRAY[4000]));
\c regress_pgtopic_renamed
SELECT * FROM produce('a', 'two of the original');
SELECT log_offset, value FROM consume('a', 'g');
SELECT * FROM produce_batch('b', array_fill('x'::text, ARRAY[4000]));
\c contrib_regression
DROP DATABASE regress_pgtopic_copy;
DROP DATABASE regress_pgtopic_renamed;

--
-- Not for everybody
--
CREATE ROLE regress_pgtopic_nobody;
CREATE DATABASE regress_pgtopic OWNER regress_pgtopic_nobody;
\c regress_pgtopic
SET ROLE regress_pgtopic_nobody;
CREATE EXTENSION pgtopic; \echo :SQLSTATE
RESET ROLE;
CREATE EXTENSION pgtopic;
SELECT create_topic('a');
SET ROLE regress_pgtopic_nobody;
DROP EXTENSION pgtopic; \echo :SQLSTATE
SELECT topic FROM topic_status;
RESET ROLE;
\c contrib_regression
DROP DATABASE regress_pgtopic;
DROP ROLE regress_pgtopic_nobody;
