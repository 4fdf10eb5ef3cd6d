/*-------------------------------------------------------------------------
 *
 * retention.c
 *	  Removing messages that have expired or been deleted.
 *
 * Two steps, each of which can be repeated at any time.  First the log start
 * offset moves, in the catalog: from then on nobody reads what is before it.
 * Then what is before it goes: whole segments are dropped, and of the segment
 * that holds the log start the rows before it are deleted.
 *
 * The locks that keep others away are only tried.  A segment that somebody reads,
 * dumps or has produced to in an open transaction stays for now; its messages are
 * out of reach all the same.  A lock that somebody else holds on a whole partition
 * is waited for no longer than the worker's lock_timeout.
 *
 * Producers that number their messages expire here too, by a time of their own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/segmap.h"
#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/topics.h"
#include "cluster/restored.h"
#include "log/producers.h"
#include "storage/batches.h"
#include "storage/partition_state.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"
#include "worker/workers.h"

/* What a topic keeps. */
typedef struct Retention
{
	bool		by_time;
	TimestampTz cutoff;
	bool		by_size;
	int64		bytes;
} Retention;

/* There is no time before 4713 BC; what is kept that long is kept for ever. */
static Retention
read_retention(int32 topic)
{
	Retention	retention = {false, 0, false, 0};
	bool		no_time;
	bool		no_size;
	Datum		cutoff;
	Datum		bytes;

	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "SELECT CASE WHEN retention < '6000 years' THEN pg_catalog.now() - retention END,"
					  " retention_bytes"
					  " FROM pgtopic.topic WHERE id = %d", topic);
	if (SPI_processed == 1)
	{
		cutoff = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &no_time);
		bytes = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &no_size);
		retention.by_time = !no_time;
		retention.cutoff = no_time ? 0 : DatumGetTimestampTz(cutoff);
		retention.by_size = !no_size;
		retention.bytes = no_size ? 0 : DatumGetInt64(bytes);
	}
	SPI_finish();
	return retention;
}

/*
 * Where the log starts if all batches go, from its start on, of which every
 * message is older than the cutoff.  It stops at the first that is not, even if
 * later ones are older still: the log has no holes.
 */
static int64
start_by_time(LogPartition *partition, int64 log_start, int64 high_watermark,
			  TimestampTz cutoff)
{
	LogReader	reader;
	RecordBatch batch;
	int64		start = log_start;

	PushActiveSnapshot(GetLatestSnapshot());
	reader_begin(&reader, partition, log_start, high_watermark, false);
	while (reader_next_batch(&reader, &batch) && batch.timestamp < cutoff)
		start = batch.last_offset + 1;
	reader_end(&reader);
	PopActiveSnapshot();
	return start;
}

static int64
segment_size(const Segment *segment)
{
	/* 0 if it has been dropped meanwhile */
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo	flinfo;
	Datum		size;

	fmgr_info(F_PG_TOTAL_RELATION_SIZE, &flinfo);
	InitFunctionCallInfoData(*fcinfo, &flinfo, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(segment->relid);
	fcinfo->args[0].isnull = false;
	size = FunctionCallInvoke(fcinfo);
	return fcinfo->isnull ? 0 : DatumGetInt64(size);
}

/*
 * Where the log starts if the oldest segments go that are too many bytes.  Only
 * segments all of whose messages are settled can go.
 */
static int64
start_by_size(LogPartition *partition, int64 log_start, int64 high_watermark, int64 limit)
{
	int64	   *sizes;
	int64		rest = 0;
	int			full = 0;
	int			expired;

	segments_load(partition);
	sizes = palloc((partition->segments_count + 1) * sizeof(int64));
	for (int i = 0; i < partition->segments_count; i++)
	{
		int64		size;

		/* what is before the log start is gone for this purpose */
		if (partition->segments[i].to <= log_start)
		{
			sizes[full++] = 0;
			continue;
		}
		size = segment_size(&partition->segments[i]);
		if (partition->segments[i].to <= high_watermark)
			sizes[full++] = size;
		else
			rest += size;
	}
	expired = segmap_expired_by_size(sizes, full, rest, limit);
	pfree(sizes);
	return expired == 0 ? log_start : Max(log_start, partition->segments[expired - 1].to);
}

/* Moves the log start, if nobody else is about to. */
static void
move_log_start(const LogPartition *partition, int64 start)
{
	SPI_connect();
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.partition SET log_start_offset = " INT64_FORMAT
					  " WHERE ctid IN (SELECT ctid FROM pgtopic.partition"
					  " WHERE topic_id = %d AND partition = %d AND log_start_offset < " INT64_FORMAT
					  " FOR NO KEY UPDATE SKIP LOCKED)",
					  start, partition->topic->id, partition->number, start);
	SPI_finish();
}

/*
 * Finds a partition anew in a new transaction; NULL if it is gone, or a dump is
 * being restored into it.
 */
static LogPartition *
begin(int32 topic_id, int32 number, PartitionRow *row)
{
	Topic	   *topic;

	CHECK_FOR_INTERRUPTS();
	worker_begin_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	topic = topic_find(topic_id);
	if (topic != NULL && number < topic->partitions_count &&
		OidIsValid(topic->partitions[number].relation) &&
		storage_is_complete(&topic->partitions[number]) &&
		partition_row_read(&topic->partitions[number], row))
		return &topic->partitions[number];
	return NULL;
}

static void
end(MemoryContext context)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

static void
expire(int32 topic, int32 number)
{
	MemoryContext context = CurrentMemoryContext;
	PartitionRow row;
	LogPartition *partition = begin(topic, number, &row);

	/* followers go by the log start that their leader tells them */
	if (partition != NULL && partition_is_led_here(partition))
	{
		Retention	retention = read_retention(topic);

		if (retention.by_time || retention.by_size)
		{
			SlotState	state;
			int64		start = row.log_start;

			partition_state(partition, &state);
			if (retention.by_time)
				start = start_by_time(partition, start, state.high_watermark, retention.cutoff);
			if (retention.by_size)
				start = start_by_size(partition, start, state.high_watermark, retention.bytes);
			if (start > row.log_start)
				move_log_start(partition, start);
		}
	}
	end(context);
}

/*
 * Forgets some producers that have expired.  Returns true if there may be more.
 */
static bool
expire_producers(int32 topic, int32 number)
{
	MemoryContext context = CurrentMemoryContext;
	PartitionRow row;
	LogPartition *partition;
	TimestampTz before = GetCurrentTimestamp() - pgtopic_producer_expiration * USECS_PER_SEC;
	bool		more = false;

	if (pgtopic_producer_expiration < 0)
		return false;
	partition = begin(topic, number, &row);
	/* followers forget those that their leader does */
	if (partition != NULL && partition_is_led_here(partition))
		more = producers_expire(partition, before);
	end(context);
	return more;
}

/*
 * Drops the first segment that ends before the log start.  Returns true if there
 * may be another one; sets *incomplete if somebody is in the way.
 */
static bool
drop_one_segment(int32 topic, int32 number, bool *incomplete)
{
	MemoryContext context = CurrentMemoryContext;
	PartitionRow row;
	LogPartition *partition = begin(topic, number, &row);
	bool		dropped = false;

	if (partition != NULL)
	{
		segments_load(partition);
		/* the last one stays: it says where the next one begins */
		if (partition->segments_count > 1 && partition->segments[0].to <= row.log_start)
		{
			Segment		segment = partition->segments[0];

			dropped = storage_try_drop_segment(partition, &segment);
			*incomplete |= !dropped;
			if (dropped)
			{
				SPI_connect();
				segment_statistics_delete_segment(topic, number, segment.from);
				SPI_finish();
			}
		}
	}
	end(context);
	return dropped;
}

/* Deletes rows of a segment, and counts them out of its statistics, if there are some. */
static void
delete_rows_before(int32 topic, int32 number, const Segment *segment, int64 log_start)
{
	char	   *name = get_rel_name(segment->relid);
	bool		isnull;

	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "WITH gone AS (DELETE FROM pgtopic.%s WHERE last_offset < " INT64_FORMAT
					  " RETURNING last_offset - base_offset + 1 AS messages)"
					  " SELECT COALESCE(pg_catalog.sum(messages), 0)::pg_catalog.int8, pg_catalog.count(*) FROM gone",
					  quote_identifier(name), log_start);
	segment_statistics_subtract(topic, number, segment->from,
								DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)),
								DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)));
	SPI_finish();
}

/*
 * Deletes the rows before the log start in the segment that holds it.  Each look at a
 * partition ends with this; so it has the partition's statistics looked at, too.
 */
static void
delete_rows(int32 topic, int32 number)
{
	MemoryContext context = CurrentMemoryContext;
	PartitionRow row;
	LogPartition *partition = begin(topic, number, &row);

	if (partition != NULL)
		statistics_look(partition, row.high_watermark);
	if (partition != NULL && row.log_start > 0)
	{
		int			i;

		segments_load(partition);
		i = segmap_seek(partition->segments, partition->segments_count, row.log_start);
		if (i < partition->segments_count && partition->segments[i].from < row.log_start)
		{
			RecordBatch first;
			RecordBatch last;

			if (segment_bounds(partition, partition->segments[i].relid, &first, &last) &&
				first.last_offset < row.log_start)
			{
				Segment		segment = partition->segments[i];

				delete_rows_before(topic, number, &segment, row.log_start);
			}
		}
	}
	end(context);
}

/* What is to be done for one topic, as a task of the worker. */
typedef struct TopicTask
{
	int32		topic;
	bool		incomplete;
} TopicTask;

static void
run_topic(void *arg)
{
	TopicTask  *task = arg;
	MemoryContext context = CurrentMemoryContext;
	Topic	   *topic;
	int			partitions;
	bool		settled;

	worker_begin_transaction();
	settled = restored_settle(task->topic);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	task->incomplete = !settled;
	if (!settled)
		return;

	worker_begin_transaction();
	topic = topic_find(task->topic);
	partitions = topic ? topic->partitions_count : 0;
	if (topic != NULL)
		storage_add_columns(task->topic);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	for (int p = 0; p < partitions; p++)
	{
		expire(task->topic, p);
		while (expire_producers(task->topic, p))
			;
		while (drop_one_segment(task->topic, p, &task->incomplete))
			;
		delete_rows(task->topic, p);
	}
}

bool
retention_run(bool all)
{
	static List *left = NIL;	/* topics that the last run has not finished */
	int			count;
	int32	   *topics = worker_topics(&count);
	List	   *now_left = NIL;
	MemoryContext old;

	for (int i = 0; i < count; i++)
	{
		TopicTask	task = {topics[i], false};

		if (!all && !list_member_int(left, topics[i]))
			continue;

		/* each on its own: the others' messages expire all the same */
		if (!worker_run_task(worker_describe("removing expired messages", topics[i]),
							 run_topic, &task) || task.incomplete)
			now_left = lappend_int(now_left, topics[i]);
	}
	pfree(topics);

	list_free(left);
	old = MemoryContextSwitchTo(TopMemoryContext);
	left = list_copy(now_left);
	MemoryContextSwitchTo(old);
	return left != NIL;
}
