/*-------------------------------------------------------------------------
 *
 * acks.c
 *	  The worker that moves the watermarks of one database when followers have
 *	  confirmed what is below them.
 *
 * Nothing wakes anybody when a replication slot moves.  So while something waits
 * for that, this looks again and again; when nothing does, it sleeps, and a commit
 * wakes it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shmem/databases.h"
#include "shmem/followers.h"
#include "shmem/slots.h"
#include "worker/workers.h"

/* How often worker_round(), which takes a transaction, runs; also the longest sleep. */
#define ROUND_MS		1000

/* Between two looks; more when there was nothing to be seen QUIET_LOOKS times. */
#define LOOK_US			500
#define QUIET_LOOKS		2000
#define QUIET_LOOK_US	5000

/* Sleeps if nothing waits, until something does.  Returns whether something does. */
static bool
sleep_unless_waiting(uint32 wait_event)
{
	bool		waits;

	slots_confirm_sleeps(true);
	waits = slots_confirm(followers_poll());
	if (!waits)
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ROUND_MS, wait_event);
	slots_confirm_sleeps(false);
	ResetLatch(MyLatch);
	return waits;
}

/* Looks until the next round is due. */
static void
look(uint32 wait_event)
{
	static int	quiet = 0;
	TimestampTz start = GetCurrentTimestamp();
	bool		waits = sleep_unless_waiting(wait_event);

	while (waits && !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), ROUND_MS))
	{
		bool		moved;

		CHECK_FOR_INTERRUPTS();
		pg_usleep(quiet < QUIET_LOOKS ? LOOK_US : QUIET_LOOK_US);
		moved = followers_poll();
		quiet = moved ? 0 : Min(quiet + 1, QUIET_LOOKS);
		waits = slots_confirm(moved);
	}
}

void
pgtopic_acks_main(Datum arg)
{
	MemoryContext context;
	uint32		wait_event = compat_wait_event("PgtopicAcksMain");
	TimestampTz round = 0;

	context = worker_begin(WORKER_ACKS, DatumGetObjectId(arg));
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		if (TimestampDifferenceExceeds(round, now, ROUND_MS))
		{
			if (!PostmasterIsAlive())
				proc_exit(1);
			worker_round(context);
			pgstat_report_stat(true);
			round = now;
		}
		look(wait_event);
	}
}
