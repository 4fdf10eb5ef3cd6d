/*-------------------------------------------------------------------------
 *
 * subscribe.c
 *	  The follower's side of replication: one subscription for each leader.
 *
 * Commands on subscriptions that connect to the other side refuse to run within a
 * function.  A worker can run them all the same, as the top-level command that they
 * want to be, through ProcessUtility().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "base/compat.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "cluster/publish.h"
#include "cluster/subscribe.h"
#include "peer/connect.h"

#define COMMAND_TIMEOUT_MS	10000

char *
subscription_name(int32 leader)
{
	return psprintf("pgtopic_from_%d", leader);
}

/* This database's subscription, as a condition on pg_subscription. */
#define OUR_DATABASE "subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"

bool
subscription_exists(int32 leader)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT FROM pg_catalog.pg_subscription WHERE subname = %s AND " OUR_DATABASE,
					  quote_literal_cstr(subscription_name(leader)));
	return SPI_processed > 0;
}

char
subscription_state(int32 leader, int32 topic, int32 partition)
{
	int			count;
	char		state = 'r';

	extension_execute(SPI_OK_SELECT,
					  "SELECT r.srsubstate::pg_catalog.text FROM pg_catalog.pg_subscription_rel r"
					  " JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid"
					  " JOIN pg_catalog.pg_class c ON c.oid = r.srrelid"
					  " WHERE s.subname = %s AND s." OUR_DATABASE
					  " AND c.relname IN ('t%d_p%d', 't%d_p%d_offsets')"
					  " AND c.relnamespace = 'pgtopic'::pg_catalog.regnamespace",
					  quote_literal_cstr(subscription_name(leader)), topic, partition, topic, partition);
	count = (int) SPI_processed;
	for (int i = 0; i < count; i++)
	{
		char	   *one = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

		if (one[0] != 'r')
			state = one[0];
	}
	if (count == 0)
		return 0;
	return count == 2 ? state : 'i';
}

bool
subscription_is_stuck(int32 leader, int32 topic, int32 partition)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT FROM pg_catalog.pg_subscription_rel r"
					  " JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid"
					  " JOIN pg_catalog.pg_class c ON c.oid = r.srrelid"
					  " WHERE s.subname = %s AND s." OUR_DATABASE " AND r.srsubstate = 'f'"
					  " AND c.relname IN ('t%d_p%d', 't%d_p%d_offsets')"
					  " AND c.relnamespace = 'pgtopic'::pg_catalog.regnamespace"
					  " AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_subscription w"
					  " WHERE w.subid = r.srsubid AND w.relid = r.srrelid AND w.pid IS NOT NULL)"
					  " AND EXISTS (SELECT FROM pgtopic.replica p WHERE p.topic_id = %d AND p.partition = %d"
					  " AND p.since < pg_catalog.clock_timestamp() - '20 s'::pg_catalog.interval)",
					  quote_literal_cstr(subscription_name(leader)), topic, partition, topic, partition,
					  topic, partition);
	return SPI_processed > 0;
}

/*
 * Runs a command as if it had been typed, in a transaction of its own.  PostgreSQL
 * waits without limit for the other side, which may have stopped answering: so the
 * command is cancelled (57014) like a statement that takes longer than
 * statement_timeout.
 */
static void
run_command(const char *sql)
{
	MemoryContext context = CurrentMemoryContext;
	RawStmt    *raw;
	PlannedStmt *statement = makeNode(PlannedStmt);
	QueryCompletion completion;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	raw = linitial_node(RawStmt, pg_parse_query(sql));
	statement->commandType = CMD_UTILITY;
	statement->canSetTag = true;
	statement->utilityStmt = raw->stmt;
	statement->stmt_location = raw->stmt_location;
	statement->stmt_len = raw->stmt_len;
	InitializeQueryCompletion(&completion);
	enable_timeout_after(STATEMENT_TIMEOUT, COMMAND_TIMEOUT_MS);
	PG_TRY();
	{
		ProcessUtility(statement, sql, false, PROCESS_UTILITY_TOPLEVEL, NULL, NULL, None_Receiver, &completion);
	}
	PG_FINALLY();
	{
		disable_timeout(STATEMENT_TIMEOUT, false);
	}
	PG_END_TRY();
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/*
 * The slot is there already.  Binary, since it is cheaper; synchronous_commit = off,
 * since the flush worker sees to it that what is applied is flushed and then confirmed
 * at once (shmem/applying.h).
 */
void
subscribe_create(int32 leader, const char *conninfo)
{
	int32		self;
	char		slot[NAMEDATALEN];

	StartTransactionCommand();
	self = cluster_self();
	follower_slot_name(cluster_id(), leader, self, slot);
	CommitTransactionCommand();

	run_command(psprintf("CREATE SUBSCRIPTION %s CONNECTION %s PUBLICATION %s, %s"
						 " WITH (create_slot = false, slot_name = %s, binary = true, streaming = false, synchronous_commit = 'off')",
						 subscription_name(leader), quote_literal_cstr(peer_conninfo(conninfo, self)),
						 publication_name(self, false), publication_name(self, true),
						 quote_literal_cstr(slot)));
}

void
subscribe_refresh(int32 leader)
{
	run_command(psprintf("ALTER SUBSCRIPTION %s REFRESH PUBLICATION WITH (copy_data = true)",
						 subscription_name(leader)));
}

/*
 * DROP connects, if a table was still being copied, to drop the slots of that, but can do
 * without; a connection that is refused at once spares it from waiting.
 */
void
subscribe_drop(int32 leader, bool answers)
{
	run_command(psprintf("ALTER SUBSCRIPTION %s DISABLE", subscription_name(leader)));
	if (!answers)
		run_command(psprintf("ALTER SUBSCRIPTION %s CONNECTION 'host=/dev/null'", subscription_name(leader)));
	run_command(psprintf("ALTER SUBSCRIPTION %s SET (slot_name = NONE)", subscription_name(leader)));
	run_command(psprintf("DROP SUBSCRIPTION %s", subscription_name(leader)));
}

/* Whether a worker of the subscription runs. */
static bool
is_applied(int32 leader)
{
	ExtensionOwner saved;
	MemoryContext context = CurrentMemoryContext;
	bool		runs;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "SELECT FROM pg_catalog.pg_stat_subscription WHERE subname = %s AND pid IS NOT NULL",
					  quote_literal_cstr(subscription_name(leader)));
	runs = SPI_processed > 0;
	SPI_finish();
	extension_owner_end(&saved);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return runs;
}

void
subscribe_restart(int32 leader)
{
	bool		runs;

	run_command(psprintf("ALTER SUBSCRIPTION %s DISABLE", subscription_name(leader)));
	for (int waited = 0; (runs = is_applied(leader)) && waited < COMMAND_TIMEOUT_MS; waited += 20)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	run_command(psprintf("ALTER SUBSCRIPTION %s ENABLE", subscription_name(leader)));
	if (runs)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the apply worker of subscription \"%s\" does not end", subscription_name(leader)),
				 errhint("It may be waiting for a lock on a table: see pg_stat_activity and pg_locks.")));
}

int32 *
subscribe_leaders(int *count)
{
	MemoryContext context = CurrentMemoryContext;
	int32	   *leaders;

	extension_execute(SPI_OK_SELECT,
					  "SELECT pg_catalog.substring(subname, '^pgtopic_from_(\\d+)$') FROM pg_catalog.pg_subscription"
					  " WHERE subname ~ '^pgtopic_from_\\d+$' AND " OUR_DATABASE " ORDER BY 1");
	*count = (int) SPI_processed;
	leaders = MemoryContextAlloc(context, (*count + 1) * sizeof(int32));
	for (int i = 0; i < *count; i++)
		leaders[i] = atoi(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	return leaders;
}

void
subscribe_drop_all(void)
{
	ExtensionOwner saved;
	int			count;
	int32	   *leaders;

	extension_owner_begin(&saved);
	SPI_connect();
	leaders = subscribe_leaders(&count);
	for (int i = 0; i < count; i++)
	{
		extension_execute(SPI_OK_UTILITY, "ALTER SUBSCRIPTION %s DISABLE", subscription_name(leaders[i]));
		extension_execute(SPI_OK_UTILITY, "ALTER SUBSCRIPTION %s SET (slot_name = NONE)",
						  subscription_name(leaders[i]));
		extension_execute(SPI_OK_UTILITY, "DROP SUBSCRIPTION %s", subscription_name(leaders[i]));
	}
	SPI_finish();
	extension_owner_end(&saved);
}
