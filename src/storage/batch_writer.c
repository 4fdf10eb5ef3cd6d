/*-------------------------------------------------------------------------
 *
 * batch_writer.c
 *	  Writing record batches into segments.
 *
 * Rows go through the table access method and ExecInsertIndexTuples(), not
 * through SPI or the executor: no parsing, no planning, no tuple routing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "storage/batches.h"
#include "storage/partition_state.h"
#include "storage/segments.h"

/* Where epochs begin is kept beside the log (epochs.h); nothing reads this column. */
#define LEADER_EPOCH	0

void
batch_writer_begin(BatchWriter *writer, LogPartition *partition)
{
	memset(writer, 0, sizeof(BatchWriter));
	writer->partition = partition;
	writer->context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic batches",
											ALLOCSET_DEFAULT_SIZES);
}

/* Opens the segment that a batch goes to. */
static void
open_segment(BatchWriter *writer, int64 last_offset)
{
	LogPartition *partition = writer->partition;
	int			number;

	writer->relation = segment_open_for(partition, last_offset, RowExclusiveLock, &number);
	if (writer->relation == NULL && partition_made_here(partition))
	{
		/* it was there when the offset was taken; a savepoint was rolled back */
		partition_make_segments(partition, last_offset + 1);
		writer->relation = segment_open_for(partition, last_offset, RowExclusiveLock, &number);
	}
	if (writer->relation == NULL)
	{
		char	   *name = pstrdup(partition->topic->name);
		int32		topic = partition->topic->id;
		int32		partition_number = partition->number;

		if (topic_find(topic) == NULL)
			topic_error_unknown(name);
		/* somebody has dropped it by hand */
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("topic \"%s\" has no segment for offset " INT64_FORMAT " of partition %d",
						name, last_offset, partition_number)));
	}
	writer->segment_end = partition->segments[number].to;

	writer->estate = CreateExecutorState();
	writer->result = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->result, writer->relation, 0, NULL, 0);
	ExecOpenIndices(writer->result, false);
}

static void
flush(BatchWriter *writer)
{
	CommandId	cid = GetCurrentCommandId(true);

	if (writer->rows_full == 0)
		return;

	CHECK_FOR_INTERRUPTS();
	if (writer->rows_full == 1)
		table_tuple_insert(writer->relation, writer->rows[0], cid, 0, NULL);
	else
		table_multi_insert(writer->relation, writer->rows, writer->rows_full, cid, 0, NULL);

	for (int i = 0; i < writer->rows_full; i++)
	{
		if (writer->result->ri_NumIndices > 0)
			(void) compat_insert_index_tuples(writer->result, writer->rows[i],
											  writer->estate, false, 0);
		ExecClearTuple(writer->rows[i]);
	}
	ResetPerTupleExprContext(writer->estate);
	writer->rows_full = 0;
	MemoryContextReset(writer->context);
}

static void
close_segment(BatchWriter *writer)
{
	if (writer->relation == NULL)
		return;
	flush(writer);
	for (int i = 0; i < writer->rows_made; i++)
		ExecDropSingleTupleTableSlot(writer->rows[i]);
	writer->rows_made = 0;
	ExecCloseIndices(writer->result);
	FreeExecutorState(writer->estate);
	/* the lock stays to the end of the transaction */
	table_close(writer->relation, NoLock);
	writer->relation = NULL;
}

void
batch_writer_add(BatchWriter *writer, const RecordBatch *batch)
{
	TupleTableSlot *slot;

	if (writer->relation != NULL && batch->last_offset >= writer->segment_end)
	{
		/* its arrays are in the context that close_segment() empties */
		MemoryContext context = writer->context;

		writer->context = AllocSetContextCreate(MemoryContextGetParent(context),
												"pgtopic batches",
												ALLOCSET_DEFAULT_SIZES);
		close_segment(writer);
		MemoryContextDelete(writer->context);
		writer->context = context;
	}
	if (writer->relation == NULL)
		open_segment(writer, batch->last_offset);

	if (writer->rows_full == writer->rows_made)
		writer->rows[writer->rows_made++] = table_slot_create(writer->relation, NULL);
	slot = writer->rows[writer->rows_full++];

	slot->tts_values[BATCH_PARTITION - 1] = Int32GetDatum(writer->partition->number);
	slot->tts_values[BATCH_LEADER_EPOCH - 1] = Int32GetDatum(LEADER_EPOCH);
	slot->tts_values[BATCH_BASE_OFFSET - 1] = Int64GetDatum(batch->base_offset);
	slot->tts_values[BATCH_LAST_OFFSET - 1] = Int64GetDatum(batch->last_offset);
	slot->tts_values[BATCH_TIMESTAMP - 1] = TimestampTzGetDatum(batch->timestamp);
	slot->tts_values[BATCH_KEYS - 1] = batch->keys;
	slot->tts_values[BATCH_VALUES - 1] = batch->values;
	slot->tts_values[BATCH_HEADERS - 1] = batch->headers;
	slot->tts_values[BATCH_TIMESTAMPS - 1] = batch->timestamps;
	memset(slot->tts_isnull, 0, BATCH_COLUMNS * sizeof(bool));
	slot->tts_isnull[BATCH_KEYS - 1] = batch->keys == 0;
	slot->tts_isnull[BATCH_HEADERS - 1] = batch->headers == 0;
	slot->tts_isnull[BATCH_TIMESTAMPS - 1] = batch->timestamps == 0;
	ExecStoreVirtualTuple(slot);

	if (writer->rows_full == WRITER_ROWS)
		flush(writer);
}

void
batch_writer_end(BatchWriter *writer)
{
	close_segment(writer);
	MemoryContextDelete(writer->context);
}
