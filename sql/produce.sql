-- produce(): overloads, values, limits, formats, transactions.

SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT create_topic('produce.text', partitions => 3);
SELECT create_topic('produce.json', value_format => 'json');
SELECT create_topic('produce.bytes', value_format => 'bytes');

--
-- Overloads
--
SELECT p.oid::regprocedure, pg_get_function_result(p.oid), proparallel, provolatile, proisstrict
FROM pg_proc p WHERE proname IN ('produce', 'produce_batch') ORDER BY p.oid::regprocedure::text COLLATE "C";

-- a plain literal means text
SELECT pg_typeof(produce('produce.text', 'plain', partition => 0));
SELECT * FROM produce('produce.text', 'text', 'key', '{"h": 1}', 0, '2024-02-29 12:00:00.123456+00');
SELECT * FROM produce('produce.text', value => 'named', key => 'key', headers => '{}', partition => 0, "timestamp" => '2024-03-01 00:00+02');
SELECT * FROM produce('produce.text', 'varchar'::varchar, 'key'::varchar, partition => 0);
SELECT * FROM produce('produce.text', 'bytes'::bytea, 'key'::bytea, partition => 0);
SELECT * FROM produce('produce.text', '\x627974657320616e6420656e6f756768'::bytea, key => 'a plain key', partition => 0);
SELECT * FROM produce('produce.text', '{"b": [1, 2, null], "a": "ä"}'::jsonb, 'key', partition => 0);
SELECT * FROM produce('produce.text', jsonb '"string"', key => 'a plain key', partition => 0);
SELECT log_offset, "timestamp" BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now, key, value, headers
FROM fetch_messages('produce.text', 0, 0);
SELECT log_offset, "timestamp" FROM fetch_messages('produce.text', 0, 1, 2);
-- types that are none of the three
SELECT produce('produce.text', 1); \echo :SQLSTATE
SELECT produce('produce.text', 'text'::text, 'bytes'::bytea); \echo :SQLSTATE
SELECT produce('produce.text'); \echo :SQLSTATE
SELECT produce(NULL, 'x'); \echo :SQLSTATE
SELECT produce('produce.nothing', 'x'); \echo :SQLSTATE

--
-- NULL and empty
--
SELECT create_topic('produce.null');
SELECT (produce('produce.null', NULL)).log_offset, (produce('produce.null', NULL::bytea)).log_offset, (produce('produce.null', NULL::jsonb)).log_offset;
SELECT (produce('produce.null', NULL, 'tombstone')).log_offset;
SELECT (produce('produce.null', '')).log_offset, (produce('produce.null', '', '')).log_offset, (produce('produce.null', ''::bytea, ''::bytea)).log_offset;
SELECT (produce('produce.null', 'value', '')).log_offset;
SELECT (produce('produce.null', 'null'::jsonb)).log_offset;
SELECT (produce('produce.null', 'all null', NULL, NULL, NULL, NULL)).log_offset;
SELECT (produce('produce.null', 'empty headers', headers => '{}')).log_offset;
\pset null <NULL>
SELECT log_offset, key, value, headers FROM fetch_messages('produce.null', 0, 0);
SELECT log_offset, key, value, headers FROM fetch_messages_bytes('produce.null', 0, 0, 6);
\pset null ''

--
-- Value formats
--
-- text: valid in the database's encoding, by whatever way it comes
SELECT produce('produce.text', '\xff'::bytea); \echo :SQLSTATE
SELECT produce('produce.text', '\x61c3'::bytea); \echo :SQLSTATE
SELECT produce('produce.text', '\x6100'::bytea); \echo :SQLSTATE
SELECT produce('produce.text', 'good'::bytea, '\xfe'::bytea); \echo :SQLSTATE
SELECT (produce('produce.text', '\xc3a4e282ac'::bytea, '\xf09f9880'::bytea, partition => 1)).log_offset;
SELECT key, value FROM fetch_messages('produce.text', 1, 0);
-- json: what type json takes, kept as it came; jsonb in its own form
SELECT (produce('produce.json', '{"b":1,  "a":[true , null],"b":2}')).log_offset, (produce('produce.json', ' 1e2 ')).log_offset,
       (produce('produce.json', 'null')).log_offset, (produce('produce.json', '\x225c753030653422'::bytea)).log_offset,
       (produce('produce.json', '{"b":1,  "a":[true , null],"b":2}'::jsonb, 'not json, and need not be')).log_offset, (produce('produce.json', NULL, 'k')).log_offset;
SELECT produce('produce.json', 'orders'); \echo :SQLSTATE
SELECT produce('produce.json', ''); \echo :SQLSTATE
SELECT produce('produce.json', '{"a": 1'); \echo :SQLSTATE
SELECT produce('produce.json', '{"a": 1} {}', 'key'); \echo :SQLSTATE
SELECT produce('produce.json', 'NaN'); \echo :SQLSTATE
SELECT produce('produce.json', '\x22ff22'::bytea); \echo :SQLSTATE
SELECT produce('produce.json', '{}', '\xff'::bytea); \echo :SQLSTATE
SELECT produce('produce.json', '[1,]'::bytea); \echo :SQLSTATE
\pset null <NULL>
SELECT log_offset, key, value FROM fetch_messages('produce.json', 0, 0);
\pset null ''
-- bytes: anything; text and jsonb are kept as the text that they are
SELECT (produce('produce.bytes', '\x00ff00'::bytea, '\xfffe00'::bytea)).log_offset, (produce('produce.bytes', 'text', 'key')).log_offset,
       (produce('produce.bytes', '{"a": 1}'::jsonb)).log_offset;
SELECT log_offset, key, value FROM fetch_messages_bytes('produce.bytes', 0, 0);
-- headers: an object
SELECT produce('produce.text', 'x', headers => '[1]'); \echo :SQLSTATE
SELECT produce('produce.text', 'x', headers => '"text"'); \echo :SQLSTATE
SELECT produce('produce.text', 'x', headers => 'null'); \echo :SQLSTATE
SELECT produce('produce.text', 'x', headers => '1'); \echo :SQLSTATE
SELECT produce('produce.text', 'x', headers => '{"a": '); \echo :SQLSTATE
-- no failure left a trace
SELECT partition, high_watermark, log_end_offset FROM partition_status WHERE topic IN ('produce.text', 'produce.json', 'produce.bytes') ORDER BY topic, partition;

--
-- How deep JSON is nested: as deep as every reader can parse it, however it got here
--
SELECT create_topic('produce.deep', value_format => 'json');
CREATE FUNCTION nested(levels int) RETURNS text LANGUAGE sql AS $$ SELECT repeat('[', levels) || repeat(']', levels) $$;
SELECT (produce('produce.deep', nested(1000))).log_offset, (produce('produce.deep', nested(1000)::jsonb, key => 'jsonb')).log_offset;
SELECT (produce('produce.deep', '["' || nested(2000) || '\"' || nested(2000) || '"]')).log_offset, (produce('produce.deep', '[' || repeat('[],', 2000) || '[]]')).log_offset;
SELECT produce('produce.deep', nested(14543)); \echo :SQLSTATE
SELECT produce('produce.deep', nested(1001)); \echo :SQLSTATE
SELECT produce('produce.deep', nested(1001)::jsonb); \echo :SQLSTATE
SELECT produce('produce.deep', '{"a": ' || repeat('[{"]": "\\", "a": ', 500) || '0' || repeat('}]', 500) || '}'); \echo :SQLSTATE
SELECT produce_batch('produce.deep', ARRAY['1', nested(1001)]); \echo :SQLSTATE
SELECT produce_batch('produce.deep', ARRAY['1', nested(1001)]::jsonb[]); \echo :SQLSTATE
INSERT INTO topics."produce.deep" (value) VALUES ('1'), (nested(1001)::jsonb); \echo :SQLSTATE
INSERT INTO topics."produce.deep" (value) VALUES (nested(1001)::jsonb) RETURNING log_offset; \echo :SQLSTATE
\getenv abs_builddir PG_ABS_BUILDDIR
\set file :abs_builddir '/results/produce.copy'
COPY (SELECT nested(1001)) TO :'file';
COPY topics."produce.deep" (value) FROM :'file'; \echo :SQLSTATE
CREATE TABLE produce_deep (value jsonb);
CREATE TRIGGER publish AFTER INSERT ON produce_deep FOR EACH ROW EXECUTE FUNCTION produce_changes('produce.deep');
\set SHOW_CONTEXT never
INSERT INTO produce_deep VALUES (nested(999)::jsonb); \echo :SQLSTATE
\set SHOW_CONTEXT errors
INSERT INTO produce_deep VALUES (nested(998)::jsonb);
DROP TABLE produce_deep;
-- what is no JSON is told so, unless it is deep before that
\set SHOW_CONTEXT never
SELECT produce('produce.deep', repeat('[', 999)); \echo :SQLSTATE
SELECT produce('produce.deep', repeat('[', 100000)); \echo :SQLSTATE
\set SHOW_CONTEXT errors
-- headers are JSON in each topic; text is not
SELECT (produce('produce.text', nested(1001), headers => jsonb_build_object('h', nested(999)::jsonb), partition => 0)).log_offset >= 0 AS produced;
SELECT produce('produce.text', 'x', headers => jsonb_build_object('h', nested(1000)::jsonb)); \echo :SQLSTATE
SELECT key, jsonb_typeof(value) FROM topics."produce.deep";
SELECT drop_topic('produce.deep');
DROP FUNCTION nested(int);

--
-- Timestamps
--
SELECT create_topic('produce.times', retention => NULL);
SELECT (produce('produce.times', 'past', "timestamp" => '0044-03-15 12:00 BC')).log_offset, (produce('produce.times', 'future', "timestamp" => '9999-12-31 23:59:59.999999+00')).log_offset,
       (produce('produce.times', 'epoch', "timestamp" => to_timestamp(0))).log_offset;
SELECT log_offset, "timestamp", value FROM fetch_messages('produce.times', 0, 0);
SELECT produce('produce.times', 'x', "timestamp" => 'infinity'); \echo :SQLSTATE
SELECT produce('produce.times', 'x', "timestamp" => '-infinity'); \echo :SQLSTATE
-- left out: the time of the call, not of the transaction's begin
BEGIN;
SELECT (produce('produce.times', 'first')).log_offset;
SELECT pg_sleep(0.01);
SELECT (produce('produce.times', 'second')).log_offset;
COMMIT;
SELECT b."timestamp" - a."timestamp" BETWEEN '10 ms' AND '1 minute' AS later
FROM fetch_messages('produce.times', 0, 3, 1) a, fetch_messages('produce.times', 0, 4, 1) b;

--
-- Partitions
--
SELECT produce('produce.text', 'x', partition => 3); \echo :SQLSTATE
SELECT produce('produce.text', 'x', partition => -1); \echo :SQLSTATE
SELECT produce('produce.json', '{}', partition => 1); \echo :SQLSTATE
-- what is asked for goes before what the key says
SELECT partition FROM generate_series(0, 2) n, LATERAL produce('produce.text', 'x', key => 'the same', partition => n);
-- without a key: one partition for a transaction, and each in turn
SELECT create_topic('produce.sticky', partitions => 4);
BEGIN;
SELECT count(DISTINCT p.partition) FROM generate_series(1, 20), LATERAL produce('produce.sticky', 'x') p;
SELECT count(DISTINCT p.partition) FROM (SELECT partition FROM produce('produce.sticky', 'x') UNION SELECT partition FROM produce_batch('produce.sticky', ARRAY['x', 'y', 'z'])) p;
COMMIT;
SELECT count(*) FROM partition_status WHERE topic = 'produce.sticky' AND log_end_offset > 0;
SELECT count(p.partition) FROM produce('produce.sticky', 'x') p;
SELECT count(p.partition) FROM produce('produce.sticky', 'x') p;
SELECT count(p.partition) FROM produce('produce.sticky', 'x') p;
SELECT count(*) FROM partition_status WHERE topic = 'produce.sticky' AND log_end_offset > 0;

--
-- Size: key, value and headers together
--
SELECT create_topic('produce.size', max_message_bytes => 100);
SELECT (produce('produce.size', repeat('x', 100))).log_offset;
SELECT produce('produce.size', repeat('x', 101)); \echo :SQLSTATE
SELECT (produce('produce.size', repeat('x', 90), repeat('k', 10))).log_offset;
SELECT produce('produce.size', repeat('x', 90), repeat('k', 11)); \echo :SQLSTATE
SELECT produce('produce.size', NULL, repeat('k', 101)); \echo :SQLSTATE
-- bytes count, not characters
SELECT (produce('produce.size', repeat('ä', 50))).log_offset;
SELECT produce('produce.size', repeat('ä', 50), 'k'); \echo :SQLSTATE
-- jsonb counts as text, headers as what jsonb takes (without its own length word)
SELECT pg_column_size('{"h": "1"}'::jsonb) - 4 AS headers;
SELECT (produce('produce.size', repeat('x', 100 - 3 - (pg_column_size('{"h": "1"}'::jsonb) - 4)), 'key', '{"h": "1"}')).log_offset;
SELECT produce('produce.size', repeat('x', 101 - 3 - (pg_column_size('{"h": "1"}'::jsonb) - 4)), 'key', '{"h": "1"}'); \echo :SQLSTATE
SELECT (produce('produce.size', to_jsonb(repeat('x', 98)))).log_offset;
SELECT produce('produce.size', to_jsonb(repeat('x', 99))); \echo :SQLSTATE
SELECT log_offset, length(value) FROM fetch_messages('produce.size', 0, 0);
-- the default limit is 1 MiB; what is in between pages and above comes back as it was
SELECT create_topic('produce.large');
SELECT (produce('produce.large', repeat('x', 1048576))).log_offset;
SELECT produce('produce.large', repeat('x', 1048577)); \echo :SQLSTATE
SELECT (produce('produce.large', string_agg(md5(i::text), ''), 'key', '{"random": true}')).log_offset FROM generate_series(1, 32760) i;
SELECT count(p.log_offset) FROM generate_series(0, 20000, 500) n, LATERAL produce('produce.large', repeat(chr(65 + n / 500 % 26), n)) p;
SELECT count(*), sum(length(value)), count(DISTINCT substr(value, 1, 1)) FROM fetch_messages('produce.large', 0, 2);
SELECT count(*) FROM fetch_messages('produce.large', 0, 2) WHERE value = repeat(chr((65 + (log_offset - 2) % 26)::int), ((log_offset - 2) * 500)::int);
SELECT log_offset, length(value), md5(value), key, headers FROM fetch_messages('produce.large', 0, 0, 2);
-- out of a column where it is compressed or out of line, and with a short header
CREATE TABLE produce_source (id int, value text, note bytea, doc jsonb);
INSERT INTO produce_source VALUES (1, repeat('compressed ', 1000), 'short', jsonb_build_object('a', repeat('b', 3000)));
INSERT INTO produce_source SELECT 2, string_agg(md5(i::text), ''), string_agg(decode(md5(i::text), 'hex'), ''), jsonb_agg(md5(i::text)) FROM generate_series(1, 1000) i;
SELECT id, (produce('produce.large', value, id::text)).log_offset, (produce('produce.large', doc)).log_offset FROM produce_source ORDER BY id;
SELECT id, m.value = s.value AS same FROM produce_source s JOIN fetch_messages('produce.large', 0, 43) m ON m.key = s.id::text ORDER BY id;
SELECT id, m.value::jsonb = s.doc AS same FROM produce_source s JOIN fetch_messages('produce.large', 0, 43) m ON m.log_offset = 42 + 2 * s.id ORDER BY id;
SELECT (produce('produce.bytes', note, note)).log_offset FROM produce_source ORDER BY id;
SELECT id, m.key = s.note AND m.value = s.note AS same FROM produce_source s JOIN fetch_messages_bytes('produce.bytes', 0, 3) m ON m.log_offset = 2 + id ORDER BY id;
DROP TABLE produce_source;
-- as large as it gets
SELECT create_topic('produce.huge', max_message_bytes => 268435456);
SELECT (produce('produce.huge', repeat('x', 268435456))).log_offset;
SELECT log_offset, length(value) FROM fetch_messages('produce.huge', 0, 0);
SELECT drop_topic('produce.huge');

--
-- Order, transactions, savepoints
--
SELECT create_topic('produce.order');
BEGIN;
SELECT min(p.log_offset), max(p.log_offset), bool_and(p.log_offset = i - 1) AS in_order
FROM generate_series(1, 1000) i, LATERAL produce('produce.order', i::text) p;
-- nobody sees it before the commit, not even we
SELECT high_watermark, log_end_offset, blocking_pid = pg_backend_pid() AS ours, blocking_since BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now
FROM partition_status WHERE topic = 'produce.order';
SELECT count(*) FROM fetch_messages('produce.order', 0, 0, 2000);
COMMIT;
SELECT high_watermark, log_end_offset, blocking_pid, blocking_since FROM partition_status WHERE topic = 'produce.order';
SELECT count(*), bool_and(value = (log_offset + 1)::text) AS in_order FROM fetch_messages('produce.order', 0, 0, 2000);

-- a rolled-back transaction leaves a gap and nothing else
BEGIN;
SELECT log_offset FROM produce('produce.order', 'rolled back');
ROLLBACK;
BEGIN;
SELECT log_offset FROM produce('produce.order', 'fails');
SELECT 1 / 0;
COMMIT;
SELECT log_offset FROM produce('produce.order', 'stays');
SELECT log_offset, value FROM fetch_messages('produce.order', 0, 1000);
SELECT high_watermark, log_end_offset FROM partition_status WHERE topic = 'produce.order';

SELECT create_topic('produce.savepoints');
BEGIN;
SELECT log_offset FROM produce('produce.savepoints', 'a');
SAVEPOINT one;
SELECT log_offset FROM produce('produce.savepoints', 'b');
SAVEPOINT two;
SELECT log_offset FROM produce('produce.savepoints', 'c');
RELEASE two;
SELECT log_offset FROM produce('produce.savepoints', 'd');
ROLLBACK TO one;
SELECT log_offset FROM produce('produce.savepoints', 'e');
SAVEPOINT three;
SELECT log_offset FROM produce('produce.savepoints', 'f');
RELEASE three;
SAVEPOINT four;
SELECT produce('produce.savepoints', 'x', partition => 9);
ROLLBACK TO four;
COMMIT;
SELECT log_offset, value FROM fetch_messages('produce.savepoints', 0, 0);
-- the first message in a savepoint that is rolled back
BEGIN;
SAVEPOINT one;
SELECT log_offset FROM produce('produce.savepoints', 'g');
ROLLBACK TO one;
SELECT high_watermark <= 6 AS not_beyond, log_end_offset FROM partition_status WHERE topic = 'produce.savepoints';
COMMIT;
SELECT high_watermark, log_end_offset FROM partition_status WHERE topic = 'produce.savepoints';
BEGIN;
SAVEPOINT one;
SELECT log_offset FROM produce('produce.savepoints', 'h');
ROLLBACK TO one;
SELECT log_offset FROM produce('produce.savepoints', 'i');
COMMIT;
SELECT log_offset, value FROM fetch_messages('produce.savepoints', 0, 6);

--
-- In PL/pgSQL: loops with exception blocks, functions, triggers, commits in a procedure
--
SELECT create_topic('produce.plpgsql');
DO $$
BEGIN
    FOR i IN 1 .. 10 LOOP
        BEGIN
            PERFORM produce('produce.plpgsql', i::text);
            IF i % 3 = 0 THEN
                RAISE division_by_zero;
            END IF;
            PERFORM produce('produce.plpgsql', CASE WHEN i % 5 = 0 THEN repeat('x', 2000000) ELSE i || 'a' END);
        EXCEPTION
            WHEN division_by_zero THEN
                PERFORM produce('produce.plpgsql', i || ' failed');
            WHEN program_limit_exceeded THEN
                RAISE NOTICE '%: % %', i, sqlerrm, sqlstate;
        END;
    END LOOP;
END $$;
SELECT log_offset, value FROM fetch_messages('produce.plpgsql', 0, 0);
CREATE FUNCTION produce_all(topic, VARIADIC what text[]) RETURNS SETOF bigint LANGUAGE sql
AS 'SELECT p.log_offset FROM unnest($2) w, LATERAL produce($1, w) p';
SELECT produce_all('produce.plpgsql', 'x', 'y', 'z');
CREATE TABLE produce_audited (id int PRIMARY KEY, amount int CHECK (amount > 0));
CREATE FUNCTION produce_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM produce(TG_ARGV[0]::topic, to_jsonb(COALESCE(new, old)), key => COALESCE(new.id, old.id)::text, headers => jsonb_build_object('op', TG_OP));
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON produce_audited
    FOR EACH ROW EXECUTE FUNCTION produce_audit('produce.plpgsql');
CREATE CONSTRAINT TRIGGER audit_deferred AFTER INSERT ON produce_audited DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (new.id = 3) EXECUTE FUNCTION produce_audit('produce.plpgsql');
INSERT INTO produce_audited VALUES (1, 10), (2, 20);
INSERT INTO produce_audited VALUES (4, 10), (5, 0); \echo :SQLSTATE
UPDATE produce_audited SET amount = amount + 1;
DELETE FROM produce_audited WHERE id = 2;
BEGIN;
INSERT INTO produce_audited VALUES (3, 30);
SELECT produce_all('produce.plpgsql', 'before the deferred trigger');
COMMIT;
SELECT key, value, headers FROM fetch_messages('produce.plpgsql', 0, 21);
CREATE PROCEDURE produce_commits() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 4 LOOP
        PERFORM produce('produce.plpgsql', 'c' || i);
        IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF;
    END LOOP;
END $$;
SELECT log_end_offset AS before FROM partition_status WHERE topic = 'produce.plpgsql' \gset
CALL produce_commits();
SELECT log_offset - :before AS log_offset, value FROM fetch_messages('produce.plpgsql', 0, :before);
-- a cursor that is run at the commit
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT produce_all('produce.plpgsql', 'held 1', 'held 2') - :before;
COMMIT;
FETCH ALL FROM c;
CLOSE c;
SELECT log_offset - :before AS log_offset, value FROM fetch_messages('produce.plpgsql', 0, :before + 4);
-- INSERT ... SELECT, RETURNING, in the order of the rows
INSERT INTO produce_audited SELECT i, i FROM generate_series(101, 103) i RETURNING id, (produce('produce.plpgsql', 'returned ' || id)).log_offset - :before AS log_offset;
SELECT log_offset - :before AS log_offset, key, value FROM fetch_messages('produce.plpgsql', 0, :before + 6);
DROP TABLE produce_audited;
DROP FUNCTION produce_audit(), produce_all;
DROP PROCEDURE produce_commits();

--
-- Where it is refused
--
BEGIN READ ONLY;
SELECT produce('produce.text', 'x'); \echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT produce_batch('produce.text', ARRAY['x']); \echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT count(produce('produce.text', 'x'));
PREPARE TRANSACTION 'produce'; \echo :SQLSTATE
-- in a savepoint that was rolled back, too: the offsets are gone
BEGIN;
SAVEPOINT one;
SELECT count(produce('produce.text', 'x'));
ROLLBACK TO one;
PREPARE TRANSACTION 'produce'; \echo :SQLSTATE
SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'produce';
SELECT count(*) FROM partition_status WHERE topic = 'produce.text' AND blocking_pid IS NOT NULL;

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'produce.%') d;
