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
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
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
	if ((result == TM_Updated || result == TM_Deleted) && group[0] == *POSITION_PRODUCER)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to the sequence of producer \"%s\" due to concurrent update",
						group + 1),
				 errhint("The transaction might succeed if retried.")));
	if (result == TM_Updated || result == TM_Deleted)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to the position of consumer group \"%s\" due to concurrent update",
						group),
				 errhint("The transaction might succeed if retried.")));
	elog(ERROR, "unexpected result %d of a change to the position of group \"%s\"",
		 (int) result, group);
}

static Datum
int64_array(const int64 *numbers, int count)
{
	Datum		elements[SEQUENCES_KEPT];

	for (int i = 0; i < count; i++)
		elements[i] = Int64GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(elements, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Fills the columns that only producers have; they are there. */
static void
fill_sequences(TupleTableSlot *slot, const Sequences *sequences)
{
	slot->tts_values[POSITION_NEXT_SEQUENCE - 1] = Int64GetDatum(sequences->next);
	slot->tts_values[POSITION_SEQUENCES - 1] = int64_array(sequences->firsts, sequences->count);
	slot->tts_values[POSITION_OFFSETS - 1] = int64_array(sequences->offsets, sequences->count);
	memset(slot->tts_isnull + POSITION_NEXT_SEQUENCE - 1, 0,
		   (POSITION_OFFSETS - POSITION_NEXT_SEQUENCE + 1) * sizeof(bool));
}

/* Writes the row of a group or a producer. */
static void
store(LogPartition *partition, const char *group, int64 offset, const Sequences *sequences)
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
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts * sizeof(bool));
	memset(slot->tts_isnull, false, POSITION_AT * sizeof(bool));
	slot->tts_values[POSITION_GROUP - 1] = CStringGetTextDatum(group);
	slot->tts_values[POSITION_PARTITION - 1] = Int32GetDatum(partition->number);
	slot->tts_values[POSITION_OFFSET - 1] = Int64GetDatum(offset);
	slot->tts_values[POSITION_AT - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	if (sequences != NULL)
		fill_sequences(slot, sequences);
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
position_store(LogPartition *partition, const char *group, int64 offset)
{
	store(partition, group, offset, NULL);
}

void
position_write(LogPartition *partition, const char *group, int64 offset)
{
	partition_begin_write(partition);
	position_store(partition, group, offset);
}

/* Deletes the row that a scan has found. */
static void
delete_found(PositionScan *scan, const char *group)
{
	TM_FailureData failure;
	ItemPointerData tid = scan->slot->tts_tid;

	check_result(table_tuple_delete(scan->relation, &tid, GetCurrentCommandId(true),
									scan->snapshot, crosscheck_snapshot(), true,
									&failure, false), group);
}

bool
position_delete(LogPartition *partition, const char *group)
{
	PositionScan scan;
	bool		found;

	partition_begin_write(partition);
	found = position_scan_begin(&scan, partition, group, RowExclusiveLock);
	if (found)
		delete_found(&scan, group);
	position_scan_end(&scan, NoLock);
	if (found)
		CommandCounterIncrement();
	return found;
}

/* Hands over each row of the table, as of now. */
typedef void (*RowSink) (void *arg, LogPartition *partition, text *group, TupleTableSlot *slot);

static void
scan_rows(LogPartition *partition, RowSink sink, void *arg)
{
	Relation	relation = open_positions(partition, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		slot_getallattrs(slot);
		sink(arg, partition, DatumGetTextPP(slot->tts_values[POSITION_GROUP - 1]), slot);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(relation, AccessShareLock);
}

typedef struct PositionReceiver
{
	bool		reserved;		/* these too */
	PositionSink sink;
	void	   *arg;
} PositionReceiver;

static void
sink_position(void *arg, LogPartition *partition, text *group, TupleTableSlot *slot)
{
	PositionReceiver *receiver = arg;

	if (!receiver->reserved &&
		(VARSIZE_ANY_EXHDR(group) == 0 || position_is_reserved(VARDATA_ANY(group))))
		return;
	receiver->sink(receiver->arg, partition->number, PointerGetDatum(group),
				   DatumGetInt64(slot->tts_values[POSITION_OFFSET - 1]),
				   DatumGetTimestampTz(slot->tts_values[POSITION_AT - 1]));
}

static void
scan_positions(LogPartition *partition, bool reserved, PositionSink sink, void *arg)
{
	PositionReceiver receiver = {reserved, sink, arg};

	scan_rows(partition, sink_position, &receiver);
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

/* --- producers that number their messages --- */

/* What the row of a producer is called. */
static char *
producer_row_name(const char *producer)
{
	return psprintf(POSITION_PRODUCER "%s", producer);
}

void
producer_lock(const LogPartition *partition, const char *producer)
{
	char	   *name = producer_row_name(producer);

	position_lock(partition, name);
	pfree(name);
}

static int
read_int64_array(Datum array, int64 *numbers)
{
	Datum	   *elements;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, NULL, &count);
	for (int i = 0; i < Min(count, SEQUENCES_KEPT); i++)
		numbers[i] = DatumGetInt64(elements[i]);
	pfree(elements);
	return count;
}

/* Reads the columns of a producer's row, which is somebody else's work if they are odd. */
static void
read_sequences(LogPartition *partition, TupleTableSlot *slot, Sequences *sequences)
{
	int			offsets = -1;

	sequences->count = 0;
	if (slot->tts_tupleDescriptor->natts >= POSITION_COLUMNS)
	{
		slot_getallattrs(slot);
		if (!slot->tts_isnull[POSITION_NEXT_SEQUENCE - 1] &&
			!slot->tts_isnull[POSITION_SEQUENCES - 1] && !slot->tts_isnull[POSITION_OFFSETS - 1])
		{
			sequences->next = DatumGetInt64(slot->tts_values[POSITION_NEXT_SEQUENCE - 1]);
			sequences->count = read_int64_array(slot->tts_values[POSITION_SEQUENCES - 1], sequences->firsts);
			offsets = read_int64_array(slot->tts_values[POSITION_OFFSETS - 1], sequences->offsets);
		}
	}
	if (sequences->count != offsets || offsets < 1 || offsets > SEQUENCES_KEPT)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("what is remembered of a producer in partition %d of topic \"%s\" is damaged",
						partition->number, partition->topic->name)));
}

bool
producer_read(LogPartition *partition, const char *producer, Sequences *sequences)
{
	char	   *name = producer_row_name(producer);
	PositionScan scan;
	bool		found;

	found = position_scan_begin(&scan, partition, name, AccessShareLock);
	if (scan.slot->tts_tupleDescriptor->natts < POSITION_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the storage of topic \"%s\" is that of a version without producers that number their messages",
						partition->topic->name),
				 errhint("Use ALTER EXTENSION pgtopic UPDATE. If it has been restored from a dump of such a version, the maintenance worker sees to it within pgtopic.retention_check_interval.")));
	if (found)
		read_sequences(partition, scan.slot, sequences);
	/* what may change it is the producer's lock, not the table's */
	position_scan_end(&scan, AccessShareLock);
	pfree(name);
	return found;
}

void
producer_write(LogPartition *partition, const char *producer, const Sequences *sequences)
{
	char	   *name = producer_row_name(producer);

	partition_begin_write(partition);
	store(partition, name, sequences_end_offset(sequences), sequences);
	pfree(name);
}

bool
producer_forget(LogPartition *partition, const char *producer, TimestampTz before)
{
	char	   *name = producer_row_name(producer);
	PositionScan scan;
	bool		isnull;
	bool		taken;
	bool		forgotten = false;

	if (!position_try_lock(partition, name, &taken))
		return false;
	/* it may have been used before the lock was got */
	if (position_scan_begin(&scan, partition, name, RowExclusiveLock) &&
		DatumGetTimestampTz(slot_getattr(scan.slot, POSITION_AT, &isnull)) < before)
	{
		delete_found(&scan, name);
		forgotten = true;
	}
	position_scan_end(&scan, NoLock);
	if (!forgotten)
		position_unlock(partition, name);
	pfree(name);
	return forgotten;
}

typedef struct ProducerReceiver
{
	ProducerSink sink;
	void	   *arg;
} ProducerReceiver;

static void
sink_producer(void *arg, LogPartition *partition, text *group, TupleTableSlot *slot)
{
	ProducerReceiver *receiver = arg;
	Sequences	sequences;
	char	   *name;

	if (VARSIZE_ANY_EXHDR(group) == 0 || *VARDATA_ANY(group) != *POSITION_PRODUCER)
		return;
	read_sequences(partition, slot, &sequences);
	name = text_to_cstring(group);
	receiver->sink(receiver->arg, name + 1, &sequences,
				   DatumGetTimestampTz(slot->tts_values[POSITION_AT - 1]));
	pfree(name);
}

void
producers_each(LogPartition *partition, ProducerSink sink, void *arg)
{
	ProducerReceiver receiver = {sink, arg};

	scan_rows(partition, sink_producer, &receiver);
}
