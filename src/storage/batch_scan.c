/*-------------------------------------------------------------------------
 *
 * batch_scan.c
 *	  Reading the batches of a partition as a query does.
 *
 * Batches are in the segment, and in the index, where their last message belongs.  So the
 * batches that have something of a range [from, to) are those with last_offset >= from
 * and base_offset < to; the last of them may end beyond the range, and so be in a segment
 * that begins there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "storage/batch_scan.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"

void
batch_scan_begin(BatchScan *scan, int32 topic, int32 partition, Snapshot snapshot,
				 bool backward, int columns, TimestampTz since,
				 const OffsetRange *ranges, int ranges_count, BatchScanCounts *counts)
{
	LogPartition *log = topic_partition_get(topic_get(topic), partition);

	memset(scan, 0, sizeof(BatchScan));
	scan->topic = topic;
	scan->partition = partition;
	scan->snapshot = snapshot;
	scan->backward = backward;
	scan->columns = columns;
	scan->since = since;
	scan->ranges = ranges;
	scan->ranges_count = ranges_count;
	scan->counts = counts;
	scan->counted = -1;
	scan->log_start = partition_log_start(log);
	scan->context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic batch scan",
										  ALLOCSET_DEFAULT_SIZES);
	if (since != DT_NOBEGIN)
		scan->statistics_count = segment_statistics_read_as_of(topic, partition, snapshot,
															   &scan->statistics);
}

static void
close_segment(BatchScan *scan)
{
	if (scan->relation == NULL)
		return;
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->relation, AccessShareLock);
	scan->relation = NULL;
}

/* False if it has been dropped. */
static bool
open_segment(BatchScan *scan, LogPartition *partition, const Segment *segment)
{
	scan->relation = try_table_open(segment->relid, AccessShareLock);
	if (scan->relation == NULL)
	{
		/* by retention; the map says so next time */
		partition->segments_valid = false;
		AcceptInvalidationMessages();
		return false;
	}
	scan->bounds.from = segment->from;
	scan->bounds.to = segment->to;
	scan->index = batches_open_index(partition, scan->relation, AccessShareLock);
	scan->slot = table_slot_create(scan->relation, NULL);
	scan->scan = compat_index_beginscan(scan->relation, scan->index, scan->snapshot, 2, 0);
	if (scan->counted != segment->from)
		scan->counts->segments_read++;
	scan->counted = segment->from;
	return true;
}

/* Has the open segment's scan return the batches that end in [lower, upper). */
static void
seek(BatchScan *scan, int64 lower, int64 upper)
{
	ScanKeyData keys[2];

	ScanKeyInit(&keys[0], 1, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(lower));
	ScanKeyInit(&keys[1], 1, BTLessStrategyNumber, F_INT8LT, Int64GetDatum(upper));
	index_rescan(scan->scan, keys, 2, NULL, 0);
}

/* Nothing in a complete segment is newer than its statistics say. */
static bool
is_too_old(const BatchScan *scan, const Segment *segment)
{
	for (int i = 0; i < scan->statistics_count; i++)
	{
		const SegmentStatistics *statistics = &scan->statistics[i];

		if (statistics->from == segment->from && statistics->to == segment->to)
			return statistics->max_timestamp < scan->since;
	}
	return false;
}

/* Opens the next segment upwards that may have a batch that ends at scan->lower or later. */
static bool
open_upwards(BatchScan *scan)
{
	for (;;)
	{
		LogPartition *partition = topic_partition_get(topic_get(scan->topic), scan->partition);
		const Segment *segment;
		int			number;

		segments_load(partition);
		number = segmap_seek(partition->segments, partition->segments_count, scan->lower);
		if (number == partition->segments_count)
			return false;
		segment = &partition->segments[number];
		if (is_too_old(scan, segment))
		{
			scan->lower = segment->to;
			continue;
		}
		if (open_segment(scan, partition, segment))
		{
			seek(scan, scan->lower, segment->to);
			return true;
		}
	}
}

/* Opens the next segment downwards that may have a batch that ends before scan->upper. */
static bool
open_downwards(BatchScan *scan)
{
	for (;;)
	{
		LogPartition *partition = topic_partition_get(topic_get(scan->topic), scan->partition);
		const Segment *segment;
		int			number;

		segments_load(partition);
		/* the one where upper - 1 is, or the one before the hole that it is in */
		number = segmap_seek(partition->segments, partition->segments_count, scan->upper - 1);
		if (number == partition->segments_count ||
			partition->segments[number].from >= scan->upper)
			number--;
		if (number < 0 || partition->segments[number].to <= scan->current.from)
			return false;
		segment = &partition->segments[number];
		if (is_too_old(scan, segment))
		{
			scan->upper = segment->from;
			continue;
		}
		if (open_segment(scan, partition, segment))
		{
			seek(scan, scan->current.from, scan->upper);
			return true;
		}
	}
}

static int64
column(TupleTableSlot *slot, int number)
{
	bool		isnull;

	return DatumGetInt64(slot_getattr(slot, number, &isnull));
}

/*
 * Where a range that is to be read from its end begins: behind the batch that holds its
 * last offset, if there is one.
 */
static int64
upper_of_range(BatchScan *scan)
{
	int64		last = scan->current.to - 1;
	int64		upper = last;

	if (scan->current.to == PG_INT64_MAX)
		return PG_INT64_MAX;
	scan->lower = last;
	while (open_upwards(scan))
	{
		bool		found = index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);

		if (found && column(scan->slot, BATCH_BASE_OFFSET) <= last)
			upper = column(scan->slot, BATCH_LAST_OFFSET) + 1;
		scan->lower = scan->bounds.to;
		close_segment(scan);
		if (found)
			break;
		CHECK_FOR_INTERRUPTS();
	}
	return upper;
}

/* Goes to the next range that is not empty. */
static bool
begin_range(BatchScan *scan)
{
	for (; scan->range < scan->ranges_count; scan->range++)
	{
		scan->current = scan->ranges[scan->backward ? scan->ranges_count - 1 - scan->range :
									 scan->range];
		scan->current.from = Max(scan->current.from, scan->log_start);
		if (scan->current.from >= scan->current.to)
			continue;
		scan->range++;
		scan->begun = true;
		scan->over = false;
		if (scan->backward)
			scan->upper = upper_of_range(scan);
		else
			scan->lower = scan->current.from;
		return true;
	}
	return false;
}

/* Goes to the next batch of the range, in scan->slot. */
static bool
advance(BatchScan *scan)
{
	int64		base_offset;
	int64		last_offset;

	while (!scan->over)
	{
		if (scan->relation == NULL &&
			!(scan->backward ? open_downwards(scan) : open_upwards(scan)))
			return false;
		CHECK_FOR_INTERRUPTS();
		if (!index_getnext_slot(scan->scan,
								scan->backward ? BackwardScanDirection : ForwardScanDirection,
								scan->slot))
		{
			scan->lower = scan->bounds.to;
			scan->upper = scan->bounds.from;
			close_segment(scan);
			continue;
		}
		base_offset = column(scan->slot, BATCH_BASE_OFFSET);
		last_offset = column(scan->slot, BATCH_LAST_OFFSET);
		if (scan->backward)
			scan->over = base_offset <= scan->current.from;
		else
			scan->over = last_offset >= scan->current.to - 1;
		if (base_offset >= scan->current.to)
			return false;
		if (scan->since != DT_NOBEGIN && column(scan->slot, BATCH_TIMESTAMP) < scan->since)
		{
			scan->counts->batches_skipped++;
			continue;
		}
		return true;
	}
	return false;
}

bool
batch_scan_next(BatchScan *scan, int *first, int *last)
{
	/* index scans allocate as they go, and the caller may be in a short-lived context */
	MemoryContext old = MemoryContextSwitchTo(MemoryContextGetParent(scan->context));
	bool		found = false;

	while (!found && (scan->begun || begin_range(scan)))
	{
		found = advance(scan);
		if (!found)
		{
			close_segment(scan);
			scan->begun = false;
		}
	}
	if (!found)
	{
		MemoryContextSwitchTo(old);
		return false;
	}

	MemoryContextReset(scan->context);
	MemoryContextSwitchTo(scan->context);
	batch_unpack(scan->slot, scan->relation, scan->columns, &scan->batch);
	MemoryContextSwitchTo(old);
	scan->counts->batches_read++;
	*first = (int) Max(scan->current.from - scan->batch.base_offset, 0);
	*last = (int) Min(scan->current.to - scan->batch.base_offset, scan->batch.count) - 1;
	return true;
}

void
batch_scan_end(BatchScan *scan)
{
	close_segment(scan);
	MemoryContextDelete(scan->context);
	if (scan->statistics)
		pfree(scan->statistics);
}
