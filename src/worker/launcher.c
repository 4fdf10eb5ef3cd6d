/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The process that starts the maintenance workers.
 *
 * It finds the databases that have the extension by starting a worker in each
 * database once; a worker that finds no extension says so and ends.  From then
 * on CREATE EXTENSION, and any use of a topic, asks for a worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/settings.h"
#include "shmem/databases.h"
#include "worker/workers.h"

/* How often dropped and new databases are looked for, and workers restarted. */
#define LAUNCHER_NAPTIME_MS		1000
#define DATABASES_INTERVAL_MS	10000

void
launcher_register(void)
{
	BackgroundWorker worker;

	/* pg_upgrade wants nobody to connect, or to change anything */
	if (IsBinaryUpgrade)
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "pgtopic", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "pgtopic_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "pgtopic launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pgtopic launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/* Starts a worker of a database; false if there is no room. */
static bool
worker_start(Oid database, WorkerKind kind)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;	/* the launcher does that */
	strlcpy(worker.bgw_library_name, "pgtopic", sizeof(worker.bgw_library_name));
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "pgtopic_%s_main", worker_kind_name(kind));
	snprintf(worker.bgw_name, BGW_MAXLEN, "pgtopic %s", worker_kind_name(kind));
	snprintf(worker.bgw_type, BGW_MAXLEN, "pgtopic %s", worker_kind_name(kind));
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* Databases that can be connected to, but for templates: a worker would be in
 * the way of CREATE DATABASE. */
static List *
read_databases(MemoryContext context)
{
	List	   *databases = NIL;
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	tuple;

	worker_begin_transaction();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			databases = lappend_oid(databases, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	return databases;
}

/*
 * Forgets dropped databases, and asks for a worker for each new one.  *seen are
 * those that it has been asked for; one for which there was no room is not among
 * them, and is tried again.
 */
static void
look_at_databases(List **seen)
{
	static bool complained = false;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic databases",
												  ALLOCSET_SMALL_SIZES);
	List	   *databases = read_databases(context);
	List	   *now_seen = NIL;
	MemoryContext old;
	ListCell   *cell;
	int			position = 0;
	Oid			database;
	bool		full = false;

	while (databases_next(&position, &database))
	{
		if (!list_member_oid(databases, database))
			database_forget(database);
	}

	old = MemoryContextSwitchTo(TopMemoryContext);
	foreach(cell, databases)
	{
		if (list_member_oid(*seen, lfirst_oid(cell)) ||
			database_request_worker(lfirst_oid(cell)))
			now_seen = lappend_oid(now_seen, lfirst_oid(cell));
		else
			full = true;
	}
	list_free(*seen);
	*seen = now_seen;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);

	if (full && !complained)
		ereport(LOG,
				(errmsg("pgtopic has more than %d databases to look at", pgtopic_max_databases),
				 errhint("If more of them have the extension, increase pgtopic.max_databases.")));
	complained = full;
}

static void
start_workers(void)
{
	static bool complained = false;
	int			position = 0;
	Oid			database;
	WorkerKind	kind;

	while (launcher_next_to_start(&position, &database, &kind))
	{
		launcher_note_start(database, kind);
		if (worker_start(database, kind))
			complained = false;
		else if (!complained)
		{
			complained = true;
			ereport(LOG,
					(errmsg("pgtopic cannot start a %s worker for database %u",
							worker_kind_name(kind), database),
					 errhint("Increase max_worker_processes.")));
			worker_failed("no background worker slot is free: increase max_worker_processes");
		}
	}
}

void
pgtopic_launcher_main(Datum arg)
{
	List	   *seen = NIL;
	TimestampTz looked_at = 0;
	uint32		wait_event = compat_wait_event("PgtopicLauncherMain");

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	(void) set_config_option("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET,
							 PGC_S_OVERRIDE, GUC_ACTION_SET, true, 0, false);
	launcher_attach();

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		if (TimestampDifferenceExceeds(looked_at, GetCurrentTimestamp(), DATABASES_INTERVAL_MS))
		{
			worker_doing("looking for databases");
			look_at_databases(&seen);
			looked_at = GetCurrentTimestamp();
		}
		start_workers();

		worker_doing(NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LAUNCHER_NAPTIME_MS, wait_event);
		ResetLatch(MyLatch);
	}
}
