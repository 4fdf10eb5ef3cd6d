/*-------------------------------------------------------------------------
 *
 * apply.c
 *	  Making this broker's catalog and storage what the committed metadata says.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "cluster/apply.h"
#include "cluster/publish.h"
#include "cluster/store.h"
#include "cluster/subscribe.h"
#include "shmem/cluster_state.h"
#include "shmem/databases.h"
#include "shmem/slots.h"
#include "storage/epochs.h"
#include "storage/partition_state.h"
#include "storage/relation.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"

/* A transaction of its own, as the extension's owner. */
static void
begin(ExtensionOwner *saved)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension_owner_begin(saved);
	SPI_connect();
}

static void
end(ExtensionOwner *saved, MemoryContext context)
{
	SPI_finish();
	extension_owner_end(saved);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

static char *
literal_or_null(const char *text)
{
	return text ? quote_literal_cstr(text) : pstrdup("NULL");
}

static char *
array_literal(const int32 *ids, int count)
{
	StringInfoData array;

	initStringInfo(&array);
	appendStringInfoString(&array, "'{");
	for (int i = 0; i < count; i++)
		appendStringInfo(&array, "%s%d", i > 0 ? "," : "", ids[i]);
	appendStringInfoString(&array, "}'");
	return array.data;
}

/* A query's first column, in memory of the given context. */
static int32 *
read_ids(const char *query, MemoryContext context, int *count)
{
	int32	   *ids;

	extension_execute(SPI_OK_SELECT, "%s", query);
	*count = (int) SPI_processed;
	ids = MemoryContextAlloc(context, (*count + 1) * sizeof(int32));
	for (int i = 0; i < *count; i++)
	{
		bool		isnull;

		ids[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	return ids;
}

static bool
has_replica_here(const ImagePartition *partition, int32 self)
{
	return partition_has_replica(partition, self);
}

/* How often a broker was fenced, as of the metadata that was applied last; -1: not known. */
static int32
fencings_applied(int32 broker)
{
	bool		isnull;

	extension_execute(SPI_OK_SELECT, "SELECT fencings FROM pgtopic.broker WHERE id = %d", broker);
	if (SPI_processed == 0)
		return -1;
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * Whether what a broker has published is of no use any more: it was fenced since this
 * one looked last, or is gone.  For what it led others may lead now.
 */
static bool
is_deposed(const Image *image, int32 id)
{
	const ImageBroker *broker = image_broker(image, id);

	return broker == NULL || broker->fencings > Max(fencings_applied(id), 0);
}

/*
 * Transactions that sessions of a broker have begun here, and that it cannot end, end.
 * They may have locks and, with their transaction ids, keep tables from being copied.
 * A session is known by the application_name that brokers have (peer/connect.h).
 */
static void
end_transactions_of(int32 broker)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
					  " WHERE application_name = 'pgtopic broker %d' AND datname = pg_catalog.current_database()"
					  " AND backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()",
					  broker);
}

/*
 * Whether this broker is to lead something that it had not everything of: what others
 * had may still come through any subscription.
 */
static bool
leads_unclean(const Image *image, int32 self)
{
	for (int i = 0; i < image->partitions_count; i++)
	{
		const ImagePartition *partition = &image->partitions[i];
		PartitionRow row;

		if (partition->leader == self && partition->leader_epoch == partition->unclean_epoch &&
			partition_row_by_number(partition->topic, partition->number, &row) &&
			row.leader_epoch < partition->leader_epoch)
			return true;
	}
	return false;
}

/*
 * First of all, nothing is received any more from brokers that were fenced, or are
 * gone: what they have written since they were is nobody's, and whoever confirms it to
 * them lets them acknowledge it.  It can be done twice; note_fencings() says that it was
 * done.
 */
static void
part_from_deposed(const Image *image, int32 self)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int			count;
	int32	   *leaders;
	int			deposed = 0;
	bool		all;

	begin(&saved);
	all = leads_unclean(image, self);
	MemoryContextSwitchTo(context);
	leaders = subscribe_leaders(&count);
	for (int i = 0; i < count; i++)
	{
		if (all || is_deposed(image, leaders[i]))
			leaders[deposed++] = leaders[i];
	}
	for (int i = 0; i < image->brokers_count; i++)
	{
		if (image->brokers[i].id != self && is_deposed(image, image->brokers[i].id))
			end_transactions_of(image->brokers[i].id);
	}
	end(&saved, context);

	for (int i = 0; i < deposed; i++)
	{
		ereport(LOG,
				(errmsg("pgtopic receives nothing from broker %d for now", leaders[i]),
				 all ? errdetail("This broker is elected to lead what it may not have everything of.") :
				 image_broker(image, leaders[i]) ? errdetail("The controller has not heard of it for pgtopic.broker_session_timeout.") :
				 errdetail("It has left the cluster.")));
		subscribe_drop(leaders[i], false);
	}
}

static void
apply_brokers(const Image *image)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	StringInfoData ids;

	begin(&saved);
	initStringInfo(&ids);
	for (int i = 0; i < image->brokers_count; i++)
	{
		const ImageBroker *broker = &image->brokers[i];

		const char *conninfo = broker->conninfo;

		extension_execute_params(SPI_OK_INSERT,
								 psprintf("INSERT INTO pgtopic.broker AS b (id, conninfo, leaving) VALUES (%d, $1, %s)"
										  " ON CONFLICT (id) DO UPDATE SET conninfo = excluded.conninfo, leaving = excluded.leaving"
										  " WHERE b.conninfo <> excluded.conninfo OR b.leaving <> excluded.leaving",
										  broker->id, broker->leaving ? "true" : "false"),
								 1, &conninfo);
		appendStringInfo(&ids, "%s%d", i > 0 ? ", " : "", broker->id);
	}
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.broker WHERE id NOT IN (%s)", ids.data);
	cluster_invalidate();
	end(&saved, context);
}

/* Has sessions know who is fenced, by the catalog. */
static void
tell_fenced(void)
{
	int			count;
	int32	   *fenced = read_ids("SELECT id FROM pgtopic.broker WHERE fenced", CurrentMemoryContext, &count);

	cluster_state_set_fenced(fenced, count);
}

void
apply_after_restart(void)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	begin(&saved);
	tell_fenced();
	end(&saved, context);
}

/*
 * Last of all, when the catalog says of all partitions who leads them now: a broker
 * that was fenced itself lets go of its followers; what these have confirmed says nothing
 * any more.  Not before: if it crashed in between, it would come up as the leader that
 * it was, and know of no follower that it has to wait for.
 */
static void
note_fencings(const Image *image, int32 self)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	begin(&saved);
	if (is_deposed(image, self))
		publish_end_all();
	end(&saved, context);

	begin(&saved);
	for (int i = 0; i < image->brokers_count; i++)
	{
		const ImageBroker *broker = &image->brokers[i];

		extension_execute(SPI_OK_UPDATE,
						  "UPDATE pgtopic.broker SET fenced = %s, fencings = %d"
						  " WHERE id = %d AND (fenced, fencings) IS DISTINCT FROM (%s, %d)",
						  broker->fenced ? "true" : "false", broker->fencings, broker->id,
						  broker->fenced ? "true" : "false", broker->fencings);
	}
	tell_fenced();
	end(&saved, context);
}

/* Of a topic's partitions that have tables here. */
static SlotKey *
slot_keys(int32 topic_id, MemoryContext context, int *count)
{
	Topic	   *topic = topic_find_any(topic_id);
	int			partitions = topic ? topic->partitions_count : 0;
	SlotKey    *keys = MemoryContextAlloc(context, (partitions + 1) * sizeof(SlotKey));

	*count = 0;
	for (int p = 0; p < partitions; p++)
	{
		if (OidIsValid(topic->partitions[p].relation))
			keys[(*count)++] = topic->partitions[p].slot.key;
	}
	return keys;
}

/*
 * Topics that the image has not are gone for everybody from here on.  Their tables go
 * when nobody is in the way: see worker/leftovers.c.
 */
static void
drop_topics(const Image *image)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int32	   *gone;
	int			count;

	begin(&saved);
	gone = read_ids("SELECT id FROM pgtopic.topic ORDER BY id", context, &count);
	end(&saved, context);

	for (int i = 0; i < count; i++)
	{
		SlotKey    *keys;
		int			keys_count;

		if (image_topic(image, gone[i]))
			continue;
		begin(&saved);
		keys = slot_keys(gone[i], context, &keys_count);
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.topic WHERE id = %d", gone[i]);
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.partition WHERE topic_id = %d", gone[i]);
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.replica WHERE topic_id = %d", gone[i]);
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.follower WHERE topic_id = %d", gone[i]);
		relation_try_drop(gone[i]);
		/* what the worker is about to store goes with the tables */
		segment_statistics_delete_topic(gone[i]);
		/* by this the name would still be found: see topic_id_by_storage_comment() */
		if (OidIsValid(extension_relation(psprintf("t%d", gone[i]))))
			extension_execute(SPI_OK_UTILITY, "COMMENT ON TABLE pgtopic.t%d IS NULL", gone[i]);
		end(&saved, context);
		/* who has produced there and commits now waits for no follower: they do not copy it */
		for (int k = 0; k < keys_count; k++)
			slot_set_replicas(&keys[k], 0, 0, 1);
	}
}

/* The owner by name, or the extension's, where there is no such role here. */
static Oid
owner_of(const ImageTopic *topic)
{
	Oid			owner = get_role_oid(topic->owner, true);

	if (OidIsValid(owner))
		return owner;
	ereport(LOG,
			(errmsg("pgtopic topic \"%s\" belongs to the extension's owner here, since there is no role \"%s\"",
					topic->name, topic->owner),
			 errhint("Make the role on all brokers, and use ALTER FOREIGN TABLE %s OWNER TO.",
					 quote_qualified_identifier(TOPICS_SCHEMA, topic->name))));
	return GetUserId();
}

static void
apply_topic_row(const ImageTopic *topic)
{
	extension_execute(SPI_OK_INSERT,
					  "INSERT INTO pgtopic.topic AS t (id, name, partitions, replication_factor, retention,"
					  " retention_bytes, segment_messages, max_message_bytes, value_format,"
					  " min_insync_replicas, created_at)"
					  " VALUES (%d, %s, %d, %d, %s::pg_catalog.interval, %s, " INT64_FORMAT ", %d, %s, %s,"
					  " %s::pg_catalog.timestamptz)"
					  " ON CONFLICT (id) DO UPDATE SET partitions = excluded.partitions,"
					  " replication_factor = excluded.replication_factor,"
					  " retention = excluded.retention, retention_bytes = excluded.retention_bytes,"
					  " segment_messages = excluded.segment_messages,"
					  " max_message_bytes = excluded.max_message_bytes,"
					  " min_insync_replicas = excluded.min_insync_replicas"
					  " WHERE (t.partitions, t.replication_factor, t.retention, t.retention_bytes,"
					  " t.segment_messages, t.max_message_bytes, t.min_insync_replicas)"
					  " IS DISTINCT FROM (excluded.partitions, excluded.replication_factor,"
					  " excluded.retention, excluded.retention_bytes, excluded.segment_messages,"
					  " excluded.max_message_bytes, excluded.min_insync_replicas)",
					  topic->id, quote_literal_cstr(topic->name), topic->partitions,
					  topic->replication_factor, literal_or_null(topic->retention),
					  topic->retention_bytes < 0 ? "NULL" : psprintf(INT64_FORMAT, topic->retention_bytes),
					  topic->segment_messages, topic->max_message_bytes,
					  quote_literal_cstr(topic->value_format),
					  topic->min_insync_replicas <= 0 ? "NULL" : psprintf("%d", topic->min_insync_replicas),
					  quote_literal_cstr(topic->created_at));
}

/* The row of a partition; true if it has changed. */
static bool
apply_partition_row(const ImagePartition *partition, int32 self)
{
	char	   *replicas = array_literal(partition->replicas, partition->replicas_count);
	char	   *placements = array_literal(partition->placed, partition->replicas_count);
	char	   *isr = array_literal(partition->isr, partition->isr_count);
	const char *has_tables = has_replica_here(partition, self) ? "true" : "false";

	/* what is known of followers is about the epoch that it was found out in */
	extension_execute(SPI_OK_DELETE,
					  "DELETE FROM pgtopic.follower f USING pgtopic.partition p"
					  " WHERE f.topic_id = %d AND f.partition = %d AND p.topic_id = f.topic_id"
					  " AND p.partition = f.partition AND p.leader_epoch <> %d",
					  partition->topic, partition->number, partition->leader_epoch);
	extension_execute(SPI_OK_INSERT,
					  "INSERT INTO pgtopic.partition AS p (topic_id, partition, leader, leader_epoch, revision, unclean_epoch,"
					  " successor, replicas, placements, isr, has_tables) VALUES (%d, %d, %d, %d, %d, %d, %d, %s, %s, %s, %s)"
					  " ON CONFLICT (topic_id, partition) DO UPDATE SET leader = excluded.leader,"
					  " leader_epoch = excluded.leader_epoch, revision = excluded.revision, unclean_epoch = excluded.unclean_epoch,"
					  " successor = excluded.successor, replicas = excluded.replicas, placements = excluded.placements,"
					  " isr = excluded.isr, has_tables = excluded.has_tables"
					  " WHERE (p.leader, p.leader_epoch, p.revision, p.unclean_epoch, p.successor, p.replicas, p.placements,"
					  " p.isr, p.has_tables)"
					  " IS DISTINCT FROM (excluded.leader, excluded.leader_epoch, excluded.revision, excluded.unclean_epoch,"
					  " excluded.successor, excluded.replicas, excluded.placements, excluded.isr, excluded.has_tables)",
					  partition->topic, partition->number, partition->leader, partition->leader_epoch,
					  partition->revision, partition->unclean_epoch, partition->successor, replicas, placements, isr,
					  has_tables);
	return SPI_processed > 0;
}

/* Makes the tables of a partition that this broker has a replica of. */
static void
apply_storage(const ImageTopic *topic, const ImagePartition *partition, int32 self)
{
	if (!has_replica_here(partition, self))
	{
		/*
		 * The tables go later, in worker/leftovers.c.  Should the replica come
		 * back before that, it is copied on from where its copy is right, like any
		 * other after a change of the leader.
		 */
		extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.replica SET leader = 0, leader_epoch = 0"
						  " WHERE topic_id = %d AND partition = %d AND leader <> 0",
						  topic->id, partition->number);
	}
	else if (!OidIsValid(extension_relation(psprintf("t%d_p%d", topic->id, partition->number))))
	{
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.replica WHERE topic_id = %d AND partition = %d",
						  topic->id, partition->number);
		storage_create_partition(topic->id, partition->number, topic->segment_messages);
	}
	/* what is known of followers is about those of today, if this broker leads */
	extension_execute(SPI_OK_DELETE,
					  "DELETE FROM pgtopic.follower f USING pgtopic.partition p"
					  " WHERE f.topic_id = %d AND f.partition = %d AND p.topic_id = f.topic_id"
					  " AND p.partition = f.partition AND (p.leader <> %d OR f.placement IS DISTINCT FROM"
					  " p.placements[pg_catalog.array_position(p.replicas, f.follower)])",
					  topic->id, partition->number, self);
}

/*
 * Has it known where the new leader epochs of partitions begin that this broker is to
 * lead: before the catalog says so, since from then on sessions write there.
 */
static void
begin_epochs(const Image *image, const ImageTopic *topic, int32 self)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	Topic	   *known;

	begin(&saved);
	known = topic_find_any(topic->id);
	for (int i = 0; known && !known->damaged && i < image->partitions_count; i++)
	{
		const ImagePartition *next = &image->partitions[i];
		LogPartition *partition;

		if (next->topic != topic->id || next->leader != self ||
			next->number >= known->partitions_count)
			continue;
		partition = &known->partitions[next->number];
		if (OidIsValid(partition->positions) && next->leader_epoch > partition->leader_epoch)
			epoch_begin(partition, next->leader_epoch);
	}
	end(&saved, context);
}

/* Does nothing if it is there. */
static void
make_relation(const ImageTopic *topic)
{
	TopicRow	row;

	if (!OidIsValid(relation_of_topic(topic->id, topic->name)) &&
		topic_row_by_id(topic->id, &row))
		relation_make(topic->id, topic->name, row.format, owner_of(topic), false);
}

/* All of one topic, in one transaction: nobody sees a topic with half its partitions. */
static void
apply_topic(const Image *image, const ImageTopic *topic, int32 self)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	bool		changed = false;

	begin_epochs(image, topic, self);
	begin(&saved);
	apply_topic_row(topic);
	changed = SPI_processed > 0;
	if (!OidIsValid(extension_relation(psprintf("t%d", topic->id))))
		storage_create_topic(topic->id, topic->name);
	make_relation(topic);
	for (int i = 0; i < image->partitions_count; i++)
	{
		const ImagePartition *partition = &image->partitions[i];

		if (partition->topic != topic->id)
			continue;
		CHECK_FOR_INTERRUPTS();
		changed |= apply_partition_row(partition, self);
		apply_storage(topic, partition, self);
	}
	if (changed)
	{
		storage_adopt(topic->id);
		topic_invalidate(topic->id);
		/* a group's consumers look for the new leaders */
		slots_wake_at_end(topic->id, true);
	}
	end(&saved, context);
	if (!changed)
		return;

	begin(&saved);
	apply_to_slots(topic->id);
	end(&saved, context);
}

void
apply_to_slots(int32 topic_id)
{
	Topic	   *topic = topic_find_any(topic_id);

	if (topic == NULL || topic->damaged)
		return;
	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition = &topic->partitions[p];

		if (OidIsValid(partition->relation))
			(void) partition_update_slot(partition);
	}
}

void
apply_image(const Image *image, int32 self, int64 version)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	part_from_deposed(image, self);
	apply_brokers(image);
	drop_topics(image);
	for (int i = 0; i < image->topics_count; i++)
		apply_topic(image, &image->topics[i], self);
	note_fencings(image, self);

	begin(&saved);
	/* if the database leaves the cluster one day, ids go on from here */
	extension_execute(SPI_OK_SELECT,
					  "SELECT pg_catalog.setval('pgtopic.topic_id_seq', %d, false)", image->next_topic);
	store_set_applied(version);
	end(&saved, context);
	cluster_state_set_applied(version);
}

void
apply_no_topics(void)
{
	int			count;

	/* those included that worker/leftovers.c has not come to */
	int32	   *ids = read_ids("SELECT pg_catalog.substr(relname, 2)::pg_catalog.int4 FROM pg_catalog.pg_class"
							   " WHERE relkind = 'p' AND relname ~ '^t\\d+$'"
							   " AND relnamespace = 'pgtopic'::pg_catalog.regnamespace", CurrentMemoryContext, &count);

	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.topic");
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.partition");
	for (int i = 0; i < count; i++)
		storage_drop_topic(ids[i], true);
}

static char *
column_text(int row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

Image *
image_from_catalog(const char *cluster_id, const char *conninfo)
{
	Image	   *image = image_new(cluster_id);
	ImageProblem problem = {0};
	int32		broker;
	int			count;
	ImageTopic *topics;

	if (!image_add_broker(image, conninfo, &broker, &problem))
		elog(ERROR, "%s", problem.message);
	extension_execute(SPI_OK_SELECT,
					  "SELECT t.id, t.name, pg_catalog.pg_get_userbyid(COALESCE(f.relowner, c.relowner)), t.partitions,"
					  " t.replication_factor, t.retention, t.retention_bytes, t.segment_messages,"
					  " t.max_message_bytes, t.value_format, t.min_insync_replicas, t.created_at"
					  " FROM pgtopic.topic t JOIN pg_catalog.pg_class c"
					  " ON c.relname = 't' || t.id AND c.relnamespace = 'pgtopic'::pg_catalog.regnamespace"
					  " LEFT JOIN pg_catalog.pg_class f ON f.relname = t.name AND f.relkind = 'f'"
					  " AND f.relnamespace = '" TOPICS_SCHEMA "'::pg_catalog.regnamespace"
					  " ORDER BY t.id");
	count = (int) SPI_processed;
	topics = palloc0(Max(count, 1) * sizeof(ImageTopic));
	for (int i = 0; i < count; i++)
	{
		char	   *bytes = column_text(i, 7);
		char	   *insync = column_text(i, 11);

		topics[i].id = atoi(column_text(i, 1));
		topics[i].name = column_text(i, 2);
		topics[i].owner = column_text(i, 3);
		topics[i].partitions = atoi(column_text(i, 4));
		topics[i].replication_factor = atoi(column_text(i, 5));
		topics[i].retention = column_text(i, 6);
		topics[i].retention_bytes = bytes ? strtoll(bytes, NULL, 10) : -1;
		topics[i].segment_messages = strtoll(column_text(i, 8), NULL, 10);
		topics[i].max_message_bytes = atoi(column_text(i, 9));
		topics[i].value_format = column_text(i, 10);
		topics[i].min_insync_replicas = insync ? atoi(insync) : 0;
		topics[i].created_at = column_text(i, 12);
	}
	for (int i = 0; i < count; i++)
	{
		int32		id;

		/* with the id that it has */
		image->next_topic = topics[i].id;
		if (!image_add_topic(image, &topics[i], 0, 0, &id, &problem))
			elog(ERROR, "%s", problem.message);
	}
	extension_execute(SPI_OK_SELECT, "SELECT last_value::pg_catalog.int4 + is_called::pg_catalog.int4"
					  " FROM pgtopic.topic_id_seq");
	image->next_topic = Max(image->next_topic, atoi(column_text(0, 1)));
	return image;
}
