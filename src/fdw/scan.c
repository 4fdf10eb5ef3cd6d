/*-------------------------------------------------------------------------
 *
 * scan.c
 *	  Running a query of a topic, and explaining it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/explain.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "base/compat.h"
#include "fdw/conditions.h"
#include "fdw/fdw.h"
#include "log/select.h"
#include "storage/relation.h"
#include "storage/segments.h"

typedef struct TopicScan
{
	int32		topic;
	ValueFormat format;
	List	   *conditions;		/* condition_to_ints() */
	List	   *flags;			/* enum PlanFlag */
	List	   *values;			/* ExprStates of the conditions' values */
	int			columns;
	int			partitions_count;	/* when the first scan began; 0 before that */
	MemoryContext context;		/* of one scan, emptied by a rescan */
	bool		begun;
	LogSelect	select;
	BatchScanCounts counts;
	int64		partitions_read;
} TopicScan;

static int
flag(const TopicScan *scan, enum PlanFlag which)
{
	return list_nth_int(scan->flags, which);
}

static void
begin_foreign_scan(ForeignScanState *node, int eflags)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	Topic	   *topic = topic_of_relation(RelationGetRelid(node->ss.ss_currentRelation), false);
	TopicScan  *scan = palloc0(sizeof(TopicScan));

	relation_check_columns(node->ss.ss_currentRelation, topic->format);
	scan->topic = topic->id;
	scan->format = topic->format;
	scan->conditions = linitial(plan->fdw_private);
	scan->flags = lsecond(plan->fdw_private);
	scan->columns = flag(scan, PLAN_COLUMNS);
	scan->values = ExecInitExprList(plan->fdw_exprs, &node->ss.ps);
	scan->context = AllocSetContextCreate(node->ss.ps.state->es_query_cxt, "pgtopic scan",
										  ALLOCSET_DEFAULT_SIZES);
	node->fdw_state = scan;
}

/* The columns of batches that are needed for those of the relation. */
static int
batch_columns(int columns)
{
	int			needed = 0;

	if (columns & (1 << COLUMN_TIMESTAMP))
		needed |= BATCH_BIT(BATCH_TIMESTAMPS);
	if (columns & (1 << COLUMN_KEY))
		needed |= BATCH_BIT(BATCH_KEYS);
	if (columns & (1 << COLUMN_VALUE))
		needed |= BATCH_BIT(BATCH_VALUES);
	if (columns & (1 << COLUMN_HEADERS))
		needed |= BATCH_BIT(BATCH_HEADERS);
	return needed;
}

/* Values are known now: says what is to be read, in scan->context. */
static void
begin_select(ForeignScanState *node)
{
	TopicScan  *scan = node->fdw_state;
	Topic	   *topic = topic_get(scan->topic);
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	MemoryContext old;
	Selection	selection;
	SelectQuery query;
	OffsetRange *ranges;
	ListCell   *cell;

	/* the snapshot sees nothing of partitions that are added while the query runs */
	if (scan->partitions_count == 0)
		scan->partitions_count = topic->partitions_count;
	/* somebody has added partitions since the statement was planned, this very moment */
	if (flag(scan, PLAN_ONE_PARTITION) && scan->partitions_count > 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("topic \"%s\" has got more partitions", topic->name),
				 errhint("Try again.")));

	old = MemoryContextSwitchTo(scan->context);
	selection_begin(&selection, scan->partitions_count);
	foreach(cell, scan->values)
	{
		Condition	condition;
		bool		isnull;
		Datum		value = ExecEvalExpr((ExprState *) lfirst(cell), econtext, &isnull);

		condition_from_ints(scan->conditions, foreach_current_index(cell), &condition);
		selection_cut(&selection, &condition, value, isnull);
	}
	query.topic = scan->topic;
	query.partitions = selection.partitions;
	query.partitions_count = selection.nothing ? 0 : selection.partitions_count;
	for (int i = 0; flag(scan, PLAN_PARTITIONS_DESCENDING) && i < query.partitions_count / 2; i++)
	{
		int32		swap = selection.partitions[i];

		selection.partitions[i] = selection.partitions[query.partitions_count - 1 - i];
		selection.partitions[query.partitions_count - 1 - i] = swap;
	}
	query.ranges_count = selection_ranges(&selection, &ranges);
	query.ranges = ranges;
	query.since = selection.since;
	query.backward = flag(scan, PLAN_BACKWARD);
	query.columns = batch_columns(scan->columns);
	log_select_begin(&scan->select, &query, node->ss.ps.state->es_snapshot,
					 &scan->counts, &scan->partitions_read);
	MemoryContextSwitchTo(old);
	scan->begun = true;
}

/* Where in the log a value is that cannot be shown. */
typedef struct MessagePlace
{
	int32		topic;
	int32		partition;
	int64		offset;
} MessagePlace;

static void
place_context(void *arg)
{
	MessagePlace *place = arg;

	errcontext("value of the message at offset " INT64_FORMAT " of partition %d of topic \"%s\"",
			   place->offset, place->partition, topic_name_by_id(place->topic));
}

/* JSON is stored as text. */
static Datum
json_value(int32 topic, int32 partition, const LogMessage *message)
{
	MessagePlace place = {topic, partition, message->offset};
	ErrorContextCallback callback;
	Datum		value;

	callback.callback = place_context;
	callback.arg = &place;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	value = DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(message->value)));
	error_context_stack = callback.previous;
	return value;
}

void
fdw_form_row(int32 topic, ValueFormat format, int32 partition, const LogMessage *message,
			 Datum *values, bool *nulls)
{
	values[COLUMN_PARTITION - 1] = Int32GetDatum(partition);
	values[COLUMN_LOG_OFFSET - 1] = Int64GetDatum(message->offset);
	values[COLUMN_TIMESTAMP - 1] = TimestampTzGetDatum(message->timestamp);
	values[COLUMN_KEY - 1] = message->key;
	values[COLUMN_VALUE - 1] = message->value;
	values[COLUMN_HEADERS - 1] = message->headers;
	nulls[COLUMN_PARTITION - 1] = false;
	nulls[COLUMN_LOG_OFFSET - 1] = false;
	nulls[COLUMN_TIMESTAMP - 1] = false;
	nulls[COLUMN_KEY - 1] = message->key_null;
	nulls[COLUMN_VALUE - 1] = message->value_null;
	nulls[COLUMN_HEADERS - 1] = message->headers_null;
	if (format == FORMAT_JSON && !message->value_null)
		values[COLUMN_VALUE - 1] = json_value(topic, partition, message);
}

static TupleTableSlot *
iterate(ForeignScanState *node)
{
	TopicScan  *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	const LogMessage *message;
	int32		partition;

	ExecClearTuple(slot);
	if (!scan->begun)
		begin_select(node);
	message = log_select_next(&scan->select, &partition);
	if (message == NULL)
		return slot;

	fdw_form_row(scan->topic, scan->format, partition, message, slot->tts_values, slot->tts_isnull);
	return ExecStoreVirtualTuple(slot);
}

static void
end_select(TopicScan *scan)
{
	if (scan->begun)
		log_select_end(&scan->select);
	scan->begun = false;
}

static void
rescan(ForeignScanState *node)
{
	TopicScan  *scan = node->fdw_state;

	end_select(scan);
	MemoryContextReset(scan->context);
}

static void
end_foreign_scan(ForeignScanState *node)
{
	if (node->fdw_state)
		end_select(node->fdw_state);
}

/* Segments of all partitions that this broker has. */
static int64
count_segments(Topic *topic)
{
	int64		count = 0;

	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition = &topic->partitions[p];

		if (!OidIsValid(partition->relation))
			continue;
		segments_load(partition);
		count += partition->segments_count;
	}
	return count;
}

static void
explain_read(const char *what, int64 read, int64 skipped, ExplainState *es)
{
	skipped = Max(skipped, 0);
	if (es->format == EXPLAIN_FORMAT_TEXT)
		ExplainPropertyText(what, psprintf("read=" INT64_FORMAT " skipped=" INT64_FORMAT,
										   read, skipped), es);
	else
	{
		ExplainPropertyInteger(psprintf("%s Read", what), NULL, read, es);
		ExplainPropertyInteger(psprintf("%s Skipped", what), NULL, skipped, es);
	}
}

static void
explain(ForeignScanState *node, ExplainState *es)
{
	ForeignScan *plan = (ForeignScan *) node->ss.ps.plan;
	TopicScan  *scan = node->fdw_state;
	Topic	   *topic = topic_get(scan->topic);

	if (plan->fdw_recheck_quals != NIL)
	{
		List	   *context = set_deparse_context_plan(es->deparse_cxt, &plan->scan.plan, NIL);

		ExplainPropertyText("Log Cond",
							deparse_expression((Node *) make_ands_explicit(plan->fdw_recheck_quals),
											   context, list_length(es->rtable) > 1 || es->verbose,
											   false),
							es);
	}
	if (flag(scan, PLAN_BACKWARD))
		ExplainPropertyText("Scan Direction", "Backward", es);
	if (flag(scan, PLAN_PARTITIONS_DESCENDING))
		ExplainPropertyText("Partition Order", "Descending", es);
	if (es->analyze)
	{
		explain_read("Partitions", scan->partitions_read,
					 topic->partitions_count - scan->partitions_read, es);
		explain_read("Segments", scan->counts.segments_read,
					 count_segments(topic) - scan->counts.segments_read, es);
		explain_read("Batches", scan->counts.batches_read, scan->counts.batches_skipped, es);
	}
}

void
fdw_scan_routine(FdwRoutine *routine)
{
	routine->BeginForeignScan = begin_foreign_scan;
	routine->IterateForeignScan = iterate;
	routine->ReScanForeignScan = rescan;
	routine->EndForeignScan = end_foreign_scan;
	routine->ExplainForeignScan = explain;
}
