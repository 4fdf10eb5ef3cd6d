/*-------------------------------------------------------------------------
 *
 * segment_statistics.h
 *	  What is in complete segments: pgtopic.segment_statistics.
 *
 * A segment is complete when the high watermark that is stored in the catalog has
 * reached its end: all batches that can be in it are settled.  The maintenance worker
 * fills the table (worker/statistics.c), from the first segment of a partition on, so
 * what has a row is the beginning of the partition.  The table is not there before
 * version 0.4.0: then there is nothing to read, and storing and deleting do nothing.
 *
 * What a row says of the messages that a snapshot sees in the segment is right if the
 * same snapshot sees the row (segment_statistics_read_as_of()):
 *
 * - It is computed by a snapshot that was taken when the watermark had been read, so
 *	 sees all that is settled, and whoever sees the row sees that as well.
 * - Messages that are before the log start go together with their part of the row's
 *	 counts.  The timestamps stay, as bounds.
 * - What a follower removes from its copy, since it may differ from its leader's, goes
 *	 in one transaction with the rows of the segments concerned (replica_cut()).  No row
 *	 that was computed before comes in afterwards: both hold a lock to their ends, see
 *	 partition_lock_statistics().
 *
 * A row that is newer than the snapshot is right as well, but for the last case: a
 * snapshot of before the cut may see messages that a row of after it does not cover.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SEGMENT_STATISTICS_H
#define PGTOPIC_SEGMENT_STATISTICS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "catalog/topics.h"

/* Without messages the timestamps are those that no condition is true of. */
typedef struct SegmentStatistics
{
	int64		from;			/* the segment's bounds */
	int64		to;
	int64		messages;
	int64		batches;
	TimestampTz min_timestamp;	/* DT_NOEND if there were none */
	TimestampTz max_timestamp;	/* DT_NOBEGIN if there were none */
} SegmentStatistics;

/*
 * Reads all rows of a partition, ascending, into the caller's memory; returns how many.
 * As they are now, in every isolation level; or as a snapshot sees them, which is for
 * passing over segments in a scan by that snapshot.  No rights are checked.  Works during
 * recovery.
 */
extern int	segment_statistics_read(int32 topic, int32 partition, SegmentStatistics **stats);
extern int	segment_statistics_read_as_of(int32 topic, int32 partition, Snapshot snapshot,
										  SegmentStatistics **stats);

/*
 * Finds the first complete segment that has no row, given the watermark that is stored;
 * false if there is none.  Locks the partition's table for as long as it takes to look.
 */
extern bool segment_statistics_next(LogPartition *partition, int64 high_watermark, Segment *segment);

/*
 * Computes what the row of a complete segment is to say.  The caller has the root of the
 * topic locked, AccessShareLock, and holds partition_try_lock_statistics(); it has read
 * the watermark after that, and keeps both, as this keeps the segment's lock, until the
 * transaction that stores the result has ended.  False, with nothing to be stored, if the
 * segment cannot be locked at once, is gone, or somebody has begun to wait for any of
 * these locks meanwhile.
 */
extern bool segment_statistics_compute(LogPartition *partition, const Segment *segment,
									   SegmentStatistics *stats);

/* The rest runs SQL: the caller is connected to SPI and acts as the extension's owner, or is a worker. */

/* Stores a row, in place of one that is there. */
extern void segment_statistics_store(int32 topic, int32 partition, const SegmentStatistics *stats);

/* So many batches and messages have been deleted from a segment by this transaction. */
extern void segment_statistics_subtract(int32 topic, int32 partition, int64 from,
										int64 messages, int64 batches);

/*
 * Deletes the rows of a topic; of the segments of a partition that end beyond an offset;
 * of one segment.  Where tables are dropped, after that, with their locks: a row may come
 * from a worker that has had them until then.
 */
extern void segment_statistics_delete_topic(int32 topic);
extern void segment_statistics_delete_beyond(int32 topic, int32 partition, int64 offset);
extern void segment_statistics_delete_segment(int32 topic, int32 partition, int64 from);

/* Whether the table is there. */
extern bool segment_statistics_exist(void);

#endif							/* PGTOPIC_SEGMENT_STATISTICS_H */
