/*-------------------------------------------------------------------------
 *
 * status_calls.c
 *	  What the status views are made of.
 *
 * Anybody can call these, if only through the views; so each looks itself
 * whether the caller may see the topic, and returns nothing if not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "shmem/databases.h"
#include "sql/args.h"
#include "storage/batches.h"
#include "storage/partition_state.h"
#include "storage/positions.h"
#include "storage/segments.h"

PG_FUNCTION_INFO_V1(pgtopic_can_use);
PG_FUNCTION_INFO_V1(pgtopic_partition_state);
PG_FUNCTION_INFO_V1(pgtopic_segments);
PG_FUNCTION_INFO_V1(pgtopic_segment_content);
PG_FUNCTION_INFO_V1(pgtopic_group_states);
PG_FUNCTION_INFO_V1(pgtopic_producer_states);
PG_FUNCTION_INFO_V1(pgtopic_worker_reports);

/* The topic, if it is there and the caller may see it; else NULL. */
static Topic *
visible_topic(int32 id)
{
	Topic	   *topic = topic_find_any(id);

	/* views go on showing the others when somebody has damaged one */
	if (topic == NULL || topic->damaged || !topic_can_see(topic))
		return NULL;
	return topic;
}

static LogPartition *
visible_partition(int32 id, int32 number)
{
	Topic	   *topic = visible_topic(id);

	if (topic == NULL || number < 0 || number >= topic->partitions_count)
		return NULL;
	return &topic->partitions[number];
}

Datum
pgtopic_can_use(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(visible_topic(PG_GETARG_INT32(0)) != NULL);
}

/* Returns one row, from a function with OUT parameters. */
static Datum
one_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * pgtopic.partition_state(topic_id, partition) → OUT log_start_offset,
 * OUT high_watermark, OUT log_end_offset, OUT blocking_pid, OUT blocking_since
 */
Datum
pgtopic_partition_state(PG_FUNCTION_ARGS)
{
	LogPartition *partition = visible_partition(PG_GETARG_INT32(0), PG_GETARG_INT32(1));
	PartitionRow row;
	SlotState	state;
	Datum		values[5];
	bool		nulls[5] = {false};

	/* another broker of the cluster knows, if this one has no replica */
	if (partition == NULL || !OidIsValid(partition->relation) || !partition_row_read(partition, &row))
		PG_RETURN_NULL();
	partition_state_settled(partition, &state);
	values[0] = Int64GetDatum(row.log_start);
	values[1] = Int64GetDatum(state.high_watermark);
	values[2] = Int64GetDatum(state.next_offset);
	values[3] = Int32GetDatum(state.blocking_pid);
	values[4] = TimestampTzGetDatum(state.blocking_since);
	nulls[3] = nulls[4] = state.blocking_pid == 0;
	PG_RETURN_DATUM(one_row(fcinfo, values, nulls));
}

/*
 * pgtopic.segments(topic_id, partition) → (segment, from_offset, to_offset)
 */
Datum
pgtopic_segments(PG_FUNCTION_ARGS)
{
	LogPartition *partition = visible_partition(PG_GETARG_INT32(0), PG_GETARG_INT32(1));

	InitMaterializedSRF(fcinfo, 0);
	if (partition == NULL)
		PG_RETURN_NULL();
	segments_load(partition);
	for (int i = 0; i < partition->segments_count; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false};

		values[0] = ObjectIdGetDatum(partition->segments[i].relid);
		values[1] = Int64GetDatum(partition->segments[i].from);
		values[2] = Int64GetDatum(partition->segments[i].to);
		result_row(fcinfo, values, nulls);
	}
	PG_RETURN_NULL();
}

/*
 * pgtopic.segment_content(topic_id, partition, segment) → OUT messages,
 * OUT max_timestamp
 */
Datum
pgtopic_segment_content(PG_FUNCTION_ARGS)
{
	LogPartition *partition = visible_partition(PG_GETARG_INT32(0), PG_GETARG_INT32(1));
	Oid			segment = PG_GETARG_OID(2);
	RecordBatch first;
	RecordBatch last;
	PartitionRow row;
	bool		known = false;
	Datum		values[2] = {Int64GetDatum(0), (Datum) 0};
	bool		nulls[2] = {false, true};

	if (partition == NULL)
		PG_RETURN_NULL();
	segments_load(partition);
	for (int i = 0; i < partition->segments_count; i++)
		known |= partition->segments[i].relid == segment;
	if (!known || !partition_row_read(partition, &row))
		PG_RETURN_NULL();

	PushActiveSnapshot(GetLatestSnapshot());
	if (segment_bounds(partition, segment, &first, &last) &&
		last.last_offset >= row.log_start)
	{
		values[0] = Int64GetDatum(last.last_offset + 1 - Max(first.base_offset, row.log_start));
		values[1] = TimestampTzGetDatum(last.timestamp);
		nulls[1] = false;
	}
	PopActiveSnapshot();
	PG_RETURN_DATUM(one_row(fcinfo, values, nulls));
}

/* Where a group is in one partition. */
typedef struct GroupPosition
{
	bool		known;
	int64		offset;
	TimestampTz committed_at;
} GroupPosition;

typedef struct GroupEntry
{
	char		name[GROUP_NAME_MAX + 1];	/* hash key, must be first */
	GroupPosition *positions;	/* one for each partition */
} GroupEntry;

typedef struct GroupCollection
{
	HTAB	   *groups;
	int			partitions_count;
} GroupCollection;

static void
collect_position(void *arg, int32 partition, Datum group, int64 offset, TimestampTz at)
{
	GroupCollection *collection = arg;
	char	   *name = TextDatumGetCString(group);
	GroupEntry *entry;
	bool		found;

	entry = hash_search(collection->groups, name, HASH_ENTER, &found);
	if (!found)
		entry->positions = palloc0(collection->partitions_count * sizeof(GroupPosition));
	entry->positions[partition].known = true;
	entry->positions[partition].offset = offset;
	entry->positions[partition].committed_at = at;
	pfree(name);
}

/*
 * pgtopic.group_states(topic_id) → (consumer_group, partition, committed_offset,
 * log_start_offset, log_end_offset, committed_at): each group of a topic, in
 * each of its partitions that this broker has a replica of.
 */
Datum
pgtopic_group_states(PG_FUNCTION_ARGS)
{
	Topic	   *topic = visible_topic(PG_GETARG_INT32(0));
	GroupCollection collection;
	HASHCTL		info;
	HASH_SEQ_STATUS status;
	GroupEntry *entry;
	int			partitions_count;
	int64	   *starts;
	int64	   *ends;

	InitMaterializedSRF(fcinfo, 0);
	if (topic == NULL || !topic_can_consume(topic))
		PG_RETURN_NULL();
	/* it may get more meanwhile */
	partitions_count = topic->partitions_count;

	info.keysize = sizeof(entry->name);
	info.entrysize = sizeof(GroupEntry);
	info.hcxt = CurrentMemoryContext;
	collection.groups = hash_create("pgtopic groups", 16, &info,
									HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	collection.partitions_count = partitions_count;
	starts = palloc(partitions_count * sizeof(int64));
	ends = palloc(partitions_count * sizeof(int64));
	for (int p = 0; p < partitions_count; p++)
	{
		SlotState	state;

		CHECK_FOR_INTERRUPTS();
		if (!OidIsValid(topic->partitions[p].positions))
			continue;
		partition_state(&topic->partitions[p], &state);
		starts[p] = partition_log_start(&topic->partitions[p]);
		ends[p] = state.next_offset;
		positions_each(&topic->partitions[p], collect_position, &collection);
	}

	hash_seq_init(&status, collection.groups);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		for (int p = 0; p < partitions_count; p++)
		{
			Datum		values[6];
			bool		nulls[6] = {false};

			if (!OidIsValid(topic->partitions[p].positions))
				continue;
			values[0] = CStringGetTextDatum(entry->name);
			values[1] = Int32GetDatum(p);
			values[2] = Int64GetDatum(entry->positions[p].offset);
			values[3] = Int64GetDatum(starts[p]);
			values[4] = Int64GetDatum(ends[p]);
			values[5] = TimestampTzGetDatum(entry->positions[p].committed_at);
			nulls[2] = nulls[5] = !entry->positions[p].known;
			result_row(fcinfo, values, nulls);
		}
	}
	hash_destroy(collection.groups);
	PG_RETURN_NULL();
}

typedef struct ProducerResult
{
	FunctionCallInfo fcinfo;
	int32		partition;
} ProducerResult;

static void
result_producer(void *arg, const char *producer, const Sequences *sequences, TimestampTz at)
{
	ProducerResult *result = arg;
	Datum		values[5];
	bool		nulls[5] = {false};

	values[0] = CStringGetTextDatum(producer);
	values[1] = Int32GetDatum(result->partition);
	values[2] = Int64GetDatum(sequences->next - 1);
	values[3] = Int64GetDatum(sequences_end_offset(sequences) - 1);
	values[4] = TimestampTzGetDatum(at);
	result_row(result->fcinfo, values, nulls);
}

/*
 * pgtopic.producer_states(topic_id) → (producer, partition, last_sequence,
 * last_offset, last_produced_at), in the partitions that this broker has a replica of.
 */
Datum
pgtopic_producer_states(PG_FUNCTION_ARGS)
{
	Topic	   *topic = visible_topic(PG_GETARG_INT32(0));

	InitMaterializedSRF(fcinfo, 0);
	for (int p = 0; topic != NULL && p < topic->partitions_count; p++)
	{
		ProducerResult result = {fcinfo, p};

		CHECK_FOR_INTERRUPTS();
		if (OidIsValid(topic->partitions[p].positions))
			producers_each(&topic->partitions[p], result_producer, &result);
	}
	PG_RETURN_NULL();
}

/*
 * pgtopic.worker_reports() → (worker, pid, state, doing, last_error,
 * last_error_at): the launcher and the worker of this database.
 */
Datum
pgtopic_worker_reports(PG_FUNCTION_ARGS)
{
	int			position = 0;
	WorkerReport report;

	extension_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	while (worker_reports_next(&position, &report))
	{
		Datum		values[6];
		bool		nulls[6] = {false};

		if (OidIsValid(report.database) && report.database != MyDatabaseId)
			continue;
		values[0] = CStringGetTextDatum(OidIsValid(report.database) ?
										worker_kind_name(report.kind) : "launcher");
		values[1] = Int32GetDatum(report.pid);
		nulls[1] = report.pid == 0;
		values[2] = CStringGetTextDatum(report.pid == 0 ? "stopped" :
										report.busy ? "running" : "waiting");
		values[3] = CStringGetTextDatum(report.doing);
		nulls[3] = report.doing[0] == '\0';
		values[4] = CStringGetTextDatum(report.last_error);
		nulls[4] = report.last_error_at == 0;
		values[5] = TimestampTzGetDatum(report.last_error_at);
		nulls[5] = report.last_error_at == 0;
		result_row(fcinfo, values, nulls);
	}
	PG_RETURN_NULL();
}
