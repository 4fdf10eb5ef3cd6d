-- A topic is a relation: topics.<name>.

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_relation_owner, regress_relation_producer, regress_relation_consumer, regress_relation_heir;
RESET client_min_messages;
SET timezone = 'UTC';

-- EXPLAIN without what depends on what the worker has done already; 18 has two more digits of rows
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF, SUMMARY OFF) ' || query LOOP
        line := regexp_replace(line, 'rows=(\d+)\.00 ', 'rows=\1 ');
        line := regexp_replace(line, 'Segments: read=\d+ skipped=\d+', 'Segments: read=N skipped=N');
        RETURN NEXT regexp_replace(line, '(Batches: read=\d+) skipped=\d+', '\1 skipped=N');
    END LOOP;
END $$;

--
-- The relation
--
SELECT create_topic('relation', partitions => 3, segment_messages => 1000);
SELECT create_topic('relation.json', value_format => 'json');
SELECT create_topic('relation.bytes', value_format => 'bytes');
SELECT create_topic('Relation.odd-1') \gset
SELECT create_topic('relation.one', segment_messages => 1000);
SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relkind = 'f' AND c.relname IN ('relation', 'relation.json', 'relation.bytes') GROUP BY 1 ORDER BY 1;
SELECT f.ftoptions = ARRAY['topic_id=' || 'relation'::topic::int] AS topic_id FROM pg_foreign_table f WHERE ftrelid = 'topics.relation'::regclass;
SELECT fdwname, obj_description(w.oid, 'pg_foreign_data_wrapper'), srvname, obj_description(s.oid, 'pg_foreign_server') FROM pg_foreign_data_wrapper w JOIN pg_foreign_server s ON s.srvfdw = w.oid;
-- it is no part of the extension, so dumps have it, but goes with it
SELECT d.deptype, d.refclassid::regclass FROM pg_depend d WHERE d.objid = 'topics.relation'::regclass AND d.classid = 'pg_class'::regclass ORDER BY 1, 2;
SELECT create_topic('relation');
CREATE TABLE topics.taken (); SELECT create_topic('taken'); \echo :SQLSTATE
DROP TABLE topics.taken;

--
-- INSERT
--
SELECT create_topic('relation.sticky', partitions => 3);
-- one of a transaction's own, which one is chance
INSERT INTO topics."relation.sticky" (value) SELECT 'no key' FROM generate_series(1, 9);
SELECT count(*), count(DISTINCT partition) FROM topics."relation.sticky";
INSERT INTO topics.relation (key, value, headers, "timestamp") VALUES ('k', 'v', '{"h": 1}', '2020-01-01') RETURNING partition = partition_for_key('relation', 'k') AS right_partition, "timestamp", key, value, headers;
INSERT INTO topics.relation (partition, key, value) VALUES (1, 'k', 'here'), (NULL, 'k', 'by key') RETURNING partition, log_offset, value;
INSERT INTO topics."relation.sticky" DEFAULT VALUES RETURNING key, value, headers;
-- as produce() does it
SELECT topics.partition = p.partition AS same FROM produce('relation', 'v', 'k') p, LATERAL (SELECT partition FROM topics.relation WHERE value = 'by key') topics;
INSERT INTO topics.relation (partition, log_offset, value) VALUES (0, 5, 'x');
INSERT INTO topics.relation (partition, value) VALUES (3, 'x'); \echo :SQLSTATE
INSERT INTO topics.relation (partition, value) VALUES (-1, 'x'); \echo :SQLSTATE
INSERT INTO topics.relation (value, headers) VALUES ('x', '[]'); \echo :SQLSTATE
INSERT INTO topics.relation (value, "timestamp") VALUES ('x', 'infinity'); \echo :SQLSTATE
INSERT INTO topics.relation (value) VALUES ('x') ON CONFLICT DO NOTHING; \echo :SQLSTATE
UPDATE topics.relation SET value = 'x'; \echo :SQLSTATE
DELETE FROM topics.relation; \echo :SQLSTATE
TRUNCATE topics.relation; \echo :SQLSTATE
SELECT is_insertable_into FROM information_schema.tables WHERE table_schema = 'topics' AND table_name = 'relation';
-- one bad row, and nothing is produced
INSERT INTO topics.relation (partition, value) SELECT g % 4, 'bad' FROM generate_series(0, 10) g; \echo :SQLSTATE
SELECT count(*) FROM topics.relation WHERE value = 'bad';
-- the row of the last partition's own keys
PREPARE ins (text, text) AS INSERT INTO topics.relation (key, value) VALUES ($1, $2) RETURNING key, value;
EXECUTE ins ('p', 'prepared');
EXECUTE ins ('p', NULL);
DEALLOCATE ins;

-- many rows are stored as few batches
INSERT INTO topics.relation (partition, value) SELECT 2, 'm' || g FROM generate_series(1, 5000) g;

SELECT count(*) FROM topics.relation WHERE partition = 2 AND value LIKE 'm%';
DO $$ DECLARE batches int; BEGIN
    EXECUTE format('SELECT count(*) FROM pgtopic.t%s WHERE partition = 2', 'relation'::topic::int) INTO batches;
    RAISE NOTICE 'batches are few: %', batches < 100;
END $$;
INSERT INTO topics."relation.one" (value) SELECT value FROM topics.relation WHERE partition = 2 AND value LIKE 'm%' ORDER BY log_offset;
-- what is inserted is not read by the same statement
INSERT INTO topics."relation.one" (value) SELECT 'again' FROM topics."relation.one" WHERE log_offset < 10;
SELECT count(*), count(*) FILTER (WHERE value = 'again') AS again FROM topics."relation.one";

-- with RETURNING too, where each row has its offset at once
SELECT create_topic('relation.returning', partitions => 2);
WITH i AS (INSERT INTO topics."relation.returning" (key, value) SELECT n % 10, n FROM generate_series(1, 3000) n RETURNING *)
SELECT count(*), count(DISTINCT (partition, log_offset)), count(*) FILTER (WHERE partition <> partition_for_key('relation.returning', key)) AS wrong, min(log_offset) FROM i;
SELECT count(*) FILTER (WHERE value::int <> n) AS wrong, count(DISTINCT "timestamp") < 300 AS few_times
FROM (SELECT *, row_number() OVER (PARTITION BY key ORDER BY log_offset) * 10 - (10 - key::int) % 10 AS n FROM topics."relation.returning") r;
DO $$ DECLARE batches int; BEGIN
    EXECUTE format('SELECT count(*) FROM pgtopic.t%s', 'relation.returning'::topic::int) INTO batches;
    RAISE NOTICE 'batches are few: %', batches < 100;
END $$;
-- one that produces in between
CREATE FUNCTION in_between(n int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
    IF n % 3 = 0 THEN PERFORM produce('relation.returning', 'in between ' || n, partition => 0); END IF;
    RETURN 'row ' || n;
END $$;
SELECT max(log_offset) + 1 AS start FROM topics."relation.returning" WHERE partition = 0 \gset
INSERT INTO topics."relation.returning" (partition, "timestamp", value) SELECT n % 2, CASE WHEN n = 2 THEN timestamptz '2020-02-02' END, in_between(n) FROM generate_series(1, 7) n
RETURNING partition, CASE partition WHEN 0 THEN log_offset - :start END AS "offset", value, "timestamp" < '2021-01-01' AS old;
SELECT log_offset - :start AS "offset", value, "timestamp" < '2021-01-01' AS old FROM topics."relation.returning" WHERE partition = 0 AND log_offset >= :start;
-- rows that fail leave nothing
INSERT INTO topics."relation.returning" (value) SELECT 'never' FROM generate_series(1, 10) n RETURNING 1 / (log_offset - log_offset); \echo :SQLSTATE
INSERT INTO topics."relation.returning" (value) SELECT CASE n WHEN 10 THEN repeat('x', 2000000) ELSE 'never' END FROM generate_series(1, 10) n RETURNING 1; \echo :SQLSTATE
SELECT count(*) FROM topics."relation.returning" WHERE value = 'never';
-- who looks at the topic sees what has been inserted
CREATE FUNCTION seen() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT count(*) FROM topics."relation.returning" WHERE value LIKE 'seen%' $$;
INSERT INTO topics."relation.returning" (value) SELECT 'seen ' || n FROM generate_series(1, 3) n RETURNING value, seen();
CREATE FUNCTION number_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.headers := jsonb_build_object('before', seen()); RETURN NEW; END $$;
CREATE TRIGGER number_it BEFORE INSERT ON topics."relation.returning" FOR EACH ROW EXECUTE FUNCTION number_it();
INSERT INTO topics."relation.returning" (value) VALUES ('seen 4'), ('seen 5');
SELECT value, headers FROM topics."relation.returning" WHERE headers IS NOT NULL ORDER BY value;
DROP TRIGGER number_it ON topics."relation.returning";
CREATE TABLE returning_log (n bigint);
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'seen at the end: %', seen(); RETURN NULL; END $$;
CREATE TRIGGER log_it AFTER INSERT ON returning_log EXECUTE FUNCTION log_it();
WITH i AS (INSERT INTO topics."relation.returning" (value) VALUES ('seen 6'), ('seen 7')) INSERT INTO returning_log VALUES (1);
CREATE TABLE returning_all (LIKE topics."relation.returning") PARTITION BY LIST (partition);
ALTER TABLE returning_all ATTACH PARTITION topics."relation.returning" FOR VALUES IN (0, 1);
CREATE TRIGGER log_it AFTER INSERT ON returning_all EXECUTE FUNCTION log_it();
INSERT INTO returning_all (partition, value) VALUES (0, 'seen 8'), (1, 'seen 9');
ALTER TABLE returning_all DETACH PARTITION topics."relation.returning";
DROP TABLE returning_all, returning_log;
DROP FUNCTION log_it();
-- by a view that checks
CREATE VIEW returning_view AS SELECT * FROM topics."relation.returning" WHERE partition = 1 WITH CHECK OPTION;
INSERT INTO returning_view (partition, value) VALUES (1, 'by view'), (1, 'and another') RETURNING partition, value;
\set VERBOSITY terse
INSERT INTO returning_view (partition, value) VALUES (1, 'never'), (0, 'never'); \echo :SQLSTATE
\set VERBOSITY default
SELECT value FROM topics."relation.returning" WHERE value IN ('by view', 'and another', 'never') ORDER BY log_offset;
DROP VIEW returning_view;
DROP FUNCTION number_it(), in_between(int);
DROP FUNCTION seen();
SELECT drop_topic('relation.returning');

--
-- COPY
--
COPY topics."Relation.odd-1" (key, value) FROM stdin;
a	1
b	\N
\.
COPY topics."Relation.odd-1" (key, value, "timestamp", headers) FROM stdin (FORMAT csv);
c,"x, y",2021-05-05,"{""a"": 2}"
d,,,
\.
COPY (SELECT key, value FROM topics."Relation.odd-1" ORDER BY log_offset) TO stdout;
COPY topics."Relation.odd-1" TO stdout; \echo :SQLSTATE
COPY topics."Relation.odd-1" (log_offset, value) FROM stdin;
7	x
\.
-- before 17, psql sets SQLSTATE for other commands only
\set VERBOSITY sqlstate
COPY topics."Relation.odd-1" (log_offset, value) FROM stdin;
7	x
\.
\set VERBOSITY default
SELECT count(*) FROM topics."Relation.odd-1";
-- of many rows, in each format: batches; in binary, bytes and NULLs are what they are
\getenv abs_builddir PG_ABS_BUILDDIR
\set file :abs_builddir '/results/relation.copy'
SELECT create_topic('relation.copied'), create_topic('relation.raw', value_format => 'bytes') \g /dev/null
COPY (SELECT n % 7, CASE WHEN n % 11 > 0 THEN E'v\t' || n END, '{"n": 1}'::jsonb, timestamptz '2022-02-02' + n * interval '1 s' FROM generate_series(1, 2000) n) TO :'file';
COPY topics."relation.copied" (key, value, headers, "timestamp") FROM :'file';
COPY (SELECT n % 7, CASE WHEN n % 11 > 0 THEN E'v\t' || n END, '{"n": 1}'::jsonb, timestamptz '2022-02-02' + n * interval '1 s' FROM generate_series(1, 2000) n) TO :'file' (FORMAT csv);
COPY topics."relation.copied" (key, value, headers, "timestamp") FROM :'file' (FORMAT csv);
COPY (SELECT (n % 7)::text, CASE WHEN n % 11 > 0 THEN E'v\t' || n END, '{"n": 1}'::jsonb, timestamptz '2022-02-02' + n * interval '1 s' FROM generate_series(1, 2000) n) TO :'file' (FORMAT binary);
COPY topics."relation.copied" (key, value, headers, "timestamp") FROM :'file' (FORMAT binary);
SELECT count(*), count(DISTINCT (key, value, headers, "timestamp")), count(value), sum(log_offset) FROM topics."relation.copied";
COPY (SELECT 0, '\x00'::bytea, decode(lpad(to_hex(n), 8, '0'), 'hex') FROM generate_series(1, 2000) n) TO :'file' (FORMAT binary);
COPY topics."relation.raw" (partition, key, value) FROM :'file' (FORMAT binary);
SELECT count(*), min(key::text), min(value::text), max(value::text) FROM topics."relation.raw";
COPY topics."relation.copied" (key, value) FROM :'file' (FORMAT binary); \echo :SQLSTATE
DO $$ DECLARE batches int; BEGIN
    EXECUTE format('SELECT count(*) FROM pgtopic.t%s', 'relation.copied'::topic::int) INTO batches;
    RAISE NOTICE 'batches are few: %', batches < 300;
END $$;
SELECT drop_topic(t::topic) FROM unnest('{relation.copied,relation.raw}'::text[]) t;

--
-- Formats
--
INSERT INTO topics."relation.json" (value) VALUES ('{"b": [1, 2], "a": null}'), ('7'), (NULL);
INSERT INTO topics."relation.json" (value) VALUES ('{'); \echo :SQLSTATE
SELECT produce('relation.json', '{ "as": "text" }');
SELECT log_offset, value, value -> 'b' -> 1 AS b FROM topics."relation.json";
-- JSON that jsonb cannot show does not get in
SELECT produce('relation.json', '"\u0000"'); \echo :SQLSTATE
INSERT INTO topics."relation.bytes" (key, value) VALUES ('\x00ff', '\xdeadbeef');
SELECT log_offset, key, value FROM topics."relation.bytes";
SELECT pg_typeof(value), pg_typeof(key) FROM topics."relation.bytes";

--
-- SELECT: what is read
--
SELECT plan($$SELECT * FROM topics."relation.one" WHERE log_offset = 4321$$);
SELECT plan($$SELECT * FROM topics."relation.one" WHERE log_offset BETWEEN 2998 AND 3002$$);
SELECT plan($$SELECT * FROM topics."relation.one" ORDER BY log_offset LIMIT 3$$);
SELECT plan($$SELECT * FROM topics."relation.one" ORDER BY log_offset DESC LIMIT 3$$);
SELECT plan($$SELECT * FROM topics.relation WHERE partition = 2 ORDER BY log_offset DESC LIMIT 3$$);
SELECT plan($$SELECT * FROM topics.relation WHERE partition = 2 AND log_offset > 4990 ORDER BY partition, log_offset$$);
SELECT plan($$SELECT * FROM topics.relation WHERE partition IN (0, 2) AND log_offset IN (0, 4000, 4001, 99999)$$);
SELECT plan($$SELECT * FROM topics."relation.one" WHERE log_offset < 5 AND log_offset > 10$$);
SELECT plan($$SELECT * FROM topics."relation.one" WHERE log_offset = NULL::int$$);
SELECT plan($$SELECT * FROM topics."relation.one" WHERE "timestamp" > now() + '1 day'$$);
SELECT plan($$SELECT * FROM topics.relation ORDER BY partition DESC, log_offset LIMIT 1$$);

SELECT log_offset, value FROM topics."relation.one" WHERE log_offset BETWEEN 2998 AND 3002;
SELECT log_offset, value FROM topics."relation.one" WHERE log_offset BETWEEN 2998 AND 3002 ORDER BY log_offset DESC;
SELECT log_offset, value FROM topics."relation.one" WHERE 4999 < log_offset AND log_offset <= 5001;
SELECT log_offset FROM topics."relation.one" WHERE log_offset = ANY ('{7,3,5000,-1,NULL,3}'::bigint[]) ORDER BY log_offset DESC;
SELECT log_offset FROM topics."relation.one" WHERE log_offset IN (1, 2, 3) AND log_offset = ANY ('{2,3,4}'::smallint[]) AND log_offset <> 3;
SELECT count(*) FROM topics."relation.one" WHERE log_offset >= 9223372036854775807 OR log_offset < -1;
SELECT count(*) FROM topics."relation.one" WHERE log_offset <= 9223372036854775807;
SELECT partition, min(log_offset), max(log_offset) FROM topics.relation WHERE partition <> 0 AND partition <= 2 GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM topics.relation WHERE "timestamp" = '2020-01-01';
SELECT count(*) FROM topics.relation WHERE "timestamp" >= '2020-01-01'::date AND "timestamp" < '2020-01-02'::timestamp;
SELECT count(*) > 5000 FROM topics.relation WHERE "timestamp" >= current_date - 1;
-- of dates and times that are no timestamps with time zone, too
SELECT count(*) FROM topics.relation WHERE "timestamp" > '5874897-12-31'::date;
SELECT count(*) > 5000 AS all_of_them FROM topics.relation WHERE "timestamp" < '5874897-12-31'::date AND "timestamp" > '4714-11-24 BC'::date;
SET timezone = '-15';
SELECT count(*) FROM topics.relation WHERE "timestamp" >= '294276-12-31 23:59'::timestamp;
SET timezone = '+15';
SELECT count(*) > 5000 AS all_of_them FROM topics.relation WHERE "timestamp" >= '4714-11-24 00:00 BC'::timestamp;
SELECT count(*) > 5000 AS all_of_them FROM topics.relation WHERE "timestamp" >= '4714-11-24 BC'::date;
PREPARE since (date) AS SELECT count(*) FROM topics.relation WHERE "timestamp" >= $1;
SET plan_cache_mode = force_generic_plan;
EXECUTE since ('5874897-12-31');
RESET plan_cache_mode;
DEALLOCATE since;
SET timezone = 'UTC';
SELECT tableoid::regclass, relation IS NOT NULL AS whole FROM topics.relation WHERE key = 'k' AND value = 'here';

-- parameters, joins, rescans
PREPARE sel (bigint, int[]) AS SELECT partition, value FROM topics.relation WHERE log_offset = $1 AND partition = ANY ($2) ORDER BY 1;
SET plan_cache_mode = force_generic_plan;
EXECUTE sel (3000, '{0,2}');
EXECUTE sel (3001, '{2}');
EXECUTE sel (NULL, '{2}');
RESET plan_cache_mode;
DEALLOCATE sel;
SELECT plan($$SELECT r.value FROM (VALUES (2, 10), (2, 4000), (1, 0)) w (p, o) JOIN topics.relation r ON r.partition = w.p AND r.log_offset = w.o$$);
SELECT w.*, r.value FROM (VALUES (2, 10), (2, 4000), (1, 0), (0, 100000)) w (p, o) LEFT JOIN topics.relation r ON r.partition = w.p AND r.log_offset = w.o ORDER BY 1, 2;
SELECT g, l.log_offset FROM generate_series(1000, 4000, 1500) g, LATERAL (SELECT log_offset FROM topics."relation.one" WHERE log_offset < g ORDER BY log_offset DESC LIMIT 2) l;
SELECT value, (SELECT o.value FROM topics."relation.one" o WHERE o.log_offset = r.log_offset) AS other FROM topics.relation r WHERE partition = 2 AND log_offset BETWEEN 100 AND 102;

-- cursors
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT log_offset FROM topics."relation.one" ORDER BY log_offset;
FETCH 2 FROM c;
SAVEPOINT s;
INSERT INTO topics."relation.one" (value) VALUES ('later');
FETCH 1 FROM c;
ROLLBACK TO s;
FETCH BACKWARD 2 FROM c;
FETCH LAST FROM c;
FETCH ABSOLUTE 3000 FROM c;
SELECT drop_topic('relation.one');
ROLLBACK;
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT log_offset FROM topics."relation.one" WHERE log_offset < 3;
COMMIT;
FETCH ALL FROM c;
CLOSE c;

-- a transaction sees its own, and what is rolled back is gone
BEGIN;
INSERT INTO topics."relation.one" (value) VALUES ('mine');
SELECT value FROM topics."relation.one" ORDER BY log_offset DESC LIMIT 1;
SELECT value FROM consume('relation.one', 'g', 10000) WHERE value = 'mine';
ROLLBACK;
SELECT value FROM topics."relation.one" ORDER BY log_offset DESC LIMIT 1;
-- what was deleted is not there
SELECT delete_messages('relation.one', 0, 4500);
SELECT min(log_offset), count(*) FROM topics."relation.one";
SELECT count(*) FROM topics."relation.one" WHERE log_offset < 4500;
-- a plan goes when the topic gets more partitions
PREPARE one AS SELECT partition, value FROM topics."relation.one" ORDER BY log_offset DESC LIMIT 1;
EXECUTE one;
SELECT add_partitions('relation.one', 2);
INSERT INTO topics."relation.one" (partition, value) VALUES (1, 'second');
EXECUTE one;
DEALLOCATE one;

--
-- Triggers see what was produced
--
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        RAISE NOTICE '% % % % %', TG_WHEN, NEW.partition, NEW.log_offset, NEW.key, NEW.value;
        IF TG_WHEN = 'BEFORE' THEN NEW.value := upper(NEW.value); END IF;
        RETURN NEW;
    END IF;
    RAISE NOTICE '% statement: %', TG_WHEN, (SELECT count(*) FROM topics.relation WHERE value = 'TOLD');
    RETURN NULL;
END $$;
CREATE TRIGGER before_row BEFORE INSERT ON topics.relation FOR EACH ROW EXECUTE FUNCTION told();
CREATE TRIGGER after_row AFTER INSERT ON topics.relation FOR EACH ROW EXECUTE FUNCTION told();
CREATE TRIGGER after_statement AFTER INSERT ON topics.relation EXECUTE FUNCTION told();
INSERT INTO topics.relation (partition, value) VALUES (1, 'told'), (1, 'told');
DROP TRIGGER before_row ON topics.relation;
DROP TRIGGER after_row ON topics.relation;
DROP TRIGGER after_statement ON topics.relation;

--
-- Rights
--
CREATE ROLE regress_relation_owner;
CREATE ROLE regress_relation_producer;
CREATE ROLE regress_relation_consumer;
CREATE ROLE regress_relation_heir;
GRANT CREATE ON SCHEMA topics TO regress_relation_owner, regress_relation_heir;
SET ROLE regress_relation_owner;
SELECT create_topic('relation.rights');
GRANT INSERT ON topics."relation.rights" TO regress_relation_producer;
GRANT SELECT ON topics."relation.rights" TO regress_relation_consumer;
SET ROLE regress_relation_producer;
SELECT produce('relation.rights', 'one');
INSERT INTO topics."relation.rights" (value) VALUES ('two');
SELECT * FROM consume('relation.rights', 'g'); \echo :SQLSTATE
SELECT * FROM fetch_messages('relation.rights', 0, 0); \echo :SQLSTATE
SELECT * FROM topics."relation.rights"; \echo :SQLSTATE
SELECT commit_offset('g', 'relation.rights', 0, 1); \echo :SQLSTATE
SELECT alter_topic('relation.rights', 'retention', 'forever'); \echo :SQLSTATE
SELECT topic, high_watermark FROM partition_status;
SET ROLE regress_relation_consumer;
SELECT value FROM topics."relation.rights";
SELECT value FROM consume('relation.rights', 'g', 1);
SELECT value FROM fetch_messages('relation.rights', 0, 1);
SELECT commit_offset('g', 'relation.rights', 0, 1);
SELECT consumer_group, committed_offset FROM consumer_group_status;
SELECT produce('relation.rights', 'x'); \echo :SQLSTATE
INSERT INTO topics."relation.rights" (value) VALUES ('x'); \echo :SQLSTATE
SELECT reset_offsets('g', 'relation.rights', 'earliest'); \echo :SQLSTATE
SELECT drop_consumer_group('g', 'relation.rights'); \echo :SQLSTATE
SELECT delete_messages('relation.rights', 0, 1); \echo :SQLSTATE
SELECT drop_topic('relation.rights'); \echo :SQLSTATE
ALTER FOREIGN TABLE topics."relation.rights" OWNER TO regress_relation_consumer; \echo :SQLSTATE
DROP FOREIGN TABLE topics."relation.rights"; \echo :SQLSTATE
CREATE FOREIGN TABLE mine (partition int) SERVER pgtopic OPTIONS (topic_id '1'); \echo :SQLSTATE
SET ROLE regress_relation_producer;
SELECT consumer_group FROM consumer_group_status;
RESET ROLE;
-- the schema's rights count too
REVOKE USAGE ON SCHEMA topics FROM PUBLIC;
SET ROLE regress_relation_consumer;
SELECT value FROM consume('relation.rights', 'g', 1); \echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA topics TO PUBLIC;
REVOKE SELECT ON topics."relation.rights" FROM regress_relation_consumer;
SET ROLE regress_relation_consumer;
SELECT value FROM consume('relation.rights', 'g', 1); \echo :SQLSTATE
RESET ROLE;
-- default privileges are those of who makes the topic
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO regress_relation_consumer;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_relation_owner IN SCHEMA topics GRANT INSERT ON TABLES TO regress_relation_producer;
SELECT create_topic('relation.mine') \g /dev/null
SET ROLE regress_relation_owner;
SELECT create_topic('relation.default') \g /dev/null
RESET ROLE;
SELECT relname, regexp_replace(relacl::text, current_user || '=', 'me=', 'g') !~ 'consumer' AS not_read, relacl::text ~ 'producer=a/regress_relation_owner' AS written FROM pg_class WHERE relname IN ('relation.default', 'relation.mine') ORDER BY 1;
SET ROLE regress_relation_producer;
SELECT log_offset FROM produce('relation.default', 'may');
SET ROLE regress_relation_consumer;
SELECT value FROM fetch_messages('relation.default', 0, 0); \echo :SQLSTATE
RESET ROLE;
ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM regress_relation_consumer;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_relation_owner IN SCHEMA topics REVOKE INSERT ON TABLES FROM regress_relation_producer;
SELECT drop_topic(t::topic) FROM unnest('{relation.mine,relation.default}'::text[]) t;
-- a table for a topic that is yet to come is not taken for its relation
SELECT last_value + 1 AS next FROM pgtopic.topic_id_seq \gset
GRANT USAGE ON FOREIGN SERVER pgtopic TO regress_relation_heir;
SET ROLE regress_relation_heir;
CREATE FOREIGN TABLE topics.victim (partition int, log_offset bigint, "timestamp" timestamptz, key text, value text, headers jsonb) SERVER pgtopic OPTIONS (topic_id :'next');
RESET ROLE;
SELECT create_topic('victim'); \echo :SQLSTATE
DROP FOREIGN TABLE topics.victim;
REVOKE USAGE ON FOREIGN SERVER pgtopic FROM regress_relation_heir;
-- a new owner
ALTER FOREIGN TABLE topics."relation.rights" OWNER TO regress_relation_heir;
SET ROLE regress_relation_owner;
SELECT alter_topic('relation.rights', 'retention', 'forever'); \echo :SQLSTATE
SET ROLE regress_relation_heir;
SELECT alter_topic('relation.rights', 'retention', 'forever');
SELECT reset_offsets('g', 'relation.rights', 'earliest');
RESET ROLE;
REASSIGN OWNED BY regress_relation_heir TO regress_relation_owner;
SET ROLE regress_relation_owner;
SELECT produce('relation.rights', 'x');
RESET ROLE;

--
-- By hand
--
ALTER FOREIGN TABLE topics.relation RENAME TO other; \echo :SQLSTATE
ALTER TABLE topics.relation RENAME TO other; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation SET SCHEMA public; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation ADD COLUMN more int; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation DROP COLUMN headers; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation RENAME COLUMN key TO k; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation ALTER COLUMN partition TYPE bigint; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation OPTIONS (SET topic_id '0'); \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation OPTIONS (DROP topic_id); \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation OPTIONS (ADD retention '1'); \echo :SQLSTATE
ALTER SCHEMA topics RENAME TO subjects; \echo :SQLSTATE
DROP SERVER pgtopic CASCADE; \echo :SQLSTATE
DROP SCHEMA topics CASCADE; \echo :SQLSTATE
-- commands that are meant for others
ALTER INDEX topics.relation RENAME TO other; \echo :SQLSTATE
ALTER SEQUENCE topics.relation RENAME TO other; \echo :SQLSTATE
ALTER VIEW topics.relation RENAME COLUMN key TO k; \echo :SQLSTATE
ALTER MATERIALIZED VIEW topics.relation RENAME COLUMN key TO k; \echo :SQLSTATE
ALTER TYPE topics.relation RENAME ATTRIBUTE key TO k; \echo :SQLSTATE
ALTER SERVER pgtopic RENAME TO other; \echo :SQLSTATE
ALTER EXTENSION pgtopic ADD FOREIGN TABLE topics.relation; \echo :SQLSTATE
-- what would not be true of what is produced
ALTER FOREIGN TABLE topics.relation ALTER key TYPE text COLLATE "C"; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation ALTER key SET NOT NULL; \echo :SQLSTATE
ALTER FOREIGN TABLE topics.relation ADD CHECK (partition = 0); \echo :SQLSTATE
-- what comes from a parent, and what goes with it
CREATE TYPE relation_row AS (partition int, log_offset bigint, "timestamp" timestamptz, key text, value text, headers jsonb);
CREATE TABLE relation_parent OF relation_row;
ALTER FOREIGN TABLE topics.relation INHERIT relation_parent;
ALTER TYPE relation_row ADD ATTRIBUTE more int CASCADE; \echo :SQLSTATE
ALTER TYPE relation_row RENAME ATTRIBUTE key TO k CASCADE; \echo :SQLSTATE
SET client_min_messages = warning;
BEGIN;
DROP TYPE relation_row CASCADE;
SELECT 'relation'::topic; \echo :SQLSTATE
ROLLBACK;
ALTER FOREIGN TABLE topics.relation NO INHERIT relation_parent;
DROP TYPE relation_row CASCADE;
CREATE FOREIGN DATA WRAPPER regress_relation;
CREATE SERVER regress_relation FOREIGN DATA WRAPPER regress_relation;
CREATE FOREIGN TABLE relation_parent (partition int, log_offset bigint, "timestamp" timestamptz, key text, value text, headers jsonb) SERVER regress_relation;
ALTER FOREIGN TABLE topics.relation INHERIT relation_parent;
BEGIN;
DROP FOREIGN DATA WRAPPER regress_relation CASCADE;
SELECT 'relation'::topic; \echo :SQLSTATE
ROLLBACK;
ALTER FOREIGN TABLE topics.relation NO INHERIT relation_parent;
DROP FOREIGN DATA WRAPPER regress_relation CASCADE;
RESET client_min_messages;
-- also where triggers do not fire
SET session_replication_role = replica;
ALTER FOREIGN TABLE topics.relation RENAME TO other; \echo :SQLSTATE
BEGIN;
DROP FOREIGN TABLE topics.relation;
SELECT 'relation'::topic; \echo :SQLSTATE
ROLLBACK;
RESET session_replication_role;
-- what others have made of it is in the way of drop_topic()
CREATE VIEW relation_view AS SELECT * FROM topics.relation;
\set VERBOSITY terse
SELECT drop_topic('relation'); \echo :SQLSTATE
\set VERBOSITY default
DROP VIEW relation_view;
ALTER FOREIGN TABLE topics.relation ALTER headers SET DEFAULT '{"by": "default"}';
INSERT INTO topics.relation (partition, value) VALUES (1, 'with a default') RETURNING value, headers;
ALTER FOREIGN TABLE topics.relation ALTER headers DROP DEFAULT;
COMMENT ON FOREIGN TABLE topics.relation IS 'may be changed';
ALTER FOREIGN TABLE topics.relation ALTER COLUMN value SET STATISTICS 10;
CREATE FOREIGN TABLE topics.alone (partition int) SERVER pgtopic OPTIONS (topic_id '999999');
SELECT * FROM topics.alone; \echo :SQLSTATE
INSERT INTO topics.alone VALUES (1); \echo :SQLSTATE
SELECT create_topic('alone');
SELECT count(*) FROM topics.alone;
-- dropping it drops the topic
SELECT 'relation'::topic::int AS id \gset
DROP FOREIGN TABLE topics.relation;
SELECT produce('relation', 'x'); \echo :SQLSTATE
SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtopic'::regnamespace AND relname LIKE 't' || :id || '\_%';
SELECT count(*) FROM pgtopic.partition WHERE topic_id = :id;
BEGIN;
DROP FOREIGN TABLE topics."relation.json";
ROLLBACK;
SELECT count(*) FROM topics."relation.json";
DROP OWNED BY regress_relation_owner;
SELECT 'relation.rights'::topic; \echo :SQLSTATE
SELECT create_topic('relation.rights');
SELECT drop_topic(t::topic) FROM unnest('{relation.rights,relation.json,relation.bytes,relation.one,relation.sticky,alone}'::text[]) t;
SELECT drop_topic('Relation.odd-1');
SELECT relname FROM pg_class WHERE relnamespace = 'topics'::regnamespace;

DROP OWNED BY regress_relation_heir, regress_relation_producer, regress_relation_consumer;
DROP ROLE regress_relation_owner, regress_relation_producer, regress_relation_consumer, regress_relation_heir;
DROP FUNCTION plan(text);
DROP FUNCTION told();
