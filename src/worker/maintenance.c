/*-------------------------------------------------------------------------
 *
 * maintenance.c
 *	  The maintenance worker of one database: makes segments ahead of the
 *	  producers, stores watermarks, removes expired messages, and computes the
 *	  statistics of segments.
 *
 * Each task runs on its own: one that fails is logged with what it was doing,
 * noted for worker_status, and tried again later, while the others go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/topics.h"
#include "shmem/databases.h"
#include "shmem/slots.h"
#include "storage/partition_locks.h"
#include "storage/positions.h"
#include "storage/segments.h"
#include "worker/workers.h"

/* After a failure, and when somebody was in the way of retention. */
#define RETRY_MS	1000

/*
 * The partition that a slot belongs to.  If there is none, it has been dropped,
 * its creation was rolled back or is not yet committed, or a dump is being
 * restored into it; then the slot is given back, and NULL returned.  A topic of the same id may be another one by now, after
 * the extension was dropped and made again.
 */
static LogPartition *
partition_of_slot(const SlotReport *report)
{
	Topic	   *topic = topic_find(report->topic);

	if (topic != NULL && report->partition < topic->partitions_count &&
		topic->partitions[report->partition].relation == report->key.relation &&
		storage_is_complete(&topic->partitions[report->partition]))
		return &topic->partitions[report->partition];
	slot_forget(&report->key);
	return NULL;
}

/*
 * Makes one segment of a partition if it needs one, in a transaction of its own.
 * Returns true if it may need another.
 */
static bool
make_segment(const SlotReport *report)
{
	MemoryContext context = CurrentMemoryContext;
	LogPartition *partition;
	int64		end = 0;
	int64		size = 0;
	bool		enough = true;

	CHECK_FOR_INTERRUPTS();
	worker_begin_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	partition = partition_of_slot(report);

	/*
	 * Who drops the topic locks its root first.  Then this is not the time, and
	 * soon perhaps nothing to be done.
	 */
	if (partition != NULL)
	{
		if (!ConditionalLockRelationOid(partition->topic->root, AccessShareLock))
			partition = NULL;
		else
			partition = partition_of_slot(report);
	}
	if (partition != NULL)
	{
		if (!partition_is_led_here(partition))
			partition_lock_segments(partition);
		end = segments_end(partition);
		size = partition->topic->segment_messages;
		enough = end >= slot_segments_wanted(&report->key) + SEGMENTS_AHEAD * size;
		if (!enough)
		{
			ExtensionOwner saved;

			extension_owner_begin(&saved);
			SPI_connect();
			storage_create_segment(report->topic, report->partition, end, end + size);
			SPI_finish();
			extension_owner_end(&saved);
			end += size;
			/* followers have to have it before anything is written there */
			if (partition->leader != 0 && partition_is_led_here(partition))
				position_store(partition, POSITION_SEGMENTS_END, end);
		}
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	/* committed: now producers may use it */
	if (end > 0)
		slot_set_segments_end(&report->key, end, size);
	return !enough;
}

/* What is to be done for one slot, as a task. */
typedef struct SlotTask
{
	SlotReport	report;
	bool		more;			/* it wants another segment; or: it was stored */
} SlotTask;

static void
make_segment_task(void *arg)
{
	SlotTask   *task = arg;

	task->more = make_segment(&task->report);
}

/*
 * Makes one segment for each partition that wants some: a partition that wants
 * thousands must not keep the others waiting.  *more is set if there are wishes
 * left.  Returns false if something failed.
 */
static bool
make_wanted_segments(bool *more)
{
	int			position = 0;
	SlotTask	task;
	bool		succeeded = true;

	*more = false;
	while (slots_next(&position, &task.report))
	{
		if (!task.report.wants_segments)
			continue;
		task.more = false;
		succeeded &= worker_run_task(worker_describe(psprintf("making a segment of partition %d",
													 task.report.partition),
											task.report.topic),
									 make_segment_task, &task);
		*more |= task.more;
	}
	return succeeded;
}

/*
 * The partition of a slot, if this server leads it and its topic's root is locked;
 * else NULL, since somebody is dropping the topic.
 */
static LogPartition *
lock_partition_of_slot(const SlotReport *report)
{
	LogPartition *partition = partition_of_slot(report);

	if (partition == NULL || !partition_is_led_here(partition) ||
		!ConditionalLockRelationOid(partition->topic->root, AccessShareLock))
		return NULL;
	partition = partition_of_slot(report);
	return partition != NULL && partition_is_led_here(partition) ? partition : NULL;
}

/*
 * Whether the watermark has reached the end of a segment since it was stored last; also
 * if the map of segments is not at hand.
 */
static bool
passes_segment(const LogPartition *partition, const SlotReport *report)
{
	return !partition->segments_valid ||
		segmap_seek(partition->segments, partition->segments_count, report->high_watermark) !=
		segmap_seek(partition->segments, partition->segments_count, report->checkpointed);
}

static void
store_watermark_task(void *arg)
{
	SlotTask   *task = arg;
	SlotReport *report = &task->report;
	MemoryContext context = CurrentMemoryContext;
	LogPartition *partition;
	PartitionRow row;
	bool		stored = false;
	bool		completes = false;

	worker_begin_transaction();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	partition = partition_of_slot(report);
	if (partition != NULL && partition->leader != 0)
	{
		/* followers are told of it too; if it is led elsewhere, it is not ours to store */
		stored = !partition_is_led_here(partition);
		partition = lock_partition_of_slot(report);
	}
	if (partition != NULL && partition_row_read(partition, &row))
	{
		completes = passes_segment(partition, report);
		/* never wait for a transaction that deletes messages */
		extension_execute(SPI_OK_UPDATE,
						  "UPDATE pgtopic.partition SET high_watermark = " INT64_FORMAT
						  " WHERE ctid IN (SELECT ctid FROM pgtopic.partition"
						  " WHERE topic_id = %d AND partition = %d FOR NO KEY UPDATE SKIP LOCKED)",
						  report->high_watermark, report->topic, report->partition);
		stored = SPI_processed > 0;
		if (stored && partition->leader != 0 && row.replicas_count > 1)
			position_store(partition, POSITION_HIGH_WATERMARK, report->high_watermark);
	}
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);

	task->more = stored;
	if (stored && completes)
		statistics_want(report->topic, report->partition);
}

/*
 * Stores the watermarks that have moved since they were stored last.
 *
 * A watermark says that all transactions below it have ended.  It is read before
 * the transaction that stores it commits, so in WAL those commits come first: a
 * standby that sees the watermark sees what is below it.
 */
static bool
store_watermarks(void)
{
	int			position = 0;
	SlotTask	task;
	bool		succeeded = true;
	List	   *stored = NIL;
	ListCell   *cell;

	while (slots_next(&position, &task.report))
	{
		if (task.report.high_watermark == task.report.checkpointed)
			continue;
		task.more = false;
		succeeded &= worker_run_task(worker_describe("storing watermarks", task.report.topic),
									 store_watermark_task, &task);
		if (task.more)
		{
			SlotReport *copy = palloc(sizeof(SlotReport));

			*copy = task.report;
			stored = lappend(stored, copy);
		}
	}

	/* one flush for all of them; then a crash does not take them back either */
	if (stored != NIL)
		XLogFlush(XactLastCommitEnd);
	foreach(cell, stored)
	{
		SlotReport *report = lfirst(cell);

		slot_set_checkpointed(&report->key, report->high_watermark);
	}
	return succeeded;
}

/* The log start of a partition that this server leads, as its followers know it. */
typedef struct LogStart
{
	struct
	{
		int32		topic;
		int32		partition;
	}			key;			/* hash key, must be first */
	int64		log_start;		/* in the catalog */
	int64		told;			/* -1: nothing yet */
	bool		led;			/* as of the last look */
} LogStart;

static HTAB *log_starts = NULL;

/* Tells the followers of a partition what it starts with. */
static void
tell_log_start_task(void *arg)
{
	LogStart   *start = arg;
	MemoryContext context = CurrentMemoryContext;
	Topic	   *topic;
	PartitionRow row;
	bool		told = false;

	worker_begin_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	topic = topic_find(start->key.topic);
	if (topic != NULL && ConditionalLockRelationOid(topic->root, AccessShareLock))
	{
		LogPartition *partition = NULL;
		int64		known;

		topic = topic_find(start->key.topic);
		if (topic != NULL && start->key.partition < topic->partitions_count)
			partition = &topic->partitions[start->key.partition];
		if (partition != NULL && partition->leader != 0 && partition_is_led_here(partition) &&
			partition_row_read(partition, &row))
		{
			if (!position_read(partition, POSITION_LOG_START, &known) || known != row.log_start)
				position_store(partition, POSITION_LOG_START, row.log_start);
			if (!position_read(partition, POSITION_SEGMENTS_END, &known) || known < segments_end(partition))
				position_store(partition, POSITION_SEGMENTS_END, segments_end(partition));
			/* it is told with each move, which may be long ago or to come */
			if (!position_read(partition, POSITION_HIGH_WATERMARK, &known))
				position_store(partition, POSITION_HIGH_WATERMARK, row.high_watermark);
			told = true;
		}
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	if (told)
		start->told = row.log_start;
}

/* Reads the log starts of the replicated partitions that this server leads. */
static void
read_log_starts(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	HASH_SEQ_STATUS status;
	LogStart   *start;

	hash_seq_init(&status, log_starts);
	while ((start = hash_seq_search(&status)) != NULL)
		start->led = false;

	worker_begin_transaction();
	if (cluster_self() != 0)
	{
		SPI_connect();
		PushActiveSnapshot(GetTransactionSnapshot());
		extension_execute(SPI_OK_SELECT,
						  "SELECT topic_id, partition, log_start_offset FROM pgtopic.partition"
						  " WHERE leader = %d AND pg_catalog.cardinality(replicas) > 1",
						  cluster_self());
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			LogStart	found;
			bool		isnull;
			bool		known;

			found.key.topic = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
			found.key.partition = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
			start = hash_search(log_starts, &found.key, HASH_ENTER, &known);
			start->log_start = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
			start->led = true;
			if (!known)
				start->told = -1;
		}
		PopActiveSnapshot();
		SPI_finish();
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Tells followers of the log starts that have changed. */
static bool
tell_log_starts(void)
{
	HASH_SEQ_STATUS status;
	LogStart   *start;
	List	   *changed = NIL;
	ListCell   *cell;
	bool		succeeded;

	if (log_starts == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(start->key);
		info.entrysize = sizeof(LogStart);
		log_starts = hash_create("pgtopic log starts", 64, &info, HASH_ELEM | HASH_BLOBS);
	}
	succeeded = worker_run_task("reading log starts", read_log_starts, NULL);
	if (!succeeded)
		return false;

	/* a scan of a hash table must not outlive a transaction */
	hash_seq_init(&status, log_starts);
	while ((start = hash_seq_search(&status)) != NULL)
	{
		/* who leads it next begins anew */
		if (!start->led)
			hash_search(log_starts, &start->key, HASH_REMOVE, NULL);
		else if (start->told != start->log_start)
			changed = lappend(changed, start);
	}
	foreach(cell, changed)
	{
		start = lfirst(cell);
		succeeded &= worker_run_task(worker_describe("telling followers of the log start",
													 start->key.topic),
									 tell_log_start_task, start);
	}
	return succeeded;
}

static void
adopt_storage_task(void *arg)
{
	int32	   *topic = arg;
	MemoryContext context = CurrentMemoryContext;

	worker_begin_transaction();
	storage_adopt(*topic);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* After a restart nobody else says so. */
static void
look_for_cluster(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ClusterRow	row;

	worker_begin_transaction();
	if (cluster_row_read(&row))
		database_set_clustered(MyDatabaseId, true);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* See storage_adopt(). */
static void
adopt_storage(void *arg)
{
	int			count;
	int32	   *topics = worker_topics(&count);

	for (int i = 0; i < count; i++)
		(void) worker_run_task(worker_describe("adopting the storage", topics[i]),
							   adopt_storage_task, &topics[i]);
}

/* What a look at retention may do, and what it leaves to do. */
typedef struct RetentionTask
{
	bool		all;			/* or only what the last one left */
	bool		incomplete;
} RetentionTask;

static void
remove_expired(void *arg)
{
	RetentionTask *task = arg;

	task->incomplete = retention_run(task->all);
}

static bool
is_due(TimestampTz *last, int interval_ms)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(*last, now, interval_ms))
		return false;
	*last = now;
	return true;
}

void
pgtopic_maintenance_main(Datum arg)
{
	TimestampTz stored = 0;
	TimestampTz retained = 0;
	TimestampTz retried = 0;
	RetentionTask retention = {true, false};
	MemoryContext context;
	uint32		wait_event = compat_wait_event("PgtopicMaintenanceMain");

	context = worker_begin(WORKER_MAINTENANCE, DatumGetObjectId(arg));
	(void) worker_run_task("looking whether this database is in a cluster", look_for_cluster, NULL);
	(void) worker_run_task("adopting storage", adopt_storage, NULL);
	for (;;)
	{
		bool		succeeded;
		bool		more;
		bool		more_statistics;
		long		timeout;

		worker_round(context);
		succeeded = make_wanted_segments(&more);
		if (is_due(&stored, pgtopic_checkpoint_interval))
			succeeded &= store_watermarks() & tell_log_starts();
		retention.all = worker_take_retention_request() ||
			is_due(&retained, pgtopic_retention_check_interval);
		if (retention.all || (retention.incomplete && is_due(&retried, RETRY_MS)))
		{
			retention.incomplete = true;
			succeeded &= worker_run_task("removing expired messages", remove_expired, &retention);
		}
		succeeded &= statistics_run(&more_statistics);

		/* or autovacuum would not hear of the rows that were changed here */
		pgstat_report_stat(true);
		worker_doing(NULL);
		timeout = Min(pgtopic_checkpoint_interval, pgtopic_retention_check_interval);
		if (!succeeded)
			timeout = Max(timeout, RETRY_MS);
		if (more || (more_statistics && succeeded))
			continue;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, wait_event);
		ResetLatch(MyLatch);
	}
}
