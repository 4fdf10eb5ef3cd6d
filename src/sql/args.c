/*-------------------------------------------------------------------------
 *
 * args.c
 *	  What the SQL-callable functions have in common.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "sql/args.h"

void
arg_not_null(FunctionCallInfo fcinfo, int arg, const char *name)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

int32
arg_topic(FunctionCallInfo fcinfo, int arg)
{
	arg_not_null(fcinfo, arg, "topic");
	return PG_GETARG_INT32(arg);
}

char *
arg_cstring(FunctionCallInfo fcinfo, int arg, const char *name)
{
	arg_not_null(fcinfo, arg, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

int32
arg_int32(FunctionCallInfo fcinfo, int arg, const char *name)
{
	arg_not_null(fcinfo, arg, name);
	return PG_GETARG_INT32(arg);
}

int64
arg_int64(FunctionCallInfo fcinfo, int arg, const char *name)
{
	arg_not_null(fcinfo, arg, name);
	return PG_GETARG_INT64(arg);
}

int64
arg_int64_new(FunctionCallInfo fcinfo, int arg, const char *name)
{
	return PG_NARGS() > arg ? arg_int64(fcinfo, arg, name) : 0;
}

int64
arg_max_messages(FunctionCallInfo fcinfo, int arg)
{
	int32		max = arg_int32(fcinfo, arg, "max_messages");

	if (max < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_messages must be at least 1, not %d", max)));
	return max;
}

Deadline
arg_max_wait(FunctionCallInfo fcinfo, int arg)
{
	arg_not_null(fcinfo, arg, "max_wait");
	return deadline_after(PG_GETARG_INTERVAL_P(arg));
}

Datum *
arg_array(FunctionCallInfo fcinfo, int arg, const char *name, int expected,
		  bool **nulls, int *count)
{
	ArrayType  *array;
	Datum	   *elements;
	Oid			type;
	int16		length;
	bool		by_value;
	char		align;

	*nulls = NULL;
	*count = 0;
	if (PG_ARGISNULL(arg))
		return NULL;
	array = PG_GETARG_ARRAYTYPE_P(arg);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be an array of one dimension, not %d",
						name, ARR_NDIM(array))));
	type = ARR_ELEMTYPE(array);
	if (type == TIMESTAMPTZOID)
	{
		length = sizeof(TimestampTz);
		by_value = FLOAT8PASSBYVAL;
		align = TYPALIGN_DOUBLE;
	}
	else
	{
		/* text, bytea and jsonb */
		length = -1;
		by_value = false;
		align = TYPALIGN_INT;
	}
	deconstruct_array(array, type, length, by_value, align, &elements, nulls, count);
	if (expected >= 0 && *count != expected)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must have as many elements as values, %d, not %d",
						name, expected, *count)));
	return elements;
}

const Producer *
arg_producer(FunctionCallInfo fcinfo, int arg, Producer *producer)
{
	if (PG_NARGS() <= arg || (PG_ARGISNULL(arg) && PG_ARGISNULL(arg + 1)))
		return NULL;
	if (PG_ARGISNULL(arg) || PG_ARGISNULL(arg + 1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("producer and sequence must be given together")));
	producer->name = text_to_cstring(PG_GETARG_TEXT_PP(arg));
	producer->sequence = PG_GETARG_INT64(arg + 1);
	producer_check(producer);
	return producer;
}

void
result_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

void
result_message(void *arg, int32 partition, const LogMessage *message)
{
	FunctionCallInfo fcinfo = arg;
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = Int32GetDatum(partition);
	values[1] = Int64GetDatum(message->offset);
	values[2] = TimestampTzGetDatum(message->timestamp);
	values[3] = message->key;
	values[4] = message->value;
	values[5] = message->headers;
	nulls[3] = message->key_null;
	nulls[4] = message->value_null;
	nulls[5] = message->headers_null;
	result_row(fcinfo, values, nulls);
}

void
result_reset(FunctionCallInfo fcinfo, const ResetOffset *result)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	values[0] = Int32GetDatum(result->partition);
	values[1] = Int64GetDatum(result->old_offset);
	values[2] = Int64GetDatum(result->new_offset);
	nulls[1] = !result->had_offset;
	result_row(fcinfo, values, nulls);
}
