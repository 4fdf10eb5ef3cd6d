/*-------------------------------------------------------------------------
 *
 * slots_private.h
 *	  Layout of the shared memory of slots.c and slots_xact.c; nobody else
 *	  includes this.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SLOTS_PRIVATE_H
#define PGTOPIC_SLOTS_PRIVATE_H

#include "postgres.h"

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
	OpenList	open;
	int32		next_free;		/* directory lock */
} PartitionSlot;

typedef struct SlotsControl
{
	int			tranche;
	LWLock		directory_lock; /* the directory and the next three */
	uint64		evictions;		/* how often a slot was given away */
	int			clock_hand;
	int			free_slot;
	slock_t		pool_lock;		/* free_append, and next of free elements */
	int32		free_append;
	ConditionVariable topic_conditions[TOPIC_CONDITIONS];
	ConditionVariable partition_conditions[PARTITION_CONDITIONS];
} SlotsControl;

extern SlotsControl *slots_control;
extern PartitionSlot *slots_array;
extern OpenAppend *slots_pool;

/* Makes sure of memory for one more append of this transaction. */
extern void slots_xact_prepare_append(void);
extern bool slots_xact_has_append(int slot);
extern void slots_xact_add_append(int slot, int32 append);

#endif							/* PGTOPIC_SLOTS_PRIVATE_H */
