/*-------------------------------------------------------------------------
 *
 * databases.h
 *	  The databases that have the extension, and the workers that serve them.
 *
 * One lock guards it all; it is held for a few instructions at a time, and
 * taken when no other lock of pgtopic is held.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_DATABASES_H
#define PGTOPIC_DATABASES_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define WORKER_DOING_MAX	128
#define WORKER_ERROR_MAX	256

/* The workers of a database; all but the first are there in a cluster only. */
typedef enum WorkerKind
{
	WORKER_MAINTENANCE,			/* segments, watermarks, retention */
	WORKER_QUORUM,				/* agrees with the other brokers on the metadata */
	WORKER_REPLICATION,			/* brings tables and replication in line with it */
	WORKER_ACKS,				/* moves watermarks when followers have confirmed */
	WORKER_FLUSH,				/* makes durable what replication has brought */
	WORKER_KINDS = WORKER_FLUSH + 1
} WorkerKind;

/* "maintenance", "quorum" … */
extern const char *worker_kind_name(WorkerKind kind);

/* What worker_status shows. */
typedef struct WorkerReport
{
	Oid			database;		/* InvalidOid: the launcher */
	WorkerKind	kind;
	int32		pid;			/* 0: not running */
	bool		busy;
	char		doing[WORKER_DOING_MAX];
	char		last_error[WORKER_ERROR_MAX];
	TimestampTz last_error_at;	/* 0: never */
} WorkerReport;

extern Size databases_shmem_size(void);
extern void databases_shmem_init(void);

/*
 * Says that a database has the extension, so that the launcher starts a worker
 * for it if there is none.  Returns false if pgtopic.max_databases are known
 * already.  No errors, so it may be called after commit.
 */
extern bool database_request_worker(Oid database);

/* Wakes the worker of a database, or asks the launcher for one.  No errors. */
extern void database_wake_worker(Oid database, bool retention);

/*
 * The same when this transaction commits, so that the worker sees what it did.
 * Nothing if it is rolled back.
 */
extern void database_wake_worker_at_commit(bool retention);

/* Registers the callback for the above.  Once a process. */
extern void databases_register_callbacks(void);

/*
 * Says that a database is a broker of a cluster, or is not, and so which workers
 * it is to have.  No errors.
 */
extern void database_set_clustered(Oid database, bool clustered);

/* The same, that this database is, when this transaction commits. */
extern void database_cluster_at_commit(void);

/* Wakes a worker of this database, if it runs.  No errors. */
extern void database_wake(WorkerKind kind);

/* The same when this transaction commits. */
extern void database_wake_at_commit(WorkerKind kind);

/* --- for the launcher --- */

extern void launcher_attach(void);

/* Goes through databases without a running worker whose time has come. */
extern bool launcher_next_to_start(int *position, Oid *database, WorkerKind *kind);

/* Notes a start, so that the next one is tried later and later. */
extern void launcher_note_start(Oid database, WorkerKind kind);

/* Goes through the databases that are known; a dropped one is forgotten. */
extern bool databases_next(int *position, Oid *database);
extern void database_forget(Oid database);

/* --- for the workers of a database --- */

/*
 * Makes this process the worker of this kind of its database until it exits.
 * Returns false if there is one already, or the database is not to have one now.
 */
extern bool worker_attach(WorkerKind kind);

/* Whether this worker is (still) to be there: its database is in a cluster. */
extern bool worker_is_wanted(void);

/* The worker has come so far that a next start need not be delayed. */
extern void worker_note_success(void);

/* Takes back what was asked by database_wake_worker(.., true). */
extern bool worker_take_retention_request(void);

/* --- for the launcher and the workers --- */

/* What the process does; NULL: it waits.  Also shown by pg_stat_activity. */
extern void worker_doing(const char *doing);
extern void worker_failed(const char *message);

/* --- for commands on databases --- */

/*
 * Ends the worker of a database and keeps it from coming back until
 * database_resume().  Waits for its end, interruptibly.
 */
extern void database_suspend(Oid database);
extern void database_resume(Oid database);

/* --- for the status view --- */
extern bool worker_reports_next(int *position, WorkerReport *report);

#endif							/* PGTOPIC_DATABASES_H */
