/*-------------------------------------------------------------------------
 *
 * batch_reader.c
 *	  Reading record batches from segments.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/itup.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "storage/batches.h"
#include "storage/segments.h"

Relation
batches_open_index(LogPartition *partition, Relation segment, LOCKMODE mode)
{
	Oid			index;

	(void) RelationGetIndexList(segment);	/* sets rd_pkindex */
	index = segment->rd_pkindex;
	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment \"%s\" of topic \"%s\" has no primary key",
						RelationGetRelationName(segment), partition->topic->name),
				 errhint("If a dump is being restored, wait until that is done.")));
	return index_open(index, mode);
}

void
reader_begin(LogReader *reader, LogPartition *partition, int64 from,
			 int64 high_watermark, bool extend)
{
	memset(reader, 0, sizeof(LogReader));
	reader->partition = partition;
	reader->snapshot = GetActiveSnapshot();
	reader->from = from;
	reader->settled = high_watermark;
	reader->extend = extend;
	/* what may be missing must be looked for from where all is settled */
	reader->seek = extend ? Min(from, high_watermark) : from;
	reader->context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic reader",
											ALLOCSET_DEFAULT_SIZES);
}

/*
 * The lock is not kept: what has been read is copied by the caller, nothing
 * refers to the segment afterwards, and keeping it would keep retention away
 * for as long as the transaction lasts.
 */
static void
close_segment(LogReader *reader)
{
	if (reader->relation == NULL)
		return;
	index_endscan(reader->scan);
	ExecDropSingleTupleTableSlot(reader->slot);
	index_close(reader->index, AccessShareLock);
	table_close(reader->relation, AccessShareLock);
	reader->relation = NULL;
}

/* Starts a scan of the next segment that reaches beyond reader->seek. */
static bool
open_segment(LogReader *reader)
{
	LogPartition *partition = reader->partition;

	for (;;)
	{
		ScanKeyData key;
		int			number;

		segments_load(partition);
		number = segmap_seek(partition->segments, partition->segments_count, reader->seek);
		if (number == partition->segments_count)
			return false;

		/*
		 * The watermark is a batch's end, and a batch is stored where it ends,
		 * so nothing of what is settled is in segments that begin there.  Where
		 * reading extends what is settled, the next batch may be in any.
		 */
		if (!reader->extend && partition->segments[number].from >= reader->settled)
			return false;
		reader->relation = try_table_open(partition->segments[number].relid, AccessShareLock);
		if (reader->relation == NULL)
		{
			/* dropped by retention; the map says so next time */
			partition->segments_valid = false;
			AcceptInvalidationMessages();
			continue;
		}
		reader->index = batches_open_index(partition, reader->relation, AccessShareLock);
		reader->slot = table_slot_create(reader->relation, NULL);
		reader->scan = compat_index_beginscan(reader->relation, reader->index,
											  reader->snapshot, 1, 0);
		ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_INT8GE,
					Int64GetDatum(reader->seek));
		index_rescan(reader->scan, &key, 1, NULL, 0);
		reader->seek = partition->segments[number].to;
		return true;
	}
}

/* Goes to the next batch that may be read and leaves it in reader->slot. */
static bool
advance(LogReader *reader, int64 *base_offset, int64 *last_offset)
{
	for (;;)
	{
		bool		isnull;

		if (reader->relation == NULL && !open_segment(reader))
			return false;
		CHECK_FOR_INTERRUPTS();
		if (!index_getnext_slot(reader->scan, ForwardScanDirection, reader->slot))
		{
			close_segment(reader);
			continue;
		}

		*base_offset = DatumGetInt64(slot_getattr(reader->slot, BATCH_BASE_OFFSET, &isnull));
		*last_offset = DatumGetInt64(slot_getattr(reader->slot, BATCH_LAST_OFFSET, &isnull));
		if (*base_offset >= reader->settled)
		{
			if (!reader->extend || *base_offset > reader->settled)
				return false;
			reader->settled = *last_offset + 1;
		}
		if (*last_offset >= reader->from)
			return true;
	}
}

bool
reader_next_batch(LogReader *reader, RecordBatch *batch)
{
	bool		isnull;

	memset(batch, 0, sizeof(RecordBatch));
	if (!advance(reader, &batch->base_offset, &batch->last_offset))
		return false;
	batch->timestamp = DatumGetTimestampTz(slot_getattr(reader->slot, BATCH_TIMESTAMP, &isnull));
	reader->from = batch->last_offset + 1;
	return true;
}

/* Unpacks an array column of a row; NULL if it is NULL. */
static Datum *
unpack(TupleTableSlot *row, Relation segment, const UnpackedBatch *batch, int column,
	   Oid type, int length, bool by_value, char align, bool **nulls)
{
	Datum	   *elements;
	Datum		datum;
	bool		isnull;
	int			count;

	datum = slot_getattr(row, column, &isnull);
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(datum), type, length, by_value, align,
					  &elements, nulls, &count);
	if (count != batch->count)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("batch at offset " INT64_FORMAT " of segment \"%s\" is damaged",
						batch->base_offset, RelationGetRelationName(segment)),
				 errdetail("An array has %d elements instead of %d.", count, batch->count)));
	return elements;
}

void
batch_unpack(TupleTableSlot *row, Relation segment, int columns, UnpackedBatch *batch)
{
	bool		isnull;
	bool	   *ignored;

	memset(batch, 0, sizeof(UnpackedBatch));
	batch->base_offset = DatumGetInt64(slot_getattr(row, BATCH_BASE_OFFSET, &isnull));
	batch->count = (int) (DatumGetInt64(slot_getattr(row, BATCH_LAST_OFFSET, &isnull)) -
						  batch->base_offset + 1);
	batch->timestamp = DatumGetTimestampTz(slot_getattr(row, BATCH_TIMESTAMP, &isnull));
	if (columns & BATCH_BIT(BATCH_KEYS))
		batch->keys = unpack(row, segment, batch, BATCH_KEYS, BYTEAOID, -1, false, TYPALIGN_INT,
							 &batch->keys_null);
	if (columns & BATCH_BIT(BATCH_VALUES))
		batch->values = unpack(row, segment, batch, BATCH_VALUES, BYTEAOID, -1, false, TYPALIGN_INT,
							   &batch->values_null);
	if (columns & BATCH_BIT(BATCH_HEADERS))
		batch->headers = unpack(row, segment, batch, BATCH_HEADERS, JSONBOID, -1, false, TYPALIGN_INT,
								&batch->headers_null);
	if (columns & BATCH_BIT(BATCH_TIMESTAMPS))
		batch->timestamps = unpack(row, segment, batch, BATCH_TIMESTAMPS, TIMESTAMPTZOID,
								   sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ignored);
}

/* Unpacks the next batch. */
static bool
unpack_next_batch(LogReader *reader)
{
	MemoryContext old;
	int64		base_offset;
	int64		last_offset;

	if (!advance(reader, &base_offset, &last_offset))
		return false;

	MemoryContextReset(reader->context);
	old = MemoryContextSwitchTo(reader->context);
	batch_unpack(reader->slot, reader->relation, BATCH_PAYLOAD, &reader->batch);
	MemoryContextSwitchTo(old);

	/* the position may be in the middle of the batch */
	reader->position = reader->from > base_offset ? (int) (reader->from - base_offset) : 0;
	return true;
}

static inline Datum
element(const Datum *elements, const bool *nulls, int i, bool *isnull)
{
	*isnull = elements == NULL || nulls[i];
	return *isnull ? (Datum) 0 : elements[i];
}

void
batch_message(const UnpackedBatch *batch, int i, LogMessage *message)
{
	message->offset = batch->base_offset + i;
	message->timestamp = batch_timestamp(batch, i);
	message->key = element(batch->keys, batch->keys_null, i, &message->key_null);
	message->value = element(batch->values, batch->values_null, i, &message->value_null);
	message->headers = element(batch->headers, batch->headers_null, i, &message->headers_null);
}

bool
reader_next(LogReader *reader, LogMessage *message)
{
	if (reader->position >= reader->batch.count && !unpack_next_batch(reader))
		return false;

	batch_message(&reader->batch, reader->position++, message);
	reader->from = message->offset + 1;
	return true;
}

void
reader_end(LogReader *reader)
{
	close_segment(reader);
	MemoryContextDelete(reader->context);
}

/*
 * Reads the index alone, since the heap's rows may be invisible or pruned
 * already, and the entry still says which offset was handed out.
 */
int64
batches_end(LogPartition *partition)
{
	int64		end = 0;

	segments_load(partition);
	for (int i = partition->segments_count - 1; i >= 0 && end == 0; i--)
	{
		Relation	relation = try_table_open(partition->segments[i].relid, AccessShareLock);
		Relation	index;
		IndexScanDesc scan;

		if (relation == NULL)
			continue;
		index = batches_open_index(partition, relation, AccessShareLock);
		scan = compat_index_beginscan(relation, index, SnapshotAny, 0, 0);
		scan->xs_want_itup = true;
		/* entries that are known to be dead say what was handed out, too */
		scan->ignore_killed_tuples = false;
		index_rescan(scan, NULL, 0, NULL, 0);
		if (index_getnext_tid(scan, BackwardScanDirection) != NULL)
		{
			bool		isnull;

			end = DatumGetInt64(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull)) + 1;
		}
		index_endscan(scan);
		index_close(index, AccessShareLock);
		table_close(relation, AccessShareLock);
	}
	return end;
}

static bool
read_one(Relation relation, Relation index, ScanDirection direction, RecordBatch *batch)
{
	IndexScanDesc scan = compat_index_beginscan(relation, index, GetActiveSnapshot(), 0, 0);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	bool		found;

	index_rescan(scan, NULL, 0, NULL, 0);
	found = index_getnext_slot(scan, direction, slot);
	if (found)
	{
		bool		isnull;

		memset(batch, 0, sizeof(RecordBatch));
		batch->base_offset = DatumGetInt64(slot_getattr(slot, BATCH_BASE_OFFSET, &isnull));
		batch->last_offset = DatumGetInt64(slot_getattr(slot, BATCH_LAST_OFFSET, &isnull));
		batch->timestamp = DatumGetTimestampTz(slot_getattr(slot, BATCH_TIMESTAMP, &isnull));
	}
	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	return found;
}

bool
segment_bounds(LogPartition *partition, Oid segment, RecordBatch *first, RecordBatch *last)
{
	Relation	relation = try_table_open(segment, AccessShareLock);
	Relation	index;
	bool		found;

	if (relation == NULL)
		return false;
	index = batches_open_index(partition, relation, AccessShareLock);
	found = read_one(relation, index, ForwardScanDirection, first) &&
		read_one(relation, index, BackwardScanDirection, last);
	index_close(index, AccessShareLock);
	table_close(relation, AccessShareLock);
	return found;
}
