/*-------------------------------------------------------------------------
 *
 * partition_state.h
 *	  The offsets of a partition: from its slot, which is filled from the tables
 *	  when it is not there yet, or on a standby, and where another broker leads the
 *	  partition, from the tables alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PARTITION_STATE_H
#define PGTOPIC_PARTITION_STATE_H

#include "postgres.h"

#include "catalog/topics.h"
#include "shmem/slots.h"

/*
 * The state of a partition now.  On a standby, where no slot is kept, the high
 * watermark is the checkpointed one: readers extend it (see LogReader).  Where
 * another broker leads the partition it is that as well, and nobody extends it.
 */
extern void partition_state(LogPartition *partition, SlotState *state);

/*
 * The same when what is before an offset is settled.  In a cluster the watermark begins, when
 * the server has come up, at the one that was stored, and moves on when followers have
 * confirmed what they have: so in the first seconds an offset that somebody has read
 * already may be beyond it, and is waited for.  What is beyond it later is not.
 */
extern void partition_state_awaiting(LogPartition *partition, int64 offset, SlotState *state);

/*
 * The next offset by the tables alone, whoever leads; nothing must be written there
 * meanwhile.
 */
extern int64 partition_stored_end(LogPartition *partition);

/*
 * The same for people to look at: on a standby, the high watermark is that
 * up to which a reader would get now.
 */
extern void partition_state_settled(LogPartition *partition, SlotState *state);

/*
 * An error (57P03) if the partition has other replicas and this broker does not hear from
 * its cluster.  They may have another leader: a commit would wait for them in vain, and
 * what this broker does not know of may be there.
 */
extern void partition_check_not_cut_off(const LogPartition *partition);

/*
 * With pgtopic.acks = all, an error (53000) if the partition has less in-sync
 * replicas than the topic wants.  Returns 0; or, when its leader has just changed and
 * the others are about to come into sync, how many the commit is to wait for, by
 * slot_await_insync(): a transaction that is open keeps them from it.
 */
extern int	partition_check_insync(LogPartition *partition);

/*
 * Takes count offsets for this transaction.  Waits for the maintenance worker
 * if it has not yet made the segments for them, at most
 * pgtopic.segment_wait_timeout without any progress.  An error (57P03) if this
 * server does not lead the partition, or hands it over just now.
 */
extern int64 partition_reserve(LogPartition *partition, int64 count);

/*
 * Has to be called before the transaction writes positions of the partition.  The
 * same error.
 */
extern void partition_begin_write(LogPartition *partition);

/* What a slot is to know of a partition's replicas: see slots.h. */
typedef struct PartitionReplicas
{
	int			isr_count;
	uint64		isr_mask;
	uint64		ready_mask;
	bool		closed;
} PartitionReplicas;

/*
 * Finds that out from the catalog as it is now.  An error if the partition is not
 * there.
 */
extern void partition_replicas(const LogPartition *partition, PartitionReplicas *replicas);

/*
 * For the apply worker of a follower: waits until there are segments for what follows
 * an offset, in the same way.
 */
extern void partition_ensure_segments(LogPartition *partition, int64 offset);

/*
 * A partition that this transaction has made: the worker does not see it yet, nor
 * does anybody else, so the session makes its segments itself.  Runs SQL.
 */
extern bool partition_made_here(const LogPartition *partition);
extern void partition_make_segments(LogPartition *partition, int64 up_to);

/*
 * In a cluster: has the partition's slot, if there is one, know from the catalog who
 * leads, who has to confirm, and whether it is being handed over; for after the
 * commit of what has changed it (see slot_set_replicas()).  A slot of what
 * is not led here any more takes nothing from then on, and goes when nobody uses it: false if somebody does, then
 * it has to be called again.
 */
extern bool partition_update_slot(LogPartition *partition);

/* Whether it has to be called again: the slot is from before this broker led, or led anew. */
extern bool partition_slot_is_stale(const LogPartition *partition);

/* Nobody writes to it, and followers have confirmed all. */
extern bool partition_is_drained(LogPartition *partition);

#endif							/* PGTOPIC_PARTITION_STATE_H */
