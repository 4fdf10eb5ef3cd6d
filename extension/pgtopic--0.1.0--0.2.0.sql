/* pgtopic--0.1.0--0.2.0.sql */

\echo Use "ALTER EXTENSION pgtopic UPDATE TO '0.2.0'" to load this file. \quit

----------------------------------------------------------------------
-- Catalog of a cluster.  Not part of dumps: a dump of one broker is restored as a
-- database of its own.
----------------------------------------------------------------------

-- src/catalog/rows.c knows these columns by number.
CREATE TABLE pgtopic.cluster (
    cluster_id text NOT NULL,
    self int NOT NULL,
    term bigint NOT NULL,
    voted_for int NOT NULL,
    image_term bigint NOT NULL,
    image_version bigint NOT NULL,
    committed_version bigint NOT NULL,
    applied_version bigint NOT NULL,
    image text,
    committed_image text,
    committed_image_version bigint NOT NULL
);
COMMENT ON TABLE pgtopic.cluster IS 'the cluster that this database is a broker of: one row, or none';
COMMENT ON COLUMN pgtopic.cluster.self IS 'the number of this broker; 0 until it is told';
COMMENT ON COLUMN pgtopic.cluster.image IS 'the newest metadata that this broker has accepted';
COMMENT ON COLUMN pgtopic.cluster.committed_image IS 'the newest metadata that this broker has and knows that a majority has accepted';
COMMENT ON COLUMN pgtopic.cluster.applied_version IS 'the version of the metadata that the other tables show';
CREATE UNIQUE INDEX cluster_one_row ON pgtopic.cluster ((true));

CREATE TABLE pgtopic.broker (
    id int PRIMARY KEY,
    conninfo text NOT NULL,
    leaving boolean NOT NULL
);
COMMENT ON TABLE pgtopic.broker IS 'the brokers of the cluster, this one included; conninfo may hold secrets';

ALTER TABLE pgtopic.partition ADD COLUMN successor int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.partition.successor IS 'the replica that the leader is handing over to, or 0';

ALTER TABLE pgtopic.partition ADD COLUMN placements int[] NOT NULL DEFAULT '{1}';
COMMENT ON COLUMN pgtopic.partition.placements IS 'for each of replicas, which time it is that the broker has become one';

CREATE TABLE pgtopic.replica (
    topic_id int NOT NULL,
    partition int NOT NULL,
    leader int NOT NULL,
    leader_epoch int NOT NULL,
    placement int NOT NULL,
    state text NOT NULL,
    from_offset bigint NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (topic_id, partition)
);
COMMENT ON TABLE pgtopic.replica IS 'partitions that this broker follows, and how far it is in copying them';
COMMENT ON COLUMN pgtopic.replica.from_offset IS 'where the copy began';

CREATE TABLE pgtopic.follower (
    topic_id int NOT NULL,
    partition int NOT NULL,
    follower int NOT NULL,
    placement int NOT NULL,
    state text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (topic_id, partition, follower)
);
COMMENT ON TABLE pgtopic.follower IS 'followers of the partitions that this broker leads, and whether they are published to them';

----------------------------------------------------------------------
-- Clusters, for administrators
----------------------------------------------------------------------

CREATE FUNCTION @extschema@.create_cluster(own_conninfo text) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_create_cluster' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.create_cluster(text)
    IS 'makes this database broker 1 of a new cluster; the others connect to it by own_conninfo';
REVOKE ALL ON FUNCTION @extschema@.create_cluster(text) FROM PUBLIC;

CREATE FUNCTION @extschema@.join_cluster(bootstrap_conninfo text, own_conninfo text) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_join_cluster' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.join_cluster(text, text)
    IS 'has this database join the cluster of another broker; returns the number that it gets';
REVOKE ALL ON FUNCTION @extschema@.join_cluster(text, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.leave_cluster(force boolean DEFAULT false) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_leave_cluster' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.leave_cluster(boolean)
    IS 'moves away what this broker has, and takes it out of its cluster; with force, forgets the cluster without asking it';
REVOKE ALL ON FUNCTION @extschema@.leave_cluster(boolean) FROM PUBLIC;

CREATE FUNCTION @extschema@.remove_broker(broker int) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_remove_broker' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.remove_broker(int)
    IS 'takes a broker that will not come back out of the cluster';
REVOKE ALL ON FUNCTION @extschema@.remove_broker(int) FROM PUBLIC;

CREATE FUNCTION @extschema@.move_partition(topic @extschema@.topic, partition int, replicas int[]) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_move_partition' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.move_partition(@extschema@.topic, int, int[])
    IS 'begins to move a partition to other brokers; the first is preferred as its leader';

CREATE FUNCTION @extschema@.elect_leader(topic @extschema@.topic, partition int, broker int DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_elect_leader' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.elect_leader(@extschema@.topic, int, int)
    IS 'has the leader of a partition hand over to an in-sync replica, or to the preferred one';

----------------------------------------------------------------------
-- What brokers ask each other.  Not for PUBLIC: see allow_peer().
----------------------------------------------------------------------

CREATE FUNCTION pgtopic.peer_identity(
    OUT cluster_id text, OUT broker int, OUT system_identifier text, OUT database oid,
    OUT encoding text, OUT may_replicate boolean
) AS 'MODULE_PATHNAME', 'pgtopic_peer_identity' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_identity() IS 'which broker this database is, if it is one';

CREATE FUNCTION pgtopic.peer_ping() RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_peer_ping' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_ping() IS 'answers';

CREATE FUNCTION pgtopic.peer_vote(
    cluster_id text, broker int, term bigint, candidate int, image_term bigint, image_version bigint,
    OUT term bigint, OUT granted boolean
) AS 'MODULE_PATHNAME', 'pgtopic_peer_vote' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_vote(text, int, bigint, int, bigint, bigint)
    IS 'asks for this broker''s vote in the election of a controller';

CREATE FUNCTION pgtopic.peer_accept(
    cluster_id text, broker int, term bigint, controller int, image_term bigint, image_version bigint,
    committed_version bigint, image text,
    OUT term bigint, OUT accepted boolean, OUT image_term bigint, OUT image_version bigint
) AS 'MODULE_PATHNAME', 'pgtopic_peer_accept' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_accept(text, int, bigint, int, bigint, bigint, bigint, text)
    IS 'sends the controller''s metadata to this broker';

CREATE FUNCTION pgtopic.peer_change(operation text, args text[], OUT term bigint, OUT version bigint, OUT id int)
    AS 'MODULE_PATHNAME', 'pgtopic_peer_change' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_change(text, text[]) IS 'has the controller change the metadata';

CREATE FUNCTION pgtopic.peer_wait_committed(term bigint, version bigint) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_peer_wait_committed' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_wait_committed(bigint, bigint)
    IS 'waits until a majority of the brokers has a version of the metadata';

CREATE FUNCTION pgtopic.peer_invite(cluster_id text, encoding text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_invite' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_invite(text, text) IS 'invites this database to a cluster that it has asked to join';

CREATE FUNCTION pgtopic.peer_join(conninfo text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgtopic_peer_join' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_join(text) IS 'asks the cluster to take in a database';

CREATE FUNCTION pgtopic.peer_has_broker(broker int) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_peer_has_broker' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_has_broker(int) IS 'whether a broker is (still) part of the cluster';

CREATE FUNCTION pgtopic.peer_follow(follower int) RETURNS text
    AS 'MODULE_PATHNAME', 'pgtopic_peer_follow' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_follow(int) IS 'makes publications for a follower, and says how its replication slot is';

CREATE FUNCTION pgtopic.peer_create_slot(follower int) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_create_slot' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_create_slot(int) IS 'makes the replication slot of a follower';

CREATE FUNCTION pgtopic.peer_unfollow(follower int) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_unfollow' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_unfollow(int) IS 'drops the publications and the replication slot of a follower';

CREATE FUNCTION pgtopic.peer_forget(follower int, topic int, partition int) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_forget' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_forget(int, int, int)
    IS 'forgets how far a follower is with a partition, or with all (topic 0)';

CREATE FUNCTION pgtopic.peer_unpublish(follower int, topic int, partition int, leader_epoch int, placement int) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_unpublish' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_unpublish(int, int, int, int, int) IS 'takes a partition out of a follower''s publications';

CREATE FUNCTION pgtopic.peer_log_range(
    follower int, topic int, partition int, leader_epoch int, placement int,
    OUT log_start_offset bigint, OUT log_end_offset bigint
) AS 'MODULE_PATHNAME', 'pgtopic_peer_log_range' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_log_range(int, int, int, int, int) IS 'where the log of a partition that is led here starts and ends';

CREATE FUNCTION pgtopic.peer_publish(follower int, topic int, partition int, leader_epoch int, placement int, from_offset bigint)
    RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_publish' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_publish(int, int, int, int, int, bigint)
    IS 'puts a partition into a follower''s publications, from an offset on';

CREATE FUNCTION pgtopic.peer_ready(follower int, topic int, partition int, leader_epoch int, placement int) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_peer_ready' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_ready(int, int, int, int, int) IS 'says that a follower''s copy of a partition is complete; false if the leader knows nothing of it';

-- The messages of what this broker leads, for sessions of others (src/sql/peer_calls.c).

CREATE FUNCTION pgtopic.peer_produce(
    topic_id int, partition int, "values" bytea[], keys bytea[], headers jsonb[],
    timestamps timestamptz[], "timestamp" timestamptz
) RETURNS bigint
    AS 'MODULE_PATHNAME', 'pgtopic_peer_produce' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_produce(int, int, bytea[], bytea[], jsonb[], timestamptz[], timestamptz)
    IS 'appends messages to a partition that this broker leads; returns the first offset';

CREATE FUNCTION pgtopic.peer_consume(topic_id int, consumer_group text, max_messages bigint, last boolean)
    RETURNS TABLE (partition int, log_offset bigint, "timestamp" timestamptz, key bytea, value bytea, headers jsonb)
    AS 'MODULE_PATHNAME', 'pgtopic_peer_consume' LANGUAGE C VOLATILE SECURITY DEFINER ROWS 500;
COMMENT ON FUNCTION pgtopic.peer_consume(int, text, bigint, boolean)
    IS 'takes messages of one of the partitions that this broker leads; a row of NULLs: a position has moved over rolled-back ones';

CREATE FUNCTION pgtopic.peer_fetch(topic_id int, partition int, from_offset bigint, max_messages bigint, milliseconds int)
    RETURNS TABLE (partition int, log_offset bigint, "timestamp" timestamptz, key bytea, value bytea, headers jsonb)
    AS 'MODULE_PATHNAME', 'pgtopic_peer_fetch' LANGUAGE C VOLATILE SECURITY DEFINER ROWS 500;
COMMENT ON FUNCTION pgtopic.peer_fetch(int, int, bigint, bigint, int)
    IS 'reads messages of a partition that this broker leads; waits, unless the caller sends something else';

CREATE FUNCTION pgtopic.peer_wait(topic_id int, consumer_group text, milliseconds int) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_peer_wait' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_wait(int, text, int)
    IS 'waits until a group has something to consume here, unless the caller sends something else';

CREATE FUNCTION pgtopic.peer_offsets_at(topic_id int, partitions int[], "timestamp" timestamptz)
    RETURNS TABLE (partition int, log_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_peer_offsets_at' LANGUAGE C VOLATILE SECURITY DEFINER ROWS 10;
COMMENT ON FUNCTION pgtopic.peer_offsets_at(int, int[], timestamptz)
    IS 'offsets_at() of partitions that this broker leads';

CREATE FUNCTION pgtopic.peer_create_consumer_group(
    topic_id int, partitions int[], consumer_group text, seek_kind int, seek_number bigint, "timestamp" timestamptz
) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_create_consumer_group' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_create_consumer_group(int, int[], text, int, bigint, timestamptz)
    IS 'create_consumer_group() in partitions that this broker leads';

CREATE FUNCTION pgtopic.peer_commit_offset(topic_id int, partition int, consumer_group text, log_offset bigint)
    RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_peer_commit_offset' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_commit_offset(int, int, text, bigint)
    IS 'commit_offset() in a partition that this broker leads';

CREATE FUNCTION pgtopic.peer_reset_offsets(
    topic_id int, partitions int[], consumer_group text, seek_kind int, seek_number bigint,
    "timestamp" timestamptz, dry_run boolean
) RETURNS TABLE (partition int, old_offset bigint, new_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_peer_reset_offsets' LANGUAGE C VOLATILE SECURITY DEFINER ROWS 10;
COMMENT ON FUNCTION pgtopic.peer_reset_offsets(int, int[], text, int, bigint, timestamptz, boolean)
    IS 'reset_offsets() in partitions that this broker leads, where the group need not have been';

CREATE FUNCTION pgtopic.peer_drop_consumer_group(topic_id int, partitions int[], consumer_group text)
    RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_peer_drop_consumer_group' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_drop_consumer_group(int, int[], text)
    IS 'drop_consumer_group() in partitions that this broker leads; whether the group was there';

CREATE FUNCTION pgtopic.peer_delete_messages(topic_id int, partition int, before_offset bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'pgtopic_peer_delete_messages' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_delete_messages(int, int, bigint)
    IS 'delete_messages() in a partition that this broker leads';

CREATE FUNCTION @extschema@.allow_peer(role regrole) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    peer_function regprocedure;
BEGIN
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA pgtopic TO %s', role);
    EXECUTE pg_catalog.format('GRANT SELECT ON ALL TABLES IN SCHEMA pgtopic TO %s', role);
    EXECUTE pg_catalog.format('REVOKE ALL ON pgtopic.cluster, pgtopic.broker FROM %s', role);
    -- the initial copy of a table that is made later is read by the role too
    EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA pgtopic GRANT SELECT ON TABLES TO %s',
        (SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace n WHERE n.nspname = 'pgtopic'), role);
    FOR peer_function IN
        SELECT p.oid FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'pgtopic'::pg_catalog.regnamespace AND p.proname LIKE 'peer\_%'
    LOOP
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s', peer_function, role);
    END LOOP;
END $$;
COMMENT ON FUNCTION @extschema@.allow_peer(regrole)
    IS 'gives a role what brokers need that connect to this one; it also has to have LOGIN and REPLICATION';
REVOKE ALL ON FUNCTION @extschema@.allow_peer(regrole) FROM PUBLIC;

CREATE FUNCTION pgtopic.applied() RETURNS trigger
    AS 'MODULE_PATHNAME', 'pgtopic_applied' LANGUAGE C;
COMMENT ON FUNCTION pgtopic.applied() IS 'has replication wait for segments';
REVOKE ALL ON FUNCTION pgtopic.applied() FROM PUBLIC;

CREATE FUNCTION pgtopic.applied_position() RETURNS trigger
    AS 'MODULE_PATHNAME', 'pgtopic_applied_position' LANGUAGE C;
COMMENT ON FUNCTION pgtopic.applied_position() IS 'has replication wait for the segments that the leader has';
REVOKE ALL ON FUNCTION pgtopic.applied_position() FROM PUBLIC;

----------------------------------------------------------------------
-- Status views of a cluster
----------------------------------------------------------------------

CREATE FUNCTION pgtopic.broker_reports(
    OUT broker int, OUT conninfo text, OUT is_self boolean, OUT is_controller boolean,
    OUT state text, OUT last_seen timestamptz
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'pgtopic_broker_reports' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 3;
COMMENT ON FUNCTION pgtopic.broker_reports() IS 'the brokers of the cluster, for the status view';
REVOKE ALL ON FUNCTION pgtopic.broker_reports() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgtopic.broker_reports() TO pg_monitor;

CREATE FUNCTION pgtopic.follower_reports(OUT follower int, OUT confirmed pg_lsn, OUT caught_up timestamptz)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'pgtopic_follower_reports' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 3;
COMMENT ON FUNCTION pgtopic.follower_reports() IS 'how far the followers of this broker are, for the status view';

CREATE VIEW @extschema@.broker_status WITH (security_barrier) AS
    SELECT b.broker, b.conninfo, b.is_self, b.is_controller, b.state, b.last_seen,
           (SELECT pg_catalog.count(*)::int FROM pgtopic.partition p WHERE p.leader = b.broker) AS partitions_led,
           (SELECT pg_catalog.count(*)::int FROM pgtopic.partition p WHERE b.broker = ANY (p.replicas)) AS replicas
    FROM pgtopic.broker_reports() b;
COMMENT ON VIEW @extschema@.broker_status IS 'the brokers of the cluster, as this one sees them; for members of pg_monitor';
COMMENT ON COLUMN @extschema@.broker_status.conninfo IS 'how the others connect to it, without secrets';
COMMENT ON COLUMN @extschema@.broker_status.is_controller IS 'whether it decides on the metadata';
COMMENT ON COLUMN @extschema@.broker_status.state IS 'online, leaving, or offline: it does not answer this broker';
COMMENT ON COLUMN @extschema@.broker_status.last_seen IS 'when it has answered this broker last';
COMMENT ON COLUMN @extschema@.broker_status.replicas IS 'partitions that it has a replica of, those that it leads included';
GRANT SELECT ON @extschema@.broker_status TO pg_monitor;

CREATE VIEW @extschema@.replication_status WITH (security_barrier) AS
    SELECT t.id::@extschema@.topic AS topic, p.partition, f.follower,
           f.follower = ANY (p.isr) AS in_sync,
           COALESCE(CASE WHEN p.leader = c.self THEN w.state ELSE r.state END, 'new') AS state,
           CASE WHEN p.leader = c.self THEN pg_catalog.pg_wal_lsn_diff(
               CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END,
               l.confirmed)::bigint END AS lag_bytes,
           CASE WHEN p.leader = c.self THEN l.caught_up END AS last_caught_up
    FROM pgtopic.cluster c
    CROSS JOIN pgtopic.topic t
    JOIN pgtopic.partition p ON p.topic_id = t.id
    CROSS JOIN LATERAL pg_catalog.unnest(p.replicas) AS f(follower)
    LEFT JOIN pgtopic.follower w ON w.topic_id = t.id AND w.partition = p.partition AND w.follower = f.follower
    LEFT JOIN pgtopic.replica r ON r.topic_id = t.id AND r.partition = p.partition AND f.follower = c.self
    LEFT JOIN pgtopic.follower_reports() l ON l.follower = f.follower
    WHERE f.follower <> p.leader AND (p.leader = c.self OR f.follower = c.self)
      AND pgtopic.can_use(t.id);
COMMENT ON VIEW @extschema@.replication_status IS 'followers of the partitions that this broker leads, and its own copies of those that it follows';
COMMENT ON COLUMN @extschema@.replication_status.in_sync IS 'whether it belongs to the in-sync replicas';
COMMENT ON COLUMN @extschema@.replication_status.state IS 'at the leader: new, published (copying), reported, joining, ready, lagging, forgotten (to begin anew); at the follower: new, unpublished, detached, cut, published, copying, ready';
COMMENT ON COLUMN @extschema@.replication_status.lag_bytes IS 'at the leader: WAL that the follower has not confirmed';
COMMENT ON COLUMN @extschema@.replication_status.last_caught_up IS 'at the leader: until when the follower has everything';
GRANT SELECT ON @extschema@.replication_status TO PUBLIC;

COMMENT ON COLUMN @extschema@.partition_status.leader_epoch IS 'grows with each change of the leader';
COMMENT ON COLUMN @extschema@.partition_status.replicas IS 'the brokers that have the partition; the first is preferred as its leader';
COMMENT ON COLUMN @extschema@.partition_status.log_start_offset IS 'the oldest offset that is kept; this and what follows as this broker knows it, NULL if it has no replica';
COMMENT ON COLUMN @extschema@.partition_status.high_watermark IS 'everything below is settled, and on all in-sync replicas; readers stop here; at a follower, as of the leader''s last checkpoint';
COMMENT ON COLUMN @extschema@.partition_status.blocking_pid IS 'the session whose open transaction holds the high watermark back; at the leader';
COMMENT ON VIEW @extschema@.consumer_group_status IS 'consumer groups: where they are, and what they still have to read, in partitions that this broker has a replica of';

DO $$
DECLARE
    peer_function regprocedure;
BEGIN
    FOR peer_function IN
        SELECT p.oid FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'pgtopic'::pg_catalog.regnamespace AND p.proname LIKE 'peer\_%'
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', peer_function);
    END LOOP;
END $$;
