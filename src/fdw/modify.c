/*-------------------------------------------------------------------------
 *
 * modify.c
 *	  INSERT and COPY FROM into a topic.
 *
 * Rows are gathered and produced many at a time, as produce_batch() does, so that they
 * share batches.  Where RETURNING, or WITH CHECK OPTION, wants to know where each is, they
 * get their offsets at once and are written later all the same.  A row is produced at once
 * where somebody may look at the topic before the statement has ended, and before the
 * executor has us write the last rows: triggers, or functions in RETURNING.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/extension.h"
#include "catalog/relations.h"
#include "fdw/fdw.h"
#include "log/produce.h"
#include "storage/relation.h"

/* So many rows, or bytes, are gathered. */
#define ROWS_MAX	65536
#define BYTES_MAX	(4 * 1024 * 1024)

/* A row that has its offset is written this much later at most, so that its time is right. */
#define RESERVED_MAX_MS	100

typedef enum InsertMode
{
	INSERT_BEGINS,				/* what the executor will look at it does not say before the first row */
	INSERT_GATHER,				/* nobody looks before the statement has ended */
	INSERT_RESERVE,				/* somebody looks at each row, as it is produced */
	INSERT_AT_ONCE				/* somebody looks at the topic */
} InsertMode;

typedef struct TopicInsert
{
	int32		topic;
	PayloadKind kind;
	const ModifyTable *plan;	/* NULL for COPY */
	InsertMode	mode;
	TimestampTz timestamp;		/* of rows without their own */
	MemoryContext context;		/* of what follows, emptied when it has been produced */
	int			count;
	int			reserved;		/* of them, from the first one on, have offsets */
	int			room;
	int64		bytes;
	bool		has_keys;
	bool		has_headers;
	bool		has_timestamps;
	bool		has_partitions;
	Datum	   *values;
	bool	   *value_nulls;
	Datum	   *keys;
	bool	   *key_nulls;
	Datum	   *headers;
	bool	   *header_nulls;
	Datum	   *timestamps;
	bool	   *timestamp_nulls;
	int32	   *partitions;		/* -1: by the key */
	int64	   *offsets;
} TopicInsert;

/* Whether a relation that the statement writes to has triggers that fire when it has ended. */
static bool
has_late_triggers(EState *estate)
{
	ListCell   *cell;

	foreach(cell, estate->es_opened_result_relations)
	{
		const TriggerDesc *triggers = ((ResultRelInfo *) lfirst(cell))->ri_TrigDesc;

		if (triggers != NULL &&
			(triggers->trig_insert_after_row || triggers->trig_insert_after_statement ||
			 triggers->trig_update_after_row || triggers->trig_update_after_statement ||
			 triggers->trig_delete_after_row || triggers->trig_delete_after_statement))
			return true;
	}
	return false;
}

static InsertMode
insert_mode(EState *estate, const ResultRelInfo *result, const ModifyTable *plan)
{
	const TriggerDesc *triggers = result->ri_TrigDesc;

	if ((triggers != NULL && (triggers->trig_insert_before_row || triggers->trig_insert_after_row)) ||
		has_late_triggers(estate))
		return INSERT_AT_ONCE;
	if (result->ri_projectReturning == NULL && result->ri_WithCheckOptions == NIL)
		return INSERT_GATHER;
	if (plan == NULL || contain_subplans((Node *) plan->returningLists) ||
		contain_volatile_functions((Node *) plan->returningLists) ||
		contain_subplans((Node *) plan->withCheckOptionLists) ||
		contain_volatile_functions((Node *) plan->withCheckOptionLists))
		return INSERT_AT_ONCE;
	return INSERT_RESERVE;
}

static void
begin(ResultRelInfo *result, const ModifyTable *plan)
{
	TopicInsert *insert = palloc0(sizeof(TopicInsert));
	Topic	   *topic;

	extension_require_writable("INSERT into a topic");
	topic = topic_of_relation(RelationGetRelid(result->ri_RelationDesc), true);
	relation_check_columns(result->ri_RelationDesc, topic->format);
	insert->topic = topic->id;
	insert->kind = topic->format == FORMAT_BYTES ? PAYLOAD_BYTES :
		topic->format == FORMAT_JSON ? PAYLOAD_JSONB : PAYLOAD_TEXT;
	insert->plan = plan;
	insert->context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic insert",
											ALLOCSET_DEFAULT_SIZES);
	result->ri_FdwState = insert;
}

static void
begin_modify(ModifyTableState *node, ResultRelInfo *result, List *fdw_private,
			 int subplan, int eflags)
{
	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		begin(result, (ModifyTable *) node->ps.plan);
}

static void
refuse_on_conflict(const ModifyTable *plan)
{
	if (plan->onConflictAction != ONCONFLICT_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT is not possible with topics"),
				 errhint("A producer and a sequence keep produce() from producing a message twice.")));
}

static void
begin_insert(ModifyTableState *node, ResultRelInfo *result)
{
	ModifyTable *plan = (ModifyTable *) node->ps.plan;

	/* COPY has no plan */
	if (plan != NULL)
		refuse_on_conflict(plan);
	begin(result, plan);
}

static List *
plan_modify(PlannerInfo *root, ModifyTable *plan, Index relation, int subplan)
{
	refuse_on_conflict(plan);
	return NIL;
}

/* An array of the gathered rows, with more room. */
static void *
enlarge(TopicInsert *insert, void *array, int room, Size size)
{
	return insert->room == 0 ? MemoryContextAlloc(insert->context, room * size) :
		repalloc(array, room * size);
}

static void
make_room(TopicInsert *insert)
{
	int			room = insert->room == 0 ? 64 : insert->room * 4;

	if (insert->count < insert->room)
		return;
	insert->values = enlarge(insert, insert->values, room, sizeof(Datum));
	insert->value_nulls = enlarge(insert, insert->value_nulls, room, sizeof(bool));
	insert->keys = enlarge(insert, insert->keys, room, sizeof(Datum));
	insert->key_nulls = enlarge(insert, insert->key_nulls, room, sizeof(bool));
	insert->headers = enlarge(insert, insert->headers, room, sizeof(Datum));
	insert->header_nulls = enlarge(insert, insert->header_nulls, room, sizeof(bool));
	insert->timestamps = enlarge(insert, insert->timestamps, room, sizeof(Datum));
	insert->timestamp_nulls = enlarge(insert, insert->timestamp_nulls, room, sizeof(bool));
	insert->partitions = enlarge(insert, insert->partitions, room, sizeof(int32));
	insert->offsets = enlarge(insert, insert->offsets, room, sizeof(int64));
	insert->room = room;
}

/* Keeps a payload of the row; false if it is NULL. */
static bool
keep(TopicInsert *insert, TupleTableSlot *slot, int column, Datum *datum, bool *isnull)
{
	MemoryContext old = MemoryContextSwitchTo(insert->context);
	Datum		value = slot->tts_values[column - 1];

	*isnull = slot->tts_isnull[column - 1];
	*datum = (Datum) 0;
	if (!*isnull)
	{
		struct varlena *plain = PG_DETOAST_DATUM_PACKED(value);

		*datum = (Pointer) plain == DatumGetPointer(value) ?
			datumCopy(value, false, -1) : PointerGetDatum(plain);
		insert->bytes += VARSIZE_ANY(DatumGetPointer(*datum));
	}
	MemoryContextSwitchTo(old);
	return !*isnull;
}

static void
add_row(TopicInsert *insert, ResultRelInfo *result, TupleTableSlot *slot)
{
	int			i;

	slot_getallattrs(slot);
	if (!slot->tts_isnull[COLUMN_LOG_OFFSET - 1])
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("cannot insert a value into column \"log_offset\" of topic \"%s\"",
						RelationGetRelationName(result->ri_RelationDesc)),
				 errhint("Offsets are given by the topic; RETURNING log_offset tells which.")));
	make_room(insert);
	i = insert->count;
	insert->partitions[i] = -1;
	if (!slot->tts_isnull[COLUMN_PARTITION - 1])
	{
		insert->partitions[i] = topic_partition_get(topic_get(insert->topic),
													DatumGetInt32(slot->tts_values[COLUMN_PARTITION - 1]))->number;
		insert->has_partitions = true;
	}
	insert->timestamp_nulls[i] = slot->tts_isnull[COLUMN_TIMESTAMP - 1];
	insert->timestamps[i] = slot->tts_values[COLUMN_TIMESTAMP - 1];
	insert->has_timestamps |= !insert->timestamp_nulls[i];
	insert->has_keys |= keep(insert, slot, COLUMN_KEY, &insert->keys[i], &insert->key_nulls[i]);
	insert->has_headers |= keep(insert, slot, COLUMN_HEADERS, &insert->headers[i],
								&insert->header_nulls[i]);
	(void) keep(insert, slot, COLUMN_VALUE, &insert->values[i], &insert->value_nulls[i]);
	insert->count++;
}

/* Gathered rows [start, start + count). */
static MessageSet
message_set(TopicInsert *insert, int start, int count)
{
	MessageSet	messages = {0};

	messages.count = count;
	messages.kind = insert->kind;
	messages.values = insert->values + start;
	messages.value_nulls = insert->value_nulls + start;
	messages.keys = insert->has_keys ? insert->keys + start : NULL;
	messages.key_nulls = insert->key_nulls + start;
	messages.headers = insert->has_headers ? insert->headers + start : NULL;
	messages.header_nulls = insert->header_nulls + start;
	messages.partitions = insert->has_partitions ? insert->partitions + start : NULL;
	messages.offsets = insert->offsets + start;
	messages.timestamp = insert->timestamp;
	messages.timestamps = insert->has_timestamps ? insert->timestamps + start : NULL;
	return messages;
}

/* Produces the rows that have been gathered, and returns where the last one is. */
static ProducedRange
flush(TopicInsert *insert)
{
	MemoryContext old;
	Topic	   *topic;
	int			rest = insert->count - insert->reserved;
	ProducedRange *ranges;
	ProducedRange last = {0};
	bool		pushed = false;

	if (insert->count == 0)
		return last;
	old = MemoryContextSwitchTo(insert->context);
	/* the end of a portal has none, and what reads catalogs wants one */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	if (insert->mode == INSERT_GATHER)
		insert->timestamp = GetCurrentTimestamp();
	for (int i = 0; i < insert->count && insert->has_timestamps; i++)
	{
		if (insert->timestamp_nulls[i])
			insert->timestamps[i] = TimestampTzGetDatum(insert->timestamp);
	}
	if (insert->reserved > 0)
	{
		MessageSet	messages = message_set(insert, 0, insert->reserved);

		produce_reserved(topic_lock(insert->topic), &messages);
	}
	if (rest > 0)
	{
		MessageSet	messages = message_set(insert, insert->reserved, rest);
		int			count;

		messages.offsets = NULL;
		topic = topic_lock(insert->topic);
		ranges = palloc(Min(rest + 1, topic->partitions_count) * sizeof(ProducedRange));
		count = produce_messages(topic, &messages, -1, ranges);
		last = ranges[count - 1];
	}
	if (pushed)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);

	MemoryContextReset(insert->context);
	insert->count = insert->reserved = insert->room = 0;
	insert->bytes = 0;
	insert->has_keys = insert->has_headers = false;
	insert->has_timestamps = insert->has_partitions = false;
	return last;
}

/* The row as it is now in the topic. */
static TupleTableSlot *
produced_row(TupleTableSlot *slot, const ProducedRange *range, TimestampTz timestamp)
{
	HeapTuple	tuple;

	slot->tts_values[COLUMN_PARTITION - 1] = Int32GetDatum(range->partition);
	slot->tts_values[COLUMN_LOG_OFFSET - 1] = Int64GetDatum(range->first_offset);
	slot->tts_values[COLUMN_TIMESTAMP - 1] = TimestampTzGetDatum(timestamp);
	slot->tts_isnull[COLUMN_PARTITION - 1] = false;
	slot->tts_isnull[COLUMN_LOG_OFFSET - 1] = false;
	slot->tts_isnull[COLUMN_TIMESTAMP - 1] = false;
	tuple = heap_form_tuple(slot->tts_tupleDescriptor, slot->tts_values, slot->tts_isnull);
	ExecForceStoreHeapTuple(tuple, slot, true);
	return slot;
}

/* Gives the row that was gathered last its offset; false if it has to be produced at once. */
static bool
reserve_row(TopicInsert *insert, ProducedRange *range)
{
	int			i = insert->count - 1;
	MessageSet	messages;

	insert->has_partitions = true;
	messages = message_set(insert, 0, insert->count);
	if (insert->mode == INSERT_AT_ONCE ||
		!produce_reserve(topic_get(insert->topic), &messages, i))
		return false;
	range->partition = insert->partitions[i];
	range->first_offset = range->last_offset = insert->offsets[i];
	insert->reserved++;
	return true;
}

static bool
is_full(const TopicInsert *insert)
{
	return insert->count >= ROWS_MAX || insert->bytes >= BYTES_MAX;
}

static TupleTableSlot *
insert_row(EState *estate, ResultRelInfo *result, TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	TopicInsert *insert = result->ri_FdwState;
	ProducedRange range;
	TimestampTz now;
	TimestampTz timestamp;

	if (insert->mode == INSERT_BEGINS)
		insert->mode = insert_mode(estate, result, insert->plan);
	if (insert->mode == INSERT_GATHER)
	{
		add_row(insert, result, slot);
		if (is_full(insert))
			(void) flush(insert);
		return slot;
	}

	now = GetCurrentTimestamp();
	if (is_full(insert) ||
		(insert->count > 0 && TimestampDifferenceExceeds(insert->timestamp, now, RESERVED_MAX_MS)))
		(void) flush(insert);
	if (insert->count == 0)
		insert->timestamp = now;
	add_row(insert, result, slot);
	timestamp = slot->tts_isnull[COLUMN_TIMESTAMP - 1] ? insert->timestamp :
		DatumGetTimestampTz(slot->tts_values[COLUMN_TIMESTAMP - 1]);
	if (!reserve_row(insert, &range))
		range = flush(insert);
	return produced_row(slot, &range, timestamp);
}

static void
end(EState *estate, ResultRelInfo *result)
{
	TopicInsert *insert = result->ri_FdwState;

	if (insert == NULL)
		return;
	(void) flush(insert);
	MemoryContextDelete(insert->context);
	result->ri_FdwState = NULL;
}

/* The planner asks for what identifies a row that is to be changed: no row ever is. */
static void
refuse_change(PlannerInfo *root, Index index, RangeTblEntry *target, Relation relation)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 root->parse->commandType == CMD_DELETE ?
			 errmsg("cannot delete from topic \"%s\"", RelationGetRelationName(relation)) :
			 errmsg("cannot update topic \"%s\"", RelationGetRelationName(relation)),
			 errdetail("A log is only appended to."),
			 errhint("Use delete_messages() to delete all messages of a partition before an offset.")));
}

static void
refuse_truncate(List *relations, DropBehavior behavior, bool restart_sequences)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot truncate topic \"%s\"",
					RelationGetRelationName((Relation) linitial(relations))),
			 errdetail("A log is only appended to."),
			 errhint("Use delete_messages() to delete all messages of a partition before an offset.")));
}

static int
is_updatable(Relation relation)
{
	return 1 << CMD_INSERT;
}

void
fdw_modify_routine(FdwRoutine *routine)
{
	routine->PlanForeignModify = plan_modify;
	routine->BeginForeignModify = begin_modify;
	routine->BeginForeignInsert = begin_insert;
	routine->ExecForeignInsert = insert_row;
	routine->EndForeignModify = end;
	routine->EndForeignInsert = end;
	routine->AddForeignUpdateTargets = refuse_change;
	routine->ExecForeignTruncate = refuse_truncate;
	routine->IsForeignRelUpdatable = is_updatable;
}
