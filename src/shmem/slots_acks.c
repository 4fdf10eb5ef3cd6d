/*-------------------------------------------------------------------------
 *
 * slots_acks.c
 *	  What commits and watermarks wait for where partitions have followers.
 *
 * Slots with appends that wait, and backends whose commits do, are in lists, so
 * that the acks worker finds them without going through all.  A slot is in its list
 * as long as something in it waits, and cannot be given away.  A backend is a
 * holder of the slots that it waits for, so these cannot either.
 *
 * Who waits looks for itself whether it may go on; the worker wakes it when that
 * seems so.  It tells the worker what for before it looks, and whatever changes
 * (masks, confirmed positions) changes before the lists are gone through.  So one
 * of the two sees what the other did, and no wakeup is lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/settings.h"
#include "shmem/cluster_state.h"
#include "shmem/databases.h"
#include "shmem/followers.h"
#include "shmem/slots.h"
#include "shmem/slots_private.h"

/* A look at the postmaster and at interrupts, should a wakeup get lost. */
#define ACKS_NAPTIME_MS		1000

/*
 * How long replicas may take to come into sync that a commit needs (slot_await_insync()).
 * They may have been about to, and then have gone.
 */
#define INSYNC_WAIT_MS		60000

static uint32 wait_event = 0;

/* Whom the slot's commits wait for, with its lock held. */
static uint64
followers_needed(const PartitionSlot *slot)
{
	uint64		needed = slot->isr_mask;

	if ((slot->isr_mask & ~slot->ready_mask) != 0)
		needed |= FOLLOWER_UNKNOWN_MASK;
	return needed;
}

bool
slots_acks_positions(const PartitionSlot *slot)
{
	return slot->abandoned || slot->isr_mask == 0 ||
		followers_confirmed(followers_needed(slot)) >= slot->positions_lsn;
}

static void
waiting_link(PartitionSlot *slot)
{
	int			number = slot - slots_array;

	LWLockAcquire(&slots_control->acks_lock, LW_EXCLUSIVE);
	slot->prev_waiting = -1;
	slot->next_waiting = slots_control->waiting;
	if (slot->next_waiting >= 0)
		slots_array[slot->next_waiting].prev_waiting = number;
	slots_control->waiting = number;
	LWLockRelease(&slots_control->acks_lock);
}

static void
waiting_unlink(PartitionSlot *slot)
{
	LWLockAcquire(&slots_control->acks_lock, LW_EXCLUSIVE);
	if (slot->prev_waiting < 0)
		slots_control->waiting = slot->next_waiting;
	else
		slots_array[slot->prev_waiting].next_waiting = slot->next_waiting;
	if (slot->next_waiting >= 0)
		slots_array[slot->next_waiting].prev_waiting = slot->prev_waiting;
	LWLockRelease(&slots_control->acks_lock);
}

int32
slots_acks_add(PartitionSlot *slot, int32 append, XLogRecPtr lsn)
{
	bool		was_empty = slot->open.waiting == 0;
	int32		freed;

	if (slot->abandoned)
	{
		openlist_remove(&slot->open, slots_pool, append);
		slots_pool[append].next = OPENLIST_NONE;
		return append;
	}

	/* where memory gets short, watermarks may move in larger steps */
	freed = openlist_commit(&slot->open, slots_pool, append, lsn,
							slots_control->free_appends < pgtopic_max_open_appends / 2 ?
							OPENLIST_WAITING_MIN : OPENLIST_WAITING_MAX);
	if (was_empty)
		waiting_link(slot);
	pg_atomic_fetch_add_u32(&slots_control->commits, 1);
	return freed;
}

/* Takes out what has been confirmed up to lsn, with the slot's lock held. */
static int32
confirm_up_to(PartitionSlot *slot, XLogRecPtr lsn)
{
	int32		chain;

	if (slot->open.waiting == 0)
		return OPENLIST_NONE;
	chain = openlist_confirm(&slot->open, slots_pool, lsn);
	if (slot->open.waiting == 0)
		waiting_unlink(slot);
	return chain;
}

int32
slots_acks_drop(PartitionSlot *slot)
{
	return confirm_up_to(slot, PG_UINT64_MAX);
}

void
slots_acks_wake_worker(void)
{
	if (pg_atomic_read_u32(&slots_control->sleeping) > 0)
		database_wake(WORKER_ACKS);
}

/*
 * Confirms what is to be confirmed in a slot that is locked exclusively, unlocks
 * it, and wakes the readers.
 */
static void
confirm_and_unlock(PartitionSlot *slot)
{
	int32		chain = confirm_up_to(slot, followers_confirmed(followers_needed(slot)));
	bool		moved = slots_move_watermark(slot);
	SlotKey		key = slot->key;
	int32		topic = slot->topic;

	LWLockRelease(&slot->lock);
	slots_pool_give(chain);
	if (moved)
		slots_wake(&key, topic);
}

/*
 * Wakes the backends that wait in this database, if all that they need has
 * confirmed, or everyone.  Returns whether there are any.
 */
static bool
wake_waiters(bool everyone)
{
	bool		any = false;

	LWLockAcquire(&slots_control->acks_lock, LW_SHARED);
	for (int i = slots_control->waiters; i >= 0; i = slots_waiters[i].next)
	{
		AcksWaiter *waiter = &slots_waiters[i];

		if (waiter->database != MyDatabaseId)
			continue;
		any = true;
		if (everyone || followers_confirmed(waiter->followers) >= waiter->lsn)
			SetLatch(&ProcGlobal->allProcs[i].procLatch);
	}
	LWLockRelease(&slots_control->acks_lock);
	return any;
}

/* The numbers of this database's slots in which something waits. */
static int
waiting_slots(int *numbers)
{
	int			count = 0;

	LWLockAcquire(&slots_control->acks_lock, LW_SHARED);
	for (int i = slots_control->waiting; i >= 0; i = slots_array[i].next_waiting)
	{
		/* while it is in the list its key does not change */
		if (slots_array[i].key.database == MyDatabaseId)
			numbers[count++] = i;
	}
	LWLockRelease(&slots_control->acks_lock);
	return count;
}

bool
slots_confirm(bool moved)
{
	static int *numbers = NULL;
	static uint32 seen = 0;
	uint32		commits = pg_atomic_read_u32(&slots_control->commits);
	int			count;
	bool		any;

	if (numbers == NULL)
	{
		numbers = MemoryContextAllocHuge(TopMemoryContext,
										 pgtopic_max_partitions * sizeof(int));
		moved = true;
	}

	count = waiting_slots(numbers);
	any = count > 0;
	/* what was confirmed before it began to wait does not move again */
	if (!moved && seen == commits)
		count = 0;
	seen = commits;
	for (int i = 0; i < count; i++)
	{
		PartitionSlot *slot = &slots_array[numbers[i]];

		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		if (slot->key.database == MyDatabaseId)
			confirm_and_unlock(slot);
		else
			LWLockRelease(&slot->lock);
	}
	return wake_waiters(false) || any;
}

void
slots_confirm_sleeps(bool sleeps)
{
	if (sleeps)
		pg_atomic_fetch_add_u32(&slots_control->sleeping, 1);
	else
		pg_atomic_fetch_sub_u32(&slots_control->sleeping, 1);
}

void
slot_set_replicas(const SlotKey *key, uint64 isr_mask, uint64 ready_mask, int isr_count)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_EXCLUSIVE);

	if (slot == NULL)
	{
		slots_fill_anew();
		return;
	}
	slot->isr_mask = isr_mask;
	slot->ready_mask = ready_mask;
	slot->isr_count = isr_count;
	confirm_and_unlock(slot);
	(void) wake_waiters(true);
}

void
slot_set_closed(const SlotKey *key, bool closed)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_EXCLUSIVE);

	if (slot == NULL)
	{
		slots_fill_anew();
		return;
	}
	slot->closed = closed || slot->abandoned;
	LWLockRelease(&slot->lock);
}

bool
slot_is_drained(const SlotKey *key)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_SHARED);
	bool		drained;

	if (slot == NULL)
		return true;
	drained = slot->open.head == OPENLIST_NONE && slot->holders == 0 &&
		slots_acks_positions(slot);
	LWLockRelease(&slot->lock);
	return drained;
}

void
slot_abandon(const SlotKey *key)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_EXCLUSIVE);
	int32		dropped;

	if (slot == NULL)
	{
		slots_fill_anew();
		return;
	}
	slot->closed = true;
	slot->abandoned = true;
	dropped = slots_acks_drop(slot);
	/* nothing is to be stored of it any more */
	slot->checkpointed = slot->high_watermark;
	LWLockRelease(&slot->lock);
	slots_pool_give(dropped);
	(void) wake_waiters(true);
}

int32
slot_leader_epoch(const SlotKey *key)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_SHARED);
	int32		epoch;

	if (slot == NULL)
		return -1;
	epoch = slot->leader_epoch;
	LWLockRelease(&slot->lock);
	return epoch;
}

void
slots_forget_follower(int follower)
{
	uint64		mask = UINT64CONST(1) << follower;

	/* first: then no slot is filled behind our back with what was read before */
	slots_fill_anew();
	for (int i = 0; i < pgtopic_max_partitions; i++)
	{
		PartitionSlot *slot = &slots_array[i];

		if ((slot->ready_mask & mask) == 0)
			continue;
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		slot->ready_mask &= ~mask;
		LWLockRelease(&slot->lock);
	}
}

/* How it stands with what a commit waits for. */
typedef enum AcksStatus
{
	ACKS_CONFIRMED,
	ACKS_MISSING,
	ACKS_TOO_FEW,				/* replicas in sync, to begin with */
	ACKS_ABANDONED
} AcksStatus;

static AcksStatus
look(const int *slots, const uint8 *wanted, int count, XLogRecPtr lsn)
{
	AcksWaiter *me = &slots_waiters[compat_proc_number()];
	uint64		needed = 0;
	bool		abandoned = false;
	bool		too_few = false;

	for (int i = 0; i < count; i++)
	{
		PartitionSlot *slot = &slots_array[slots[i]];

		LWLockAcquire(&slot->lock, LW_SHARED);
		needed |= followers_needed(slot);
		abandoned |= slot->abandoned;
		too_few |= slot->isr_count < wanted[i];
		LWLockRelease(&slot->lock);
	}
	if (abandoned)
		return ACKS_ABANDONED;

	LWLockAcquire(&slots_control->acks_lock, LW_EXCLUSIVE);
	/* who comes into sync wakes everybody: slot_set_replicas() */
	me->followers = too_few ? FOLLOWER_UNKNOWN_MASK : needed;
	LWLockRelease(&slots_control->acks_lock);
	if (too_few)
		return ACKS_TOO_FEW;
	return followers_confirmed(needed) >= lsn ? ACKS_CONFIRMED : ACKS_MISSING;
}

void
slots_acks_prepare(void)
{
	/* an error if the server has too many of them */
	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicAcks");
}

/*
 * Enters this backend among those that wait, or takes it out.  Until it has looked,
 * it needs somebody who never confirms.
 */
static void
waiters_link(XLogRecPtr lsn)
{
	int			number = compat_proc_number();
	AcksWaiter *me = &slots_waiters[number];

	LWLockAcquire(&slots_control->acks_lock, LW_EXCLUSIVE);
	me->database = MyDatabaseId;
	me->lsn = lsn;
	me->followers = FOLLOWER_UNKNOWN_MASK;
	me->prev = -1;
	me->next = slots_control->waiters;
	if (me->next >= 0)
		slots_waiters[me->next].prev = number;
	slots_control->waiters = number;
	LWLockRelease(&slots_control->acks_lock);
}

static void
waiters_unlink(void)
{
	AcksWaiter *me = &slots_waiters[compat_proc_number()];

	LWLockAcquire(&slots_control->acks_lock, LW_EXCLUSIVE);
	if (me->prev < 0)
		slots_control->waiters = me->next;
	else
		slots_waiters[me->prev].next = me->next;
	if (me->next >= 0)
		slots_waiters[me->next].prev = me->prev;
	LWLockRelease(&slots_control->acks_lock);
}

static void
warn(int code, const char *message)
{
	ereport(WARNING,
			(code != 0 ? errcode(code) : 0,
			 errmsg("%s", message),
			 errdetail("The transaction has already committed locally, but might not have been replicated to all in-sync replicas.")));
}

/*
 * Ends the session without an answer to its COMMIT: success would be believed.
 */
static void
end_session(int code, const char *message)
{
	warn(code, message);
	ProcDiePending = true;
	InterruptPending = true;
	whereToSendOutput = DestNone;
}

/*
 * Sleeps until the commit is confirmed, or nobody wants to wait for it any more.
 *
 * As in SyncRepWaitForLSN(): the transaction has committed, and an error would
 * say that it has not.  So whoever cancels gets a warning.  Where the session is
 * ended, or nobody can tell whether what it has written will be there, it ends when the
 * commit is done with, and the client has no answer: it does not know, and nobody does.  CommitTransaction() holds
 * interrupts, so nothing that is called here handles them, and no condition
 * variable is slept on, which would exit if the postmaster dies.
 */
static void
sleep_until_confirmed(const int *slots, const uint8 *wanted, int count, XLogRecPtr lsn)
{
	int64		started = cluster_clock_ms();

	Assert(InterruptHoldoffCount > 0);
	for (;;)
	{
		AcksStatus	status = look(slots, wanted, count, lsn);

		if (status == ACKS_CONFIRMED)
			break;
		if (status == ACKS_ABANDONED)
		{
			end_session(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN,
						"terminating connection because another broker leads a partition that the transaction has changed");
			break;
		}
		if (status == ACKS_TOO_FEW && cluster_clock_ms() - started > INSYNC_WAIT_MS)
		{
			end_session(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN,
						"terminating connection because too few replicas have come into sync");
			break;
		}
		/* later than it takes nothing new any more: a controller may be elected yet */
		if (cluster_state_cut_off(2) != NULL)
		{
			end_session(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN,
						"terminating connection because this broker is cut off from its cluster");
			break;
		}
		if (ProcDiePending)
		{
			end_session(ERRCODE_ADMIN_SHUTDOWN,
						"canceling the wait for in-sync replicas and terminating connection due to administrator command");
			break;
		}
		if (QueryCancelPending)
		{
			QueryCancelPending = false;
			warn(0, "canceling the wait for in-sync replicas due to user request");
			break;
		}
		if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH,
					  ACKS_NAPTIME_MS, wait_event) & WL_POSTMASTER_DEATH)
		{
			ProcDiePending = true;
			whereToSendOutput = DestNone;
			break;
		}
		ResetLatch(MyLatch);
	}
}

void
slots_acks_wait(const int *slots, const uint8 *wanted, int count, XLogRecPtr lsn)
{
	waiters_link(lsn);
	slots_acks_wake_worker();
	sleep_until_confirmed(slots, wanted, count, lsn);
	waiters_unlink();

	for (int i = 0; i < count; i++)
	{
		PartitionSlot *slot = &slots_array[slots[i]];

		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		slot->holders--;
		/* the session is to see what it has written, though the worker be late */
		confirm_and_unlock(slot);
	}
}
