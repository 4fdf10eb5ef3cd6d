/*-------------------------------------------------------------------------
 *
 * waiting.c
 *	  How long a reader waits, and on what.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "replication/walreceiver.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "log/waiting.h"

/* Longer waits than this (a century) are as good as this. */
#define WAIT_MAX_USECS		(INT64CONST(36525) * USECS_PER_DAY)

/* On a standby nothing wakes a reader when WAL has been replayed. */
#define STANDBY_POLL_MS		100

/* So many of them without any progress, where we cannot know what there is. */
#define STANDBY_IDLE_LOOKS	10

/*
 * One sleep.  What ends the wait wakes us, but for rare things that nobody tells,
 * such as DROP EXTENSION.
 */
#define SLEEP_MAX_MS		10000

Deadline
deadline_after(const Interval *max_wait)
{
	Deadline	deadline;
	double		usecs = (double) max_wait->time +
		((double) max_wait->month * DAYS_PER_MONTH + max_wait->day) * (double) USECS_PER_DAY;

	if (usecs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_wait must not be negative")));
	deadline.none = usecs < 1;
	deadline.replayed = InvalidXLogRecPtr;
	deadline.looks = 0;
	deadline.at = GetCurrentTimestamp() + (int64) Min(usecs, (double) WAIT_MAX_USECS);
	return deadline;
}

/*
 * Whether replay stands still though there is something to replay.  Without a WAL
 * receiver nobody knows, so it is assumed after a while.
 */
static bool
holds_up_replay(Deadline *deadline)
{
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);
	XLogRecPtr	received = GetWalRcvFlushRecPtr(NULL, NULL);

	if (replayed != deadline->replayed)
	{
		deadline->replayed = replayed;
		deadline->looks = 0;
		return false;
	}
	deadline->looks++;
	if (XLogRecPtrIsInvalid(received))
		return deadline->looks >= STANDBY_IDLE_LOOKS;
	return received > replayed;
}

bool
wait_until(ConditionVariable *condition, Deadline *deadline)
{
	static uint32 wait_event = 0;
	long		milliseconds;

	if (deadline->none)
		return false;
	milliseconds = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline->at);
	if (milliseconds <= 0)
		return false;
	if (RecoveryInProgress() && holds_up_replay(deadline))
		return false;
	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicMessages");
	milliseconds = Min(milliseconds, RecoveryInProgress() ? STANDBY_POLL_MS : SLEEP_MAX_MS);
	(void) ConditionVariableTimedSleep(condition, milliseconds, wait_event);
	return true;
}
