/*-------------------------------------------------------------------------
 *
 * arrivals.c
 *	  Whether anything of a table can still arrive through our subscriptions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"

#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "cluster/publish.h"
#include "cluster/subscribe.h"
#include "peer/call.h"
#include "peer/connect.h"
#include "worker/arrivals.h"
#include "worker/replication.h"
#include "worker/workers.h"

#define CALL_TIMEOUT_MS		5000

/* How far what a leader may still send of a table has come. */
typedef struct Fence
{
	struct
	{
		int32		topic;
		int32		partition;	/* -1: all of the topic */
		int32		leader;
	}			key;			/* hash key, must be first */
	uint64		xmax;			/* transactions below it may have written there; 0: not known */
	XLogRecPtr	lsn;			/* they have all ended by here; Invalid: not yet */
	bool		passed_over;	/* the apply worker is started anew, and passes over what comes */
	uint32		round;			/* of the last look: who was not asked for since begins again */
} Fence;

/* A leader that this broker receives from. */
typedef struct Source
{
	int32		leader;
	XLogRecPtr	received;		/* all that was written up to here */
	bool		asked;
	uint64		xmin;			/* its answer: oldest transaction, next one, end of WAL */
	uint64		xmax;
	XLogRecPtr	end;
	char	   *published;		/* to this broker: " t1_p0 t1_p0_offsets " */
	char	   *open;			/* partitions that open transactions have written to: " t1_p0 " */
} Source;

static HTAB *fences = NULL;
static uint32 look_round = 0;

/* Those of this round; NULL: not read yet. */
static Source *sources = NULL;
static int	sources_count = 0;
static MemoryContext round_context;

static Fence *
fence_of(int32 topic, int32 partition, int32 leader)
{
	Fence		wanted;
	Fence	   *fence;
	bool		found;

	if (fences == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(wanted.key);
		info.entrysize = sizeof(Fence);
		fences = hash_create("pgtopic fences", 64, &info, HASH_ELEM | HASH_BLOBS);
	}
	wanted.key.topic = topic;
	wanted.key.partition = partition;
	wanted.key.leader = leader;
	fence = hash_search(fences, &wanted.key, HASH_ENTER, &found);
	if (!found || fence->round != look_round - 1)
	{
		fence->xmax = 0;
		fence->lsn = InvalidXLogRecPtr;
		fence->passed_over = false;
	}
	fence->round = look_round;
	return fence;
}

static XLogRecPtr
lsn_from_text(const char *text)
{
	return DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(text)));
}

static void
read_sources(void)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	extension_execute(SPI_OK_SELECT,
					  "SELECT pg_catalog.substring(s.subname, '^pgtopic_from_(\\d+)$')::pg_catalog.int4,"
					  " COALESCE(pg_catalog.max(w.latest_end_lsn), '0/0')"
					  " FROM pg_catalog.pg_subscription s"
					  " LEFT JOIN pg_catalog.pg_stat_subscription w ON w.subid = s.oid AND w.relid IS NULL"
					  " WHERE s.subname ~ '^pgtopic_from_\\d+$' AND s.subdbid ="
					  " (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
					  " GROUP BY 1");
	sources_count = (int) SPI_processed;
	sources = MemoryContextAllocZero(round_context, (sources_count + 1) * sizeof(Source));
	for (int i = 0; i < sources_count; i++)
	{
		sources[i].leader = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		sources[i].received = lsn_from_text(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2));
	}
	worker_owner_end(&saved, context);
}

/*
 * Asks a leader, once in a round; an error if it does not answer.
 *
 * How far we have received is told by keepalives, and a walsender that has nothing new sends
 * none for half of wal_sender_timeout.  So the leader writes something behind what it tells
 * as the end: that comes at once.
 */
static void
ask(Source *source)
{
	MemoryContext context = round_context;
	const char *params[2];
	char	  **answer;
	char	   *conninfo;
	int32		self;

	if (source->asked)
		return;
	worker_begin_transaction();
	self = cluster_self();
	conninfo = MemoryContextStrdup(context, broker_conninfo(source->leader));
	params[0] = MemoryContextStrdup(context, publication_name(self, false));
	params[1] = MemoryContextStrdup(context, publication_name(self, true));
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	answer = call_run_once(conninfo, self, psprintf("broker %d", source->leader), CALL_TIMEOUT_MS,
						   "SELECT pgtopic.peer_open_partitions(),"
						   " pg_catalog.pg_snapshot_xmin(s), pg_catalog.pg_snapshot_xmax(s),"
						   " pg_catalog.pg_current_wal_insert_lsn(),"
						   " (SELECT COALESCE(pg_catalog.string_agg(' ' || c.relname || ' ', ''), '')"
						   " FROM pg_catalog.pg_publication_rel r"
						   " JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid"
						   " JOIN pg_catalog.pg_class c ON c.oid = r.prrelid WHERE p.pubname IN ($1, $2)),"
						   " pg_catalog.pg_logical_emit_message(false, 'pgtopic', '')"
						   " FROM pg_catalog.pg_current_snapshot() s", 2, params, 6);
	source->open = answer[0];
	source->xmin = strtoull(answer[1], NULL, 10);
	source->xmax = strtoull(answer[2], NULL, 10);
	source->end = lsn_from_text(answer[3]);
	source->published = answer[4];
	source->asked = true;
}

/* Whether a list like Source.published has a table of a partition (-1: any of the topic's). */
static bool
has_table(const char *list, int32 topic, int32 partition)
{
	const char *name = partition < 0 ? psprintf(" t%d_", topic) : psprintf(" t%d_p%d", topic, partition);
	size_t		length = strlen(name);

	for (const char *at = strstr(list, name); at; at = strstr(at + 1, name))
	{
		/* t1_p1 is not t1_p10 */
		if (partition < 0 || at[length] == ' ' || at[length] == '_')
			return true;
	}
	return false;
}

/*
 * Whether nothing of a table can come from a leader any more.  What was written while the
 * table was published may come, when its transaction commits.  So either all transactions
 * of that time have ended, or none that is open has written there: who waits for
 * followers to come into sync is not waited for by them.
 */
static bool
has_arrived(int32 topic, int32 partition, Source *source)
{
	Fence	   *fence = fence_of(topic, partition, source->leader);

	if (fence->passed_over)
		return true;
	if (fence->xmax == 0)
	{
		ask(source);
		if (has_table(source->published, topic, partition))
			return false;
		fence->xmax = source->xmax;
	}
	if (XLogRecPtrIsInvalid(fence->lsn))
	{
		ask(source);
		if (source->xmin < fence->xmax && has_table(source->open, topic, partition))
			return false;
		fence->lsn = source->end;
	}
	return source->received >= fence->lsn;
}

void
arrivals_begin_round(MemoryContext context)
{
	look_round++;
	sources = NULL;
	round_context = context;
}

/* The same as has_arrived(); a leader that does not answer has its apply worker end. */
static bool
has_arrived_or_cannot(int32 topic, int32 partition, Source *source)
{
	volatile bool result = false;
	volatile bool failed = false;

	PG_TRY();
	{
		result = has_arrived(topic, partition, source);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		/* it may be this worker that has something better to do */
		if (peer_is_in_vain() ||
			(code != ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION &&
			 code != ERRCODE_CONNECTION_FAILURE))
			PG_RE_THROW();
		HOLD_INTERRUPTS();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(round_context);
		failed = true;
	}
	PG_END_TRY();
	if (failed)
	{
		Fence	   *fence = fence_of(topic, partition, source->leader);

		subscribe_restart(source->leader);
		/* also in rounds to come: the others may need some */
		fence->passed_over = true;
		return true;
	}
	return result;
}

bool
arrivals_are_over(int32 topic, int32 partition, bool drop)
{
	bool		over = true;

	if (sources == NULL)
		read_sources();
	for (int i = 0; i < sources_count; i++)
	{
		if (drop)
			over &= has_arrived(topic, partition, &sources[i]);
		else
			over &= has_arrived_or_cannot(topic, partition, &sources[i]);
	}
	return over;
}
