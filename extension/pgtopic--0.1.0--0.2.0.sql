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
    leader_epoch int NOT NULL,
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
