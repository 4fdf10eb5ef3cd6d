/*-------------------------------------------------------------------------
 *
 * leader_calls.h
 *	  What the replication worker asks the leaders for that this broker follows.
 *
 * All raise errors of peer/call.h when a leader does not answer, or answers with one.
 * They run transactions of their own, so none must be open; the caller's memory context
 * is kept.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_LEADER_CALLS_H
#define PGTOPIC_LEADER_CALLS_H

#include "postgres.h"

#include "libpq-fe.h"

#include "cluster/replica.h"

/* A leader that this broker follows. */
typedef struct Leader
{
	int32		id;				/* hash key, must be first */
	PGconn	   *conn;
	int64		checked_at;		/* ms */
	int64		asked_at;		/* ms; about copies */
	int64		try_at;			/* ms; not before */
} Leader;

/* What is remembered of a leader as long as this process lives. */
extern Leader *leader_entry(int32 id);

extern char *leader_conninfo(int32 broker);
extern int32 worker_self(void);
extern char *worker_int_text(int64 number);

/* Calls a function of a leader, over a connection that is kept while it works. */
extern PGresult *leader_call(Leader *leader, const char *sql, int nparams, const char *const *params);

/*
 * Calls a function for a partition: with this broker, topic, partition, leader epoch,
 * placement, a sixth one, and attempt, or the first nparams of these.  What we say by it of
 * our copy must not be taken back by a crash, so that is flushed before.
 */
extern PGresult *leader_call_for(Leader *leader, const Replica *replica, const char *sql,
								 int nparams, int64 sixth);

#endif							/* PGTOPIC_LEADER_CALLS_H */
