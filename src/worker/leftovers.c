/*-------------------------------------------------------------------------
 *
 * leftovers.c
 *	  The replication worker's part that drops the tables that this broker has no use
 *	  for: of topics that are gone, and of partitions that it has no replica of.
 *
 * That is no part of applying the metadata, since it may have to wait:
 *
 * - for sessions.  A producer who waits for a partition's new leader has the tables
 *	 of the old one locked.
 * - for subscriptions that are copying the table.  PostgreSQL refuses to drop it.
 * - for what is on its way.  What is published is decided as of the WAL that is
 *	 decoded, so rows of a table may arrive after it has left the publication; an
 *	 apply worker that finds no table for them fails, again and again, and
 *	 everything else from that leader stays behind.  A row of a table that is there
 *	 and not in the subscription is passed over.  So tables are dropped when from
 *	 each leader all has arrived that was written by transactions that had begun
 *	 before the table left the publication.
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
#include "catalog/topics.h"
#include "cluster/publish.h"
#include "cluster/subscribe.h"
#include "peer/call.h"
#include "storage/segments.h"
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
	uint32		round;			/* of the last look: one that was not a leftover since begins again */
} Fence;

typedef struct Leftover
{
	int32		topic;
	int32		partition;		/* -1: all of the topic */
} Leftover;

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
} Source;

static HTAB *fences = NULL;
static uint32 look_round = 0;

static Fence *
fence_of(const Leftover *leftover, int32 leader)
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
	wanted.key.topic = leftover->topic;
	wanted.key.partition = leftover->partition;
	wanted.key.leader = leader;
	fence = hash_search(fences, &wanted.key, HASH_ENTER, &found);
	if (!found || fence->round != look_round - 1)
	{
		fence->xmax = 0;
		fence->lsn = InvalidXLogRecPtr;
	}
	fence->round = look_round;
	return fence;
}

/* What can be dropped as far as this database's own subscriptions go. */
static Leftover *
read_leftovers(MemoryContext context, int *count, bool *others)
{
	Leftover   *leftovers;
	int			rows;

	extension_execute(SPI_OK_SELECT,
					  "SELECT x.name[1]::pg_catalog.int4, COALESCE(x.name[3]::pg_catalog.int4, -1),"
					  " EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r"
					  " JOIN pg_catalog.pg_class s ON s.oid = r.srrelid"
					  " WHERE s.relnamespace = 'pgtopic'::pg_catalog.regnamespace"
					  " AND s.relname ~ ('^' || x.relname || '(_|$)'))::pg_catalog.int4"
					  " FROM (SELECT relname, pg_catalog.regexp_match(relname, '^t(\\d+)(_p(\\d+))?$') AS name"
					  " FROM pg_catalog.pg_class WHERE relkind = 'p'"
					  " AND relnamespace = 'pgtopic'::pg_catalog.regnamespace) x, pgtopic.cluster c"
					  " WHERE x.name IS NOT NULL AND CASE WHEN x.name[3] IS NULL"
					  " THEN NOT EXISTS (SELECT FROM pgtopic.topic t WHERE t.id = x.name[1]::pg_catalog.int4)"
					  " ELSE EXISTS (SELECT FROM pgtopic.partition p WHERE p.topic_id = x.name[1]::pg_catalog.int4"
					  " AND p.partition = x.name[3]::pg_catalog.int4 AND c.self <> ALL (p.replicas)) END");
	rows = (int) SPI_processed;
	leftovers = MemoryContextAlloc(context, (rows + 1) * sizeof(Leftover));
	*count = 0;
	*others = false;
	for (int i = 0; i < rows; i++)
	{
		if (atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3)) != 0)
		{
			/* the subscription looks at its publications again first */
			*others = true;
			continue;
		}
		leftovers[*count].topic = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		leftovers[*count].partition = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2));
		(*count)++;
	}
	return leftovers;
}

static XLogRecPtr
lsn_from_text(const char *text)
{
	return DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(text)));
}

static Source *
read_sources(MemoryContext context, int *count)
{
	Source	   *sources;

	extension_execute(SPI_OK_SELECT,
					  "SELECT pg_catalog.substring(s.subname, '^pgtopic_from_(\\d+)$')::pg_catalog.int4,"
					  " COALESCE(pg_catalog.max(w.latest_end_lsn), '0/0')"
					  " FROM pg_catalog.pg_subscription s"
					  " LEFT JOIN pg_catalog.pg_stat_subscription w ON w.subid = s.oid AND w.relid IS NULL"
					  " WHERE s.subname ~ '^pgtopic_from_\\d+$' AND s.subdbid ="
					  " (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
					  " GROUP BY 1");
	*count = (int) SPI_processed;
	sources = MemoryContextAllocZero(context, (*count + 1) * sizeof(Source));
	for (int i = 0; i < *count; i++)
	{
		sources[i].leader = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
		sources[i].received = lsn_from_text(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2));
	}
	return sources;
}

/* Asks a leader, once in a round; an error if it does not answer. */
static void
ask(Source *source)
{
	MemoryContext context = CurrentMemoryContext;
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
						   "SELECT pg_catalog.pg_snapshot_xmin(s), pg_catalog.pg_snapshot_xmax(s),"
						   " pg_catalog.pg_current_wal_insert_lsn(),"
						   " (SELECT COALESCE(pg_catalog.string_agg(' ' || c.relname || ' ', ''), '')"
						   " FROM pg_catalog.pg_publication_rel r"
						   " JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid"
						   " JOIN pg_catalog.pg_class c ON c.oid = r.prrelid WHERE p.pubname IN ($1, $2))"
						   " FROM pg_catalog.pg_current_snapshot() s", 2, params, 4);
	source->xmin = strtoull(answer[0], NULL, 10);
	source->xmax = strtoull(answer[1], NULL, 10);
	source->end = lsn_from_text(answer[2]);
	source->published = answer[3];
	source->asked = true;
}

/* Whether nothing of a table can come from a leader any more. */
static bool
has_arrived(const Leftover *leftover, Source *source)
{
	Fence	   *fence = fence_of(leftover, source->leader);

	if (fence->xmax == 0)
	{
		const char *name = leftover->partition < 0 ? psprintf(" t%d_", leftover->topic) :
			psprintf(" t%d_p%d", leftover->topic, leftover->partition);
		size_t		length = strlen(name);

		ask(source);
		for (const char *at = strstr(source->published, name); at; at = strstr(at + 1, name))
		{
			/* t1_p1 is not t1_p10 */
			if (leftover->partition < 0 || at[length] == ' ' || at[length] == '_')
				return false;
		}
		fence->xmax = source->xmax;
	}
	if (XLogRecPtrIsInvalid(fence->lsn))
	{
		ask(source);
		if (source->xmin < fence->xmax)
			return false;
		fence->lsn = source->end;
	}
	return source->received >= fence->lsn;
}

static void
drop(const Leftover *leftover)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	if (leftover->partition < 0)
		storage_drop_topic(leftover->topic);
	else
	{
		storage_drop_partition(leftover->topic, leftover->partition);
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.replica WHERE topic_id = %d AND partition = %d",
						  leftover->topic, leftover->partition);
		topic_invalidate(leftover->topic);
	}
	worker_owner_end(&saved, context);
}

/* False if somebody is in the way. */
static bool
try_drop(const Leftover *leftover)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool dropped = true;

	PG_TRY();
	{
		drop(leftover);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (code != ERRCODE_LOCK_NOT_AVAILABLE && code != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			PG_RE_THROW();
		HOLD_INTERRUPTS();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(context);
		dropped = false;
	}
	PG_END_TRY();
	return dropped;
}

static void
look_at_leftovers(void *arg)
{
	bool	   *left = arg;
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	Leftover   *leftovers;
	Source	   *sources;
	int			leftovers_count;
	int			sources_count;

	*left = true;
	look_round++;
	worker_owner_begin(&saved);
	leftovers = read_leftovers(context, &leftovers_count, left);
	sources = read_sources(context, &sources_count);
	worker_owner_end(&saved, context);

	if (leftovers_count == 0 && !*left && fences != NULL)
	{
		hash_destroy(fences);
		fences = NULL;
	}
	for (int i = 0; i < leftovers_count; i++)
	{
		bool		arrived = true;

		CHECK_FOR_INTERRUPTS();
		for (int s = 0; s < sources_count; s++)
			arrived &= has_arrived(&leftovers[i], &sources[s]);
		if (!arrived || !try_drop(&leftovers[i]))
			*left = true;
	}
}

bool
leftovers_run(void)
{
	bool		left = true;

	(void) worker_run_task("dropping tables that are of no use here", look_at_leftovers, &left);
	return left;
}
