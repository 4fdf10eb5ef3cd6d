/* pgtopic--0.2.0--0.3.0.sql */

\echo Use "ALTER EXTENSION pgtopic UPDATE TO '0.3.0'" to load this file. \quit

----------------------------------------------------------------------
-- Failover
----------------------------------------------------------------------

-- src/catalog/rows.c knows the columns of pgtopic.partition by number.
ALTER TABLE pgtopic.partition ADD COLUMN unclean_epoch int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.partition.unclean_epoch IS 'the leader epoch of the last election that lost messages; 0: none';

ALTER TABLE pgtopic.broker ADD COLUMN fenced boolean NOT NULL DEFAULT false;
ALTER TABLE pgtopic.broker ADD COLUMN fencings int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.broker.fenced IS 'the controller counts it as gone: it leads nothing that another one can lead';
COMMENT ON COLUMN pgtopic.broker.fencings IS 'how often it was';

ALTER TABLE pgtopic.cluster ADD COLUMN timeline int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.cluster.timeline IS 'the WAL timeline that this broker has written to; another one means that a standby was promoted';

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
-- Idempotent producers
----------------------------------------------------------------------

