/*-------------------------------------------------------------------------
 *
 * types.c
 *	  The types topic and topic_partition.
 *
 * A topic is stored as its id, and written as its name; a topic that has been
 * dropped is written as "#7", which no topic can be called, so that a dump of a
 * column that still names it can be loaded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"

#include "base/name.h"
#include "catalog/topics.h"

#if !FLOAT8PASSBYVAL
#error "pgtopic needs a PostgreSQL that passes 8-byte types by value"
#endif

PG_FUNCTION_INFO_V1(pgtopic_topic_in);
PG_FUNCTION_INFO_V1(pgtopic_topic_out);
PG_FUNCTION_INFO_V1(pgtopic_topic_recv);
PG_FUNCTION_INFO_V1(pgtopic_topic_send);
PG_FUNCTION_INFO_V1(pgtopic_topic_from_text);
PG_FUNCTION_INFO_V1(pgtopic_topic_cmp);
PG_FUNCTION_INFO_V1(pgtopic_topic_eq);
PG_FUNCTION_INFO_V1(pgtopic_topic_ne);
PG_FUNCTION_INFO_V1(pgtopic_topic_lt);
PG_FUNCTION_INFO_V1(pgtopic_topic_le);
PG_FUNCTION_INFO_V1(pgtopic_topic_gt);
PG_FUNCTION_INFO_V1(pgtopic_topic_ge);
PG_FUNCTION_INFO_V1(pgtopic_topic_hash);
PG_FUNCTION_INFO_V1(pgtopic_topic_hash_extended);

PG_FUNCTION_INFO_V1(pgtopic_topic_partition_in);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_out);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_recv);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_send);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_make);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_topic);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_partition);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_cmp);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_eq);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_ne);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_lt);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_le);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_gt);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_ge);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_hash);
PG_FUNCTION_INFO_V1(pgtopic_topic_partition_hash_extended);

/* The id of the topic of a name, or of "#7" whether or not it exists. */
static int32
topic_from_name(const char *name)
{
	uint32		number;
	int32		id;

	if (topic_id_text(name, &number))
		return (int32) number;
	id = topic_id_by_name(name);
	if (id == 0)
		topic_error_unknown(name);
	return id;
}

static char *
topic_to_name(int32 id)
{
	char	   *name = topic_name_by_id(id);

	return name ? name : psprintf("#%u", (uint32) id);
}

Datum
pgtopic_topic_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(topic_from_name(PG_GETARG_CSTRING(0)));
}

Datum
pgtopic_topic_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(topic_to_name(PG_GETARG_INT32(0)));
}

/* In binary as in text, the name: an id means nothing to another server. */
Datum
pgtopic_topic_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			bytes;
	char	   *name = pq_getmsgtext(buf, buf->len - buf->cursor, &bytes);

	PG_RETURN_INT32(topic_from_name(name));
}

static Datum
send_text(const char *text)
{
	StringInfoData buf;

	pq_begintypsend(&buf);
	pq_sendtext(&buf, text, strlen(text));
	return PointerGetDatum(pq_endtypsend(&buf));
}

Datum
pgtopic_topic_send(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(send_text(topic_to_name(PG_GETARG_INT32(0))));
}

Datum
pgtopic_topic_from_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(topic_from_name(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

static int
topic_cmp(int32 a, int32 b)
{
	return a < b ? -1 : a > b;
}

#define TOPIC_COMPARISON(name, operator) \
Datum \
pgtopic_topic_##name(PG_FUNCTION_ARGS) \
{ \
	PG_RETURN_BOOL(topic_cmp(PG_GETARG_INT32(0), PG_GETARG_INT32(1)) operator 0); \
}

TOPIC_COMPARISON(eq, ==)
TOPIC_COMPARISON(ne, !=)
TOPIC_COMPARISON(lt, <)
TOPIC_COMPARISON(le, <=)
TOPIC_COMPARISON(gt, >)
TOPIC_COMPARISON(ge, >=)

Datum
pgtopic_topic_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(topic_cmp(PG_GETARG_INT32(0), PG_GETARG_INT32(1)));
}

Datum
pgtopic_topic_hash(PG_FUNCTION_ARGS)
{
	return hash_uint32((uint32) PG_GETARG_INT32(0));
}

Datum
pgtopic_topic_hash_extended(PG_FUNCTION_ARGS)
{
	return hash_uint32_extended((uint32) PG_GETARG_INT32(0), PG_GETARG_INT64(1));
}

/*
 * A topic partition: the topic's id in the upper half, the partition in the
 * lower.  The order is that of (topic, partition).
 */
#define TP_MAKE(topic, partition) \
	(((int64) (topic) << 32) | (uint32) (partition))
#define TP_TOPIC(tp)		((int32) ((tp) >> 32))
#define TP_PARTITION(tp)	((int32) ((tp) & 0xffffffff))

static int64
topic_partition_from_text(const char *text)
{
	int32		partition;
	int			length = topic_partition_split(text, &partition);

	if (length < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type topic_partition: \"%s\"", text),
				 errdetail("It is the name of a topic, a hyphen and the number of a partition, such as \"orders-3\".")));
	return TP_MAKE(topic_from_name(pnstrdup(text, length)), partition);
}

static char *
topic_partition_to_text(int64 tp)
{
	return psprintf("%s-%d", topic_to_name(TP_TOPIC(tp)), TP_PARTITION(tp));
}

Datum
pgtopic_topic_partition_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(topic_partition_from_text(PG_GETARG_CSTRING(0)));
}

Datum
pgtopic_topic_partition_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(topic_partition_to_text(PG_GETARG_INT64(0)));
}

Datum
pgtopic_topic_partition_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			bytes;
	char	   *text = pq_getmsgtext(buf, buf->len - buf->cursor, &bytes);

	PG_RETURN_INT64(topic_partition_from_text(text));
}

Datum
pgtopic_topic_partition_send(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(send_text(topic_partition_to_text(PG_GETARG_INT64(0))));
}

/* The partition need not exist yet: it may be meant for later. */
Datum
pgtopic_topic_partition_make(PG_FUNCTION_ARGS)
{
	int32		partition = PG_GETARG_INT32(1);

	if (partition < 0)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("partition must not be negative, not %d", partition)));
	PG_RETURN_INT64(TP_MAKE(PG_GETARG_INT32(0), partition));
}

Datum
pgtopic_topic_partition_topic(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(TP_TOPIC(PG_GETARG_INT64(0)));
}

Datum
pgtopic_topic_partition_partition(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(TP_PARTITION(PG_GETARG_INT64(0)));
}

#define TOPIC_PARTITION_COMPARISON(name, operator) \
Datum \
pgtopic_topic_partition_##name(PG_FUNCTION_ARGS) \
{ \
	PG_RETURN_BOOL(PG_GETARG_INT64(0) operator PG_GETARG_INT64(1)); \
}

TOPIC_PARTITION_COMPARISON(eq, ==)
TOPIC_PARTITION_COMPARISON(ne, !=)
TOPIC_PARTITION_COMPARISON(lt, <)
TOPIC_PARTITION_COMPARISON(le, <=)
TOPIC_PARTITION_COMPARISON(gt, >)
TOPIC_PARTITION_COMPARISON(ge, >=)

Datum
pgtopic_topic_partition_cmp(PG_FUNCTION_ARGS)
{
	int64		a = PG_GETARG_INT64(0);
	int64		b = PG_GETARG_INT64(1);

	PG_RETURN_INT32(a < b ? -1 : a > b);
}

Datum
pgtopic_topic_partition_hash(PG_FUNCTION_ARGS)
{
	int64		tp = PG_GETARG_INT64(0);

	return hash_any((unsigned char *) &tp, sizeof(tp));
}

Datum
pgtopic_topic_partition_hash_extended(PG_FUNCTION_ARGS)
{
	int64		tp = PG_GETARG_INT64(0);

	return hash_any_extended((unsigned char *) &tp, sizeof(tp), PG_GETARG_INT64(1));
}
