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
#include "miscadmin.h"
#include "replication/walreceiver.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/proclist.h"
#include "storage/spin.h"
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

/*
 * From libpq/libpq.h, which does not compile where the headers of Kerberos are not
 * installed: the events of the connection to the client.
 */
extern PGDLLIMPORT WaitEventSet *FeBeWaitSet;
#define CLIENT_SOCKET_POSITION	0

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
	deadline.for_peer = false;
	deadline.at = GetCurrentTimestamp() + (int64) Min(usecs, (double) WAIT_MAX_USECS);
	return deadline;
}

Deadline
deadline_for_peer(int32 milliseconds)
{
	Deadline	deadline = {0};

	deadline.none = milliseconds <= 0;
	deadline.for_peer = true;
	deadline.at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
	return deadline;
}

int64
deadline_milliseconds(const Deadline *deadline)
{
	if (deadline->none)
		return 0;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline->at);
}

static uint32
messages_wait_event(void)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicMessages");
	return wait_event;
}

/*
 * Whether the condition has been broadcast since this process has prepared to
 * sleep on it.  Our latch does not tell: who waits for a peer meanwhile resets it.
 */
static bool
was_woken(ConditionVariable *condition)
{
	bool		sleeping;

	SpinLockAcquire(&condition->mutex);
	sleeping = proclist_contains(&condition->wakeup, compat_proc_number(), cvWaitLink);
	SpinLockRelease(&condition->mutex);
	return !sleeping;
}

/* Waits for one event of a set; returns whether it was that of a socket. */
static bool
wait_for_event(WaitEventSet *set, long milliseconds)
{
	WaitEvent	event;

	if (WaitEventSetWait(set, milliseconds, &event, 1, messages_wait_event()) != 1)
		return false;
	if (event.events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (event.events & WL_POSTMASTER_DEATH)
		proc_exit(1);
	return (event.events & WL_SOCKET_READABLE) != 0;
}

/* Waits until one of the sockets can be read, the latch is set, or the time is over. */
static bool
wait_for_sockets(const pgsocket *sockets, int count, long milliseconds)
{
	WaitEventSet *set = compat_create_wait_event_set(count + 2);
	bool		readable;

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < count; i++)
		AddWaitEventToSet(set, WL_SOCKET_READABLE, sockets[i], NULL, NULL);
	readable = wait_for_event(set, milliseconds);
	FreeWaitEventSet(set);
	return readable;
}

/* The same for the connection to the client, and that has a set already. */
static bool
wait_for_client(long milliseconds)
{
	ModifyWaitEvent(FeBeWaitSet, CLIENT_SOCKET_POSITION, WL_SOCKET_READABLE, NULL);
	return wait_for_event(FeBeWaitSet, milliseconds);
}

/* Sleeps; returns whether a socket can be read: the client's, if none is given. */
static bool
sleep_on_sockets(ConditionVariable *condition, TimestampTz until,
				 const pgsocket *sockets, int count)
{
	bool		readable = false;

	while (!readable && !was_woken(condition))
	{
		long		milliseconds = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (milliseconds <= 0)
			break;
		readable = sockets ? wait_for_sockets(sockets, count, milliseconds) :
			wait_for_client(milliseconds);
		CHECK_FOR_INTERRUPTS();
	}
	return readable;
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
	int64		milliseconds = deadline_milliseconds(deadline);

	if (milliseconds <= 0)
		return false;
	if (RecoveryInProgress() && holds_up_replay(deadline))
		return false;
	milliseconds = Min(milliseconds, RecoveryInProgress() ? STANDBY_POLL_MS : SLEEP_MAX_MS);
	if (deadline->for_peer && FeBeWaitSet != NULL)
	{
		TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);

		return !sleep_on_sockets(condition, until, NULL, 0);
	}
	(void) ConditionVariableTimedSleep(condition, milliseconds, messages_wait_event());
	return true;
}

bool
wait_until_readable(ConditionVariable *condition, Deadline *deadline, int64 milliseconds,
					const pgsocket *sockets, int count)
{
	int64		remaining = deadline_milliseconds(deadline);

	if (remaining <= 0)
		return false;
	remaining = Min(Min(remaining, milliseconds), SLEEP_MAX_MS);
	(void) sleep_on_sockets(condition,
							TimestampTzPlusMilliseconds(GetCurrentTimestamp(), remaining),
							sockets, count);
	return true;
}

void
pause_milliseconds(int64 milliseconds)
{
	if (milliseconds <= 0)
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 milliseconds, messages_wait_event());
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}
