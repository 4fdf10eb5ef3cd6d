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
 * - for what is on its way (arrivals.h).  An apply worker that finds no table for a
 *	 row fails, again and again, and everything else from that leader stays behind.  A
 *	 row of a table that is there and not in the subscription is passed over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "catalog/extension.h"
#include "catalog/topics.h"
#include "storage/segments.h"
#include "worker/arrivals.h"
#include "worker/replication.h"
#include "worker/workers.h"

typedef struct Leftover
{
	int32		topic;
	int32		partition;		/* -1: all of the topic */
} Leftover;

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

static void
drop(const Leftover *leftover)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	if (leftover->partition < 0)
		storage_drop_topic(leftover->topic, false);
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
	int			count;

	*left = true;
	worker_owner_begin(&saved);
	leftovers = read_leftovers(context, &count, left);
	worker_owner_end(&saved, context);

	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!arrivals_are_over(leftovers[i].topic, leftovers[i].partition, true) ||
			!try_drop(&leftovers[i]))
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
