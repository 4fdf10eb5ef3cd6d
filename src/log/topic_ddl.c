/*-------------------------------------------------------------------------
 *
 * topic_ddl.c
 *	  Making, changing and dropping topics.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/name.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "log/forward.h"
#include "log/leaders.h"
#include "log/topic_changes.h"
#include "log/topic_ddl.h"
#include "shmem/databases.h"
#include "shmem/slots.h"
#include "storage/partition_state.h"
#include "storage/relation.h"
#include "storage/segments.h"

static void
check_range(const char *option, int64 value, int64 min, int64 max)
{
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between " INT64_FORMAT " and " INT64_FORMAT ", not " INT64_FORMAT,
						option, min, max, value)));
}

static void
check_retention(const Interval *retention, const char *forever)
{
	Interval	zero = {0};

	if (retention == NULL)
		return;
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp,
										  IntervalPGetDatum(retention),
										  IntervalPGetDatum(&zero))) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("retention must be longer than zero"),
				 errhint("%s keeps messages for ever.", forever)));
}

static void
check_options(const TopicOptions *options)
{
	check_range("partitions", options->partitions, 1, PARTITIONS_MAX);
	if (cluster_self() != 0)
		check_range("replication_factor", options->replication_factor, 1, BROKERS_MAX);
	else if (options->replication_factor != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("replication factor %d is not possible with 1 broker",
						options->replication_factor),
				 errdetail("A partition has at least one and at most as many replicas as there are brokers.")));
	check_retention(options->retention, "NULL");
	if (options->has_retention_bytes)
		check_range("retention_bytes", options->retention_bytes, 0, PG_INT64_MAX);
	check_range("segment_messages", options->segment_messages,
				SEGMENT_MESSAGES_MIN, SEGMENT_MESSAGES_MAX);
	check_range("max_message_bytes", options->max_message_bytes, 1, MESSAGE_BYTES_MAX);
	if (strcmp(options->value_format, "text") != 0 &&
		strcmp(options->value_format, "json") != 0 &&
		strcmp(options->value_format, "bytes") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value format \"%s\" does not exist", options->value_format),
				 errhint("The value formats are text, json and bytes.")));
	if (options->has_min_insync_replicas)
		check_range("min_insync_replicas", options->min_insync_replicas,
					1, options->replication_factor);
}

static char *
interval_literal(const Interval *interval)
{
	char	   *text;

	if (interval == NULL)
		return pstrdup("NULL");
	text = DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
	return psprintf("%s::pg_catalog.interval", quote_literal_cstr(text));
}

static char *
int64_literal(bool present, int64 value)
{
	return present ? psprintf(INT64_FORMAT, value) : pstrdup("NULL");
}

/* Runs a query that returns one number. */
static int64
select_int64(const char *sql)
{
	bool		isnull;
	Datum		datum;

	extension_execute(SPI_OK_SELECT, "%s", sql);
	if (SPI_processed != 1)
		elog(ERROR, "\"%s\" did not return one row", sql);
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return isnull ? 0 : DatumGetInt64(datum);
}

static void
insert_partition_row(int32 topic, int32 partition)
{
	extension_execute(SPI_OK_INSERT,
					  "INSERT INTO pgtopic.partition (topic_id, partition) VALUES (%d, %d)",
					  topic, partition);
}

int32
topic_create(const char *name, const TopicOptions *options)
{
	const char *problem = topic_name_problem(name);
	Oid			user = GetUserId();
	Oid			schema;
	ExtensionOwner saved;
	int32		topic;

	extension_require_writable("create_topic()");
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a topic: \"%s\"", name),
				 errdetail("%s", problem)));
	check_options(options);
	schema = get_namespace_oid(TOPICS_SCHEMA, false);
	if (compat_namespace_aclcheck(schema, user, ACL_CREATE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to create topic \"%s\"", name),
				 errhint("Making topics needs the right to CREATE in schema \"%s\".", TOPICS_SCHEMA)));

	if (cluster_self() != 0)
		return topic_change_create(name, options);

	extension_owner_begin(&saved);
	SPI_connect();
	topic = (int32) select_int64("SELECT pg_catalog.nextval('pgtopic.topic_id_seq')");

	/*
	 * The name first: who makes a topic of this name at the same time waits here
	 * for the other to commit.
	 */
	extension_execute(SPI_OK_INSERT,
					  "INSERT INTO pgtopic.topic (id, name, partitions, replication_factor, retention,"
					  " retention_bytes, segment_messages, max_message_bytes, value_format,"
					  " min_insync_replicas, created_at)"
					  " VALUES (%d, %s, %d, %d, %s, %s, " INT64_FORMAT ", %d, %s, %s, pg_catalog.now())"
					  " ON CONFLICT (name) DO NOTHING",
					  topic, quote_literal_cstr(name), options->partitions,
					  options->replication_factor, interval_literal(options->retention),
					  int64_literal(options->has_retention_bytes, options->retention_bytes),
					  options->segment_messages, options->max_message_bytes,
					  quote_literal_cstr(options->value_format),
					  int64_literal(options->has_min_insync_replicas, options->min_insync_replicas));
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("topic \"%s\" already exists", name)));

	storage_create_topic(topic, name);
	relation_make(topic, name, value_format(options->value_format), user, true);
	for (int p = 0; p < options->partitions; p++)
	{
		CHECK_FOR_INTERRUPTS();
		insert_partition_row(topic, p);
		storage_create_partition(topic, p, options->segment_messages);
	}
	storage_adopt(topic);
	SPI_finish();
	extension_owner_end(&saved);

	if (!database_request_worker(MyDatabaseId))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there is no maintenance worker for this database"),
				 errhint("Increase pgtopic.max_databases.")));
	slots_forbid_prepare("create_topic()");
	return topic;
}

/* The options that are numbers, and what they can be. */
typedef struct NumberOption
{
	const char *name;
	int64		min;
	int64		max;
} NumberOption;

static const NumberOption number_options[] = {
	{"retention_bytes", 0, PG_INT64_MAX},
	{"segment_messages", SEGMENT_MESSAGES_MIN, SEGMENT_MESSAGES_MAX},
	{"max_message_bytes", 1, MESSAGE_BYTES_MAX},
	{"min_insync_replicas", 1, BROKERS_MAX},	/* at most the replicas that there are */
};

/* What an option is to be set to, as SQL; NULL if there is no such option. */
static char *
option_sql(const Topic *topic, const char *option, const char *value)
{
	const NumberOption *found = NULL;
	bool		is_retention = strcmp(option, "retention") == 0;

	for (size_t i = 0; i < lengthof(number_options); i++)
	{
		if (strcmp(option, number_options[i].name) == 0)
			found = &number_options[i];
	}
	if (!is_retention && found == NULL)
		return NULL;
	if (strcmp(value, "default") == 0)
		return pstrdup("DEFAULT");

	if (is_retention)
	{
		Interval   *retention;

		if (strcmp(value, "forever") == 0)
			return pstrdup("NULL");
		retention = DatumGetIntervalP(DirectFunctionCall3(interval_in,
														  CStringGetDatum(value),
														  ObjectIdGetDatum(InvalidOid),
														  Int32GetDatum(-1)));
		check_retention(retention, "'forever'");
		return interval_literal(retention);
	}
	else
	{
		int64		number = DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(value)));

		check_range(option, number, found->min,
					strcmp(option, "min_insync_replicas") == 0 ? topic->replication_factor : found->max);
		return int64_literal(true, number);
	}
}

static void
option_context(void *arg)
{
	errcontext("option \"%s\" of a topic", (const char *) arg);
}

void
topic_alter(int32 topic_id, const char *option, const char *value)
{
	ExtensionOwner saved;
	ErrorContextCallback callback;
	Topic	   *topic;
	char	   *name;
	char	   *sql;

	extension_require_writable("alter_topic()");
	topic = topic_get(topic_id);
	topic_check_owner(topic);
	name = pstrdup(topic->name);

	if (strcmp(option, "partitions") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of partitions cannot be set with alter_topic()"),
				 errhint("Use add_partitions().")));
	if (strcmp(option, "value_format") == 0 || strcmp(option, "replication_factor") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the option \"%s\" of a topic cannot be changed", option)));
	callback.callback = option_context;
	callback.arg = unconstify(char *, option);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	sql = option_sql(topic, option, value);
	error_context_stack = callback.previous;
	if (sql == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a topic has no option \"%s\"", option),
				 errhint("The options are retention, retention_bytes, segment_messages, max_message_bytes and min_insync_replicas.")));

	if (cluster_self() != 0)
	{
		topic_change_alter(topic_id, option, sql);
		return;
	}
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.topic SET %s = %s WHERE id = %d",
					  quote_identifier(option), sql, topic_id);
	if (SPI_processed == 0)
		topic_error_unknown(name);
	SPI_finish();
	extension_owner_end(&saved);
	slots_forbid_prepare("alter_topic()");
	/* the worker looks at retention anew */
	database_wake_worker_at_commit(true);
}

static void
notice_keys_move(const char *name)
{
	ereport(NOTICE,
			(errmsg("keys of topic \"%s\" move to other partitions", name),
			 errdetail("The order of messages with the same key holds among those produced before, and among those produced from now on.")));
}

void
topic_add_partitions(int32 topic_id, int32 total)
{
	ExtensionOwner saved;
	Topic	   *topic;
	char	   *name;
	int64		segment_messages;
	int64		before;

	extension_require_writable("add_partitions()");
	topic = topic_get(topic_id);
	topic_check_owner(topic);
	name = pstrdup(topic->name);
	segment_messages = topic->segment_messages;
	check_range("partitions", total, 1, PARTITIONS_MAX);
	if (cluster_self() != 0)
	{
		topic_change_add_partitions(topic_id, total);
		notice_keys_move(name);
		return;
	}

	extension_owner_begin(&saved);
	SPI_connect();
	/* the row's lock: two calls at once come one after the other */
	extension_execute(SPI_OK_SELECT, "SELECT FROM pgtopic.topic WHERE id = %d FOR UPDATE",
					  topic_id);
	if (SPI_processed == 0)
		topic_error_unknown(name);
	before = select_int64(psprintf("SELECT partitions::pg_catalog.int8 FROM pgtopic.topic WHERE id = %d",
								   topic_id));
	if (total <= before)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("topic \"%s\" has " INT64_FORMAT " partitions already", name, before),
				 errdetail("The number of partitions can only grow.")));
	for (int p = (int) before; p < total; p++)
	{
		CHECK_FOR_INTERRUPTS();
		insert_partition_row(topic_id, p);
		storage_create_partition(topic_id, p, segment_messages);
	}
	extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.topic SET partitions = %d WHERE id = %d",
					  total, topic_id);
	SPI_finish();
	extension_owner_end(&saved);
	slots_forbid_prepare("add_partitions()");

	notice_keys_move(name);
}

void
topic_drop(int32 topic_id)
{
	ExtensionOwner saved;
	Topic	   *topic;
	char	   *name;

	extension_require_writable("drop_topic()");
	/* a damaged one can be dropped too */
	topic = topic_find_any(topic_id);
	if (topic == NULL)
		topic = topic_get(topic_id);
	topic_check_owner(topic);
	name = pstrdup(topic->name);
	if (cluster_self() != 0)
	{
		/* at other brokers it stays, if somebody there depends on it */
		extension_owner_begin(&saved);
		SPI_connect();
		relation_check_droppable(topic_id);
		SPI_finish();
		extension_owner_end(&saved);
		topic_change_drop(topic_id);
		return;
	}

	extension_owner_begin(&saved);
	SPI_connect();
	/* the row first: its trigger tells other sessions by the root table */
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.topic WHERE id = %d", topic_id);
	if (SPI_processed == 0)
		topic_error_unknown(name);	/* another session was quicker */
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.partition WHERE topic_id = %d", topic_id);
	storage_drop_topic(topic_id, true);
	SPI_finish();
	extension_owner_end(&saved);
	slots_forbid_prepare("drop_topic()");
}

int64
topic_delete_messages_here(int32 topic_id, int32 number, int64 before_offset)
{
	ExtensionOwner saved;
	Topic	   *topic = topic_get(topic_id);
	LogPartition *partition = topic_partition_get(topic, number);
	PartitionRow row;
	SlotState	state;
	int64		start;

	partition_state_awaiting(partition, before_offset, &state);
	if (!partition_row_read(partition, &row))
		topic_error_unknown(topic->name);
	if (before_offset > state.high_watermark)
		leader_check_state(partition, &state);
	if (before_offset < 0 || before_offset > state.high_watermark)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("offset " INT64_FORMAT " is out of range for partition %d of topic \"%s\"",
						before_offset, number, topic->name),
				 errdetail("The log starts at " INT64_FORMAT " and messages below the high watermark, " INT64_FORMAT ", can be deleted.",
						   row.log_start, state.high_watermark)));

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.partition SET log_start_offset = " INT64_FORMAT
					  " WHERE topic_id = %d AND partition = %d AND log_start_offset < " INT64_FORMAT,
					  before_offset, topic_id, number, before_offset);
	start = select_int64(psprintf("SELECT log_start_offset FROM pgtopic.partition WHERE topic_id = %d AND partition = %d",
								  topic_id, number));
	SPI_finish();
	extension_owner_end(&saved);
	slots_forbid_prepare("delete_messages()");
	/* the worker removes what is before it */
	database_wake_worker_at_commit(true);
	return start;
}

int64
topic_delete_messages(int32 topic_id, int32 number, int64 before_offset)
{
	Attempt		attempt = {0};
	int64		start = 0;
	int32		leader;

	extension_require_writable("delete_messages()");
	topic_check_owner(topic_get(topic_id));
	do
	{
		leader = partition_leader(topic_id, number, true);
		if (leader == 0)
			start = topic_delete_messages_here(topic_id, number, before_offset);
	} while (leader != 0 &&
			 !forward_delete_messages(leader, topic_id, number, before_offset, &start, &attempt));
	return start;
}
