/*-------------------------------------------------------------------------
 *
 * args.c
 *	  What the SQL-callable functions have in common.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

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

void
result_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}
