/*-------------------------------------------------------------------------
 *
 * peer_calls.c
 *	  What other brokers of the cluster call: pgtopic.peer_...().
 *
 * They run as the extension's owner.  The calling broker has checked the rights of
 * its user; here everything else is checked again.  A broker that does not lead a
 * partition, or does not know it yet, says so (57P03), and never asks another
 * one.  Topics are given by their ids, which are the same everywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/topics.h"
#include "log/consume.h"
#include "log/forward.h"
#include "log/produce.h"
#include "log/read.h"
#include "log/select.h"
#include "log/topic_ddl.h"
#include "sql/args.h"

PG_FUNCTION_INFO_V1(pgtopic_peer_produce);
PG_FUNCTION_INFO_V1(pgtopic_peer_consume);
PG_FUNCTION_INFO_V1(pgtopic_peer_fetch);
PG_FUNCTION_INFO_V1(pgtopic_peer_select);
PG_FUNCTION_INFO_V1(pgtopic_peer_wait);
PG_FUNCTION_INFO_V1(pgtopic_peer_offsets_at);
PG_FUNCTION_INFO_V1(pgtopic_peer_create_consumer_group);
PG_FUNCTION_INFO_V1(pgtopic_peer_commit_offset);
PG_FUNCTION_INFO_V1(pgtopic_peer_reset_offsets);
PG_FUNCTION_INFO_V1(pgtopic_peer_drop_consumer_group);
PG_FUNCTION_INFO_V1(pgtopic_peer_delete_messages);

/* How long to wait, at a time, in a topic that has not come yet. */
#define UNKNOWN_TOPIC_MS	100

/* The topic; what the calling broker knows and we do not will come. */
static Topic *
peer_topic(FunctionCallInfo fcinfo)
{
	int32		id = arg_topic(fcinfo, 0);
	Topic	   *topic = topic_find(id);

	if (topic == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_LEADER),
				 errmsg("broker %d has no topic with id %d", cluster_self(), id)));
	return topic;
}

static LogPartition *
led_partition(Topic *topic, int32 number, bool writing)
{
	LogPartition *partition;

	if (number >= topic->partitions_count)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_LEADER),
				 errmsg("topic \"%s\" has no partition %d at broker %d",
						topic->name, number, cluster_self())));
	partition = topic_partition_get(topic, number);
	if ((writing ? !partition_is_ready_here(partition) : !partition_is_led_here(partition)) ||
		partition_is_stale_here(partition))
		error_not_leader(partition);
	return partition;
}

/* The argument partitions, all of which are led here. */
static int32 *
arg_partitions(FunctionCallInfo fcinfo, Topic *topic, bool writing, int *count)
{
	Datum	   *elements;
	bool	   *nulls;
	int32	   *partitions;

	arg_not_null(fcinfo, 1, "partitions");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &elements, &nulls, count);
	partitions = palloc(*count * sizeof(int32));
	for (int i = 0; i < *count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("partitions must not contain nulls")));
		partitions[i] = led_partition(topic, DatumGetInt32(elements[i]), writing)->number;
	}
	return partitions;
}

static TimestampTz
arg_timestamp(FunctionCallInfo fcinfo, int arg)
{
	arg_not_null(fcinfo, arg, "timestamp");
	return PG_GETARG_TIMESTAMPTZ(arg);
}

/* The arguments of which seek_params() has made three. */
static Seek
arg_peer_seek(FunctionCallInfo fcinfo, int arg)
{
	Seek		seek;
	int32		kind = arg_int32(fcinfo, arg, "seek_kind");

	if (kind < SEEK_EARLIEST || kind > SEEK_OTHER)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid kind of a position: %d", kind)));
	seek.kind = (SeekKind) kind;
	seek.number = arg_int64(fcinfo, arg + 1, "seek_number");
	return seek;
}

static char *
arg_group(FunctionCallInfo fcinfo, int arg)
{
	char	   *group = arg_cstring(fcinfo, arg, "consumer_group");

	group_check_name(group);
	return group;
}

/* peer_produce(topic, partition, values, keys, headers, timestamps, timestamp, producer, sequence) */
Datum
pgtopic_peer_produce(PG_FUNCTION_ARGS)
{
	Topic	   *topic;
	LogPartition *partition;
	MessageSet	messages;
	Producer	producer;
	ProducedRange range;
	bool	   *timestamp_nulls;
	int			count;

	extension_require_writable("produce()");
	topic = topic_lock(peer_topic(fcinfo)->id);
	partition = led_partition(topic, arg_int32(fcinfo, 1, "partition"), true);
	arg_not_null(fcinfo, 2, "values");
	memset(&messages, 0, sizeof(messages));
	/* whatever it was, it is checked as bytes are */
	messages.kind = PAYLOAD_BYTES;
	messages.values = arg_array(fcinfo, 2, "values", -1, &messages.value_nulls, &messages.count);
	messages.keys = arg_array(fcinfo, 3, "keys", messages.count, &messages.key_nulls, &count);
	messages.headers = arg_array(fcinfo, 4, "headers", messages.count, &messages.header_nulls, &count);
	messages.timestamps = arg_array(fcinfo, 5, "timestamps", messages.count, &timestamp_nulls, &count);
	messages.timestamp = arg_timestamp(fcinfo, 6);
	messages.producer = arg_producer(fcinfo, 7, &producer);
	for (int i = 0; i < messages.count; i++)
	{
		if (messages.timestamps && timestamp_nulls[i])
			messages.timestamps[i] = TimestampTzGetDatum(messages.timestamp);
	}
	if (messages.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there are no messages")));
	(void) produce_messages(topic, &messages, partition->number, &range);
	PG_RETURN_INT64(range.first_offset);
}

/* peer_consume(topic, consumer_group, max_messages, last) */
Datum
pgtopic_peer_consume(PG_FUNCTION_ARGS)
{
	Topic	   *topic = topic_find(arg_topic(fcinfo, 0));
	char	   *group = arg_group(fcinfo, 1);
	int64		max = arg_int64(fcinfo, 2, "max_messages");
	bool		moved;

	arg_not_null(fcinfo, 3, "last");
	extension_require_writable("consume()");
	InitMaterializedSRF(fcinfo, 0);
	/* what is not known here yet has no messages yet */
	if (topic == NULL)
		PG_RETURN_NULL();
	if (log_consume_here(topic->id, group, max, PG_GETARG_BOOL(3), result_message, fcinfo,
						 &moved) == 0 && moved)
	{
		Datum		values[6] = {0};
		bool		nulls[6] = {true, true, true, true, true, true};

		result_row(fcinfo, values, nulls);
	}
	PG_RETURN_NULL();
}

/* peer_fetch(topic, partition, from_offset, max_messages, milliseconds) */
Datum
pgtopic_peer_fetch(PG_FUNCTION_ARGS)
{
	Topic	   *topic = peer_topic(fcinfo);
	LogPartition *partition = led_partition(topic, arg_int32(fcinfo, 1, "partition"), false);

	InitMaterializedSRF(fcinfo, 0);
	(void) log_fetch_here(topic->id, partition->number,
						  arg_int64(fcinfo, 2, "from_offset"),
						  arg_int64(fcinfo, 3, "max_messages"),
						  deadline_for_peer(arg_int32(fcinfo, 4, "milliseconds")),
						  result_message, fcinfo);
	PG_RETURN_NULL();
}

/* peer_select(topic, partition, from_offset, to_offset, since, backward, max_messages) */
Datum
pgtopic_peer_select(PG_FUNCTION_ARGS)
{
	Topic	   *topic = peer_topic(fcinfo);
	LogPartition *partition = led_partition(topic, arg_int32(fcinfo, 1, "partition"), false);
	OffsetRange range;

	arg_not_null(fcinfo, 5, "backward");
	range.from = arg_int64(fcinfo, 2, "from_offset");
	range.to = arg_int64(fcinfo, 3, "to_offset");
	InitMaterializedSRF(fcinfo, 0);
	log_select_here(partition, range, arg_timestamp(fcinfo, 4), PG_GETARG_BOOL(5),
					arg_int64(fcinfo, 6, "max_messages"), result_message, fcinfo);
	PG_RETURN_NULL();
}

/* peer_wait(topic, consumer_group, milliseconds) */
Datum
pgtopic_peer_wait(PG_FUNCTION_ARGS)
{
	Topic	   *topic = topic_find(arg_topic(fcinfo, 0));
	char	   *group = arg_group(fcinfo, 1);
	int32		milliseconds = arg_int32(fcinfo, 2, "milliseconds");

	if (topic == NULL)
	{
		/* it will be told of the topic in a moment */
		pause_milliseconds(Min(milliseconds, UNKNOWN_TOPIC_MS));
		PG_RETURN_BOOL(false);
	}
	PG_RETURN_BOOL(log_wait_here(topic->id, group, deadline_for_peer(milliseconds)));
}

/* peer_offsets_at(topic, partitions, timestamp) */
Datum
pgtopic_peer_offsets_at(PG_FUNCTION_ARGS)
{
	Topic	   *topic = peer_topic(fcinfo);
	int			count;
	int32	   *partitions = arg_partitions(fcinfo, topic, false, &count);
	TimestampTz timestamp = arg_timestamp(fcinfo, 2);

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < count; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};

		values[0] = Int32GetDatum(partitions[i]);
		values[1] = Int64GetDatum(log_offset_at(&topic->partitions[partitions[i]], timestamp));
		result_row(fcinfo, values, nulls);
	}
	PG_RETURN_NULL();
}

/* peer_create_consumer_group(topic, partitions, consumer_group, seek_kind, seek_number, timestamp) */
Datum
pgtopic_peer_create_consumer_group(PG_FUNCTION_ARGS)
{
	Topic	   *topic = peer_topic(fcinfo);
	int			count;
	int32	   *partitions = arg_partitions(fcinfo, topic, true, &count);

	extension_require_writable("create_consumer_group()");
	group_create_here(topic, partitions, count, arg_group(fcinfo, 2),
					  arg_peer_seek(fcinfo, 3), arg_timestamp(fcinfo, 5));
	PG_RETURN_VOID();
}

/* peer_commit_offset(topic, partition, consumer_group, log_offset) */
Datum
pgtopic_peer_commit_offset(PG_FUNCTION_ARGS)
{
	LogPartition *partition = led_partition(peer_topic(fcinfo),
											arg_int32(fcinfo, 1, "partition"), true);

	extension_require_writable("commit_offset()");
	group_commit_here(partition, arg_group(fcinfo, 2), arg_int64(fcinfo, 3, "log_offset"));
	PG_RETURN_VOID();
}

/* peer_reset_offsets(topic, partitions, consumer_group, seek_kind, seek_number, timestamp, dry_run) */
Datum
pgtopic_peer_reset_offsets(PG_FUNCTION_ARGS)
{
	Topic	   *topic = peer_topic(fcinfo);
	int			count;
	int32	   *partitions = arg_partitions(fcinfo, topic, true, &count);
	ResetOffset *results = palloc(topic->partitions_count * sizeof(ResetOffset));

	extension_require_writable("reset_offsets()");
	arg_not_null(fcinfo, 6, "dry_run");
	InitMaterializedSRF(fcinfo, 0);
	(void) group_reset_here(topic, partitions, count, arg_group(fcinfo, 2),
							arg_peer_seek(fcinfo, 3), arg_timestamp(fcinfo, 5),
							PG_GETARG_BOOL(6), results);
	for (int i = 0; i < count; i++)
		result_reset(fcinfo, &results[partitions[i]]);
	PG_RETURN_NULL();
}

/* peer_drop_consumer_group(topic, partitions, consumer_group) */
Datum
pgtopic_peer_drop_consumer_group(PG_FUNCTION_ARGS)
{
	Topic	   *topic = peer_topic(fcinfo);
	int			count;
	int32	   *partitions = arg_partitions(fcinfo, topic, true, &count);

	extension_require_writable("drop_consumer_group()");
	PG_RETURN_BOOL(group_drop_here(topic, partitions, count,
								   arg_cstring(fcinfo, 2, "consumer_group")));
}

/* peer_delete_messages(topic, partition, before_offset) */
Datum
pgtopic_peer_delete_messages(PG_FUNCTION_ARGS)
{
	Topic	   *topic = peer_topic(fcinfo);
	LogPartition *partition = led_partition(topic, arg_int32(fcinfo, 1, "partition"), true);

	extension_require_writable("delete_messages()");
	PG_RETURN_INT64(topic_delete_messages_here(topic->id, partition->number,
											   arg_int64(fcinfo, 2, "before_offset")));
}
