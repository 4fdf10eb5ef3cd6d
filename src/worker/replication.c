/*-------------------------------------------------------------------------
 *
 * replication.c
 *	  The replication worker: makes this broker what the committed metadata says.
 *
 * It applies the metadata to the catalog and the storage, looks after the followers
 * of what this broker leads (leader.c), and after the copies of what it follows
 * (follower.c).  It may have to wait for other brokers, unlike the quorum worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/image.h"
#include "base/settings.h"
#include "cluster/apply.h"
#include "cluster/change.h"
#include "cluster/publish.h"
#include "cluster/store.h"
#include "peer/connect.h"
#include "shmem/cluster_state.h"
#include "worker/arrivals.h"
#include "worker/replication.h"
#include "worker/workers.h"

/* Between two looks: while steps are under way, and else. */
#define BUSY_MS		50
#define IDLE_MS		1000

/* How often a move that came to a stop is tried again. */
#define ADVANCE_MS		10000
#define ADVANCE_WAIT_MS	2000

/*
 * Whether there may be tables in publications that are not to be there, publications
 * that are not to be, and tables that are not to be; so after a start.
 */
static bool untidy = true;
static bool followed = true;
static bool leftovers = true;

static bool told = false;		/* apply_after_restart() */

static void
apply_task(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	ClusterStore store;
	int64		version;
	char	   *text;
	Image	   *image;

	worker_owner_begin(&saved);
	if (!store_read(&store) || store.self == 0)
	{
		worker_owner_end(&saved, context);
		return;
	}
	MemoryContextSwitchTo(context);
	text = store_committed_image(&version);
	worker_owner_end(&saved, context);

	if (text == NULL || version <= store.applied_version)
	{
		if (!told)
			apply_after_restart();
		told = true;
		cluster_state_set_applied(store.applied_version);
		return;
	}
	image = image_parse(text);
	if (image == NULL)
		elog(ERROR, "the stored metadata of the cluster cannot be read");
	/* one without this broker is not for it: it is leaving */
	if (image_broker(image, store.self) == NULL)
		return;
	/* also if it fails half way */
	untidy = true;
	apply_image(image, store.self, version);
	told = true;
}

/*
 * A move whose handover failed is tried again, by the controller, whether or not
 * anything else changes in the metadata.
 */
static void
advance_task(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	ClusterState state;
	int64		version;
	char	   *text;

	cluster_state_get(&state);
	if (state.controller_term == 0)
		return;
	worker_owner_begin(&saved);
	MemoryContextSwitchTo(context);
	text = store_committed_image(&version);
	worker_owner_end(&saved, context);
	if (text == NULL || !change_can_advance(text))
		return;
	worker_begin_transaction();
	(void) cluster_change(CHANGE_ADVANCE, NULL, 0, ADVANCE_WAIT_MS);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Has partitions go back to their preferred leaders, in one change of the metadata. */
static void
rebalance_task(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ClusterState state;

	cluster_state_get(&state);
	if (state.controller_term == 0)
		return;
	worker_begin_transaction();
	(void) cluster_change(CHANGE_PREFER_LEADERS, NULL, 0, ADVANCE_WAIT_MS);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* Publications that applied metadata has no use for. */
static void
tidy_task(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	followed = publish_tidy();
	worker_owner_end(&saved, context);
	untidy = false;
	leftovers = true;
}

/* The metadata when a round began: what is newer is to be applied first. */
static int64 round_version;

/*
 * Whether to wait for another broker any longer: not if there is newer metadata, which
 * may say that this one is gone and others, this one perhaps, lead what it led.
 */
static bool
waits_in_vain(void)
{
	ClusterState state;

	cluster_state_get(&state);
	return state.committed_version > round_version;
}

static void
run_round(MemoryContext context)
{
	static TimestampTz advanced = 0;
	static TimestampTz rebalanced = 0;
	static TimestampTz stored = 0;
	TimestampTz now = GetCurrentTimestamp();
	bool		checkpoints;
	bool		busy;
	uint32		wait_event = compat_wait_event("PgtopicReplicationMain");
	ClusterState state;

	arrivals_begin_round(context);
	cluster_state_get(&state);
	round_version = state.committed_version;
	checkpoints = TimestampDifferenceExceeds(stored, now, pgtopic_checkpoint_interval);
	if (checkpoints)
		stored = now;
	(void) worker_run_task("applying the cluster's metadata", apply_task, NULL);
	if (untidy || followed)
		(void) worker_run_task("tidying publications", tidy_task, NULL);
	busy = standing_run();
	busy |= leader_run();
	/* what is still published to others would go back to them, were it copied from them */
	if (untidy)
		busy = true;
	else
		busy |= follower_run(checkpoints);
	if (TimestampDifferenceExceeds(advanced, now, ADVANCE_MS))
	{
		advanced = now;
		(void) worker_run_task("trying moves of partitions again", advance_task, NULL);
	}
	if (rebalanced == 0)
		rebalanced = now;
	if (pgtopic_leader_rebalance_interval >= 0 &&
		TimestampDifferenceExceeds(rebalanced, now, pgtopic_leader_rebalance_interval))
	{
		rebalanced = now;
		(void) worker_run_task("giving partitions back to their preferred leaders", rebalance_task, NULL);
	}
	if (leftovers)
		leftovers = leftovers_run();
	if (!busy)
		sync_slots_run();

	pgstat_report_stat(true);
	worker_doing(NULL);
	if (waits_in_vain())
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 busy ? BUSY_MS : Min(IDLE_MS, pgtopic_checkpoint_interval), wait_event);
	ResetLatch(MyLatch);
}

void
pgtopic_replication_main(Datum arg)
{
	MemoryContext context = worker_begin(WORKER_REPLICATION, DatumGetObjectId(arg));
	uint32		wait_event = compat_wait_event("PgtopicReplicationMain");

	peer_give_up_when(waits_in_vain);
	for (;;)
	{
		worker_round(context);
		if (standing_is_known())
			run_round(context);
		else
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, BUSY_MS, wait_event);
			ResetLatch(MyLatch);
		}
	}
}
