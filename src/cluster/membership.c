/*-------------------------------------------------------------------------
 *
 * membership.c
 *	  How a database becomes a broker of a cluster, and ceases to be one.
 *
 * Joining: the database that wants to join asks any broker.  That one connects back
 * to it by the conninfo that all others will use, so that one that does not work
 * is found now, and leaves an invitation there: a row of pgtopic.cluster
 * without a number.  Then it has the controller add the broker.  The metadata with
 * it is committed when a majority, of which the new broker is one, has it; the
 * message that brings it tells the new broker its number.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "libpq-fe.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/logicallauncher.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/condition_variable.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/image.h"
#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "cluster/apply.h"
#include "cluster/change.h"
#include "cluster/membership.h"
#include "cluster/publish.h"
#include "cluster/restored.h"
#include "cluster/store.h"
#include "cluster/subscribe.h"
#include "peer/call.h"
#include "peer/connect.h"
#include "shmem/cluster_state.h"
#include "shmem/databases.h"
#include "shmem/followers.h"
#include "shmem/slots.h"

#define CALL_TIMEOUT_MS		10000

/* How long a broker that leaves waits for the others to end their subscriptions. */
#define FOLLOWERS_WAIT_MS	5000

/* What our own processes take of max_worker_processes: launcher, and those of a broker. */
#define OWN_WORKERS			(1 + WORKER_KINDS)

/* A setting, what it is, and what it has to be at least, for one line of the detail. */
static void
note_setting(StringInfo missing, const char *name, int value, int needed)
{
	if (value < needed)
		appendStringInfo(missing, "%s%s = %d (now %d)", missing->len > 0 ? "\n" : "", name, needed, value);
}

static int
setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value ? pg_strtoint32(value) : PG_INT32_MAX;
}

/* The server that runs, which is not the one that this was compiled for. */
static void
check_server_version(void)
{
	if (setting("server_version_num") >= COMPAT_CLUSTER_VERSION)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a broker of a cluster needs PostgreSQL %d.%d or later",
					COMPAT_CLUSTER_VERSION / 10000, COMPAT_CLUSTER_VERSION % 10000),
			 errdetail("This is %s, whose logical replication can lose messages.",
					   GetConfigOption("server_version", false, false)),
			 errhint("Update the server to the latest minor version.")));
}

/*
 * All settings that a broker of a cluster of so many needs, at once.  Each follower
 * holds a replication slot and a walsender here, and two of each more while it
 * copies tables; for each leader this server runs a worker, and two more while it copies.
 */
static void
check_settings(int brokers)
{
	int			others = Max(brokers, 3) - 1;
	StringInfoData missing;

	initStringInfo(&missing);
	if (wal_level < WAL_LEVEL_LOGICAL)
		appendStringInfoString(&missing, "wal_level = logical");
	note_setting(&missing, "max_replication_slots", max_replication_slots, 3 * others);
	note_setting(&missing, "max_wal_senders", max_wal_senders, 3 * others);
	note_setting(&missing, "max_logical_replication_workers", max_logical_replication_workers, 3 * others);
	note_setting(&missing, "max_sync_workers_per_subscription", max_sync_workers_per_subscription, 1);
	note_setting(&missing, "max_worker_processes", max_worker_processes,
				 Max(max_logical_replication_workers, 3 * others) + 1 + OWN_WORKERS);
	/* 18: what a subscription needs is no longer counted as a slot */
	note_setting(&missing, "max_active_replication_origins", setting("max_active_replication_origins"), 3 * others);
	if (missing.len == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this server's settings do not suffice for a broker of a cluster of %d", others + 1),
			 errdetail_internal("%s", missing.data),
			 errhint("Set these in postgresql.conf, or greater, and restart the server.")));
}

bool
membership_may_replicate(Oid role)
{
	return has_rolreplication(role) || superuser_arg(role);
}

static char *
new_cluster_id(void)
{
	char	   *id = palloc(CLUSTER_ID_LENGTH + 1);
	uint8		random[CLUSTER_ID_LENGTH / 2];

	if (!pg_strong_random(random, sizeof(random)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(id + 2 * i, 3, "%02x", random[i]);
	return id;
}

/* A member of a cluster is an administrator's decision. */
static void
check_administrator(const char *call)
{
	extension_require_writable(call);
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to call %s", call),
				 errdetail("Only superusers may change what brokers a cluster has.")));
}

static void
check_no_cluster(void)
{
	ClusterRow	row;

	if (cluster_row_read(&row))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a broker of a cluster already"),
				 errhint("Use leave_cluster() first.")));
}

static void
check_conninfo(const char *conninfo)
{
	if (!peer_conninfo_is_valid(conninfo))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid connection string"),
				 errdetail("It has to be what libpq takes: keyword = value pairs, or a URI.")));
}

/* Whether a conninfo leads back to this very database, by a role that can do what is needed. */
static void
check_leads_here(const char *conninfo)
{
	char	  **answer = call_run_once(conninfo, 0, "this broker by its own connection string", CALL_TIMEOUT_MS,
										"SELECT system_identifier, database, may_replicate FROM pgtopic.peer_identity()",
										0, NULL, 3);

	if (strcmp(answer[0], psprintf(UINT64_FORMAT, GetSystemIdentifier())) != 0 ||
		strcmp(answer[1], psprintf("%u", MyDatabaseId)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the connection string of this broker leads to another database"),
				 errdetail("The other brokers connect by it, and so does this one to itself.")));
	if (answer[2][0] != 't')
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the role that brokers connect as may not replicate"),
				 errhint("Use ALTER ROLE … REPLICATION.")));
}

/* All topics' ids, in the caller's memory. */
static int32 *
read_topics(int *count)
{
	int32	   *topics;

	extension_execute(SPI_OK_SELECT, "SELECT id FROM pgtopic.topic ORDER BY id");
	*count = (int) SPI_processed;
	topics = palloc((*count + 1) * sizeof(int32));
	for (int i = 0; i < *count; i++)
	{
		bool		isnull;

		topics[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	return topics;
}

/* What is from a dump of a broker has no other replicas any more. */
static void
settle_topics(void)
{
	int			count;
	int32	   *topics = read_topics(&count);

	for (int i = 0; i < count; i++)
	{
		if (!restored_settle(topics[i]))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a dump is being restored into this database"),
					 errhint("Try again when that is done.")));
		restored_forget_leaders(topics[i]);
	}
}

void
membership_create(const char *own_conninfo)
{
	ExtensionOwner saved;
	ClusterStore store = {0};
	Image	   *image;

	check_administrator("create_cluster()");
	PreventInTransactionBlock(true, "create_cluster()");
	check_no_cluster();
	check_server_version();
	check_settings(1);
	check_conninfo(own_conninfo);
	check_leads_here(own_conninfo);

	extension_owner_begin(&saved);
	SPI_connect();
	settle_topics();
	image = image_from_catalog(new_cluster_id(), own_conninfo);
	strlcpy(store.cluster_id, image->cluster_id, sizeof(store.cluster_id));
	store.self = image->brokers[0].id;
	store.durable.term = 1;
	store.durable.voted_for = store.self;
	store.durable.image_term = 1;
	store.durable.image_version = 1;
	store.durable.committed_version = 1;
	store.image = image_format(image);
	store_create(&store);
	/* the rest of the catalog is as the metadata has it already */
	extension_execute_params(SPI_OK_INSERT, "INSERT INTO pgtopic.broker (id, conninfo, leaving)"
							 " VALUES (1, $1, false)", 1, &own_conninfo);
	/* sessions look again at who leads: this broker, now by its number */
	for (int i = 0; i < image->topics_count; i++)
		topic_invalidate(image->topics[i].id);
	SPI_finish();
	extension_owner_end(&saved);
	slots_forbid_prepare("create_cluster()");
	database_cluster_at_commit();
}

void
membership_accept_invitation(const char *cluster_id, const char *encoding, int32 first_number)
{
	ExtensionOwner saved;
	ClusterStore store = {0};
	ClusterStore old;

	extension_require_writable("peer_invite()");
	if (strlen(cluster_id) != CLUSTER_ID_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid cluster id \"%s\"", cluster_id)));
	if (strcmp(encoding, GetDatabaseEncodingName()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a database with encoding %s cannot join a cluster with encoding %s",
						GetDatabaseEncodingName(), encoding)));
	check_server_version();
	check_settings(1);

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT, "SELECT FROM pgtopic.topic LIMIT 1");
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a database that has topics cannot join a cluster"),
				 errhint("Drop them, or make this the database that creates the cluster.")));
	/* an invitation that came to nothing does no harm */
	if (store_lock(&old) && old.self == 0)
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.cluster");
	strlcpy(store.cluster_id, cluster_id, sizeof(store.cluster_id));
	store_create(&store);
	store_set_first_number(first_number);
	SPI_finish();
	extension_owner_end(&saved);
	database_cluster_at_commit();
}

/* The number that the next broker gets, or a lesser one, by the newest metadata here. */
static int32
next_number(void)
{
	ClusterStore store;
	Image	   *image = store_read(&store) && store.image ? image_parse(store.image) : NULL;

	return image ? image->next_broker : 0;
}

char *
membership_invite(const char *conninfo)
{
	ClusterRow	row;
	const char *params[3];

	if (!cluster_row_read(&row) || row.self == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the database that was asked to let this one join is not a broker of a cluster"),
				 errhint("Use create_cluster() there first.")));
	params[0] = row.cluster_id;
	params[1] = GetDatabaseEncodingName();
	params[2] = psprintf("%d", next_number());
	(void) call_run_once(conninfo, row.self, "the new broker by its own connection string", CALL_TIMEOUT_MS,
						  "SELECT pgtopic.peer_invite($1, $2, $3)", 3, params, 1);
	(void) cluster_change(CHANGE_ADD_BROKER, &conninfo, 1, CLUSTER_WAIT_MS);
	return pstrdup(row.cluster_id);
}

/*
 * Has the controller take out a broker, which is not this one.  The controller decides
 * whether it is gone: this broker may have joined just now, and have heard of nobody.
 */
static void
take_out(int32 broker, int32 replacement)
{
	const char *args[3];
	ChangeResult change;

	args[0] = psprintf("%d", broker);
	args[1] = "1";
	args[2] = psprintf("%d", replacement);
	change = cluster_change(CHANGE_REMOVE_BROKER, args, 3, CLUSTER_WAIT_MS);
	(void) cluster_wait_applied(change.version, CLUSTER_WAIT_MS);
}

/* The same, by a broker that has just joined: if that fails, the joining is done. */
static void
take_place(int32 self, int32 broker)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		take_out(broker, self);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		error->hint = psprintf("This database has joined the cluster, as broker %d. To have it take the place of broker %d, use remove_broker(%d, %d).",
							   self, broker, broker, self);
		ReThrowError(error);
	}
	PG_END_TRY();
}

/* Before anything is done: whether there is a broker to be replaced. */
static void
check_replaces(const char *bootstrap_conninfo, int32 replaces)
{
	const char *args[1] = {psprintf("%d", replaces)};
	char	  **answer = call_run_once(bootstrap_conninfo, 0, "the broker to join by", CALL_TIMEOUT_MS,
									   "SELECT pgtopic.peer_has_broker($1)", 1, args, 1);

	if (answer[0] == NULL || answer[0][0] != 't')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("broker %d does not exist", replaces)));
}

int32
membership_join(const char *bootstrap_conninfo, const char *own_conninfo, int32 replaces)
{
	ClusterRow	row;

	check_administrator("join_cluster()");
	PreventInTransactionBlock(true, "join_cluster()");
	if (cluster_row_read(&row) && row.self != 0)
		check_no_cluster();
	check_server_version();
	check_settings(1);
	check_conninfo(own_conninfo);
	check_conninfo(bootstrap_conninfo);
	check_leads_here(own_conninfo);
	if (replaces != 0)
		check_replaces(bootstrap_conninfo, replaces);
	(void) call_run_once(bootstrap_conninfo, 0, "the broker to join by", 2 * CLUSTER_WAIT_MS,
						  "SELECT pgtopic.peer_join($1)", 1, &own_conninfo, 1);

	if (!cluster_wait_applied(1, CLUSTER_WAIT_MS))
		ereport(replaces ? ERROR : WARNING,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("this broker has joined the cluster but not read its metadata yet"),
				 replaces ? errhint("See worker_status and the server's log. When it has, use remove_broker() with it as the replacement of broker %d.", replaces) :
				 errhint("See worker_status and the server's log.")));
	if (!cluster_row_read(&row))
		elog(ERROR, "there is no row of %s.cluster after joining", CATALOG_SCHEMA);
	if (replaces != 0)
		take_place(row.self, replaces);
	return row.self;
}

void
membership_remove(int32 broker, int32 replacement)
{
	ClusterState state;

	check_administrator("remove_broker()");
	PreventInTransactionBlock(true, "remove_broker()");
	if (cluster_self() == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a broker of a cluster")));
	if (broker == cluster_self())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("broker %d is this one", broker),
				 errhint("Use leave_cluster().")));
	cluster_state_get(&state);
	for (int i = 0; i < CLUSTER_BROKERS_MAX; i++)
	{
		/* the controller may not hear it, but this one does */
		if (state.seen[i].id == broker &&
			!TimestampDifferenceExceeds(state.seen[i].at, GetCurrentTimestamp(), pgtopic_broker_session_timeout))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("broker %d is there", broker),
					 errdetail("It has answered this broker within pgtopic.broker_session_timeout."),
					 errhint("Call leave_cluster() on it, or stop it first.")));
	}
	take_out(broker, replacement);
}

/* Any other broker of the cluster. */
static int32
another_broker(int32 self)
{
	ExtensionOwner saved;
	int32		other = 0;

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT, "SELECT id FROM pgtopic.broker WHERE id <> %d AND NOT leaving ORDER BY id LIMIT 1", self);
	if (SPI_processed > 0)
	{
		bool		isnull;

		other = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	SPI_finish();
	extension_owner_end(&saved);
	return other;
}

/* Forgets the cluster, and what this database has of it: its topics, unless it was alone. */
static void
forget_cluster(bool with_topics)
{
	ExtensionOwner saved;
	int			count;
	int32	   *topics;

	subscribe_drop_all();
	extension_owner_begin(&saved);
	SPI_connect();
	publish_end_all();
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.cluster");
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.broker");
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.replica");
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.follower");
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.partition SET leader = 1, successor = 0, replicas = '{1}', placements = '{1}', isr = '{1}'");
	extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.topic SET replication_factor = 1, min_insync_replicas = NULL");
	if (with_topics)
		apply_no_topics();
	topics = read_topics(&count);
	for (int i = 0; i < count; i++)
		restored_forget_leaders(topics[i]);
	SPI_finish();
	extension_owner_end(&saved);
	cluster_invalidate();
	cluster_state_forget();
	followers_forget_database(MyDatabaseId);
}

/* Whether the cluster has this broker still, by what another one says. */
static bool
is_member(int32 self, int32 other)
{
	const char *args[1] = {psprintf("%d", self)};
	char	  **answer = call_run_once(broker_conninfo(other), self, psprintf("broker %d", other),
									   CALL_TIMEOUT_MS, "SELECT pgtopic.peer_has_broker($1)", 1, args, 1);

	return answer[0] == NULL || answer[0][0] != 'f';
}

static void
sleep_for_news(int milliseconds)
{
	ConditionVariablePrepareToSleep(cluster_state_changed());
	(void) ConditionVariableTimedSleep(cluster_state_changed(), milliseconds, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	CHECK_FOR_INTERRUPTS();
}

void
membership_leave(bool force)
{
	int32		self = cluster_self();
	int32		other;
	const char *args[2];

	check_administrator("leave_cluster()");
	PreventInTransactionBlock(true, "leave_cluster()");
	if (self == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a broker of a cluster")));

	other = another_broker(self);
	if (other != 0 && !force && is_member(self, other))
	{
		args[0] = psprintf("%d", self);
		args[1] = "0";
		(void) cluster_change(CHANGE_REMOVE_BROKER, args, 2, CLUSTER_WAIT_MS);

		/* until the others have what is here; whoever cancels this finds it still going on */
		while (is_member(self, other))
			sleep_for_news(200);
		/* and have heard that nothing comes from here any more; one that is down, later */
		for (int waited = 0; waited < FOLLOWERS_WAIT_MS && publish_is_followed(); waited += 50)
			sleep_for_news(50);
	}
	database_set_clustered(MyDatabaseId, false);
	forget_cluster(other != 0);
}

bool
membership_has_broker(int32 broker)
{
	char	   *conninfo = broker_row_conninfo(broker);

	if (conninfo == NULL)
		return false;
	pfree(conninfo);
	return true;
}
