/*-------------------------------------------------------------------------
 *
 * messages.c
 *	  The messages of a call, and what they must be.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/json_depth.h"
#include "log/messages.h"

/*
 * So deep must JSON be nested at most that readers can parse it, however deep in their
 * stack they are: far less than max_stack_depth allows for, far more than anybody needs.
 * Less than the bytes that follow cannot be nested deeper.
 */
#define JSON_MAX_DEPTH	1000
#define JSON_DEEP_TEXT	(2 * JSON_MAX_DEPTH)
#define JSON_DEEP_JSONB	(2 * sizeof(uint32) * JSON_MAX_DEPTH)

/* What the error context says while payloads are checked. */
typedef struct CheckContext
{
	const char *topic;
	const char *format;
	const char *part;			/* "key" or "value" */
	int			message;		/* counted from 1 */
	int			count;
} CheckContext;

static void
check_context_callback(void *arg)
{
	CheckContext *context = arg;

	if (context->count == 1)
		errcontext("%s of a message for topic \"%s\" with value format %s",
				   context->part, context->topic, context->format);
	else
		errcontext("%s of message %d of %d for topic \"%s\" with value format %s",
				   context->part, context->message, context->count,
				   context->topic, context->format);
}

static void
check_encoding(Datum payload)
{
	(void) pg_verify_mbstr(GetDatabaseEncoding(), VARDATA_ANY(DatumGetPointer(payload)),
						   VARSIZE_ANY_EXHDR(DatumGetPointer(payload)), false);
}

/*
 * Whoever reads JSON parses it, if only on its way from another broker, with the stack
 * that is left there.
 */
static void
check_depth(const Topic *topic, const char *where, const char *hint,
			const char *json, size_t length)
{
	int			depth;

	if (length < JSON_DEEP_TEXT)
		return;
	depth = json_depth(json, length);
	if (depth > JSON_MAX_DEPTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("JSON of %d levels is nested too deeply for topic \"%s\"",
						depth, topic->name),
				 errdetail("Arrays and objects in %s may be nested %d levels deep.",
						   where, JSON_MAX_DEPTH),
				 errhint("%s", hint)));
}

/*
 * What type jsonb can show is JSON; jsonb_in() raises the error.  Type json takes more,
 * such as "\u0000", and the topic's relation could not show that.
 */
static void
check_json(Datum payload)
{
	char	   *json = TextDatumGetCString(payload);

	pfree(DatumGetPointer(DirectFunctionCall1(jsonb_in, CStringGetDatum(json))));
	pfree(json);
}

/* jsonb is stored as its text, in any topic. */
static void
jsonb_to_text(MessageSet *messages)
{
	Datum	   *values = palloc(messages->count * sizeof(Datum));

	for (int i = 0; i < messages->count; i++)
	{
		Jsonb	   *jsonb;
		char	   *json;

		if (i % 1024 == 0)
			CHECK_FOR_INTERRUPTS();
		if (messages->value_nulls[i])
			continue;
		jsonb = DatumGetJsonbP(messages->values[i]);
		json = JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb));
		values[i] = CStringGetTextDatum(json);
		pfree(json);
	}
	messages->values = values;
}

/*
 * A topic of format text or json holds nothing that its readers could not be
 * shown as text, and one of format json nothing but JSON.
 */
static void
check_formats(const Topic *topic, MessageSet *messages)
{
	static const char *const format_names[] = {"text", "json", "bytes"};
	ErrorContextCallback callback;
	CheckContext context;

	if (messages->kind == PAYLOAD_JSONB)
		jsonb_to_text(messages);
	if (topic->format == FORMAT_BYTES ||
		(topic->format == FORMAT_TEXT && messages->kind != PAYLOAD_BYTES))
		return;

	context.topic = topic->name;
	context.format = format_names[topic->format];
	context.count = messages->count;
	callback.callback = check_context_callback;
	callback.arg = &context;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	for (int i = 0; i < messages->count; i++)
	{
		context.message = i + 1;
		if (messages->kind == PAYLOAD_BYTES)
		{
			context.part = "key";
			if (messages->keys && !messages->key_nulls[i])
				check_encoding(messages->keys[i]);
			context.part = "value";
			if (!messages->value_nulls[i])
				check_encoding(messages->values[i]);
		}
		context.part = "value";
		if (topic->format == FORMAT_JSON && !messages->value_nulls[i])
		{
			const text *value = (const text *) DatumGetPointer(messages->values[i]);

			check_depth(topic, "values of this topic",
						"Nest them less, or use a topic with value format text.",
						VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
			if (messages->kind != PAYLOAD_JSONB)
				check_json(messages->values[i]);
		}
		if (i % 1024 == 0)
			CHECK_FOR_INTERRUPTS();
	}

	error_context_stack = callback.previous;
}

/* The bytes of a payload, or -1 where it is NULL. */
static int64
payload_size(const Datum *payloads, const bool *nulls, int i)
{
	if (payloads == NULL || nulls[i])
		return -1;
	return VARSIZE_ANY_EXHDR(DatumGetPointer(payloads[i]));
}

PackSizes
messages_sizes(const MessageSet *messages, int i)
{
	PackSizes	sizes;

	sizes.key = payload_size(messages->keys, messages->key_nulls, i);
	sizes.value = payload_size(messages->values, messages->value_nulls, i);
	sizes.headers = payload_size(messages->headers, messages->header_nulls, i);
	return sizes;
}

static void
check_sizes(const Topic *topic, const MessageSet *messages)
{
	for (int i = 0; i < messages->count; i++)
	{
		PackSizes	sizes = messages_sizes(messages, i);
		int64		total = Max(sizes.key, 0) + Max(sizes.value, 0) + Max(sizes.headers, 0);

		if (total > topic->max_message_bytes)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("message of " INT64_FORMAT " bytes is too large for topic \"%s\"",
							total, topic->name),
					 errdetail("Key, value and headers of a message together may have %d bytes.",
							   topic->max_message_bytes),
					 errhint("Use alter_topic() to increase max_message_bytes.")));
		if (i % 1024 == 0)
			CHECK_FOR_INTERRUPTS();
	}
}

static void
check_headers(const Topic *topic, const MessageSet *messages)
{
	for (int i = 0; messages->headers && i < messages->count; i++)
	{
		Jsonb	   *headers;

		if (messages->header_nulls[i])
			continue;
		headers = DatumGetJsonbP(messages->headers[i]);
		if (!JB_ROOT_IS_OBJECT(headers))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("headers must be a JSON object")));
		if (VARSIZE(headers) >= JSON_DEEP_JSONB)
		{
			char	   *json = JsonbToCString(NULL, &headers->root, VARSIZE(headers));

			check_depth(topic, "headers", "Nest them less.", json, strlen(json));
			pfree(json);
		}
	}
}

/* Where all messages of a call have the same timestamp, none needs its own. */
static void
fold_timestamps(MessageSet *messages)
{
	if (messages->timestamps == NULL || messages->count == 0)
		return;
	for (int i = 1; i < messages->count; i++)
	{
		if (messages->timestamps[i] != messages->timestamps[0])
			return;
	}
	messages->timestamp = DatumGetTimestampTz(messages->timestamps[0]);
	messages->timestamps = NULL;
}

static void
check_timestamps(const MessageSet *messages)
{
	for (int i = 0; i < messages->count; i++)
	{
		TimestampTz timestamp = messages->timestamps ?
			DatumGetTimestampTz(messages->timestamps[i]) : messages->timestamp;

		/* infinity would keep all before it from ever expiring */
		if (TIMESTAMP_NOT_FINITE(timestamp))
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					 errmsg("timestamp of a message must be finite")));
		if (messages->timestamps == NULL)
			break;
	}
}

void
messages_check(const Topic *topic, MessageSet *messages)
{
	check_headers(topic, messages);
	fold_timestamps(messages);
	check_timestamps(messages);
	check_formats(topic, messages);
	check_sizes(topic, messages);
}
