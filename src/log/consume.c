/*-------------------------------------------------------------------------
 *
 * consume.c
 *	  Taking messages for a consumer group.
 *
 * One transaction at a time consumes a partition for a group: it holds the lock
 * of (group, partition) to its end.  The position is read with a fresh snapshot
 * after the lock was got, so it is what the last consumer committed, and the
 * messages with another one after that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "log/consume.h"
#include "shmem/slots.h"
#include "storage/partition_state.h"
#include "storage/positions.h"

void
group_check_name(const char *group)
{
	if (group[0] == '\0' || strlen(group) > GROUP_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a consumer group: \"%s\"", group),
				 errdetail("It has 1 to %d bytes.", GROUP_NAME_MAX)));
	if (position_is_reserved(group))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a consumer group: \"%s\"", group),
				 errdetail("It does not begin with a control character.")));
}

/*
 * Where a group goes on in a partition: at its position or, if it has none or
 * that has expired, at the start of the log.
 */
static int64
group_offset(LogPartition *partition, const char *group, int64 log_start)
{
	int64		offset = 0;

	(void) position_read(partition, group, &offset);
	return Max(offset, log_start);
}

/* What sink_nothing() counts is enough for log_can_consume(). */
static void
sink_nothing(void *arg, int32 partition, const LogMessage *message)
{
}

/* What a look at the partitions may do. */
typedef enum LookMode
{
	LOOK_PEEK,					/* leave no trace */
	LOOK_CONSUME,				/* move the position over what was read */
	LOOK_LAST					/* move it over rolled-back messages too */
} LookMode;

/*
 * Takes up to max messages of one partition, if it has any and nobody else is
 * consuming it.
 */
static int64
consume_partition(LogPartition *partition, const char *group, int64 max, LookMode mode,
				  MessageSink sink, void *arg)
{
	SlotState	state;
	ReadResult	result;
	int64		log_start;
	int64		offset;
	bool		taken;

	/* a first look without the lock, which most partitions do not pass */
	partition_state(partition, &state);
	if (state.next_offset == 0)
		return 0;
	log_start = partition_log_start(partition);
	offset = group_offset(partition, group, log_start);
	if (offset >= state.high_watermark)
		return 0;

	/*
	 * Giving the lock back wakes those who sleep on the topic, ourselves included.
	 * So who is about to sleep takes it only where there is a message.
	 */
	if (mode != LOOK_LAST &&
		log_read(partition, offset, 1, state.high_watermark, sink_nothing, NULL).messages == 0)
		return 0;
	if (!position_try_lock(partition, group, &taken))
		return 0;

	/* the log start of before will do: what is gone cannot be read */
	offset = group_offset(partition, group, log_start);
	partition_state(partition, &state);
	result.messages = 0;
	result.next_offset = offset;
	if (offset < state.high_watermark)
		result = log_read(partition, offset, max, state.high_watermark, sink, arg);

	/*
	 * The position moves over rolled-back messages too, so that a group that has
	 * read all has no lag.  But who is about to sleep does not move it for these
	 * alone, since that would keep the partition from others all the while.
	 */
	if ((result.messages > 0 && mode != LOOK_PEEK) ||
		(result.next_offset > offset && mode == LOOK_LAST))
	{
		(void) topic_lock(partition->topic->id);
		position_write(partition, group, result.next_offset);
		slots_forbid_prepare("consume()");
	}
	else if (taken)
		position_unlock(partition, group);
	return result.messages;
}

/*
 * Which partition a group's next call begins with, in this session.  The group
 * is known by a hash of its name: two that share one only share their turns.
 */
typedef struct Turn
{
	struct
	{
		int32		topic;
		uint32		group;
	}			key;			/* hash key, must be first */
	uint32		next;
} Turn;

static Turn *
turn_of(const Topic *topic, const char *group)
{
	static HTAB *turns = NULL;
	Turn		wanted;
	Turn	   *turn;
	bool		found;

	if (turns == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(wanted.key);
		info.entrysize = sizeof(Turn);
		turns = hash_create("pgtopic turns", 16, &info, HASH_ELEM | HASH_BLOBS);
	}
	wanted.key.topic = topic->id;
	wanted.key.group = hash_bytes((const unsigned char *) group, (int) strlen(group));
	turn = hash_search(turns, &wanted.key, HASH_ENTER, &found);
	/* sessions start at random, or those of a pool would all meet in one partition */
	if (!found)
		turn->next = pg_prng_uint32(&pg_global_prng_state);
	return turn;
}

/*
 * Tries the partitions one after the other, beginning where the last call left
 * off, so that a busy partition cannot keep the others waiting.
 */
static int64
consume_any(Topic *topic, const char *group, int64 max, LookMode mode,
			MessageSink sink, void *arg)
{
	int			count = topic->partitions_count;
	Turn	   *turn = turn_of(topic, group);

	for (int i = 0; i < count; i++)
	{
		int			number = (int) ((turn->next + (uint32) i) % (uint32) count);
		int64		messages;

		CHECK_FOR_INTERRUPTS();
		messages = consume_partition(&topic->partitions[number], group, max, mode, sink, arg);
		if (messages > 0)
		{
			if (mode != LOOK_PEEK)
				turn->next = (uint32) number + 1;
			return messages;
		}
	}
	return 0;
}

int64
log_consume(int32 topic_id, const char *group, int64 max, Deadline deadline,
			MessageSink sink, void *arg)
{
	MemoryContext look;
	bool		last = deadline.none;

	group_check_name(group);

	look = AllocSetContextCreate(CurrentMemoryContext, "pgtopic look",
								 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		MemoryContext old = MemoryContextSwitchTo(look);
		Topic	   *topic;
		int64		messages;

		/* looked up each time: it may have been dropped while we slept */
		topic = topic_get(topic_id);
		topic_check_use(topic);

		/*
		 * Prepare to sleep, then look: a commit in between wakes us, and so does
		 * the end of a transaction that has consumed, which may have put messages
		 * back.
		 */
		ConditionVariablePrepareToSleep(topic_condition(topic_id));
		messages = consume_any(topic, group, max, last ? LOOK_LAST : LOOK_CONSUME,
							   sink, arg);

		MemoryContextSwitchTo(old);
		MemoryContextReset(look);
		if (messages > 0 || last)
		{
			ConditionVariableCancelSleep();
			MemoryContextDelete(look);
			return messages;
		}
		last = !wait_until(topic_condition(topic_id), &deadline);
	}
}

bool
log_can_consume(int32 topic_id, const char *group)
{
	Topic	   *topic = topic_get(topic_id);

	topic_check_use(topic);
	return consume_any(topic, group, 1, LOOK_PEEK, sink_nothing, NULL) > 0;
}
