-- Nothing depends on the caller's search_path, and nothing that lies in wait there is run.

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_topic_evil;
RESET client_min_messages;
CREATE ROLE regress_topic_evil;
GRANT CREATE ON SCHEMA topics TO regress_topic_evil;
CREATE SCHEMA evil AUTHORIZATION regress_topic_evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;

-- Traps: whoever steps into one says so
SET ROLE regress_topic_evil;
SET search_path = evil, pg_catalog;
CREATE FUNCTION evil.caught(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'caught: %', what; END $$;
CREATE FUNCTION evil.caught_eq(pg_catalog.int4, pg_catalog.int4) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('int4 operator'); END $$;
CREATE FUNCTION evil.caught_eq(pg_catalog.int8, pg_catalog.int8) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('int8 operator'); END $$;
CREATE FUNCTION evil.caught_eq(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('text operator'); END $$;
CREATE FUNCTION evil.caught_eq(pg_catalog.oid, pg_catalog.oid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('oid operator'); END $$;
CREATE FUNCTION evil.caught_eq(public.topic, public.topic) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('topic operator'); END $$;
CREATE FUNCTION evil.caught_int8(pg_catalog.int8, pg_catalog.int8) RETURNS pg_catalog.int8 LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('arithmetic'); END $$;
CREATE FUNCTION evil.caught_timestamp(pg_catalog.timestamptz, pg_catalog.interval) RETURNS pg_catalog.timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('timestamp'); END $$;
CREATE OPERATOR evil.= (LEFTARG = pg_catalog.int4, RIGHTARG = pg_catalog.int4, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.= (LEFTARG = pg_catalog.int8, RIGHTARG = pg_catalog.int8, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.= (LEFTARG = pg_catalog.oid, RIGHTARG = pg_catalog.oid, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.= (LEFTARG = public.topic, RIGHTARG = public.topic, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.< (LEFTARG = pg_catalog.int8, RIGHTARG = pg_catalog.int8, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.>= (LEFTARG = pg_catalog.int8, RIGHTARG = pg_catalog.int8, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.~ (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = evil.caught_eq);
CREATE OPERATOR evil.- (LEFTARG = pg_catalog.int8, RIGHTARG = pg_catalog.int8, FUNCTION = evil.caught_int8);
CREATE OPERATOR evil.+ (LEFTARG = pg_catalog.int8, RIGHTARG = pg_catalog.int8, FUNCTION = evil.caught_int8);
CREATE OPERATOR evil.- (LEFTARG = pg_catalog.timestamptz, RIGHTARG = pg_catalog.interval, FUNCTION = evil.caught_timestamp);
CREATE FUNCTION evil.now() RETURNS pg_catalog.timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('now'); END $$;
CREATE FUNCTION evil.nextval(pg_catalog.regclass) RETURNS pg_catalog.int8 LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('nextval'); END $$;
CREATE FUNCTION evil.substr(pg_catalog.text, pg_catalog.int4) RETURNS pg_catalog.text LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('substr'); END $$;
CREATE FUNCTION evil.pg_event_trigger_dropped_objects() RETURNS SETOF pg_catalog.record LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('pg_event_trigger_dropped_objects'); END $$;
CREATE FUNCTION evil.pg_total_relation_size(pg_catalog.regclass) RETURNS pg_catalog.int8 LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('pg_total_relation_size'); END $$;
CREATE FUNCTION evil.can_use(pg_catalog.int4) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('can_use'); END $$;
CREATE TYPE evil.topic AS (trap pg_catalog.text);
CREATE TYPE evil.topic_partition AS (trap pg_catalog.text);
CREATE TYPE evil.message AS (trap pg_catalog.text);
CREATE TYPE evil.int4 AS (trap pg_catalog.text);
CREATE TYPE evil.int8 AS (trap pg_catalog.text);
CREATE TYPE evil.text AS (trap pg_catalog.text);
CREATE TYPE evil.bytea AS (trap pg_catalog.text);
CREATE TYPE evil.interval AS (trap pg_catalog.text);
CREATE TYPE evil.timestamptz AS (trap pg_catalog.text);
CREATE TABLE evil.partition (trap pg_catalog.text);
CREATE TABLE evil.pg_class (trap pg_catalog.text);
CREATE SEQUENCE evil.topic_id_seq;
CREATE FUNCTION evil.produce(public.topic, pg_catalog.text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.caught('produce'); END $$;
-- they work
\set VERBOSITY terse
SELECT 1 = 2;
SELECT now();
\set VERBOSITY default

-- With the traps in front of pg_catalog, everything as usual: as an ordinary role, and as a superuser
CREATE FUNCTION evil.use_everything(name pg_catalog.text) RETURNS SETOF pg_catalog.text LANGUAGE plpgsql SET search_path = evil, pg_catalog, public AS $$
DECLARE
    t public.topic := public.create_topic(name, partitions => 2, segment_messages => 1000, retention => '1 day', value_format => 'json');
BEGIN
    RETURN NEXT t;
    RETURN NEXT public.produce(t, '1'::pg_catalog.text, key => '21', partition => 0);
    RETURN NEXT public.produce(t, '{"a": 1}'::pg_catalog.jsonb, key => 'k', partition => 0);
    RETURN NEXT public.produce(t, '2'::pg_catalog.bytea, partition => 0, headers => '{}', "timestamp" => '2024-01-01');
    RETURN NEXT public.produce_batch(t, array_fill('3'::pg_catalog.text, ARRAY[5000]), partition => 1);
    PERFORM public.alter_topic(t, 'retention', '2 days'), public.alter_topic(t, 'retention', 'default'), public.alter_topic(t, 'max_message_bytes', '2000');
    PERFORM public.add_partitions(t, 3);
    PERFORM public.fetch_messages(t, 0, 0), public.offsets_at(t, '2024-01-01');
    PERFORM public.consume(t, 'g'), public.create_consumer_group('h', t, 'latest'), public.commit_offset('h', t, 0, 0), public.reset_offsets('h', t, '+1'), public.drop_consumer_group('h');
END $$;
CREATE FUNCTION evil.use_committed(t public.topic) RETURNS SETOF pg_catalog.text LANGUAGE plpgsql SET search_path = evil, pg_catalog, public AS $$
BEGIN
    RETURN QUERY SELECT pg_catalog.array_agg(m.value)::pg_catalog.text FROM public.fetch_messages(t, 0, 0) m;
    RETURN QUERY SELECT pg_catalog.count(*)::pg_catalog.text FROM public.fetch_messages_bytes(t, 1, 0, 10000) m;
    RETURN QUERY SELECT pg_catalog.count(*)::pg_catalog.text FROM public.consume(t, 'g', 1) m;
    RETURN QUERY SELECT pg_catalog.array_agg(o.log_offset ORDER BY o.partition)::pg_catalog.text FROM public.offsets_at(t, '-infinity') o;
    PERFORM public.create_consumer_group('h', t, 'latest'), public.commit_offset('h', t, 0, 0), public.drop_consumer_group('h', t);
    RETURN QUERY SELECT pg_catalog.array_agg(r.new_offset)::pg_catalog.text FROM public.reset_offsets('g', t, 'latest') r;
    RETURN QUERY SELECT pg_catalog.count(*)::pg_catalog.text FROM public.topic_status s WHERE s.topic OPERATOR(public.=) t;
    RETURN QUERY SELECT (pg_catalog.count(*) OPERATOR(pg_catalog.>) 0)::pg_catalog.text FROM public.partition_status;
    RETURN QUERY SELECT (pg_catalog.count(*) OPERATOR(pg_catalog.>) 0)::pg_catalog.text FROM public.segment_status;
    RETURN QUERY SELECT (pg_catalog.count(*) OPERATOR(pg_catalog.>) 0)::pg_catalog.text FROM public.consumer_group_status;
    RETURN QUERY SELECT public.delete_messages(t, 0, 1)::pg_catalog.text;
    PERFORM public.drop_consumer_group('g');
    RETURN QUERY SELECT (t OPERATOR(public.=) t::pg_catalog.text::public.topic)::pg_catalog.text;
    PERFORM public.drop_topic(t);
END $$;
\set VERBOSITY terse
SELECT evil.use_everything('search_path.role');
SELECT evil.use_committed('search_path.role'::public.topic);
RESET ROLE;
SELECT evil.use_everything('search_path.super');
SELECT evil.use_committed('search_path.super'::public.topic);
\set VERBOSITY default

-- nothing at all on the path
SET search_path = '';
SELECT public.create_topic('search_path.empty');
SELECT * FROM public.produce('search_path.empty', 'x');
SELECT log_offset, value FROM public.consume('search_path.empty', 'g');
SELECT log_offset, value FROM public.fetch_messages('search_path.empty', 0, 0);
SELECT topic, messages FROM public.topic_status WHERE topic::pg_catalog.text = 'search_path.empty';
CALL public.wait_for_messages('search_path.empty', 'h', '1 day');
-- temporary objects are not on the path of what runs inside
CREATE TEMP TABLE topic (id int, name text);
CREATE TEMP TABLE partition (topic_id int);
CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'caught: now'; END $$;
SET search_path = pg_temp, public;
SELECT alter_topic('search_path.empty', 'retention', '3 days'), delete_messages('search_path.empty', 0, 1);
SELECT retention FROM topic_status WHERE topic = 'search_path.empty';
SELECT drop_topic('search_path.empty');
DROP TABLE pg_temp.topic, pg_temp.partition;

-- the event trigger, in a session with the traps in front
SET ROLE regress_topic_evil;
SELECT create_topic('search_path.owned');
SET search_path = evil, pg_catalog;
DROP TABLE evil.partition;
SET client_min_messages = error;
DROP OWNED BY regress_topic_evil;
RESET client_min_messages;
RESET ROLE;
RESET search_path;
DROP OWNED BY regress_topic_evil;
SELECT 'search_path.owned'::topic; \echo :SQLSTATE
SELECT count(*) FROM topic_status WHERE topic::text LIKE 'search_path.%';
DROP ROLE regress_topic_evil;
