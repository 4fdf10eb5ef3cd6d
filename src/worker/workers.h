/*-------------------------------------------------------------------------
 *
 * workers.h
 *	  The background processes: one launcher for the server; one maintenance
 *	  worker for each database that has the extension; and, where the database is
 *	  a broker of a cluster, four more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_WORKERS_H
#define PGTOPIC_WORKERS_H

#include "postgres.h"

#include "catalog/topics.h"
#include "shmem/databases.h"

/* Registers the launcher; only while shared_preload_libraries is processed. */
extern void launcher_register(void);

/* Entry points that the postmaster calls by name. */
extern PGDLLEXPORT void pgtopic_launcher_main(Datum arg);
extern PGDLLEXPORT void pgtopic_maintenance_main(Datum arg);
extern PGDLLEXPORT void pgtopic_quorum_main(Datum arg);
extern PGDLLEXPORT void pgtopic_replication_main(Datum arg);
extern PGDLLEXPORT void pgtopic_acks_main(Datum arg);
extern PGDLLEXPORT void pgtopic_flush_main(Datum arg);

/* --- what all workers of a database do --- */

/*
 * Connects to the database, attaches, pins settings; ends the process if this
 * worker is not to be there.  Returns the memory context for one round's work.
 */
extern MemoryContext worker_begin(WorkerKind kind, Oid database);

/*
 * Begins a round: interrupts, settings, memory; ends the process if the extension
 * has been dropped or the worker is not wanted any more.
 */
extern void worker_round(MemoryContext context);

/*
 * Has DROP DATABASE and other commands that no session may be in the way of
 * stop the worker of that database first.
 */
extern void database_commands_hook_install(void);

/* --- what the maintenance worker does; tasks begin their own transactions --- */

/*
 * Begins a transaction of the launcher or a worker, which unlike a session's
 * gets the time of now() from nobody else.
 */
extern void worker_begin_transaction(void);

/*
 * Runs a task; false if it failed.  The failure is logged with what the worker
 * was doing and noted for worker_status, the transaction is rolled back, and the
 * worker goes on.
 */
extern bool worker_run_task(const char *doing, void (*run) (void *), void *arg);

/*
 * Removes what has expired and what has been deleted, in all topics or in those
 * where the last run could not do everything.  Returns true if there are such
 * topics, because somebody was in the way.
 */
extern bool retention_run(bool all);

/*
 * Has statistics_run() look whether there is a complete segment of a partition that has no
 * statistics.
 */
extern void statistics_want(int32 topic, int32 partition);

/*
 * The same, if there is one, given the watermark that is stored; in the caller's
 * transaction.
 */
extern void statistics_look(LogPartition *partition, int64 high_watermark);

/*
 * Computes and stores the statistics of one segment, in a transaction of its own.  Sets
 * *more if there may be another one; returns false if something failed.
 */
extern bool statistics_run(bool *more);

/* The text what of topic "name", in the caller's memory, for worker_run_task(). */
extern char *worker_describe(const char *what, int32 topic);

/* The ids of all topics of this database, in the caller's memory. */
extern int32 *worker_topics(int *count);

#endif							/* PGTOPIC_WORKERS_H */
