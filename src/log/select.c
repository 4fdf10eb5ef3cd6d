/*-------------------------------------------------------------------------
 *
 * select.c
 *	  Reading a topic as a query does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog/cluster.h"
#include "log/forward.h"
#include "log/leaders.h"
#include "log/select.h"

/* Messages of the first piece from another broker, and of the largest. */
#define PIECE_MIN	100
#define PIECE_MAX	10000

void
log_select_begin(LogSelect *select, const SelectQuery *query, Snapshot snapshot,
				 BatchScanCounts *counts, int64 *partitions_read)
{
	memset(select, 0, sizeof(LogSelect));
	select->query = *query;
	select->snapshot = snapshot;
	select->context = CurrentMemoryContext;
	select->counts = counts;
	select->partitions_read = partitions_read;
	select->size = PIECE_MIN;
}

static void
close_partition(LogSelect *select)
{
	if (select->open && select->here)
		batch_scan_end(&select->scan);
	if (select->piece)
		MemoryContextDelete(select->piece);
	select->piece = NULL;
	select->open = false;
}

/* Goes to the first range, or the next one; false if there is none. */
static bool
next_range(LogSelect *select)
{
	const SelectQuery *query = &select->query;

	if (select->range == query->ranges_count)
		return false;
	select->left = query->ranges[query->backward ? query->ranges_count - 1 - select->range :
								 select->range];
	select->range++;
	return true;
}

static void
open_partition(LogSelect *select)
{
	const SelectQuery *query = &select->query;
	int32		number = query->partitions[select->place];
	LogPartition *partition = topic_partition_get(topic_get(query->topic), number);

	select->here = partition_is_led_here(partition);
	if (select->here)
	{
		batch_scan_begin(&select->scan, query->topic, number, select->snapshot, query->backward,
						 query->columns, query->since, query->ranges, query->ranges_count,
						 select->counts);
		select->first = 0;
		select->last = -1;
	}
	else
	{
		select->piece = AllocSetContextCreate(select->context, "pgtopic piece",
											  ALLOCSET_DEFAULT_SIZES);
		select->messages_count = select->position = select->range = 0;
		select->left.from = select->left.to = 0;
	}
	select->open = true;
	(*select->partitions_read)++;
}

static Datum
copy_bytes(Datum datum, bool isnull)
{
	return isnull ? (Datum) 0 : datumCopy(datum, false, -1);
}

/* A MessageSink: keeps a message in the piece. */
static void
keep_message(void *arg, int32 partition, const LogMessage *message)
{
	LogSelect  *select = arg;
	MemoryContext old = MemoryContextSwitchTo(select->piece);
	LogMessage *kept;

	if (select->messages_count == select->messages_room)
	{
		select->messages_room *= 2;
		select->messages = repalloc_huge(select->messages,
										 select->messages_room * sizeof(LogMessage));
	}
	kept = &select->messages[select->messages_count++];
	*kept = *message;
	kept->key = copy_bytes(message->key, message->key_null);
	kept->value = copy_bytes(message->value, message->value_null);
	kept->headers = copy_bytes(message->headers, message->headers_null);
	MemoryContextSwitchTo(old);
}

/* Fetches the next piece of the range from the leader; false if there is nothing left. */
static bool
fetch_piece(LogSelect *select)
{
	const SelectQuery *query = &select->query;
	int32		number = query->partitions[select->place];
	Attempt		attempt = {0};
	int64		count = 0;
	MemoryContext old;

	if (select->left.from >= select->left.to)
		return false;
	MemoryContextReset(select->piece);
	old = MemoryContextSwitchTo(select->piece);
	select->messages_count = select->position = 0;
	select->messages_room = PIECE_MIN;
	select->messages = palloc(select->messages_room * sizeof(LogMessage));
	do
	{
		int32		leader = partition_leader(query->topic, number, false);

		select->messages_count = 0;
		if (leader == 0)
		{
			/* it has come to be led here meanwhile */
			PushActiveSnapshot(select->snapshot);
			log_select_here(topic_partition_get(topic_get(query->topic), number), select->left,
							query->since, query->backward, select->size, keep_message, select);
			PopActiveSnapshot();
			count = select->messages_count;
		}
		else
			count = forward_select(leader, query->topic, number, select->left, query->since,
								   query->backward, select->size, keep_message, select, &attempt);
	} while (count < 0);
	MemoryContextSwitchTo(old);

	select->size = Min(select->size * 2, PIECE_MAX);
	if (count == 0)
	{
		select->left.from = select->left.to;
		return false;
	}
	if (query->backward)
		select->left.to = select->messages[count - 1].offset;
	else
		select->left.from = select->messages[count - 1].offset + 1;
	return true;
}

static const LogMessage *
next_here(LogSelect *select)
{
	if (select->first > select->last &&
		!batch_scan_next(&select->scan, &select->first, &select->last))
		return NULL;
	batch_message(&select->scan.batch,
				  select->query.backward ? select->last-- : select->first++, &select->message);
	return &select->message;
}

static const LogMessage *
next_elsewhere(LogSelect *select)
{
	while (select->position == select->messages_count)
	{
		if (!fetch_piece(select) && !next_range(select))
			return NULL;
	}
	return &select->messages[select->position++];
}

const LogMessage *
log_select_next(LogSelect *select, int32 *partition)
{
	for (; select->place < select->query.partitions_count; select->place++)
	{
		const LogMessage *message;

		if (!select->open)
		{
			MemoryContext old = MemoryContextSwitchTo(select->context);

			open_partition(select);
			MemoryContextSwitchTo(old);
		}
		message = select->here ? next_here(select) : next_elsewhere(select);
		if (message != NULL)
		{
			*partition = select->query.partitions[select->place];
			return message;
		}
		close_partition(select);
	}
	return NULL;
}

void
log_select_end(LogSelect *select)
{
	close_partition(select);
}

void
log_select_here(LogPartition *partition, OffsetRange range, TimestampTz since, bool backward,
				int64 max, MessageSink sink, void *arg)
{
	BatchScanCounts counts = {0};
	BatchScan	scan;
	int32		number = partition->number;
	int64		messages = 0;
	int64		bytes = 0;
	int			first;
	int			last;

	batch_scan_begin(&scan, partition->topic->id, number, GetActiveSnapshot(), backward,
					 BATCH_PAYLOAD, since, &range, 1, &counts);
	while (messages < max && bytes < SELECT_PIECE_BYTES && batch_scan_next(&scan, &first, &last))
	{
		while (first <= last && messages < max)
		{
			LogMessage	message;

			batch_message(&scan.batch, backward ? last-- : first++, &message);
			sink(arg, number, &message);
			messages++;
			bytes += (message.key_null ? 0 : VARSIZE_ANY(DatumGetPointer(message.key))) +
				(message.value_null ? 0 : VARSIZE_ANY(DatumGetPointer(message.value))) +
				(message.headers_null ? 0 : VARSIZE_ANY(DatumGetPointer(message.headers)));
		}
	}
	batch_scan_end(&scan);
}
