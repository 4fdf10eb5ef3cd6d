/*-------------------------------------------------------------------------
 *
 * leader_calls.c
 *	  What the replication worker asks the leaders for that this broker follows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "catalog/cluster.h"
#include "peer/call.h"
#include "shmem/applying.h"
#include "worker/leader_calls.h"
#include "worker/workers.h"

#define CALL_TIMEOUT_MS		5000

static HTAB *leaders = NULL;

Leader *
leader_entry(int32 id)
{
	Leader	   *leader;
	bool		found;

	if (leaders == NULL)
	{
		HASHCTL		info;

		info.keysize = sizeof(int32);
		info.entrysize = sizeof(Leader);
		leaders = hash_create("pgtopic leaders", 16, &info, HASH_ELEM | HASH_BLOBS);
	}
	leader = hash_search(leaders, &id, HASH_ENTER, &found);
	if (!found)
		memset((char *) leader + sizeof(int32), 0, sizeof(Leader) - sizeof(int32));
	return leader;
}

static void
disconnect(Leader *leader)
{
	call_close(leader->conn);
	leader->conn = NULL;
}

char *
leader_conninfo(int32 broker)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *conninfo;

	worker_begin_transaction();
	conninfo = MemoryContextStrdup(context, broker_conninfo(broker));
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return conninfo;
}

int32
worker_self(void)
{
	MemoryContext context = CurrentMemoryContext;
	int32		self;

	worker_begin_transaction();
	self = cluster_self();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return self;
}

/*
 * Whether a connection on which nothing is under way has ended, as it has when the leader
 * was restarted.  What it has said at its end comes first.
 */
static bool
has_ended(PGconn *conn)
{
	for (int i = 0; i < 2; i++)
	{
		if (!PQconsumeInput(conn))
			return true;
		(void) PQisBusy(conn);
	}
	return PQstatus(conn) != CONNECTION_OK;
}

PGresult *
leader_call(Leader *leader, const char *sql, int nparams, const char *const *params)
{
	char	   *whom = psprintf("broker %d", leader->id);
	PGresult   *result;

	if (leader->conn && has_ended(leader->conn))
		disconnect(leader);
	if (leader->conn == NULL)
		leader->conn = call_open(leader_conninfo(leader->id), worker_self(), whom, CALL_TIMEOUT_MS);
	PG_TRY();
	{
		result = call_run(leader->conn, whom, CALL_TIMEOUT_MS, sql, nparams, params);
	}
	PG_CATCH();
	{
		disconnect(leader);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

char *
worker_int_text(int64 number)
{
	return psprintf(INT64_FORMAT, number);
}

PGresult *
leader_call_for(Leader *leader, const Replica *replica, const char *sql, int nparams, int64 sixth)
{
	const char *params[7];

	params[0] = worker_int_text(worker_self());
	params[1] = worker_int_text(replica->topic);
	params[2] = worker_int_text(replica->partition);
	params[3] = worker_int_text(replica->leader_epoch);
	params[4] = worker_int_text(replica->placement);
	params[5] = worker_int_text(sixth);
	params[6] = worker_int_text(replica->attempt);
	applying_flush();
	return leader_call(leader, sql, nparams, params);
}
