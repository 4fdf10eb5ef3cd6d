/*-------------------------------------------------------------------------
 *
 * change_trigger.c
 *	  The trigger function produce_changes(): a table's changes as messages.
 *
 * CREATE TRIGGER ... EXECUTE FUNCTION produce_changes('topic', 'key column', ...)
 *
 * AFTER INSERT, UPDATE or DELETE, FOR EACH ROW, or FOR EACH STATEMENT with the
 * transition tables of the event.  Each changed row is a message, as JSON:
 *
 *	{"op": "UPDATE", "table": "public.orders", "at": "2026-11-22T09:19:51.630023+00:00",
 *	 "old": {...}, "new": {...}}
 *
 * An UPDATE that changes the key is two messages, a DELETE with the old key and an
 * INSERT with the new one: they go to different partitions, where who reads one of
 * them knows nothing of the other.
 *
 * What a key and a row look like must not depend on who has changed the row: the
 * key chooses the partition.  So all of it is written with fixed settings, times in
 * UTC, names of relations and the like with their schemas; what makes text or JSON of
 * a type of somebody's own runs with these settings, too.  Expressions of generated
 * columns do not: they are computed as the session's INSERT or query computes them, by
 * functions that may look for others on its search_path.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/compat.h"
#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "log/produce.h"
#include "sql/generated.h"

PG_FUNCTION_INFO_V1(pgtopic_produce_changes);

/* So much of a statement goes into one call of produce_messages(). */
#define BATCH_MESSAGES	4096
#define BATCH_BYTES		(4 * 1024 * 1024)

/* Names of what anybody has made have their schemas then, but for what is temporary. */
#define SEARCH_PATH		"pg_catalog, pg_temp"

/* One call of the trigger. */
typedef struct Changes
{
	TriggerData *trigger;
	int			settings;		/* for settings_end() */
	TupleDesc	desc;			/* of the rows */
	char	   *table;			/* where the trigger was made; qualified, quoted */
	int32		topic;
	TimestampTz at;
	char	   *middle;			/* of all messages: table and time */
	GeneratedColumns *generated;	/* NULL if there are none */

	int			key_columns_count;
	AttrNumber *key_columns;
	FmgrInfo	key_output;		/* of a single one */
	TupleDesc	key_desc;		/* of several */

	MemoryContext row_context;	/* what takes part in making a message */
	MemoryContext batch_context;	/* messages, until they are produced */
	int			count;
	int64		bytes;
	Datum	   *values;
	bool	   *value_nulls;
	Datum	   *keys;
	bool	   *key_nulls;
} Changes;

static void
changes_context_callback(void *arg)
{
	Changes    *changes = arg;

	errcontext("trigger \"%s\" publishing changes of table %s",
			   changes->trigger->tg_trigger->tgname, changes->table);
}

static void
set_option(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/* Fixes the settings that the text of a value may depend on. */
static void
settings_begin(Changes *changes)
{
	changes->settings = NewGUCNestLevel();
	if (strcmp(pg_get_timezone_name(session_timezone), "UTC") != 0)
		set_option("TimeZone", "UTC");
	if (DateStyle != USE_ISO_DATES)
		set_option("DateStyle", "ISO");
	if (IntervalStyle != INTSTYLE_POSTGRES)
		set_option("IntervalStyle", "postgres");
	if (extra_float_digits < 1)
		set_option("extra_float_digits", "1");
	if (bytea_output != BYTEA_OUTPUT_HEX)
		set_option("bytea_output", "hex");
	if (quote_all_identifiers)
		set_option("quote_all_identifiers", "off");
	/* not by locale_monetary: its header wants those of ICU */
	if (strcmp(GetConfigOption("lc_monetary", false, false), "C") != 0)
		set_option("lc_monetary", "C");
	if (strcmp(namespace_search_path, SEARCH_PATH) != 0)
		set_option("search_path", SEARCH_PATH);
}

/* They are the session's again. */
static void
settings_end(Changes *changes)
{
	AtEOXact_GUC(false, changes->settings);
}

/*
 * The table that the trigger was made on: if that is partitioned, we are called for
 * a partition, where the trigger is a copy.
 */
static char *
table_name(const TriggerData *trigger)
{
	Oid			table = RelationGetRelid(trigger->tg_relation);
	Oid			copy = trigger->tg_trigger->tgisclone ? trigger->tg_trigger->tgoid : InvalidOid;
	char	   *name;

	while (OidIsValid(copy))
	{
		Relation	triggers = table_open(TriggerRelationId, AccessShareLock);
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple	tuple;

		ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(copy));
		scan = systable_beginscan(triggers, TriggerOidIndexId, true, NULL, 1, &key);
		tuple = systable_getnext(scan);
		copy = InvalidOid;
		if (HeapTupleIsValid(tuple))
		{
			table = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
			copy = ((Form_pg_trigger) GETSTRUCT(tuple))->tgparentid;
		}
		systable_endscan(scan);
		table_close(triggers, AccessShareLock);
	}

	/* nothing keeps others from dropping it while a partition is written to */
	name = get_rel_name(table);
	if (name == NULL)
	{
		table = RelationGetRelid(trigger->tg_relation);
		name = RelationGetRelationName(trigger->tg_relation);
	}
	return quote_qualified_identifier(get_namespace_name_or_temp(get_rel_namespace(table)), name);
}

/* What the trigger must be, for whatever event. */
static void
check_trigger(const Changes *changes)
{
	const Trigger *trigger = changes->trigger->tg_trigger;
	TriggerEvent event = changes->trigger->tg_event;
	bool		old_missing;
	bool		new_missing;

	if (!TRIGGER_FIRED_AFTER(event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" on %s must be an AFTER trigger",
						trigger->tgname, changes->table),
				 errdetail("produce_changes() publishes what has been changed."),
				 errhint("Use CREATE TRIGGER with AFTER, on a table.")));
	if (TRIGGER_FIRED_BY_TRUNCATE(event))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("trigger \"%s\" on table %s cannot publish TRUNCATE",
						trigger->tgname, changes->table),
				 errdetail("TRUNCATE does not tell which rows it removes."),
				 errhint("Use DELETE, or make the trigger without TRUNCATE.")));
	if (trigger->tgnargs == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" on table %s does not say where to publish to",
						trigger->tgname, changes->table),
				 errhint("The arguments of produce_changes() are the topic and, if messages are to have a key, its columns: produce_changes('orders_changes', 'id').")));
	if (TRIGGER_FIRED_FOR_ROW(event))
		return;

	old_missing = !TRIGGER_FIRED_BY_INSERT(event) && changes->trigger->tg_oldtable == NULL;
	new_missing = !TRIGGER_FIRED_BY_DELETE(event) && changes->trigger->tg_newtable == NULL;
	if (old_missing || new_missing)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" on table %s has no %s",
						trigger->tgname, changes->table,
						!new_missing ? "OLD TABLE" : !old_missing ? "NEW TABLE" : "transition tables"),
				 errdetail("FOR EACH STATEMENT, produce_changes() takes the rows from the transition tables."),
				 errhint("Add REFERENCING%s%s, or use FOR EACH ROW.",
						 TRIGGER_FIRED_BY_INSERT(event) ? "" : " OLD TABLE AS old_rows",
						 TRIGGER_FIRED_BY_DELETE(event) ? "" : " NEW TABLE AS new_rows")));
}

static AttrNumber
key_column(const Changes *changes, const char *name)
{
	for (int i = 0; i < changes->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(changes->desc, i);

		if (!attribute->attisdropped && namestrcmp(&attribute->attname, name) == 0)
			return attribute->attnum;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table %s does not exist", name, changes->table),
			 errdetail("Trigger \"%s\" names it as a part of the key of its messages.",
					   changes->trigger->tg_trigger->tgname),
			 errhint("Make the trigger anew. Its arguments after the topic are columns of the table, in upper and lower case as they are there.")));
	return InvalidAttrNumber;	/* not reached */
}

/* The columns that the trigger names after the topic. */
static void
prepare_key(Changes *changes)
{
	const Trigger *trigger = changes->trigger->tg_trigger;
	int			count = trigger->tgnargs - 1;

	changes->key_columns_count = count;
	changes->key_columns = palloc((count + 1) * sizeof(AttrNumber));
	for (int i = 0; i < count; i++)
		changes->key_columns[i] = key_column(changes, trigger->tgargs[i + 1]);
	if (count == 1)
	{
		Oid			function;
		bool		is_varlena;

		getTypeOutputInfo(TupleDescAttr(changes->desc, changes->key_columns[0] - 1)->atttypid,
						  &function, &is_varlena);
		fmgr_info(function, &changes->key_output);
	}
	else if (count > 1)
	{
		TupleDesc	desc = CreateTemplateTupleDesc(count);

		for (int i = 0; i < count; i++)
			TupleDescCopyEntry(desc, i + 1, changes->desc, changes->key_columns[i]);
		changes->key_desc = BlessTupleDesc(desc);
	}
}

/* The key of a row's messages; NULL if they have none. */
static text *
key_of(Changes *changes, TupleTableSlot *row)
{
	int			count = changes->key_columns_count;
	Datum	   *values;
	bool	   *nulls;

	if (count == 0)
		return NULL;
	values = palloc(count * sizeof(Datum));
	nulls = palloc(count * sizeof(bool));
	for (int i = 0; i < count; i++)
		values[i] = slot_getattr(row, changes->key_columns[i], &nulls[i]);
	if (count == 1)
		return nulls[0] ? NULL : cstring_to_text(OutputFunctionCall(&changes->key_output, values[0]));
	return DatumGetTextPP(DirectFunctionCall1(row_to_json,
											  heap_copy_tuple_as_datum(heap_form_tuple(changes->key_desc, values, nulls),
																	   changes->key_desc)));
}

static bool
same_key(const text *a, const text *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

static void
append_row(StringInfo json, TupleTableSlot *row)
{
	text	   *object;

	if (row == NULL)
	{
		appendStringInfoString(json, "null");
		return;
	}
	object = DatumGetTextPP(DirectFunctionCall1(row_to_json, ExecFetchSlotHeapTupleDatum(row)));
	appendBinaryStringInfo(json, VARDATA_ANY(object), VARSIZE_ANY_EXHDR(object));
}

/* Adds a message to the batch: an INSERT without old, a DELETE without new. */
static void
add_message(Changes *changes, const text *key, TupleTableSlot *old, TupleTableSlot *new)
{
	int			i = changes->count++;
	MemoryContext context;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"op\": \"%s\", %s, \"old\": ",
					 old == NULL ? "INSERT" : new == NULL ? "DELETE" : "UPDATE", changes->middle);
	append_row(&json, old);
	appendStringInfoString(&json, ", \"new\": ");
	append_row(&json, new);
	appendStringInfoChar(&json, '}');

	context = MemoryContextSwitchTo(changes->batch_context);
	changes->values[i] = PointerGetDatum(cstring_to_text_with_len(json.data, json.len));
	changes->value_nulls[i] = false;
	changes->key_nulls[i] = key == NULL;
	changes->keys[i] = key == NULL ? (Datum) 0 :
		PointerGetDatum(cstring_to_text_with_len(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)));
	MemoryContextSwitchTo(context);
	changes->bytes += json.len + (key == NULL ? 0 : VARSIZE_ANY_EXHDR(key));
}

/* Adds the messages, one or two, of a row that was changed. */
static void
add_change(Changes *changes, TupleTableSlot *old, TupleTableSlot *new)
{
	MemoryContext context = MemoryContextSwitchTo(changes->row_context);
	text	   *old_key = NULL;
	text	   *new_key = NULL;

	if (changes->generated)
	{
		settings_end(changes);
		if (old)
			old = generated_complete(changes->generated, old, false);
		if (new)
			new = generated_complete(changes->generated, new, true);
		settings_begin(changes);
	}
	if (old)
		old_key = key_of(changes, old);
	if (new)
		new_key = key_of(changes, new);
	if (old && new && !same_key(old_key, new_key))
	{
		add_message(changes, old_key, old, NULL);
		add_message(changes, new_key, NULL, new);
	}
	else
		add_message(changes, new ? new_key : old_key, old, new);
	MemoryContextSwitchTo(context);
}

/* Looks the topic up each time: what makes JSON of a column's type may be anybody's. */
static void
produce_batch(Changes *changes)
{
	MemoryContext context = MemoryContextSwitchTo(changes->batch_context);
	Topic	   *topic = topic_get(changes->topic);
	MessageSet	messages;

	memset(&messages, 0, sizeof(messages));
	messages.count = changes->count;
	messages.kind = PAYLOAD_TEXT;
	messages.values = changes->values;
	messages.value_nulls = changes->value_nulls;
	messages.keys = changes->key_columns_count > 0 ? changes->keys : NULL;
	messages.key_nulls = changes->key_nulls;
	messages.timestamp = changes->at;
	(void) produce_messages(topic, &messages, -1,
							palloc(Min(messages.count, topic->partitions_count) * sizeof(ProducedRange)));
	MemoryContextSwitchTo(context);
	changes->count = 0;
	changes->bytes = 0;
}

/* The topic that is produced to; an error if it cannot be. */
static void
prepare_topic(Changes *changes)
{
	const char *name = changes->trigger->tg_trigger->tgargs[0];
	Topic	   *topic;

	extension_require_writable("produce_changes()");
	changes->topic = topic_id_by_name(name);
	if (changes->topic == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("topic \"%s\" does not exist", name),
				 errhint("Use create_topic(), or make the trigger anew with another topic.")));
	topic = topic_get(changes->topic);
	topic_check_produce(topic);
	(void) topic_lock(topic->id);
}

/* Room for so many messages, and what they have in common. */
static void
prepare_messages(Changes *changes, int capacity)
{
	StringInfoData middle;
	char		at[MAXDATELEN + 1];

	changes->values = palloc(capacity * sizeof(Datum));
	changes->value_nulls = palloc(capacity * sizeof(bool));
	changes->keys = palloc(capacity * sizeof(Datum));
	changes->key_nulls = palloc(capacity * sizeof(bool));

	changes->at = GetCurrentTimestamp();
	JsonEncodeDateTime(at, TimestampTzGetDatum(changes->at), TIMESTAMPTZOID, NULL);
	initStringInfo(&middle);
	appendStringInfoString(&middle, "\"table\": ");
	escape_json(&middle, changes->table);
	appendStringInfo(&middle, ", \"at\": \"%s\"", at);
	changes->middle = middle.data;
}

static void
publish_row(Changes *changes)
{
	TriggerData *trigger = changes->trigger;

	prepare_messages(changes, 2);
	/* the caller resets it after each row */
	changes->row_context = CurrentMemoryContext;
	changes->batch_context = CurrentMemoryContext;
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		add_change(changes, NULL, trigger->tg_trigslot);
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		add_change(changes, trigger->tg_trigslot, NULL);
	else
		add_change(changes, trigger->tg_trigslot, trigger->tg_newslot);
	produce_batch(changes);
}

/* A reader of a transition table, which others may be reading too. */
typedef struct RowReader
{
	Tuplestorestate *rows;		/* NULL: there is none */
	int			pointer;
	TupleTableSlot *slot;
} RowReader;

static void
reader_begin(RowReader *reader, Tuplestorestate *rows, Relation table)
{
	reader->rows = rows;
	reader->pointer = 0;
	reader->slot = NULL;
	if (rows == NULL)
		return;
	reader->pointer = tuplestore_alloc_read_pointer(rows, EXEC_FLAG_REWIND);
	/* it is a copy of another one, which may be anywhere */
	tuplestore_select_read_pointer(rows, reader->pointer);
	tuplestore_rescan(rows);
	reader->slot = MakeSingleTupleTableSlot(RelationGetDescr(table), &TTSOpsMinimalTuple);
	/* these rows do not tell, and generated columns may ask */
	reader->slot->tts_tableOid = RelationGetRelid(table);
}

/* The next row; NULL at the end. */
static TupleTableSlot *
reader_next(RowReader *reader)
{
	if (reader->rows == NULL)
		return NULL;
	tuplestore_select_read_pointer(reader->rows, reader->pointer);
	return tuplestore_gettupleslot(reader->rows, true, false, reader->slot) ? reader->slot : NULL;
}

static void
reader_end(RowReader *reader)
{
	if (reader->slot != NULL)
		ExecDropSingleTupleTableSlot(reader->slot);
}

static void
add_change_of_statement(Changes *changes, TupleTableSlot *old, TupleTableSlot *new)
{
	CHECK_FOR_INTERRUPTS();
	add_change(changes, old, new);
	MemoryContextReset(changes->row_context);
	/* the next row may be two messages */
	if (changes->count > BATCH_MESSAGES - 2 || changes->bytes >= BATCH_BYTES)
	{
		produce_batch(changes);
		MemoryContextReset(changes->batch_context);
	}
}

/*
 * The n-th row of OLD TABLE has become the n-th of NEW TABLE: both are stored by one
 * call of AfterTriggerSaveEvent() or, where the row moves to another partition, by
 * two of them, when it is deleted here and when it is inserted there, with no other
 * row of the statement in between (ExecCrossPartitionUpdate()).  Changes by foreign
 * keys' actions come by the same way.  Only that a BEFORE trigger of the other
 * partition has refused the row leaves an old one alone; then there are more of them,
 * and nothing tells which belong together.  So all are published as deleted, then all
 * new ones as inserted, which leaves each key as it is.
 */
static void
publish_statement(Changes *changes, Tuplestorestate *old_rows, Tuplestorestate *new_rows)
{
	RowReader	old_reader;
	RowReader	new_reader;
	TupleTableSlot *old;
	TupleTableSlot *new;
	bool		pairs = old_rows != NULL && new_rows != NULL &&
		tuplestore_tuple_count(old_rows) == tuplestore_tuple_count(new_rows);

	prepare_messages(changes, BATCH_MESSAGES);
	changes->row_context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic changed row",
												 ALLOCSET_DEFAULT_SIZES);
	changes->batch_context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic changes",
												   ALLOCSET_DEFAULT_SIZES);
	reader_begin(&old_reader, old_rows, changes->trigger->tg_relation);
	reader_begin(&new_reader, new_rows, changes->trigger->tg_relation);
	while ((old = reader_next(&old_reader)) != NULL)
		add_change_of_statement(changes, old, pairs ? reader_next(&new_reader) : NULL);
	while ((new = reader_next(&new_reader)) != NULL)
		add_change_of_statement(changes, NULL, new);
	if (changes->count > 0)
		produce_batch(changes);
	reader_end(&old_reader);
	reader_end(&new_reader);
	MemoryContextDelete(changes->row_context);
	MemoryContextDelete(changes->batch_context);
}

Datum
pgtopic_produce_changes(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Tuplestorestate *old_rows = NULL;
	Tuplestorestate *new_rows = NULL;
	ErrorContextCallback callback;
	Changes		changes;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("produce_changes() can only be called as a trigger")));
	memset(&changes, 0, sizeof(changes));
	changes.trigger = trigger;
	changes.desc = RelationGetDescr(trigger->tg_relation);
	settings_begin(&changes);
	changes.table = table_name(trigger);
	check_trigger(&changes);
	prepare_key(&changes);

	if (TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
	{
		if (!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
			old_rows = trigger->tg_oldtable;
		if (!TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
			new_rows = trigger->tg_newtable;
		/* nothing to publish, as by a loop over the rows */
		if ((old_rows == NULL || tuplestore_tuple_count(old_rows) == 0) &&
			(new_rows == NULL || tuplestore_tuple_count(new_rows) == 0))
		{
			settings_end(&changes);
			return PointerGetDatum(NULL);
		}
	}

	callback.callback = changes_context_callback;
	callback.arg = &changes;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	prepare_topic(&changes);
	if (generated_are_lacking(trigger))
	{
		/* planning their expressions calls functions, too */
		settings_end(&changes);
		changes.generated = generated_prepare(trigger);
		settings_begin(&changes);
	}
	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		publish_row(&changes);
	else
		publish_statement(&changes, old_rows, new_rows);
	generated_release(changes.generated);
	settings_end(&changes);
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}
