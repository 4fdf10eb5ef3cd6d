/*-------------------------------------------------------------------------
 *
 * cluster_calls.c
 *	  Functions for the administrators of a cluster, and what its status views are
 *	  made of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "cluster/applied.h"
#include "cluster/change.h"
#include "cluster/membership.h"
#include "peer/connect.h"
#include "shmem/cluster_state.h"
#include "shmem/followers.h"
#include "sql/args.h"

PG_FUNCTION_INFO_V1(pgtopic_create_cluster);
PG_FUNCTION_INFO_V1(pgtopic_join_cluster);
PG_FUNCTION_INFO_V1(pgtopic_leave_cluster);
PG_FUNCTION_INFO_V1(pgtopic_remove_broker);
PG_FUNCTION_INFO_V1(pgtopic_move_partition);
PG_FUNCTION_INFO_V1(pgtopic_elect_leader);
PG_FUNCTION_INFO_V1(pgtopic_broker_reports);
PG_FUNCTION_INFO_V1(pgtopic_follower_reports);
PG_FUNCTION_INFO_V1(pgtopic_applied);
PG_FUNCTION_INFO_V1(pgtopic_applied_position);

/* create_cluster(own_conninfo) → number of this broker */
Datum
pgtopic_create_cluster(PG_FUNCTION_ARGS)
{
	membership_create(arg_cstring(fcinfo, 0, "own_conninfo"));
	PG_RETURN_INT32(1);
}

/* A broker, by an argument that may be NULL or, in the extension of before, missing; 0: none. */
static int32
arg_broker(FunctionCallInfo fcinfo, int arg, const char *name)
{
	int32		broker;

	if (PG_NARGS() <= arg || PG_ARGISNULL(arg))
		return 0;
	broker = PG_GETARG_INT32(arg);
	if (broker < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be the number of a broker, not %d", name, broker)));
	return broker;
}

/* join_cluster(bootstrap_conninfo, own_conninfo, replaces) → number of this broker */
Datum
pgtopic_join_cluster(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(membership_join(arg_cstring(fcinfo, 0, "bootstrap_conninfo"),
									arg_cstring(fcinfo, 1, "own_conninfo"),
									arg_broker(fcinfo, 2, "replaces")));
}

Datum
pgtopic_leave_cluster(PG_FUNCTION_ARGS)
{
	arg_not_null(fcinfo, 0, "force");
	membership_leave(PG_GETARG_BOOL(0));
	PG_RETURN_VOID();
}

/* remove_broker(broker, replacement) */
Datum
pgtopic_remove_broker(PG_FUNCTION_ARGS)
{
	membership_remove(arg_int32(fcinfo, 0, "broker"), arg_broker(fcinfo, 1, "replacement"));
	PG_RETURN_VOID();
}

/* The topic, if this is a cluster and the user owns it; partition is checked too. */
static void
check_partition_of_cluster(int32 topic_id, int32 partition, const char *call)
{
	Topic	   *topic;

	extension_require_writable(call);
	topic = topic_get(topic_id);
	topic_check_owner(topic);
	(void) topic_partition_get(topic, partition);
	if (cluster_self() == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a broker of a cluster"),
				 errhint("Use create_cluster() or join_cluster() first.")));
	PreventInTransactionBlock(true, call);
}

/* move_partition(topic, partition, replicas) */
Datum
pgtopic_move_partition(PG_FUNCTION_ARGS)
{
	int32		topic = arg_topic(fcinfo, 0);
	int32		partition = arg_int32(fcinfo, 1, "partition");
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	const char **args;
	ChangeResult change;

	arg_not_null(fcinfo, 2, "replicas");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &elements, &nulls, &count);
	check_partition_of_cluster(topic, partition, "move_partition()");
	args = palloc((count + 2) * sizeof(char *));
	args[0] = psprintf("%d", topic);
	args[1] = psprintf("%d", partition);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a broker in replicas must not be null")));
		args[i + 2] = psprintf("%d", DatumGetInt32(elements[i]));
	}
	change = cluster_change(CHANGE_MOVE_PARTITION, args, count + 2, CLUSTER_WAIT_MS);
	(void) cluster_wait_applied(change.version, CLUSTER_WAIT_MS);
	PG_RETURN_VOID();
}

/* Whether a broker has answered this one of late; true too if nobody has asked it yet. */
static bool
is_online(int32 broker)
{
	ClusterState state;

	cluster_state_get(&state);
	for (int i = 0; i < CLUSTER_BROKERS_MAX; i++)
	{
		if (state.seen[i].id == broker)
			return !TimestampDifferenceExceeds(state.seen[i].at, GetCurrentTimestamp(),
											   Max(pgtopic_broker_session_timeout, 3000));
	}
	return true;
}

/*
 * elect_leader(topic, partition, broker, unclean): returns when the new leader leads,
 * or the old one has found that it cannot hand over.
 */
Datum
pgtopic_elect_leader(PG_FUNCTION_ARGS)
{
	int32		topic = arg_topic(fcinfo, 0);
	int32		partition = arg_int32(fcinfo, 1, "partition");
	bool		unclean;
	const char *args[3];
	ChangeResult change;
	PartitionRow row;
	int32		successor = 0;
	int64		deadline = cluster_clock_ms() + pgtopic_handover_timeout + CLUSTER_WAIT_MS;

	/* it is missing while the extension is not updated */
	if (PG_NARGS() > 3)
		arg_not_null(fcinfo, 3, "unclean");
	unclean = PG_NARGS() > 3 && PG_GETARG_BOOL(3);
	check_partition_of_cluster(topic, partition, "elect_leader()");
	args[0] = psprintf("%d", topic);
	args[1] = psprintf("%d", partition);
	args[2] = PG_ARGISNULL(2) ? "0" : psprintf("%d", PG_GETARG_INT32(2));
	if (unclean)
	{
		/* what is lost depends on who it is */
		(void) arg_int32(fcinfo, 2, "broker");
		change = cluster_change(CHANGE_ELECT_UNCLEAN, args, 3, CLUSTER_WAIT_MS);
		(void) cluster_wait_applied(change.version, CLUSTER_WAIT_MS);
		PG_RETURN_VOID();
	}
	/* it has to hand over itself */
	if (partition_row_by_number(topic, partition, &row) && row.leader != cluster_self() &&
		!is_online(row.leader) && !cluster_state_is_fenced(row.leader))
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("broker %d, which leads partition %d of topic \"%s\", does not answer",
						row.leader, partition, topic_get(topic)->name),
				 errhint("If it does not come back, another one leads soon: see broker_status.")));
	change = cluster_change(CHANGE_ELECT_LEADER, args, 3, CLUSTER_WAIT_MS);
	(void) cluster_wait_applied(change.version, CLUSTER_WAIT_MS);
	while (partition_row_by_number(topic, partition, &row) && row.successor != 0 &&
		   cluster_clock_ms() < deadline)
	{
		ClusterState state;

		successor = row.successor;
		cluster_state_get(&state);
		(void) cluster_wait_applied(state.applied_version + 1, 1000);
	}
	if (successor != 0 && partition_row_by_number(topic, partition, &row) && row.leader != successor)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("broker %d could not hand over partition %d of topic \"%s\" to broker %d",
						row.leader, partition, topic_get(topic)->name, successor),
				 errdetail("Transactions that have written to it were open for pgtopic.handover_timeout, or broker %d did not keep up.",
						   successor),
				 errhint("See partition_status on broker %d for who blocks it, and try again.", row.leader)));
	PG_RETURN_VOID();
}

/*
 * pgtopic.broker_reports() → (broker, conninfo, is_self, is_controller, state,
 * last_seen), for the status view.
 */
Datum
pgtopic_broker_reports(PG_FUNCTION_ARGS)
{
	ExtensionOwner saved;
	ClusterState state;
	TimestampTz now = GetCurrentTimestamp();
	int32		self = cluster_self();

	InitMaterializedSRF(fcinfo, 0);
	if (self == 0)
		PG_RETURN_NULL();
	cluster_state_get(&state);
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT, "SELECT id, conninfo, leaving, fenced FROM pgtopic.broker ORDER BY id");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[6];
		bool		nulls[6] = {false};
		bool		isnull;
		int32		id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		bool		leaving = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull));
		bool		fenced = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 4, &isnull));
		TimestampTz seen = 0;
		bool		online = id == self;

		for (int b = 0; b < CLUSTER_BROKERS_MAX; b++)
		{
			if (state.seen[b].id == id)
				seen = state.seen[b].at;
		}
		if (id == self)
			seen = now;
		else if (seen != 0)
			online = !TimestampDifferenceExceeds(seen, now, Max(pgtopic_broker_session_timeout, 3000));
		values[0] = Int32GetDatum(id);
		values[1] = CStringGetTextDatum(peer_conninfo_shown(SPI_getvalue(SPI_tuptable->vals[i],
																		 SPI_tuptable->tupdesc, 2)));
		values[2] = BoolGetDatum(id == self);
		values[3] = BoolGetDatum(id == state.controller);
		values[4] = CStringGetTextDatum(fenced ? "fenced" : !online ? "offline" : leaving ? "leaving" : "online");
		values[5] = TimestampTzGetDatum(seen);
		nulls[5] = seen == 0;
		result_row(fcinfo, values, nulls);
	}
	SPI_finish();
	extension_owner_end(&saved);
	PG_RETURN_NULL();
}

/*
 * pgtopic.follower_reports() → (follower, confirmed, caught_up): the slots of this
 * broker's followers.
 */
Datum
pgtopic_follower_reports(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < FOLLOWERS_MAX; i++)
	{
		FollowerState state;
		Datum		values[3];
		bool		nulls[3] = {false};

		if (!follower_state(i, &state) || state.database != MyDatabaseId)
			continue;
		values[0] = Int32GetDatum(state.broker);
		values[1] = LSNGetDatum(state.confirmed);
		values[2] = TimestampTzGetDatum(state.caught_up_at);
		nulls[1] = !state.has_slot || XLogRecPtrIsInvalid(state.confirmed);
		nulls[2] = nulls[1] || state.caught_up_at == 0;
		result_row(fcinfo, values, nulls);
	}
	PG_RETURN_NULL();
}

/* pgtopic.applied(): see applied.h */
Datum
pgtopic_applied(PG_FUNCTION_ARGS)
{
	return applied_trigger(fcinfo);
}

Datum
pgtopic_applied_position(PG_FUNCTION_ARGS)
{
	return applied_position_trigger(fcinfo);
}
