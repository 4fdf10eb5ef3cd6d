/*-------------------------------------------------------------------------
 *
 * produce.c
 *	  Putting messages into a topic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/murmur2.h"
#include "base/packing.h"
#include "catalog/cluster.h"
#include "log/forward.h"
#include "log/produce.h"
#include "peer/transaction.h"
#include "storage/batches.h"
#include "storage/partition_state.h"

/*
 * Where messages without a key go: one partition for a transaction, so that
 * they share rows and locks, and the next one for the next transaction that
 * produces.  Sessions start at random.  In a cluster, those that this broker leads
 * come first: they need no connection, and commit with the transaction.
 */
static int32
sticky_partition(const Topic *topic)
{
	static uint32 turn = 0;
	static LocalTransactionId transaction = InvalidLocalTransactionId;

	if (transaction == InvalidLocalTransactionId)
		turn = pg_prng_uint32(&pg_global_prng_state);
	if (transaction != compat_local_xid())
	{
		transaction = compat_local_xid();
		turn++;
	}
	if (topic->partitions[0].leader != 0)
	{
		uint32		ready = 0;
		uint32		chosen;

		for (int p = 0; p < topic->partitions_count; p++)
			ready += partition_is_ready_here(&topic->partitions[p]);
		chosen = ready > 0 ? turn % ready : 0;
		for (int p = 0; ready > 0; p++)
		{
			if (partition_is_ready_here(&topic->partitions[p]) && chosen-- == 0)
				return p;
		}
	}
	return (int32) (turn % (uint32) topic->partitions_count);
}

/* sticky: that of the messages without a key, or -1 if it is not chosen yet */
static int32
partition_of(const Topic *topic, const MessageSet *messages, int i, int32 *sticky)
{
	struct varlena *key;

	if (messages->partitions != NULL && messages->partitions[i] >= 0)
		return messages->partitions[i];
	if (messages->keys == NULL || messages->key_nulls[i])
	{
		if (*sticky < 0)
			*sticky = sticky_partition(topic);
		return *sticky;
	}
	key = (struct varlena *) DatumGetPointer(messages->keys[i]);
	return murmur2_partition(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), topic->partitions_count);
}

/* The one partition of numbered messages, which is the same whenever they are repeated. */
static int32
producer_partition(const Topic *topic, const MessageSet *messages)
{
	const char *name = messages->producer->name;
	int32		keyless = murmur2_partition(name, strlen(name), topic->partitions_count);
	int32		partition = partition_of(topic, messages, 0, &keyless);

	for (int i = 1; i < messages->count; i++)
	{
		int32		other = partition_of(topic, messages, i, &keyless);

		if (other != partition)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the messages of a producer's call must go to one partition"),
					 errdetail("Message 1 would go to partition %d of topic \"%s\", message %d to partition %d.",
							   partition, topic->name, i + 1, other),
					 errhint("Make a call for each partition, which partition_for_key() tells, with a sequence of its own.")));
		if (i % 1024 == 0)
			CHECK_FOR_INTERRUPTS();
	}
	return partition;
}

static Datum *
gather_datums(const Datum *from, const int *order, int count)
{
	Datum	   *to;

	if (from == NULL)
		return NULL;
	to = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(Datum));
	for (int i = 0; i < count; i++)
		to[i] = from[order[i]];
	return to;
}

static bool *
gather_nulls(const bool *from, const int *order, int count)
{
	bool	   *to;

	if (from == NULL)
		return NULL;
	to = palloc(count * sizeof(bool));
	for (int i = 0; i < count; i++)
		to[i] = from[order[i]];
	return to;
}

static int64 *
gather_offsets(const int64 *from, const int *order, int count)
{
	int64	   *to;

	if (from == NULL)
		return NULL;
	to = palloc(count * sizeof(int64));
	for (int i = 0; i < count; i++)
		to[i] = from[order[i]];
	return to;
}

/*
 * Brings the messages into the order of their partitions, keeping the order
 * within each (a counting sort), and counts those of each.
 */
static void
sort_by_partition(const Topic *topic, MessageSet *messages, int *counts)
{
	int32	   *partitions = palloc(messages->count * sizeof(int32));
	int		   *order = palloc(messages->count * sizeof(int));
	int		   *starts = palloc(topic->partitions_count * sizeof(int));
	int			start = 0;
	int32		sticky = -1;

	for (int i = 0; i < messages->count; i++)
	{
		partitions[i] = partition_of(topic, messages, i, &sticky);
		counts[partitions[i]]++;
		if (i % 1024 == 0)
			CHECK_FOR_INTERRUPTS();
	}
	for (int p = 0; p < topic->partitions_count; p++)
	{
		starts[p] = start;
		start += counts[p];
	}
	for (int i = 0; i < messages->count; i++)
		order[starts[partitions[i]]++] = i;

	messages->values = gather_datums(messages->values, order, messages->count);
	messages->value_nulls = gather_nulls(messages->value_nulls, order, messages->count);
	messages->keys = gather_datums(messages->keys, order, messages->count);
	messages->key_nulls = gather_nulls(messages->key_nulls, order, messages->count);
	messages->headers = gather_datums(messages->headers, order, messages->count);
	messages->header_nulls = gather_nulls(messages->header_nulls, order, messages->count);
	messages->timestamps = gather_datums(messages->timestamps, order, messages->count);
	messages->partitions = NULL;
	messages->offsets = gather_offsets(messages->offsets, order, messages->count);
	pfree(partitions);
	pfree(order);
	pfree(starts);
}

/*
 * construct_md_array() puts what it has detoasted, short headers among it, in the place of
 * the elements, in the current memory context: that is gone when they are sent once more, to
 * the next leader.  So it gets a copy.
 */
static Datum
make_array(const Datum *elements, bool *nulls, int count,
		   Oid type, int length, bool by_value, char align)
{
	int			lower_bound = 1;
	Datum	   *copy = MemoryContextAllocHuge(CurrentMemoryContext, count * sizeof(Datum));

	memcpy(copy, elements, count * sizeof(Datum));
	return PointerGetDatum(construct_md_array(copy, nulls, 1, &count, &lower_bound,
											  type, length, by_value, align));
}

/* An array of some elements of a column; 0 if all of them are NULL. */
static Datum
column_array(Datum *elements, bool *nulls, int start, int count,
			 Oid type, int length, bool by_value, char align)
{
	bool		any = false;

	if (elements == NULL)
		return (Datum) 0;
	for (int i = start; i < start + count && !any; i++)
		any = nulls == NULL || !nulls[i];
	if (!any)
		return (Datum) 0;
	return make_array(elements + start, nulls ? nulls + start : NULL, count,
					  type, length, by_value, align);
}

/* The column of values is never NULL, even when all its elements are. */
static Datum
values_array(MessageSet *messages, int start, int count)
{
	return make_array(messages->values + start, messages->value_nulls + start, count,
					  BYTEAOID, -1, false, TYPALIGN_INT);
}

/* Writes messages [start, start + count) of the set as one row. */
static void
write_row(BatchWriter *writer, MessageSet *messages, int start, int count, int64 base_offset)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	RecordBatch batch;

	batch.base_offset = base_offset;
	batch.last_offset = base_offset + count - 1;
	batch.timestamp = messages->timestamp;
	batch.keys = column_array(messages->keys, messages->key_nulls, start, count,
							  BYTEAOID, -1, false, TYPALIGN_INT);
	batch.values = values_array(messages, start, count);
	batch.headers = column_array(messages->headers, messages->header_nulls, start, count,
								 JSONBOID, -1, false, TYPALIGN_INT);
	batch.timestamps = (Datum) 0;
	if (messages->timestamps)
	{
		bool		equal = true;

		batch.timestamp = DatumGetTimestampTz(messages->timestamps[start]);
		for (int i = start + 1; i < start + count; i++)
		{
			TimestampTz timestamp = DatumGetTimestampTz(messages->timestamps[i]);

			equal &= timestamp == batch.timestamp;
			batch.timestamp = Max(batch.timestamp, timestamp);
		}
		if (!equal)
			batch.timestamps = column_array(messages->timestamps, NULL, start, count,
											TIMESTAMPTZOID, sizeof(TimestampTz),
											FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	}
	MemoryContextSwitchTo(old);
	batch_writer_add(writer, &batch);
}

/* Writes messages [start, start + count) of the set to one partition, from an offset on. */
static void
write_messages(LogPartition *partition, MessageSet *messages, int start, int count,
			   int64 first_offset)
{
	BatchWriter writer;
	Packing		packing;
	PackColumns columns;
	int			row_start = start;

	columns.keys = messages->keys != NULL;
	columns.headers = messages->headers != NULL;
	columns.timestamps = messages->timestamps != NULL;

	batch_writer_begin(&writer, partition);
	packing_start(&packing, columns);
	for (int i = start; i < start + count; i++)
	{
		PackSizes	sizes = messages_sizes(messages, i);

		if (packing_add(&packing, sizes))
			continue;
		write_row(&writer, messages, row_start, i - row_start,
				  first_offset + (row_start - start));
		row_start = i;
		packing_start(&packing, columns);
		(void) packing_add(&packing, sizes);
	}
	write_row(&writer, messages, row_start, start + count - row_start,
			  first_offset + (row_start - start));
	batch_writer_end(&writer);
}

/* Appends messages [start, start + count) of the set to one partition. */
static ProducedRange
append(LogPartition *partition, MessageSet *messages, int start, int count)
{
	ProducedRange range;

	range.partition = partition->number;
	range.first_offset = partition_reserve(partition, count);
	range.last_offset = range.first_offset + count - 1;
	write_messages(partition, messages, start, count, range.first_offset);
	return range;
}

/* The same for numbered messages, unless they have been appended before. */
static ProducedRange
append_once(LogPartition *partition, MessageSet *messages, int start, int count)
{
	ProducedRange range;
	Sequences	sequences;

	if (messages->producer == NULL)
		return append(partition, messages, start, count);
	if (!producer_begin(partition, messages->producer, count, &sequences, &range.first_offset))
	{
		range = append(partition, messages, start, count);
		producer_end(partition, messages->producer, count, &sequences, range.first_offset);
		return range;
	}
	range.partition = partition->number;
	range.last_offset = range.first_offset + count - 1;
	return range;
}

/* The messages of a call that go to one partition. */
typedef struct Piece
{
	int32		partition;
	int			start;
	int			count;
	bool		done;
	ProducedRange *range;
	Peer	   *peer;			/* it has been sent to, or NULL */
	bool		opened;			/* with a transaction of its own */
} Piece;

static void
send_piece(Piece *piece, int32 topic, MessageSet *messages, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ProduceArrays arrays;

	arrays.values = values_array(messages, piece->start, piece->count);
	arrays.keys = column_array(messages->keys, messages->key_nulls, piece->start, piece->count,
							   BYTEAOID, -1, false, TYPALIGN_INT);
	arrays.headers = column_array(messages->headers, messages->header_nulls,
								  piece->start, piece->count,
								  JSONBOID, -1, false, TYPALIGN_INT);
	arrays.timestamps = column_array(messages->timestamps, NULL, piece->start, piece->count,
									 TIMESTAMPTZOID, sizeof(TimestampTz),
									 FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	arrays.timestamp = messages->timestamp;
	arrays.producer = messages->producer;
	forward_produce(piece->peer, topic, piece->partition, &arrays);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

/*
 * Sends the pieces from the first one on that go to the same leader; nothing if it
 * cannot be reached now.
 */
static void
send_to_leader(Piece *pieces, int count, const int32 *leaders, int32 topic,
			   MessageSet *messages, MemoryContext context, Attempt *attempt)
{
	Peer	   *peer = forward_open(leaders[0], attempt);
	bool		opened;

	if (peer == NULL)
		return;
	opened = peer_begin(peer, false);
	for (int i = 0; i < count; i++)
	{
		if (pieces[i].done || leaders[i] != leaders[0])
			continue;
		pieces[i].peer = peer;
		pieces[i].opened = opened;
		send_piece(&pieces[i], topic, messages, context);
	}
	peer_sync(peer);
}

/* Receives the answers for them.  They all have happened, or none has. */
static void
receive_from_leader(Piece *pieces, int count, int32 topic, Attempt *attempt)
{
	Peer	   *peer = pieces[0].peer;
	bool		done = true;

	for (int i = 0; i < count && done; i++)
	{
		if (pieces[i].peer != peer)
			continue;
		done = forward_produced(peer, pieces[i].opened, &pieces[i].range->first_offset, attempt);
	}
	for (int i = 0; i < count; i++)
	{
		if (pieces[i].peer != peer)
			continue;
		pieces[i].peer = NULL;
		pieces[i].done = done;
		if (done)
			peer_note_written(peer, topic, pieces[i].partition);
	}
}

/* As partition_leader(): one that is handing over, if this transaction has written there. */
static int32
leader_to_write(int32 topic, int32 number)
{
	LogPartition *partition = topic_partition_get(topic_get(topic), number);

	if (partition->successor != 0 && !partition_is_led_here(partition) &&
		peer_has_written(partition->leader, topic, number))
		return partition->leader;
	return partition_leader(topic, number, true);
}

/*
 * Appends pieces to partitions that are led elsewhere, or whose leader is changing.
 * All are on their way at the same time.
 */
static void
append_elsewhere(int32 topic, MessageSet *messages, Piece *pieces, int count)
{
	Attempt		attempt = {0};
	int32	   *leaders = palloc(count * sizeof(int32));
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic forward",
												  ALLOCSET_DEFAULT_SIZES);
	bool		again;

	do
	{
		for (int i = 0; i < count; i++)
		{
			Piece	   *piece = &pieces[i];

			if (piece->done)
				continue;
			leaders[i] = leader_to_write(topic, piece->partition);
			if (leaders[i] != 0)
				continue;
			*piece->range = append_once(topic_partition_get(topic_get(topic), piece->partition),
										messages, piece->start, piece->count);
			piece->done = true;
		}
		for (int i = 0; i < count; i++)
		{
			if (!pieces[i].done && pieces[i].peer == NULL)
				send_to_leader(pieces + i, count - i, leaders + i, topic, messages, context, &attempt);
		}
		again = false;
		for (int i = 0; i < count; i++)
		{
			if (pieces[i].peer != NULL)
				receive_from_leader(pieces + i, count - i, topic, &attempt);
			again |= !pieces[i].done;
		}
	} while (again);

	for (int i = 0; i < count; i++)
	{
		pieces[i].range->partition = pieces[i].partition;
		pieces[i].range->last_offset = pieces[i].range->first_offset + pieces[i].count - 1;
	}
	MemoryContextDelete(context);
	pfree(leaders);
}

int
produce_messages(Topic *topic, MessageSet *messages, int32 partition, ProducedRange *ranges)
{
	int			partitions_count = topic->partitions_count;
	int32		topic_id = topic->id;
	int32		sticky = -1;
	int		   *counts;
	Piece	   *pieces;
	int			start = 0;
	int			ranges_count = 0;
	int			pieces_count = 0;

	messages_check(topic, messages);
	if (messages->count == 0)
		return 0;
	if (partition < 0 && messages->producer != NULL)
		partition = producer_partition(topic, messages);
	else if (partition < 0 && messages->count == 1)
		partition = partition_of(topic, messages, 0, &sticky);
	else if (partition < 0 && messages->keys == NULL && messages->partitions == NULL)
		partition = sticky_partition(topic);
	if (partition >= 0)
	{
		LogPartition *only = topic_partition_get(topic, partition);
		Piece		piece = {partition, 0, messages->count, false, ranges, NULL, false};

		if (partition_is_ready_here(only))
			ranges[0] = append_once(only, messages, 0, messages->count);
		else
			append_elsewhere(topic_id, messages, &piece, 1);
		return 1;
	}

	counts = palloc0(partitions_count * sizeof(int));
	pieces = palloc0(Min(messages->count, partitions_count) * sizeof(Piece));
	sort_by_partition(topic, messages, counts);
	for (int p = 0; p < partitions_count; p++)
	{
		if (counts[p] == 0)
			continue;
		if (partition_is_ready_here(&topic->partitions[p]))
			ranges[ranges_count] = append(&topic->partitions[p], messages, start, counts[p]);
		else
		{
			Piece	   *piece = &pieces[pieces_count++];

			piece->partition = p;
			piece->start = start;
			piece->count = counts[p];
			piece->range = &ranges[ranges_count];
		}
		ranges_count++;
		start += counts[p];
	}
	if (pieces_count > 0)
		append_elsewhere(topic_id, messages, pieces, pieces_count);
	return ranges_count;
}

bool
produce_reserve(Topic *topic, MessageSet *messages, int i)
{
	int32		sticky = -1;
	int32		number = partition_of(topic, messages, i, &sticky);
	LogPartition *partition = topic_partition_get(topic, number);

	if (!partition_is_ready_here(partition))
		return false;
	messages->partitions[i] = number;
	messages->offsets[i] = partition_reserve(partition, 1);
	return true;
}

void
produce_reserved(Topic *topic, MessageSet *messages)
{
	int			partitions_count = topic->partitions_count;
	int		   *counts = palloc0(partitions_count * sizeof(int));
	int			end = 0;

	messages_check(topic, messages);
	sort_by_partition(topic, messages, counts);
	for (int p = 0; p < partitions_count; p++)
	{
		int			start = end;

		end += counts[p];
		/* others may have taken offsets in between */
		for (int i = start; i < end; i++)
		{
			if (i + 1 < end && messages->offsets[i + 1] == messages->offsets[i] + 1)
				continue;
			write_messages(&topic->partitions[p], messages, start, i + 1 - start,
						   messages->offsets[start]);
			start = i + 1;
		}
	}
}
