/*-------------------------------------------------------------------------
 *
 * read_calls.c
 *	  fetch_messages(), consume(), wait_for_messages() and offsets_at().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "log/consume.h"
#include "log/read.h"
#include "sql/args.h"

PG_FUNCTION_INFO_V1(pgtopic_fetch_messages);
PG_FUNCTION_INFO_V1(pgtopic_fetch_messages_bytes);
PG_FUNCTION_INFO_V1(pgtopic_consume);
PG_FUNCTION_INFO_V1(pgtopic_consume_bytes);
PG_FUNCTION_INFO_V1(pgtopic_wait_for_messages);
PG_FUNCTION_INFO_V1(pgtopic_offsets_at);

static void
check_readable_as_text(int32 topic_id, const char *instead)
{
	Topic	   *topic = topic_get(topic_id);

	topic_check_consume(topic);
	if (topic->format == FORMAT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("messages of topic \"%s\" are bytes", topic->name),
				 errhint("Use %s().", instead)));
}

/* fetch_messages(topic, partition, from_offset, max_messages, max_wait) */
static Datum
fetch(FunctionCallInfo fcinfo, bool text)
{
	int32		topic = arg_topic(fcinfo, 0);
	int32		partition = arg_int32(fcinfo, 1, "partition");
	int64		from = arg_int64(fcinfo, 2, "from_offset");
	int64		max = arg_max_messages(fcinfo, 3);
	Deadline	deadline = arg_max_wait(fcinfo, 4);

	if (text)
		check_readable_as_text(topic, "fetch_messages_bytes");
	InitMaterializedSRF(fcinfo, 0);
	(void) log_fetch(topic, partition, from, max, deadline, result_message, fcinfo);
	PG_RETURN_NULL();
}

Datum
pgtopic_fetch_messages(PG_FUNCTION_ARGS)
{
	return fetch(fcinfo, true);
}

Datum
pgtopic_fetch_messages_bytes(PG_FUNCTION_ARGS)
{
	return fetch(fcinfo, false);
}

/* consume(topic, consumer_group, max_messages, max_wait) */
static Datum
consume(FunctionCallInfo fcinfo, bool text)
{
	int32		topic = arg_topic(fcinfo, 0);
	char	   *group = arg_cstring(fcinfo, 1, "consumer_group");
	int64		max = arg_max_messages(fcinfo, 2);
	Deadline	deadline = arg_max_wait(fcinfo, 3);

	extension_require_writable(text ? "consume()" : "consume_bytes()");
	if (text)
		check_readable_as_text(topic, "consume_bytes");
	InitMaterializedSRF(fcinfo, 0);
	(void) log_consume(topic, group, max, deadline, result_message, fcinfo);
	PG_RETURN_NULL();
}

Datum
pgtopic_consume(PG_FUNCTION_ARGS)
{
	return consume(fcinfo, true);
}

Datum
pgtopic_consume_bytes(PG_FUNCTION_ARGS)
{
	return consume(fcinfo, false);
}

/*
 * wait_for_messages(topic, consumer_group, max_wait)
 *
 * Each look is a transaction of its own; between two of them, while it sleeps,
 * the session has a transaction without snapshot and without locks.
 */
Datum
pgtopic_wait_for_messages(PG_FUNCTION_ARGS)
{
	CallContext *context = (CallContext *) fcinfo->context;
	int32		topic = arg_topic(fcinfo, 0);
	char	   *group = arg_cstring(fcinfo, 1, "consumer_group");
	Deadline	deadline = arg_max_wait(fcinfo, 2);
	GroupWatch	watch;
	MemoryContext look;
	bool		ready;

	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("wait_for_messages() cannot be called inside a transaction block or a function"),
				 errhint("Inside a transaction, use the argument max_wait of consume().")));
	extension_require_preload();
	PreventCommandDuringRecovery("wait_for_messages()");
	group_check_name(group);
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	/* in the memory of the procedure, which outlives its transactions */
	group = pstrdup(group);
	watch_begin(&watch, topic, group, deadline);
	look = AllocSetContextCreate(CurrentMemoryContext, "pgtopic look",
								 ALLOCSET_DEFAULT_SIZES);
	do
	{
		MemoryContext old = MemoryContextSwitchTo(look);

		ready = watch_look(&watch);
		MemoryContextSwitchTo(old);
		MemoryContextReset(look);
		if (ready || deadline.none)
			break;
		/* ends the transaction, and with it snapshots and locks */
		SPI_commit();
	} while (watch_sleep(&watch));
	watch_end(&watch, ready);
	SPI_finish();
	PG_RETURN_VOID();
}

/* offsets_at(topic, timestamp) */
Datum
pgtopic_offsets_at(PG_FUNCTION_ARGS)
{
	Topic	   *topic = topic_get(arg_topic(fcinfo, 0));
	TimestampTz timestamp;
	int64	   *offsets;
	int			count;

	arg_not_null(fcinfo, 1, "timestamp");
	timestamp = PG_GETARG_TIMESTAMPTZ(1);
	topic_check_consume(topic);
	InitMaterializedSRF(fcinfo, 0);
	count = topic->partitions_count;
	offsets = palloc(count * sizeof(int64));
	log_offsets_at(topic->id, timestamp, offsets, count);
	for (int p = 0; p < count; p++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};

		values[0] = Int32GetDatum(p);
		values[1] = Int64GetDatum(offsets[p]);
		result_row(fcinfo, values, nulls);
	}
	PG_RETURN_NULL();
}
