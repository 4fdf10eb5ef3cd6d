/* pgtopic--0.1.0.sql */

\echo Use "CREATE EXTENSION pgtopic" to load this file. \quit

----------------------------------------------------------------------
-- Catalog and storage
----------------------------------------------------------------------

CREATE SCHEMA pgtopic;
COMMENT ON SCHEMA pgtopic IS 'catalog and storage of pgtopic; not to be used directly';
REVOKE ALL ON SCHEMA pgtopic FROM PUBLIC;

CREATE SCHEMA topics;
COMMENT ON SCHEMA topics IS 'topics of pgtopic; who may CREATE here may create topics';
REVOKE ALL ON SCHEMA topics FROM PUBLIC;

CREATE SEQUENCE pgtopic.topic_id_seq AS int;

-- src/catalog/topics.c knows these columns by number.
CREATE TABLE pgtopic.topic (
    id int PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    partitions int NOT NULL,
    replication_factor int NOT NULL,
    retention interval DEFAULT '7 days',
    retention_bytes bigint,
    segment_messages bigint NOT NULL DEFAULT 1000000,
    max_message_bytes int NOT NULL DEFAULT 1048576,
    value_format text NOT NULL,
    min_insync_replicas int,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE pgtopic.topic IS 'topics and their options';

-- Updated all the time by checkpoints of the watermark: leave room for HOT updates.
CREATE TABLE pgtopic.partition (
    topic_id int NOT NULL,
    partition int NOT NULL,
    log_start_offset bigint NOT NULL DEFAULT 0,
    high_watermark bigint NOT NULL DEFAULT 0,
    leader int NOT NULL DEFAULT 1,
    leader_epoch int NOT NULL DEFAULT 0,
    replicas int[] NOT NULL DEFAULT '{1}',
    isr int[] NOT NULL DEFAULT '{1}',
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE pgtopic.partition IS 'partitions of topics; high_watermark is as of the last checkpoint';

SELECT pg_catalog.pg_extension_config_dump('pgtopic.topic_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('pgtopic.topic', '');
SELECT pg_catalog.pg_extension_config_dump('pgtopic.partition', '');

CREATE FUNCTION pgtopic.topic_changed() RETURNS trigger
    AS 'MODULE_PATHNAME', 'pgtopic_topic_changed' LANGUAGE C;
COMMENT ON FUNCTION pgtopic.topic_changed() IS 'tells all sessions that a topic has changed';
REVOKE ALL ON FUNCTION pgtopic.topic_changed() FROM PUBLIC;

CREATE TRIGGER topic_changed AFTER INSERT OR UPDATE OR DELETE ON pgtopic.topic
    FOR EACH ROW EXECUTE FUNCTION pgtopic.topic_changed();

CREATE FUNCTION pgtopic.storage_dropped() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'pgtopic_storage_dropped' LANGUAGE C;
COMMENT ON FUNCTION pgtopic.storage_dropped() IS 'forgets topics whose storage has been dropped by DROP OWNED or the like';
REVOKE ALL ON FUNCTION pgtopic.storage_dropped() FROM PUBLIC;

CREATE EVENT TRIGGER pgtopic_storage_dropped ON sql_drop
    WHEN TAG IN ('DROP OWNED', 'DROP TABLE', 'DROP SCHEMA')
    EXECUTE FUNCTION pgtopic.storage_dropped();
COMMENT ON EVENT TRIGGER pgtopic_storage_dropped IS 'forgets topics whose storage has been dropped by DROP OWNED or the like';

----------------------------------------------------------------------
-- Type topic
----------------------------------------------------------------------

CREATE TYPE @extschema@.topic;

CREATE FUNCTION @extschema@.topic_in(cstring) RETURNS @extschema@.topic
    AS 'MODULE_PATHNAME', 'pgtopic_topic_in' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_out(@extschema@.topic) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgtopic_topic_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_recv(internal) RETURNS @extschema@.topic
    AS 'MODULE_PATHNAME', 'pgtopic_topic_recv' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_send(@extschema@.topic) RETURNS bytea
    AS 'MODULE_PATHNAME', 'pgtopic_topic_send' LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE TYPE @extschema@.topic (
    INPUT = @extschema@.topic_in,
    OUTPUT = @extschema@.topic_out,
    RECEIVE = @extschema@.topic_recv,
    SEND = @extschema@.topic_send,
    INTERNALLENGTH = 4,
    PASSEDBYVALUE,
    ALIGNMENT = int4
);
COMMENT ON TYPE @extschema@.topic IS 'a topic, by name';

CREATE FUNCTION @extschema@.topic(text) RETURNS @extschema@.topic
    AS 'MODULE_PATHNAME', 'pgtopic_topic_from_text' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.topic(text) IS 'the topic of that name';

CREATE CAST (text AS @extschema@.topic) WITH FUNCTION @extschema@.topic(text) AS IMPLICIT;
CREATE CAST (varchar AS @extschema@.topic) WITH FUNCTION @extschema@.topic(text) AS IMPLICIT;
CREATE CAST (int4 AS @extschema@.topic) WITHOUT FUNCTION;
CREATE CAST (@extschema@.topic AS int4) WITHOUT FUNCTION;

CREATE FUNCTION @extschema@.topic_eq(@extschema@.topic, @extschema@.topic) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_eq' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_ne(@extschema@.topic, @extschema@.topic) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_ne' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_lt(@extschema@.topic, @extschema@.topic) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_lt' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_le(@extschema@.topic, @extschema@.topic) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_le' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_gt(@extschema@.topic, @extschema@.topic) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_gt' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_ge(@extschema@.topic, @extschema@.topic) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_ge' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_cmp(@extschema@.topic, @extschema@.topic) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_topic_cmp' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_hash(@extschema@.topic) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_topic_hash' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_hash_extended(@extschema@.topic, bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'pgtopic_topic_hash_extended' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE OPERATOR @extschema@.= (
    LEFTARG = @extschema@.topic, RIGHTARG = @extschema@.topic, FUNCTION = @extschema@.topic_eq,
    COMMUTATOR = OPERATOR(@extschema@.=), NEGATOR = OPERATOR(@extschema@.<>),
    RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
CREATE OPERATOR @extschema@.<> (
    LEFTARG = @extschema@.topic, RIGHTARG = @extschema@.topic, FUNCTION = @extschema@.topic_ne,
    COMMUTATOR = OPERATOR(@extschema@.<>), NEGATOR = OPERATOR(@extschema@.=),
    RESTRICT = neqsel, JOIN = neqjoinsel
);
CREATE OPERATOR @extschema@.< (
    LEFTARG = @extschema@.topic, RIGHTARG = @extschema@.topic, FUNCTION = @extschema@.topic_lt,
    COMMUTATOR = OPERATOR(@extschema@.>), NEGATOR = OPERATOR(@extschema@.>=),
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
CREATE OPERATOR @extschema@.<= (
    LEFTARG = @extschema@.topic, RIGHTARG = @extschema@.topic, FUNCTION = @extschema@.topic_le,
    COMMUTATOR = OPERATOR(@extschema@.>=), NEGATOR = OPERATOR(@extschema@.>),
    RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
CREATE OPERATOR @extschema@.> (
    LEFTARG = @extschema@.topic, RIGHTARG = @extschema@.topic, FUNCTION = @extschema@.topic_gt,
    COMMUTATOR = OPERATOR(@extschema@.<), NEGATOR = OPERATOR(@extschema@.<=),
    RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
CREATE OPERATOR @extschema@.>= (
    LEFTARG = @extschema@.topic, RIGHTARG = @extschema@.topic, FUNCTION = @extschema@.topic_ge,
    COMMUTATOR = OPERATOR(@extschema@.<=), NEGATOR = OPERATOR(@extschema@.<),
    RESTRICT = scalargesel, JOIN = scalargejoinsel
);

CREATE OPERATOR CLASS @extschema@.topic_ops DEFAULT FOR TYPE @extschema@.topic USING btree AS
    OPERATOR 1 @extschema@.<, OPERATOR 2 @extschema@.<=, OPERATOR 3 @extschema@.=,
    OPERATOR 4 @extschema@.>=, OPERATOR 5 @extschema@.>,
    FUNCTION 1 @extschema@.topic_cmp(@extschema@.topic, @extschema@.topic),
    FUNCTION 4 btequalimage(oid);
CREATE OPERATOR CLASS @extschema@.topic_ops DEFAULT FOR TYPE @extschema@.topic USING hash AS
    OPERATOR 1 @extschema@.=,
    FUNCTION 1 @extschema@.topic_hash(@extschema@.topic),
    FUNCTION 2 @extschema@.topic_hash_extended(@extschema@.topic, bigint);
COMMENT ON OPERATOR CLASS @extschema@.topic_ops USING btree IS 'topics in the order of their creation';

----------------------------------------------------------------------
-- Type topic_partition
----------------------------------------------------------------------

CREATE TYPE @extschema@.topic_partition;

CREATE FUNCTION @extschema@.topic_partition_in(cstring) RETURNS @extschema@.topic_partition
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_in' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_out(@extschema@.topic_partition) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_recv(internal) RETURNS @extschema@.topic_partition
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_recv' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_send(@extschema@.topic_partition) RETURNS bytea
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_send' LANGUAGE C STABLE STRICT PARALLEL SAFE;

CREATE TYPE @extschema@.topic_partition (
    INPUT = @extschema@.topic_partition_in,
    OUTPUT = @extschema@.topic_partition_out,
    RECEIVE = @extschema@.topic_partition_recv,
    SEND = @extschema@.topic_partition_send,
    INTERNALLENGTH = 8,
    PASSEDBYVALUE,
    ALIGNMENT = double
);
COMMENT ON TYPE @extschema@.topic_partition IS 'a partition of a topic, such as orders-3';

CREATE FUNCTION @extschema@.topic_partition(topic @extschema@.topic, partition int)
    RETURNS @extschema@.topic_partition
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_make' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.topic_partition(@extschema@.topic, int) IS 'a partition of a topic';
CREATE FUNCTION @extschema@.topic(@extschema@.topic_partition) RETURNS @extschema@.topic
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_topic' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.topic(@extschema@.topic_partition) IS 'the topic of a partition';
CREATE FUNCTION @extschema@.partition(@extschema@.topic_partition) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_partition' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.partition(@extschema@.topic_partition) IS 'the number of a partition within its topic';

CREATE FUNCTION @extschema@.topic_partition_eq(@extschema@.topic_partition, @extschema@.topic_partition) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_eq' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_ne(@extschema@.topic_partition, @extschema@.topic_partition) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_ne' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_lt(@extschema@.topic_partition, @extschema@.topic_partition) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_lt' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_le(@extschema@.topic_partition, @extschema@.topic_partition) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_le' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_gt(@extschema@.topic_partition, @extschema@.topic_partition) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_gt' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_ge(@extschema@.topic_partition, @extschema@.topic_partition) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_ge' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_cmp(@extschema@.topic_partition, @extschema@.topic_partition) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_cmp' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_hash(@extschema@.topic_partition) RETURNS int
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_hash' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
CREATE FUNCTION @extschema@.topic_partition_hash_extended(@extschema@.topic_partition, bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'pgtopic_topic_partition_hash_extended' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;

CREATE OPERATOR @extschema@.= (
    LEFTARG = @extschema@.topic_partition, RIGHTARG = @extschema@.topic_partition,
    FUNCTION = @extschema@.topic_partition_eq,
    COMMUTATOR = OPERATOR(@extschema@.=), NEGATOR = OPERATOR(@extschema@.<>),
    RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES
);
CREATE OPERATOR @extschema@.<> (
    LEFTARG = @extschema@.topic_partition, RIGHTARG = @extschema@.topic_partition,
    FUNCTION = @extschema@.topic_partition_ne,
    COMMUTATOR = OPERATOR(@extschema@.<>), NEGATOR = OPERATOR(@extschema@.=),
    RESTRICT = neqsel, JOIN = neqjoinsel
);
CREATE OPERATOR @extschema@.< (
    LEFTARG = @extschema@.topic_partition, RIGHTARG = @extschema@.topic_partition,
    FUNCTION = @extschema@.topic_partition_lt,
    COMMUTATOR = OPERATOR(@extschema@.>), NEGATOR = OPERATOR(@extschema@.>=),
    RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
CREATE OPERATOR @extschema@.<= (
    LEFTARG = @extschema@.topic_partition, RIGHTARG = @extschema@.topic_partition,
    FUNCTION = @extschema@.topic_partition_le,
    COMMUTATOR = OPERATOR(@extschema@.>=), NEGATOR = OPERATOR(@extschema@.>),
    RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
CREATE OPERATOR @extschema@.> (
    LEFTARG = @extschema@.topic_partition, RIGHTARG = @extschema@.topic_partition,
    FUNCTION = @extschema@.topic_partition_gt,
    COMMUTATOR = OPERATOR(@extschema@.<), NEGATOR = OPERATOR(@extschema@.<=),
    RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
CREATE OPERATOR @extschema@.>= (
    LEFTARG = @extschema@.topic_partition, RIGHTARG = @extschema@.topic_partition,
    FUNCTION = @extschema@.topic_partition_ge,
    COMMUTATOR = OPERATOR(@extschema@.<=), NEGATOR = OPERATOR(@extschema@.<),
    RESTRICT = scalargesel, JOIN = scalargejoinsel
);

CREATE OPERATOR CLASS @extschema@.topic_partition_ops DEFAULT FOR TYPE @extschema@.topic_partition USING btree AS
    OPERATOR 1 @extschema@.<, OPERATOR 2 @extschema@.<=, OPERATOR 3 @extschema@.=,
    OPERATOR 4 @extschema@.>=, OPERATOR 5 @extschema@.>,
    FUNCTION 1 @extschema@.topic_partition_cmp(@extschema@.topic_partition, @extschema@.topic_partition),
    FUNCTION 4 btequalimage(oid);
CREATE OPERATOR CLASS @extschema@.topic_partition_ops DEFAULT FOR TYPE @extschema@.topic_partition USING hash AS
    OPERATOR 1 @extschema@.=,
    FUNCTION 1 @extschema@.topic_partition_hash(@extschema@.topic_partition),
    FUNCTION 2 @extschema@.topic_partition_hash_extended(@extschema@.topic_partition, bigint);

----------------------------------------------------------------------
-- Messages
----------------------------------------------------------------------

CREATE TYPE @extschema@.message AS (
    partition int,
    log_offset bigint,
    "timestamp" timestamptz,
    key text,
    value text,
    headers jsonb
);
COMMENT ON TYPE @extschema@.message IS 'a message of a topic with text or JSON values';

CREATE TYPE @extschema@.message_bytes AS (
    partition int,
    log_offset bigint,
    "timestamp" timestamptz,
    key bytea,
    value bytea,
    headers jsonb
);
COMMENT ON TYPE @extschema@.message_bytes IS 'a message of any topic, as bytes';

----------------------------------------------------------------------
-- Topics
----------------------------------------------------------------------

CREATE FUNCTION @extschema@.create_topic(
    name text,
    partitions int DEFAULT 1,
    replication_factor int DEFAULT 1,
    retention interval DEFAULT '7 days',
    retention_bytes bigint DEFAULT NULL,
    segment_messages bigint DEFAULT 1000000,
    max_message_bytes int DEFAULT 1048576,
    value_format text DEFAULT 'text',
    min_insync_replicas int DEFAULT NULL
) RETURNS @extschema@.topic
    AS 'MODULE_PATHNAME', 'pgtopic_create_topic' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.create_topic(text, int, int, interval, bigint, bigint, int, text, int)
    IS 'makes a topic; needs CREATE on schema topics';

CREATE FUNCTION @extschema@.alter_topic(topic @extschema@.topic, option text, value text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_alter_topic' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.alter_topic(@extschema@.topic, text, text)
    IS 'sets one option of a topic; ''default'' resets it';

CREATE FUNCTION @extschema@.add_partitions(topic @extschema@.topic, total int) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_add_partitions' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.add_partitions(@extschema@.topic, int)
    IS 'gives a topic more partitions, total in all; keys move';

CREATE FUNCTION @extschema@.drop_topic(topic @extschema@.topic) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_drop_topic' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.drop_topic(@extschema@.topic)
    IS 'drops a topic with its messages and the positions of its consumer groups';

CREATE FUNCTION @extschema@.delete_messages(topic @extschema@.topic, partition int, before_offset bigint)
    RETURNS bigint
    AS 'MODULE_PATHNAME', 'pgtopic_delete_messages' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.delete_messages(@extschema@.topic, int, bigint)
    IS 'deletes the messages of a partition before an offset; returns the log start offset';

----------------------------------------------------------------------
-- Produce
----------------------------------------------------------------------

CREATE FUNCTION @extschema@.produce(
    topic @extschema@.topic,
    value text,
    key text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    partition int DEFAULT NULL,
    "timestamp" timestamptz DEFAULT NULL,
    OUT partition int,
    OUT log_offset bigint
) AS 'MODULE_PATHNAME', 'pgtopic_produce_text' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.produce(@extschema@.topic, text, text, jsonb, int, timestamptz)
    IS 'puts a message into a topic';

CREATE FUNCTION @extschema@.produce(
    topic @extschema@.topic,
    value bytea,
    key bytea DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    partition int DEFAULT NULL,
    "timestamp" timestamptz DEFAULT NULL,
    OUT partition int,
    OUT log_offset bigint
) AS 'MODULE_PATHNAME', 'pgtopic_produce_bytea' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.produce(@extschema@.topic, bytea, bytea, jsonb, int, timestamptz)
    IS 'puts a message of bytes into a topic';

CREATE FUNCTION @extschema@.produce(
    topic @extschema@.topic,
    value jsonb,
    key text DEFAULT NULL,
    headers jsonb DEFAULT NULL,
    partition int DEFAULT NULL,
    "timestamp" timestamptz DEFAULT NULL,
    OUT partition int,
    OUT log_offset bigint
) AS 'MODULE_PATHNAME', 'pgtopic_produce_jsonb' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.produce(@extschema@.topic, jsonb, text, jsonb, int, timestamptz)
    IS 'puts a message of JSON into a topic';

CREATE FUNCTION @extschema@.produce_batch(
    topic @extschema@.topic,
    "values" text[],
    keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    partition int DEFAULT NULL,
    timestamps timestamptz[] DEFAULT NULL
) RETURNS TABLE (partition int, first_offset bigint, last_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_produce_batch_text' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.produce_batch(@extschema@.topic, text[], text[], jsonb[], int, timestamptz[])
    IS 'puts many messages into a topic';

CREATE FUNCTION @extschema@.produce_batch(
    topic @extschema@.topic,
    "values" bytea[],
    keys bytea[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    partition int DEFAULT NULL,
    timestamps timestamptz[] DEFAULT NULL
) RETURNS TABLE (partition int, first_offset bigint, last_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_produce_batch_bytea' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.produce_batch(@extschema@.topic, bytea[], bytea[], jsonb[], int, timestamptz[])
    IS 'puts many messages of bytes into a topic';

CREATE FUNCTION @extschema@.produce_batch(
    topic @extschema@.topic,
    "values" jsonb[],
    keys text[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL,
    partition int DEFAULT NULL,
    timestamps timestamptz[] DEFAULT NULL
) RETURNS TABLE (partition int, first_offset bigint, last_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_produce_batch_jsonb' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.produce_batch(@extschema@.topic, jsonb[], text[], jsonb[], int, timestamptz[])
    IS 'puts many messages of JSON into a topic';

----------------------------------------------------------------------
-- Read
----------------------------------------------------------------------

CREATE FUNCTION @extschema@.fetch_messages(
    topic @extschema@.topic,
    partition int,
    from_offset bigint,
    max_messages int DEFAULT 500,
    max_wait interval DEFAULT '0'
) RETURNS SETOF @extschema@.message
    AS 'MODULE_PATHNAME', 'pgtopic_fetch_messages' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 500;
COMMENT ON FUNCTION @extschema@.fetch_messages(@extschema@.topic, int, bigint, int, interval)
    IS 'reads messages of a partition from an offset on';

CREATE FUNCTION @extschema@.fetch_messages_bytes(
    topic @extschema@.topic,
    partition int,
    from_offset bigint,
    max_messages int DEFAULT 500,
    max_wait interval DEFAULT '0'
) RETURNS SETOF @extschema@.message_bytes
    AS 'MODULE_PATHNAME', 'pgtopic_fetch_messages_bytes' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 500;
COMMENT ON FUNCTION @extschema@.fetch_messages_bytes(@extschema@.topic, int, bigint, int, interval)
    IS 'reads messages of a partition from an offset on, as bytes';

CREATE FUNCTION @extschema@.consume(
    topic @extschema@.topic,
    consumer_group text,
    max_messages int DEFAULT 500,
    max_wait interval DEFAULT '0'
) RETURNS SETOF @extschema@.message
    AS 'MODULE_PATHNAME', 'pgtopic_consume' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 500;
COMMENT ON FUNCTION @extschema@.consume(@extschema@.topic, text, int, interval)
    IS 'takes the next messages of one partition for a consumer group; its position moves when the transaction commits';

CREATE FUNCTION @extschema@.consume_bytes(
    topic @extschema@.topic,
    consumer_group text,
    max_messages int DEFAULT 500,
    max_wait interval DEFAULT '0'
) RETURNS SETOF @extschema@.message_bytes
    AS 'MODULE_PATHNAME', 'pgtopic_consume_bytes' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 500;
COMMENT ON FUNCTION @extschema@.consume_bytes(@extschema@.topic, text, int, interval)
    IS 'takes the next messages of one partition for a consumer group, as bytes';

CREATE PROCEDURE @extschema@.wait_for_messages(
    topic @extschema@.topic,
    consumer_group text,
    max_wait interval
) AS 'MODULE_PATHNAME', 'pgtopic_wait_for_messages' LANGUAGE C;
COMMENT ON PROCEDURE @extschema@.wait_for_messages(@extschema@.topic, text, interval)
    IS 'waits until a consumer group has something to consume, holding no snapshot meanwhile';

CREATE FUNCTION @extschema@.offsets_at(topic @extschema@.topic, "timestamp" timestamptz)
    RETURNS TABLE (partition int, log_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_offsets_at' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.offsets_at(@extschema@.topic, timestamptz)
    IS 'the first offset of each partition at or after a time; the high watermark where there is none';

----------------------------------------------------------------------
-- Consumer groups
----------------------------------------------------------------------

CREATE FUNCTION @extschema@.create_consumer_group(
    consumer_group text,
    topic @extschema@.topic,
    start_at text DEFAULT 'earliest'
) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_create_consumer_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.create_consumer_group(text, @extschema@.topic, text)
    IS 'makes a consumer group that starts at the earliest or the latest message, or at a time';

CREATE FUNCTION @extschema@.commit_offset(
    consumer_group text,
    topic @extschema@.topic,
    partition int,
    log_offset bigint
) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_commit_offset' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.commit_offset(text, @extschema@.topic, int, bigint)
    IS 'moves a consumer group to the offset that it is to read next';

CREATE FUNCTION @extschema@.reset_offsets(
    consumer_group text,
    topic @extschema@.topic,
    to_position text,
    dry_run boolean DEFAULT false
) RETURNS TABLE (partition int, old_offset bigint, new_offset bigint)
    AS 'MODULE_PATHNAME', 'pgtopic_reset_offsets' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION @extschema@.reset_offsets(text, @extschema@.topic, text, boolean)
    IS 'moves a consumer group in all partitions: earliest, latest, an offset, +n, -n or a timestamp';

CREATE FUNCTION @extschema@.drop_consumer_group(
    consumer_group text,
    topic @extschema@.topic DEFAULT NULL
) RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_drop_consumer_group' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.drop_consumer_group(text, @extschema@.topic)
    IS 'forgets the positions of a consumer group, of one topic or of all';

----------------------------------------------------------------------
-- Status views
--
-- They belong to the owner of the extension, so they can read the catalog; the
-- functions run as whoever selects, and return only what that role may see.
----------------------------------------------------------------------

CREATE FUNCTION pgtopic.can_use(topic_id int) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgtopic_can_use' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgtopic.can_use(int) IS 'whether the current user may use a topic';

CREATE FUNCTION pgtopic.partition_state(
    topic_id int, partition int,
    OUT log_start_offset bigint, OUT high_watermark bigint,
    OUT log_end_offset bigint, OUT blocking_pid int, OUT blocking_since timestamptz
) RETURNS record
    AS 'MODULE_PATHNAME', 'pgtopic_partition_state' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgtopic.partition_state(int, int) IS 'offsets of a partition, for the status views';

CREATE FUNCTION pgtopic.segments(
    topic_id int, partition int,
    OUT segment regclass, OUT from_offset bigint, OUT to_offset bigint
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'pgtopic_segments' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 3;
COMMENT ON FUNCTION pgtopic.segments(int, int) IS 'segments of a partition, for the status views';

CREATE FUNCTION pgtopic.segment_content(
    topic_id int, partition int, segment regclass,
    OUT messages bigint, OUT max_timestamp timestamptz
) RETURNS record
    AS 'MODULE_PATHNAME', 'pgtopic_segment_content' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgtopic.segment_content(int, int, regclass) IS 'what is in a segment, for the status views';

CREATE FUNCTION pgtopic.group_states(
    topic_id int,
    OUT consumer_group text, OUT partition int, OUT committed_offset bigint,
    OUT log_start_offset bigint, OUT log_end_offset bigint, OUT committed_at timestamptz
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'pgtopic_group_states' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;
COMMENT ON FUNCTION pgtopic.group_states(int) IS 'positions of the consumer groups of a topic, for the status views';

CREATE FUNCTION pgtopic.worker_reports(
    OUT worker text, OUT pid int, OUT state text, OUT doing text,
    OUT last_error text, OUT last_error_at timestamptz
) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'pgtopic_worker_reports' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 2;
COMMENT ON FUNCTION pgtopic.worker_reports() IS 'what the background workers do, for the status view';
REVOKE ALL ON FUNCTION pgtopic.worker_reports() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgtopic.worker_reports() TO pg_monitor;

CREATE VIEW @extschema@.topic_status WITH (security_barrier) AS
    SELECT t.id::@extschema@.topic AS topic, t.partitions, t.replication_factor, t.value_format,
           t.retention, t.retention_bytes, m.messages, s.size_bytes
    FROM pgtopic.topic t
    CROSS JOIN LATERAL (
        SELECT pg_catalog.sum(p.high_watermark - p.log_start_offset)::bigint AS messages
        FROM pg_catalog.generate_series(0, t.partitions - 1) n
        CROSS JOIN LATERAL pgtopic.partition_state(t.id, n) p) m
    CROSS JOIN LATERAL (
        SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(g.segment))::bigint AS size_bytes
        FROM pg_catalog.generate_series(0, t.partitions - 1) n
        CROSS JOIN LATERAL pgtopic.segments(t.id, n) g) s
    WHERE pgtopic.can_use(t.id);
COMMENT ON VIEW @extschema@.topic_status IS 'topics, their options and sizes';
COMMENT ON COLUMN @extschema@.topic_status.messages IS 'offsets between the log start and the high watermark; rolled-back messages count';
COMMENT ON COLUMN @extschema@.topic_status.retention IS 'how long messages are kept; NULL for ever';
COMMENT ON COLUMN @extschema@.topic_status.retention_bytes IS 'how much a partition keeps; NULL without limit';

CREATE VIEW @extschema@.partition_status WITH (security_barrier) AS
    SELECT t.id::@extschema@.topic AS topic, p.partition, p.leader, p.leader_epoch, p.replicas, p.isr,
           s.log_start_offset, s.high_watermark, s.log_end_offset,
           g.segments, g.size_bytes, s.blocking_pid, s.blocking_since
    FROM pgtopic.topic t
    JOIN pgtopic.partition p ON p.topic_id = t.id
    CROSS JOIN LATERAL pgtopic.partition_state(t.id, p.partition) s
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*)::int AS segments,
               pg_catalog.sum(pg_catalog.pg_total_relation_size(a.segment))::bigint AS size_bytes
        FROM pgtopic.segments(t.id, p.partition) a) g
    WHERE pgtopic.can_use(t.id);
COMMENT ON VIEW @extschema@.partition_status IS 'partitions: where they are and how far they have come';
COMMENT ON COLUMN @extschema@.partition_status.leader IS 'the broker that takes messages';
COMMENT ON COLUMN @extschema@.partition_status.isr IS 'the replicas that are in sync';
COMMENT ON COLUMN @extschema@.partition_status.log_start_offset IS 'the oldest offset that is kept';
COMMENT ON COLUMN @extschema@.partition_status.high_watermark IS 'everything below is settled; readers stop here';
COMMENT ON COLUMN @extschema@.partition_status.log_end_offset IS 'the offset that the next message gets';
COMMENT ON COLUMN @extschema@.partition_status.blocking_pid IS 'the session whose open transaction holds the high watermark back';
COMMENT ON COLUMN @extschema@.partition_status.blocking_since IS 'when that transaction began';

CREATE VIEW @extschema@.segment_status WITH (security_barrier) AS
    SELECT t.id::@extschema@.topic AS topic, n AS partition, s.segment, s.from_offset, s.to_offset,
           c.messages, pg_catalog.pg_total_relation_size(s.segment) AS size_bytes, c.max_timestamp
    FROM pgtopic.topic t
    CROSS JOIN LATERAL pg_catalog.generate_series(0, t.partitions - 1) n
    CROSS JOIN LATERAL pgtopic.segments(t.id, n) s
    CROSS JOIN LATERAL pgtopic.segment_content(t.id, n, s.segment) c
    WHERE pgtopic.can_use(t.id);
COMMENT ON VIEW @extschema@.segment_status IS 'segments: the tables that hold the messages of a partition';
COMMENT ON COLUMN @extschema@.segment_status.from_offset IS 'the segment holds the batches whose last offset is at least this';
COMMENT ON COLUMN @extschema@.segment_status.to_offset IS 'and less than this';
COMMENT ON COLUMN @extschema@.segment_status.messages IS 'offsets from the first to the last message; rolled-back ones in between count';
COMMENT ON COLUMN @extschema@.segment_status.max_timestamp IS 'timestamp of the last batch';

CREATE VIEW @extschema@.consumer_group_status WITH (security_barrier) AS
    SELECT g.consumer_group, t.id::@extschema@.topic AS topic, g.partition,
           g.committed_offset, g.log_end_offset,
           g.log_end_offset - GREATEST(g.committed_offset, g.log_start_offset) AS lag,
           g.committed_at
    FROM pgtopic.topic t
    CROSS JOIN LATERAL pgtopic.group_states(t.id) g
    WHERE pgtopic.can_use(t.id);
COMMENT ON VIEW @extschema@.consumer_group_status IS 'consumer groups: where they are, and what they still have to read';
COMMENT ON COLUMN @extschema@.consumer_group_status.committed_offset IS 'the next offset that the group reads; NULL if it has not begun';
COMMENT ON COLUMN @extschema@.consumer_group_status.lag IS 'messages that the group has not read';

CREATE VIEW @extschema@.worker_status WITH (security_barrier) AS
    SELECT w.worker, w.pid, w.state, w.doing, w.last_error, w.last_error_at
    FROM pgtopic.worker_reports() w;
COMMENT ON VIEW @extschema@.worker_status IS 'background workers: the launcher, and the one of this database; for members of pg_monitor';

GRANT SELECT ON @extschema@.topic_status, @extschema@.partition_status, @extschema@.segment_status,
    @extschema@.consumer_group_status TO PUBLIC;
GRANT SELECT ON @extschema@.worker_status TO pg_monitor;

----------------------------------------------------------------------

CREATE FUNCTION pgtopic.extension_created() RETURNS void
    AS 'MODULE_PATHNAME', 'pgtopic_extension_created' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION pgtopic.extension_created() IS 'checks that the server has loaded pgtopic, and starts its worker';
REVOKE ALL ON FUNCTION pgtopic.extension_created() FROM PUBLIC;
SELECT pgtopic.extension_created();
