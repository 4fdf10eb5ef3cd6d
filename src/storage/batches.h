/*-------------------------------------------------------------------------
 *
 * batches.h
 *	  Writing record batches into segments, and reading them back.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_BATCHES_H
#define PGTOPIC_BATCHES_H

#include "postgres.h"

#include "access/genam.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/snapshot.h"

#include "catalog/topics.h"

/* Columns of a segment, in the order of segments.c. */
enum BatchColumn
{
	BATCH_PARTITION = 1,
	BATCH_LEADER_EPOCH,
	BATCH_BASE_OFFSET,
	BATCH_LAST_OFFSET,
	BATCH_TIMESTAMP,
	BATCH_KEYS,
	BATCH_VALUES,
	BATCH_HEADERS,
	BATCH_TIMESTAMPS,
	BATCH_COLUMNS = BATCH_TIMESTAMPS
};

/* One row.  The arrays are 0 where the column is NULL. */
typedef struct RecordBatch
{
	int64		base_offset;
	int64		last_offset;
	TimestampTz timestamp;		/* the newest of its messages' */
	Datum		keys;
	Datum		values;
	Datum		headers;
	Datum		timestamps;
} RecordBatch;

/* --- writing --- */

#define WRITER_ROWS		16

typedef struct BatchWriter
{
	LogPartition *partition;
	Relation	relation;		/* the open segment, or NULL */
	int64		segment_end;
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *rows[WRITER_ROWS];
	int			rows_made;
	int			rows_full;
	MemoryContext context;		/* where the caller allocates arrays; emptied
								 * when they have been written */
} BatchWriter;

extern void batch_writer_begin(BatchWriter *writer, LogPartition *partition);
extern void batch_writer_add(BatchWriter *writer, const RecordBatch *batch);
extern void batch_writer_end(BatchWriter *writer);

/* --- reading --- */

/*
 * Opens the index on last_offset of a segment; an error if it is missing, as it can be
 * while a dump is being restored.
 */
extern Relation batches_open_index(LogPartition *partition, Relation segment, LOCKMODE mode);

/* One message; what it points to is good until the next batch is unpacked. */
typedef struct LogMessage
{
	int64		offset;
	TimestampTz timestamp;
	Datum		key;
	Datum		value;
	Datum		headers;
	bool		key_null;
	bool		value_null;
	bool		headers_null;
} LogMessage;

/* The messages of a batch, column by column.  Columns that are NULL are NULL. */
typedef struct UnpackedBatch
{
	int64		base_offset;
	TimestampTz timestamp;		/* of those without their own, and the newest */
	int			count;
	Datum	   *keys;
	Datum	   *values;
	Datum	   *headers;
	Datum	   *timestamps;
	bool	   *keys_null;
	bool	   *values_null;
	bool	   *headers_null;
} UnpackedBatch;

/* Columns of batches as a set, for batch_unpack(). */
#define BATCH_BIT(column)	(1 << (column))
#define BATCH_PAYLOAD		(BATCH_BIT(BATCH_KEYS) | BATCH_BIT(BATCH_VALUES) | \
							 BATCH_BIT(BATCH_HEADERS) | BATCH_BIT(BATCH_TIMESTAMPS))

/*
 * Unpacks those of the columns keys, values, headers and timestamps that are wanted, in
 * the current memory context.  segment is for an error's text.
 */
extern void batch_unpack(TupleTableSlot *row, Relation segment, int columns,
						 UnpackedBatch *batch);

static inline TimestampTz
batch_timestamp(const UnpackedBatch *batch, int i)
{
	return batch->timestamps ? DatumGetTimestampTz(batch->timestamps[i]) : batch->timestamp;
}

extern void batch_message(const UnpackedBatch *batch, int i, LogMessage *message);

/*
 * Reads the messages of a partition from an offset, in order, up to where they
 * are settled, with the snapshot that is active at reader_begin() and that must
 * stay active.
 *
 * The watermark must have been taken before that snapshot: then all that is
 * below it is visible to the snapshot, or has been rolled back.
 *
 * With extend, batches beyond the watermark are read too for as long as no
 * offset is missing: on a standby, where the checkpointed watermark is a little
 * old, a missing offset may belong to a transaction that commits later.
 */
typedef struct LogReader
{
	LogPartition *partition;
	Snapshot	snapshot;
	int64		from;			/* of the next message to return */
	int64		settled;		/* end of what is settled */
	bool		extend;
	int64		seek;			/* where the next segment's scan starts */
	Relation	relation;		/* the open segment, or NULL */
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	MemoryContext context;		/* of the unpacked batch */
	UnpackedBatch batch;
	int			position;		/* in it */
} LogReader;

extern void reader_begin(LogReader *reader, LogPartition *partition, int64 from,
						 int64 high_watermark, bool extend);
extern bool reader_next(LogReader *reader, LogMessage *message);

/*
 * Goes to the next batch that reaches beyond reader->from without unpacking its
 * messages; false if there is none.
 */
extern bool reader_next_batch(LogReader *reader, RecordBatch *batch);
extern void reader_end(LogReader *reader);

/*
 * The offset after the last batch of a partition, whatever its visibility: that
 * of a rolled-back or unfinished transaction counts.  0 if there is none.
 */
extern int64 batches_end(LogPartition *partition);

/*
 * The first and the last batch of a segment, as the active snapshot sees them;
 * false if there is none, or the segment has been dropped.
 */
extern bool segment_bounds(LogPartition *partition, Oid segment,
						   RecordBatch *first, RecordBatch *last);

#endif							/* PGTOPIC_BATCHES_H */
