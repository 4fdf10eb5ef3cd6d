/*-------------------------------------------------------------------------
 *
 * slots_private.h
 *	  Layout of the shared memory of slots.c and slots_*.c; nobody else
 *	  includes this.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SLOTS_PRIVATE_H
#define PGTOPIC_SLOTS_PRIVATE_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "base/openlist.h"
#include "shmem/slots.h"

/* Shared by hash: a sleeper may wake for another topic or partition. */
#define TOPIC_CONDITIONS		128
#define PARTITION_CONDITIONS	1024

typedef struct PartitionSlot
{
	LWLock		lock;			/* all below, but for next_free */
	SlotKey		key;			/* InvalidOid if empty; writing it needs the
								 * directory lock too */
	int32		topic;
	int32		partition;
	int64		next_offset;	/* that the next message gets */
	int64		high_watermark; /* first offset that is not settled */
	int64		checkpointed;	/* watermark in the catalog */
	int64		segments_end;	/* there are segments below this */
	int64		segments_wanted;	/* a producer waits for them up to this */
	int64		wake_at;		/* more segments are wanted from here on */
	bool		wants_segments; /* the worker has been told */
	bool		recently_used;	/* set with a shared lock too: only a hint */
	bool		closed;			/* takes nothing new */
	bool		abandoned;		/* another broker leads the partition */
	int32		holders;		/* transactions that write positions, and
								 * commits that wait for followers */
	int32		isr_count;		/* in-sync replicas */
	uint64		isr_mask;		/* those of them that are followers */
	uint64		ready_mask;		/* whose confirmations say something */
	XLogRecPtr	positions_lsn;	/* last commit that has written positions */
	int32		leader_epoch;	/* that it was filled in */
	TimestampTz filled_at;
	OpenList	open;			/* in SlotsControl.waiting while some wait */
	int32		next_waiting;	/* acks_lock */
	int32		prev_waiting;	/* acks_lock */
	int32		next_free;		/* directory lock */
} PartitionSlot;

/* A backend whose commit waits for followers. */
typedef struct AcksWaiter
{
	Oid			database;
	XLogRecPtr	lsn;			/* until all of … */
	uint64		followers;		/* have confirmed this */
	int32		next;
	int32		prev;
} AcksWaiter;

typedef struct SlotsControl
{
	int			tranche;
	LWLock		directory_lock; /* the directory and the next three */
	uint64		evictions;		/* how often a slot was given away */
	int			clock_hand;
	int			free_slot;
	slock_t		pool_lock;		/* free_append, and next of free elements */
	int32		free_append;
	int32		free_appends;	/* their number; a hint without the lock */
	LWLock		acks_lock;		/* the next two, and what they lead to */
	int32		waiting;		/* first slot with appends that wait, or -1 */
	int32		waiters;		/* first backend that waits, or -1 */
	pg_atomic_uint32 commits;	/* how many have begun to wait */
	pg_atomic_uint32 sleeping;	/* acks workers that sleep */
	ConditionVariable topic_conditions[TOPIC_CONDITIONS];
	ConditionVariable partition_conditions[PARTITION_CONDITIONS];
} SlotsControl;

extern SlotsControl *slots_control;
extern PartitionSlot *slots_array;
extern OpenAppend *slots_pool;

extern AcksWaiter *slots_waiters;

/*
 * Locks the slot of a partition and returns it, or returns NULL if it has none.
 * Corrects the hint in ref.
 */
extern PartitionSlot *slots_lock(SlotRef *ref, LWLockMode mode);

/* Has slots that are being filled now filled anew. */
extern void slots_fill_anew(void);

/* Takes an element from the pool; OPENLIST_NONE if there is none. */
extern int32 slots_pool_take(void);

/* Gives a chain of elements back. */
extern void slots_pool_give(int32 chain);

/*
 * Computes the watermark anew, with the slot's lock held; true if it has moved,
 * so that, without the lock, slots_wake() is due.
 */
extern bool slots_move_watermark(PartitionSlot *slot);
extern void slots_wake(const SlotKey *key, int32 topic);

/* Makes sure of memory for two more uses of slots by this transaction. */
extern void slots_xact_prepare(void);

/* Whether this transaction has an append, or writes positions, in the slot. */
extern bool slots_xact_has_append(int slot);
extern bool slots_xact_writes(int slot);
extern void slots_xact_add_append(int slot, int32 append);
extern void slots_xact_add_write(int slot);
extern void slots_xact_await_insync(int slot, int wanted);

/* Whether commits to the slot's partition have to be confirmed. */
#define SLOT_IS_REPLICATED(slot)	((slot)->isr_mask != 0 || (slot)->abandoned)

/*
 * Has an append that has committed wait, with the slot's lock held.  Returns
 * what it does not need, for slots_pool_give().
 */
extern int32 slots_acks_add(PartitionSlot *slot, int32 append, XLogRecPtr lsn);

/* Drops whatever waits in the slot, with its lock held; returns the same. */
extern int32 slots_acks_drop(PartitionSlot *slot);

/* Whether followers have all positions of the partition, with the lock held. */
extern bool slots_acks_positions(const PartitionSlot *slot);

/* Does beforehand what slots_acks_wait() must not. */
extern void slots_acks_prepare(void);

/* Wakes the acks worker of this database if it sleeps. */
extern void slots_acks_wake_worker(void);

/*
 * Waits until all in-sync followers of the partitions of these slots, in each of
 * which this backend is a holder, have confirmed lsn; then it is none any more.
 * wanted: how many replicas of each have to be in sync (slot_await_insync()), or 0.
 * Called after commit, so it does not raise errors.
 */
extern void slots_acks_wait(const int *slots, const uint8 *wanted, int count, XLogRecPtr lsn);

#endif							/* PGTOPIC_SLOTS_PRIVATE_H */
