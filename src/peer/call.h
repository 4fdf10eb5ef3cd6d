/*-------------------------------------------------------------------------
 *
 * call.h
 *	  Single calls of SQL functions on another broker, each a transaction of its
 *	  own there, whatever happens to this one's.
 *
 * For metadata and replication.  What is part of the caller's transaction goes
 * through connection.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_CALL_H
#define PGTOPIC_CALL_H

#include "postgres.h"

#include "libpq-fe.h"

/*
 * Connects, interruptibly, within timeout_ms; an error (08001) that says whom
 * (broker 3, or what else names it) if that is not possible.  The connection
 * has to be closed, also after an error: use PG_FINALLY.
 */
extern PGconn *call_open(const char *conninfo, int32 self, const char *whom, int timeout_ms);
extern void call_close(PGconn *conn);

/*
 * Calls, and waits for the result and the end of the transaction, at most
 * timeout_ms.  params are text, NULL for NULL.  An error on the other side is
 * raised here with its SQLSTATE; one of the connection as 08006.  The result has
 * to be cleared.
 */
extern PGresult *call_run(PGconn *conn, const char *whom, int timeout_ms, const char *sql,
						   int nparams, const char *const *params);

/* All in one: open, call, close.  The values of the first row, in the caller's memory. */
extern char **call_run_once(const char *conninfo, int32 self, const char *whom, int timeout_ms,
							 const char *sql, int nparams, const char *const *params, int ncolumns);

#endif							/* PGTOPIC_CALL_H */
