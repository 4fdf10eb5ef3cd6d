/*-------------------------------------------------------------------------
 *
 * positions.c
 *	  Where the consumer groups of a partition are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shmem/slots.h"
#include "storage/partition_state.h"
#include "storage/positions.h"

/* A position's row as of now. */
typedef struct PositionScan
{
	Relation	relation;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	Snapshot	snapshot;
} PositionScan;

/*
 * Two groups whose names have the same hash exclude each other: they wait for
 * each other more than they need, and do nothing wrong.
 */
static void
position_locktag(LOCKTAG *tag, const LogPartition *partition, const char *group)
{
	uint32		hash = hash_bytes((const unsigned char *) group, (int) strlen(group));

	tag->locktag_field1 = MyDatabaseId;
	tag->locktag_field2 = (uint32) partition->topic->id;
	tag->locktag_field3 = hash;
	tag->locktag_field4 = (uint16) partition->number;
	tag->locktag_type = LOCKTAG_USERLOCK;
	tag->locktag_lockmethodid = USER_LOCKMETHOD;
}

bool
position_try_lock(const LogPartition *partition, const char *group, bool *taken)
{
	LOCKTAG		tag;
	LockAcquireResult result;

	position_locktag(&tag, partition, group);
	result = LockAcquire(&tag, ExclusiveLock, false, true);
	*taken = result == LOCKACQUIRE_OK;
	if (*taken)
		slots_wake_at_end(partition->topic->id, false);
	return result != LOCKACQUIRE_NOT_AVAIL;
}

void
position_lock(const LogPartition *partition, const char *group)
{
	LOCKTAG		tag;

	position_locktag(&tag, partition, group);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	slots_wake_at_end(partition->topic->id, false);
}

void
position_unlock(const LogPartition *partition, const char *group)
{
	LOCKTAG		tag;

	position_locktag(&tag, partition, group);
	(void) LockRelease(&tag, ExclusiveLock, false);
	/* somebody may have been woken meanwhile and found it locked */
	ConditionVariableBroadcast(topic_condition(partition->topic->id));
}

static Relation
open_positions(LogPartition *partition, LOCKMODE mode)
{
	Relation	relation = try_table_open(partition->positions, mode);

	if (relation == NULL)
		topic_error_unknown(partition->topic->name);
	return relation;
}

/* Finds the row of a group; false if there is none. */
static bool
position_scan_begin(PositionScan *scan, LogPartition *partition, const char *group,
					LOCKMODE mode)
{
	ScanKeyData key;

	scan->relation = open_positions(partition, mode);
	(void) RelationGetIndexList(scan->relation);	/* sets rd_pkindex */
	if (!OidIsValid(scan->relation->rd_pkindex))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" of topic \"%s\" has no primary key",
						RelationGetRelationName(scan->relation), partition->topic->name),
				 errhint("If a dump is being restored, wait until that is done.")));
	scan->index = index_open(scan->relation->rd_pkindex, AccessShareLock);
	scan->slot = table_slot_create(scan->relation, NULL);
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan->scan = compat_index_beginscan(scan->relation, scan->index, scan->snapshot, 1, 0);
	/* the collation is "C", as ScanKeyInit() assumes */
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(group));
	index_rescan(scan->scan, &key, 1, NULL, 0);
	return index_getnext_slot(scan->scan, ForwardScanDirection, scan->slot);
}

static void
position_scan_end(PositionScan *scan, LOCKMODE unlock)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	UnregisterSnapshot(scan->snapshot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->relation, unlock);
}

bool
position_read(LogPartition *partition, const char *group, int64 *offset)
{
	PositionScan scan;
	bool		found;
	bool		isnull;

	found = position_scan_begin(&scan, partition, group, AccessShareLock);
	if (found)
		*offset = DatumGetInt64(slot_getattr(scan.slot, POSITION_OFFSET, &isnull));
	/* what may change it is the group's lock, not the table's */
	position_scan_end(&scan, AccessShareLock);
	return found;
}

/* What to check an old row against, beyond what the scan has seen. */
static Snapshot
crosscheck_snapshot(void)
{
	return IsolationUsesXactSnapshot() ? GetTransactionSnapshot() : InvalidSnapshot;
}

static void
check_result(TM_Result result, const char *group)
{
	if (result == TM_Ok)
		return;
	if (result == TM_Updated || result == TM_Deleted)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to the position of consumer group \"%s\" due to concurrent update",
						group),
				 errhint("The transaction might succeed if retried.")));
	elog(ERROR, "unexpected result %d of a change to the position of group \"%s\"",
		 (int) result, group);
}

void
position_store(LogPartition *partition, const char *group, int64 offset)
{
	PositionScan scan;
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *slot;
	bool		found;

	found = position_scan_begin(&scan, partition, group, RowExclusiveLock);

	estate = CreateExecutorState();
	result = makeNode(ResultRelInfo);
	InitResultRelInfo(result, scan.relation, 0, NULL, 0);
	ExecOpenIndices(result, false);

	slot = table_slot_create(scan.relation, NULL);
	memset(slot->tts_isnull, 0, POSITION_COLUMNS * sizeof(bool));
	slot->tts_values[POSITION_GROUP - 1] = CStringGetTextDatum(group);
	slot->tts_values[POSITION_PARTITION - 1] = Int32GetDatum(partition->number);
	slot->tts_values[POSITION_OFFSET - 1] = Int64GetDatum(offset);
	slot->tts_values[POSITION_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	ExecStoreVirtualTuple(slot);

	if (found)
	{
		TM_FailureData failure;
		LockTupleMode lockmode;
		CompatUpdateIndexes update_indexes;
		ItemPointerData tid = scan.slot->tts_tid;
		TM_Result	tm;

		tm = table_tuple_update(scan.relation, &tid, slot, GetCurrentCommandId(true),
								scan.snapshot, crosscheck_snapshot(), true,
								&failure, &lockmode, &update_indexes);
		check_result(tm, group);
		if (compat_needs_index_update(update_indexes))
			(void) compat_insert_index_tuples(result, slot, estate, true, update_indexes);
	}
	else
	{
		table_tuple_insert(scan.relation, slot, GetCurrentCommandId(true), 0, NULL);
		(void) compat_insert_index_tuples(result, slot, estate, false, 0);
	}

	ExecDropSingleTupleTableSlot(slot);
	ExecCloseIndices(result);
	FreeExecutorState(estate);
	position_scan_end(&scan, NoLock);

	/* another call of the same command must see it */
	CommandCounterIncrement();
}

void
position_write(LogPartition *partition, const char *group, int64 offset)
{
	partition_begin_write(partition);
	position_store(partition, group, offset);
}

bool
position_delete(LogPartition *partition, const char *group)
{
	PositionScan scan;
	bool		found;

	partition_begin_write(partition);
	found = position_scan_begin(&scan, partition, group, RowExclusiveLock);
	if (found)
	{
		TM_FailureData failure;
		ItemPointerData tid = scan.slot->tts_tid;

		check_result(table_tuple_delete(scan.relation, &tid, GetCurrentCommandId(true),
										scan.snapshot, crosscheck_snapshot(), true,
										&failure, false), group);
	}
	position_scan_end(&scan, NoLock);
	if (found)
		CommandCounterIncrement();
	return found;
}

static void
scan_positions(LogPartition *partition, bool reserved, PositionSink sink, void *arg)
{
	Relation	relation = open_positions(partition, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		text	   *group;

		slot_getallattrs(slot);
		group = DatumGetTextPP(slot->tts_values[POSITION_GROUP - 1]);
		if (!reserved &&
			(VARSIZE_ANY_EXHDR(group) == 0 || position_is_reserved(VARDATA_ANY(group))))
			continue;
		sink(arg, partition->number, PointerGetDatum(group),
			 DatumGetInt64(slot->tts_values[POSITION_OFFSET - 1]),
			 DatumGetTimestampTz(slot->tts_values[POSITION_AT - 1]));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(relation, AccessShareLock);
}

void
positions_each(LogPartition *partition, PositionSink sink, void *arg)
{
	scan_positions(partition, false, sink, arg);
}

void
positions_each_reserved(LogPartition *partition, PositionSink sink, void *arg)
{
	scan_positions(partition, true, sink, arg);
}

static void
sink_max(void *arg, int32 partition, Datum group, int64 offset, TimestampTz committed_at)
{
	int64	   *max = arg;
	text	   *name = DatumGetTextPP(group);

	/* where segments end says nothing of what has been read */
	if (VARSIZE_ANY_EXHDR(name) == 1 && *VARDATA_ANY(name) == *POSITION_SEGMENTS_END)
		return;
	*max = Max(*max, offset);
}

int64
positions_max(LogPartition *partition)
{
	int64		max = 0;

	scan_positions(partition, true, sink_max, &max);
	return max;
}
