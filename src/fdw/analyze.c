/*-------------------------------------------------------------------------
 *
 * analyze.c
 *	  ANALYZE of a topic's relation.
 *
 * The sample is of offsets, drawn at random, so that every message is as likely as any
 * other, however batches are made.  A batch is about a page (base/packing.h), so this
 * reads about as many pages as ANALYZE of a table does.  An offset that was rolled back
 * has no message, which tells how many messages there are.
 *
 * In a cluster the sample is of the partitions that this broker has, as their leader or
 * not; those that it has not are taken to be like them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "fdw/fdw.h"
#include "storage/batch_scan.h"
#include "storage/relation.h"
#include "storage/segments.h"

/* What has been sampled. */
typedef struct Sample
{
	Relation	relation;
	int32		topic;
	ValueFormat format;
	HeapTuple  *rows;			/* ascending by partition and offset */
	int			count;
	int64		messages;		/* that were met; not all of them are kept */
	int64		every;			/* of how many of them one is kept */
	Size		size;			/* of the rows kept */
	MemoryContext context;		/* of one row */
} Sample;

/*
 * Values can be long, and a sample is not to take more than maintenance_work_mem: where
 * it would, every second row of it is dropped, and only every second one is kept from then on.
 */
static void
thin_out(Sample *sample)
{
	int			kept = 0;

	sample->size = 0;
	for (int i = 0; i < sample->count; i++)
	{
		if (i % 2 == 0)
		{
			sample->rows[kept++] = sample->rows[i];
			sample->size += sample->rows[i]->t_len;
		}
		else
			heap_freetuple(sample->rows[i]);
	}
	sample->count = kept;
	sample->every *= 2;
}

static void
sample_message(Sample *sample, int32 partition, const LogMessage *message)
{
	Datum		values[RELATION_COLUMNS];
	bool		nulls[RELATION_COLUMNS];
	MemoryContext old;

	if (sample->messages++ % sample->every != 0)
		return;
	old = MemoryContextSwitchTo(sample->context);
	fdw_form_row(sample->topic, sample->format, partition, message, values, nulls);
	MemoryContextSwitchTo(old);
	sample->rows[sample->count] = heap_form_tuple(RelationGetDescr(sample->relation), values, nulls);
	sample->size += sample->rows[sample->count]->t_len;
	sample->count++;
	MemoryContextReset(sample->context);
	while (sample->size > (Size) maintenance_work_mem * 1024 && sample->count > 1)
		thin_out(sample);
}

static void
sample_partition(Sample *sample, int32 partition, const OffsetRange *ranges, int ranges_count)
{
	BatchScanCounts counts = {0};
	BatchScan	scan;
	int			first;
	int			last;

	batch_scan_begin(&scan, sample->topic, partition, GetActiveSnapshot(), false, BATCH_PAYLOAD,
					 DT_NOBEGIN, ranges, ranges_count, &counts);
	while (batch_scan_next(&scan, &first, &last))
	{
		compat_analyze_delay_point();
		for (int i = first; i <= last; i++)
		{
			LogMessage	message;

			batch_message(&scan.batch, i, &message);
			sample_message(sample, partition, &message);
		}
	}
	batch_scan_end(&scan);
}

/* Draws count of the numbers below total, or all of them; returns how many, ascending. */
static int
draw(int64 total, int count, int64 **numbers)
{
	*numbers = palloc(count * sizeof(int64));
	for (int i = 0; i < count; i++)
		(*numbers)[i] = total <= count ? i :
			(int64) pg_prng_uint64_range(&pg_global_prng_state, 0, total - 1);
	return offsets_sort(*numbers, (int) Min(total, count));
}

/* An AcquireSampleRowsFunc. */
static int
acquire_sample(Relation relation, int elevel, HeapTuple *rows, int wanted,
			   double *total_rows, double *dead_rows)
{
	Topic	   *topic = topic_of_relation(RelationGetRelid(relation), false);
	int			partitions_count = topic->partitions_count;
	OffsetRange *logs = palloc0(partitions_count * sizeof(OffsetRange));
	OffsetRange *ranges = palloc(wanted * sizeof(OffsetRange));
	Sample		sample = {relation, topic->id, topic->format, rows, 0, 0, 1, 0, NULL};
	double		everywhere = 0;
	int64		here = 0;
	int64	   *numbers;
	int			numbers_count;
	int			used = 0;

	fdw_topic_logs(sample.topic, partitions_count, logs);
	for (int p = 0; p < partitions_count; p++)
	{
		everywhere += logs[p].to - logs[p].from;
		if (fdw_partition_is_here(sample.topic, p))
			here += logs[p].to - logs[p].from;
	}
	relation_check_columns(relation, sample.format);
	numbers_count = draw(here, wanted, &numbers);

	sample.context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic sample",
										   ALLOCSET_DEFAULT_SIZES);
	PushActiveSnapshot(GetLatestSnapshot());
	here = 0;
	for (int p = 0; p < partitions_count; p++)
	{
		int			begin = used;

		if (!fdw_partition_is_here(sample.topic, p))
			continue;
		/* numbers count the offsets of the partitions one after the other */
		for (; used < numbers_count && numbers[used] - here < logs[p].to - logs[p].from; used++)
			numbers[used] += logs[p].from - here;
		sample_partition(&sample, p, ranges,
						 offsets_to_ranges(logs[p], numbers + begin, used - begin, ranges));
		here += logs[p].to - logs[p].from;
	}
	PopActiveSnapshot();
	MemoryContextDelete(sample.context);

	*total_rows = numbers_count > 0 ? everywhere * sample.messages / numbers_count : everywhere;
	*dead_rows = 0;
	ereport(elevel,
			(errmsg("\"%s\": topic contains about %.0f messages in %d partitions; %d rows in sample",
					RelationGetRelationName(relation), *total_rows, partitions_count, sample.count)));
	return sample.count;
}

static bool
analyze(Relation relation, AcquireSampleRowsFunc *function, BlockNumber *pages)
{
	Topic	   *topic = topic_of_relation(RelationGetRelid(relation), false);
	int32		id = topic->id;
	double		bytes = 0;

	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition;

		topic = topic_get(id);
		partition = &topic->partitions[p];
		if (!OidIsValid(partition->relation))
			continue;
		segments_load(partition);
		for (int i = 0; i < partition->segments_count; i++)
		{
			Relation	segment = try_table_open(partition->segments[i].relid, AccessShareLock);

			if (segment == NULL)
				continue;
			bytes += DatumGetInt64(DirectFunctionCall1(pg_table_size,
													   ObjectIdGetDatum(RelationGetRelid(segment))));
			table_close(segment, AccessShareLock);
		}
	}
	*pages = (BlockNumber) Min(bytes / BLCKSZ, MaxBlockNumber);
	*function = acquire_sample;
	return true;
}

void
fdw_analyze_routine(FdwRoutine *routine)
{
	routine->AnalyzeForeignTable = analyze;
}
