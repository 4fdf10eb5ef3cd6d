/*-------------------------------------------------------------------------
 *
 * applying.c
 *	  What apply workers of our subscriptions have committed, and the flush worker
 *	  is to make durable.
 *
 * Each apply worker has a place where it writes up to where it wants WAL flushed;
 * then it looks whether somebody sleeps.  The flush worker says that it sleeps, then
 * looks at the places.  So one of the two sees what the other did.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "replication/logicalworker.h"
#include "replication/worker_internal.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "base/compat.h"
#include "shmem/applying.h"
#include "shmem/databases.h"

/* Who finds no place flushes for itself. */
#define APPLIERS_MAX	128

#define OUR_SUBSCRIPTION "pgtopic_from_"

typedef struct Applier
{
	Oid			database;		/* InvalidOid: free */
	int			proc;
	pg_atomic_uint64 wanted;	/* 0: nothing; written by its owner and the flush worker */
} Applier;

typedef struct ApplyingControl
{
	int			tranche;
	LWLock		lock;			/* database and proc of each */
	pg_atomic_uint32 sleeping;	/* flush workers */
	Applier		appliers[APPLIERS_MAX];
} ApplyingControl;

static ApplyingControl *control = NULL;
static Applier *me = NULL;

Size
applying_shmem_size(void)
{
	return sizeof(ApplyingControl);
}

void
applying_shmem_init(void)
{
	bool		found;

	control = ShmemInitStruct("pgtopic applying", applying_shmem_size(), &found);
	if (!found)
	{
		memset(control, 0, applying_shmem_size());
		control->tranche = LWLockNewTrancheId();
		LWLockInitialize(&control->lock, control->tranche);
		pg_atomic_init_u32(&control->sleeping, 0);
		for (int i = 0; i < APPLIERS_MAX; i++)
			pg_atomic_init_u64(&control->appliers[i].wanted, InvalidXLogRecPtr);
	}
	LWLockRegisterTranche(control->tranche, "pgtopic");
}

/* --- in apply workers --- */

/* Gives the place back; what it has committed, it leaves flushed. */
static void
detach(int code, Datum arg)
{
	XLogRecPtr	lsn = pg_atomic_exchange_u64(&me->wanted, InvalidXLogRecPtr);

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	me->database = InvalidOid;
	LWLockRelease(&control->lock);
	me = NULL;
	if (lsn != InvalidXLogRecPtr)
		XLogFlush(lsn);
}

static void
attach(void)
{
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < APPLIERS_MAX && me == NULL; i++)
	{
		if (!OidIsValid(control->appliers[i].database))
			me = &control->appliers[i];
	}
	if (me != NULL)
	{
		me->database = MyDatabaseId;
		me->proc = compat_proc_number();
	}
	LWLockRelease(&control->lock);
	if (me != NULL)
		before_shmem_exit(detach, (Datum) 0);
}

/* After a commit: no errors. */
static void
xact_callback(XactEvent event, void *arg)
{
	static XLogRecPtr last = InvalidXLogRecPtr;

	if (event != XACT_EVENT_COMMIT || !IsLogicalWorker() || MySubscription == NULL ||
		strncmp(MySubscription->name, OUR_SUBSCRIPTION, strlen(OUR_SUBSCRIPTION)) != 0)
		return;
	/* it has written nothing, or has flushed it already */
	if (XactLastCommitEnd == last || synchronous_commit != SYNCHRONOUS_COMMIT_OFF)
		return;
	last = XactLastCommitEnd;

	/*
	 * A table synchronisation worker commits that it is done, then drops its slot at the
	 * leader.  If a crash took that commit away, it would ask for the slot for ever.
	 */
	if (am_tablesync_worker() && !in_remote_transaction)
	{
		XLogFlush(last);
		return;
	}
	if (me == NULL)
		attach();
	if (me == NULL)
	{
		XLogFlush(last);
		return;
	}
	/* with a barrier, unlike a write */
	pg_atomic_exchange_u64(&me->wanted, last);
	if (pg_atomic_read_u32(&control->sleeping) > 0)
		database_wake(WORKER_FLUSH);
}

void
applying_register_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
}

void
applying_flush(void)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();

	/* at the start of a page it is behind a header that nobody has written yet */
	if (XLogSegmentOffset(lsn, wal_segment_size) == SizeOfXLogLongPHD)
		lsn -= SizeOfXLogLongPHD;
	else if (lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		lsn -= SizeOfXLogShortPHD;
	XLogFlush(lsn);
}

/* --- in the flush worker --- */

bool
applying_flush_and_wake(void)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	LWLockAcquire(&control->lock, LW_SHARED);
	for (int i = 0; i < APPLIERS_MAX; i++)
	{
		if (control->appliers[i].database == MyDatabaseId)
			lsn = Max(lsn, pg_atomic_read_u64(&control->appliers[i].wanted));
	}
	LWLockRelease(&control->lock);
	if (lsn == InvalidXLogRecPtr)
		return false;

	XLogFlush(lsn);

	LWLockAcquire(&control->lock, LW_SHARED);
	for (int i = 0; i < APPLIERS_MAX; i++)
	{
		Applier    *applier = &control->appliers[i];
		uint64		wanted;

		if (applier->database != MyDatabaseId)
			continue;
		wanted = pg_atomic_read_u64(&applier->wanted);
		if (wanted == InvalidXLogRecPtr)
			continue;
		/* if it wants more by now, that is for the next time */
		if (wanted <= lsn)
			(void) pg_atomic_compare_exchange_u64(&applier->wanted, &wanted, InvalidXLogRecPtr);
		SetLatch(&ProcGlobal->allProcs[applier->proc].procLatch);
	}
	LWLockRelease(&control->lock);
	return true;
}

void
applying_flush_sleeps(bool sleeps)
{
	if (sleeps)
		pg_atomic_fetch_add_u32(&control->sleeping, 1);
	else
		pg_atomic_fetch_sub_u32(&control->sleeping, 1);
}
