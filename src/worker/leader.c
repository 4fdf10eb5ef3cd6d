/*-------------------------------------------------------------------------
 *
 * leader.c
 *	  The replication worker's part that leads: who of the followers is in sync,
 *	  and handing over.
 *
 * A follower comes into the in-sync replicas in this order, so that what is settled
 * is always on all of them:
 *	1. it reports that its copy is complete and streams (publish_ready())
 *	2. the watermark waits for it from here on (joining); what was written before is
 *	   in its copy or in its stream
 *	3. it has confirmed all that was written up to then (ready): what it confirms
 *	   from now on, it has
 *	4. the metadata says that it is in sync
 * It leaves them the other way round: first the metadata says so, then the watermark
 * waits for it no more.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/topics.h"
#include "cluster/change.h"
#include "cluster/publish.h"
#include "shmem/cluster_state.h"
#include "shmem/followers.h"
#include "shmem/slots.h"
#include "storage/partition_locks.h"
#include "storage/partition_state.h"
#include "worker/replication.h"
#include "worker/workers.h"

/* The worker has other things to do than to wait for a controller. */
#define WORKER_WAIT_MS	2000

/* What has been reported is reported again if the metadata does not show it by then. */
#define REPORT_AGAIN_MS	1000

#define FORGET_MS		60000

/* A partition that this broker leads, and that has other replicas. */
typedef struct Led
{
	int32		topic;
	int32		partition;
	PartitionRow row;
} Led;

/* One of its followers. */
typedef struct Follower
{
	int32		topic;
	int32		partition;
	int32		follower;
	int32		placement;
	char	   *state;
} Follower;

/* For people: partition 3 of topic "orders". */
static char *
described(const Led *led)
{
	return worker_describe(psprintf("partition %d", led->partition), led->topic);
}

/* What is remembered of a follower of a partition from one look to the next. */
typedef struct Memory
{
	struct
	{
		int32		topic;
		int32		partition;
		int32		follower;	/* -broker: handing over to it */
		int32		leader_epoch;
	}			key;			/* hash key, must be first */
	int64		since_ms;		/* not ready since; handing over since */
	XLogRecPtr	confirm;		/* joining: to be confirmed up to here; Invalid: not begun */
	int64		reported_ms;	/* when the controller was told; 0: not yet */
	int32		reported_revision;	/* of the partition then */
	int32		released;		/* 1 + the revision with which it was told that this one
								 * is not in sync, or counts for nothing any more */
	int64		used_ms;
} Memory;

typedef struct Look
{
	int32		self;
	Led		   *led;
	int			led_count;
	Follower *followers;
	int			followers_count;
} Look;

static HTAB *memories = NULL;
static bool somebody_copies;	/* in this round */
static MemoryContext round_context;

static Memory *
memory_of(const Led *led, int32 follower)
{
	Memory		wanted;
	Memory	   *memory;
	bool		found;

	if (memories == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(wanted.key);
		info.entrysize = sizeof(Memory);
		memories = hash_create("pgtopic followers", 64, &info, HASH_ELEM | HASH_BLOBS);
	}
	wanted.key.topic = led->topic;
	wanted.key.partition = led->partition;
	wanted.key.follower = follower;
	wanted.key.leader_epoch = led->row.leader_epoch;
	memory = hash_search(memories, &wanted.key, HASH_ENTER, &found);
	if (!found)
	{
		memory->since_ms = cluster_clock_ms();
		memory->confirm = InvalidXLogRecPtr;
		memory->reported_ms = 0;
		memory->released = 0;
	}
	memory->used_ms = cluster_clock_ms();
	return memory;
}

/* Forgets what nobody has asked for for a while: partitions that others lead by now. */
static void
forget_unused(void)
{
	HASH_SEQ_STATUS status;
	Memory	   *memory;

	if (memories == NULL)
		return;
	hash_seq_init(&status, memories);
	while ((memory = hash_seq_search(&status)) != NULL)
	{
		if (cluster_clock_ms() - memory->used_ms > FORGET_MS)
			hash_search(memories, &memory->key, HASH_REMOVE, NULL);
	}
}

/*
 * Whether the controller has been told something of late that is not in the metadata
 * here yet.
 */
static bool
is_reported(const Led *led, const Memory *memory)
{
	return memory->reported_ms != 0 && led->row.revision == memory->reported_revision &&
		cluster_clock_ms() - memory->reported_ms < REPORT_AGAIN_MS;
}

static void
forget(const Led *led, int32 follower)
{
	Memory	   *memory = memory_of(led, follower);

	hash_search(memories, &memory->key, HASH_REMOVE, NULL);
}

static void
look(void *arg)
{
	Look	   *result = arg;
	ExtensionOwner saved;
	int			count;

	worker_owner_begin(&saved);
	result->self = cluster_self();
	extension_execute(SPI_OK_SELECT,
					  "SELECT p.topic_id, p.partition FROM pgtopic.partition p, pgtopic.cluster c"
					  " WHERE p.leader = c.self AND pg_catalog.cardinality(p.replicas) > 1 ORDER BY 1, 2");
	count = (int) SPI_processed;
	result->led = MemoryContextAllocZero(round_context, (count + 1) * sizeof(Led));
	for (int i = 0; i < count; i++)
	{
		Led		   *led = &result->led[result->led_count];

		led->topic = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		led->partition = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2));
		if (partition_row_by_number(led->topic, led->partition, &led->row))
			result->led_count++;
	}
	extension_execute(SPI_OK_SELECT, "SELECT topic_id, partition, follower, state, placement FROM pgtopic.follower");
	count = (int) SPI_processed;
	result->followers = MemoryContextAllocZero(round_context, (count + 1) * sizeof(Follower));
	result->followers_count = count;
	for (int i = 0; i < count; i++)
	{
		Follower *row = &result->followers[i];

		row->topic = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		row->partition = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2));
		row->follower = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3));
		row->placement = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 5));
		row->state = MemoryContextStrdup(round_context,
										 SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 4));
		/*
		 * After a restart nobody else makes one known that is lagging, and what is not
		 * known cannot be seen to catch up.
		 */
		if (follower_find(MyDatabaseId, row->follower) < 0)
		{
			char		slot[NAMEDATALEN];

			follower_slot_name(cluster_id(), result->self, row->follower, slot);
			(void) follower_mask(MyDatabaseId, row->follower, slot);
		}
	}
	worker_owner_end(&saved, round_context);
}

static int32
placement_of(const Led *led, int32 broker)
{
	for (int i = 0; i < led->row.replicas_count; i++)
	{
		if (led->row.replicas[i] == broker)
			return led->row.placements[i];
	}
	return 0;
}

static const char *
state_of(const Look *look, const Led *led, int32 follower)
{
	for (int i = 0; i < look->followers_count; i++)
	{
		const Follower *row = &look->followers[i];

		if (row->topic == led->topic && row->partition == led->partition && row->follower == follower &&
			row->placement == placement_of(led, follower))
			return row->state;
	}
	return "";
}

static bool
in_sync(const Led *led, int32 broker)
{
	for (int i = 0; i < led->row.isr_count; i++)
	{
		if (led->row.isr[i] == broker)
			return true;
	}
	return false;
}

/*
 * Writes something to WAL, and returns where.  Who has confirmed that has all that was
 * committed before.  It also has followers move on that copy tables, which wait
 * for something to come.
 */
static XLogRecPtr
mark_wal(void)
{
	XLogRecPtr	lsn = compat_log_logical_message("pgtopic");

	XLogFlush(lsn);
	return lsn;
}

/* Has the partition's slot know who confirms, and returns a mark in WAL from after that. */
static XLogRecPtr
update_slot(const Led *led)
{
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	partition_lock_replicas(led->topic, led->partition);
	(void) partition_update_slot(topic_partition_get(topic_get(led->topic), led->partition));
	worker_owner_end(&saved, round_context);
	return mark_wal();
}

/*
 * Sets the state of a follower, if it is what it was, and then has the partition's slot
 * know.  Returns a mark in WAL from after that; Invalid if the follower is elsewhere.
 */
static XLogRecPtr
change_state(const Led *led, int32 follower, const char *from, const char *to)
{
	ExtensionOwner saved;
	bool		done;

	worker_owner_begin(&saved);
	partition_lock_replicas(led->topic, led->partition);
	done = publish_change_state(follower, led->topic, led->partition, from, to);
	worker_owner_end(&saved, round_context);
	return done ? update_slot(led) : InvalidXLogRecPtr;
}

/* A follower that has begun anew counts for nothing any more, and may do so. */
static void
release(const Led *led, int32 follower)
{
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	partition_lock_replicas(led->topic, led->partition);
	publish_release(follower, led->topic, led->partition);
	worker_owner_end(&saved, round_context);
	(void) update_slot(led);
}

static void
change_isr(const Look *look, const Led *led, int32 follower, bool joins)
{
	const char *args[8];
	ChangeResult change;

	/* what has made earlier reports void does not do so with this one */
	if (joins)
		memory_of(led, follower)->released = 0;
	worker_begin_transaction();
	args[0] = psprintf("%d", led->topic);
	args[1] = psprintf("%d", led->partition);
	args[2] = psprintf("%d", look->self);
	args[3] = psprintf("%d", led->row.leader_epoch);
	args[4] = psprintf("%d", follower);
	args[5] = joins ? "1" : "0";
	args[6] = psprintf("%d", placement_of(led, follower));
	args[7] = psprintf("%d", led->row.revision);
	change = cluster_change(CHANGE_ISR, args, 8, WORKER_WAIT_MS);
	CommitTransactionCommand();
	MemoryContextSwitchTo(round_context);
	memory_of(led, follower)->reported_ms = cluster_clock_ms();
	memory_of(led, follower)->reported_revision = led->row.revision;
	/* without effect: there is newer metadata, which says so already, or that another one leads */
	if (change.version == 0)
		return;
	ereport(LOG,
			(errmsg(joins ? "pgtopic broker %d is in sync with %s" :
					"pgtopic broker %d is not in sync with %s any more",
					follower, described(led))));
}

/* How a follower's slot is: what it has confirmed, and when it had all. */
static bool
follower_confirms(int32 follower, XLogRecPtr *confirmed, TimestampTz *caught_up)
{
	int			index = follower_find(MyDatabaseId, follower);
	FollowerState state;

	if (index < 0 || !follower_state(index, &state))
		return false;
	*confirmed = state.confirmed;
	*caught_up = state.caught_up_at;
	return state.has_slot && !XLogRecPtrIsInvalid(*confirmed);
}

/*
 * Whether nobody can count a follower as in sync any more, whatever was reported before
 * and may be under way: the metadata does not, and has been changed since by a report
 * that says so, or by fencing it.  The watermark waits for it until then.  True: it can
 * be let go.
 */
static bool
is_released(const Look *look, const Led *led, int32 follower, Memory *memory)
{
	if (!in_sync(led, follower) && (cluster_state_is_fenced(follower) ||
									(memory->released != 0 && led->row.revision >= memory->released)))
		return true;
	memory->released = led->row.revision + 1;
	change_isr(look, led, follower, false);
	return false;
}

/* One follower of one partition; true if something is under way. */
static bool
look_after(const Look *look, const Led *led, int32 follower)
{
	const char *state = state_of(look, led, follower);
	bool		is_in_sync = in_sync(led, follower);
	Memory	   *memory = memory_of(led, follower);
	XLogRecPtr	confirmed = InvalidXLogRecPtr;
	TimestampTz caught_up = 0;
	TimestampTz now = GetCurrentTimestamp();
	/* who is fenced comes back by itself, and into sync after that */
	bool		confirms = !cluster_state_is_fenced(follower) &&
		follower_confirms(follower, &confirmed, &caught_up);
	bool		keeps_up;
	bool		waits;			/* commits and the watermark, for it */

	if (is_reported(led, memory))
		return true;
	if (strcmp(state, FOLLOWER_IS_REPORTED) == 0 ||
		(strcmp(state, FOLLOWER_IS_JOINING) == 0 && XLogRecPtrIsInvalid(memory->confirm)))
	{
		memory->confirm = change_state(led, follower, state, FOLLOWER_IS_JOINING);
		/* it has its time for that */
		memory->since_ms = cluster_clock_ms();
		return true;
	}
	if (strcmp(state, FOLLOWER_IS_JOINING) == 0 && confirms && confirmed >= memory->confirm)
	{
		if (XLogRecPtrIsInvalid(change_state(led, follower, state, FOLLOWER_IS_READY)))
			return true;
		memory->since_ms = cluster_clock_ms();
		state = FOLLOWER_IS_READY;
		if (!is_in_sync)
		{
			change_isr(look, led, follower, true);
			return true;
		}
	}

	keeps_up = strcmp(state, FOLLOWER_IS_READY) == 0 && confirms &&
		!TimestampDifferenceExceeds(caught_up, now, pgtopic_replica_lag_time_max);
	if (keeps_up)
	{
		/* as of when it had everything: the time that it may lag does not begin twice */
		memory->since_ms = cluster_clock_ms() - TimestampDifferenceMilliseconds(caught_up, now);
		if (!is_in_sync)
			change_isr(look, led, follower, true);
		return !is_in_sync;
	}

	if (strcmp(state, FOLLOWER_IS_FORGOTTEN) == 0)
	{
		/* it waits for this, to begin anew */
		if (!is_released(look, led, follower, memory))
			return true;
		release(led, follower);
		return false;
	}
	if (strcmp(state, FOLLOWER_IS_LAGGING) == 0 && !is_in_sync)
	{
		/* it has caught up: once more through the steps */
		if (confirms && !TimestampDifferenceExceeds(caught_up, now, Max(pgtopic_replica_lag_time_max / 2, 100)))
		{
			memory->confirm = InvalidXLogRecPtr;
			(void) change_state(led, follower, state, FOLLOWER_IS_REPORTED);
			return true;
		}
		return false;
	}
	if (strcmp(state, FOLLOWER_IS_PUBLISHED) == 0 && confirms)
		somebody_copies = true;
	/* one that was fenced is not waited for any longer than it takes to let go of it */
	waits = strcmp(state, FOLLOWER_IS_READY) == 0 || strcmp(state, FOLLOWER_IS_JOINING) == 0;
	if (cluster_clock_ms() - memory->since_ms < pgtopic_replica_lag_time_max &&
		!(waits && cluster_state_is_fenced(follower)))
		return strcmp(state, FOLLOWER_IS_JOINING) == 0 || strcmp(state, FOLLOWER_IS_PUBLISHED) == 0;
	if (is_in_sync)
	{
		change_isr(look, led, follower, false);
		return true;
	}
	/* the watermark may still wait for it, though it is in no metadata */
	if (strcmp(state, FOLLOWER_IS_READY) == 0 && !is_released(look, led, follower, memory))
		return true;
	if (waits)
		(void) change_state(led, follower, state, FOLLOWER_IS_LAGGING);
	return false;
}

static bool
is_drained(const Led *led)
{
	ExtensionOwner saved;
	bool		drained;

	worker_owner_begin(&saved);
	drained = partition_is_drained(topic_partition_get(topic_get(led->topic), led->partition));
	worker_owner_end(&saved, round_context);
	return drained;
}

/*
 * A partition that is to be handed over takes nothing any more (its slot is closed).
 * When nobody writes to it and its successor has confirmed all that was written,
 * the successor can lead.
 */
static bool
hand_over(const Look *look, const Led *led)
{
	int32		successor = led->row.successor;
	Memory	   *memory = memory_of(led, -successor);
	XLogRecPtr	confirmed = InvalidXLogRecPtr;
	TimestampTz caught_up;
	bool		done = false;
	const char *args[7];

	if (is_reported(led, memory))
		return true;
	if (strcmp(state_of(look, led, successor), FOLLOWER_IS_READY) == 0 && is_drained(led))
	{
		if (XLogRecPtrIsInvalid(memory->confirm))
			memory->confirm = update_slot(led);
		done = follower_confirms(successor, &confirmed, &caught_up) && confirmed >= memory->confirm;
	}
	if (!done && cluster_clock_ms() - memory->since_ms < pgtopic_handover_timeout)
		return true;

	worker_begin_transaction();
	args[0] = psprintf("%d", led->topic);
	args[1] = psprintf("%d", led->partition);
	args[2] = psprintf("%d", look->self);
	args[3] = psprintf("%d", led->row.leader_epoch);
	args[4] = psprintf("%d", successor);
	args[5] = done ? "1" : "0";
	args[6] = psprintf("%d", led->row.revision);
	(void) cluster_change(CHANGE_HAND_OVER, args, 7, WORKER_WAIT_MS);
	CommitTransactionCommand();
	MemoryContextSwitchTo(round_context);
	if (done)
		ereport(LOG,
				(errmsg("pgtopic has handed over %s to broker %d", described(led), successor)));
	else
		ereport(LOG,
				(errmsg("pgtopic could not hand over %s to broker %d", described(led), successor),
				 errdetail("Transactions that have written to it did not end within %d ms, or broker %d did not keep up.",
						   pgtopic_handover_timeout, successor),
				 errhint("See partition_status for who blocks it.")));
	memory->reported_ms = cluster_clock_ms();
	memory->reported_revision = led->row.revision;
	return true;
}

typedef struct LedTask
{
	const Look *look;
	const Led  *led;
	bool		busy;
} LedTask;

static void
lead(void *arg)
{
	LedTask    *task = arg;
	const Led  *led = task->led;

	/* as long as the metadata here is behind, it would be asked for what is done already */
	for (int i = 0; i < led->row.replicas_count; i++)
	{
		if (led->row.replicas[i] != task->look->self)
			task->busy |= look_after(task->look, led, led->row.replicas[i]);
	}
	/* a handover that was called off leaves no trace for the next one */
	for (int i = 0; i < led->row.replicas_count; i++)
	{
		if (led->row.replicas[i] != led->row.successor)
			forget(led, -led->row.replicas[i]);
	}
	if (led->row.successor != 0)
		task->busy |= hand_over(task->look, led);
}

/*
 * The slot of a follower that is in sync with nothing here and holds more WAL than is
 * kept for it is dropped.  It begins again when it is back.
 */
static void
bound_wal(void *arg)
{
	const Look *look = arg;
	ExtensionOwner saved;
	int			count;
	int32	   *followers;

	if (pgtopic_follower_wal_keep_size < 0)
		return;
	worker_owner_begin(&saved);
	extension_execute(SPI_OK_SELECT,
					  "SELECT b.id FROM pgtopic.broker b, pgtopic.cluster c, pg_catalog.pg_replication_slots s"
					  " WHERE s.slot_name = 'pgtopic_' || c.cluster_id || '_' || c.self || '_' || b.id"
					  " AND pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn) > %d * 1048576.0"
					  " AND NOT EXISTS (SELECT FROM pgtopic.partition p WHERE p.leader = c.self AND b.id = ANY (p.isr))",
					  pgtopic_follower_wal_keep_size);
	count = (int) SPI_processed;
	followers = MemoryContextAlloc(round_context, (count + 1) * sizeof(int32));
	for (int i = 0; i < count; i++)
		followers[i] = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	for (int i = 0; i < count; i++)
	{
		publish_end(followers[i]);
		ereport(LOG,
				(errmsg("pgtopic does not keep WAL for broker %d any more", followers[i]),
				 errdetail("It is not in sync, and needs more than pgtopic.follower_wal_keep_size, %d MB.",
						   pgtopic_follower_wal_keep_size)));
	}
	worker_owner_end(&saved, round_context);

	/* it may have been out of sync in the metadata, and waited for all the same */
	for (int i = 0; count > 0 && i < look->led_count; i++)
		(void) update_slot(&look->led[i]);
}

/*
 * A slot that was in use when its partition came to be led here, or elsewhere, is
 * dealt with when it is not any more.
 */
static void
update_stale_slots(void *arg)
{
	ExtensionOwner saved;
	int			count;
	int32	   *topics;

	worker_owner_begin(&saved);
	extension_execute(SPI_OK_SELECT, "SELECT id FROM pgtopic.topic");
	count = (int) SPI_processed;
	topics = MemoryContextAlloc(round_context, (count + 1) * sizeof(int32));
	for (int i = 0; i < count; i++)
		topics[i] = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	for (int i = 0; i < count; i++)
	{
		Topic	   *topic = topic_find_any(topics[i]);

		for (int p = 0; topic && !topic->damaged && p < topic->partitions_count; p++)
		{
			if (partition_is_led_here(&topic->partitions[p]) &&
				partition_slot_is_stale(&topic->partitions[p]))
				(void) partition_update_slot(&topic->partitions[p]);
		}
	}
	worker_owner_end(&saved, round_context);
}

bool
leader_run(void)
{
	static int64 bounded_at = 0;
	Look		now;
	bool		busy = false;

	round_context = CurrentMemoryContext;
	memset(&now, 0, sizeof(now));
	somebody_copies = false;
	/* the acks worker looks seldom while nothing waits for it */
	(void) slots_confirm(followers_poll());
	if (!worker_run_task("looking at what this broker leads", look, &now))
		return false;
	for (int i = 0; i < now.led_count; i++)
	{
		LedTask		task = {&now, &now.led[i], false};

		busy |= worker_run_task(psprintf("looking after the followers of %s", described(&now.led[i])),
								lead, &task) && task.busy;
	}
	if (somebody_copies)
		(void) mark_wal();
	if (cluster_clock_ms() - bounded_at > 1000)
	{
		bounded_at = cluster_clock_ms();
		forget_unused();
		(void) worker_run_task("looking at slots of partitions", update_stale_slots, NULL);
		(void) worker_run_task("looking at the WAL kept for followers", bound_wal, &now);
	}
	return busy;
}
