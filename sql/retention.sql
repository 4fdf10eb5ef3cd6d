-- The start of the log: delete_messages(), retention by time and by size.

-- The worker works on its own; this waits for what it is to bring about.
CREATE PROCEDURE retention_wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
    fulfilled boolean;
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXECUTE 'SELECT ' || condition INTO fulfilled;
        COMMIT;
        IF fulfilled THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RAISE '% has not become true in half a minute', condition;
END $$;
CREATE FUNCTION retention_start(of_topic topic) RETURNS bigint[] LANGUAGE sql
    RETURN (SELECT array_agg(s.log_start_offset ORDER BY s.partition) FROM partition_status s WHERE s.topic = of_topic);
CREATE FUNCTION retention_first_segment(of_topic topic, of_partition int) RETURNS bigint LANGUAGE sql
    RETURN (SELECT min(s.from_offset) FROM segment_status s WHERE s.topic = of_topic AND s.partition = of_partition);

--
-- delete_messages: up to an offset, at once
--
SELECT create_topic('retention.delete', partitions => 2, segment_messages => 1000);
SELECT count(*) FROM produce_batch('retention.delete', ARRAY(SELECT i::text FROM generate_series(0, 2499) i), partition => 0);
SELECT count(*) FROM produce_batch('retention.delete', ARRAY['a', 'b', 'c'], partition => 1);
SELECT commit_offset('early', 'retention.delete', 0, 1), commit_offset('late', 'retention.delete', 0, 2000);
SELECT delete_messages('retention.delete', 0, 10);
-- the middle of a batch
SELECT log_offset, value FROM fetch_messages('retention.delete', 0, 10, 2);
SELECT log_offset, value FROM fetch_messages('retention.delete', 0, 9, 2); \echo :SQLSTATE
SELECT partition, log_start_offset, high_watermark, log_end_offset FROM partition_status WHERE topic = 'retention.delete' ORDER BY 1;
SELECT messages FROM topic_status WHERE topic = 'retention.delete';
SELECT sum(messages) FROM segment_status WHERE topic = 'retention.delete' AND partition = 0;
-- never back
SELECT delete_messages('retention.delete', 0, 0);
SELECT delete_messages('retention.delete', 0, 5);
SELECT delete_messages('retention.delete', 0, 10);
-- over segments: what is whole is dropped, and the rest of it deleted
SELECT delete_messages('retention.delete', 0, 1700);
SELECT log_offset, value FROM fetch_messages('retention.delete', 0, 1700, 1);
CALL retention_wait_until($$retention_first_segment('retention.delete', 0) = 1000$$);
SELECT min(from_offset), sum(messages) FROM segment_status WHERE topic = 'retention.delete' AND partition = 0;
SELECT log_offset, value FROM fetch_messages('retention.delete', 0, 1700, 1);
-- groups: one behind the start goes on there, another is left where it is
SELECT consumer_group, partition, committed_offset, lag FROM consumer_group_status WHERE topic = 'retention.delete' AND partition = 0 ORDER BY 1, 2;
SELECT min(log_offset), count(*) FROM (SELECT * FROM consume('retention.delete', 'early', 1) UNION ALL SELECT * FROM consume('retention.delete', 'early', 1)) c WHERE partition = 0;
-- all of them; then it goes on with the next offset
SELECT delete_messages('retention.delete', 0, 2500), delete_messages('retention.delete', 1, 3);
SELECT * FROM fetch_messages('retention.delete', 0, 2500);
SELECT partition, log_start_offset, high_watermark, log_end_offset FROM partition_status WHERE topic = 'retention.delete' ORDER BY 1;
SELECT messages FROM topic_status WHERE topic = 'retention.delete';
SELECT * FROM consume('retention.delete', 'new');
SELECT * FROM produce('retention.delete', 'next', partition => 0);
SELECT log_offset, value FROM consume('retention.delete', 'new');
CALL retention_wait_until($$retention_first_segment('retention.delete', 0) = 2000$$);
\c -
SELECT log_offset, value FROM fetch_messages('retention.delete', 0, 2500);
SELECT * FROM produce('retention.delete', 'after that', partition => 0);

-- gaps count as messages do
SELECT create_topic('retention.gaps');
BEGIN;
SELECT count(*) FROM produce_batch('retention.gaps', ARRAY['x', 'x', 'x']);
ROLLBACK;
SELECT delete_messages('retention.gaps', 0, 2);
SELECT delete_messages('retention.gaps', 0, 3);
SELECT * FROM fetch_messages('retention.gaps', 0, 3);
SELECT * FROM produce('retention.gaps', 'first');

-- not in a transaction that is rolled back
BEGIN;
SELECT delete_messages('retention.gaps', 0, 4);
SELECT * FROM fetch_messages('retention.gaps', 0, 3); \echo :SQLSTATE
ROLLBACK;
SELECT log_offset, value FROM fetch_messages('retention.gaps', 0, 3);
-- not what is open
BEGIN;
SELECT * FROM produce('retention.gaps', 'open');
SELECT delete_messages('retention.gaps', 0, 5); \echo :SQLSTATE
ROLLBACK;

SELECT delete_messages('retention.delete', 0, 2503); \echo :SQLSTATE
SELECT delete_messages('retention.delete', 0, 9223372036854775807); \echo :SQLSTATE
SELECT delete_messages('retention.delete', 0, -1); \echo :SQLSTATE
SELECT delete_messages('retention.delete', 2, 0); \echo :SQLSTATE
SELECT delete_messages('retention.delete', -1, 0); \echo :SQLSTATE
SELECT delete_messages('retention.nothing', 0, 0); \echo :SQLSTATE
SELECT delete_messages(NULL, 0, 0); \echo :SQLSTATE
SELECT delete_messages('retention.delete', NULL, 0); \echo :SQLSTATE
SELECT delete_messages('retention.delete', 0, NULL); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT delete_messages('retention.delete', 0, 2501); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT delete_messages('retention.delete', 0, 2501);
PREPARE TRANSACTION 'retention'; \echo :SQLSTATE
SELECT retention_start('retention.delete');

--
-- By time
--
-- one that keeps longer than there is time is in nobody's way
SELECT create_topic('retention.ages', retention => '7000 years');
SELECT (produce('retention.ages', 'kept', "timestamp" => '0001-01-01')).log_offset;
SELECT create_topic('retention.time', partitions => 3, segment_messages => 1000, retention => NULL);
-- 0: old, then new; 1: new in front of old; 2: only old
SELECT * FROM produce_batch('retention.time', array_fill('old'::text, ARRAY[1000]), partition => 0, timestamps => array_fill(now() - interval '3 days', ARRAY[1000]));
SELECT * FROM produce_batch('retention.time', array_fill('old'::text, ARRAY[300]), partition => 0, timestamps => array_fill(now() - interval '2 days', ARRAY[300]));
SELECT * FROM produce_batch('retention.time', array_fill('new'::text, ARRAY[200]), partition => 0);
SELECT count(*) FROM produce_batch('retention.time', ARRAY['new', 'old'], partition => 1, timestamps => ARRAY[now(), now() - interval '9 days']);
SELECT count(*) FROM produce_batch('retention.time', array_fill('old'::text, ARRAY[2100]), partition => 2, timestamps => array_fill(now() - interval '3 days', ARRAY[2100]));
SELECT retention_start('retention.time');
SELECT alter_topic('retention.time', 'retention', '1 day');
CALL retention_wait_until($$retention_start('retention.time') = '{1300,0,2100}'$$);
SELECT retention_start('retention.time');
SELECT min(log_offset), count(*), min(value), max(value) FROM fetch_messages('retention.time', 0, 1300);
SELECT log_offset, value FROM fetch_messages('retention.time', 1, 0);
SELECT log_offset, value FROM fetch_messages('retention.time', 2, 2100);
SELECT log_offset, value FROM fetch_messages('retention.time', 2, 2099); \echo :SQLSTATE
CALL retention_wait_until($$retention_first_segment('retention.time', 0) = 1000 AND retention_first_segment('retention.time', 2) = 2000$$);
SELECT partition, min(from_offset), sum(messages) FROM segment_status WHERE topic = 'retention.time' GROUP BY 1 ORDER BY 1;
SELECT * FROM produce('retention.time', 'goes on', partition => 2);
SELECT log_offset, value FROM fetch_messages('retention.ages', 0, 0);
SELECT retention FROM topic_status WHERE topic = 'retention.ages';

--
-- By size: whole segments of the past, never the one that is written to
--
SELECT create_topic('retention.size', segment_messages => 1000);
SELECT count(*) FROM generate_series(1, 5), LATERAL produce_batch('retention.size', array_fill(repeat(generate_series::text, 1000), ARRAY[1000]));
SELECT log_offset FROM produce('retention.size', 'the last');
-- as in Kafka at least that much is kept: what comes from 2000 on, and without half a segment of it it would be less
SELECT (SELECT sum(size_bytes) FROM segment_status WHERE topic = 'retention.size' AND from_offset >= 2000) -
       (SELECT size_bytes / 2 FROM segment_status WHERE topic = 'retention.size' AND from_offset = 1000) AS bytes \gset
SELECT alter_topic('retention.size', 'retention_bytes', :'bytes');
CALL retention_wait_until($$retention_start('retention.size') = '{2000}' AND retention_first_segment('retention.size', 0) = 2000$$);
SELECT retention_start('retention.size'), count(*) FROM fetch_messages('retention.size', 0, 2000, 10000);
SELECT alter_topic('retention.size', 'retention_bytes', '0');
CALL retention_wait_until($$retention_start('retention.size') = '{5000}' AND retention_first_segment('retention.size', 0) = 5000$$);
SELECT log_offset, value FROM fetch_messages('retention.size', 0, 5000);
SELECT log_start_offset, high_watermark, log_end_offset FROM partition_status WHERE topic = 'retention.size';

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'retention.%') d;
DROP PROCEDURE retention_wait_until(text);
DROP FUNCTION retention_start(topic), retention_first_segment(topic, int);
