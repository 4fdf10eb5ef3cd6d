/*-------------------------------------------------------------------------
 *
 * modify.c
 *	  INSERT and COPY FROM into a topic.
 *
 * Rows are gathered and produced many at a time, as produce_batch() does, so that they
 * share batches.  A row is produced at once where somebody looks at what has become of it:
 * RETURNING, AFTER triggers, WITH CHECK OPTION.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
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

typedef struct TopicInsert
{
	int32		topic;
	PayloadKind kind;
	MemoryContext context;		/* of what follows, emptied when it has been produced */
	int			count;
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
} TopicInsert;

static void
begin(ResultRelInfo *result)
{
	TopicInsert *insert = palloc0(sizeof(TopicInsert));
	Topic	   *topic;

	extension_require_writable("INSERT into a topic");
	topic = topic_of_relation(RelationGetRelid(result->ri_RelationDesc), true);
	relation_check_columns(result->ri_RelationDesc, topic->format);
	insert->topic = topic->id;
	insert->kind = topic->format == FORMAT_BYTES ? PAYLOAD_BYTES :
		topic->format == FORMAT_JSON ? PAYLOAD_JSONB : PAYLOAD_TEXT;
	insert->context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic insert",
											ALLOCSET_DEFAULT_SIZES);
	result->ri_FdwState = insert;
}

static void
begin_modify(ModifyTableState *node, ResultRelInfo *result, List *fdw_private,
			 int subplan, int eflags)
{
	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY))
		begin(result);
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
	begin(result);
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

/*
 * Produces the rows that have been gathered.  Where it is only one, says where it is, and its
 * time.
 */
static void
flush(TopicInsert *insert, ProducedRange *range, TimestampTz *timestamp)
{
	MemoryContext old;
	Topic	   *topic;
	MessageSet	messages;
	ProducedRange *ranges;
	bool		pushed = false;

	if (insert->count == 0)
		return;
	old = MemoryContextSwitchTo(insert->context);
	/* the end of a portal has none, and what reads catalogs wants one */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	topic = topic_lock(insert->topic);
	memset(&messages, 0, sizeof(messages));
	messages.count = insert->count;
	messages.kind = insert->kind;
	messages.values = insert->values;
	messages.value_nulls = insert->value_nulls;
	messages.keys = insert->has_keys ? insert->keys : NULL;
	messages.key_nulls = insert->key_nulls;
	messages.headers = insert->has_headers ? insert->headers : NULL;
	messages.header_nulls = insert->header_nulls;
	messages.partitions = insert->has_partitions ? insert->partitions : NULL;
	messages.timestamp = GetCurrentTimestamp();
	if (insert->has_timestamps)
	{
		messages.timestamps = insert->timestamps;
		for (int i = 0; i < insert->count; i++)
		{
			if (insert->timestamp_nulls[i])
				insert->timestamps[i] = TimestampTzGetDatum(messages.timestamp);
		}
	}
	if (timestamp != NULL)
		*timestamp = insert->has_timestamps ? DatumGetTimestampTz(insert->timestamps[0]) :
			messages.timestamp;
	ranges = palloc(Min(messages.count + 1, topic->partitions_count) * sizeof(ProducedRange));
	(void) produce_messages(topic, &messages, -1, ranges);
	if (range != NULL)
		*range = ranges[0];
	if (pushed)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);

	MemoryContextReset(insert->context);
	insert->count = insert->room = 0;
	insert->bytes = 0;
	insert->has_keys = insert->has_headers = false;
	insert->has_timestamps = insert->has_partitions = false;
}

/* Whether somebody looks at each row, or at the topic, before the statement has ended. */
static bool
is_watched(const ResultRelInfo *result)
{
	const TriggerDesc *triggers = result->ri_TrigDesc;

	return result->ri_projectReturning != NULL || result->ri_WithCheckOptions != NIL ||
		(triggers != NULL && (triggers->trig_insert_after_row ||
							  triggers->trig_insert_after_statement));
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

static TupleTableSlot *
insert_row(EState *estate, ResultRelInfo *result, TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	TopicInsert *insert = result->ri_FdwState;
	ProducedRange range;
	TimestampTz timestamp;

	add_row(insert, result, slot);
	if (is_watched(result))
	{
		flush(insert, &range, &timestamp);
		return produced_row(slot, &range, timestamp);
	}
	if (insert->count >= ROWS_MAX || insert->bytes >= BYTES_MAX)
		flush(insert, NULL, NULL);
	return slot;
}

static void
end(EState *estate, ResultRelInfo *result)
{
	TopicInsert *insert = result->ri_FdwState;

	if (insert == NULL)
		return;
	flush(insert, NULL, NULL);
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
