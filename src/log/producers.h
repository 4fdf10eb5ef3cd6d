/*-------------------------------------------------------------------------
 *
 * producers.h
 *	  Producers that number their messages, so that a call which is repeated, since
 *	  its COMMIT got no answer, puts nothing into the log twice.
 *
 * A partition remembers the last calls of each such producer (base/sequences.h) in a
 * row among its positions: it is written by the transaction that writes the messages,
 * and goes where the partition goes, to followers, into dumps.  Whoever produces as
 * one holds the lock of (producer, partition) to the end of the transaction, as for
 * a position.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PRODUCERS_H
#define PGTOPIC_PRODUCERS_H

#include "postgres.h"

#include "base/sequences.h"
#include "catalog/topics.h"

#define PRODUCER_NAME_MAX	255

/* Who makes a call, and the sequence of its first message. */
typedef struct Producer
{
	const char *name;
	int64		sequence;
} Producer;

/* Raises an error (42602, 22023) if these are not possible. */
extern void producer_check(const Producer *producer);

/*
 * Before a producer's call appends count messages to a partition that this broker
 * leads: waits until no other transaction produces as this one there.  True, and sets
 * *first_offset, if the call has been made before: nothing is to be appended.  Else
 * fills *sequences for producer_end().
 *
 * An error (22003, 22023) if it is neither new nor a repeated one; 40001 in REPEATABLE
 * READ and SERIALIZABLE if it is repeated, and the first call was committed after the
 * transaction's snapshot was taken.
 */
extern bool producer_begin(LogPartition *partition, const Producer *producer, int64 count,
						   Sequences *sequences, int64 *first_offset);

/* After they were appended: remembers the call. */
extern void producer_end(LogPartition *partition, const Producer *producer, int64 count,
						 Sequences *sequences, int64 first_offset);

/*
 * For the maintenance worker: forgets some of the producers of a partition that have
 * produced nothing since a time, but for those that somebody is about to produce as.
 * Returns whether there may be more.
 */
extern bool producers_expire(LogPartition *partition, TimestampTz before);

#endif							/* PGTOPIC_PRODUCERS_H */
