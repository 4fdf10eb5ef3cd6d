/*-------------------------------------------------------------------------
 *
 * segment_statistics.c
 *	  What is in complete segments: pgtopic.segment_statistics.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "catalog/extension.h"
#include "storage/batches.h"
#include "storage/partition_locks.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"

/* Columns of pgtopic.segment_statistics, in the order of the extension's script. */
enum StatisticsColumn
{
	STATISTICS_TOPIC_ID = 1,
	STATISTICS_PARTITION,
	STATISTICS_FROM_OFFSET,
	STATISTICS_TO_OFFSET,
	STATISTICS_MESSAGES,
	STATISTICS_BATCHES,
	STATISTICS_MIN_TIMESTAMP,
	STATISTICS_MAX_TIMESTAMP,
	STATISTICS_COLUMNS = STATISTICS_MAX_TIMESTAMP
};

/* After how many batches, of a page each, it is looked whether somebody waits. */
#define BATCHES_BETWEEN_LOOKS	64

bool
segment_statistics_exist(void)
{
	return OidIsValid(extension_relation("segment_statistics"));
}

/* A scan of a partition's rows by the primary key. */
typedef struct StatisticsScan
{
	Relation	relation;		/* NULL: there is no table */
	Relation	index;
	SysScanDesc scan;
} StatisticsScan;

static void
begin_scan(StatisticsScan *scan, int32 topic, int32 partition, Snapshot snapshot)
{
	Oid			relid = extension_relation("segment_statistics");
	Oid			indexid = extension_relation("segment_statistics_pkey");
	ScanKeyData keys[2];

	scan->relation = NULL;
	if (!OidIsValid(relid) || !OidIsValid(indexid))
		return;
	scan->relation = table_open(relid, AccessShareLock);
	if (RelationGetDescr(scan->relation)->natts != STATISTICS_COLUMNS)
		elog(ERROR, "table %s.segment_statistics has %d columns instead of %d", CATALOG_SCHEMA,
			 RelationGetDescr(scan->relation)->natts, STATISTICS_COLUMNS);
	scan->index = index_open(indexid, AccessShareLock);
	ScanKeyInit(&keys[0], STATISTICS_TOPIC_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(topic));
	ScanKeyInit(&keys[1], STATISTICS_PARTITION, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(partition));
	scan->scan = systable_beginscan_ordered(scan->relation, scan->index, snapshot, 2, keys);
}

static bool
next_row(StatisticsScan *scan, ScanDirection direction, SegmentStatistics *stats)
{
	HeapTuple	tuple;
	Datum		values[STATISTICS_COLUMNS];
	bool		nulls[STATISTICS_COLUMNS];

	if (scan->relation == NULL)
		return false;
	tuple = systable_getnext_ordered(scan->scan, direction);
	if (!HeapTupleIsValid(tuple))
		return false;
	heap_deform_tuple(tuple, RelationGetDescr(scan->relation), values, nulls);
	stats->from = DatumGetInt64(values[STATISTICS_FROM_OFFSET - 1]);
	stats->to = DatumGetInt64(values[STATISTICS_TO_OFFSET - 1]);
	stats->messages = DatumGetInt64(values[STATISTICS_MESSAGES - 1]);
	stats->batches = DatumGetInt64(values[STATISTICS_BATCHES - 1]);
	stats->min_timestamp = nulls[STATISTICS_MIN_TIMESTAMP - 1] ? DT_NOEND :
		DatumGetTimestampTz(values[STATISTICS_MIN_TIMESTAMP - 1]);
	stats->max_timestamp = nulls[STATISTICS_MAX_TIMESTAMP - 1] ? DT_NOBEGIN :
		DatumGetTimestampTz(values[STATISTICS_MAX_TIMESTAMP - 1]);
	return true;
}

static void
end_scan(StatisticsScan *scan)
{
	if (scan->relation == NULL)
		return;
	systable_endscan_ordered(scan->scan);
	index_close(scan->index, AccessShareLock);
	table_close(scan->relation, AccessShareLock);
}

int
segment_statistics_read_as_of(int32 topic, int32 partition, Snapshot snapshot,
							  SegmentStatistics **stats)
{
	StatisticsScan scan;
	SegmentStatistics row;
	int			allocated = 16;
	int			count = 0;

	*stats = palloc(allocated * sizeof(SegmentStatistics));
	begin_scan(&scan, topic, partition, snapshot);
	while (next_row(&scan, ForwardScanDirection, &row))
	{
		if (count == allocated)
		{
			allocated *= 2;
			*stats = repalloc(*stats, allocated * sizeof(SegmentStatistics));
		}
		(*stats)[count++] = row;
	}
	end_scan(&scan);
	return count;
}

int
segment_statistics_read(int32 topic, int32 partition, SegmentStatistics **stats)
{
	return segment_statistics_read_as_of(topic, partition, NULL, stats);
}

bool
segment_statistics_next(LogPartition *partition, int64 high_watermark, Segment *segment)
{
	StatisticsScan scan;
	SegmentStatistics last;
	bool		found;
	int			i = 0;

	segments_load(partition);
	if (partition->segments_count == 0 || partition->segments[0].to > high_watermark)
		return false;
	begin_scan(&scan, partition->topic->id, partition->number, NULL);
	if (scan.relation == NULL)
		return false;
	found = next_row(&scan, BackwardScanDirection, &last);
	end_scan(&scan);

	/* the scan may have heard of a change */
	segments_load(partition);
	if (found)
		i = segmap_seek(partition->segments, partition->segments_count, last.to);
	if (i >= partition->segments_count || partition->segments[i].to > high_watermark)
		return false;
	*segment = partition->segments[i];
	return true;
}

/*
 * Whether somebody waits for a lock that is at odds with ours on a table: a request that
 * is not granted at once is an answer as well.  AccessShareLock would not do, which this
 * transaction has: RowShareLock is the next one, and conflicts with nothing that is taken
 * as a matter of course.  (LockHasWaiters() cannot tell of locks taken by the fast path.)
 */
static bool
is_waited_for(Oid relation)
{
	if (!ConditionalLockRelationOid(relation, RowShareLock))
		return true;
	UnlockRelationOid(relation, RowShareLock);
	return false;
}

/* Adds a batch.  Timestamps of its messages are unpacked only where they differ. */
static void
add_batch(SegmentStatistics *stats, TupleTableSlot *slot)
{
	bool		isnull;
	int64		base_offset = DatumGetInt64(slot_getattr(slot, BATCH_BASE_OFFSET, &isnull));
	int64		last_offset = DatumGetInt64(slot_getattr(slot, BATCH_LAST_OFFSET, &isnull));
	TimestampTz newest = DatumGetTimestampTz(slot_getattr(slot, BATCH_TIMESTAMP, &isnull));
	Datum		timestamps = slot_getattr(slot, BATCH_TIMESTAMPS, &isnull);

	stats->batches++;
	stats->messages += last_offset - base_offset + 1;
	stats->min_timestamp = Min(stats->min_timestamp, newest);
	stats->max_timestamp = Max(stats->max_timestamp, newest);
	if (!isnull)
	{
		Datum	   *elements;
		bool	   *nulls;
		int			count;

		deconstruct_array(DatumGetArrayTypeP(timestamps), TIMESTAMPTZOID, sizeof(TimestampTz),
						  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &elements, &nulls, &count);
		for (int i = 0; i < count; i++)
		{
			if (nulls[i])
				continue;
			stats->min_timestamp = Min(stats->min_timestamp, DatumGetTimestampTz(elements[i]));
			stats->max_timestamp = Max(stats->max_timestamp, DatumGetTimestampTz(elements[i]));
		}
	}
}

bool
segment_statistics_compute(LogPartition *partition, const Segment *segment, SegmentStatistics *stats)
{
	int32		topic = partition->topic->id;
	int32		number = partition->number;
	Oid			root = partition->topic->root;
	Relation	relation;
	TableScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext context;
	MemoryContext old;
	bool		finished = true;

	if (!ConditionalLockRelationOid(segment->relid, AccessShareLock))
		return false;
	relation = try_table_open(segment->relid, AccessShareLock);
	if (relation == NULL)
		return false;

	memset(stats, 0, sizeof(SegmentStatistics));
	stats->from = segment->from;
	stats->to = segment->to;
	stats->min_timestamp = DT_NOEND;
	stats->max_timestamp = DT_NOBEGIN;

	/* the watermark has been read, so this sees all that is below it */
	PushActiveSnapshot(GetLatestSnapshot());
	context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic statistics",
									ALLOCSET_DEFAULT_SIZES);
	slot = table_slot_create(relation, NULL);
	scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	while (finished && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(context);
		add_batch(stats, slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
		if (stats->batches % BATCHES_BETWEEN_LOOKS == 0)
			finished = !(partition_statistics_are_waited_for(topic, number) ||
						 is_waited_for(root) || is_waited_for(segment->relid));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(context);
	PopActiveSnapshot();
	/* the lock stays */
	table_close(relation, NoLock);
	return finished;
}

static char *
timestamp_literal(TimestampTz timestamp)
{
	return psprintf("'%s'::pg_catalog.timestamptz", timestamptz_to_str(timestamp));
}

void
segment_statistics_store(int32 topic, int32 partition, const SegmentStatistics *stats)
{
	if (!segment_statistics_exist())
		return;
	extension_execute(SPI_OK_INSERT,
					  "INSERT INTO pgtopic.segment_statistics AS s (topic_id, partition, from_offset, to_offset,"
					  " messages, batches, min_timestamp, max_timestamp)"
					  " VALUES (%d, %d, " INT64_FORMAT ", " INT64_FORMAT ", " INT64_FORMAT ", " INT64_FORMAT ", %s, %s)"
					  " ON CONFLICT (topic_id, partition, from_offset) DO UPDATE SET to_offset = excluded.to_offset,"
					  " messages = excluded.messages, batches = excluded.batches,"
					  " min_timestamp = excluded.min_timestamp, max_timestamp = excluded.max_timestamp",
					  topic, partition, stats->from, stats->to, stats->messages, stats->batches,
					  stats->batches > 0 ? timestamp_literal(stats->min_timestamp) : "NULL",
					  stats->batches > 0 ? timestamp_literal(stats->max_timestamp) : "NULL");
}

void
segment_statistics_subtract(int32 topic, int32 partition, int64 from, int64 messages, int64 batches)
{
	if (!segment_statistics_exist())
		return;
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.segment_statistics SET messages = messages - " INT64_FORMAT
					  ", batches = batches - " INT64_FORMAT
					  " WHERE topic_id = %d AND partition = %d AND from_offset = " INT64_FORMAT,
					  messages, batches, topic, partition, from);
}

void
segment_statistics_delete_topic(int32 topic)
{
	if (!segment_statistics_exist())
		return;
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.segment_statistics WHERE topic_id = %d", topic);
}

void
segment_statistics_delete_beyond(int32 topic, int32 partition, int64 offset)
{
	if (!segment_statistics_exist())
		return;
	extension_execute(SPI_OK_DELETE,
					  "DELETE FROM pgtopic.segment_statistics WHERE topic_id = %d AND partition = %d"
					  " AND to_offset > " INT64_FORMAT, topic, partition, offset);
}

void
segment_statistics_delete_segment(int32 topic, int32 partition, int64 from)
{
	if (!segment_statistics_exist())
		return;
	extension_execute(SPI_OK_DELETE,
					  "DELETE FROM pgtopic.segment_statistics WHERE topic_id = %d AND partition = %d"
					  " AND from_offset = " INT64_FORMAT, topic, partition, from);
}
