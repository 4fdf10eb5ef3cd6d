/*-------------------------------------------------------------------------
 *
 * databases.c
 *	  The databases that have the extension, and the workers that serve them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/settings.h"
#include "shmem/databases.h"

/* A worker that does not come up is started again after 1 s, 2 s, 4 s … */
#define RESTART_DELAY_MIN_MS	1000
#define RESTART_DELAY_MAX_MS	60000

/* One process: a worker of a database, or the launcher. */
typedef struct WorkerEntry
{
	Latch	   *latch;			/* in shared memory; NULL: not running */
	int			restart_delay;	/* ms; 0: none */
	TimestampTz next_start;
	WorkerReport report;
} WorkerEntry;

typedef struct DatabaseEntry
{
	Oid			database;		/* InvalidOid: empty */
	int			suspended;		/* by how many commands */
	bool		forgotten;		/* the entry goes when the workers have ended */
	bool		retention;		/* asked for */
	bool		clustered;
	WorkerEntry workers[WORKER_KINDS];
} DatabaseEntry;

typedef struct DatabasesControl
{
	int			tranche;
	LWLock		lock;			/* all below */
	ConditionVariable ended;	/* a worker has ended */
	WorkerEntry launcher;
	DatabaseEntry databases[FLEXIBLE_ARRAY_MEMBER];
} DatabasesControl;

static DatabasesControl *control = NULL;
static DatabaseEntry *my_database = NULL;	/* NULL in the launcher */
static WorkerEntry *my_entry = NULL;

static bool wake_at_commit[WORKER_KINDS];
static bool wake_for_retention = false;
static bool cluster_at_commit = false;

const char *
worker_kind_name(WorkerKind kind)
{
	static const char *const names[] = {"maintenance", "quorum", "replication", "acks", "flush"};

	return names[kind];
}

Size
databases_shmem_size(void)
{
	return add_size(offsetof(DatabasesControl, databases),
					mul_size(pgtopic_max_databases, sizeof(DatabaseEntry)));
}

void
databases_shmem_init(void)
{
	bool		found;

	control = ShmemInitStruct("pgtopic databases", databases_shmem_size(), &found);
	if (!found)
	{
		memset(control, 0, databases_shmem_size());
		control->tranche = LWLockNewTrancheId();
		LWLockInitialize(&control->lock, control->tranche);
		ConditionVariableInit(&control->ended);
	}
	LWLockRegisterTranche(control->tranche, "pgtopic");
}

/* Finds the entry of a database; the lock is held. */
static DatabaseEntry *
entry_find(Oid database)
{
	for (int i = 0; i < pgtopic_max_databases; i++)
	{
		if (control->databases[i].database == database)
			return &control->databases[i];
	}
	return NULL;
}

/* The same, or makes one; NULL if there is no room. */
static DatabaseEntry *
entry_make(Oid database)
{
	DatabaseEntry *entry = entry_find(database);

	if (entry != NULL)
	{
		entry->forgotten = false;
		return entry;
	}
	entry = entry_find(InvalidOid);
	if (entry != NULL)
	{
		memset(entry, 0, sizeof(DatabaseEntry));
		entry->database = database;
		for (int kind = 0; kind < WORKER_KINDS; kind++)
		{
			entry->workers[kind].report.database = database;
			entry->workers[kind].report.kind = kind;
		}
	}
	return entry;
}

/* Which workers a database is to have; the lock is held. */
static bool
is_wanted(const DatabaseEntry *entry, WorkerKind kind)
{
	return OidIsValid(entry->database) && !entry->suspended &&
		(kind == WORKER_MAINTENANCE || entry->clustered);
}

static bool
any_runs(const DatabaseEntry *entry)
{
	for (int kind = 0; kind < WORKER_KINDS; kind++)
	{
		if (entry->workers[kind].latch != NULL)
			return true;
	}
	return false;
}

bool
database_request_worker(Oid database)
{
	DatabaseEntry *entry;
	Latch	   *launcher = NULL;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_make(database);
	if (entry != NULL && entry->workers[WORKER_MAINTENANCE].latch == NULL)
		launcher = control->launcher.latch;
	LWLockRelease(&control->lock);

	if (launcher)
		SetLatch(launcher);
	return entry != NULL;
}

void
database_set_clustered(Oid database, bool clustered)
{
	DatabaseEntry *entry;
	Latch	   *launcher;
	Latch	   *workers[WORKER_KINDS] = {NULL};

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_make(database);
	if (entry != NULL)
	{
		if (clustered && !entry->clustered)
		{
			for (int kind = 0; kind < WORKER_KINDS; kind++)
				entry->workers[kind].next_start = 0;
		}
		entry->clustered = clustered;
		for (int kind = 0; kind < WORKER_KINDS; kind++)
			workers[kind] = entry->workers[kind].latch;
	}
	launcher = control->launcher.latch;
	LWLockRelease(&control->lock);

	if (launcher)
		SetLatch(launcher);
	for (int kind = 0; kind < WORKER_KINDS; kind++)
	{
		if (workers[kind])
			SetLatch(workers[kind]);
	}
}

/* Sets the latch of a worker; false if it does not run. */
static bool
wake(Oid database, WorkerKind kind, bool retention)
{
	DatabaseEntry *entry;
	Latch	   *latch = NULL;

	LWLockAcquire(&control->lock, retention ? LW_EXCLUSIVE : LW_SHARED);
	entry = entry_find(database);
	if (entry != NULL)
	{
		latch = entry->workers[kind].latch;
		if (retention)
			entry->retention = true;
	}
	LWLockRelease(&control->lock);

	if (latch)
		SetLatch(latch);
	return latch != NULL;
}

void
database_wake_worker(Oid database, bool retention)
{
	if (!wake(database, WORKER_MAINTENANCE, retention))
		(void) database_request_worker(database);
}

void
database_wake(WorkerKind kind)
{
	(void) wake(MyDatabaseId, kind, false);
}

void
database_wake_worker_at_commit(bool retention)
{
	wake_at_commit[WORKER_MAINTENANCE] = true;
	wake_for_retention |= retention;
}

void
database_wake_at_commit(WorkerKind kind)
{
	wake_at_commit[kind] = true;
}

void
database_cluster_at_commit(void)
{
	cluster_at_commit = true;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	for (int kind = 0; kind < WORKER_KINDS; kind++)
	{
		if (!wake_at_commit[kind])
			continue;
		wake_at_commit[kind] = false;
		if (event != XACT_EVENT_COMMIT)
			continue;
		if (kind == WORKER_MAINTENANCE)
			database_wake_worker(MyDatabaseId, wake_for_retention);
		else
			database_wake(kind);
	}
	wake_for_retention = false;
	if (cluster_at_commit && event == XACT_EVENT_COMMIT)
		database_set_clustered(MyDatabaseId, true);
	cluster_at_commit = false;
}

void
databases_register_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

/* Runs when the launcher or a worker ends, however it ends. */
static void
detach(int code, Datum arg)
{
	Latch	   *launcher;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	my_entry->latch = NULL;
	my_entry->report.pid = 0;
	my_entry->report.busy = false;
	my_entry->report.doing[0] = '\0';
	if (my_database != NULL && my_database->forgotten && !any_runs(my_database))
		my_database->database = InvalidOid;
	launcher = control->launcher.latch;
	my_entry = NULL;
	my_database = NULL;
	LWLockRelease(&control->lock);

	ConditionVariableBroadcast(&control->ended);
	if (launcher)
		SetLatch(launcher);
}

/* Makes the entry this process's own; the lock is held. */
static void
attach(WorkerEntry *entry)
{
	my_entry = entry;
	entry->latch = MyLatch;
	entry->report.pid = MyProcPid;
	entry->report.busy = false;
	entry->report.doing[0] = '\0';
}

void
launcher_attach(void)
{
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	attach(&control->launcher);
	LWLockRelease(&control->lock);
	before_shmem_exit(detach, (Datum) 0);
}

bool
launcher_next_to_start(int *position, Oid *database, WorkerKind *kind)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		found = false;

	LWLockAcquire(&control->lock, LW_SHARED);
	while (!found && *position < pgtopic_max_databases * WORKER_KINDS)
	{
		DatabaseEntry *entry = &control->databases[*position / WORKER_KINDS];
		WorkerEntry *worker;

		*kind = *position % WORKER_KINDS;
		worker = &entry->workers[*kind];
		(*position)++;
		if (is_wanted(entry, *kind) && worker->latch == NULL && now >= worker->next_start)
		{
			*database = entry->database;
			found = true;
		}
	}
	LWLockRelease(&control->lock);
	return found;
}

void
launcher_note_start(Oid database, WorkerKind kind)
{
	DatabaseEntry *entry;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
	{
		WorkerEntry *worker = &entry->workers[kind];

		worker->restart_delay = worker->restart_delay == 0 ? RESTART_DELAY_MIN_MS :
			Min(2 * worker->restart_delay, RESTART_DELAY_MAX_MS);
		worker->next_start = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														 worker->restart_delay);
	}
	LWLockRelease(&control->lock);
}

bool
databases_next(int *position, Oid *database)
{
	bool		found = false;

	LWLockAcquire(&control->lock, LW_SHARED);
	while (!found && *position < pgtopic_max_databases)
	{
		*database = control->databases[(*position)++].database;
		found = OidIsValid(*database);
	}
	LWLockRelease(&control->lock);
	return found;
}

/* An entry in use by a running worker stays, until that worker has ended. */
void
database_forget(Oid database)
{
	DatabaseEntry *entry;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
	{
		entry->clustered = false;
		if (any_runs(entry))
			entry->forgotten = true;
		else
			entry->database = InvalidOid;
	}
	LWLockRelease(&control->lock);
}

bool
worker_attach(WorkerKind kind)
{
	DatabaseEntry *entry;
	bool		attached = false;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(MyDatabaseId);
	if (entry != NULL && is_wanted(entry, kind) && entry->workers[kind].latch == NULL)
	{
		my_database = entry;
		attach(&entry->workers[kind]);
		attached = true;
	}
	LWLockRelease(&control->lock);

	if (attached)
		before_shmem_exit(detach, (Datum) 0);
	return attached;
}

bool
worker_is_wanted(void)
{
	bool		wanted;

	LWLockAcquire(&control->lock, LW_SHARED);
	wanted = my_database->database == MyDatabaseId && !my_database->forgotten &&
		is_wanted(my_database, my_entry->report.kind);
	LWLockRelease(&control->lock);
	return wanted;
}

void
worker_note_success(void)
{
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	my_entry->restart_delay = 0;
	LWLockRelease(&control->lock);
}

bool
worker_take_retention_request(void)
{
	bool		asked;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	asked = my_database->retention;
	my_database->retention = false;
	LWLockRelease(&control->lock);
	return asked;
}

void
worker_doing(const char *doing)
{
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	my_entry->report.busy = doing != NULL;
	strlcpy(my_entry->report.doing, doing ? doing : "", WORKER_DOING_MAX);
	LWLockRelease(&control->lock);

	pgstat_report_activity(doing ? STATE_RUNNING : STATE_IDLE, doing ? doing : "");
}

void
worker_failed(const char *message)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	strlcpy(my_entry->report.last_error, message, WORKER_ERROR_MAX);
	my_entry->report.last_error_at = now;
	LWLockRelease(&control->lock);
}

void
database_suspend(Oid database)
{
	static uint32 wait_event = 0;
	bool		counted = false;

	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicWorkerEnd");

	for (;;)
	{
		DatabaseEntry *entry;
		bool		running = false;

		ConditionVariablePrepareToSleep(&control->ended);
		LWLockAcquire(&control->lock, LW_EXCLUSIVE);
		entry = entry_find(database);
		if (entry != NULL)
		{
			if (!counted)
				entry->suspended++;
			counted = true;
			for (int kind = 0; kind < WORKER_KINDS; kind++)
			{
				int32		pid = entry->workers[kind].report.pid;

				/* under the lock, without which the pid may be another's by now */
				if (pid != 0)
					(void) kill(pid, SIGTERM);
				running |= pid != 0;
			}
		}
		LWLockRelease(&control->lock);
		if (!running)
			break;
		(void) ConditionVariableTimedSleep(&control->ended, 1000, wait_event);
	}
	ConditionVariableCancelSleep();
}

void
database_resume(Oid database)
{
	DatabaseEntry *entry;
	Latch	   *launcher = NULL;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
	{
		if (entry->suspended > 0)
			entry->suspended--;
		for (int kind = 0; kind < WORKER_KINDS; kind++)
		{
			entry->workers[kind].restart_delay = 0;
			entry->workers[kind].next_start = 0;
		}
		launcher = control->launcher.latch;
	}
	LWLockRelease(&control->lock);
	if (launcher)
		SetLatch(launcher);
}

bool
worker_reports_next(int *position, WorkerReport *report)
{
	bool		found = false;

	LWLockAcquire(&control->lock, LW_SHARED);
	if (*position == 0)
	{
		*report = control->launcher.report;
		found = true;
		(*position)++;
	}
	while (!found && *position <= pgtopic_max_databases * WORKER_KINDS)
	{
		DatabaseEntry *entry = &control->databases[(*position - 1) / WORKER_KINDS];
		WorkerKind	kind = (*position - 1) % WORKER_KINDS;

		if (OidIsValid(entry->database) && (kind == WORKER_MAINTENANCE || entry->clustered))
		{
			*report = entry->workers[kind].report;
			found = true;
		}
		(*position)++;
	}
	LWLockRelease(&control->lock);
	return found;
}
