/*-------------------------------------------------------------------------
 *
 * args.h
 *	  What the SQL-callable functions have in common: their arguments, and the
 *	  rows that they return.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_ARGS_H
#define PGTOPIC_ARGS_H

#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"

#include "log/consume.h"
#include "log/producers.h"
#include "log/waiting.h"
#include "storage/batches.h"

/* An error if the argument is NULL; name is that of the SQL function's. */
extern void arg_not_null(FunctionCallInfo fcinfo, int arg, const char *name);

/* Arguments of the named kinds; an error if they are NULL. */
extern int32 arg_topic(FunctionCallInfo fcinfo, int arg);
extern char *arg_cstring(FunctionCallInfo fcinfo, int arg, const char *name);
extern int32 arg_int32(FunctionCallInfo fcinfo, int arg, const char *name);
extern int64 arg_int64(FunctionCallInfo fcinfo, int arg, const char *name);

/* The same; 0 if the function has fewer: that of an extension which is not updated yet. */
extern int64 arg_int64_new(FunctionCallInfo fcinfo, int arg, const char *name);

/* max_messages and max_wait of the reading functions. */
extern int64 arg_max_messages(FunctionCallInfo fcinfo, int arg);
extern Deadline arg_max_wait(FunctionCallInfo fcinfo, int arg);

/*
 * Takes an array argument apart.  *nulls is NULL if no element is.  expected is
 * the number of elements that it must have, or -1.  NULL arrays yield NULL.
 */
extern Datum *arg_array(FunctionCallInfo fcinfo, int arg, const char *name, int expected,
						bool **nulls, int *count);

/*
 * The arguments producer and sequence, arg being the first of them: both or none,
 * which is NULL.  They are missing while the extension is of a version before 0.3.0.
 */
extern const Producer *arg_producer(FunctionCallInfo fcinfo, int arg, Producer *producer);

/* Adds a row to the set that InitMaterializedSRF() has begun. */
extern void result_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls);

/*
 * Adds a message as a row of type message or message_bytes.  text and bytea are the
 * same in memory; that text is valid is seen to when it is produced.  A MessageSink.
 */
extern void result_message(void *arg, int32 partition, const LogMessage *message);

/* Adds a row of reset_offsets(). */
extern void result_reset(FunctionCallInfo fcinfo, const ResetOffset *result);

#endif							/* PGTOPIC_ARGS_H */
