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
#include "peer/connection.h"

/* Raises an error if a group cannot be called so. */
extern void group_check_name(const char *group);

/*
 * Takes the next messages of one partition for a group, and moves its position.
 * Waits if there are none.  Returns their number.  The caller has seen to it
 * that the transaction can write (extension_require_writable()).
 *
 * Where other brokers lead partitions of the topic, they are asked in turn.  One that
 * cannot be reached is an error only if nobody else has anything.
 */
extern int64 log_consume(int32 topic, const char *group, int64 max,
						 Deadline deadline, MessageSink sink, void *arg);

/*
 * The same for the partitions that this broker leads, without waiting.  last: the
 * caller does not wait either, so positions move over rolled-back messages.  *moved
 * tells whether one has moved without any message.
 */
extern int64 log_consume_here(int32 topic, const char *group, int64 max, bool last,
							  MessageSink sink, void *arg, bool *moved);

/*
 * Waits until log_consume_here() would return something; false if it is over before.
 * Leaves no lock and writes nothing.
 */
extern bool log_wait_here(int32 topic, const char *group, Deadline deadline);

/* The brokers, other than this one, that somebody waits for. */
typedef struct ConsumePlace
{
	int32		broker;
	bool		look;			/* there may be something */
	bool		ready;			/* it has said so */
	TimestampTz failed_at;		/* it could not be reached; 0: it could */
	Peer	   *waiting;		/* it is asked to say so */
} ConsumePlace;

typedef struct GroupWatch
{
	int32		topic;
	const char *group;
	Deadline	deadline;
	bool		here;			/* this broker leads partitions too */
	bool		changing;		/* a leader is handing over */
	int			count;
	ConsumePlace places[BROKERS_MAX];
	PeerFailure failure;		/* the last one, while there are any */
	TimestampTz until;			/* the deadline, if there is none */
	MemoryContext context;		/* of this */
} GroupWatch;

/*
 * For wait_for_messages(): whether log_consume() would return something now.  If not,
 * watch_sleep() waits until it might; false if the time is over.  In between, the
 * transaction can end.  watch_end() raises an error if that was since a broker could
 * not be reached.
 */
extern void watch_begin(GroupWatch *watch, int32 topic, const char *group, Deadline deadline);
extern bool watch_look(GroupWatch *watch);
extern bool watch_sleep(GroupWatch *watch);
extern void watch_end(GroupWatch *watch, bool ready);

/* --- positions by hand (groups.c) --- */

/*
 * Each call comes in two forms: for the whole topic, which checks rights and asks the
 * brokers that lead its partitions; and _here for partitions of which the caller has
 * seen to it that this broker leads them, and which checks no rights.
 */
extern void group_create(int32 topic, const char *group, Seek seek, TimestampTz timestamp);
extern void group_create_here(Topic *topic, const int32 *partitions, int count,
							  const char *group, Seek seek, TimestampTz timestamp);

extern void group_commit(int32 topic, int32 partition, const char *group, int64 offset);
extern void group_commit_here(LogPartition *partition, const char *group, int64 offset);

typedef struct ResetOffset
{
	int32		partition;
	int64		old_offset;
	bool		had_offset;
	int64		new_offset;
} ResetOffset;

/*
 * Moves the group in all partitions, and tells of them by their numbers; an error if it was
 * in none.  With dry_run, only says where to.  group_reset_here() does some of them, where
 * results has room for all of the topic's, and returns whether it was anywhere.
 */
extern ResetOffset *group_reset(int32 topic, const char *group, Seek seek,
								TimestampTz timestamp, bool dry_run, int *partitions_count);
extern bool group_reset_here(Topic *topic, const int32 *partitions, int count,
							 const char *group, Seek seek, TimestampTz timestamp,
							 bool dry_run, ResetOffset *results);

/* Removes the group's positions of a topic; false if it has none. */
extern bool group_drop(int32 topic, const char *group);
extern bool group_drop_here(Topic *topic, const int32 *partitions, int count,
							const char *group);

#endif							/* PGTOPIC_CONSUME_H */
