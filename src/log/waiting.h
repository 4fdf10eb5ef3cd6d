/*-------------------------------------------------------------------------
 *
 * waiting.h
 *	  How long a reader waits, and on what.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_WAITING_H
#define PGTOPIC_WAITING_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "storage/condition_variable.h"

typedef struct Deadline
{
	TimestampTz at;
	bool		none;			/* do not wait at all */
	XLogRecPtr	replayed;		/* on a standby: how far at the last look */
	int			looks;			/* since it was further */
	bool		for_peer;		/* until the client, a broker, sends something too */
} Deadline;

/* Raises an error if max_wait is negative; months have 30 days. */
extern Deadline deadline_after(const Interval *max_wait);

/*
 * The deadline of a call that another broker makes.  It ends early when that sends
 * something else, or goes away.
 */
extern Deadline deadline_for_peer(int32 milliseconds);

/* How long it is until then; 0 if it has passed. */
extern int64 deadline_milliseconds(const Deadline *deadline);

/*
 * Sleeps until woken, or for a while; false if the deadline has passed before.
 * The caller has prepared to sleep and then looked at what it waits for.
 * Interruptible.
 *
 * On a standby, false also if the snapshot of the waiting statement seems to keep
 * WAL from being replayed: it would wait for what it holds up itself.
 */
extern bool wait_until(ConditionVariable *condition, Deadline *deadline);

/*
 * The same, but it also ends when one of the sockets can be read, and after some
 * milliseconds at the latest.  Not for standbys.
 */
extern bool wait_until_readable(ConditionVariable *condition, Deadline *deadline,
								int64 milliseconds, const pgsocket *sockets, int count);

/* Sleeps for some milliseconds, before one looks again at what tells nobody. */
extern void pause_milliseconds(int64 milliseconds);

#endif							/* PGTOPIC_WAITING_H */
