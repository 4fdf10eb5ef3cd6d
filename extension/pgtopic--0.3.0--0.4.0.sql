/* pgtopic--0.3.0--0.4.0.sql */

\echo Use "ALTER EXTENSION pgtopic UPDATE TO '0.4.0'" to load this file. \quit

----------------------------------------------------------------------
-- Relations: a topic is a foreign table of schema topics
----------------------------------------------------------------------

CREATE FUNCTION pgtopic.fdw_handler() RETURNS fdw_handler
    AS 'MODULE_PATHNAME', 'pgtopic_fdw_handler' LANGUAGE C;
COMMENT ON FUNCTION pgtopic.fdw_handler() IS 'what SELECT, INSERT and COPY do with the relation of a topic';
REVOKE ALL ON FUNCTION pgtopic.fdw_handler() FROM PUBLIC;

CREATE FUNCTION pgtopic.fdw_validator(text[], oid) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_fdw_validator' LANGUAGE C STRICT;
COMMENT ON FUNCTION pgtopic.fdw_validator(text[], oid) IS 'the options that the relation of a topic has';
REVOKE ALL ON FUNCTION pgtopic.fdw_validator(text[], oid) FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER pgtopic HANDLER pgtopic.fdw_handler VALIDATOR pgtopic.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER pgtopic IS 'topics of pgtopic';
CREATE SERVER pgtopic FOREIGN DATA WRAPPER pgtopic;
COMMENT ON SERVER pgtopic IS 'topics of pgtopic; create_topic() makes their foreign tables';

COMMENT ON FUNCTION @extschema@.offsets_at(@extschema@.topic, timestamptz)
    IS 'the first offset of each partition at or after a time; the offset behind the last message where there is none';
COMMENT ON FUNCTION pgtopic.can_use(int) IS 'whether the current user may see a topic';

-- Who may do what with a topic is said by the rights on its relation.
GRANT USAGE ON SCHEMA topics TO PUBLIC;

DROP EVENT TRIGGER pgtopic_storage_dropped;
CREATE EVENT TRIGGER pgtopic_storage_dropped ON sql_drop
    EXECUTE FUNCTION pgtopic.storage_dropped();
ALTER EVENT TRIGGER pgtopic_storage_dropped ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER pgtopic_storage_dropped IS 'drops topics whose relation or storage has been dropped by DROP FOREIGN TABLE, DROP OWNED or the like';
COMMENT ON FUNCTION pgtopic.storage_dropped() IS 'drops topics whose relation or storage has been dropped by DROP FOREIGN TABLE, DROP OWNED or the like';

CREATE FUNCTION pgtopic.relation_altered() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'pgtopic_relation_altered' LANGUAGE C;
COMMENT ON FUNCTION pgtopic.relation_altered() IS 'keeps the relation of a topic as the topic needs it';
REVOKE ALL ON FUNCTION pgtopic.relation_altered() FROM PUBLIC;

CREATE EVENT TRIGGER pgtopic_relation_altered ON ddl_command_end
    WHEN TAG IN ('ALTER FOREIGN TABLE', 'ALTER TABLE', 'ALTER INDEX', 'ALTER SEQUENCE', 'ALTER VIEW',
        'ALTER MATERIALIZED VIEW', 'ALTER TYPE', 'ALTER SCHEMA', 'ALTER SERVER', 'ALTER EXTENSION')
    EXECUTE FUNCTION pgtopic.relation_altered();
ALTER EVENT TRIGGER pgtopic_relation_altered ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER pgtopic_relation_altered IS 'keeps the relation of a topic as the topic needs it';

CREATE FUNCTION pgtopic.make_relations() RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_make_relations' LANGUAGE C;
SELECT pgtopic.make_relations();
DROP FUNCTION pgtopic.make_relations();

CREATE FUNCTION pgtopic.peer_select(topic_id int, partition int, from_offset bigint, to_offset bigint, since timestamptz,
        backward boolean, max_messages bigint)
    RETURNS TABLE (partition int, log_offset bigint, "timestamp" timestamptz, key bytea, value bytea, headers jsonb)
    AS 'MODULE_PATHNAME', 'pgtopic_peer_select' LANGUAGE C VOLATILE SECURITY DEFINER ROWS 500;
COMMENT ON FUNCTION pgtopic.peer_select(int, int, bigint, bigint, timestamptz, boolean, bigint)
    IS 'a piece of a partition that this broker leads, for a query at another broker';


----------------------------------------------------------------------
-- Statistics of segments
----------------------------------------------------------------------

-- src/storage/segment_statistics.c knows the columns by number.  The worker fills it, and fills it again
-- in a database that is made from a dump, so dumps are without it.
CREATE TABLE pgtopic.segment_statistics (
    topic_id int NOT NULL,
    partition int NOT NULL,
    from_offset bigint NOT NULL,
    to_offset bigint NOT NULL,
    messages bigint NOT NULL,
    batches bigint NOT NULL,
    min_timestamp timestamptz,
    max_timestamp timestamptz,
    PRIMARY KEY (topic_id, partition, from_offset)
);
COMMENT ON TABLE pgtopic.segment_statistics IS 'what is in the segments that nothing can be written into any more';
COMMENT ON COLUMN pgtopic.segment_statistics.topic_id IS 'pgtopic.topic.id';
COMMENT ON COLUMN pgtopic.segment_statistics.partition IS 'number of the partition';
COMMENT ON COLUMN pgtopic.segment_statistics.from_offset IS 'the segment holds the record batches whose last offset is this one or greater';
COMMENT ON COLUMN pgtopic.segment_statistics.to_offset IS '... and less than this one';
COMMENT ON COLUMN pgtopic.segment_statistics.messages IS 'how many messages these have; offsets that are gaps do not count';
COMMENT ON COLUMN pgtopic.segment_statistics.batches IS 'how many record batches';
COMMENT ON COLUMN pgtopic.segment_statistics.min_timestamp IS 'no message has an older timestamp; NULL: there have been no messages';
COMMENT ON COLUMN pgtopic.segment_statistics.max_timestamp IS 'no message has a newer timestamp';


----------------------------------------------------------------------
-- Changes of tables
----------------------------------------------------------------------

CREATE FUNCTION @extschema@.produce_changes() RETURNS trigger
    AS 'MODULE_PATHNAME', 'pgtopic_produce_changes' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.produce_changes() IS 'publishes the changes of a table: a trigger function, with a topic and the columns of the key as arguments';

----------------------------------------------------------------------
-- Rights of brokers: this stays at the end.  What other brokers may call is for the roles
-- that allow_peer() has allowed what was there before.
----------------------------------------------------------------------

CREATE FUNCTION pgtopic.execute_outside(command text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_execute_outside' LANGUAGE C VOLATILE STRICT;

DO $$
DECLARE
    peer_function pg_catalog.regprocedure;
    peer pg_catalog.regrole;
BEGIN
    FOR peer_function IN
        SELECT p.oid FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'pgtopic'::pg_catalog.regnamespace AND p.proname LIKE 'peer\_%' AND p.proacl IS NULL
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', peer_function);
    END LOOP;
    FOR peer_function, peer IN
        SELECT p.oid, a.grantee
        FROM pg_catalog.pg_proc ping CROSS JOIN pg_catalog.aclexplode(ping.proacl) a CROSS JOIN pg_catalog.pg_proc p
        WHERE ping.oid = 'pgtopic.peer_ping()'::pg_catalog.regprocedure AND a.grantee NOT IN (0, ping.proowner)
          AND p.pronamespace = ping.pronamespace AND p.proname LIKE 'peer\_%'
          AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(p.proacl) b WHERE b.grantee = a.grantee)
    LOOP
        PERFORM pgtopic.execute_outside(pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s', peer_function, peer));
    END LOOP;
END $$;

DROP FUNCTION pgtopic.execute_outside(text);
