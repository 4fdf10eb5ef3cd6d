-- Who may do what: the owner of a topic, members of that role, superusers, and nobody else.

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_topic_owner, regress_topic_member, regress_topic_noinherit, regress_topic_stranger, regress_topic_heir;
RESET client_min_messages;
CREATE ROLE regress_topic_owner;
CREATE ROLE regress_topic_member;
CREATE ROLE regress_topic_noinherit NOINHERIT;
CREATE ROLE regress_topic_stranger;
CREATE ROLE regress_topic_heir;
GRANT regress_topic_owner TO regress_topic_member, regress_topic_noinherit;

--
-- What PUBLIC may execute and see: these, and nothing else
--
SELECT n.nspname = 'pgtopic' AS internal, p.oid::regprocedure AS function
FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic') AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY 1, p.proname COLLATE "C", p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure AS function, p.proacl IS NULL AS default_privileges
FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic') AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
AND NOT has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY p.proname COLLATE "C";
-- none that everybody may call runs with its owner's rights by declaration
SELECT count(*) FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic') AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND p.prosecdef
AND has_function_privilege('public', p.oid, 'EXECUTE');
SELECT nspname, has_schema_privilege('public', oid, 'USAGE') AS usage, has_schema_privilege('public', oid, 'CREATE') AS "create"
FROM pg_namespace WHERE nspname IN ('pgtopic', 'topics') ORDER BY 1;
SELECT c.oid::regclass, r.p FROM pg_class c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) r (p)
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relnamespace = 'pgtopic'::regnamespace OR EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgtopic')))
AND has_table_privilege('public', c.oid, r.p) ORDER BY c.oid::regclass::text COLLATE "C";

--
-- create_topic needs CREATE on schema topics; the caller owns the topic
--
SET ROLE regress_topic_owner;
SELECT create_topic('privileges.owned'); \echo :SQLSTATE
RESET ROLE;
GRANT CREATE ON SCHEMA topics TO regress_topic_owner, regress_topic_stranger;
SET ROLE regress_topic_owner;
SELECT create_topic('privileges.owned', partitions => 2, segment_messages => 1000);
SELECT create_topic('privileges.bytes', value_format => 'bytes');
BEGIN;
SELECT create_topic('privileges.grown', segment_messages => 1000);
SELECT * FROM produce_batch('privileges.grown', array_fill('x'::text, ARRAY[5000]));
COMMIT;
RESET ROLE;
SELECT DISTINCT relkind, pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'topics'::regnamespace AND relname LIKE 'privileges.%';

--
-- The owner, without any right on the catalog or the storage, can do everything with the topic
--
SET ROLE regress_topic_owner;
SELECT * FROM produce('privileges.owned', 'one', partition => 0);
SELECT * FROM produce_batch('privileges.owned', ARRAY['two', 'three'], partition => 0);
SELECT * FROM produce_batch('privileges.owned', array_fill('many'::text, ARRAY[5000]), partition => 1);
SELECT log_offset, value FROM fetch_messages('privileges.owned', 0, 0);
SELECT count(*) FROM fetch_messages_bytes('privileges.owned', 1, 0, 10000);
SELECT count(*) FROM consume('privileges.owned', 'g', 2);
SELECT count(*) FROM consume_bytes('privileges.owned', 'g', 2);
CALL wait_for_messages('privileges.owned', 'g', '0');
SELECT * FROM offsets_at('privileges.owned', '-infinity');
SELECT create_consumer_group('h', 'privileges.owned'), commit_offset('h', 'privileges.owned', 0, 1);
SELECT * FROM reset_offsets('h', 'privileges.owned', '2');
SELECT drop_consumer_group('h', 'privileges.owned'), drop_consumer_group('g');
SELECT alter_topic('privileges.owned', 'max_message_bytes', '1000');
\set VERBOSITY terse
SELECT add_partitions('privileges.owned', 3);
\set VERBOSITY default
SELECT delete_messages('privileges.owned', 0, 1);
SELECT topic, partitions, value_format, messages FROM topic_status ORDER BY 1;
SELECT topic, partition, log_start_offset, high_watermark FROM partition_status ORDER BY 1, 2;
SELECT count(*) > 0 AS segments FROM segment_status;
SELECT count(*) FROM consume('privileges.owned', 'watched', 1);
SELECT DISTINCT topic, consumer_group FROM consumer_group_status;
SELECT * FROM worker_status; \echo :SQLSTATE

-- but nothing with what is below it
SELECT count(*) FROM pgtopic.topic; \echo :SQLSTATE
SELECT count(*) FROM pgtopic.partition; \echo :SQLSTATE
SELECT nextval('pgtopic.topic_id_seq'); \echo :SQLSTATE
SELECT pgtopic.extension_created(); \echo :SQLSTATE
SELECT pgtopic.topic_changed(); \echo :SQLSTATE
RESET ROLE;
SELECT 'privileges.owned'::topic::int AS id \gset
SET ROLE regress_topic_owner;
\set VERBOSITY terse
SELECT count(*) FROM pgtopic.t:id; \echo :SQLSTATE
DELETE FROM pgtopic.t:id; \echo :SQLSTATE
INSERT INTO pgtopic.t:id SELECT; \echo :SQLSTATE
DROP TABLE pgtopic.t:id; \echo :SQLSTATE
ALTER TABLE pgtopic.t:id ADD COLUMN x int; \echo :SQLSTATE
CREATE TABLE pgtopic.x (); \echo :SQLSTATE
CREATE TEMP TABLE privileges_child PARTITION OF pgtopic.t:id FOR VALUES IN (77); \echo :SQLSTATE
\set VERBOSITY default
RESET ROLE;

--
-- Members of the owner's role as the owner, as far as they inherit its rights
--
SET ROLE regress_topic_member;
SELECT * FROM produce('privileges.owned', 'by a member', partition => 0);
SELECT max(value) FROM fetch_messages('privileges.owned', 0, 3);
SELECT count(*) FROM consume('privileges.owned', 'member', 1);
SELECT alter_topic('privileges.owned', 'retention', '3 days');
SELECT topic FROM topic_status ORDER BY 1;
SET ROLE regress_topic_noinherit;
SELECT produce('privileges.owned', 'x'); \echo :SQLSTATE
SELECT topic FROM topic_status;
RESET ROLE;

--
-- Others: nothing
--
SET ROLE regress_topic_stranger;
SELECT produce('privileges.owned', 'x'); \echo :SQLSTATE
SELECT produce('privileges.owned', 'x'::bytea); \echo :SQLSTATE
SELECT produce('privileges.owned', '{}'::jsonb); \echo :SQLSTATE
SELECT produce_batch('privileges.owned', ARRAY['x']); \echo :SQLSTATE
SELECT produce_batch('privileges.owned', '{}'::text[]); \echo :SQLSTATE
SELECT * FROM fetch_messages('privileges.owned', 0, 0); \echo :SQLSTATE
SELECT * FROM fetch_messages_bytes('privileges.owned', 0, 0); \echo :SQLSTATE
SELECT * FROM consume('privileges.owned', 'g'); \echo :SQLSTATE
SELECT * FROM consume_bytes('privileges.owned', 'g'); \echo :SQLSTATE
CALL wait_for_messages('privileges.owned', 'g', '0'); \echo :SQLSTATE
SELECT * FROM offsets_at('privileges.owned', now()); \echo :SQLSTATE
SELECT create_consumer_group('g', 'privileges.owned'); \echo :SQLSTATE
SELECT commit_offset('g', 'privileges.owned', 0, 1); \echo :SQLSTATE
SELECT * FROM reset_offsets('member', 'privileges.owned', 'latest'); \echo :SQLSTATE
SELECT * FROM reset_offsets('member', 'privileges.owned', 'latest', true); \echo :SQLSTATE
SELECT drop_consumer_group('member', 'privileges.owned'); \echo :SQLSTATE
SELECT drop_consumer_group('member'); \echo :SQLSTATE
SELECT alter_topic('privileges.owned', 'retention', '1 day'); \echo :SQLSTATE
SELECT add_partitions('privileges.owned', 9); \echo :SQLSTATE
SELECT delete_messages('privileges.owned', 0, 1); \echo :SQLSTATE
SELECT drop_topic('privileges.owned'); \echo :SQLSTATE
-- nor do other errors tell what there is
SELECT produce('privileges.owned', 'x', partition => 99); \echo :SQLSTATE
SELECT produce_batch('privileges.owned', ARRAY['x'], partition => 99); \echo :SQLSTATE
SELECT produce('privileges.owned', repeat('x', 2000)); \echo :SQLSTATE
SELECT * FROM fetch_messages('privileges.owned', 99, 0); \echo :SQLSTATE
SELECT * FROM fetch_messages('privileges.owned', 0, 99); \echo :SQLSTATE
SELECT * FROM fetch_messages('privileges.bytes', 0, 0); \echo :SQLSTATE
SELECT * FROM consume('privileges.bytes', 'g'); \echo :SQLSTATE
SELECT commit_offset('g', 'privileges.owned', 99, 1); \echo :SQLSTATE
SELECT create_consumer_group('member', 'privileges.owned'); \echo :SQLSTATE
SELECT delete_messages('privileges.owned', 99, 1); \echo :SQLSTATE
SELECT add_partitions('privileges.owned', 1); \echo :SQLSTATE
SELECT alter_topic('privileges.owned', 'nonsense', '1'); \echo :SQLSTATE
-- the views show one's own
SELECT topic FROM topic_status;
SELECT topic FROM partition_status;
SELECT topic FROM segment_status;
SELECT topic FROM consumer_group_status;
SELECT create_topic('privileges.own');
SELECT topic FROM topic_status;
SELECT topic, partition FROM partition_status;
SELECT DISTINCT topic FROM segment_status;
-- not even to a function that wants to see the rows before they are hidden
CREATE FUNCTION pg_temp.leak(t topic) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'seen: %', t; RETURN true; END $$;
SELECT topic FROM topic_status WHERE pg_temp.leak(topic);
SELECT DISTINCT topic FROM partition_status WHERE pg_temp.leak(topic);
SELECT DISTINCT topic FROM consumer_group_status WHERE pg_temp.leak(topic);
-- a name that another has taken is taken
SELECT create_topic('privileges.owned'); \echo :SQLSTATE
SELECT drop_topic('privileges.own');
RESET ROLE;

--
-- Lent rights: a function of the owner
--
CREATE SCHEMA privileges_lent AUTHORIZATION regress_topic_owner;
GRANT USAGE ON SCHEMA privileges_lent TO PUBLIC;
SET ROLE regress_topic_owner;
CREATE FUNCTION privileges_lent.produce_for(what text) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public
AS $$ SELECT p.log_offset FROM produce('privileges.owned', what, partition => 0) p $$;
CREATE FUNCTION privileges_lent.consume_for() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER SET search_path = public
AS $$ SELECT value FROM consume('privileges.owned', 'lent', 1) $$;
CREATE VIEW privileges_lent.not_lent AS SELECT log_offset, value FROM public.fetch_messages('privileges.owned', 0, 1);
GRANT SELECT ON privileges_lent.not_lent TO PUBLIC;
SET ROLE regress_topic_stranger;
SELECT privileges_lent.produce_for('lent');
SELECT count(*) FROM privileges_lent.consume_for();
-- functions in a view run with the rights of whoever selects from it
SELECT * FROM privileges_lent.not_lent; \echo :SQLSTATE
RESET ROLE;

--
-- A topic belongs to its owner as a table does
--
-- a role that owns one stays
\set VERBOSITY terse
DROP ROLE regress_topic_owner; \echo :SQLSTATE
\set VERBOSITY default
-- topics can be handed on
SET client_min_messages = warning;
DROP SCHEMA privileges_lent CASCADE;
RESET client_min_messages;
REASSIGN OWNED BY regress_topic_owner TO regress_topic_heir;
SET ROLE regress_topic_owner;
SELECT produce('privileges.owned', 'x'); \echo :SQLSTATE
SET ROLE regress_topic_heir;
SELECT count(*) FROM consume('privileges.owned', 'heir', 1);
SELECT topic FROM topic_status ORDER BY 1;
-- and go with DROP OWNED, wholly
RESET ROLE;
CREATE TEMP TABLE privileges_ids AS SELECT t::int AS id FROM unnest('{privileges.owned,privileges.bytes,privileges.grown}'::topic[]) t;
BEGIN;
DROP OWNED BY regress_topic_heir;
SELECT 'privileges.owned'::topic; \echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM topic_status WHERE topic::text LIKE 'privileges.%';
SET ROLE regress_topic_heir;
DROP OWNED BY regress_topic_heir;
RESET ROLE;
SELECT 'privileges.owned'::topic; \echo :SQLSTATE
SELECT 'privileges.grown'::topic; \echo :SQLSTATE
SELECT count(*) FROM topic_status WHERE topic::text LIKE 'privileges.%';
SELECT count(*) FROM pgtopic.topic t JOIN privileges_ids USING (id);
SELECT count(*) FROM pgtopic.partition p JOIN privileges_ids ON p.topic_id = id;
SELECT count(*) FROM privileges_ids JOIN pg_class c ON c.relnamespace = 'pgtopic'::regnamespace AND c.relname ~ ('^t' || id || '(_|$)');
-- the names are free again
SET ROLE regress_topic_owner;
SELECT create_topic('privileges.owned');
SELECT * FROM produce('privileges.owned', 'first');
RESET ROLE;
DROP OWNED BY regress_topic_owner, regress_topic_stranger, regress_topic_heir;
SELECT count(*) FROM topic_status WHERE topic::text LIKE 'privileges.%';
DROP ROLE regress_topic_owner, regress_topic_member, regress_topic_noinherit, regress_topic_stranger, regress_topic_heir;
