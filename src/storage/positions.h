/*-------------------------------------------------------------------------
 *
 * positions.h
 *	  Where the consumer groups of a partition are.
 *
 * A position is the next offset to read.  Whoever moves one holds the lock of
 * (group, partition), to the end of the transaction; so a position that is read
 * with a fresh snapshot after the lock was got cannot change under it.  When the
 * lock goes, those who wait for messages of the topic are woken: what one of them
 * found locked may be theirs now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_POSITIONS_H
#define PGTOPIC_POSITIONS_H

#include "postgres.h"

#include "base/sequences.h"
#include "catalog/topics.h"

/* Columns of a table of positions, in the order of segments.c. */
enum PositionColumn
{
	POSITION_GROUP = 1,
	POSITION_PARTITION,
	POSITION_OFFSET,
	POSITION_AT,
	POSITION_NEXT_SEQUENCE,		/* this and what follows, of producers; since 0.3.0 */
	POSITION_SEQUENCES,
	POSITION_OFFSETS,
	POSITION_COLUMNS = POSITION_OFFSETS
};

#define GROUP_NAME_MAX	255

/*
 * Rows that are no groups', under names that no group can have: what a leader tells
 * its followers along with the positions.
 */
#define POSITION_HIGH_WATERMARK	""
#define POSITION_LOG_START		"\001"
#define POSITION_SEGMENTS_END	"\002"
#define POSITION_EPOCH			"\004"	/* and the number of a leader epoch: see epochs.h */

/*
 * What a partition remembers of a producer is under its name, behind this.  The
 * position is the offset behind the last message that it has produced.
 */
#define POSITION_PRODUCER		"\003"

/* Whether a name is one of those, or might become one. */
static inline bool
position_is_reserved(const char *group)
{
	return (unsigned char) group[0] < ' ';
}

/*
 * Takes the lock of (group, partition) without waiting for it; false if another
 * transaction has it.  *taken: it was not held before.  A user lock, but of a
 * kind that no advisory lock function reaches.
 */
extern bool position_try_lock(const LogPartition *partition, const char *group, bool *taken);

/* The same, waiting. */
extern void position_lock(const LogPartition *partition, const char *group);

/* Gives it back early, when nothing was done under it. */
extern void position_unlock(const LogPartition *partition, const char *group);

/* Reads a position as of now; false if the group has none here. */
extern bool position_read(LogPartition *partition, const char *group, int64 *offset);

/*
 * Moves a position, or makes it.  In REPEATABLE READ and SERIALIZABLE, raises
 * 40001 if somebody has moved it since the transaction's snapshot was taken.  An
 * error (57P03) if this server does not lead the partition.
 */
extern void position_write(LogPartition *partition, const char *group, int64 offset);

/* The same without asking who leads: for reserved names, which one worker writes. */
extern void position_store(LogPartition *partition, const char *group, int64 offset);

/* Removes a position, with the same errors; false if there was none. */
extern bool position_delete(LogPartition *partition, const char *group);

/* Hands over all positions of a partition, but for the reserved ones, as of now. */
typedef void (*PositionSink) (void *arg, int32 partition, Datum group,
							  int64 offset, TimestampTz committed_at);
extern void positions_each(LogPartition *partition, PositionSink sink, void *arg);

/* The same, and the reserved ones too. */
extern void positions_each_reserved(LogPartition *partition, PositionSink sink, void *arg);

/* The greatest position in a partition, reserved ones included; 0 if there is none. */
extern int64 positions_max(LogPartition *partition);

/* --- producers that number their messages: see log/producers.h --- */

/* Takes the lock of (producer, partition), waiting. */
extern void producer_lock(const LogPartition *partition, const char *producer);

/* Reads what is remembered as of now; false if there is nothing. */
extern bool producer_read(LogPartition *partition, const char *producer, Sequences *sequences);

/*
 * Remembers it, as of now; *sequences has at least one call.  Has the same errors as
 * position_write().
 */
extern void producer_write(LogPartition *partition, const char *producer,
						   const Sequences *sequences);

/*
 * Takes the lock without waiting, and forgets a producer that has produced nothing
 * since a time; false if it has, or somebody has the lock.  Does not ask who leads:
 * for the worker, which need not be waited for when another broker is to lead.
 */
extern bool producer_forget(LogPartition *partition, const char *producer, TimestampTz before);

/* Hands over all producers of a partition, as of now. */
typedef void (*ProducerSink) (void *arg, const char *producer, const Sequences *sequences,
							  TimestampTz produced_at);
extern void producers_each(LogPartition *partition, ProducerSink sink, void *arg);

#endif							/* PGTOPIC_POSITIONS_H */
