/*-------------------------------------------------------------------------
 *
 * partition_locks.h
 *	  Locks on a partition, beside those on its tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PARTITION_LOCKS_H
#define PGTOPIC_PARTITION_LOCKS_H

#include "postgres.h"

#include "catalog/topics.h"

/*
 * Who changes who has to confirm what of a partition, and who tells its slot, holds
 * this lock to the end of the transaction: what a slot is told is what is committed,
 * or is about to be.
 */
extern void partition_lock_replicas(int32 topic, int32 partition);

/*
 * Workers that make a segment of a replica hold this to the end of the transaction, and
 * look after it where segments end: the one that follows, and the one that an apply worker
 * has woken, would make the same.  Taken before anything of the partition is locked.
 */
extern void partition_lock_segments(LogPartition *partition);

/*
 * Who takes back what is below the watermark, since it may differ from the leader's, holds
 * this to the end of the transaction; so does who computes statistics of segments, from
 * before it reads the watermark: what it stores is of before, and is deleted along with the
 * messages, or of after.  Taken before anything of the partition is locked.  The latter only
 * tries to get it, and gives way when the former waits.
 */
extern void partition_lock_statistics(int32 topic, int32 partition);
extern bool partition_try_lock_statistics(int32 topic, int32 partition);
extern bool partition_statistics_are_waited_for(int32 topic, int32 partition);

#endif							/* PGTOPIC_PARTITION_LOCKS_H */
