/*-------------------------------------------------------------------------
 *
 * flush.c
 *	  The worker that makes durable what a follower's apply workers have committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shmem/applying.h"
#include "worker/workers.h"

/* How often worker_round(), which takes a transaction, runs; also the longest sleep. */
#define ROUND_MS		1000

void
pgtopic_flush_main(Datum arg)
{
	MemoryContext context;
	uint32		wait_event = compat_wait_event("PgtopicFlushMain");
	TimestampTz round = 0;

	context = worker_begin(WORKER_FLUSH, DatumGetObjectId(arg));
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		if (TimestampDifferenceExceeds(round, now, ROUND_MS))
		{
			if (!PostmasterIsAlive())
				proc_exit(1);
			worker_round(context);
			round = now;
		}
		if (applying_flush_and_wake())
			continue;
		applying_flush_sleeps(true);
		if (!applying_flush_and_wake())
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 ROUND_MS, wait_event);
		applying_flush_sleeps(false);
		ResetLatch(MyLatch);
	}
}
