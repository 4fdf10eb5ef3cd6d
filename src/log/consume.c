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

#include "catalog/cluster.h"
#include "catalog/relations.h"
#include "log/consume.h"
#include "log/forward.h"
#include "peer/transaction.h"
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
 * consuming it.  Sets *moved if only the position has moved.
 */
static int64
consume_partition(LogPartition *partition, const char *group, int64 max, LookMode mode,
				  MessageSink sink, void *arg, bool *moved)
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
		*moved |= result.messages == 0;
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
	int32		broker;			/* whose turn it was */
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
	{
		turn->next = pg_prng_uint32(&pg_global_prng_state);
		turn->broker = (int32) (turn->next % BROKERS_MAX);
	}
	return turn;
}

/*
 * Tries the partitions one after the other, beginning where the last call left
 * off, so that a busy partition cannot keep the others waiting.
 */
static int64
consume_any(Topic *topic, const char *group, int64 max, LookMode mode,
			MessageSink sink, void *arg, bool *moved)
{
	int			count = topic->partitions_count;
	Turn	   *turn = turn_of(topic, group);

	for (int i = 0; i < count; i++)
	{
		int			number = (int) ((turn->next + (uint32) i) % (uint32) count);
		LogPartition *partition = &topic->partitions[number];
		int64		messages;

		CHECK_FOR_INTERRUPTS();
		if (!partition_is_ready_here(partition))
			continue;
		messages = consume_partition(partition, group, max, mode, sink, arg, moved);
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
log_consume_here(int32 topic_id, const char *group, int64 max, bool last,
				 MessageSink sink, void *arg, bool *moved)
{
	group_check_name(group);
	*moved = false;
	return consume_any(topic_get(topic_id), group, max, last ? LOOK_LAST : LOOK_CONSUME,
					   sink, arg, moved);
}

static bool
can_consume_here(Topic *topic, const char *group)
{
	bool		moved = false;

	return consume_any(topic, group, 1, LOOK_PEEK, sink_nothing, NULL, &moved) > 0;
}

bool
log_wait_here(int32 topic_id, const char *group, Deadline deadline)
{
	ConditionVariable *condition = topic_condition(topic_id);
	MemoryContext look = AllocSetContextCreate(CurrentMemoryContext, "pgtopic look",
											   ALLOCSET_DEFAULT_SIZES);
	bool		ready;

	group_check_name(group);
	do
	{
		MemoryContext old = MemoryContextSwitchTo(look);

		ConditionVariablePrepareToSleep(condition);
		ready = can_consume_here(topic_get(topic_id), group);
		MemoryContextSwitchTo(old);
		MemoryContextReset(look);
	} while (!ready && wait_until(condition, &deadline));
	ConditionVariableCancelSleep();
	MemoryContextDelete(look);
	return ready;
}

/* --- with the partitions that other brokers lead --- */

/* How soon a broker that cannot be reached is tried again. */
#define FAILURE_AGAIN_MS	1000

/* Between two looks while a leader is handing over, or gone; nobody wakes us when it has. */
#define CHANGING_POLL_MS	100

void
watch_begin(GroupWatch *watch, int32 topic, const char *group, Deadline deadline)
{
	group_check_name(group);
	memset(watch, 0, sizeof(GroupWatch));
	watch->topic = topic;
	watch->group = group;
	watch->deadline = deadline;
	watch->until = deadline.at;
	watch->context = CurrentMemoryContext;
}

/*
 * A broker cannot be reached.  It, or who leads then, and the others get a while; then it
 * is an error.
 */
static void
note_failure(GroupWatch *watch, ConsumePlace *place, const PeerFailure *failure)
{
	place->failed_at = GetCurrentTimestamp();
	if (watch->failure.broker == 0)
		watch->deadline.at = Min(watch->deadline.at,
								 TimestampTzPlusMilliseconds(place->failed_at,
															 Max(leader_wait_ms(), FAILURE_AGAIN_MS)));
	else
		pfree(watch->failure.detail);
	watch->failure.broker = failure->broker;
	watch->failure.detail = MemoryContextStrdup(watch->context, failure->detail);
}

/* Who leads the topic's partitions may have changed. */
static void
update_places(GroupWatch *watch, Topic *topic)
{
	ConsumePlace places[BROKERS_MAX];
	int			count = 0;
	bool		failed = false;

	watch->here = false;
	watch->changing = false;
	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition = &topic->partitions[p];
		int			i = 0;

		watch->changing |= partition->successor != 0;
		if (partition_is_led_here(partition))
		{
			watch->here = true;
			continue;
		}
		while (i < count && places[i].broker != partition->leader)
			i++;
		if (i < count || count == BROKERS_MAX)
			continue;
		places[count].broker = partition->leader;
		places[count].look = true;
		places[count].ready = false;
		places[count].failed_at = 0;
		places[count].waiting = NULL;
		for (int old = 0; old < watch->count; old++)
		{
			if (watch->places[old].broker == partition->leader)
				places[count] = watch->places[old];
		}
		if (places[count].failed_at != 0)
		{
			failed = true;
			if (TimestampDifferenceExceeds(places[count].failed_at, GetCurrentTimestamp(), FAILURE_AGAIN_MS))
			{
				/* once more; if that goes well, the next look finds nothing that has failed */
				places[count].failed_at = 0;
				places[count].look = true;
			}
		}
		count++;
	}
	memcpy(watch->places, places, count * sizeof(ConsumePlace));
	watch->count = count;
	watch->changing |= failed;
	if (!failed && watch->failure.broker != 0)
	{
		/* others lead now, or it is back */
		pfree(watch->failure.detail);
		watch->failure.broker = 0;
		watch->deadline.at = watch->until;
	}
}

/* The topic, and a place to sleep: what happens from here on wakes us. */
static Topic *
watch_topic(GroupWatch *watch)
{
	/* looked up each time: it may have been dropped while we slept */
	Topic	   *topic = topic_get(watch->topic);

	topic_check_consume(topic);
	update_places(watch, topic);
	ConditionVariablePrepareToSleep(topic_condition(watch->topic));
	return topic;
}

/*
 * The place behind one, going round by the brokers' numbers; this broker counts
 * among the others.  -1 is this broker's.
 */
static int
next_place(const GroupWatch *watch, int32 behind, int32 *broker)
{
	int			best = -1;
	int64		best_distance = PG_INT64_MAX;

	for (int i = watch->here ? -1 : 0; i < watch->count; i++)
	{
		int32		id = i < 0 ? cluster_self() : watch->places[i].broker;
		int64		distance = (int64) id - behind;

		if (distance <= 0)
			distance += PG_UINT32_MAX;
		if (distance < best_distance)
		{
			best = i;
			best_distance = distance;
			*broker = id;
		}
	}
	return best;
}

/*
 * Goes round the places, beginning behind the one that gave last.  Those that could not
 * be reached the last time come at the end, since that may take a while again.
 */
static int64
consume_around(GroupWatch *watch, Topic *topic, int64 max, LookMode mode,
			   MessageSink sink, void *arg)
{
	Turn	   *turn = turn_of(topic, watch->group);
	int			places_count = watch->count + (watch->here ? 1 : 0);
	bool		moved = false;

	if (watch->count == 0)
		return consume_any(topic, watch->group, max, mode, sink, arg, &moved);

	for (int round = 0; round < 2; round++)
	{
		int32		broker = turn->broker;

		for (int i = 0; i < places_count; i++)
		{
			int			number = next_place(watch, broker, &broker);
			int64		messages = 0;

			CHECK_FOR_INTERRUPTS();
			if (number < 0 && round == 0)
				messages = consume_any(topic, watch->group, max, mode, sink, arg, &moved);
			else if (number >= 0)
			{
				ConsumePlace *place = &watch->places[number];
				PeerFailure failure = {0};

				if ((!place->look && mode != LOOK_LAST) ||
					peer_has_failed(broker) != (round == 1))
					continue;
				place->look = false;
				place->waiting = NULL;
				messages = forward_consume(broker, watch->topic, watch->group, max,
										   mode == LOOK_LAST, sink, arg, &failure);
				if (failure.broker != 0)
					note_failure(watch, place, &failure);
			}
			if (messages > 0)
			{
				turn->broker = broker;
				return messages;
			}
		}
	}
	return 0;
}

/* Has the other brokers say when there is something. */
static void
start_waits(GroupWatch *watch)
{
	for (int i = 0; i < watch->count; i++)
	{
		ConsumePlace *place = &watch->places[i];
		PeerFailure failure = {0};

		if (place->waiting || place->look || place->failed_at != 0)
			continue;
		place->waiting = forward_wait(place->broker, watch->topic, watch->group,
									  deadline_milliseconds(&watch->deadline), &failure);
		if (failure.broker != 0)
			note_failure(watch, place, &failure);
	}
}

/* Hears what they say; with all, waits for each of them. */
static bool
hear_waits(GroupWatch *watch, bool all)
{
	bool		ready = false;

	for (int i = 0; i < watch->count; i++)
	{
		ConsumePlace *place = &watch->places[i];
		bool		lost;

		if (place->waiting == NULL || (!all && !peer_wait_is_over(place->waiting)))
			continue;
		place->ready = forward_waited(place->waiting, &lost);
		place->waiting = NULL;
		/* a new connection will tell whether it can be reached */
		place->look = place->ready || lost;
		ready |= place->ready;
	}
	return ready;
}

bool
watch_sleep(GroupWatch *watch)
{
	ConditionVariable *condition = topic_condition(watch->topic);
	pgsocket	sockets[BROKERS_MAX];
	int			count = 0;

	if (watch->count == 0 && !watch->changing)
		return wait_until(condition, &watch->deadline);
	for (int i = 0; i < watch->count; i++)
	{
		Peer	   *peer = watch->places[i].waiting;

		if (peer && peer->conn)
			sockets[count++] = PQsocket(peer->conn);
	}
	if (!wait_until_readable(condition, &watch->deadline,
							 watch->changing ? CHANGING_POLL_MS : PG_INT32_MAX, sockets, count))
		return false;
	(void) hear_waits(watch, false);
	return true;
}

bool
watch_look(GroupWatch *watch)
{
	Topic	   *topic = watch_topic(watch);
	bool		ready = false;

	ready = can_consume_here(topic, watch->group);
	for (int i = 0; i < watch->count; i++)
	{
		ready |= watch->places[i].ready;
		watch->places[i].look = watch->places[i].ready = false;
	}
	if (ready || watch->count == 0)
		return ready;
	start_waits(watch);
	return watch->deadline.none && hear_waits(watch, true);
}

void
watch_end(GroupWatch *watch, bool ready)
{
	ConditionVariableCancelSleep();
	/* they end by themselves too, but there is no need to keep them */
	for (int i = 0; i < watch->count; i++)
	{
		if (watch->places[i].waiting)
			peer_end_wait(watch->places[i].waiting);
	}
	if (!ready && watch->failure.broker != 0)
		peer_raise_failure(&watch->failure);
}

int64
log_consume(int32 topic_id, const char *group, int64 max, Deadline deadline,
			MessageSink sink, void *arg)
{
	GroupWatch	watch;
	MemoryContext look;
	bool		last = deadline.none;

	watch_begin(&watch, topic_id, group, deadline);
	look = AllocSetContextCreate(CurrentMemoryContext, "pgtopic look",
								 ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		MemoryContext old = MemoryContextSwitchTo(look);
		Topic	   *topic = watch_topic(&watch);
		int64		messages;

		/*
		 * We are prepared to sleep, and now look: a commit in between wakes us, and so
		 * does the end of a transaction that has consumed, which may have put messages
		 * back.
		 */
		messages = consume_around(&watch, topic, max, last ? LOOK_LAST : LOOK_CONSUME,
								  sink, arg);
		if (messages == 0 && !last)
			start_waits(&watch);
		MemoryContextSwitchTo(old);
		MemoryContextReset(look);
		if (messages > 0 || last)
		{
			watch_end(&watch, messages > 0);
			MemoryContextDelete(look);
			return messages;
		}
		last = !watch_sleep(&watch);
	}
}
