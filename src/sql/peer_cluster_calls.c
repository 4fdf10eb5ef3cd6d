/*-------------------------------------------------------------------------
 *
 * peer_cluster_calls.c
 *	  Functions that other brokers' workers call: quorum, changes, replication.
 *
 * Only roles that may act as a peer can call them (allow_peer()); they run as the
 * extension's owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/image.h"
#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/rows.h"
#include "cluster/change.h"
#include "cluster/membership.h"
#include "cluster/publish.h"
#include "cluster/store.h"
#include "shmem/cluster_state.h"
#include "shmem/databases.h"
#include "sql/args.h"

PG_FUNCTION_INFO_V1(pgtopic_peer_identity);
PG_FUNCTION_INFO_V1(pgtopic_peer_ping);
PG_FUNCTION_INFO_V1(pgtopic_peer_vote);
PG_FUNCTION_INFO_V1(pgtopic_peer_accept);
PG_FUNCTION_INFO_V1(pgtopic_peer_change);
PG_FUNCTION_INFO_V1(pgtopic_peer_wait_committed);
PG_FUNCTION_INFO_V1(pgtopic_peer_invite);
PG_FUNCTION_INFO_V1(pgtopic_peer_join);
PG_FUNCTION_INFO_V1(pgtopic_peer_follow);
PG_FUNCTION_INFO_V1(pgtopic_peer_create_slot);
PG_FUNCTION_INFO_V1(pgtopic_peer_has_broker);
PG_FUNCTION_INFO_V1(pgtopic_peer_unfollow);
PG_FUNCTION_INFO_V1(pgtopic_peer_forget);
PG_FUNCTION_INFO_V1(pgtopic_peer_log_range);
PG_FUNCTION_INFO_V1(pgtopic_peer_unpublish);
PG_FUNCTION_INFO_V1(pgtopic_peer_publish);
PG_FUNCTION_INFO_V1(pgtopic_peer_ready);
PG_FUNCTION_INFO_V1(pgtopic_peer_drop_sync_slots);
PG_FUNCTION_INFO_V1(pgtopic_peer_open_partitions);
PG_FUNCTION_INFO_V1(pgtopic_peer_agreed);

static Datum
return_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * pgtopic.peer_identity() → OUT cluster_id, OUT broker, OUT system_identifier,
 * OUT database, OUT encoding, OUT may_replicate
 */
Datum
pgtopic_peer_identity(PG_FUNCTION_ARGS)
{
	ClusterRow	row;
	bool		in_cluster = cluster_row_read(&row);
	Datum		values[6];
	bool		nulls[6] = {false};

	nulls[0] = nulls[1] = !in_cluster;
	values[0] = in_cluster ? CStringGetTextDatum(row.cluster_id) : (Datum) 0;
	values[1] = in_cluster ? Int32GetDatum(row.self) : (Datum) 0;
	values[2] = CStringGetTextDatum(psprintf(UINT64_FORMAT, GetSystemIdentifier()));
	values[3] = ObjectIdGetDatum(MyDatabaseId);
	values[4] = CStringGetTextDatum(GetDatabaseEncodingName());
	/* the role that has connected, not the owner as whom we run */
	values[5] = BoolGetDatum(membership_may_replicate(GetSessionUserId()));
	PG_RETURN_DATUM(return_row(fcinfo, values, nulls));
}

Datum
pgtopic_peer_ping(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(cluster_self());
}

/*
 * Reads the row for a message to this broker, locked if it is to be changed.  One of
 * another cluster, or meant for another broker, is an error.  Who was invited learns
 * here which number it has.
 */
static void
read_store_for_message(FunctionCallInfo fcinfo, ClusterStore *store, bool lock)
{
	char	   *cluster_id = arg_cstring(fcinfo, 0, "cluster_id");
	int32		to = arg_int32(fcinfo, 1, "broker");

	if (!(lock ? store_lock(store) : store_read(store)) ||
		strcmp(store->cluster_id, cluster_id) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a broker of cluster %s", cluster_id)));
	/* less than that is somebody who was here before, and may be counted as gone by now */
	if (store->self == 0 && to >= store_first_number())
	{
		store->self = to;
		cluster_invalidate();
	}
	if (store->self != to)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 store->self == 0 ? errmsg("this database is not broker %d", to) :
				 errmsg("this database is broker %d, not broker %d", store->self, to)));
}

/* peer_vote(cluster_id, broker, term, candidate, image_term, image_version) → OUT term, OUT granted */
Datum
pgtopic_peer_vote(PG_FUNCTION_ARGS)
{
	ClusterStore store;
	ClusterState state;
	VoteRequest request;
	VoteReply	reply;
	int64		now = cluster_clock_ms();
	bool		heard;
	bool		changed;
	Datum		values[2];
	bool		nulls[2] = {false};

	request.term = arg_int64(fcinfo, 2, "term");
	request.candidate = arg_int32(fcinfo, 3, "candidate");
	request.image_term = arg_int64(fcinfo, 4, "image_term");
	request.image_version = arg_int64(fcinfo, 5, "image_version");

	read_store_for_message(fcinfo, &store, true);
	if (store_may_forget_vote())
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("broker %d takes no part in elections now", store.self),
				 errdetail("It is on another WAL timeline, and may have voted before.")));
	cluster_state_get(&state);
	heard = (state.heard_ms > 0 && now - state.heard_ms < settings_election_timeout()) ||
		(state.controller_term != 0 && state.controller_term == store.durable.term && state.has_majority);
	reply = quorum_on_vote_request(&store.durable, &request, heard, &changed);
	if (changed)
	{
		store_write(&store, NULL);
		store_make_durable();
		database_wake_at_commit(WORKER_QUORUM);
	}
	values[0] = Int64GetDatum(reply.term);
	values[1] = BoolGetDatum(reply.granted);
	PG_RETURN_DATUM(return_row(fcinfo, values, nulls));
}

/*
 * peer_accept(cluster_id, broker, term, controller, image_term, image_version,
 * committed_version, image, heard) → OUT term, OUT accepted, OUT image_term,
 * OUT image_version, OUT clock
 *
 * clock is this broker's; the controller gives the last one that it got back as heard.
 */
Datum
pgtopic_peer_accept(PG_FUNCTION_ARGS)
{
	ClusterStore store;
	AcceptRequest request;
	AcceptReply reply;
	char	   *image = NULL;
	bool		changed;
	bool		take_image;
	bool		committed;
	Datum		values[5];
	bool		nulls[5] = {false};

	request.term = arg_int64(fcinfo, 2, "term");
	request.controller = arg_int32(fcinfo, 3, "controller");
	request.image_term = arg_int64(fcinfo, 4, "image_term");
	request.image_version = arg_int64(fcinfo, 5, "image_version");
	request.committed_version = arg_int64(fcinfo, 6, "committed_version");
	request.has_image = !PG_ARGISNULL(7);
	if (request.has_image)
	{
		image = text_to_cstring(PG_GETARG_TEXT_PP(7));
		if (image_parse(image) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the metadata from broker %d cannot be read", request.controller),
					 errhint("All brokers of a cluster need the same version of pgtopic.")));
	}

	/* most heartbeats change nothing, and shall write nothing */
	read_store_for_message(fcinfo, &store, false);
	reply = quorum_on_accept_request(&store.durable, &request, &changed, &take_image, &committed);
	if (changed)
	{
		read_store_for_message(fcinfo, &store, true);
		reply = quorum_on_accept_request(&store.durable, &request, &changed, &take_image, &committed);
	}
	if (changed)
	{
		store_write(&store, take_image ? image : NULL);
		store_make_durable();
		database_wake_at_commit(WORKER_QUORUM);
	}
	if (committed)
		database_wake_at_commit(WORKER_REPLICATION);
	if (reply.accepted)
	{
		cluster_state_heard_controller(request.controller);
		/* NULL: a controller of before 0.3.0, which fences nobody */
		cluster_state_extend_lease(PG_ARGISNULL(8) ? cluster_clock_ms() : PG_GETARG_INT64(8),
								   request.committed_version);
	}
	values[0] = Int64GetDatum(reply.term);
	values[1] = BoolGetDatum(reply.accepted);
	values[2] = Int64GetDatum(reply.image_term);
	values[3] = Int64GetDatum(reply.image_version);
	values[4] = Int64GetDatum(cluster_clock_ms());
	PG_RETURN_DATUM(return_row(fcinfo, values, nulls));
}

/* peer_change(operation, args) → OUT term, OUT version, OUT id */
Datum
pgtopic_peer_change(PG_FUNCTION_ARGS)
{
	char	   *operation = arg_cstring(fcinfo, 0, "operation");
	ArrayType  *array;
	Datum	   *elements;
	bool	   *element_nulls;
	int			count;
	char	  **args;
	ChangeResult result;
	Datum		values[3];
	bool		nulls[3] = {false};

	arg_not_null(fcinfo, 1, "args");
	array = PG_GETARG_ARRAYTYPE_P(1);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &element_nulls, &count);
	args = palloc(Max(count, 1) * sizeof(char *));
	for (int i = 0; i < count; i++)
		args[i] = element_nulls[i] ? NULL : TextDatumGetCString(elements[i]);

	result = change_propose(operation, args, count);
	values[0] = Int64GetDatum(result.term);
	values[1] = Int64GetDatum(result.version);
	values[2] = Int32GetDatum(result.id);
	PG_RETURN_DATUM(return_row(fcinfo, values, nulls));
}

/* peer_wait_committed(term, version) */
Datum
pgtopic_peer_wait_committed(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(change_wait_committed(arg_int64(fcinfo, 0, "term"), arg_int64(fcinfo, 1, "version"),
										 CLUSTER_WAIT_MS));
}

/* peer_invite(cluster_id, encoding, first_number): to a database that is to join */
Datum
pgtopic_peer_invite(PG_FUNCTION_ARGS)
{
	membership_accept_invitation(arg_cstring(fcinfo, 0, "cluster_id"), arg_cstring(fcinfo, 1, "encoding"),
								 PG_NARGS() > 2 ? arg_int32(fcinfo, 2, "first_number") : 0);
	PG_RETURN_VOID();
}

/* peer_join(conninfo) → cluster_id: from a database that wants to join, to any broker */
Datum
pgtopic_peer_join(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(membership_invite(arg_cstring(fcinfo, 0, "conninfo"))));
}

/* peer_follow(follower) → state of the replication slot: 'none', 'ready', 'lost' */
Datum
pgtopic_peer_follow(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(publish_begin(arg_int32(fcinfo, 0, "follower"))));
}

/* peer_create_slot(follower) */
Datum
pgtopic_peer_create_slot(PG_FUNCTION_ARGS)
{
	publish_create_slot(arg_int32(fcinfo, 0, "follower"));
	PG_RETURN_VOID();
}

/* peer_has_broker(broker) */
Datum
pgtopic_peer_has_broker(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(membership_has_broker(arg_int32(fcinfo, 0, "broker")));
}

/* peer_unfollow(follower): its publications and its slot go */
Datum
pgtopic_peer_unfollow(PG_FUNCTION_ARGS)
{
	publish_end(arg_int32(fcinfo, 0, "follower"));
	PG_RETURN_VOID();
}

/* peer_forget(follower, topic, partition, attempt): of all partitions if topic is 0 */
Datum
pgtopic_peer_forget(PG_FUNCTION_ARGS)
{
	publish_forget(arg_int32(fcinfo, 0, "follower"), arg_int32(fcinfo, 1, "topic"),
				   arg_int32(fcinfo, 2, "partition"), arg_int64(fcinfo, 3, "attempt"));
	PG_RETURN_VOID();
}

/* peer_log_range(follower, topic, partition, leader_epoch, placement) → OUT log_start_offset, OUT log_end_offset */
Datum
pgtopic_peer_log_range(PG_FUNCTION_ARGS)
{
	Datum		values[2];
	bool		nulls[2] = {false};
	int64		start;
	int64		end;

	publish_log_range(arg_int32(fcinfo, 0, "follower"), arg_int32(fcinfo, 1, "topic"),
					  arg_int32(fcinfo, 2, "partition"), arg_int32(fcinfo, 3, "leader_epoch"), arg_int32(fcinfo, 4, "placement"), &start, &end);
	values[0] = Int64GetDatum(start);
	values[1] = Int64GetDatum(end);
	PG_RETURN_DATUM(return_row(fcinfo, values, nulls));
}

/* peer_unpublish(follower, topic, partition, leader_epoch, placement, attempt) */
Datum
pgtopic_peer_unpublish(PG_FUNCTION_ARGS)
{
	publish_remove(arg_int32(fcinfo, 0, "follower"), arg_int32(fcinfo, 1, "topic"),
				   arg_int32(fcinfo, 2, "partition"), arg_int32(fcinfo, 3, "leader_epoch"),
				   arg_int32(fcinfo, 4, "placement"), arg_int64(fcinfo, 5, "attempt"));
	PG_RETURN_VOID();
}

/* peer_publish(follower, topic, partition, leader_epoch, placement, from_offset, attempt) → whether it is */
Datum
pgtopic_peer_publish(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(publish_add(arg_int32(fcinfo, 0, "follower"), arg_int32(fcinfo, 1, "topic"),
							   arg_int32(fcinfo, 2, "partition"), arg_int32(fcinfo, 3, "leader_epoch"),
							   arg_int32(fcinfo, 4, "placement"), arg_int64(fcinfo, 5, "from_offset"),
							   arg_int64(fcinfo, 6, "attempt")));
}

/* peer_ready(follower, topic, partition, leader_epoch, placement, attempt) → whether the leader knows of the copy */
Datum
pgtopic_peer_ready(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(publish_ready(arg_int32(fcinfo, 0, "follower"), arg_int32(fcinfo, 1, "topic"),
								 arg_int32(fcinfo, 2, "partition"), arg_int32(fcinfo, 3, "leader_epoch"),
								 arg_int32(fcinfo, 4, "placement"), arg_int64(fcinfo, 5, "attempt")));
}

/* peer_drop_sync_slots(system_identifier, subscriptions) → how many */
Datum
pgtopic_peer_drop_sync_slots(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(publish_drop_sync_slots(arg_cstring(fcinfo, 0, "system_identifier"),
											arg_cstring(fcinfo, 1, "subscriptions")));
}

/* peer_open_partitions() → " t1_p0  t1_p3 " */
Datum
pgtopic_peer_open_partitions(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(publish_open_partitions()));
}

/* peer_agreed(follower, topic, partition, leader_epoch, placement, newest_epoch) → offset */
Datum
pgtopic_peer_agreed(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(publish_agreed(arg_int32(fcinfo, 0, "follower"), arg_int32(fcinfo, 1, "topic"),
								   arg_int32(fcinfo, 2, "partition"), arg_int32(fcinfo, 3, "leader_epoch"),
								   arg_int32(fcinfo, 4, "placement"), arg_int32(fcinfo, 5, "newest_epoch")));
}
