/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  What all workers of a database have in common: coming up, rounds, tasks.
 *
 * Each task runs on its own: one that fails is logged with what it was doing,
 * noted for worker_status, and tried again later, while the others go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/extension.h"
#include "catalog/topics.h"
#include "worker/workers.h"

/* How soon the same failure is logged again. */
#define LOG_AGAIN_MS	60000

/* How long what passes by itself may take before it is logged. */
#define LOG_PASSING_MS	10000

static WorkerKind my_kind;

void
worker_begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
}

/* Whether this database (still) has the extension; *name is set if so. */
static bool
has_extension(char *name)
{
	MemoryContext context = CurrentMemoryContext;
	bool		exists;

	worker_begin_transaction();
	exists = extension_exists();
	if (exists && name)
		strlcpy(name, get_database_name(MyDatabaseId), NAMEDATALEN);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return exists;
}

/* What a task fails with again and again. */
typedef struct Failure
{
	char		doing[WORKER_DOING_MAX];	/* hash key, must be first */
	char		message[WORKER_ERROR_MAX];
	TimestampTz since;
	TimestampTz logged_at;		/* 0: not yet */
} Failure;

static HTAB *failures = NULL;

/*
 * Whether a failure is worth a line in the log: another one than the last time,
 * or the last line is a while ago.  What passes by itself is, if it takes long: a
 * lock that somebody holds, a table that was dropped while we waited for it, metadata
 * that another broker has not heard of yet.
 */
static bool
is_news(const char *doing, const ErrorData *error)
{
	TimestampTz now = GetCurrentTimestamp();
	char		key[WORKER_DOING_MAX];
	Failure    *failure;
	bool		found;

	if (failures == NULL)
	{
		HASHCTL		info;

		info.keysize = WORKER_DOING_MAX;
		info.entrysize = sizeof(Failure);
		failures = hash_create("pgtopic failures", 16, &info, HASH_ELEM | HASH_STRINGS);
	}
	strlcpy(key, doing, sizeof(key));
	failure = hash_search(failures, key, HASH_ENTER, &found);
	if (!found || strncmp(failure->message, error->message, WORKER_ERROR_MAX - 1) != 0)
	{
		strlcpy(failure->message, error->message, WORKER_ERROR_MAX);
		failure->since = now;
		failure->logged_at = 0;
	}
	if ((error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		 error->sqlerrcode == ERRCODE_UNDEFINED_TABLE ||
		 error->sqlerrcode == ERRCODE_CANNOT_CONNECT_NOW) &&
		!TimestampDifferenceExceeds(failure->since, now, LOG_PASSING_MS))
		return false;
	if (failure->logged_at != 0 &&
		!TimestampDifferenceExceeds(failure->logged_at, now, LOG_AGAIN_MS))
		return false;
	failure->logged_at = now;
	return true;
}

static void
forget_failure(const char *doing)
{
	char		key[WORKER_DOING_MAX];

	if (failures == NULL)
		return;
	strlcpy(key, doing, sizeof(key));
	hash_search(failures, key, HASH_REMOVE, NULL);
}

/*
 * The error is cleaned up after as in PostgreSQL's own background processes.
 * What fails since the extension is dropped, or the cluster left, meanwhile is no
 * failure.
 */
bool
worker_run_task(const char *doing, void (*run) (void *), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	worker_doing(doing);
	PG_TRY();
	{
		run(arg);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		HOLD_INTERRUPTS();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();

	if (error == NULL)
	{
		forget_failure(doing);
		return true;
	}
	if (has_extension(NULL) && worker_is_wanted())
	{
		if (is_news(doing, error))
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("pgtopic %s failed while %s: %s",
							worker_kind_name(my_kind), doing, error->message),
					 error->detail ? errdetail("%s", error->detail) : 0,
					 error->hint ? errhint("%s", error->hint) : 0,
					 error->context ? errcontext("%s", error->context) : 0));
		worker_failed(psprintf("%s: %s", doing, error->message));
	}
	FreeErrorData(error);
	return false;
}

char *
worker_describe(const char *what, int32 topic)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *name;
	char	   *description;

	worker_begin_transaction();
	/* the extension may have been dropped since the last look */
	name = extension_exists() ? topic_name_by_id(topic) : NULL;
	description = MemoryContextStrdup(context, name ? psprintf("%s of topic \"%s\"", what, name) :
									  psprintf("%s of topic #%d", what, topic));
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return description;
}

int32 *
worker_topics(int *count)
{
	MemoryContext context = CurrentMemoryContext;
	int32	   *ids;

	*count = 0;
	worker_begin_transaction();
	/* the extension may have been dropped since the last look */
	if (!extension_exists())
	{
		CommitTransactionCommand();
		MemoryContextSwitchTo(context);
		return palloc(sizeof(int32));
	}
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension_execute(SPI_OK_SELECT, "SELECT id FROM pgtopic.topic ORDER BY id");
	*count = (int) SPI_processed;
	ids = MemoryContextAlloc(context, (*count + 1) * sizeof(int32));
	for (int i = 0; i < *count; i++)
	{
		bool		isnull;

		ids[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
											 1, &isnull));
	}
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return ids;
}

/*
 * Whatever the configuration file or ALTER DATABASE says: as AutoVacWorkerMain()
 * in autovacuum.c does.
 */
static void
pin_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
		{"transaction_timeout", "0"},
#endif
		/* whatever a lock keeps it from, it tries again later */
		{"lock_timeout", "100ms"},
		/*
		 * What it does can be done again; and producers' commits flush what is
		 * before them in WAL, segments and all.
		 */
		{"synchronous_commit", "off"},
		/* what it writes for followers must not wait for them */
		{"pgtopic.acks", "leader"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_SUSET,
								 PGC_S_OVERRIDE, GUC_ACTION_SET, true, 0, false);
	(void) set_config_option("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET,
							 PGC_S_OVERRIDE, GUC_ACTION_SET, true, 0, false);
}

MemoryContext
worker_begin(WorkerKind kind, Oid database)
{
	MemoryContext context;
	char		name[NAMEDATALEN];

	my_kind = kind;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	if (!worker_attach(kind))
		proc_exit(0);
	if (!has_extension(name))
	{
		database_forget(MyDatabaseId);
		proc_exit(0);
	}
	worker_note_success();
	pin_settings();
	ereport(LOG,
			(errmsg("pgtopic %s worker for database \"%s\" started", worker_kind_name(kind), name)));

	context = AllocSetContextCreate(TopMemoryContext, "pgtopic round", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);
	return context;
}

void
worker_round(MemoryContext context)
{
	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(context);
	MemoryContextSwitchTo(context);
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (!has_extension(NULL))
	{
		ereport(LOG,
				(errmsg("pgtopic %s worker ends, since the extension has been dropped",
						worker_kind_name(my_kind))));
		database_forget(MyDatabaseId);
		proc_exit(0);
	}
	if (!worker_is_wanted())
		proc_exit(0);
}
