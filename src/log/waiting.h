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
} Deadline;

/* Raises an error if max_wait is negative; months have 30 days. */
extern Deadline deadline_after(const Interval *max_wait);

/*
 * Sleeps until woken, or for a while; false if the deadline has passed before.
 * The caller has prepared to sleep and then looked at what it waits for.
 * Interruptible.
 *
 * On a standby, false also if the snapshot of the waiting statement seems to keep
 * WAL from being replayed: it would wait for what it holds up itself.
 */
extern bool wait_until(ConditionVariable *condition, Deadline *deadline);

#endif							/* PGTOPIC_WAITING_H */
