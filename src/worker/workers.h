/*-------------------------------------------------------------------------
 *
 * workers.h
 *	  The background processes: one launcher for the server, and one
 *	  maintenance worker for each database that has the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_WORKERS_H
#define PGTOPIC_WORKERS_H

#include "postgres.h"

/* Registers the launcher; only while shared_preload_libraries is processed. */
extern void launcher_register(void);

/* Starts the maintenance worker of a database; false if there is no room. */
extern bool maintenance_start(Oid database);

/* Entry points that the postmaster calls by name. */
extern PGDLLEXPORT void pgtopic_launcher_main(Datum arg);
extern PGDLLEXPORT void pgtopic_maintenance_main(Datum arg);

/*
 * Has DROP DATABASE and other commands that no session may be in the way of
 * stop the worker of that database first.
 */
extern void database_commands_hook_install(void);

/* --- what the maintenance worker does; each begins its own transactions --- */

/* Makes the segments that are wanted. */
extern void segments_make_wanted(void);

/* Stores the watermarks that have moved since they were stored last. */
extern void watermarks_checkpoint(void);

/*
 * Removes what has expired and what has been deleted, in all topics.  Returns
 * true if it could not do everything, because somebody was in the way.
 */
extern bool retention_run(void);

/* The ids of all topics of this database, in the caller's memory. */
extern int32 *worker_topics(int *count);

#endif							/* PGTOPIC_WORKERS_H */
