-- consume(): positions move with the transaction, order, fairness.

SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE FUNCTION consume_position(of_topic topic, of_group text) RETURNS bigint[] LANGUAGE sql
    RETURN (SELECT array_agg(s.committed_offset ORDER BY s.partition) FROM consumer_group_status s WHERE s.topic = of_topic AND s.consumer_group = of_group);

--
-- One partition: order, limits, independent groups
--
SELECT create_topic('consume.one');
-- nothing to consume makes no group
SELECT * FROM consume('consume.one', 'g');
SELECT count(*) FROM consumer_group_status WHERE topic = 'consume.one';
SELECT * FROM produce_batch('consume.one', ARRAY(SELECT 'v' || i FROM generate_series(0, 9) i), ARRAY(SELECT 'k' || i FROM generate_series(0, 9) i));
SELECT partition, log_offset, "timestamp" BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now, key, value, headers FROM consume('consume.one', 'g', 3);
SELECT consumer_group, topic, partition, committed_offset, log_end_offset, lag, committed_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now
FROM consumer_group_status WHERE topic = 'consume.one';
SELECT log_offset, value FROM consume('consume.one', consumer_group => 'g', max_messages => 1, max_wait => '0');
-- another group, and one whose name differs in case, begin at the beginning
SELECT log_offset, value FROM consume('consume.one', 'other', 2);
SELECT log_offset, value FROM consume('consume.one', 'G', 2);
SELECT log_offset, value FROM consume('consume.one', 'g', 2147483647);
SELECT log_offset, value FROM consume('consume.one', 'g');
SELECT consumer_group, committed_offset, lag FROM consumer_group_status WHERE topic = 'consume.one' ORDER BY consumer_group COLLATE "C";
-- 500 unless said
SELECT create_topic('consume.many');
SELECT count(*) FROM produce_batch('consume.many', ARRAY(SELECT i::text FROM generate_series(1, 1200) i));
SELECT count(*), min(log_offset), max(log_offset) FROM consume('consume.many', 'g');
SELECT count(*), min(log_offset), max(log_offset) FROM consume('consume.many', 'g');
SELECT count(*), min(log_offset), max(log_offset) FROM consume('consume.many', 'g');

--
-- The position moves when the transaction commits, and not otherwise
--
SELECT create_topic('consume.tx');
SELECT count(*) FROM produce_batch('consume.tx', ARRAY(SELECT i::text FROM generate_series(0, 99) i));
BEGIN;
SELECT log_offset FROM consume('consume.tx', 'g', 2);
SELECT log_offset FROM consume('consume.tx', 'g', 2);
ROLLBACK;
SELECT consume_position('consume.tx', 'g');
BEGIN;
SELECT log_offset FROM consume('consume.tx', 'g', 2);
SELECT 1 / 0;
COMMIT;
SELECT log_offset FROM consume('consume.tx', 'g', 2);
BEGIN;
SELECT log_offset FROM consume('consume.tx', 'g', 2);
SAVEPOINT s;
SELECT log_offset FROM consume('consume.tx', 'g', 2);
SELECT consume_position('consume.tx', 'g');
ROLLBACK TO s;
SELECT consume_position('consume.tx', 'g');
SELECT log_offset FROM consume('consume.tx', 'g', 1);
SAVEPOINT s;
SELECT log_offset FROM consume('consume.tx', 'g', 1);
RELEASE s;
COMMIT;
SELECT consume_position('consume.tx', 'g');
-- a group that begins in a savepoint that is rolled back
BEGIN;
SAVEPOINT s;
SELECT log_offset FROM consume('consume.tx', 'new', 1);
ROLLBACK TO s;
SELECT consume_position('consume.tx', 'new');
SELECT log_offset FROM consume('consume.tx', 'new', 1);
COMMIT;
SELECT consume_position('consume.tx', 'new');
-- in an exception block
DO $$
BEGIN
    FOR i IN 1 .. 4 LOOP
        BEGIN
            RAISE NOTICE '%: %', i, (SELECT array_agg(log_offset) FROM consume('consume.tx', 'do', 2));
            IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
        EXCEPTION WHEN division_by_zero THEN NULL;
        END;
    END LOOP;
END $$;
SELECT consume_position('consume.tx', 'do');
-- exactly once: the messages and what comes of them commit together
CREATE TABLE consume_result (v int PRIMARY KEY CHECK (v <> 13));
INSERT INTO consume_result SELECT value::int FROM consume('consume.tx', 'once', 10);
INSERT INTO consume_result SELECT value::int FROM consume('consume.tx', 'once', 10); \echo :SQLSTATE
SELECT consume_position('consume.tx', 'once'), (SELECT max(v) FROM consume_result);
ALTER TABLE consume_result DROP CONSTRAINT consume_result_v_check;
INSERT INTO consume_result SELECT value::int FROM consume('consume.tx', 'once', 90);
SELECT consume_position('consume.tx', 'once'), count(*), min(v), max(v) FROM consume_result;
DROP TABLE consume_result;

-- twice in one statement: one after the other
SELECT array_agg(log_offset) FROM (
    SELECT log_offset FROM consume('consume.tx', 'twice', 3) UNION ALL SELECT log_offset FROM consume('consume.tx', 'twice', 3)) c;
SELECT array_agg(log_offset) FROM unnest('{1,2,3}'::int[]) n, LATERAL consume('consume.tx', 'lateral', n);
SELECT consume_position('consume.tx', 'twice'), consume_position('consume.tx', 'lateral');
WITH a AS MATERIALIZED (SELECT log_offset FROM consume('consume.tx', 'with a', 3)), b AS MATERIALIZED (SELECT log_offset FROM consume('consume.tx', 'with b', 4))
SELECT (SELECT count(*) FROM a) AS a, (SELECT count(*) FROM b) AS b;
-- all of it moves the position, even if the statement looks at one message only
SELECT log_offset FROM consume('consume.tx', 'limit', 10) LIMIT 1;
SELECT consume_position('consume.tx', 'limit');

-- in the other isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT log_offset FROM consume('consume.tx', 'rr', 2);
SELECT log_offset FROM consume('consume.tx', 'rr', 2);
SAVEPOINT s;
SELECT log_offset FROM consume('consume.tx', 'rr', 2);
ROLLBACK TO s;
SELECT log_offset FROM consume('consume.tx', 'rr', 2);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT log_offset FROM consume('consume.tx', 'rr', 2);
SELECT log_offset FROM consume('consume.tx', 'rr', 2);
COMMIT;
SELECT consume_position('consume.tx', 'rr');

--
-- Gaps, uncommitted messages, the log's start
--
SELECT create_topic('consume.gaps');
BEGIN;
SELECT count(*) FROM produce_batch('consume.gaps', ARRAY['x', 'x', 'x']);
SELECT * FROM consume('consume.gaps', 'g');
ROLLBACK;
-- nothing but gaps: the group moves on, and has no lag
SELECT * FROM consume('consume.gaps', 'g');
SELECT committed_offset, log_end_offset, lag FROM consumer_group_status WHERE topic = 'consume.gaps';
SELECT (produce('consume.gaps', 'a')).log_offset;
BEGIN;
SELECT (produce('consume.gaps', 'x')).log_offset;
ROLLBACK;
SELECT (produce('consume.gaps', 'b')).log_offset;
SELECT log_offset, value FROM consume('consume.gaps', 'g', 1);
SELECT log_offset, value FROM consume('consume.gaps', 'g', 1);
SELECT log_offset, value FROM consume('consume.gaps', 'h', 2);
SELECT consumer_group, committed_offset, lag FROM consumer_group_status WHERE topic = 'consume.gaps' ORDER BY 1;
-- our own message, before and after the commit
BEGIN;
SELECT (produce('consume.gaps', 'own')).log_offset;
SELECT log_offset, value FROM consume('consume.gaps', 'g');
COMMIT;
SELECT log_offset, value FROM consume('consume.gaps', 'g');
-- a group that is behind the log's start goes on there
SELECT (produce('consume.gaps', 'c' || i)).log_offset FROM generate_series(1, 3) i;
SELECT delete_messages('consume.gaps', 0, 8);
SELECT consumer_group, committed_offset, lag FROM consumer_group_status WHERE topic = 'consume.gaps' ORDER BY 1;
SELECT log_offset, value FROM consume('consume.gaps', 'h');
SELECT log_offset, value FROM consume('consume.gaps', 'new');

--
-- Partitions: one a call, and none starves
--
SELECT create_topic('consume.fair', partitions => 4);
SELECT count(*) FROM generate_series(0, 3) p, LATERAL produce_batch('consume.fair', ARRAY(SELECT (p * 1000 + i)::text FROM generate_series(0, 99) i), partition => p);
SELECT count(DISTINCT partition), count(*) FROM consume('consume.fair', 'g', 30);
SELECT count(DISTINCT partition), count(*) FROM consume('consume.fair', 'g', 30);
SELECT count(DISTINCT partition), count(*) FROM consume('consume.fair', 'g', 30);
SELECT count(DISTINCT partition), count(*) FROM consume('consume.fair', 'g', 30);
SELECT consume_position('consume.fair', 'g');
-- one partition gets more all the time; the others have their turn all the same
DO $$
BEGIN
    FOR i IN 1 .. 4 LOOP
        PERFORM produce_batch('consume.fair', array_fill('x'::text, ARRAY[100]), partition => 2);
        COMMIT;
        PERFORM consume('consume.fair', 'g', 50);
        COMMIT;
    END LOOP;
END $$;
SELECT consume_position('consume.fair', 'g');
-- nor do two groups that take turns in one session take partitions from each other
SELECT create_topic('consume.turns', partitions => 2);
SELECT count(*) FROM generate_series(0, 1) p, LATERAL produce_batch('consume.turns', array_fill('x'::text, ARRAY[100]), partition => p);
DO $$
BEGIN
    FOR i IN 1 .. 40 LOOP
        PERFORM consume('consume.turns', 'a', 1);
        PERFORM consume('consume.turns', 'b', 1);
        COMMIT;
    END LOOP;
END $$;
SELECT consumer_group, partition, committed_offset > 0 AS begun FROM consumer_group_status WHERE topic = 'consume.turns' ORDER BY 1, 2;
SELECT consumer_group, sum(committed_offset) FROM consumer_group_status WHERE topic = 'consume.turns' GROUP BY 1 ORDER BY 1;
-- all partitions in one transaction, each in order
BEGIN;
CREATE TEMP TABLE consume_all AS
    SELECT c.*, n FROM generate_series(1, 8) n, LATERAL consume('consume.fair', 'all', 200 + n - n) c;
SELECT partition, count(*), count(DISTINCT n) AS calls FROM consume_all GROUP BY partition ORDER BY partition;
COMMIT;
SELECT consume_position('consume.fair', 'all') = (SELECT array_agg(log_end_offset ORDER BY partition) FROM partition_status WHERE topic = 'consume.fair') AS all_read;
SELECT bool_and(log_offset = row_number - 1) AS in_order FROM (SELECT *, row_number() OVER (PARTITION BY partition ORDER BY n, ordinality) FROM (SELECT *, row_number() OVER () AS ordinality FROM consume_all) a) b;
-- a partition where the position is, and others, where the group has not begun yet
SELECT create_topic('consume.begun', partitions => 3);
SELECT (produce('consume.begun', 'x', partition => 1)).log_offset;
SELECT partition, log_offset FROM consume('consume.begun', 'g');
SELECT partition, committed_offset, log_end_offset, lag, committed_at IS NULL AS never FROM consumer_group_status WHERE topic = 'consume.begun' ORDER BY partition;
SELECT (produce('consume.begun', 'x', partition => 2)).log_offset;
SELECT partition, committed_offset, log_end_offset, lag FROM consumer_group_status WHERE topic = 'consume.begun' ORDER BY partition;

--
-- Names of groups
--
SELECT create_topic('consume.names');
SELECT (produce('consume.names', 'x')).log_offset;
SELECT count(*) FROM unnest(ARRAY['with space', ' ', 'quote''s', '"double"', '$1', '%s', E'new\nline', 'größe', '日本語', 'a-b.c_d', '-1', repeat('x', 255), 'back\slash', ';DROP TABLE x']) g, LATERAL consume('consume.names', g);
SELECT count(*), count(*) FILTER (WHERE lag = 0) AS read, max(length(consumer_group)) FROM consumer_group_status WHERE topic = 'consume.names';
SELECT count(*) FROM consume('consume.names', repeat('x', 255));
SELECT * FROM consume('consume.names', repeat('x', 256)); \echo :SQLSTATE
-- bytes, not characters
SELECT count(*) FROM consume('consume.names', repeat('ä', 127) || 'x');
SELECT * FROM consume('consume.names', repeat('ä', 128)); \echo :SQLSTATE
SELECT * FROM consume('consume.names', ''); \echo :SQLSTATE
SELECT * FROM consume('consume.names', NULL); \echo :SQLSTATE

--
-- Bytes
--
SELECT create_topic('consume.bytes', value_format => 'bytes');
SELECT (produce('consume.bytes', '\xff'::bytea, '\x00'::bytea)).log_offset;
SELECT * FROM consume('consume.bytes', 'g'); \echo :SQLSTATE
SELECT count(*) FROM consumer_group_status WHERE topic = 'consume.bytes';
SELECT log_offset, key, value FROM consume_bytes('consume.bytes', 'g');
SELECT log_offset, key, value FROM consume_bytes('consume.one', 'bytes', 2);
-- it is the same position, whichever way
SELECT log_offset, key, value FROM consume('consume.one', 'bytes', 2);

--
-- Where it is refused
--
SELECT * FROM consume('consume.nothing', 'g'); \echo :SQLSTATE
SELECT * FROM consume(NULL, 'g'); \echo :SQLSTATE
SELECT * FROM consume('consume.one', 'g', 0); \echo :SQLSTATE
SELECT * FROM consume('consume.one', 'g', -5); \echo :SQLSTATE
SELECT * FROM consume('consume.one', 'g', NULL); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT * FROM consume('consume.one', 'read only'); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT log_offset FROM consume('consume.one', 'prepared', 1);
PREPARE TRANSACTION 'consume'; \echo :SQLSTATE
SELECT consume_position('consume.one', 'prepared');
-- the lock has gone with the transaction
SELECT log_offset FROM consume('consume.one', 'prepared', 1);
SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND pid = pg_backend_pid();

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'consume.%') d;
DROP FUNCTION consume_position(topic, text);
