/* pgtopic--0.2.0--0.3.0.sql */

\echo Use "ALTER EXTENSION pgtopic UPDATE TO '0.3.0'" to load this file. \quit

----------------------------------------------------------------------
-- Failover
----------------------------------------------------------------------

-- src/catalog/rows.c knows the columns of pgtopic.partition by number.
ALTER TABLE pgtopic.partition ADD COLUMN revision int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.partition.revision IS 'grows with each change of the partition in the metadata';

ALTER TABLE pgtopic.partition ADD COLUMN unclean_epoch int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.partition.unclean_epoch IS 'the leader epoch of the last election that lost messages; 0: none';

ALTER TABLE pgtopic.partition ADD COLUMN has_tables boolean NOT NULL DEFAULT true;
UPDATE pgtopic.partition p SET has_tables = c.self = ANY (p.replicas) FROM pgtopic.cluster c WHERE c.self <> 0;
COMMENT ON COLUMN pgtopic.partition.has_tables IS 'whether this broker has a replica; so that a database that is made from a dump of it knows what is missing';

ALTER TABLE pgtopic.broker ADD COLUMN fenced boolean NOT NULL DEFAULT false;
ALTER TABLE pgtopic.broker ADD COLUMN fencings int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.broker.fenced IS 'the controller counts it as gone: it leads nothing that another one can lead';
COMMENT ON COLUMN pgtopic.broker.fencings IS 'how often it was';

ALTER TABLE pgtopic.cluster ADD COLUMN timeline int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.cluster.timeline IS 'the WAL timeline that this broker has written to; another one means that a standby was promoted';

ALTER TABLE pgtopic.replica ADD COLUMN attempt bigint NOT NULL DEFAULT 0;
ALTER TABLE pgtopic.follower ADD COLUMN attempt bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.replica.attempt IS 'grows with each copy that is begun; what the leader is asked for on behalf of an older one comes to nothing';
COMMENT ON COLUMN pgtopic.follower.attempt IS 'the follower''s pgtopic.replica.attempt';

-- Heartbeats say what the controller has heard.
DROP FUNCTION pgtopic.peer_accept(text, int, bigint, int, bigint, bigint, bigint, text);
CREATE FUNCTION pgtopic.peer_accept(
    cluster_id text, broker int, term bigint, controller int, image_term bigint, image_version bigint,
    committed_version bigint, image text, heard bigint DEFAULT NULL,
    OUT term bigint, OUT accepted boolean, OUT image_term bigint, OUT image_version bigint, OUT clock bigint
) AS 'MODULE_PATHNAME', 'pgtopic_peer_accept' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_accept(text, int, bigint, int, bigint, bigint, bigint, text, bigint)
    IS 'sends the controller''s metadata to this broker';

-- The steps of a copy say which attempt they are of.  Brokers of before this version do not.
DROP FUNCTION pgtopic.peer_forget(int, int, int);
CREATE FUNCTION pgtopic.peer_forget(follower int, topic int, partition int, attempt bigint DEFAULT 0) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_forget' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_forget(int, int, int, bigint)
    IS 'forgets how far a follower is with a partition, or with all (topic 0)';

DROP FUNCTION pgtopic.peer_unpublish(int, int, int, int, int);
CREATE FUNCTION pgtopic.peer_unpublish(
    follower int, topic int, partition int, leader_epoch int, placement int, attempt bigint DEFAULT 0
) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_unpublish' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_unpublish(int, int, int, int, int, bigint)
    IS 'takes a partition out of a follower''s publications';

DROP FUNCTION pgtopic.peer_publish(int, int, int, int, int, bigint);
CREATE FUNCTION pgtopic.peer_publish(
    follower int, topic int, partition int, leader_epoch int, placement int, from_offset bigint, attempt bigint DEFAULT 0
) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_peer_publish' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_publish(int, int, int, int, int, bigint, bigint)
    IS 'puts a partition into a follower''s publications, from an offset on; false if it is there for another attempt';

DROP FUNCTION pgtopic.peer_ready(int, int, int, int, int);
CREATE FUNCTION pgtopic.peer_ready(
    follower int, topic int, partition int, leader_epoch int, placement int, attempt bigint DEFAULT 0
) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_peer_ready' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_ready(int, int, int, int, int, bigint)
    IS 'says that a follower''s copy of a partition is complete; false if the leader knows nothing of it';

DROP FUNCTION @extschema@.elect_leader(@extschema@.topic, int, int);
CREATE FUNCTION @extschema@.elect_leader(
    topic @extschema@.topic, partition int, broker int DEFAULT NULL, unclean boolean DEFAULT false
) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_elect_leader' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.elect_leader(@extschema@.topic, int, int, boolean)
    IS 'has the leader of a partition hand over to an in-sync replica, or to the preferred one; unclean: where all in-sync replicas are gone, has another one lead and loses what it has not';

CREATE FUNCTION pgtopic.peer_drop_sync_slots(system_identifier text, subscriptions text) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_peer_drop_sync_slots' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_drop_sync_slots(text, text)
    IS 'drops replication slots of table synchronisation that a broker has left behind here; returns how many';
REVOKE ALL ON FUNCTION pgtopic.peer_drop_sync_slots(text, text) FROM PUBLIC;

CREATE FUNCTION pgtopic.peer_open_partitions() RETURNS text
    AS 'MODULE_PATHNAME', 'pgtopic_peer_open_partitions' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_open_partitions() IS 'the partitions that open transactions have written to';
REVOKE ALL ON FUNCTION pgtopic.peer_open_partitions() FROM PUBLIC;

CREATE FUNCTION pgtopic.peer_agreed(
    follower int, topic int, partition int, leader_epoch int, placement int, newest_epoch int
) RETURNS bigint
    AS 'MODULE_PATHNAME', 'pgtopic_peer_agreed' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_agreed(int, int, int, int, int, int)
    IS 'the offset below which a copy of an older leader epoch agrees with that of this leader';
REVOKE ALL ON FUNCTION pgtopic.peer_agreed(int, int, int, int, int, int) FROM PUBLIC;

CREATE OR REPLACE VIEW @extschema@.partition_status WITH (security_barrier) AS
    SELECT t.id::@extschema@.topic AS topic, p.partition,
           CASE WHEN b.fenced IS NOT TRUE THEN p.leader END AS leader,
           p.leader_epoch, p.replicas, p.isr,
           s.log_start_offset, s.high_watermark, s.log_end_offset,
           g.segments, g.size_bytes, s.blocking_pid, s.blocking_since
    FROM pgtopic.topic t
    JOIN pgtopic.partition p ON p.topic_id = t.id
    LEFT JOIN pgtopic.broker b ON b.id = p.leader
    CROSS JOIN LATERAL pgtopic.partition_state(t.id, p.partition) s
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*)::int AS segments,
               pg_catalog.sum(pg_catalog.pg_total_relation_size(a.segment))::bigint AS size_bytes
        FROM pgtopic.segments(t.id, p.partition) a) g
    WHERE pgtopic.can_use(t.id);
COMMENT ON COLUMN @extschema@.partition_status.leader IS 'the broker that takes messages; NULL: none, until one of isr is back';
COMMENT ON COLUMN @extschema@.broker_status.state IS 'online; leaving; offline: it does not answer this broker; fenced: the controller counts it as gone, and others lead what they can of its partitions';

----------------------------------------------------------------------
-- A broker in the place of one that is gone
----------------------------------------------------------------------

ALTER TABLE pgtopic.cluster ADD COLUMN first_number int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.cluster.first_number IS 'while self is 0: the least number that this broker can get';

DROP FUNCTION @extschema@.join_cluster(text, text);
CREATE FUNCTION @extschema@.join_cluster(bootstrap_conninfo text, own_conninfo text, replaces int DEFAULT NULL) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_join_cluster' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.join_cluster(text, text, int)
    IS 'joins this database to the cluster that the first connection string leads to, maybe in the place of a broker that is gone; returns the number of this broker';
REVOKE ALL ON FUNCTION @extschema@.join_cluster(text, text, int) FROM PUBLIC;

DROP FUNCTION @extschema@.remove_broker(int);
CREATE FUNCTION @extschema@.remove_broker(broker int, replacement int DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_remove_broker' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.remove_broker(int, int)
    IS 'takes a broker that will not come back out of the cluster, and has another one take its place';
REVOKE ALL ON FUNCTION @extschema@.remove_broker(int, int) FROM PUBLIC;

DROP FUNCTION pgtopic.peer_invite(text, text);
-- Brokers of before this version call it without the last one.
CREATE FUNCTION pgtopic.peer_invite(cluster_id text, encoding text, first_number int DEFAULT 0) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_invite' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_invite(text, text, int) IS 'invites this database to a cluster that it has asked to join';

----------------------------------------------------------------------
-- Idempotent producers
----------------------------------------------------------------------

-- Positions of topics that are there; new ones come with these columns (src/storage/segments.c).
DO $$
DECLARE
    positions pg_catalog.regclass;
BEGIN
    FOR positions IN
        SELECT c.oid FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'pgtopic'::pg_catalog.regnamespace AND c.relkind = 'p' AND c.relname ~ '^t[0-9]+_offsets$'
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ADD COLUMN IF NOT EXISTS next_sequence bigint,'
            ' ADD COLUMN IF NOT EXISTS sequences bigint[], ADD COLUMN IF NOT EXISTS offsets bigint[]', positions);
    END LOOP;
END $$;

-- The calls get two more arguments, so they are made anew, beside the old ones whose rights they get.
CREATE FUNCTION @extschema@.produce(
    topic @extschema@.topic,
    value text,
    key text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    partition int DEFAULT NULL,
    "timestamp" timestamptz DEFAULT NULL,
    producer text DEFAULT NULL,
    sequence bigint DEFAULT NULL,
    OUT partition int,
    OUT log_offset bigint
) AS 'MODULE_PATHNAME', 'pgtopic_produce_text' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.produce(@extschema@.topic, text, text, jsonb, int, timestamptz, text, bigint)
    IS 'puts a message into a topic';

CREATE FUNCTION @extschema@.produce(
    topic @extschema@.topic,
    value bytea,
    key bytea DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    partition int DEFAULT NULL,
    "timestamp" timestamptz DEFAULT NULL,
    producer text DEFAULT NULL,
    sequence bigint DEFAULT NULL,
    OUT partition int,
    OUT log_offset bigint
) AS 'MODULE_PATHNAME', 'pgtopic_produce_bytea' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.produce(@extschema@.topic, bytea, bytea, jsonb, int, timestamptz, text, bigint)
    IS 'puts a message of bytes into a topic';

CREATE FUNCTION @extschema@.produce(
    topic @extschema@.topic,
    value jsonb,
    key text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    partition int DEFAULT NULL,
    "timestamp" timestamptz DEFAULT NULL,
    producer text DEFAULT NULL,
    sequence bigint DEFAULT NULL,
    OUT partition int,
    OUT log_offset bigint
) AS 'MODULE_PATHNAME', 'pgtopic_produce_jsonb' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.produce(@extschema@.topic, jsonb, text, jsonb, int, timestamptz, text, bigint)
    IS 'puts a message of JSON into a topic';

CREATE FUNCTION @extschema@.produce_batch(
    topic @extschema@.topic,
    "values" text[],
    keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    partition int DEFAULT NULL,
    timestamps timestamptz[] DEFAULT NULL,
    producer text DEFAULT NULL,
    sequence bigint DEFAULT NULL
) RETURNS TABLE (partition int, first_offset bigint, last_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_produce_batch_text' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.produce_batch(@extschema@.topic, text[], text[], jsonb[], int, timestamptz[], text, bigint)
    IS 'puts many messages into a topic';

CREATE FUNCTION @extschema@.produce_batch(
    topic @extschema@.topic,
    "values" bytea[],
    keys bytea[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    partition int DEFAULT NULL,
    timestamps timestamptz[] DEFAULT NULL,
    producer text DEFAULT NULL,
    sequence bigint DEFAULT NULL
) RETURNS TABLE (partition int, first_offset bigint, last_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_produce_batch_bytea' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.produce_batch(@extschema@.topic, bytea[], bytea[], jsonb[], int, timestamptz[], text, bigint)
    IS 'puts many messages of bytes into a topic';

CREATE FUNCTION @extschema@.produce_batch(
    topic @extschema@.topic,
    "values" jsonb[],
    keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    partition int DEFAULT NULL,
    timestamps timestamptz[] DEFAULT NULL,
    producer text DEFAULT NULL,
    sequence bigint DEFAULT NULL
) RETURNS TABLE (partition int, first_offset bigint, last_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_produce_batch_jsonb' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.produce_batch(@extschema@.topic, jsonb[], text[], jsonb[], int, timestamptz[], text, bigint)
    IS 'puts many messages of JSON into a topic';

CREATE FUNCTION pgtopic.execute_outside(command text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_execute_outside' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION pgtopic.execute_outside(text) IS 'has a command change rights as if it were none of this script';

DO $$
DECLARE
    old pg_catalog.pg_proc;
    new pg_catalog.regprocedure;
    acl record;
BEGIN
    FOR old IN
        SELECT p.* FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_catalog.pg_extension e ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
        WHERE e.extname = 'pgtopic' AND p.proname IN ('produce', 'produce_batch') AND p.pronargs = 6
    LOOP
        SELECT p.oid INTO STRICT new FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = old.pronamespace AND p.proname = old.proname AND p.prosrc = old.prosrc AND p.pronargs = 8;
        IF old.proacl IS NOT NULL THEN
            PERFORM pgtopic.execute_outside(pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', new));
        END IF;
        FOR acl IN
            SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::pg_catalog.regrole::text END AS grantee, a.is_grantable
            FROM pg_catalog.aclexplode(old.proacl) a WHERE a.grantee <> old.proowner
        LOOP
            PERFORM pgtopic.execute_outside(pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s', new, acl.grantee,
                CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' END));
        END LOOP;
        EXECUTE pg_catalog.format('DROP FUNCTION %s', old.oid::pg_catalog.regprocedure);
    END LOOP;
END $$;

CREATE FUNCTION @extschema@.partition_for_key(topic @extschema@.topic, key text) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_partition_for_key' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.partition_for_key(@extschema@.topic, text)
    IS 'the partition of messages with a key';

CREATE FUNCTION @extschema@.partition_for_key(topic @extschema@.topic, key bytea) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_partition_for_key' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.partition_for_key(@extschema@.topic, bytea)
    IS 'the partition of messages with a key of bytes';

DROP FUNCTION pgtopic.peer_produce(int, int, bytea[], bytea[], jsonb[], timestamptz[], timestamptz);
-- Brokers of before this version call it without the last two.
CREATE FUNCTION pgtopic.peer_produce(
    topic_id int, partition int, "values" bytea[], keys bytea[], headers jsonb[],
    timestamps timestamptz[], "timestamp" timestamptz, producer text DEFAULT NULL, sequence bigint DEFAULT NULL
) RETURNS bigint
    AS 'MODULE_PATHNAME', 'pgtopic_peer_produce' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_produce(int, int, bytea[], bytea[], jsonb[], timestamptz[], timestamptz, text, bigint)
    IS 'appends messages to a partition that this broker leads; returns the first offset';

CREATE FUNCTION pgtopic.producer_states(
    topic_id int,
    OUT producer text, OUT partition int, OUT last_sequence bigint, OUT last_offset bigint,
    OUT last_produced_at timestamptz
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'pgtopic_producer_states' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION pgtopic.producer_states(int) IS 'what is remembered of the producers of a topic, for the status view';

CREATE VIEW @extschema@.producer_status WITH (security_barrier) AS
    SELECT t.id::@extschema@.topic AS topic, p.partition, p.producer, p.last_sequence, p.last_offset, p.last_produced_at
    FROM pgtopic.topic t
    CROSS JOIN LATERAL pgtopic.producer_states(t.id) p
    WHERE pgtopic.can_use(t.id);
COMMENT ON VIEW @extschema@.producer_status IS 'producers that number their messages, in partitions that this broker has a replica of';
COMMENT ON COLUMN @extschema@.producer_status.last_sequence IS 'the sequence of its last message; the next one continues it';
COMMENT ON COLUMN @extschema@.producer_status.last_offset IS 'the offset of its last message';
COMMENT ON COLUMN @extschema@.producer_status.last_produced_at IS 'when it has produced or tried again last; pgtopic.producer_expiration counts from here';
GRANT SELECT ON @extschema@.producer_status TO PUBLIC;

----------------------------------------------------------------------
-- Rights of brokers: this stays at the end.  What other brokers may call is for the roles
-- that allow_peer() has allowed what was there before.
----------------------------------------------------------------------

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
