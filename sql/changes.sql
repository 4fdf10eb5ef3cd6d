-- produce_changes(): the changes of a table as messages, by a trigger.

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_topic_writer;
RESET client_min_messages;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT create_topic('changes.rows'), create_topic('changes.json', value_format => 'json'), create_topic('changes.bytes', value_format => 'bytes');
-- what has come since the last call of it, as it was written but for the time; NULL keys are shown as <NULL>
CREATE TABLE changes_seen (topic topic PRIMARY KEY, next bigint NOT NULL);
CREATE FUNCTION changes(of topic) RETURNS TABLE (key text, value text) LANGUAGE plpgsql AS $$
DECLARE
    from_offset bigint := coalesce((SELECT s.next FROM changes_seen s WHERE s.topic = of), 0);
BEGIN
    RETURN QUERY SELECT coalesce(m.key, '<NULL>'), regexp_replace(m.value, '"at": "[^"]*", ', '') FROM fetch_messages(of, 0, from_offset, 10000) m ORDER BY m.log_offset;
    INSERT INTO changes_seen SELECT of, p.log_end_offset FROM partition_status p WHERE p.topic = of AND p.partition = 0
        ON CONFLICT (topic) DO UPDATE SET next = EXCLUDED.next;
END $$;
-- rows of storage of a topic
CREATE FUNCTION batches(of topic) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM pgtopic.t%s', of::int) INTO result;
    RETURN result;
END $$;

SELECT p.oid::regprocedure, pg_get_function_result(p.oid), proparallel, provolatile, proisstrict, obj_description(p.oid, 'pg_proc') IS NOT NULL AS described
FROM pg_proc p WHERE proname = 'produce_changes';
SELECT produce_changes(); \echo :SQLSTATE

--
-- For each row
--
CREATE TABLE changes_orders (id int PRIMARY KEY, customer text, amount numeric, gone int, twice numeric GENERATED ALWAYS AS (amount * 2) STORED, "when" timestamptz, doc jsonb);
ALTER TABLE changes_orders DROP COLUMN gone;
CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON changes_orders FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'id');
INSERT INTO changes_orders VALUES (1, 'alice', 10, DEFAULT, NULL, NULL), (2, 'b"ö\b', NULL, DEFAULT, '2024-02-29 12:00+02', '{"a": [1, null]}');
UPDATE changes_orders SET amount = 11 WHERE id = 1;
UPDATE changes_orders SET customer = customer;
DELETE FROM changes_orders WHERE id = 1;
SELECT * FROM changes('changes.rows');
-- the time is that of the message
INSERT INTO changes_orders VALUES (3, 'now');
SELECT (m.value::json->>'at')::timestamptz = m."timestamp" AS same, m."timestamp" BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now, m.value::json->>'at' LIKE '____-__-__T__:__:__.%+00:00' AS iso, m.headers
FROM fetch_messages('changes.rows', 0, (SELECT max(next) FROM changes_seen)) m;
SELECT * FROM changes('changes.rows');
-- nothing was changed
UPDATE changes_orders SET amount = 0 WHERE id = 99;
-- a new key: two messages
UPDATE changes_orders SET id = 4, amount = 1 WHERE id = 3;
SELECT * FROM changes('changes.rows');
-- rolled back, as a whole and in part
BEGIN;
INSERT INTO changes_orders VALUES (5);
ROLLBACK;
BEGIN;
INSERT INTO changes_orders VALUES (6);
SAVEPOINT one;
INSERT INTO changes_orders VALUES (7);
ROLLBACK TO one;
INSERT INTO changes_orders VALUES (8);
COMMIT;
INSERT INTO changes_orders VALUES (9), (8); \echo :SQLSTATE
SELECT key FROM changes('changes.rows');
-- INSERT ... ON CONFLICT, MERGE, COPY, WHEN, a deferred trigger
INSERT INTO changes_orders (id, amount) VALUES (8, 80), (10, 100) ON CONFLICT (id) DO UPDATE SET amount = EXCLUDED.amount;
INSERT INTO changes_orders (id) VALUES (8) ON CONFLICT DO NOTHING;
SELECT key, value::json->>'op' AS op, value::json#>>'{new,amount}' AS amount FROM changes('changes.rows');
MERGE INTO changes_orders o USING (VALUES (8, 81), (10, NULL), (11, 110)) v (id, amount) ON o.id = v.id
    WHEN MATCHED AND v.amount IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET amount = v.amount WHEN NOT MATCHED THEN INSERT (id, amount) VALUES (v.id, v.amount);
SELECT key, value::json->>'op' AS op, value::json#>>'{new,amount}' AS amount FROM changes('changes.rows') ORDER BY key::int;
DROP TRIGGER publish ON changes_orders;
CREATE CONSTRAINT TRIGGER publish AFTER INSERT ON changes_orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (new.amount > 5) EXECUTE FUNCTION produce_changes('changes.rows', 'id');
BEGIN;
COPY changes_orders (id, amount) FROM stdin (DELIMITER ',');
20,5
21,6
\.
SELECT count(*) FROM (SELECT produce('changes.rows', '{}', 'before')) p;
COMMIT;
SELECT key FROM changes('changes.rows');
DROP TRIGGER publish ON changes_orders;
TRUNCATE changes_orders;

--
-- For each statement
--
CREATE TRIGGER publish_insert AFTER INSERT ON changes_orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id');
CREATE TRIGGER publish_update AFTER UPDATE ON changes_orders REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id');
CREATE TRIGGER publish_delete AFTER DELETE ON changes_orders REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id');
INSERT INTO changes_orders VALUES (1, 'alice', 10, DEFAULT, NULL, NULL), (2, 'b"ö\b', NULL, DEFAULT, '2024-02-29 12:00+02', '{"a": [1, null]}');
UPDATE changes_orders SET amount = 11, id = CASE id WHEN 1 THEN 1 ELSE 3 END;
DELETE FROM changes_orders;
DELETE FROM changes_orders;
SELECT * FROM changes('changes.json');
-- many rows are few batches
TRUNCATE changes_orders;
ALTER TABLE changes_orders SET (autovacuum_enabled = off);
SELECT batches('changes.json') AS before \gset
INSERT INTO changes_orders (id, amount) SELECT i, i FROM generate_series(1, 5000) i;
SELECT batches('changes.json') - :before BETWEEN 50 AND 500 AS few;
SELECT count(*), bool_and(place = key::int) AS in_order, bool_and(value::json->>'op' = 'INSERT' AND (value::json#>>'{new,twice}')::int = 2 * place) AS good
FROM (SELECT row_number() OVER () AS place, * FROM changes('changes.json')) c;
SELECT batches('changes.json') AS before \gset
UPDATE changes_orders SET amount = -amount;
SELECT batches('changes.json') - :before BETWEEN 50 AND 500 AS few;
SELECT count(*), count(DISTINCT key), bool_and(value::json->>'op' = 'UPDATE' AND value::json#>>'{old,id}' = key AND value::json#>>'{new,id}' = key AND value::json#>>'{old,amount}' = key AND (value::json#>>'{new,amount}')::int = -key::int) AS good
FROM changes('changes.json');
-- all keys are new: twice as many messages, those of a row one after the other
UPDATE changes_orders SET id = id + 10000;
SELECT count(*), count(DISTINCT key), bool_and(CASE place % 2 WHEN 1 THEN value::json->>'op' = 'DELETE' AND value::json#>>'{old,id}' = key AND key::int <= 5000
    ELSE value::json->>'op' = 'INSERT' AND value::json#>>'{new,id}' = key AND key::int = before::int + 10000 END) AS good
FROM (SELECT row_number() OVER () AS place, lag(c.key) OVER () AS before, * FROM changes('changes.json') c) c;
DELETE FROM changes_orders;
SELECT count(*), count(DISTINCT key), bool_and(value::json->>'op' = 'DELETE' AND value::json#>>'{old,id}' = key AND value::json->>'new' IS NULL) AS good FROM changes('changes.json');
-- large rows: batches by size too
INSERT INTO changes_orders (id, customer) SELECT i, repeat(i::text, 100000) FROM generate_series(1, 100) i;
UPDATE changes_orders SET amount = 1;
SELECT value::json->>'op' AS op, count(*), bool_and(value::json#>>'{new,customer}' = repeat(key, 100000)) AS good, bool_and(value::json#>>'{old,customer}' = repeat(key, 100000)) AS old_good FROM changes('changes.json') GROUP BY 1 ORDER BY 1;
TRUNCATE changes_orders;
-- rolled back
BEGIN;
INSERT INTO changes_orders (id) VALUES (1);
SAVEPOINT one;
INSERT INTO changes_orders (id) VALUES (2);
ROLLBACK TO one;
COMMIT;
INSERT INTO changes_orders (id) VALUES (2), (1); \echo :SQLSTATE
SELECT key FROM changes('changes.json');
DELETE FROM changes_orders;
-- INSERT ... ON CONFLICT, MERGE, COPY, several changes in one statement
INSERT INTO changes_orders (id, amount) VALUES (1, 10), (2, 20), (3, 30);
SELECT key, value::json->>'op' AS op FROM changes('changes.json');
INSERT INTO changes_orders (id, amount) VALUES (4, 40), (3, 31), (5, 50), (1, 11) ON CONFLICT (id) DO UPDATE SET amount = EXCLUDED.amount;
SELECT key, value::json->>'op' AS op, value::json#>>'{old,amount}' AS old_amount, value::json#>>'{new,amount}' AS amount FROM changes('changes.json');
MERGE INTO changes_orders o USING (VALUES (1, 12), (2, NULL), (6, 60)) v (id, amount) ON o.id = v.id
    WHEN MATCHED AND v.amount IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET amount = v.amount WHEN NOT MATCHED THEN INSERT (id, amount) VALUES (v.id, v.amount);
SELECT key, value::json->>'op' AS op, value::json#>>'{old,amount}' AS old_amount, value::json#>>'{new,amount}' AS amount FROM changes('changes.json') ORDER BY key::int;
COPY changes_orders (id, amount) FROM stdin (DELIMITER ',');
20,5
21,6
\.
WITH gone AS (DELETE FROM changes_orders WHERE id = 20 RETURNING *), changed AS (UPDATE changes_orders SET amount = 7 WHERE id = 21)
    INSERT INTO changes_orders (id, amount) SELECT id + 2, amount FROM gone;
SELECT key, value::json->>'op' AS op, value::json#>>'{old,amount}' AS old_amount, value::json#>>'{new,amount}' AS amount FROM changes('changes.json') ORDER BY key::int, op DESC;
-- two triggers read the same tables
CREATE FUNCTION changes_count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% rows', (SELECT count(*) FROM new_rows); RETURN NULL; END $$;
CREATE TRIGGER a_count AFTER INSERT ON changes_orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION changes_count();
CREATE TRIGGER z_publish AFTER INSERT ON changes_orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows', 'id');
CREATE TRIGGER zz_count AFTER INSERT ON changes_orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION changes_count();
INSERT INTO changes_orders (id) VALUES (31), (32);
SELECT key FROM changes('changes.rows');
SELECT key FROM changes('changes.json');
DROP TABLE changes_orders;
DROP FUNCTION changes_count;
-- foreign keys' actions
CREATE TABLE changes_tree (id int PRIMARY KEY, parent int REFERENCES changes_tree ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TRIGGER publish_update AFTER UPDATE ON changes_tree REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows', 'id');
CREATE TRIGGER publish_delete AFTER DELETE ON changes_tree REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows', 'id');
INSERT INTO changes_tree VALUES (1, NULL), (2, 1), (3, 2);
UPDATE changes_tree SET id = id * 10 WHERE id < 3;
DELETE FROM changes_tree WHERE id = 10;
SELECT * FROM changes('changes.rows');
DROP TABLE changes_tree;

--
-- Keys
--
CREATE TABLE "Changes of ""keys""" (a int, "B b" text, c date, d timestamptz, e bytea, f float8, "g""" boolean);
CREATE TRIGGER "Publish" AFTER INSERT OR UPDATE OR DELETE ON "Changes of ""keys""" FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows');
INSERT INTO "Changes of ""keys""" VALUES (1, 'x');
UPDATE "Changes of ""keys""" SET a = 2;
SELECT * FROM changes('changes.rows');
-- a NULL comes and goes: without a key, with one
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT OR UPDATE OR DELETE ON "Changes of ""keys""" FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'B b');
UPDATE "Changes of ""keys""" SET "B b" = NULL;
UPDATE "Changes of ""keys""" SET a = 3;
UPDATE "Changes of ""keys""" SET "B b" = '';
DELETE FROM "Changes of ""keys""";
SELECT key, value::json->>'op' AS op, value::json->>'table' AS "table", value::json#>>'{old,B b}' AS old, value::json#>>'{new,B b}' AS new FROM changes('changes.rows');
-- several
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT OR UPDATE OR DELETE ON "Changes of ""keys""" FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'g"', 'B b', 'a');
INSERT INTO "Changes of ""keys""" VALUES (1, 'x"y'), (NULL, NULL);
UPDATE "Changes of ""keys""" SET f = 1;
UPDATE "Changes of ""keys""" SET "g""" = true WHERE a = 1;
SELECT key, value::json->>'op' AS op FROM changes('changes.rows');
TRUNCATE "Changes of ""keys""";
-- whoever writes it: settings do not matter
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT OR UPDATE OR DELETE ON "Changes of ""keys""" FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'd');
CREATE TRIGGER publish_date AFTER INSERT OR UPDATE OR DELETE ON "Changes of ""keys""" FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'c', 'd', 'e', 'f');
INSERT INTO "Changes of ""keys""" VALUES (1, NULL, '2024-02-29', '2024-02-29 12:00+00', '\x00ff', 0.1);
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SET bytea_output = 'escape';
SET extra_float_digits = -10;
UPDATE "Changes of ""keys""" SET a = 2;
SHOW timezone;
SHOW datestyle;
-- also after an error
DO $$
BEGIN
    UPDATE "Changes of ""keys""" SET "B b" = repeat('x', 2000000);
EXCEPTION WHEN program_limit_exceeded THEN
    RAISE NOTICE '% %', current_setting('timezone'), current_setting('datestyle');
END $$;
SET timezone = 'UTC';
SET datestyle = 'ISO';
RESET bytea_output;
RESET extra_float_digits;
SELECT * FROM changes('changes.rows');
DROP TABLE "Changes of ""keys""";
-- names and money, and what anybody's cast makes of a type
CREATE TYPE changes_probe AS ENUM ('probe');
CREATE FUNCTION changes_probed(changes_probe) RETURNS json STABLE LANGUAGE sql AS $$
    SELECT json_object_agg(name, setting ORDER BY name) FROM pg_settings WHERE name IN ('search_path', 'lc_monetary', 'quote_all_identifiers') $$;
CREATE CAST (changes_probe AS json) WITH FUNCTION changes_probed;
CREATE TABLE changes_names (id regclass, price money, probe changes_probe DEFAULT 'probe');
CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON changes_names FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'id');
CREATE TRIGGER publish_insert AFTER INSERT ON changes_names REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id', 'price');
CREATE TRIGGER publish_delete AFTER DELETE ON changes_names REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id', 'price');
SET lc_monetary = 'C';
INSERT INTO changes_names VALUES ('changes_names', 1234.5);
SET lc_monetary = 'POSIX';
SET quote_all_identifiers = on;
SET search_path = pg_catalog;
UPDATE public.changes_names SET price = price * 2;
DELETE FROM public.changes_names;
DELETE FROM public.changes_names;
SHOW search_path;
SHOW lc_monetary;
SHOW quote_all_identifiers;
RESET search_path;
RESET quote_all_identifiers;
RESET lc_monetary;
SELECT * FROM changes('changes.rows');
SELECT * FROM changes('changes.json');
DROP TABLE changes_names;
DROP TYPE changes_probe CASCADE;

--
-- Formats
--
CREATE TABLE changes_bytes (id text, note text);
CREATE TRIGGER publish AFTER INSERT ON changes_bytes REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.bytes', 'id');
INSERT INTO changes_bytes VALUES ('ä', 'ö'), (NULL, NULL);
SELECT log_offset, convert_from(key, 'UTF8') AS key, convert_from(value, 'UTF8')::jsonb - 'at' AS value FROM fetch_messages_bytes('changes.bytes', 0, 0);
DROP TABLE changes_bytes;

--
-- Partitioned tables
--
CREATE TABLE changes_parted (id int, region text, amount int) PARTITION BY LIST (region);
CREATE TABLE changes_parted_a PARTITION OF changes_parted FOR VALUES IN ('a');
-- other columns in another order
CREATE TABLE changes_parted_b (gone int, amount int, region text, id int);
ALTER TABLE changes_parted_b DROP COLUMN gone;
ALTER TABLE changes_parted ATTACH PARTITION changes_parted_b FOR VALUES IN ('b');
CREATE TABLE changes_parted_c PARTITION OF changes_parted FOR VALUES IN ('c', 'd') PARTITION BY LIST (region);
CREATE TABLE changes_parted_d PARTITION OF changes_parted_c FOR VALUES IN ('d');
CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON changes_parted FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'id');
CREATE TRIGGER publish_insert AFTER INSERT ON changes_parted REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id');
CREATE TRIGGER publish_update AFTER UPDATE ON changes_parted REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id');
CREATE TRIGGER publish_delete AFTER DELETE ON changes_parted REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'id');
INSERT INTO changes_parted VALUES (1, 'a', 10), (2, 'b', 20), (3, 'd', 30), (4, 'b', 40), (5, 'a', 50);
SELECT * FROM changes('changes.rows');
SELECT * FROM changes('changes.json');
-- some rows move, some do not
UPDATE changes_parted SET region = CASE WHEN id < 4 THEN 'b' ELSE region END, amount = amount + 1;
SELECT key, value::json->>'op' AS op, value::json->'old' AS old, value::json->'new' AS new FROM changes('changes.rows');
SELECT key, value::json->>'op' AS op, value::json->'old' AS old, value::json->'new' AS new FROM changes('changes.json');
-- a partition by its own name: its triggers are the copies for each row
UPDATE changes_parted_a SET amount = 0;
SELECT key, value::json->>'table' AS "table" FROM changes('changes.rows');
SELECT count(*) FROM changes('changes.json');
-- a row that is refused where it was to go is deleted: nothing tells which row of NEW TABLE belongs to which of OLD TABLE
CREATE FUNCTION changes_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id = 2 THEN RETURN NULL; END IF; RETURN new; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON changes_parted_d FOR EACH ROW EXECUTE FUNCTION changes_refuse();
UPDATE changes_parted SET region = 'd' WHERE id < 4;
SELECT key, value::json->>'op' AS op FROM changes('changes.rows');
SELECT key, value::json->>'op' AS op FROM changes('changes.json');
-- MERGE (rows that it moves are not in the transition tables of UPDATE)
MERGE INTO changes_parted p USING (VALUES (1, 'a'), (5, 'a')) v (id, region) ON p.id = v.id WHEN MATCHED THEN UPDATE SET region = v.region;
SELECT key, value::json->>'op' AS op FROM changes('changes.rows') ORDER BY key, op;
SELECT key, value::json->>'op' AS op FROM changes('changes.json') ORDER BY key, op;
DROP TABLE changes_parted;
DROP FUNCTION changes_refuse;

--
-- Generated columns: what a query of the table shows. 18 does not compute virtual ones for triggers; older versions have none
--
SELECT CASE WHEN current_setting('server_version_num')::int < 180000 THEN 'STORED' ELSE 'VIRTUAL' END AS kind \gset
CREATE TABLE changes_generated (
    big text GENERATED ALWAYS AS (upper(name)) :kind, id int, gone int, name text, amount int,
    size text GENERATED ALWAYS AS (CASE WHEN amount > 100 THEN 'large' WHEN amount > 0 THEN 'small' END) :kind,
    share int GENERATED ALWAYS AS (100 / amount) :kind, doubled int GENERATED ALWAYS AS (amount * 2) STORED,
    origin regclass GENERATED ALWAYS AS (tableoid::regclass) :kind);
ALTER TABLE changes_generated DROP COLUMN gone;
SELECT bool_and(attgenerated = CASE :'kind' WHEN 'VIRTUAL' THEN 'v' ELSE 's' END) AS as_asked
FROM pg_attribute WHERE attrelid = 'changes_generated'::regclass AND attname IN ('big', 'size', 'share', 'origin');
CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON changes_generated FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'size');
CREATE TRIGGER publish_insert AFTER INSERT ON changes_generated REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'size', 'id', 'big');
CREATE TRIGGER publish_update AFTER UPDATE ON changes_generated REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'size', 'id', 'big');
CREATE TRIGGER publish_delete AFTER DELETE ON changes_generated REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'size', 'id', 'big');
INSERT INTO changes_generated (id, name, amount) VALUES (1, 'alice', 50), (2, 'bob', 200), (3, NULL, NULL);
SELECT * FROM changes('changes.rows');
SELECT * FROM changes('changes.json');
SELECT r.* FROM fetch_messages('changes.json', 0, (SELECT next - 3 FROM changes_seen WHERE topic = 'changes.json')) m, json_populate_record(NULL::changes_generated, m.value::json->'new') r
EXCEPT ALL SELECT * FROM changes_generated;
-- some keys change by it, some do not
UPDATE changes_generated SET amount = amount * 3;
SELECT * FROM changes('changes.rows');
SELECT * FROM changes('changes.json');
-- a column that older rows do not have
ALTER TABLE changes_generated ADD COLUMN late text GENERATED ALWAYS AS ('late ' || id) :kind;
DELETE FROM changes_generated WHERE id = 1;
SELECT * FROM changes('changes.rows');
SELECT * FROM changes('changes.json');
-- one that cannot be computed
\set SHOW_CONTEXT never
INSERT INTO changes_generated (id, amount) VALUES (4, 0); \echo :SQLSTATE
\set SHOW_CONTEXT errors
SELECT count(*) FROM changes('changes.rows');
-- values that are stored apart, many rows
INSERT INTO changes_generated (id, name, amount) SELECT i, repeat('n' || i, 10000), i FROM generate_series(1, 100) i;
SELECT count(*), bool_and(value::json#>>'{new,big}' = repeat('N' || (value::json#>>'{new,id}'), 10000)) AS good FROM changes('changes.rows');
SELECT count(*), bool_and(value::json#>>'{new,big}' = repeat('N' || (value::json#>>'{new,id}'), 10000)) AS good FROM changes('changes.json');
DELETE FROM changes_generated;
SELECT count(*), bool_and(value::json#>>'{old,big}' = upper(value::json#>>'{old,name}')) AS good FROM changes('changes.rows');
SELECT count(*), bool_and(value::json#>>'{old,big}' = upper(value::json#>>'{old,name}')) AS good FROM changes('changes.json');
DROP TABLE changes_generated;
-- of partitions
CREATE TABLE changes_generated (id int, double int GENERATED ALWAYS AS (id * 2) :kind, region text, triple int GENERATED ALWAYS AS (id * 3) STORED) PARTITION BY LIST (region);
CREATE TABLE changes_generated_a PARTITION OF changes_generated FOR VALUES IN ('a');
CREATE TABLE changes_generated_b (gone int, region text, id int, triple int GENERATED ALWAYS AS (id * 3) STORED, double int GENERATED ALWAYS AS (id * 2) :kind);
ALTER TABLE changes_generated_b DROP COLUMN gone;
ALTER TABLE changes_generated ATTACH PARTITION changes_generated_b FOR VALUES IN ('b');
CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON changes_generated FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'double');
CREATE TRIGGER publish_insert AFTER INSERT ON changes_generated REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'double');
CREATE TRIGGER publish_update AFTER UPDATE ON changes_generated REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'double');
INSERT INTO changes_generated (id, region) VALUES (1, 'a'), (2, 'b'), (NULL, 'b');
COPY changes_generated (id, region) FROM stdin (DELIMITER ',');
3,b
4,a
\.
UPDATE changes_generated SET region = 'b', id = id * 10;
SELECT * FROM changes('changes.rows');
SELECT * FROM changes('changes.json');
DROP TABLE changes_generated;
-- by functions that find others as the session does, while names are as always
CREATE SCHEMA changes_path;
CREATE FUNCTION changes_path.helper(int) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'helped ' || $1 $$;
CREATE FUNCTION changes_tag(int) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN helper($1); END $$;
SET search_path = public, changes_path;
CREATE TABLE changes_generated (id int, tag text GENERATED ALWAYS AS (changes_tag(id)) STORED, name regclass) PARTITION BY LIST (id);
CREATE TABLE changes_generated_1 (name regclass, tag text GENERATED ALWAYS AS (changes_tag(id)) STORED, id int);
ALTER TABLE changes_generated ATTACH PARTITION changes_generated_1 FOR VALUES IN (1, 2);
CREATE TRIGGER publish AFTER INSERT ON changes_generated FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'name');
CREATE TRIGGER publish_insert AFTER INSERT ON changes_generated REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.json', 'name');
INSERT INTO changes_generated VALUES (1, DEFAULT, 'changes_generated'), (2, DEFAULT, 'pg_class');
RESET search_path;
SELECT * FROM changes('changes.rows');
SELECT * FROM changes('changes.json');
DROP TABLE changes_generated;
DROP FUNCTION changes_tag;
DROP SCHEMA changes_path CASCADE;

--
-- Errors
--
CREATE TABLE changes_errors (id int, big text);
CREATE TRIGGER publish BEFORE INSERT ON changes_errors FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows');
INSERT INTO changes_errors VALUES (1); \echo :SQLSTATE
DROP TRIGGER publish ON changes_errors;
CREATE VIEW changes_view AS SELECT * FROM changes_errors;
CREATE TRIGGER publish INSTEAD OF INSERT ON changes_view FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows');
INSERT INTO changes_view VALUES (1); \echo :SQLSTATE
DROP VIEW changes_view;
CREATE TRIGGER publish AFTER TRUNCATE ON changes_errors FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows');
TRUNCATE changes_errors; \echo :SQLSTATE
DROP TRIGGER publish ON changes_errors;
CREATE TRIGGER "Publish" AFTER INSERT ON changes_errors FOR EACH ROW EXECUTE FUNCTION produce_changes();
INSERT INTO changes_errors VALUES (1); \echo :SQLSTATE
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT ON changes_errors FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.nothing', 'id');
INSERT INTO changes_errors VALUES (1); \echo :SQLSTATE
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT ON changes_errors FOR EACH ROW EXECUTE FUNCTION produce_changes('');
INSERT INTO changes_errors VALUES (1); \echo :SQLSTATE
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT ON changes_errors FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'id', 'Big');
INSERT INTO changes_errors VALUES (1); \echo :SQLSTATE
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT ON changes_errors FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'ctid');
INSERT INTO changes_errors VALUES (1); \echo :SQLSTATE
CREATE OR REPLACE TRIGGER "Publish" AFTER INSERT ON changes_errors FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'id');
\set SHOW_CONTEXT errors
-- how long it is depends on the time's last digits, which are left out where they are 0
DO $$
DECLARE
    code text; message text; context text;
BEGIN
    INSERT INTO changes_errors VALUES (1, repeat('x', 1048576));
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
    RAISE NOTICE '% % [%]', code, regexp_replace(message, '10487\d\d', '10487NN'), split_part(context, E'\n', 1);
END $$;
DROP TRIGGER "Publish" ON changes_errors;
INSERT INTO changes_errors VALUES (1);
CREATE TRIGGER publish AFTER INSERT ON changes_errors FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows');
INSERT INTO changes_errors VALUES (2); \echo :SQLSTATE
DROP TRIGGER publish ON changes_errors;
CREATE TRIGGER publish AFTER DELETE ON changes_errors FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows');
DELETE FROM changes_errors; \echo :SQLSTATE
DROP TRIGGER publish ON changes_errors;
CREATE TRIGGER publish AFTER UPDATE ON changes_errors FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows');
UPDATE changes_errors SET id = 3; \echo :SQLSTATE
CREATE OR REPLACE TRIGGER publish AFTER UPDATE ON changes_errors REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows');
UPDATE changes_errors SET id = 3; \echo :SQLSTATE
CREATE OR REPLACE TRIGGER publish AFTER UPDATE ON changes_errors REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.rows');
UPDATE changes_errors SET id = 3; \echo :SQLSTATE
DROP TRIGGER publish ON changes_errors;
-- a column that is dropped later, a topic likewise
CREATE TRIGGER publish AFTER UPDATE ON changes_errors REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION produce_changes('changes.later', 'big');
SELECT create_topic('changes.later');
UPDATE changes_errors SET id = 3;
SELECT key, value FROM changes('changes.later');
ALTER TABLE changes_errors DROP COLUMN big;
UPDATE changes_errors SET id = 4; \echo :SQLSTATE
ALTER TABLE changes_errors ADD COLUMN big int;
DELETE FROM changes_seen WHERE topic = 'changes.later';
SELECT drop_topic('changes.later');
UPDATE changes_errors SET id = 4; \echo :SQLSTATE
SELECT create_topic('changes.later', partitions => 4);
UPDATE changes_errors SET id = 4, big = 1;
SELECT sum(log_end_offset) FROM partition_status WHERE topic = 'changes.later';
CREATE TEMP TABLE changes_temporary (id int);
CREATE TRIGGER publish AFTER INSERT ON changes_temporary FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.rows', 'id');
BEGIN READ ONLY;
INSERT INTO changes_temporary VALUES (1); \echo :SQLSTATE
ROLLBACK;
DROP TABLE changes_temporary;
SELECT count(*) FROM changes('changes.rows');
BEGIN;
UPDATE changes_errors SET id = 5;
PREPARE TRANSACTION 'changes'; \echo :SQLSTATE

--
-- Rights are those of who changes the table
--
CREATE ROLE regress_topic_writer;
GRANT ALL ON changes_errors TO regress_topic_writer;
SET ROLE regress_topic_writer;
UPDATE changes_errors SET id = 6; \echo :SQLSTATE
-- nothing to publish, nothing to deny
UPDATE changes_errors SET id = 6 WHERE false;
SELECT has_function_privilege('produce_changes()', 'EXECUTE');
RESET ROLE;
GRANT CREATE ON SCHEMA topics TO regress_topic_writer;
SET ROLE regress_topic_writer;
SELECT create_topic('changes.owned');
CREATE TEMP TABLE changes_owned (id int);
CREATE TRIGGER publish AFTER INSERT ON changes_owned FOR EACH ROW EXECUTE FUNCTION produce_changes('changes.owned', 'id');
INSERT INTO changes_owned VALUES (1);
SELECT key FROM fetch_messages('changes.owned', 0, 0);
-- with nothing on the path, and temporary objects before all else
CREATE FUNCTION pg_temp.row_to_json(record) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught: row_to_json'; END $$;
SET search_path = pg_temp, pg_catalog;
INSERT INTO changes_owned VALUES (2);
SET search_path = '';
INSERT INTO pg_temp.changes_owned VALUES (3);
RESET search_path;
SELECT key FROM fetch_messages('changes.owned', 0, 0);
DROP TABLE changes_owned;
RESET ROLE;

DROP TABLE changes_errors, changes_seen;
DROP FUNCTION changes, batches;
SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'changes.%') d;
DROP OWNED BY regress_topic_writer;
DROP ROLE regress_topic_writer;
