/*-------------------------------------------------------------------------
 *
 * batch_scan.h
 *	  Reading the batches of a partition as a query does: with its snapshot, from either
 *	  end, and only those that its conditions leave.
 *
 * Unlike a LogReader (batches.h) it knows no watermark: it shows what the snapshot sees,
 * this transaction's own messages among it, and what was committed out of order.
 *
 * The segment that is being read is locked (AccessShareLock), so retention passes it by.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_BATCH_SCAN_H
#define PGTOPIC_BATCH_SCAN_H

#include "postgres.h"

#include "base/offsets.h"
#include "storage/batches.h"

/* What EXPLAIN tells. */
typedef struct BatchScanCounts
{
	int64		segments_read;	/* that were looked into */
	int64		batches_read;	/* that were unpacked */
	int64		batches_skipped;	/* that were looked at, and are too old */
} BatchScanCounts;

typedef struct BatchScan
{
	int32		topic;
	int32		partition;
	Snapshot	snapshot;
	bool		backward;
	int			columns;		/* BATCH_BIT()s of what is wanted */
	TimestampTz since;			/* batches that are older need not be read */
	const OffsetRange *ranges;	/* ascending; read from the end if backward */
	int			ranges_count;
	BatchScanCounts *counts;
	int64		log_start;
	struct SegmentStatistics *statistics;	/* of complete segments */
	int			statistics_count;
	/* how far it is */
	int			range;			/* counted in the order of reading */
	OffsetRange current;		/* that range, from the log start on */
	bool		begun;			/* it is being read */
	bool		over;			/* all of it has been */
	int64		lower;			/* forward: the next batch ends here or later */
	int64		upper;			/* backward: the next batch ends before */
	int64		counted;		/* start of the segment that was counted last */
	Relation	relation;		/* the open segment, or NULL */
	OffsetRange bounds;			/* its */
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext context;		/* of the unpacked batch */
	UnpackedBatch batch;
} BatchScan;

/*
 * Begins.  What scan points to must stay, and so must the snapshot.  Ranges need not
 * respect the log start: what is below it is not read.
 */
extern void batch_scan_begin(BatchScan *scan, int32 topic, int32 partition, Snapshot snapshot,
							 bool backward, int columns, TimestampTz since,
							 const OffsetRange *ranges, int ranges_count,
							 BatchScanCounts *counts);

/*
 * Unpacks the next batch, scan->batch, and sets the part of it, [*first, *last], that is
 * in the range: to be read from the end if backward.  False if there is none.
 */
extern bool batch_scan_next(BatchScan *scan, int *first, int *last);

extern void batch_scan_end(BatchScan *scan);

#endif							/* PGTOPIC_BATCH_SCAN_H */
