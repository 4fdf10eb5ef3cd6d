/* pgtopic--0.3.0--0.4.0.sql */

\echo Use "ALTER EXTENSION pgtopic UPDATE TO '0.4.0'" to load this file. \quit


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
