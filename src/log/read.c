/*-------------------------------------------------------------------------
 *
 * read.c
 *	  Reading a partition from an offset, and finding offsets by time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog/cluster.h"
#include "catalog/relations.h"
#include "log/forward.h"
#include "log/leaders.h"
#include "log/read.h"
#include "storage/partition_state.h"

/*
 * A broker that was stopped between a watermark and its snapshot may have been deposed
 * meanwhile, and have cut its copy and got another leader's messages: not what the
 * watermark was about.  The catalog says so before the copy is cut, and so, after the
 * snapshot was taken, does the cache.
 */
static void
check_still_led(int32 topic_id, int32 number, int32 leader_epoch)
{
	LogPartition *partition = topic_partition_get(topic_get(topic_id), number);

	if (!partition_is_led_here(partition) || partition->leader_epoch != leader_epoch)
		error_not_leader(partition);
}

/*
 * The order is: watermark, then snapshot, then rows.  The watermark says that
 * the transactions below it had ended; a snapshot taken after that sees what
 * they did.  The statement's own snapshot may be older than the watermark, in
 * every isolation level, and would miss messages below it for good.
 */
ReadResult
log_read(LogPartition *partition, int64 from, int64 max, int64 high_watermark,
		 MessageSink sink, void *arg)
{
	ReadResult	result = {0, 0, from};
	LogReader	reader;
	LogMessage	message;
	int32		topic_id = partition->topic->id;
	int32		number = partition->number;
	int32		leader_epoch = partition->leader_epoch;
	bool		more = true;

	PushActiveSnapshot(GetLatestSnapshot());
	reader_begin(&reader, partition, from, high_watermark, RecoveryInProgress());
	while (result.messages < max && (more = reader_next(&reader, &message)))
	{
		if (result.messages++ == 0)
			result.first_offset = message.offset;
		result.next_offset = message.offset + 1;
		sink(arg, partition->number, &message);
	}
	/* what is missing below the watermark has been rolled back for good */
	if (!more)
		result.next_offset = Max(result.next_offset, reader.settled);
	reader_end(&reader);
	PopActiveSnapshot();
	if (!RecoveryInProgress() && cluster_self() != 0)
		check_still_led(topic_id, number, leader_epoch);
	return result;
}

static void
error_out_of_range(const LogPartition *partition, int64 from, int64 start, int64 end)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("offset " INT64_FORMAT " is out of range for partition %d of topic \"%s\"",
					from, partition->number, partition->topic->name),
			 errdetail("The log starts at " INT64_FORMAT " and ends at " INT64_FORMAT ".",
					   start, end)));
}

/*
 * Reads what is settled now.  *settled is how far an earlier look has found that
 * there is nothing, and saves looking there again.
 */
static int64
fetch_now(LogPartition *partition, int64 from, int64 max, int64 *settled,
		  MessageSink sink, void *arg)
{
	SlotState	state;
	ReadResult	result;
	int64		start = partition_log_start(partition);

	partition_state(partition, &state);
	/* who has read at the next leader already is not told that there is no such offset */
	if (from > state.next_offset)
		leader_check_state(partition, &state);
	if (from < start || from > state.next_offset)
		error_out_of_range(partition, from, start, state.next_offset);
	/* a standby's watermark is old; its readers look beyond */
	if (state.high_watermark <= *settled && !RecoveryInProgress())
		return 0;

	result = log_read(partition, from, max, state.high_watermark, sink, arg);

	/*
	 * Retention may have been here between the two.  What it took away is an
	 * error to whoever asked for it, not something to skip in silence.
	 */
	if (result.messages == 0 || result.first_offset > from)
	{
		start = partition_log_start(partition);
		if (from < start)
			error_out_of_range(partition, from, start, state.next_offset);
	}
	*settled = result.next_offset;
	return result.messages;
}

/*
 * forwarding: whether to ask the leader, if that is another broker; if not, that is
 * an error.
 */
static int64
fetch(int32 topic_id, int32 number, int64 from, int64 max, Deadline deadline, bool forwarding,
	  MessageSink sink, void *arg)
{
	MemoryContext look = AllocSetContextCreate(CurrentMemoryContext, "pgtopic look",
											   ALLOCSET_DEFAULT_SIZES);
	Attempt		attempt = {0};
	int64		settled = from;

	for (;;)
	{
		MemoryContext old = MemoryContextSwitchTo(look);
		Topic	   *topic;
		LogPartition *partition;
		ConditionVariable *condition = NULL;
		int64		messages;
		bool		over;

		/* looked up each time: it may have been dropped while we slept */
		topic = topic_get(topic_id);
		topic_check_consume(topic);
		partition = topic_partition_get(topic, number);

		if (!partition_is_led_here(partition) || partition_is_stale_here(partition))
		{
			int32		leader;

			if (!forwarding)
				error_not_leader(partition);
			leader = partition_leader(topic_id, number, false);
			messages = leader == 0 ? -1 : forward_fetch(leader, topic_id, number, from, max,
									 &deadline, sink, arg, &attempt);
		}
		else
		{
			/*
			 * Prepare to sleep, then look: a commit in between wakes us.  What reads
			 * buffers meanwhile may use this process's condition variable for itself;
			 * the sleep then returns at once, and we look again.
			 */
			condition = partition_condition(&partition->slot.key);
			ConditionVariablePrepareToSleep(condition);
			messages = fetch_now(partition, from, max, &settled, sink, arg);
		}

		MemoryContextSwitchTo(old);
		MemoryContextReset(look);
		if (messages < 0)
			continue;
		over = messages > 0;
		if (!over && condition)
			over = !wait_until(condition, &deadline);
		else if (!over)
			over = deadline_milliseconds(&deadline) <= 0;
		if (over)
		{
			ConditionVariableCancelSleep();
			MemoryContextDelete(look);
			return messages;
		}
	}
}

int64
log_fetch(int32 topic, int32 partition, int64 from, int64 max, Deadline deadline,
		  MessageSink sink, void *arg)
{
	return fetch(topic, partition, from, max, deadline, true, sink, arg);
}

int64
log_fetch_here(int32 topic, int32 partition, int64 from, int64 max, Deadline deadline,
			   MessageSink sink, void *arg)
{
	return fetch(topic, partition, from, max, deadline, false, sink, arg);
}

/* Finds the first message of a batch that is as new as the batch. */
static int64
first_message_at(LogPartition *partition, int64 from, int64 high_watermark,
				 TimestampTz timestamp)
{
	LogReader	reader;
	LogMessage	message;
	int64		found = from;

	reader_begin(&reader, partition, from, high_watermark, RecoveryInProgress());
	while (reader_next(&reader, &message))
	{
		if (message.timestamp >= timestamp)
		{
			found = message.offset;
			break;
		}
	}
	reader_end(&reader);
	return found;
}

int64
log_offset_at(LogPartition *partition, TimestampTz timestamp)
{
	SlotState	state;
	LogReader	reader;
	RecordBatch batch;
	int64		found = partition_log_start(partition);

	partition_state(partition, &state);
	PushActiveSnapshot(GetLatestSnapshot());
	reader_begin(&reader, partition, found, state.high_watermark, RecoveryInProgress());
	for (;;)
	{
		int64		from = reader.from;

		if (!reader_next_batch(&reader, &batch))
			break;
		/* a batch's timestamp is its newest message's: one of them is as new */
		if (batch.timestamp >= timestamp)
		{
			found = first_message_at(partition, Max(from, batch.base_offset),
									 state.high_watermark, timestamp);
			break;
		}
		found = batch.last_offset + 1;
	}
	reader_end(&reader);
	PopActiveSnapshot();
	return found;
}

/* The same as log_offsets_at(); false if it is to be begun again. */
static bool
offsets_at(int32 topic_id, TimestampTz timestamp, int64 *offsets, int count, Attempt *attempt)
{
	Topic	   *topic = topic_get(topic_id);
	Place		place = {0};
	int32	   *leaders = palloc(count * sizeof(int32));
	bool		done = true;

	for (int p = 0; p < count; p++)
	{
		LogPartition *partition = topic_partition_get(topic, p);

		leaders[p] = partition_is_led_here(partition) ? 0 : partition->leader;
		if (leaders[p] == 0)
			offsets[p] = log_offset_at(partition, timestamp);
	}
	place.partitions = palloc(count * sizeof(int32));
	for (int p = 0; p < count && done; p++)
	{
		if (leaders[p] == 0)
			continue;
		place.broker = leaders[p];
		place.count = 0;
		for (int q = p; q < count; q++)
		{
			if (leaders[q] != place.broker)
				continue;
			place.partitions[place.count++] = q;
			leaders[q] = 0;
		}
		done = forward_offsets_at(&place, topic_id, timestamp, offsets, attempt);
	}
	pfree(leaders);
	pfree(place.partitions);
	return done;
}

void
log_offsets_at(int32 topic, TimestampTz timestamp, int64 *offsets, int count)
{
	Attempt		attempt = {0};

	while (!offsets_at(topic, timestamp, offsets, count, &attempt))
		;
}
