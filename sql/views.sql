-- Status views, settings, and what describes them.

SET timezone = 'UTC';
SET datestyle = 'ISO';

--
-- Columns
--
SELECT c.relname AS view, a.attname AS "column", format_type(a.atttypid, a.atttypmod) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.oid = ANY ('{topic_status,partition_status,segment_status,consumer_group_status,producer_status,worker_status}'::regclass[])
ORDER BY c.oid, a.attnum;
-- these, and no others
SELECT c.relname FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic') AND d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind = 'v' ORDER BY 1;
-- no leaks
SELECT oid::regclass, reloptions FROM pg_class WHERE oid = ANY ('{topic_status,partition_status,segment_status,consumer_group_status,producer_status}'::regclass[]) ORDER BY oid;

--
-- What they say
--
SELECT create_topic('views.log', partitions => 2, retention => '1 mon', retention_bytes => 123456789012, segment_messages => 1000, value_format => 'json');
SELECT create_topic('views.other', retention => NULL);
SELECT topic, partitions, replication_factor, value_format, retention, retention_bytes, messages, size_bytes BETWEEN 1 AND 1000000 AS size_bytes FROM topic_status WHERE topic = 'views.log' \gx
SELECT topic, partition, leader, leader_epoch, replicas, isr, log_start_offset, high_watermark, log_end_offset, segments >= 2 AS segments, size_bytes > 0 AS size_bytes, blocking_pid, blocking_since
FROM partition_status WHERE topic = 'views.log' ORDER BY partition;
SELECT topic, partition, regexp_replace(segment::text, 't\d+', 't#') AS segment, from_offset, to_offset, messages, size_bytes > 0 AS size_bytes, max_timestamp
FROM segment_status WHERE topic = 'views.log' AND from_offset < 2000 ORDER BY partition, from_offset;
SELECT count(*) FROM consumer_group_status WHERE topic = 'views.log';

SELECT count(*) FROM produce_batch('views.log', ARRAY(SELECT i::text FROM generate_series(0, 1499) i), partition => 1, timestamps => ARRAY(SELECT timestamptz '2024-01-01' + i * interval '1 min' FROM generate_series(0, 1499) i));
SELECT (produce('views.log', 'null', partition => 0, "timestamp" => '2024-06-01')).log_offset;
BEGIN;
SELECT (produce('views.log', 'null', partition => 0)).log_offset;
ROLLBACK;
SELECT (produce('views.log', 'null', partition => 0, "timestamp" => '2024-05-01')).log_offset;
SELECT topic, messages FROM topic_status WHERE topic::text LIKE 'views.%' ORDER BY 1;
SELECT partition, high_watermark, log_end_offset, blocking_pid FROM partition_status WHERE topic = 'views.log' ORDER BY partition;
-- the sum over segments is what is between the start and the end; each is of the size that was set
SELECT partition, sum(messages), bool_and(to_offset - from_offset = 1000) AS size, count(*) FILTER (WHERE messages > 0) AS used, max(max_timestamp) FILTER (WHERE partition = 0) AS of_last_batch
FROM segment_status WHERE topic = 'views.log' GROUP BY 1 ORDER BY 1;
SELECT max(max_timestamp) FROM segment_status WHERE topic = 'views.log' AND partition = 1;
-- sizes add up, if the worker does not make a segment just then
DO $$
BEGIN
    FOR i IN 1 .. 1000 LOOP
        IF (SELECT (t.size_bytes, t.size_bytes, p.segments) = (p.size_bytes, s.size_bytes, s.segments)
            FROM topic_status t, (SELECT sum(size_bytes) AS size_bytes, sum(segments) AS segments FROM partition_status WHERE topic = 'views.log') p,
                (SELECT sum(size_bytes) AS size_bytes, count(*) AS segments FROM segment_status WHERE topic = 'views.log') s
            WHERE t.topic = 'views.log') THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RAISE 'sizes do not add up';
END $$;

SELECT count(*) FROM consume('views.log', 'g', 1) g, consume('views.log', 'h', 1) h;
SELECT consumer_group, sum(lag), bool_and(committed_at IS NULL = (committed_offset IS NULL)) AS at_with_offset FROM consumer_group_status WHERE topic = 'views.log' GROUP BY 1 ORDER BY 1;

-- who blocks
BEGIN;
SELECT (produce('views.log', '"open"', partition => 1)).log_offset;
SELECT partition, high_watermark, log_end_offset, blocking_pid = pg_backend_pid() AS ours, blocking_since BETWEEN now() AND clock_timestamp() AS since
FROM partition_status WHERE topic = 'views.log' ORDER BY partition;
COMMIT;
SELECT partition, high_watermark, log_end_offset, blocking_pid, blocking_since FROM partition_status WHERE topic = 'views.log' ORDER BY partition;

-- in a transaction that makes a topic, and in one that only reads
BEGIN;
SELECT create_topic('views.new');
SELECT (produce('views.new', 'x')).log_offset;
SELECT topic, messages FROM topic_status WHERE topic = 'views.new';
SELECT high_watermark, log_end_offset, segments FROM partition_status WHERE topic = 'views.new';
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY;
SELECT topic, partitions, messages FROM topic_status WHERE topic::text LIKE 'views.%' ORDER BY 1;
SELECT count(*) FROM partition_status WHERE topic::text LIKE 'views.%';
SELECT count(*) > 0 AS segments FROM segment_status WHERE topic = 'views.log';
SELECT count(DISTINCT consumer_group) FROM consumer_group_status WHERE topic = 'views.log';
SELECT count(*) FROM worker_status;
COMMIT;
-- as what a dashboard joins
SELECT t.topic, count(DISTINCT p.partition) AS partitions, count(DISTINCT g.consumer_group) AS groups
FROM topic_status t JOIN partition_status p USING (topic) LEFT JOIN consumer_group_status g USING (topic, partition)
WHERE t.topic::text LIKE 'views.%' GROUP BY 1 ORDER BY 1;
-- they are to be read
DELETE FROM topic_status; \echo :SQLSTATE
UPDATE consumer_group_status SET committed_offset = 0; \echo :SQLSTATE

--
-- Workers
--
DO $$
BEGIN
    FOR i IN 1 .. 3000 LOOP
        EXIT WHEN (SELECT count(pid) FROM worker_status) = 2;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
SELECT worker, pid IS NOT NULL AS pid, state IN ('running', 'waiting') AS state FROM worker_status ORDER BY 1;
SELECT backend_type, application_name, datname = current_database() AS here FROM pg_stat_activity
WHERE pid IN (SELECT pid FROM worker_status) ORDER BY 1;

--
-- Settings
--
SELECT name, vartype, unit, context, boot_val, min_val, max_val FROM pg_settings WHERE name LIKE 'pgtopic.%' ORDER BY 1;
SELECT name, short_desc FROM pg_settings WHERE name LIKE 'pgtopic.%' ORDER BY 1;
SELECT name FROM pg_settings WHERE name LIKE 'pgtopic.%' AND (short_desc = '' OR short_desc IS NULL OR short_desc NOT LIKE 'Sets %.');
SET pgtopic.max_partitions = 100; \echo :SQLSTATE
SET pgtopic.retention_check_interval = '10 s'; \echo :SQLSTATE
\set VERBOSITY sqlstate
SET pgtopic.segment_wait_timeout = '-1 s';
\set VERBOSITY default
SET pgtopic.segment_wait_timeout = '5 min';
SHOW pgtopic.segment_wait_timeout;
RESET pgtopic.segment_wait_timeout;
-- a name that is mistyped does not pass
SET pgtopic.segment_wait_timout = '5 min'; \echo :SQLSTATE

--
-- Everything that people use is described
--
WITH members AS (
    SELECT d.classid, d.objid FROM pg_depend d
    WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic') AND d.deptype = 'e'),
support AS (
    SELECT unnest(ARRAY[typinput, typoutput, typreceive, typsend])::oid AS oid FROM pg_type WHERE oid IN ('topic'::regtype, 'topic_partition'::regtype)
    UNION SELECT oprcode FROM pg_operator WHERE oprleft IN ('topic'::regtype, 'topic_partition'::regtype)
    UNION SELECT amproc FROM pg_amproc WHERE amproclefttype IN ('topic'::regtype, 'topic_partition'::regtype))
SELECT pg_describe_object(m.classid, m.objid, 0) AS "not described" FROM members m
WHERE obj_description(m.objid, (SELECT relname FROM pg_class WHERE oid = m.classid)) IS NULL
AND NOT (m.classid = 'pg_proc'::regclass AND m.objid IN (SELECT oid FROM support))
AND m.classid NOT IN ('pg_operator'::regclass, 'pg_opfamily'::regclass, 'pg_opclass'::regclass, 'pg_cast'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass)
AND NOT (m.classid = 'pg_class'::regclass AND m.objid IN (SELECT oid FROM pg_class WHERE relkind = 'S'))
-- array and row types come with what they are made for
AND NOT (m.classid = 'pg_type'::regclass AND m.objid IN (SELECT oid FROM pg_type WHERE typelem <> 0 OR typrelid IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'v'))))
-- a trigger's description is its function's
AND m.classid <> 'pg_trigger'::regclass
ORDER BY 1;
SELECT comment FROM pg_available_extensions WHERE name = 'pgtopic';

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'views.%') d;
