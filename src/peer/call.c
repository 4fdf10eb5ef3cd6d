/*-------------------------------------------------------------------------
 *
 * call.c
 *	  Single calls of SQL functions on another broker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"

#include "base/compat.h"
#include "peer/call.h"
#include "peer/connect.h"
#include "shmem/cluster_state.h"

static uint32
call_wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = compat_wait_event("PgtopicPeerCall");
	return event;
}

/* Waits for the socket, interruptibly; false if the deadline has passed. */
static bool
wait_for_socket(PGconn *conn, int events, int64 started, int64 deadline)
{
	int64		now = cluster_clock_ms();
	int64		left = deadline - now;
	int			got;

	if (left <= 0)
		return false;
	if (now - started >= PEER_PATIENCE_MS && peer_is_in_vain())
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("a call of another broker was given up"),
				 errdetail("There is newer metadata of the cluster.")));
	left = Min(left, PEER_PATIENCE_MS);
	got = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
							PQsocket(conn), (long) left, call_wait_event());
	if (got & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

static void
error_cannot_connect(const char *whom, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not connect to %s", whom),
			 errdetail_internal("%s", why)));
}

PGconn *
call_open(const char *conninfo, int32 self, const char *whom, int timeout_ms)
{
	PGconn	   *conn;

	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to %s", whom),
				 errdetail("There are too many open files on this server."),
				 errhint("Increase max_files_per_process or the limit of the operating system.")));
	conn = PQconnectStart(peer_conninfo(conninfo, self));
	if (conn == NULL)
	{
		ReleaseExternalFD();
		elog(ERROR, "out of memory");
	}
	PG_TRY();
	{
		char	   *problem = peer_establish(conn, cluster_clock_ms() + timeout_ms, call_wait_event(), 0);

		if (problem)
			error_cannot_connect(whom, problem);
	}
	PG_CATCH();
	{
		call_close(conn);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return conn;
}

void
call_close(PGconn *conn)
{
	if (conn == NULL)
		return;
	PQfinish(conn);
	ReleaseExternalFD();
}

/* Raises the error of a result here. */
static void
raise_remote_error(const PGresult *result, const char *whom)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
	int			code = ERRCODE_CONNECTION_FAILURE;

	if (sqlstate && strlen(sqlstate) == 5)
		code = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]);
	ereport(ERROR,
			(errcode(code),
			 errmsg_internal("%s", message ? pstrdup(message) : pchomp(PQresultErrorMessage(result))),
			 detail ? errdetail_internal("%s", pstrdup(detail)) : 0,
			 hint ? errhint("%s", pstrdup(hint)) : 0,
			 errcontext("on %s", whom)));
}

static void
error_lost(PGconn *conn, const char *whom)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("lost the connection to %s", whom),
			 errdetail_internal("%s", pchomp(PQerrorMessage(conn)))));
}

PGresult *
call_run(PGconn *conn, const char *whom, int timeout_ms, const char *sql,
		  int nparams, const char *const *params)
{
	int64		started = cluster_clock_ms();
	int64		deadline = started + timeout_ms;
	PGresult   *volatile last = NULL;

	if (!PQsendQueryParams(conn, sql, nparams, NULL, params, NULL, NULL, 0))
		error_lost(conn, whom);

	PG_TRY();
	{
		for (;;)
		{
			PGresult   *result;

			while (PQisBusy(conn))
			{
				if (!wait_for_socket(conn, WL_SOCKET_READABLE, started, deadline))
					ereport(ERROR,
							(errcode(ERRCODE_CONNECTION_FAILURE),
							 errmsg("%s does not answer", whom),
							 errdetail("It was called %d ms ago.", timeout_ms)));
				if (!PQconsumeInput(conn))
					error_lost(conn, whom);
			}
			/* NULL comes when its transaction has ended */
			result = PQgetResult(conn);
			if (result == NULL)
				break;
			PQclear(last);
			last = result;
		}
		if (last == NULL || PQstatus(conn) == CONNECTION_BAD)
			error_lost(conn, whom);
		if (PQresultStatus(last) != PGRES_TUPLES_OK && PQresultStatus(last) != PGRES_COMMAND_OK)
			raise_remote_error(last, whom);
	}
	PG_CATCH();
	{
		PQclear(last);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return last;
}

char **
call_run_once(const char *conninfo, int32 self, const char *whom, int timeout_ms,
			   const char *sql, int nparams, const char *const *params, int ncolumns)
{
	PGconn	   *conn = call_open(conninfo, self, whom, timeout_ms);
	char	  **values = palloc0(ncolumns * sizeof(char *));

	PG_TRY();
	{
		PGresult   *result = call_run(conn, whom, timeout_ms, sql, nparams, params);

		for (int i = 0; i < ncolumns && i < PQnfields(result) && PQntuples(result) > 0; i++)
		{
			if (!PQgetisnull(result, 0, i))
				values[i] = pstrdup(PQgetvalue(result, 0, i));
		}
		PQclear(result);
	}
	PG_FINALLY();
	{
		call_close(conn);
	}
	PG_END_TRY();
	return values;
}
