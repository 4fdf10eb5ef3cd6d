/*-------------------------------------------------------------------------
 *
 * topic_changes.c
 *	  Making, changing and dropping topics in a cluster: through the controller.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "cluster/change.h"
#include "log/topic_changes.h"

#define TOPIC_ARGS	12			/* see arg_topic() in cluster/change.c */

/* Makes a change, and waits until it can be seen here. */
static ChangeResult
change(const char *operation, const char *const *args, int nargs)
{
	ChangeResult result = cluster_change(operation, args, nargs, CLUSTER_WAIT_MS);

	if (!cluster_wait_applied(result.version, CLUSTER_WAIT_MS))
		ereport(WARNING,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the change has been made, but this broker has not applied it yet"),
				 errdetail("It has tried for %d ms.", CLUSTER_WAIT_MS),
				 errhint("See worker_status and the server's log for what keeps it from it.")));
	return result;
}

static const char *
int_text(int64 value)
{
	return psprintf(INT64_FORMAT, value);
}

int32
topic_change_create(const char *name, const TopicOptions *options)
{
	const char *args[TOPIC_ARGS];
	TimestampTz now = GetCurrentTimestamp();

	PreventInTransactionBlock(true, "create_topic() in a cluster");
	args[0] = "0";
	args[1] = name;
	args[2] = GetUserNameFromId(GetUserId(), false);
	args[3] = int_text(options->partitions);
	args[4] = int_text(options->replication_factor);
	args[5] = options->retention ?
		DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(options->retention))) : NULL;
	args[6] = int_text(options->has_retention_bytes ? options->retention_bytes : -1);
	args[7] = int_text(options->segment_messages);
	args[8] = int_text(options->max_message_bytes);
	args[9] = options->value_format;
	args[10] = int_text(options->has_min_insync_replicas ? options->min_insync_replicas : 0);
	args[11] = timestamptz_to_str(now);
	return change(CHANGE_ADD_TOPIC, args, TOPIC_ARGS).id;
}

/* What an option is if nobody says what: as create_topic() has it in SQL. */
static const char *
default_of(const char *option)
{
	if (strcmp(option, "retention") == 0)
		return "'7 days'";
	if (strcmp(option, "segment_messages") == 0)
		return "1000000";
	if (strcmp(option, "max_message_bytes") == 0)
		return "1048576";
	return "NULL";
}

/* A column of the topic as it is, or as it is to be. */
static const char *
column(const char *name, const char *option, const char *value)
{
	if (strcmp(name, option) != 0)
		return name;
	return strcmp(value, "DEFAULT") == 0 ? default_of(option) : value;
}

void
topic_change_alter(int32 topic, const char *option, const char *value)
{
	MemoryContext context = CurrentMemoryContext;
	const char *args[TOPIC_ARGS];
	ExtensionOwner saved;

	PreventInTransactionBlock(true, "alter_topic() in a cluster");
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "SELECT id, name, pg_catalog.pg_get_userbyid(%u), partitions, replication_factor, (%s)::pg_catalog.interval,"
					  " COALESCE((%s)::pg_catalog.int8, -1), (%s)::pg_catalog.int8, (%s)::pg_catalog.int4, value_format,"
					  " COALESCE((%s)::pg_catalog.int4, 0), created_at FROM pgtopic.topic WHERE id = %d",
					  topic_owner(topic_get(topic)), column("retention", option, value),
					  column("retention_bytes", option, value), column("segment_messages", option, value), column("max_message_bytes", option, value),
					  column("min_insync_replicas", option, value), topic);
	if (SPI_processed == 0)
		topic_error_unknown(psprintf("#%d", topic));
	for (int i = 0; i < TOPIC_ARGS; i++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1);

		args[i] = text ? MemoryContextStrdup(context, text) : NULL;
	}
	SPI_finish();
	extension_owner_end(&saved);
	(void) change(CHANGE_ALTER_TOPIC, args, TOPIC_ARGS);
}

void
topic_change_add_partitions(int32 topic, int32 total)
{
	const char *args[2];

	PreventInTransactionBlock(true, "add_partitions() in a cluster");
	args[0] = int_text(topic);
	args[1] = int_text(total);
	(void) change(CHANGE_ADD_PARTITIONS, args, 2);
}

void
topic_change_drop(int32 topic)
{
	const char *args[1];

	PreventInTransactionBlock(true, "drop_topic() in a cluster");
	args[0] = int_text(topic);
	(void) change(CHANGE_DROP_TOPIC, args, 1);
}
