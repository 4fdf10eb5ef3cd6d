-- Consumer groups by hand: create_consumer_group(), commit_offset(), reset_offsets(), drop_consumer_group().

SET timezone = 'UTC';
SET datestyle = 'ISO';
CREATE FUNCTION groups_position(of_topic topic, of_group text) RETURNS bigint[] LANGUAGE sql
    RETURN (SELECT array_agg(s.committed_offset ORDER BY s.partition) FROM consumer_group_status s WHERE s.topic = of_topic AND s.consumer_group = of_group);

-- partition 0: 0 … 9, a day each from 2024-01-01; 1: 5 … 9 kept; 2: a gap 0 … 2, then two
SELECT create_topic('groups.log', partitions => 3, retention => NULL);
SELECT count(produce('groups.log', d::text, partition => p, "timestamp" => d)) FROM generate_series(0, 1) p, generate_series(timestamptz '2024-01-01', '2024-01-10', '1 day') d;
SELECT delete_messages('groups.log', 1, 5);
BEGIN;
SELECT count(*) FROM produce_batch('groups.log', ARRAY['x', 'x', 'x'], partition => 2);
ROLLBACK;
SELECT count(produce('groups.log', d::text, partition => 2, "timestamp" => d)) FROM unnest('{2024-01-03,2024-01-30}'::timestamptz[]) d;
SELECT partition, log_start_offset, high_watermark, log_end_offset FROM partition_status WHERE topic = 'groups.log' ORDER BY 1;

--
-- create_consumer_group
--
SELECT create_consumer_group('first', 'groups.log');
SELECT create_consumer_group('earliest', 'groups.log', 'earliest'), create_consumer_group('latest', 'groups.log', start_at => 'latest'),
       create_consumer_group('time', 'groups.log', '2024-01-07 12:00'), create_consumer_group('never', 'groups.log', 'infinity'), create_consumer_group('ever', 'groups.log', '-infinity'),
       create_consumer_group('now', 'groups.log', 'now'), create_consumer_group('at', 'groups.log', (timestamptz '2024-01-03')::text);
SELECT consumer_group, array_agg(committed_offset ORDER BY partition) AS committed, array_agg(lag ORDER BY partition) AS lag FROM consumer_group_status WHERE topic = 'groups.log' GROUP BY 1 ORDER BY 1;
SELECT partition, committed_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now FROM consumer_group_status WHERE topic = 'groups.log' AND consumer_group = 'first' ORDER BY 1;
SELECT * FROM consume('groups.log', 'latest');
SELECT partition, count(*), min("timestamp") FROM (SELECT * FROM consume('groups.log', 'time') UNION ALL SELECT * FROM consume('groups.log', 'time') UNION ALL SELECT * FROM consume('groups.log', 'time')) c GROUP BY 1 ORDER BY 1;
-- once; per topic; not where a group has consumed
SELECT create_consumer_group('first', 'groups.log', 'latest'); \echo :SQLSTATE
SELECT create_topic('groups.other');
SELECT create_consumer_group('first', 'groups.other', 'latest');
SELECT count(produce('groups.other', 'x'));
SELECT log_offset FROM consume('groups.other', 'first');
SELECT log_offset FROM consume('groups.other', 'by itself');
SELECT create_consumer_group('by itself', 'groups.other'); \echo :SQLSTATE
-- names, positions and topics that are not good
SELECT create_consumer_group('', 'groups.log'); \echo :SQLSTATE
SELECT create_consumer_group(E'\002a', 'groups.log'); \echo :SQLSTATE
-- what leaders tell followers is no group
DO $$ BEGIN
  EXECUTE (SELECT format('INSERT INTO pgtopic.%I VALUES (%L, 0, 0, now()), (%L, 0, 0, now())', 't' || id || '_p0_offsets', '', E'\001')
           FROM pgtopic.topic WHERE name = 'groups.other');
END $$;
SELECT string_agg(DISTINCT quote_literal(consumer_group), ' ') FROM consumer_group_status WHERE topic = 'groups.other';
DO $$ BEGIN
  EXECUTE (SELECT format('DELETE FROM pgtopic.%I WHERE consumer_group < %L', 't' || id || '_p0_offsets', ' ')
           FROM pgtopic.topic WHERE name = 'groups.other');
END $$;
SELECT create_consumer_group(repeat('x', 256), 'groups.log'); \echo :SQLSTATE
SELECT create_consumer_group('x', 'groups.log', '5'); \echo :SQLSTATE
SELECT create_consumer_group('x', 'groups.log', '+5'); \echo :SQLSTATE
SELECT create_consumer_group('x', 'groups.log', 'Earliest'); \echo :SQLSTATE
SELECT create_consumer_group('x', 'groups.log', ''); \echo :SQLSTATE
SELECT create_consumer_group('x', 'groups.log', '2024-02-30'); \echo :SQLSTATE
SELECT create_consumer_group('x', 'groups.nothing'); \echo :SQLSTATE
SELECT create_consumer_group(NULL, 'groups.log'); \echo :SQLSTATE
SELECT create_consumer_group('x', NULL); \echo :SQLSTATE
SELECT create_consumer_group('x', 'groups.log', NULL); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT create_consumer_group('x', 'groups.log'); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT create_consumer_group('x', 'groups.log');
PREPARE TRANSACTION 'groups'; \echo :SQLSTATE
BEGIN;
SELECT create_consumer_group('x', 'groups.log', 'latest');
SELECT groups_position('groups.log', 'x');
ROLLBACK;
SELECT groups_position('groups.log', 'x');
-- what is open in front of it is not skipped
BEGIN;
SELECT count(produce('groups.other', 'open'));
SELECT create_consumer_group('behind', 'groups.other', 'latest'), create_consumer_group('behind time', 'groups.other', 'infinity');
COMMIT;
SELECT log_offset, value FROM consume('groups.other', 'behind');
SELECT log_offset, value FROM consume('groups.other', 'behind time');

--
-- commit_offset
--
SELECT commit_offset('seek', 'groups.log', 0, 7);
SELECT groups_position('groups.log', 'seek');
SELECT log_offset FROM (SELECT * FROM consume('groups.log', 'seek') UNION ALL SELECT * FROM consume('groups.log', 'seek') UNION ALL SELECT * FROM consume('groups.log', 'seek')) c WHERE partition = 0;
SELECT commit_offset('seek', 'groups.log', 0, 0), commit_offset('seek', 'groups.log', 1, 5), commit_offset('seek', 'groups.log', 2, 1);
SELECT groups_position('groups.log', 'seek');
SELECT commit_offset('seek', 'groups.log', 0, 10), commit_offset('seek', 'groups.log', 1, 10), commit_offset('seek', 'groups.log', 2, 5);
SELECT sum(lag) FROM consumer_group_status WHERE topic = 'groups.log' AND consumer_group = 'seek';
SELECT * FROM consume('groups.log', 'seek');
-- for those who read with fetch_messages()
BEGIN;
SELECT max(log_offset) + 1 AS next FROM fetch_messages('groups.log', 0, 0, 4) \gset
SELECT commit_offset('fetcher', 'groups.log', 0, :next);
COMMIT;
SELECT committed_offset, lag FROM consumer_group_status WHERE topic = 'groups.log' AND consumer_group = 'fetcher' AND partition = 0;
SELECT commit_offset('seek', 'groups.log', 0, 11); \echo :SQLSTATE
SELECT commit_offset('seek', 'groups.log', 0, -1); \echo :SQLSTATE
SELECT commit_offset('seek', 'groups.log', 1, 4); \echo :SQLSTATE
SELECT commit_offset('seek', 'groups.log', 3, 0); \echo :SQLSTATE
SELECT commit_offset('', 'groups.log', 0, 0); \echo :SQLSTATE
SELECT commit_offset('seek', 'groups.nothing', 0, 0); \echo :SQLSTATE
SELECT commit_offset(NULL, 'groups.log', 0, 0); \echo :SQLSTATE
SELECT commit_offset('seek', NULL, 0, 0); \echo :SQLSTATE
SELECT commit_offset('seek', 'groups.log', NULL, 0); \echo :SQLSTATE
SELECT commit_offset('seek', 'groups.log', 0, NULL); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT commit_offset('seek', 'groups.log', 0, 0); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT commit_offset('seek', 'groups.log', 0, 3);
PREPARE TRANSACTION 'groups'; \echo :SQLSTATE
BEGIN;
SELECT commit_offset('seek', 'groups.log', 0, 3);
SAVEPOINT s;
SELECT commit_offset('seek', 'groups.log', 0, 4);
ROLLBACK TO s;
SELECT groups_position('groups.log', 'seek');
ROLLBACK;
SELECT groups_position('groups.log', 'seek');
-- beyond an open message of our own: that may yet be rolled back
BEGIN;
SELECT (produce('groups.other', 'open')).log_offset AS open \gset
SELECT commit_offset('seek', 'groups.other', 0, :open);
SELECT commit_offset('seek', 'groups.other', 0, :open + 1); \echo :SQLSTATE
ROLLBACK;

--
-- reset_offsets
--
SELECT * FROM reset_offsets('seek', 'groups.log', 'earliest');
SELECT * FROM reset_offsets('seek', 'groups.log', 'latest');
SELECT * FROM reset_offsets('seek', 'groups.log', '4');
SELECT * FROM reset_offsets('seek', 'groups.log', '+3');
SELECT * FROM reset_offsets('seek', 'groups.log', '-1');
SELECT * FROM reset_offsets('seek', 'groups.log', '+0');
SELECT * FROM reset_offsets('seek', 'groups.log', '2024-01-08');
SELECT * FROM reset_offsets('seek', 'groups.log', '2024-01-02 18:00+00');
-- to within the log
SELECT * FROM reset_offsets('seek', 'groups.log', '0');
SELECT * FROM reset_offsets('seek', 'groups.log', '+100');
SELECT * FROM reset_offsets('seek', 'groups.log', '-100');
SELECT * FROM reset_offsets('seek', 'groups.log', '9223372036854775807');
SELECT * FROM reset_offsets('seek', 'groups.log', '-9223372036854775808');
SELECT * FROM reset_offsets('seek', 'groups.log', '+99999999999999999999');
SELECT * FROM reset_offsets('seek', 'groups.log', '-infinity');
SELECT * FROM reset_offsets('seek', 'groups.log', 'infinity');
-- a dry run says what it would do, leaves all as it is and keeps no lock
BEGIN;
SELECT * FROM reset_offsets('seek', 'groups.log', 'earliest', dry_run => true);
SELECT groups_position('groups.log', 'seek');
SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND pid = pg_backend_pid();
COMMIT;
SELECT * FROM reset_offsets('seek', 'groups.log', '-2');
SELECT partition, array_agg(log_offset) FROM (SELECT * FROM consume('groups.log', 'seek') UNION ALL SELECT * FROM consume('groups.log', 'seek') UNION ALL SELECT * FROM consume('groups.log', 'seek')) c GROUP BY 1 ORDER BY 1;
-- partitions where the group has no position begin at the log's start
SELECT commit_offset('part', 'groups.log', 0, 3);
SELECT * FROM reset_offsets('part', 'groups.log', '+1', dry_run => true);
-- after one's own consume(), and rolled back
BEGIN;
SELECT count(*) FROM consume('groups.log', 'part', 2);
SELECT count(*) FROM reset_offsets('part', 'groups.log', 'latest', true);
SELECT count(*) FROM reset_offsets('part', 'groups.log', 'latest');
SELECT groups_position('groups.log', 'part');
ROLLBACK;
SELECT groups_position('groups.log', 'part');
-- what is none of these
SELECT * FROM reset_offsets('seek', 'groups.log', 'yesterday evening'); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.log', 'EARLIEST'); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.log', ''); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.log', '+'); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.log', '1.5'); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.log', '--1'); \echo :SQLSTATE
SELECT * FROM reset_offsets('unknown', 'groups.log', 'latest'); \echo :SQLSTATE
SELECT * FROM reset_offsets('unknown', 'groups.log', 'latest', true); \echo :SQLSTATE
SELECT * FROM reset_offsets('', 'groups.log', 'latest'); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.nothing', 'latest'); \echo :SQLSTATE
SELECT * FROM reset_offsets(NULL, 'groups.log', 'latest'); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', NULL, 'latest'); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.log', NULL); \echo :SQLSTATE
SELECT * FROM reset_offsets('seek', 'groups.log', 'latest', NULL); \echo :SQLSTATE
BEGIN READ ONLY;
SELECT * FROM reset_offsets('seek', 'groups.log', 'latest'); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT count(*) FROM reset_offsets('seek', 'groups.log', 'latest');
PREPARE TRANSACTION 'groups'; \echo :SQLSTATE
SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND pid = pg_backend_pid();

--
-- A group's life with the topic's: more partitions, messages deleted, lag
--
SELECT create_topic('groups.life');
SELECT count(*) FROM produce_batch('groups.life', array_fill('x'::text, ARRAY[100]));
SELECT count(*) FROM consume('groups.life', 'g', 30);
SELECT partition, committed_offset, log_end_offset, lag FROM consumer_group_status WHERE topic = 'groups.life';
SELECT delete_messages('groups.life', 0, 50);
SELECT partition, committed_offset, log_end_offset, lag FROM consumer_group_status WHERE topic = 'groups.life';
SELECT * FROM reset_offsets('g', 'groups.life', '+10', dry_run => true);
\set VERBOSITY terse
SELECT add_partitions('groups.life', 2);
\set VERBOSITY default
SELECT count(*) FROM produce_batch('groups.life', array_fill('x'::text, ARRAY[7]), partition => 1);
SELECT partition, committed_offset, log_end_offset, lag FROM consumer_group_status WHERE topic = 'groups.life' ORDER BY 1;
SELECT partition, min(log_offset), count(*) FROM (SELECT * FROM consume('groups.life', 'g') UNION ALL SELECT * FROM consume('groups.life', 'g')) c GROUP BY 1 ORDER BY 1;
SELECT partition, committed_offset, log_end_offset, lag FROM consumer_group_status WHERE topic = 'groups.life' ORDER BY 1;

--
-- drop_consumer_group
--
SELECT drop_consumer_group('seek', 'groups.log');
SELECT groups_position('groups.log', 'seek');
SELECT drop_consumer_group('seek', 'groups.log'); \echo :SQLSTATE
-- it is a new one then
SELECT min(log_offset) FROM (SELECT * FROM consume('groups.log', 'seek') UNION ALL SELECT * FROM consume('groups.log', 'seek') UNION ALL SELECT * FROM consume('groups.log', 'seek')) c WHERE partition = 0;
SELECT create_consumer_group('first', 'groups.life', 'latest');
SELECT topic, count(*) FROM consumer_group_status WHERE consumer_group = 'first' GROUP BY 1 ORDER BY 1;
SELECT drop_consumer_group('first');
SELECT topic, count(*) FROM consumer_group_status WHERE consumer_group = 'first' GROUP BY 1 ORDER BY 1;
SELECT drop_consumer_group('first'); \echo :SQLSTATE
SELECT drop_consumer_group('no such group'); \echo :SQLSTATE
SELECT drop_consumer_group(''); \echo :SQLSTATE
SELECT drop_consumer_group(NULL); \echo :SQLSTATE
SELECT drop_consumer_group('time', 'groups.nothing'); \echo :SQLSTATE
-- others' positions are left
SELECT DISTINCT consumer_group FROM consumer_group_status WHERE topic::text LIKE 'groups.%' ORDER BY 1;
BEGIN;
SELECT drop_consumer_group('time');
SELECT groups_position('groups.log', 'time');
ROLLBACK;
SELECT groups_position('groups.log', 'time');
BEGIN;
SELECT count(*) FROM consume('groups.log', 'earliest', 1);
SELECT drop_consumer_group('earliest', 'groups.log');
SELECT count(*) FROM consume('groups.log', 'earliest', 1);
COMMIT;
SELECT sum(committed_offset) > 0 AS back FROM consumer_group_status WHERE topic = 'groups.log' AND consumer_group = 'earliest';
BEGIN READ ONLY;
SELECT drop_consumer_group('time'); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT drop_consumer_group('time', 'groups.log');
PREPARE TRANSACTION 'groups'; \echo :SQLSTATE

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'groups.%') d;
DROP FUNCTION groups_position(topic, text);
