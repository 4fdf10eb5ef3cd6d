/*-------------------------------------------------------------------------
 *
 * produce_calls.c
 *	  produce() and produce_batch(), and where keys go.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/murmur2.h"
#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "log/produce.h"
#include "sql/args.h"

PG_FUNCTION_INFO_V1(pgtopic_produce_text);
PG_FUNCTION_INFO_V1(pgtopic_produce_bytea);
PG_FUNCTION_INFO_V1(pgtopic_produce_jsonb);
PG_FUNCTION_INFO_V1(pgtopic_produce_batch_text);
PG_FUNCTION_INFO_V1(pgtopic_produce_batch_bytea);
PG_FUNCTION_INFO_V1(pgtopic_produce_batch_jsonb);
PG_FUNCTION_INFO_V1(pgtopic_partition_for_key);

/* -1, so that one is chosen, if the argument is NULL. */
static int32
arg_partition(FunctionCallInfo fcinfo, int arg, Topic *topic)
{
	if (PG_ARGISNULL(arg))
		return -1;
	return topic_partition_get(topic, PG_GETARG_INT32(arg))->number;
}

/*
 * The row type of produce(): (partition int, log_offset bigint).  Made once a
 * session: get_call_result_type() would take a tenth of the time of a call.
 */
static TupleDesc
produce_result_desc(void)
{
	static TupleDesc desc = NULL;

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc	made = CreateTemplateTupleDesc(2);

		TupleDescInitEntry(made, 1, "partition", INT4OID, -1, 0);
		TupleDescInitEntry(made, 2, "log_offset", INT8OID, -1, 0);
		desc = BlessTupleDesc(made);
		MemoryContextSwitchTo(old);
	}
	return desc;
}

/*
 * produce(topic, value, key, headers, partition, timestamp, producer, sequence)
 *	  OUT partition, log_offset
 */
static Datum
produce_one(FunctionCallInfo fcinfo, PayloadKind kind)
{
	Topic	   *topic;
	int32		partition;
	MessageSet	messages;
	Producer	producer;
	Datum		payloads[3];
	bool		nulls[3];
	ProducedRange range;
	Datum		values[2];
	bool		result_nulls[2] = {false, false};

	extension_require_writable("produce()");
	topic = topic_get(arg_topic(fcinfo, 0));
	topic_check_produce(topic);
	topic = topic_lock(topic->id);
	partition = arg_partition(fcinfo, 4, topic);
	for (int i = 0; i < 3; i++)
	{
		nulls[i] = PG_ARGISNULL(i + 1);
		payloads[i] = nulls[i] ? (Datum) 0 :
			PointerGetDatum(PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(i + 1)));
	}

	memset(&messages, 0, sizeof(messages));
	messages.count = 1;
	messages.kind = kind;
	messages.values = &payloads[0];
	messages.value_nulls = &nulls[0];
	messages.keys = nulls[1] ? NULL : &payloads[1];
	messages.key_nulls = &nulls[1];
	messages.headers = nulls[2] ? NULL : &payloads[2];
	messages.header_nulls = &nulls[2];
	messages.timestamp = PG_ARGISNULL(5) ? GetCurrentTimestamp() : PG_GETARG_TIMESTAMPTZ(5);
	messages.producer = arg_producer(fcinfo, 6, &producer);

	(void) produce_messages(topic, &messages, partition, &range);

	values[0] = Int32GetDatum(range.partition);
	values[1] = Int64GetDatum(range.first_offset);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(produce_result_desc(), values, result_nulls)));
}

Datum
pgtopic_produce_text(PG_FUNCTION_ARGS)
{
	return produce_one(fcinfo, PAYLOAD_TEXT);
}

Datum
pgtopic_produce_bytea(PG_FUNCTION_ARGS)
{
	return produce_one(fcinfo, PAYLOAD_BYTES);
}

Datum
pgtopic_produce_jsonb(PG_FUNCTION_ARGS)
{
	return produce_one(fcinfo, PAYLOAD_JSONB);
}

/*
 * produce_batch(topic, values, keys, headers, partition, timestamps, producer, sequence)
 *	  SETOF (partition, first_offset, last_offset)
 */
static Datum
produce_many(FunctionCallInfo fcinfo, PayloadKind kind)
{
	Topic	   *topic;
	int32		partition;
	MessageSet	messages;
	Producer	producer;
	ProducedRange *ranges;
	bool	   *timestamp_nulls;
	int			count;

	extension_require_writable("produce_batch()");
	topic = topic_get(arg_topic(fcinfo, 0));
	topic_check_produce(topic);
	topic = topic_lock(topic->id);
	partition = arg_partition(fcinfo, 4, topic);
	memset(&messages, 0, sizeof(messages));
	arg_not_null(fcinfo, 1, "values");
	messages.kind = kind;
	messages.values = arg_array(fcinfo, 1, "values", -1,
								&messages.value_nulls, &messages.count);
	messages.keys = arg_array(fcinfo, 2, "keys", messages.count, &messages.key_nulls, &count);
	messages.headers = arg_array(fcinfo, 3, "headers", messages.count,
								 &messages.header_nulls, &count);
	messages.timestamp = GetCurrentTimestamp();
	messages.timestamps = arg_array(fcinfo, 5, "timestamps", messages.count,
									&timestamp_nulls, &count);
	messages.producer = arg_producer(fcinfo, 6, &producer);
	for (int i = 0; messages.timestamps && i < messages.count; i++)
	{
		if (timestamp_nulls[i])
			messages.timestamps[i] = TimestampTzGetDatum(messages.timestamp);
	}

	InitMaterializedSRF(fcinfo, 0);
	ranges = palloc(Min(messages.count + 1, topic->partitions_count) * sizeof(ProducedRange));
	count = produce_messages(topic, &messages, partition, ranges);
	for (int i = 0; i < count; i++)
	{
		Datum		values[3];
		bool		nulls[3] = {false, false, false};

		values[0] = Int32GetDatum(ranges[i].partition);
		values[1] = Int64GetDatum(ranges[i].first_offset);
		values[2] = Int64GetDatum(ranges[i].last_offset);
		result_row(fcinfo, values, nulls);
	}
	PG_RETURN_NULL();
}

Datum
pgtopic_produce_batch_text(PG_FUNCTION_ARGS)
{
	return produce_many(fcinfo, PAYLOAD_TEXT);
}

Datum
pgtopic_produce_batch_bytea(PG_FUNCTION_ARGS)
{
	return produce_many(fcinfo, PAYLOAD_BYTES);
}

Datum
pgtopic_produce_batch_jsonb(PG_FUNCTION_ARGS)
{
	return produce_many(fcinfo, PAYLOAD_JSONB);
}

/* partition_for_key(topic, key): text, or bytea, which are the same in memory. */
Datum
pgtopic_partition_for_key(PG_FUNCTION_ARGS)
{
	Topic	   *topic = topic_get(arg_topic(fcinfo, 0));
	struct varlena *key;

	topic_check_see(topic);
	arg_not_null(fcinfo, 1, "key");
	key = PG_DETOAST_DATUM_PACKED(PG_GETARG_DATUM(1));
	PG_RETURN_INT32(murmur2_partition(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key),
									  topic->partitions_count));
}
