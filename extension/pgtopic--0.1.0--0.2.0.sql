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
    committed_image text
);
COMMENT ON TABLE pgtopic.cluster IS 'the cluster that this database is a broker of: one row, or none';
COMMENT ON COLUMN pgtopic.cluster.self IS 'the number of this broker; 0 until it is told';
COMMENT ON COLUMN pgtopic.cluster.image IS 'the newest metadata that this broker has accepted';
COMMENT ON COLUMN pgtopic.cluster.committed_image IS 'the newest metadata that a majority of the brokers has accepted';
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

CREATE TABLE pgtopic.replica (
    topic_id int NOT NULL,
    partition int NOT NULL,
    leader int NOT NULL,
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
    state text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (topic_id, partition, follower)
);
COMMENT ON TABLE pgtopic.follower IS 'followers of the partitions that this broker leads, and whether they are published to them';

----------------------------------------------------------------------
-- What other brokers call (src/sql/peer_calls.c).  They act as the owner of the
-- extension, whatever the role: EXECUTE is for the role that brokers connect as alone.
----------------------------------------------------------------------

CREATE FUNCTION pgtopic.peer_identity(OUT cluster_id text, OUT broker int) RETURNS record
    AS 'MODULE_PATHNAME', 'pgtopic_peer_identity' LANGUAGE C VOLATILE SECURITY DEFINER;
COMMENT ON FUNCTION pgtopic.peer_identity() IS 'which broker of which cluster this is';

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

REVOKE ALL ON FUNCTION
    pgtopic.peer_identity(),
    pgtopic.peer_produce(int, int, bytea[], bytea[], jsonb[], timestamptz[], timestamptz),
    pgtopic.peer_consume(int, text, bigint, boolean),
    pgtopic.peer_fetch(int, int, bigint, bigint, int),
    pgtopic.peer_wait(int, text, int),
    pgtopic.peer_offsets_at(int, int[], timestamptz),
    pgtopic.peer_create_consumer_group(int, int[], text, int, bigint, timestamptz),
    pgtopic.peer_commit_offset(int, int, text, bigint),
    pgtopic.peer_reset_offsets(int, int[], text, int, bigint, timestamptz, boolean),
    pgtopic.peer_drop_consumer_group(int, int[], text),
    pgtopic.peer_delete_messages(int, int, bigint)
    FROM PUBLIC;
