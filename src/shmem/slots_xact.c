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
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/settings.h"
#include "shmem/slots.h"
#include "shmem/slots_private.h"

typedef struct MyAppend
{
	int			slot;
	int32		append;
} MyAppend;

/* A topic whose sleepers are woken at the end. */
typedef struct MyWake
{
	int32		topic;
	bool		all_partitions;
} MyWake;

static MyAppend *my_appends = NULL;
static int	my_appends_count = 0;
static int	my_appends_size = 0;

/* For each slot, whether it is among them. */
static bool *my_slots = NULL;

static MyWake *my_wakes = NULL;
static int	my_wakes_count = 0;
static int	my_wakes_size = 0;

static const char *no_prepare_call = NULL;

void
slots_xact_prepare_append(void)
{
	if (my_slots == NULL)
		my_slots = MemoryContextAllocZero(TopMemoryContext,
										  pgtopic_max_partitions * sizeof(bool));
	if (my_appends_count < my_appends_size)
		return;
	if (my_appends == NULL)
	{
		my_appends = MemoryContextAlloc(TopMemoryContext, 16 * sizeof(MyAppend));
		my_appends_size = 16;
	}
	else
	{
		my_appends = repalloc(my_appends, 2 * my_appends_size * sizeof(MyAppend));
		my_appends_size *= 2;
	}
}

/*
 * Whether this transaction has an open append in the slot.  While it has, the
 * slot belongs to the same partition.
 */
bool
slots_xact_has_append(int slot)
{
	return my_slots[slot];
}

void
slots_xact_add_append(int slot, int32 append)
{
	my_appends[my_appends_count].slot = slot;
	my_appends[my_appends_count].append = append;
	my_appends_count++;
	my_slots[slot] = true;
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

/* Closes the open appends of this backend and wakes whoever waits for them. */
static void
close_appends(void)
{
	for (int i = 0; i < my_appends_count; i++)
	{
		PartitionSlot *slot = &slots_array[my_appends[i].slot];
		OpenAppend *append = &slots_pool[my_appends[i].append];
		SlotKey		key;
		int32		topic;
		bool		moved;
		int64		watermark;

		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		openlist_remove(&slot->open, slots_pool, my_appends[i].append);
		watermark = openlist_watermark(&slot->open, slots_pool, slot->next_offset);
		moved = watermark != slot->high_watermark;
		slot->high_watermark = watermark;
		topic = slot->topic;
		key = slot->key;
		LWLockRelease(&slot->lock);
		my_slots[my_appends[i].slot] = false;

		SpinLockAcquire(&slots_control->pool_lock);
		append->next = slots_control->free_append;
		slots_control->free_append = my_appends[i].append;
		SpinLockRelease(&slots_control->pool_lock);

		if (moved)
		{
			ConditionVariableBroadcast(partition_condition(&key));
			ConditionVariableBroadcast(topic_condition(topic));
		}
	}
	my_appends_count = 0;
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (my_appends_count > 0 || no_prepare_call != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has called %s",
								my_appends_count > 0 ? "produce()" : no_prepare_call),
						 errhint("Use COMMIT.")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			no_prepare_call = NULL;
			close_appends();
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
resource_release_callback(ResourceReleasePhase phase, bool isCommit,
						  bool isTopLevel, void *arg)
{
	bool		all_partitions = false;

	if (my_wakes_count == 0 || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	if (!isTopLevel && isCommit)
		return;

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

void
slots_register_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterResourceReleaseCallback(resource_release_callback, NULL);
}
