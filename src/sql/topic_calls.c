/*-------------------------------------------------------------------------
 *
 * topic_calls.c
 *	  Functions that make, change and drop topics and consumer groups.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "tcop/cmdtag.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/seek.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "log/consume.h"
#include "log/topic_ddl.h"
#include "shmem/databases.h"
#include "shmem/slots.h"
#include "sql/args.h"
#include "storage/relation.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"

PG_FUNCTION_INFO_V1(pgtopic_create_topic);
PG_FUNCTION_INFO_V1(pgtopic_alter_topic);
PG_FUNCTION_INFO_V1(pgtopic_add_partitions);
PG_FUNCTION_INFO_V1(pgtopic_drop_topic);
PG_FUNCTION_INFO_V1(pgtopic_delete_messages);
PG_FUNCTION_INFO_V1(pgtopic_create_consumer_group);
PG_FUNCTION_INFO_V1(pgtopic_commit_offset);
PG_FUNCTION_INFO_V1(pgtopic_reset_offsets);
PG_FUNCTION_INFO_V1(pgtopic_drop_consumer_group);
PG_FUNCTION_INFO_V1(pgtopic_extension_created);
PG_FUNCTION_INFO_V1(pgtopic_topic_changed);
PG_FUNCTION_INFO_V1(pgtopic_storage_dropped);
PG_FUNCTION_INFO_V1(pgtopic_relation_altered);
PG_FUNCTION_INFO_V1(pgtopic_make_relations);
PG_FUNCTION_INFO_V1(pgtopic_execute_outside);

/*
 * create_topic(name, partitions, replication_factor, retention, retention_bytes,
 *				segment_messages, max_message_bytes, value_format, min_insync_replicas)
 */
Datum
pgtopic_create_topic(PG_FUNCTION_ARGS)
{
	char	   *name = arg_cstring(fcinfo, 0, "name");
	TopicOptions options;

	options.partitions = arg_int32(fcinfo, 1, "partitions");
	options.replication_factor = arg_int32(fcinfo, 2, "replication_factor");
	options.retention = PG_ARGISNULL(3) ? NULL : PG_GETARG_INTERVAL_P(3);
	options.has_retention_bytes = !PG_ARGISNULL(4);
	options.retention_bytes = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT64(4);
	options.segment_messages = arg_int64(fcinfo, 5, "segment_messages");
	options.max_message_bytes = arg_int32(fcinfo, 6, "max_message_bytes");
	options.value_format = arg_cstring(fcinfo, 7, "value_format");
	options.has_min_insync_replicas = !PG_ARGISNULL(8);
	options.min_insync_replicas = PG_ARGISNULL(8) ? 0 : PG_GETARG_INT32(8);
	PG_RETURN_INT32(topic_create(name, &options));
}

Datum
pgtopic_alter_topic(PG_FUNCTION_ARGS)
{
	topic_alter(arg_topic(fcinfo, 0), arg_cstring(fcinfo, 1, "option"),
				arg_cstring(fcinfo, 2, "value"));
	PG_RETURN_VOID();
}

Datum
pgtopic_add_partitions(PG_FUNCTION_ARGS)
{
	topic_add_partitions(arg_topic(fcinfo, 0), arg_int32(fcinfo, 1, "total"));
	PG_RETURN_VOID();
}

Datum
pgtopic_drop_topic(PG_FUNCTION_ARGS)
{
	topic_drop(arg_topic(fcinfo, 0));
	PG_RETURN_VOID();
}

Datum
pgtopic_delete_messages(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(topic_delete_messages(arg_topic(fcinfo, 0),
										  arg_int32(fcinfo, 1, "partition"),
										  arg_int64(fcinfo, 2, "before_offset")));
}

static void
seek_context(void *arg)
{
	errcontext("%s", (const char *) arg);
}

/*
 * Reads a position; what is none of the words and numbers is a timestamp.
 * allowed says in an error's context what the argument can be.
 */
static Seek
arg_seek(FunctionCallInfo fcinfo, int arg, const char *name, char *allowed,
		 TimestampTz *timestamp)
{
	char	   *string = arg_cstring(fcinfo, arg, name);
	Seek		seek = seek_parse(string);
	ErrorContextCallback callback;

	*timestamp = 0;
	if (seek.kind != SEEK_OTHER)
		return seek;

	callback.callback = seek_context;
	callback.arg = allowed;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	*timestamp = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
														 CStringGetDatum(string),
														 ObjectIdGetDatum(InvalidOid),
														 Int32GetDatum(-1)));
	error_context_stack = callback.previous;
	return seek;
}

/* create_consumer_group(consumer_group, topic, start_at) */
Datum
pgtopic_create_consumer_group(PG_FUNCTION_ARGS)
{
	char	   *group = arg_cstring(fcinfo, 0, "consumer_group");
	Topic	   *topic = topic_get(arg_topic(fcinfo, 1));
	TimestampTz timestamp;
	Seek		seek = arg_seek(fcinfo, 2, "start_at",
								  "start_at is 'earliest', 'latest' or a timestamp", &timestamp);

	if (seek.kind == SEEK_OFFSET || seek.kind == SEEK_RELATIVE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start_at must be 'earliest', 'latest' or a timestamp"),
				 errhint("Use commit_offset() to start at an offset of a partition.")));
	group_create(topic->id, group, seek, timestamp);
	PG_RETURN_VOID();
}

/* commit_offset(consumer_group, topic, partition, log_offset) */
Datum
pgtopic_commit_offset(PG_FUNCTION_ARGS)
{
	char	   *group = arg_cstring(fcinfo, 0, "consumer_group");
	Topic	   *topic = topic_get(arg_topic(fcinfo, 1));

	group_commit(topic->id, arg_int32(fcinfo, 2, "partition"), group,
				 arg_int64(fcinfo, 3, "log_offset"));
	PG_RETURN_VOID();
}

/* reset_offsets(consumer_group, topic, to_position, dry_run) */
Datum
pgtopic_reset_offsets(PG_FUNCTION_ARGS)
{
	char	   *group = arg_cstring(fcinfo, 0, "consumer_group");
	int32		topic = arg_topic(fcinfo, 1);
	TimestampTz timestamp;
	Seek		seek = arg_seek(fcinfo, 2, "to_position",
								  "to_position is 'earliest', 'latest', an offset, '+n', '-n' or a timestamp", &timestamp);
	int			count;
	ResetOffset *results;

	arg_not_null(fcinfo, 3, "dry_run");
	InitMaterializedSRF(fcinfo, 0);
	results = group_reset(topic, group, seek, timestamp, PG_GETARG_BOOL(3), &count);
	for (int i = 0; i < count; i++)
		result_reset(fcinfo, &results[i]);
	PG_RETURN_NULL();
}

/* Ids of all topics whose owner the user may act as. */
static int32 *
own_topics(int *count)
{
	ExtensionOwner saved;
	MemoryContext context = CurrentMemoryContext;
	int32	   *ids;
	int			own = 0;

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT, "SELECT id FROM pgtopic.topic ORDER BY id");
	ids = MemoryContextAlloc(context, (SPI_processed + 1) * sizeof(int32));
	*count = (int) SPI_processed;
	for (int i = 0; i < *count; i++)
	{
		bool		isnull;

		ids[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
											 1, &isnull));
	}
	SPI_finish();
	extension_owner_end(&saved);

	for (int i = 0; i < *count; i++)
	{
		Topic	   *topic = topic_find_any(ids[i]);

		if (topic && !topic->damaged && has_privs_of_role(GetUserId(), topic_owner(topic)))
			ids[own++] = ids[i];
	}
	*count = own;
	return ids;
}

/* drop_consumer_group(consumer_group, topic) */
Datum
pgtopic_drop_consumer_group(PG_FUNCTION_ARGS)
{
	char	   *group = arg_cstring(fcinfo, 0, "consumer_group");
	bool		found = false;

	extension_require_preload();
	if (!PG_ARGISNULL(1))
	{
		Topic	   *topic = topic_get(PG_GETARG_INT32(1));

		found = group_drop(topic->id, group);
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("consumer group \"%s\" of topic \"%s\" does not exist",
							group, topic->name)));
	}
	else
	{
		int			count;
		int32	   *ids = own_topics(&count);

		for (int i = 0; i < count; i++)
		{
			CHECK_FOR_INTERRUPTS();
			found |= group_drop(ids[i], group);
		}
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("consumer group \"%s\" does not exist", group)));
	}
	PG_RETURN_VOID();
}

/*
 * pgtopic.extension_created(): the last command of the extension's script.  A
 * server that has not loaded the library is told so at once, not at the first
 * produce().
 */
Datum
pgtopic_extension_created(PG_FUNCTION_ARGS)
{
	extension_require_preload();
	database_wake_worker_at_commit(false);
	PG_RETURN_VOID();
}

/*
 * pgtopic.topic_changed(): trigger on pgtopic.topic, for each row.
 *
 * Tells the caches of all backends.  A new row comes from create_topic(), or
 * from a dump that is being restored; in the latter case the tables are there
 * already, but not what ties them to the extension, which no dump contains.
 */
Datum
pgtopic_topic_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		isnull;
	int32		id;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("topic_changed() can only be called as a trigger")));
	id = DatumGetInt32(heap_getattr(trigger->tg_trigtuple, 1,
									RelationGetDescr(trigger->tg_relation), &isnull));
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		storage_adopt(id);
		/* if it is from a dump, there may be something to be settled: see cluster/restored.h */
		if (slots_available() && cluster_self() == 0 && OidIsValid(extension_relation(psprintf("t%d", id))))
			database_wake_worker_at_commit(true);
	}
	else if (slots_available())
		/* whoever waits for messages looks again: is it there, who leads it now? */
		slots_wake_at_end(id, true);
	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		topic_invalidate_plans();
	topic_invalidate(id);
	return PointerGetDatum(NULL);
}

/* drop_topic(), and whoever applies it, has deleted the topic's row before. */
static void
refuse_dropped_relation(void)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT t.name FROM pg_catalog.pg_event_trigger_dropped_objects() d"
					  " JOIN pgtopic.topic t ON t.name = d.object_name"
					  " WHERE d.object_type = 'foreign table' AND d.schema_name = '" TOPICS_SCHEMA "'");
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the relation of topic \"%s\" cannot be dropped in a cluster",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errhint("Use drop_topic(), which drops the topic at all brokers.")));
}

/* relation_check() of those that a query finds. */
static void
check_relations(const char *query)
{
	Oid		   *relations;
	int			count;

	extension_execute(SPI_OK_SELECT, "%s", query);
	count = (int) SPI_processed;
	relations = palloc((count + 1) * sizeof(Oid));
	for (int i = 0; i < count; i++)
	{
		bool		isnull;

		relations[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
													  SPI_tuptable->tupdesc, 1, &isnull));
	}
	for (int i = 0; i < count; i++)
		relation_check(relations[i]);
	pfree(relations);
}

/*
 * pgtopic.storage_dropped(): event trigger on sql_drop.
 *
 * A topic whose relation or root table has been dropped by other means than
 * drop_topic(), such as DROP FOREIGN TABLE or DROP OWNED, is a topic no more.  In a
 * cluster that takes the controller, so there it is refused.
 */
Datum
pgtopic_storage_dropped(PG_FUNCTION_ARGS)
{
	ExtensionOwner saved;
	int32	   *ids;
	bool	   *were_there;
	int			count;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("storage_dropped() can only be called as an event trigger")));
	if (!extension_exists() || RecoveryInProgress())
		PG_RETURN_NULL();

	extension_owner_begin(&saved);
	SPI_connect();
	/* of any command: there are many that CASCADE, and most have dropped nothing of ours */
	extension_execute(SPI_OK_SELECT,
					  "SELECT FROM pg_catalog.pg_event_trigger_dropped_objects()"
					  " WHERE object_type IN ('table', 'foreign table', 'foreign table column')"
					  " AND address_names[1] IN ('" CATALOG_SCHEMA "', '" TOPICS_SCHEMA "') LIMIT 1");
	if (SPI_processed == 0)
	{
		SPI_finish();
		extension_owner_end(&saved);
		PG_RETURN_NULL();
	}
	if (cluster_self() != 0)
		refuse_dropped_relation();
	check_relations("SELECT d.objid FROM pg_catalog.pg_event_trigger_dropped_objects() d"
					" JOIN pg_catalog.pg_class c ON c.oid = d.objid"
					" WHERE d.object_type = 'foreign table column'");
	extension_execute(SPI_OK_SELECT,
					  "WITH gone AS ("
					  "SELECT pg_catalog.substr(object_name, 2)::pg_catalog.int8 AS id"
					  " FROM pg_catalog.pg_event_trigger_dropped_objects()"
					  " WHERE object_type = 'table' AND schema_name = '" CATALOG_SCHEMA "'"
					  " AND object_name ~ '^t[0-9]{1,10}$'"
					  " UNION SELECT t.id FROM pg_catalog.pg_event_trigger_dropped_objects() d"
					  " JOIN pgtopic.topic t ON t.name = d.object_name"
					  " WHERE d.object_type = 'foreign table' AND d.schema_name = '" TOPICS_SCHEMA "'"
					  "), topics AS ("
					  "DELETE FROM pgtopic.topic t USING gone WHERE t.id = gone.id"
					  "), partitions AS ("
					  "DELETE FROM pgtopic.partition p USING gone WHERE p.topic_id = gone.id"
					  /* what this very statement deletes is seen all the same */
					  ") SELECT g.id::pg_catalog.int4, EXISTS (SELECT FROM pgtopic.topic t WHERE t.id = g.id)"
					  " FROM gone g WHERE g.id < 2147483648");
	ids = palloc((SPI_processed + 1) * sizeof(int32));
	were_there = palloc((SPI_processed + 1) * sizeof(bool));
	count = (int) SPI_processed;
	for (int i = 0; i < count; i++)
	{
		bool		isnull;

		ids[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
											 1, &isnull));
		were_there[i] = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
												   2, &isnull));
	}
	/* the rest: the relation of a root, or the storage of a relation */
	for (int i = 0; i < count; i++)
		storage_drop_topic(ids[i], were_there[i]);
	SPI_finish();
	extension_owner_end(&saved);
	PG_RETURN_NULL();
}

/*
 * pgtopic.relation_altered(): event trigger on ddl_command_end.  Keeps topics and their
 * relations together.
 */
Datum
pgtopic_relation_altered(PG_FUNCTION_ARGS)
{
	ExtensionOwner saved;
	const char *tag;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("relation_altered() can only be called as an event trigger")));
	if (!extension_exists() || RecoveryInProgress())
		PG_RETURN_NULL();
	tag = GetCommandTagName(((EventTriggerData *) fcinfo->context)->tag);
	extension_owner_begin(&saved);
	SPI_connect();
	if (strcmp(tag, "ALTER SCHEMA") == 0)
		relation_check_schemas();
	else if (strcmp(tag, "ALTER SERVER") == 0)
		relation_check_server();
	else if (strcmp(tag, "ALTER EXTENSION") == 0)
		relation_check_members();
	else if (strcmp(tag, "ALTER TYPE") == 0)
		/* what a type is given, its tables get */
		check_relations("WITH RECURSIVE altered (objid) AS ("
						"SELECT x.oid FROM pg_catalog.pg_event_trigger_ddl_commands() d, LATERAL ("
						"SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = d.objid OR c.reltype = d.objid"
						" UNION SELECT c.oid FROM pg_catalog.pg_type y JOIN pg_catalog.pg_class c ON c.reloftype = y.oid"
						" WHERE d.objid IN (y.oid, y.typrelid)) x"
						" UNION SELECT i.inhrelid FROM altered a JOIN pg_catalog.pg_inherits i ON i.inhparent = a.objid"
						") SELECT c.oid FROM altered a JOIN pg_catalog.pg_class c ON c.oid = a.objid WHERE c.relkind = 'f'");
	else
		/* what a table is given, its children and partitions get; ours have no relations of topics */
		check_relations("WITH RECURSIVE altered (objid) AS ("
						"SELECT objid FROM pg_catalog.pg_event_trigger_ddl_commands()"
						" WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
						" AND schema_name IS DISTINCT FROM '" CATALOG_SCHEMA "'"
						" UNION SELECT i.inhrelid FROM altered a JOIN pg_catalog.pg_inherits i ON i.inhparent = a.objid"
						") SELECT c.oid FROM altered a JOIN pg_catalog.pg_class c ON c.oid = a.objid WHERE c.relkind = 'f'");
	SPI_finish();
	extension_owner_end(&saved);
	PG_RETURN_NULL();
}

/* pgtopic.make_relations(): for topics that are there when the extension is updated. */
Datum
pgtopic_make_relations(PG_FUNCTION_ARGS)
{
	int			count;
	int32	   *ids = own_topics(&count);

	for (int i = 0; i < count; i++)
		storage_adopt(ids[i]);
	PG_RETURN_VOID();
}

/* pgtopic.execute_outside(command), which is there while a script runs. */
Datum
pgtopic_execute_outside(PG_FUNCTION_ARGS)
{
	extension_execute_outside(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}
