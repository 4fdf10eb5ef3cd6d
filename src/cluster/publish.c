/*-------------------------------------------------------------------------
 *
 * publish.c
 *	  The leader's side of replication: publications for each follower.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/compat.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/topics.h"
#include "cluster/publish.h"
#include "shmem/databases.h"
#include "shmem/followers.h"
#include "shmem/slots.h"
#include "storage/epochs.h"
#include "storage/partition_locks.h"
#include "storage/partition_state.h"

/* How long the end of a walsender is waited for, before its slot is dropped. */
#define WALSENDER_END_MS	5000

char *
publication_name(int32 follower, bool positions)
{
	return psprintf("pgtopic_to_%d%s", follower, positions ? "_positions" : "");
}

static bool
exists(const char *sql)
{
	extension_execute(SPI_OK_SELECT, "%s", sql);
	return SPI_processed > 0;
}

static bool
publication_exists(const char *name)
{
	return exists(psprintf("SELECT FROM pg_catalog.pg_publication WHERE pubname = %s",
						   quote_literal_cstr(name)));
}

static bool
is_published(const char *publication, const char *table)
{
	return exists(psprintf("SELECT FROM pg_catalog.pg_publication_rel r"
						   " JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid"
						   " JOIN pg_catalog.pg_class c ON c.oid = r.prrelid"
						   " WHERE p.pubname = %s AND c.relname = %s AND c.relnamespace = 'pgtopic'::pg_catalog.regnamespace",
						   quote_literal_cstr(publication), quote_literal_cstr(table)));
}

static char *
slot_name(int32 follower)
{
	char	   *name = palloc(NAMEDATALEN);

	follower_slot_name(cluster_id(), cluster_self(), follower, name);
	return name;
}

const char *
publish_begin(int32 follower)
{
	ExtensionOwner saved;
	const char *state = "none";

	pfree(broker_conninfo(follower));	/* raises an error if there is no such broker */
	extension_owner_begin(&saved);
	SPI_connect();
	/* a publication has to be there before the slot that decodes for it */
	if (!publication_exists(publication_name(follower, false)))
		extension_execute(SPI_OK_UTILITY,
						  "CREATE PUBLICATION %s WITH (publish = 'insert', publish_via_partition_root = true)",
						  publication_name(follower, false));
	if (!publication_exists(publication_name(follower, true)))
		extension_execute(SPI_OK_UTILITY,
						  "CREATE PUBLICATION %s WITH (publish = 'insert, update, delete')",
						  publication_name(follower, true));
	extension_execute(SPI_OK_SELECT,
					  "SELECT wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = %s",
					  quote_literal_cstr(slot_name(follower)));
	if (SPI_processed > 0)
	{
		char	   *wal_status = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		state = wal_status && strcmp(wal_status, "lost") == 0 ? "lost" : "ready";
	}
	SPI_finish();
	extension_owner_end(&saved);
	return state;
}

void
publish_create_slot(int32 follower)
{
	ExtensionOwner saved;

	ResourceOwner owner;
	char	   *slot = slot_name(follower);
	bool		there;

	extension_owner_begin(&saved);
	SPI_connect();
	there = exists(psprintf("SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = %s",
							quote_literal_cstr(slot)));
	SPI_finish();
	/*
	 * Not by SPI: where the slot has to wait for transactions, the decoding of their
	 * invalidations leaves another resource owner behind, and the query's snapshot
	 * would be "not owned by resource owner".
	 */
	owner = CurrentResourceOwner;
	if (!there)
		compat_create_logical_slot(slot);
	CurrentResourceOwner = owner;
	extension_owner_end(&saved);
}

/* The partition, if this broker leads it in that epoch and the follower is a replica. */
static LogPartition *
led_partition(int32 follower, int32 topic_id, int32 number, int32 leader_epoch, int32 placement)
{
	Topic	   *topic = topic_find_any(topic_id);
	LogPartition *partition;
	PartitionRow row;
	bool		is_replica = false;

	/* the follower has newer metadata than we, or older */
	if (topic == NULL || number >= topic->partitions_count)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("broker %d does not know partition %d of topic #%d", cluster_self(), number, topic_id)));
	partition = topic_partition_get(topic, number);
	if (!partition_row_read(partition, &row) || row.leader != cluster_self() ||
		row.leader_epoch != leader_epoch)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("broker %d does not lead partition %d of topic \"%s\" in epoch %d",
						cluster_self(), number, topic->name, leader_epoch)));
	for (int i = 0; i < row.replicas_count; i++)
		is_replica |= row.replicas[i] == follower && row.placements[i] == placement;
	if (!is_replica)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("broker %d has no replica of partition %d of topic \"%s\"",
						follower, number, topic->name)));
	return partition;
}

/* Takes one table out of a publication, if it is in it. */
static void
drop_table(const char *publication, const char *table)
{
	if (publication_exists(publication) && is_published(publication, table))
		extension_execute(SPI_OK_UTILITY, "ALTER PUBLICATION %s DROP TABLE pgtopic.%s",
						  quote_identifier(publication), quote_identifier(table));
}

static void
drop_partition(int32 follower, int32 topic, int32 partition)
{
	drop_table(publication_name(follower, false), psprintf("t%d_p%d", topic, partition));
	drop_table(publication_name(follower, true), psprintf("t%d_p%d_offsets", topic, partition));
}

/* topic 0: of all partitions; partition -1: of all of the topic's.  Newer attempts stay. */
static void
forget(int32 follower, int32 topic, int32 number, int64 attempt)
{
	char	   *which = psprintf("follower = %d AND %d IN (0, topic_id) AND %d IN (-1, partition) AND attempt <= " INT64_FORMAT,
								 follower, topic, topic == 0 ? -1 : number, attempt);

	/* who is waited for is let go by the leader's worker, which tells the slot; the others have nothing to lose */
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.follower WHERE %s AND state NOT IN ('"
					  FOLLOWER_IS_READY "', '" FOLLOWER_IS_JOINING "', '" FOLLOWER_IS_FORGOTTEN "')", which);
	extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.follower SET state = '" FOLLOWER_IS_FORGOTTEN "',"
					  " since = pg_catalog.clock_timestamp() WHERE %s AND state <> '" FOLLOWER_IS_FORGOTTEN "'", which);
}

void
publish_forget(int32 follower, int32 topic, int32 number, int64 attempt)
{
	ExtensionOwner saved;

	if (topic != 0)
		partition_lock_replicas(topic, number);
	extension_owner_begin(&saved);
	SPI_connect();
	forget(follower, topic, number, attempt);
	SPI_finish();
	extension_owner_end(&saved);
	/* who is in sync has to be taken out */
	database_wake_at_commit(WORKER_REPLICATION);
}

void
publish_release(int32 follower, int32 topic, int32 number)
{
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.follower WHERE topic_id = %d AND partition = %d"
					  " AND follower = %d AND state = '" FOLLOWER_IS_FORGOTTEN "'", topic, number, follower);
}

/* A copy that is begun anew is not what the in-sync replicas are to be. */
static void
check_nothing_to_lose(int32 follower, const LogPartition *partition)
{
	PartitionRow row;
	bool		forgotten;

	if (!exists(psprintf("SELECT FROM pgtopic.follower WHERE topic_id = %d AND partition = %d AND follower = %d",
						 partition->topic->id, partition->number, follower)) ||
		!partition_row_read(partition, &row))
		return;
	forgotten = exists(psprintf("SELECT FROM pgtopic.follower WHERE topic_id = %d AND partition = %d AND follower = %d"
								" AND state = '" FOLLOWER_IS_FORGOTTEN "'",
								partition->topic->id, partition->number, follower));
	for (int i = 0; i < row.isr_count || forgotten; i++)
	{
		if (forgotten || row.isr[i] == follower)
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("broker %d still counts as in sync with partition %d of topic \"%s\"",
							follower, partition->number, partition->topic->name)));
	}
}

/*
 * The attempt that a follower's row is of; -1: there is no row.  An error if it is newer:
 * then this is a call that the follower has given up, and repeated, long ago.
 */
static int64
check_attempt(int32 follower, int32 topic, int32 number, int64 attempt)
{
	int64		known;
	bool		isnull;

	extension_execute(SPI_OK_SELECT, "SELECT attempt FROM pgtopic.follower"
					  " WHERE topic_id = %d AND partition = %d AND follower = %d", topic, number, follower);
	if (SPI_processed == 0)
		return -1;
	known = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (known > attempt)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("broker %d has begun another copy of partition %d of topic #%d meanwhile",
						follower, number, topic)));
	return known;
}

void
publish_remove(int32 follower, int32 topic, int32 number, int32 leader_epoch, int32 placement, int64 attempt)
{
	ExtensionOwner saved;

	partition_lock_replicas(topic, number);
	extension_owner_begin(&saved);
	SPI_connect();
	(void) check_attempt(follower, topic, number, attempt);
	check_nothing_to_lose(follower, led_partition(follower, topic, number, leader_epoch, placement));
	(void) partition_update_slot(led_partition(follower, topic, number, leader_epoch, placement));
	extension_execute(SPI_OK_DELETE,
					  "DELETE FROM pgtopic.follower WHERE topic_id = %d AND partition = %d AND follower = %d",
					  topic, number, follower);
	drop_partition(follower, topic, number);
	SPI_finish();
	extension_owner_end(&saved);
}

bool
publish_change_state(int32 follower, int32 topic, int32 number, const char *from, const char *to)
{
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.follower SET state = %s, since = pg_catalog.clock_timestamp()"
					  " WHERE topic_id = %d AND partition = %d AND follower = %d AND state = %s",
					  quote_literal_cstr(to), topic, number, follower, quote_literal_cstr(from));
	return SPI_processed > 0;
}

bool
publish_add(int32 follower, int32 topic, int32 number, int32 leader_epoch, int32 placement,
			int64 from_offset, int64 attempt)
{
	char	   *data = publication_name(follower, false);
	char	   *positions = publication_name(follower, true);
	ExtensionOwner saved;
	bool		published;
	bool		same;

	partition_lock_replicas(topic, number);
	extension_owner_begin(&saved);
	SPI_connect();
	(void) led_partition(follower, topic, number, leader_epoch, placement);
	same = check_attempt(follower, topic, number, attempt) == attempt;
	published = is_published(data, psprintf("t%d_p%d", topic, number)) ||
		is_published(positions, psprintf("t%d_p%d_offsets", topic, number));
	if (published)
	{
		/* the follower has not heard our last answer, or it is not what it asks for */
		SPI_finish();
		extension_owner_end(&saved);
		return same;
	}
	if (from_offset > 0)
		extension_execute(SPI_OK_UTILITY, "ALTER PUBLICATION %s ADD TABLE pgtopic.t%d_p%d WHERE (last_offset >= "
						  INT64_FORMAT ")", data, topic, number, from_offset);
	else
		extension_execute(SPI_OK_UTILITY, "ALTER PUBLICATION %s ADD TABLE pgtopic.t%d_p%d", data, topic, number);
	extension_execute(SPI_OK_UTILITY, "ALTER PUBLICATION %s ADD TABLE pgtopic.t%d_p%d_offsets",
					  positions, topic, number);
	extension_execute(SPI_OK_INSERT,
					  "INSERT INTO pgtopic.follower (topic_id, partition, follower, placement, attempt, state, since)"
					  " VALUES (%d, %d, %d, %d, " INT64_FORMAT ", '" FOLLOWER_IS_PUBLISHED "', pg_catalog.clock_timestamp())"
					  " ON CONFLICT (topic_id, partition, follower) DO UPDATE SET placement = excluded.placement,"
					  " attempt = excluded.attempt, state = excluded.state, since = excluded.since",
					  topic, number, follower, placement, attempt);
	SPI_finish();
	extension_owner_end(&saved);
	return true;
}

void
publish_log_range(int32 follower, int32 topic, int32 number, int32 leader_epoch, int32 placement,
				  int64 *log_start, int64 *log_end)
{
	LogPartition *partition = led_partition(follower, topic, number, leader_epoch, placement);
	SlotState	state;

	partition_state(partition, &state);
	*log_start = partition_log_start(partition);
	*log_end = state.next_offset;
}

int64
publish_agreed(int32 follower, int32 topic, int32 number, int32 leader_epoch, int32 placement,
			   int32 newest_epoch)
{
	return epoch_agreed(led_partition(follower, topic, number, leader_epoch, placement), newest_epoch);
}

char *
publish_open_partitions(void)
{
	ExtensionOwner saved;
	StringInfoData list;
	int			position = 0;
	int32		topic;
	int32		partition;
	char	   *storing = NULL;

	initStringInfo(&list);
	while (slots_next_open(&position, &topic, &partition))
		appendStringInfo(&list, " t%d_p%d ", topic, partition);

	/* its transactions are short */
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "SELECT pg_catalog.string_agg(pg_catalog.format(' t%%s_p%%s ', p.topic_id, p.partition), '')"
					  " FROM pgtopic.partition p WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_activity a"
					  " WHERE a.datid = %u AND a.backend_type = 'pgtopic maintenance' AND a.backend_xid IS NOT NULL)",
					  MyDatabaseId);
	storing = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (storing)
		appendStringInfoString(&list, storing);
	SPI_finish();
	extension_owner_end(&saved);
	return list.data;
}

bool
publish_ready(int32 follower, int32 topic, int32 number, int32 leader_epoch, int32 placement,
			  int64 attempt)
{
	ExtensionOwner saved;
	char	   *which = psprintf("topic_id = %d AND partition = %d AND follower = %d AND attempt = " INT64_FORMAT,
								 topic, number, follower, attempt);
	bool		known;
	bool		news;

	extension_owner_begin(&saved);
	SPI_connect();
	(void) led_partition(follower, topic, number, leader_epoch, placement);
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.follower SET state = '" FOLLOWER_IS_REPORTED "', since = pg_catalog.clock_timestamp()"
					  " WHERE %s AND state = '" FOLLOWER_IS_PUBLISHED "'", which);
	news = SPI_processed > 0;
	/* it may have reported before */
	known = exists(psprintf("SELECT FROM pgtopic.follower WHERE %s AND state <> '" FOLLOWER_IS_FORGOTTEN "'", which));
	SPI_finish();
	extension_owner_end(&saved);
	if (news)
		database_wake_at_commit(WORKER_REPLICATION);
	return known;
}

/* Ends the walsender that uses a slot, and waits until it has let go of it. */
static void
end_walsender(const char *slot)
{
	for (int waited = 0; waited < WALSENDER_END_MS; waited += 20)
	{
		if (!exists(psprintf("SELECT pg_catalog.pg_terminate_backend(active_pid)"
							 " FROM pg_catalog.pg_replication_slots WHERE slot_name = %s AND active",
							 quote_literal_cstr(slot))))
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
publish_end(int32 follower)
{
	ExtensionOwner saved;
	char	   *slot = slot_name(follower);

	extension_owner_begin(&saved);
	SPI_connect();
	forget(follower, 0, -1, PG_INT64_MAX);
	/* a slot of the same name that is made later has not what this one has confirmed */
	follower_forget(MyDatabaseId, follower);
	extension_execute(SPI_OK_UTILITY, "DROP PUBLICATION IF EXISTS %s, %s",
					  publication_name(follower, false), publication_name(follower, true));
	end_walsender(slot);
	(void) exists(psprintf("SELECT pg_catalog.pg_drop_replication_slot(slot_name)"
						   " FROM pg_catalog.pg_replication_slots WHERE slot_name = %s",
						   quote_literal_cstr(slot)));
	SPI_finish();
	extension_owner_end(&saved);
}

int
publish_drop_sync_slots(const char *system_identifier, const char *subscriptions)
{
	ExtensionOwner saved;
	const char *params[2] = {system_identifier, subscriptions};
	int			count;

	extension_owner_begin(&saved);
	SPI_connect();
	/* the names are those of ReplicationSlotNameForTablesync() */
	extension_execute_params(SPI_OK_SELECT,
							 "SELECT pg_catalog.pg_drop_replication_slot(x.slot_name) FROM"
							 " (SELECT s.slot_name, pg_catalog.regexp_match(s.slot_name, '^pg_(\\d+)_sync_\\d+_(\\d+)$') AS name"
							 " FROM pg_catalog.pg_replication_slots s"
							 " WHERE NOT s.active AND s.database = pg_catalog.current_database()) x"
							 " WHERE x.name[2] = $1 AND x.name[1]::pg_catalog.oid <> ALL ($2::pg_catalog.oid[])", 2, params);
	count = (int) SPI_processed;
	SPI_finish();
	extension_owner_end(&saved);
	return count;
}

/* The followers that have something here, in the caller's memory. */
static int32 *
followers_published(const char *condition, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	int32	   *followers;

	extension_execute(SPI_OK_SELECT,
					  "SELECT x.follower::pg_catalog.int8 FROM"
					  " (SELECT pg_catalog.substring(pubname, '^pgtopic_to_(\\d+)$')::pg_catalog.int4 AS follower"
					  " FROM pg_catalog.pg_publication WHERE pubname ~ '^pgtopic_to_\\d+$') x WHERE %s", condition);
	*count = (int) SPI_processed;
	followers = MemoryContextAlloc(context, (*count + 1) * sizeof(int32));
	for (int i = 0; i < *count; i++)
	{
		bool		isnull;

		followers[i] = (int32) DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	return followers;
}

/*
 * Whether a subscription of the follower is connected.  Whose a slot of table
 * synchronisation is, its name (ReplicationSlotNameForTablesync()) does not tell: it may be
 * the follower's, which looks at the publications as well.
 */
static bool
is_received(int32 follower)
{
	return exists(psprintf("SELECT FROM pg_catalog.pg_replication_slots WHERE active"
						   " AND database = pg_catalog.current_database()"
						   " AND (slot_name = %s OR slot_name ~ '^pg_\\d+_sync_\\d+_\\d+$')",
						   quote_literal_cstr(slot_name(follower))));
}

static bool
broker_exists(int32 broker)
{
	return exists(psprintf("SELECT FROM pgtopic.broker WHERE id = %d", broker));
}

void
publish_end_all(void)
{
	int			count;
	int32	   *followers = followers_published("true", &count);

	for (int i = 0; i < count; i++)
		publish_end(followers[i]);
}

/*
 * The tables in our publications are t7_p3 and t7_p3_offsets, that of follower f in
 * pgtopic_to_f and pgtopic_to_f_positions.
 */
bool
publish_tidy(void)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int			count;
	char	  **commands;
	int32	   *followers;
	bool		followed = false;

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "SELECT pg_catalog.format('ALTER PUBLICATION %%I DROP TABLE pgtopic.%%I', x.pubname, x.relname)"
					  " FROM (SELECT p.pubname, c.relname,"
					  " pg_catalog.regexp_match(c.relname, '^t(\\d+)_p(\\d+)') AS name,"
					  " pg_catalog.substring(p.pubname, '^pgtopic_to_(\\d+)') AS follower"
					  " FROM pg_catalog.pg_publication_rel r"
					  " JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid"
					  " JOIN pg_catalog.pg_class c ON c.oid = r.prrelid"
					  " WHERE p.pubname ~ '^pgtopic_to_\\d+' AND c.relnamespace = 'pgtopic'::pg_catalog.regnamespace) x"
					  " WHERE NOT EXISTS (SELECT FROM pgtopic.partition p, pgtopic.cluster l"
					  " WHERE p.topic_id = x.name[1]::pg_catalog.int4 AND p.partition = x.name[2]::pg_catalog.int4"
					  " AND p.leader = l.self AND x.follower::pg_catalog.int4 = ANY (p.replicas))");
	count = (int) SPI_processed;
	commands = MemoryContextAlloc(context, (count + 1) * sizeof(char *));
	for (int i = 0; i < count; i++)
		commands[i] = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	for (int i = 0; i < count; i++)
		extension_execute(SPI_OK_UTILITY, "%s", commands[i]);

	followers = followers_published("NOT EXISTS (SELECT FROM pgtopic.partition p, pgtopic.cluster l"
									" WHERE p.leader = l.self AND x.follower = ANY (p.replicas))", &count);
	for (int i = 0; i < count; i++)
	{
		/* its subscription may just look at the publications; it goes when it has heard of this */
		if (is_received(followers[i]) && broker_exists(followers[i]))
			followed = true;
		else
			publish_end(followers[i]);
	}
	SPI_finish();
	extension_owner_end(&saved);
	return followed;
}

bool
publish_is_followed(void)
{
	ExtensionOwner saved;
	int			count;
	int32	   *followers;
	bool		followed = false;

	extension_owner_begin(&saved);
	SPI_connect();
	followers = followers_published("true", &count);
	for (int i = 0; i < count && !followed; i++)
		followed = is_received(followers[i]);
	SPI_finish();
	extension_owner_end(&saved);
	return followed;
}
