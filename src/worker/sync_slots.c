/*-------------------------------------------------------------------------
 *
 * sync_slots.c
 *	  The replication worker's part that drops slots which this broker has left behind
 *	  at others.
 *
 * PostgreSQL makes a replication slot for each table that a subscription copies, and
 * drops it when the subscription goes, if the other side answers.  One that was gone
 * when its subscription went has them still, and they hold its WAL.  Their names tell
 * which server and which subscription they belong to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "peer/call.h"
#include "shmem/cluster_state.h"
#include "worker/replication.h"
#include "worker/workers.h"

#define CALL_TIMEOUT_MS		2000
#define TRY_AGAIN_MS		10000

/* A broker, and whether it has been asked since this worker started, or it was fenced. */
typedef struct Other
{
	int32		broker;			/* hash key, must be first */
	int32		fencings;		/* when it was asked last */
	bool		asked;
	int64		try_at;			/* ms */
	bool		fenced;			/* as of this round */
	char	   *conninfo;		/* of this round */
} Other;

static HTAB *others = NULL;

typedef struct Round
{
	int32		self;
	char	   *subscriptions;	/* of this server, as an array */
	int			count;
	Other	  **others;			/* to be asked */
} Round;

static void
look(void *arg)
{
	Round	   *round = arg;
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	if (others == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(int32);
		info.entrysize = sizeof(Other);
		others = hash_create("pgtopic slots left behind", 16, &info, HASH_ELEM | HASH_BLOBS);
	}
	worker_owner_begin(&saved);
	round->self = cluster_self();
	extension_execute(SPI_OK_SELECT, "SELECT id, fencings, fenced, conninfo FROM pgtopic.broker WHERE id <> %d", round->self);
	round->others = MemoryContextAlloc(context, (SPI_processed + 1) * sizeof(Other *));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		bool		found;
		HeapTuple	row = SPI_tuptable->vals[i];
		int32		id = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		int32		fencings = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
		bool		fenced = DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 3, &isnull));
		Other	   *other = hash_search(others, &id, HASH_ENTER, &found);

		if (!found || other->fencings != fencings)
		{
			other->fencings = fencings;
			other->asked = false;
			other->try_at = 0;
		}
		if (other->asked || fenced || cluster_clock_ms() < other->try_at)
			continue;
		other->conninfo = MemoryContextStrdup(context, SPI_getvalue(row, SPI_tuptable->tupdesc, 4));
		round->others[round->count++] = other;
	}
	if (round->count > 0)
	{
		extension_execute(SPI_OK_SELECT, "SELECT COALESCE(pg_catalog.array_agg(oid), '{}') FROM pg_catalog.pg_subscription");
		round->subscriptions = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	}
	worker_owner_end(&saved, context);
}

typedef struct AskTask
{
	const Round *round;
	Other	   *other;
} AskTask;

static void
ask(void *arg)
{
	AskTask    *task = arg;
	const char *params[2];
	char	  **dropped;

	params[0] = psprintf(UINT64_FORMAT, GetSystemIdentifier());
	params[1] = task->round->subscriptions;
	dropped = call_run_once(task->other->conninfo, task->round->self, psprintf("broker %d", task->other->broker),
							CALL_TIMEOUT_MS, "SELECT pgtopic.peer_drop_sync_slots($1, $2)", 2, params, 1);
	if (dropped[0] && strcmp(dropped[0], "0") != 0)
		ereport(LOG,
				(errmsg("pgtopic has dropped %s replication slots that it had left behind at broker %d",
						dropped[0], task->other->broker)));
	task->other->asked = true;
}

void
sync_slots_run(void)
{
	Round		round = {0};

	if (!worker_run_task("looking for replication slots left behind", look, &round))
		return;
	for (int i = 0; i < round.count; i++)
	{
		AskTask		task = {&round, round.others[i]};

		task.other->try_at = cluster_clock_ms() + TRY_AGAIN_MS;
		(void) worker_run_task(psprintf("dropping replication slots left behind at broker %d", task.other->broker),
							   ask, &task);
	}
}
