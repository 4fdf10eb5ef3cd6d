/*-------------------------------------------------------------------------
 *
 * statistics.c
 *	  The maintenance worker's part that fills pgtopic.segment_statistics, for
 *	  segments that are complete.
 *
 * Partitions are looked at that somebody has named: where watermarks are stored, those
 * whose watermark has passed the end of a segment; retention's looks at all partitions,
 * the first of which comes when the worker starts, those where a segment is missing.
 * The latter finds what the former cannot: what was restored, what others lead, what
 * a new copy has taken back, and what has failed.
 *
 * What is computed and stored in one transaction is of one segment, and the worker goes
 * on to its other tasks after that.  All locks are only tried, and who waits for one of
 * them meanwhile gets it within milliseconds.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog/topics.h"
#include "storage/partition_locks.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"
#include "worker/workers.h"

/* How many partitions are looked at in one round, if there is nothing to compute. */
#define LOOKS_A_ROUND	16

/* A partition that is to be looked at. */
typedef struct Wanted
{
	int32		topic;
	int32		partition;
} Wanted;

/* In the order in which they are looked at; in TopMemoryContext. */
static List *queue = NIL;

static void
add_to_queue(int32 topic, int32 partition)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Wanted	   *wanted = palloc(sizeof(Wanted));

	wanted->topic = topic;
	wanted->partition = partition;
	queue = lappend(queue, wanted);
	MemoryContextSwitchTo(old);
}

void
statistics_want(int32 topic, int32 partition)
{
	ListCell   *cell;

	foreach(cell, queue)
	{
		const Wanted *wanted = lfirst(cell);

		if (wanted->topic == topic && wanted->partition == partition)
			return;
	}
	add_to_queue(topic, partition);
}

void
statistics_look(LogPartition *partition, int64 high_watermark)
{
	Segment		segment;

	if (segment_statistics_next(partition, high_watermark, &segment))
		statistics_want(partition->topic->id, partition->number);
}

typedef enum LookResult
{
	LOOK_DONE,					/* there is nothing to compute */
	LOOK_STORED,				/* a segment; there may be another one */
	LOOK_BUSY					/* somebody is in the way */
} LookResult;

typedef struct LookTask
{
	Wanted		wanted;
	LookResult	result;
} LookTask;

/* The partition, if it is there, and all its tables, and no dump is being restored. */
static LogPartition *
find_partition(const Wanted *wanted)
{
	Topic	   *topic = topic_find_any(wanted->topic);
	LogPartition *partition;

	if (topic == NULL || topic->damaged || wanted->partition >= topic->partitions_count)
		return NULL;
	partition = &topic->partitions[wanted->partition];
	if (!OidIsValid(partition->relation) || !storage_is_complete(partition))
		return NULL;
	return partition;
}

static LookResult
look(const Wanted *wanted)
{
	LogPartition *partition;
	PartitionRow row;
	Segment		segment;
	SegmentStatistics stats;

	if (!partition_try_lock_statistics(wanted->topic, wanted->partition))
		return LOOK_BUSY;
	partition = find_partition(wanted);
	if (partition == NULL)
		return LOOK_DONE;
	/* who drops the topic locks its root first */
	if (!ConditionalLockRelationOid(partition->topic->root, AccessShareLock))
		return LOOK_BUSY;
	partition = find_partition(wanted);
	/* the watermark that is stored, since on a follower all agree below that */
	if (partition == NULL || !partition_row_read(partition, &row) ||
		!segment_statistics_next(partition, row.high_watermark, &segment))
		return LOOK_DONE;
	if (!segment_statistics_compute(partition, &segment, &stats))
		return LOOK_BUSY;

	SPI_connect();
	segment_statistics_store(wanted->topic, wanted->partition, &stats);
	SPI_finish();
	return LOOK_STORED;
}

static void
look_task(void *arg)
{
	LookTask   *task = arg;
	MemoryContext context = CurrentMemoryContext;

	CHECK_FOR_INTERRUPTS();
	worker_begin_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	task->result = look(&task->wanted);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

bool
statistics_run(bool *more)
{
	int			looks = Min(list_length(queue), LOOKS_A_ROUND);
	int			left = list_length(queue);
	bool		succeeded = true;
	bool		stored = false;

	while (looks-- > 0 && !stored)
	{
		Wanted	   *first = linitial(queue);
		LookTask	task = {*first, LOOK_DONE};

		queue = list_delete_first(queue);
		pfree(first);
		left--;
		/* one that fails is named again by the next look at all */
		succeeded &= worker_run_task(worker_describe(psprintf("computing statistics of a segment of partition %d",
															  task.wanted.partition),
													 task.wanted.topic),
									 look_task, &task);
		if (task.result != LOOK_DONE)
			add_to_queue(task.wanted.topic, task.wanted.partition);
		stored = task.result == LOOK_STORED;
	}
	/* those that somebody is in the way of can wait */
	*more = stored || left > 0;
	return succeeded;
}
