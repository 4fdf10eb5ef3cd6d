/*-------------------------------------------------------------------------
 *
 * consume.h
 *	  Consumer groups: taking messages, and moving positions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_CONSUME_H
#define PGTOPIC_CONSUME_H

#include "postgres.h"

#include "base/seek.h"
#include "catalog/topics.h"
#include "log/read.h"
#include "log/waiting.h"

/* Raises an error if a group cannot be called so. */
extern void group_check_name(const char *group);

/*
 * Takes the next messages of one partition for a group, and moves its position.
 * Waits if there are none.  Returns their number.  The caller has seen to it
 * that the transaction can write (extension_require_writable()).
 */
extern int64 log_consume(int32 topic, const char *group, int64 max,
						 Deadline deadline, MessageSink sink, void *arg);

/*
 * Whether log_consume() would return something now.  Leaves no lock and writes
 * nothing.
 */
extern bool log_can_consume(int32 topic, const char *group);

/* --- positions by hand (groups.c) --- */

extern void group_create(Topic *topic, const char *group, Seek seek, TimestampTz timestamp);
extern void group_commit(Topic *topic, int32 partition, const char *group, int64 offset);

typedef struct ResetOffset
{
	int32		partition;
	int64		old_offset;
	bool		had_offset;
	int64		new_offset;
} ResetOffset;

/*
 * Moves the group in all partitions; results has room for all of them.  With
 * dry_run, only says where to.
 */
extern void group_reset(Topic *topic, const char *group, Seek seek,
						TimestampTz timestamp, bool dry_run, ResetOffset *results);

/* Removes the group's positions of a topic; false if it has none. */
extern bool group_drop(Topic *topic, const char *group);

#endif							/* PGTOPIC_CONSUME_H */
