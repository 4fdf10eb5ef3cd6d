/*-------------------------------------------------------------------------
 *
 * slots_xact.c
 *	  What a backend does for the slots when its transaction ends.
 *
 * CommitTransaction() and AbortTransaction() (xact.c) call the transaction
 * callbacks when the transaction has left the proc array: its rows are visible
 * or dead for every snapshot taken from then on.  That is the moment to close
 * its appends.  Nothing here may raise an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/settings.h"
#include "shmem/slots.h"
#include "shmem/slots_private.h"

/* An open append, or that positions of the slot's partition are written. */
typedef struct MyUse
{
	int			slot;
	int32		append;			/* OPENLIST_NONE: positions are written */
} MyUse;

/* A topic whose sleepers are woken at the end. */
typedef struct MyWake
{
	int32		topic;
	bool		all_partitions;
} MyWake;

static MyUse *my_uses = NULL;
static int	my_uses_count = 0;
static int	my_uses_size = 0;

/* For each slot, what there is of it among them. */
static uint8 *my_slots = NULL;

#define MY_APPEND	0x01
#define MY_WRITE	0x02

/* For each slot, how many replicas have to be in sync for the commit. */
static uint8 *my_wanted = NULL;

/* The slots whose followers are to confirm the commit, which this one holds. */
static int *my_waits = NULL;
static uint8 *my_waits_wanted = NULL;
static int	my_waits_count = 0;
static XLogRecPtr my_waits_lsn = InvalidXLogRecPtr;

static MyWake *my_wakes = NULL;
static int	my_wakes_count = 0;
static int	my_wakes_size = 0;

static const char *no_prepare_call = NULL;

void
slots_xact_prepare(void)
{
	int			size = Max(2 * my_uses_size, 16);

	if (my_slots == NULL)
	{
		my_wanted = MemoryContextAllocZero(TopMemoryContext, pgtopic_max_partitions);
		my_slots = MemoryContextAllocZero(TopMemoryContext, pgtopic_max_partitions);
		slots_acks_prepare();
	}
	if (my_uses_count < my_uses_size)
		return;
	if (my_uses == NULL)
	{
		my_uses = MemoryContextAlloc(TopMemoryContext, size * sizeof(MyUse));
		my_waits = MemoryContextAlloc(TopMemoryContext, size * sizeof(int));
		my_waits_wanted = MemoryContextAlloc(TopMemoryContext, size);
	}
	else
	{
		my_waits = repalloc(my_waits, size * sizeof(int));
		my_waits_wanted = repalloc(my_waits_wanted, size);
		my_uses = repalloc(my_uses, size * sizeof(MyUse));
	}
	my_uses_size = size;
}

/*
 * While a transaction has an append in a slot or writes positions of its
 * partition, the slot belongs to the same partition.
 */
bool
slots_xact_has_append(int slot)
{
	return (my_slots[slot] & MY_APPEND) != 0;
}

bool
slots_xact_writes(int slot)
{
	return (my_slots[slot] & MY_WRITE) != 0;
}

static void
add(int slot, int32 append, uint8 what)
{
	my_uses[my_uses_count].slot = slot;
	my_uses[my_uses_count].append = append;
	my_uses_count++;
	my_slots[slot] |= what;
}

void
slots_xact_add_append(int slot, int32 append)
{
	add(slot, append, MY_APPEND);
}

void
slots_xact_add_write(int slot)
{
	add(slot, OPENLIST_NONE, MY_WRITE);
}

void
slots_xact_await_insync(int slot, int wanted)
{
	Assert(slot >= 0 && my_slots[slot] != 0);
	my_wanted[slot] = Max(my_wanted[slot], wanted);
}

void
slots_wake_at_end(int32 topic, bool all_partitions)
{
	for (int i = 0; i < my_wakes_count; i++)
	{
		if (my_wakes[i].topic == topic)
		{
			my_wakes[i].all_partitions |= all_partitions;
			return;
		}
	}
	if (my_wakes == NULL)
	{
		my_wakes = MemoryContextAlloc(TopMemoryContext, 8 * sizeof(MyWake));
		my_wakes_size = 8;
	}
	else if (my_wakes_count == my_wakes_size)
	{
		my_wakes = repalloc(my_wakes, 2 * my_wakes_size * sizeof(MyWake));
		my_wakes_size *= 2;
	}
	my_wakes[my_wakes_count].topic = topic;
	my_wakes[my_wakes_count].all_partitions = all_partitions;
	my_wakes_count++;
}

void
slots_forbid_prepare(const char *call)
{
	no_prepare_call = call;
}

/*
 * Closes the open appends of this backend and wakes whoever waits for them.  With
 * a commit, those that followers have to confirm stay in the slots' lists.
 */
static void
close_appends(bool committed)
{
	XLogRecPtr	lsn = committed ? XactLastCommitEnd : InvalidXLogRecPtr;
	bool		confirm = false;

	my_waits_count = 0;
	my_waits_lsn = lsn;
	for (int i = 0; i < my_uses_count; i++)
	{
		PartitionSlot *slot = &slots_array[my_uses[i].slot];
		int32		append = my_uses[i].append;
		SlotKey		key;
		int32		topic;
		bool		moved;
		bool		replicated;

		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		if (append == OPENLIST_NONE)
			slot->holders--;
		replicated = SLOT_IS_REPLICATED(slot);
		if (lsn != InvalidXLogRecPtr && replicated)
		{
			if (append == OPENLIST_NONE)
				slot->positions_lsn = Max(slot->positions_lsn, lsn);
			else
				append = slots_acks_add(slot, append, lsn);
		}
		else if (append != OPENLIST_NONE)
		{
			openlist_remove(&slot->open, slots_pool, append);
			slots_pool[append].next = OPENLIST_NONE;
		}
		if (lsn != InvalidXLogRecPtr && (replicated || my_wanted[my_uses[i].slot] > 0))
		{
			confirm = true;
			if (pgtopic_acks == ACKS_ALL)
			{
				slot->holders++;
				my_waits_wanted[my_waits_count] = my_wanted[my_uses[i].slot];
				my_waits[my_waits_count++] = my_uses[i].slot;
			}
		}
		moved = slots_move_watermark(slot);
		topic = slot->topic;
		key = slot->key;
		LWLockRelease(&slot->lock);
		my_slots[my_uses[i].slot] = 0;

		slots_pool_give(append);
		if (moved)
			slots_wake(&key, topic);
	}
	for (int i = 0; i < my_uses_count; i++)
		my_wanted[my_uses[i].slot] = 0;
	my_uses_count = 0;
	if (confirm)
		slots_acks_wake_worker();
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (my_uses_count > 0 || no_prepare_call != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called %s",
								no_prepare_call ? no_prepare_call : "produce()"),
						 errhint("Use COMMIT.")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			no_prepare_call = NULL;
			close_appends(event == XACT_EVENT_COMMIT);
			break;
		case XACT_EVENT_PREPARE:
			no_prepare_call = NULL;
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

/*
 * Wakes once the locks are gone: a consumer that is woken earlier would find
 * the partition still locked, and sleep again.  After a subtransaction's abort
 * the topics stay noted, since the transaction may hold more of them.
 */
static void
wake_topics(bool isTopLevel)
{
	bool		all_partitions = false;

	for (int i = 0; i < my_wakes_count; i++)
	{
		ConditionVariableBroadcast(topic_condition(my_wakes[i].topic));
		all_partitions |= my_wakes[i].all_partitions;
	}
	/* a topic is dropped seldom, and waking too many does no harm */
	for (int i = 0; all_partitions && i < PARTITION_CONDITIONS; i++)
		ConditionVariableBroadcast(&slots_control->partition_conditions[i]);
	if (isTopLevel)
		my_wakes_count = 0;
}

/*
 * When the locks are gone, others are woken; and only then, so that nobody waits
 * for us, it is our turn to wait for the followers.
 */
static void
resource_release_callback(ResourceReleasePhase phase, bool isCommit,
						  bool isTopLevel, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || (!isTopLevel && isCommit))
		return;
	if (my_wakes_count > 0)
		wake_topics(isTopLevel);
	if (my_waits_count > 0 && isTopLevel)
	{
		int			count = my_waits_count;

		my_waits_count = 0;
		slots_acks_wait(my_waits, my_waits_wanted, count, my_waits_lsn);
	}
}

void
slots_register_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterResourceReleaseCallback(resource_release_callback, NULL);
}
