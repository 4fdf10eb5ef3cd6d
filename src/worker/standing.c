/*-------------------------------------------------------------------------
 *
 * standing.c
 *	  The replication worker's part that looks after this broker's own standing in
 *	  the cluster: whether it is the broker that it was, and how it comes back when it
 *	  was counted as gone.
 *
 * A broker that was fenced has applied the metadata that says so when it comes here:
 * it leads nothing that another one leads, and has let go of its followers
 * (cluster/apply.c).  So it can ask to be counted again.
 *
 * A server that runs on another WAL timeline than this broker did is a standby that was
 * promoted, or was recovered from a backup.  It may lack the last moments, and with
 * them what this broker has confirmed to leaders and acknowledged to clients.  So it
 * gives up what it leads, to those who have everything, and begins its copies
 * anew where they certainly are right.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"

#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "cluster/change.h"
#include "cluster/publish.h"
#include "cluster/replica.h"
#include "cluster/store.h"
#include "cluster/subscribe.h"
#include "shmem/cluster_state.h"
#include "worker/replication.h"
#include "worker/workers.h"

#define WAIT_MS		2000

static bool known = false;		/* this is the broker that it was */
static int64 gave_up_version = 0;	/* of the metadata that says that it leads nothing */

/*
 * Fences this broker, by itself.  Where nobody else is in sync it leads again when it has
 * come back, with what it has, but in a new epoch: others may have more.
 */
static void
give_up_leading(int32 self)
{
	MemoryContext context = CurrentMemoryContext;
	const char *args[1] = {psprintf("%d", self)};

	worker_begin_transaction();
	gave_up_version = cluster_change(CHANGE_FENCE, args, 1, WAIT_MS).version;
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/*
 * Each step can be done twice; the timeline is stored when all are done.  What says how
 * far copies are right (replicas_distrust()) is read before anything that is received
 * from now on, with a gap in it, could change it: only this worker does.
 */
static void
begin_anew(int32 self, int32 timeline)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int32	   *leaders;
	int			count;

	ereport(LOG,
			(errmsg("pgtopic broker %d is on another WAL timeline, %d: its copies begin anew, and it gives up what it leads",
					self, timeline),
			 errdetail("It is a standby that was promoted, or was recovered from a backup, and may lack what it has told others.")));
	worker_owner_begin(&saved);
	replicas_distrust();
	worker_owner_end(&saved, context);

	worker_owner_begin(&saved);
	MemoryContextSwitchTo(context);
	leaders = subscribe_leaders(&count);
	publish_end_all();
	worker_owner_end(&saved, context);
	for (int i = 0; i < count; i++)
		subscribe_drop(leaders[i], false);

	give_up_leading(self);
}

static void
know_self(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int32		self;
	int32		stored;
	int32		timeline = (int32) GetWALInsertionTimeLine();

	worker_owner_begin(&saved);
	self = cluster_self();
	stored = store_timeline();
	worker_owner_end(&saved, context);
	if (self == 0)
		return;
	if (stored != 0 && stored != timeline)
		begin_anew(self, timeline);
	if (stored != timeline)
	{
		worker_owner_begin(&saved);
		store_set_timeline(timeline);
		worker_owner_end(&saved, context);
	}
	known = true;
}

/* How often this broker was fenced, if it is, by the metadata that was applied; else 0. */
static int32
fenced_times(int32 *self)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int32		times = 0;
	bool		isnull;

	worker_owner_begin(&saved);
	*self = cluster_self();
	extension_execute(SPI_OK_SELECT, "SELECT fencings FROM pgtopic.broker WHERE id = %d AND fenced", *self);
	if (SPI_processed > 0)
		times = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	worker_owner_end(&saved, context);
	return times;
}

static void
come_back(void *arg)
{
	bool	   *busy = arg;
	MemoryContext context = CurrentMemoryContext;
	int32		self;
	int32		fencings = fenced_times(&self);
	const char *args[2];
	ClusterState state;

	cluster_state_get(&state);
	cluster_state_set_serves(fencings == 0 && state.applied_version >= gave_up_version);
	if (fencings == 0)
		return;
	*busy = true;
	args[0] = psprintf("%d", self);
	args[1] = psprintf("%d", fencings);
	worker_begin_transaction();
	(void) cluster_change(CHANGE_UNFENCE, args, 2, WAIT_MS);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	ereport(LOG,
			(errmsg("pgtopic broker %d has come back into the cluster", self)));
}

bool
standing_is_known(void)
{
	if (!known)
		(void) worker_run_task("finding out whether this is the broker that it was", know_self, NULL);
	return known;
}

bool
standing_run(void)
{
	bool		busy = false;

	(void) worker_run_task("coming back into the cluster", come_back, &busy);
	return busy;
}
