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

typedef struct WorkerEntry
{
	Oid			database;		/* InvalidOid: an empty entry, or the launcher */
	Latch	   *latch;			/* in shared memory; NULL: not running */
	int			suspended;		/* by how many commands */
	bool		forgotten;		/* the entry goes when the worker ends */
	bool		retention;		/* asked for */
	int			restart_delay;	/* ms; 0: none */
	TimestampTz next_start;
	WorkerReport report;
} WorkerEntry;

typedef struct DatabasesControl
{
	int			tranche;
	LWLock		lock;			/* all below */
	ConditionVariable ended;	/* a worker has ended */
	WorkerEntry launcher;
	WorkerEntry databases[FLEXIBLE_ARRAY_MEMBER];
} DatabasesControl;

static DatabasesControl *control = NULL;
static WorkerEntry *my_entry = NULL;

static bool wake_at_commit = false;
static bool wake_for_retention = false;

Size
databases_shmem_size(void)
{
	return add_size(offsetof(DatabasesControl, databases),
					mul_size(pgtopic_max_databases, sizeof(WorkerEntry)));
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
static WorkerEntry *
entry_find(Oid database)
{
	for (int i = 0; i < pgtopic_max_databases; i++)
	{
		if (control->databases[i].database == database)
			return &control->databases[i];
	}
	return NULL;
}

bool
database_request_worker(Oid database)
{
	WorkerEntry *entry;
	Latch	   *launcher = NULL;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
		entry->forgotten = false;
	else
	{
		entry = entry_find(InvalidOid);
		if (entry != NULL)
		{
			memset(entry, 0, sizeof(WorkerEntry));
			entry->database = database;
			entry->report.database = database;
		}
	}
	if (entry != NULL && entry->latch == NULL)
		launcher = control->launcher.latch;
	LWLockRelease(&control->lock);

	if (launcher)
		SetLatch(launcher);
	return entry != NULL;
}

void
database_wake_worker(Oid database, bool retention)
{
	WorkerEntry *entry;
	Latch	   *latch = NULL;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
	{
		latch = entry->latch;
		if (retention)
			entry->retention = true;
	}
	LWLockRelease(&control->lock);

	if (latch)
		SetLatch(latch);
	else
		(void) database_request_worker(database);
}

void
database_wake_worker_at_commit(bool retention)
{
	wake_at_commit = true;
	wake_for_retention |= retention;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (wake_at_commit && event == XACT_EVENT_COMMIT)
		database_wake_worker(MyDatabaseId, wake_for_retention);
	wake_at_commit = false;
	wake_for_retention = false;
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
	if (my_entry->forgotten)
		my_entry->database = InvalidOid;
	launcher = control->launcher.latch;
	my_entry = NULL;
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
launcher_next_to_start(int *position, Oid *database)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		found = false;

	LWLockAcquire(&control->lock, LW_SHARED);
	while (!found && *position < pgtopic_max_databases)
	{
		WorkerEntry *entry = &control->databases[(*position)++];

		if (OidIsValid(entry->database) && entry->latch == NULL &&
			!entry->suspended && now >= entry->next_start)
		{
			*database = entry->database;
			found = true;
		}
	}
	LWLockRelease(&control->lock);
	return found;
}

void
launcher_note_start(Oid database)
{
	WorkerEntry *entry;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
	{
		entry->restart_delay = entry->restart_delay == 0 ? RESTART_DELAY_MIN_MS :
			Min(2 * entry->restart_delay, RESTART_DELAY_MAX_MS);
		entry->next_start = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														entry->restart_delay);
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
	WorkerEntry *entry;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
	{
		if (entry->latch == NULL)
			entry->database = InvalidOid;
		else
			entry->forgotten = true;
	}
	LWLockRelease(&control->lock);
}

bool
worker_attach(void)
{
	WorkerEntry *entry;
	bool		attached = false;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(MyDatabaseId);
	if (entry != NULL && entry->latch == NULL && !entry->suspended)
	{
		attach(entry);
		attached = true;
	}
	LWLockRelease(&control->lock);

	if (attached)
		before_shmem_exit(detach, (Datum) 0);
	return attached;
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
	asked = my_entry->retention;
	my_entry->retention = false;
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
		WorkerEntry *entry;
		int32		pid = 0;

		ConditionVariablePrepareToSleep(&control->ended);
		LWLockAcquire(&control->lock, LW_EXCLUSIVE);
		entry = entry_find(database);
		if (entry != NULL)
		{
			if (!counted)
				entry->suspended++;
			counted = true;
			pid = entry->report.pid;
			/* under the lock, without which the pid may be another's by now */
			if (pid != 0)
				(void) kill(pid, SIGTERM);
		}
		LWLockRelease(&control->lock);
		if (pid == 0)
			break;
		(void) ConditionVariableTimedSleep(&control->ended, 1000, wait_event);
	}
	ConditionVariableCancelSleep();
}

void
database_resume(Oid database)
{
	WorkerEntry *entry;
	Latch	   *launcher = NULL;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(database);
	if (entry != NULL)
	{
		if (entry->suspended > 0)
			entry->suspended--;
		entry->restart_delay = 0;
		entry->next_start = 0;
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
	while (!found && *position <= pgtopic_max_databases)
	{
		WorkerEntry *entry = &control->databases[*position - 1];

		if (OidIsValid(entry->database))
		{
			*report = entry->report;
			found = true;
		}
		(*position)++;
	}
	LWLockRelease(&control->lock);
	return found;
}
