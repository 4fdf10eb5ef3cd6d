/*-------------------------------------------------------------------------
 *
 * change.c
 *	  Changing the metadata of the cluster.
 *
 * A change is a name and arguments as text, since it travels to the controller.
 * There it becomes the next image, in a transaction that holds the row of
 * pgtopic.cluster: one change at a time, each on top of one that is committed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"

#include "base/compat.h"
#include "base/image.h"
#include "catalog/cluster.h"
#include "catalog/rows.h"
#include "cluster/change.h"
#include "cluster/store.h"
#include "peer/call.h"
#include "peer/connect.h"
#include "shmem/cluster_state.h"
#include "shmem/databases.h"

#define CALL_TIMEOUT_MS		5000
#define RETRY_MS			50

static uint32
change_wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = compat_wait_event("PgtopicMetadata");
	return event;
}

/* --- on the controller --- */

typedef struct Args
{
	const char *operation;
	char	  **values;
	int			count;
} Args;

static char *
arg_text(const Args *args, int i)
{
	if (i >= args->count)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("change \"%s\" of the metadata has too few arguments", args->operation)));
	return args->values[i];
}

static int64
arg_int64(const Args *args, int i)
{
	char	   *text = arg_text(args, i);

	return text ? DatumGetInt64(DirectFunctionCall1(int8in, CStringGetDatum(text))) : 0;
}

static int32
arg_int32(const Args *args, int i)
{
	char	   *text = arg_text(args, i);

	return text ? pg_strtoint32(text) : 0;
}

/* id, name, owner, partitions, replication_factor, and the options. */
static ImageTopic
arg_topic(const Args *args)
{
	ImageTopic	topic;

	topic.id = arg_int32(args, 0);
	topic.name = arg_text(args, 1);
	topic.owner = arg_text(args, 2);
	topic.partitions = arg_int32(args, 3);
	topic.replication_factor = arg_int32(args, 4);
	topic.retention = arg_text(args, 5);
	topic.retention_bytes = arg_int64(args, 6);
	topic.segment_messages = arg_int64(args, 7);
	topic.max_message_bytes = arg_int32(args, 8);
	topic.value_format = arg_text(args, 9);
	topic.min_insync_replicas = arg_int32(args, 10);
	topic.created_at = arg_text(args, 11);
	return topic;
}

/* Whether there was something to bring forward: a handover that was called off, say. */
static bool
advance(Image *image)
{
	char	   *before = image_format(image);

	image_advance(image);
	return strcmp(before, image_format(image)) != 0;
}

bool
change_can_advance(const char *text)
{
	Image	   *image = image_parse(text);

	return image != NULL && advance(image);
}

/*
 * Who is taken out of the cluster without being asked would go on as if nothing had
 * happened.  Whoever asks for it may not know yet who is there; the controller does.
 */
static void
check_is_gone(const Image *image, int32 broker)
{
	if (image_broker(image, broker) && !image_is_fenced(image, broker))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("broker %d is there", broker),
				 errdetail("The controller has heard of it within pgtopic.broker_session_timeout."),
				 errhint("Call leave_cluster() on it, or stop it first.")));
}

/* Brokers that are gone; negative: those that may be. */
static bool
fence_brokers(Image *image, const Args *args, bool *changed, ImageProblem *problem)
{
	int32	   *gone = palloc((args->count + 1) * sizeof(int32));
	int			count = 0;

	for (int i = 0; i < args->count; i++)
	{
		int32		id = arg_int32(args, i);
		ImageBroker *suspect = id < 0 ? image_broker(image, -id) : NULL;

		if (id >= 0)
			gone[count++] = id;
		else if (suspect)
			suspect->suspect = true;
	}
	return image_fence_brokers(image, gone, count, changed, problem);
}

/*
 * Changes the image.  *changed is false if there was nothing to do.
 */
static bool
run_change(Image *image, const Args *args, int32 *id, bool *changed, ImageProblem *problem)
{
	const char *op = args->operation;
	uint32		start = pg_prng_uint32(&pg_global_prng_state);
	uint32		shift = pg_prng_uint32(&pg_global_prng_state);

	*id = 0;
	*changed = true;
	if (strcmp(op, CHANGE_ADD_BROKER) == 0)
		return image_add_broker(image, arg_text(args, 0), id, problem);
	if (strcmp(op, CHANGE_REMOVE_BROKER) == 0)
	{
		bool		gone = arg_int32(args, 1) != 0;
		int32		replacement = args->count > 2 ? arg_int32(args, 2) : 0;

		if (gone)
			check_is_gone(image, arg_int32(args, 0));
		if (replacement != 0)
			return image_replace_broker(image, arg_int32(args, 0), replacement, problem);
		return image_remove_broker(image, arg_int32(args, 0), gone, problem);
	}
	if (strcmp(op, CHANGE_ADD_TOPIC) == 0)
	{
		ImageTopic	topic = arg_topic(args);

		return image_add_topic(image, &topic, start, shift, id, problem);
	}
	if (strcmp(op, CHANGE_ALTER_TOPIC) == 0)
	{
		ImageTopic	topic = arg_topic(args);

		return image_alter_topic(image, &topic, problem);
	}
	if (strcmp(op, CHANGE_ADD_PARTITIONS) == 0)
		return image_add_partitions(image, arg_int32(args, 0), arg_int32(args, 1), start, shift, problem);
	if (strcmp(op, CHANGE_DROP_TOPIC) == 0)
		return image_drop_topic(image, arg_int32(args, 0), problem);
	if (strcmp(op, CHANGE_MOVE_PARTITION) == 0)
	{
		int			count = args->count - 2;
		int32	   *replicas = palloc(Max(count, 1) * sizeof(int32));

		for (int i = 0; i < count; i++)
			replicas[i] = arg_int32(args, i + 2);
		return image_move_partition(image, arg_int32(args, 0), arg_int32(args, 1),
									replicas, count, problem);
	}
	if (strcmp(op, CHANGE_ELECT_LEADER) == 0)
		return image_elect_leader(image, arg_int32(args, 0), arg_int32(args, 1),
								  arg_int32(args, 2), problem);
	if (strcmp(op, CHANGE_ELECT_UNCLEAN) == 0)
		return image_elect_unclean(image, arg_int32(args, 0), arg_int32(args, 1),
								   arg_int32(args, 2), problem);
	if (strcmp(op, CHANGE_PREFER_LEADERS) == 0)
	{
		image_prefer_leaders(image, changed);
		return true;
	}
	if (strcmp(op, CHANGE_FENCE) == 0)
		return fence_brokers(image, args, changed, problem);
	if (strcmp(op, CHANGE_UNFENCE) == 0)
		return image_unfence_broker(image, arg_int32(args, 0), arg_int32(args, 1), changed, problem);
	if (strcmp(op, CHANGE_ISR) == 0)
	{
		ImagePartition *partition = image_partition(image, arg_int32(args, 0), arg_int32(args, 1));

		/* it is about a replica that was taken away since, and given back; or about older metadata */
		if (partition && (partition_placement(partition, arg_int32(args, 4)) != arg_int32(args, 6) ||
						  partition->revision != arg_int32(args, 7)))
		{
			*changed = false;
			return true;
		}
		/* who is not in sync anyway: this makes reports void that say the opposite */
		if (partition && arg_int32(args, 5) == 0 && !partition_in_sync(partition, arg_int32(args, 4)) &&
			partition->leader == arg_int32(args, 2) && partition->leader_epoch == arg_int32(args, 3))
		{
			partition->revision++;
			return true;
		}
		return image_change_isr(image, arg_int32(args, 0), arg_int32(args, 1), arg_int32(args, 2),
								arg_int32(args, 3), arg_int32(args, 4), arg_int32(args, 5) != 0,
								changed, problem);
	}
	if (strcmp(op, CHANGE_HAND_OVER) == 0)
	{
		const ImagePartition *partition = image_partition(image, arg_int32(args, 0), arg_int32(args, 1));

		if (partition && partition->revision != arg_int32(args, 6))
		{
			*changed = false;
			return true;
		}
		return image_hand_over(image, arg_int32(args, 0), arg_int32(args, 1), arg_int32(args, 2),
							   arg_int32(args, 3), arg_int32(args, 4), arg_int32(args, 5) != 0,
							   changed, problem);
	}
	if (strcmp(op, CHANGE_ADVANCE) == 0)
	{
		*changed = advance(image);
		return true;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no change \"%s\" of the metadata", op)));
}

static void
raise_problem(const ImageProblem *problem)
{
	int			code = ERRCODE_INVALID_PARAMETER_VALUE;

	switch (problem->kind)
	{
		case IMAGE_NO_SUCH_BROKER:
		case IMAGE_NO_SUCH_TOPIC:
			code = ERRCODE_UNDEFINED_OBJECT;
			break;
		case IMAGE_NO_SUCH_PARTITION:
			code = ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
			break;
		case IMAGE_DUPLICATE_TOPIC:
			code = ERRCODE_DUPLICATE_OBJECT;
			break;
		case IMAGE_INVALID:
			break;
		case IMAGE_NOT_NOW:
			code = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
			break;
	}
	ereport(ERROR,
			(errcode(code),
			 errmsg_internal("%s", problem->message),
			 problem->detail ? errdetail_internal("%s", problem->detail) : 0,
			 problem->hint ? errhint("%s", problem->hint) : 0));
}

static void
error_not_controller(int32 self)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("broker %d is not the controller of the cluster", self)));
}

ChangeResult
change_propose(const char *operation, char **values, int count)
{
	Args		args = {operation, values, count};
	ChangeResult result = {0};
	ImageProblem problem = {0};
	ClusterStore store;
	ClusterState state;
	Image	   *image;
	char	   *fault;
	bool		changed;

	if (!store_lock(&store))
		/* it has left, and whoever asks has not heard of that: another one is the controller */
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("this database is not the controller of the cluster"),
				 errdetail("It is not a broker of a cluster.")));
	cluster_state_get(&state);
	if (state.controller_term == 0 || state.controller_term != store.durable.term)
		error_not_controller(store.self);
	if (store.durable.image_term != store.durable.term ||
		store.durable.committed_version != store.durable.image_version)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("another change of the cluster's metadata is under way")));

	image = image_parse(store.image);
	if (image == NULL)
		elog(ERROR, "the stored metadata of the cluster cannot be read");
	if (!run_change(image, &args, &result.id, &changed, &problem))
		raise_problem(&problem);
	result.term = store.durable.term;
	if (!changed)
		return result;
	image_advance(image);
	image_count_revisions(image, image_parse(store.image));
	fault = image_fault(image);
	if (fault)
		elog(ERROR, "change \"%s\" would damage the cluster's metadata: %s", operation, fault);

	quorum_propose(&store.durable);
	result.version = store.durable.image_version;
	store_write(&store, image_format(image));
	store_make_durable();
	database_wake_at_commit(WORKER_QUORUM);
	return result;
}

bool
change_wait_committed(int64 term, int64 version, int timeout_ms)
{
	int64		deadline = cluster_clock_ms() + timeout_ms;
	ClusterState state;

	for (;;)
	{
		ConditionVariablePrepareToSleep(cluster_state_changed());
		cluster_state_get(&state);
		if (state.controller_term != term || state.committed_version >= version ||
			cluster_clock_ms() >= deadline)
			break;
		(void) ConditionVariableTimedSleep(cluster_state_changed(), 100, change_wait_event());
	}
	ConditionVariableCancelSleep();
	if (state.controller_term != term)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the cluster's controller has changed before it knew whether the change of the metadata is committed"),
				 errhint("Look whether it has been made, or try again.")));
	return state.committed_version >= version;
}

/* --- on the broker that wants the change --- */

static void
pause_ms(int ms)
{
	ConditionVariablePrepareToSleep(cluster_state_changed());
	(void) ConditionVariableTimedSleep(cluster_state_changed(), ms, change_wait_event());
	ConditionVariableCancelSleep();
	CHECK_FOR_INTERRUPTS();
}

/* The arguments as one array of text; NULL elements stay NULL. */
static char *
args_array(const char *const *args, int nargs)
{
	Datum	   *values = palloc(Max(nargs, 1) * sizeof(Datum));
	bool	   *nulls = palloc(Max(nargs, 1) * sizeof(bool));
	int			lower_bound = 1;
	ArrayType  *array;

	for (int i = 0; i < nargs; i++)
	{
		nulls[i] = args[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(args[i]);
	}
	array = construct_md_array(values, nulls, 1, &nargs, &lower_bound, TEXTOID, -1, false, TYPALIGN_INT);
	return OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array));
}

/* One try with one controller. */
static ChangeResult
try_change(PGconn *conn, const char *whom, const char *operation, const char *array, volatile bool *proposed)
{
	const char *params[2] = {operation, array};
	ChangeResult change;
	PGresult   *result;

	result = call_run(conn, whom, CALL_TIMEOUT_MS,
					   "SELECT term, version, id FROM pgtopic.peer_change($1, $2::pg_catalog.text[])", 2, params);
	change.term = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	change.version = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
	change.id = atoi(PQgetvalue(result, 0, 2));
	PQclear(result);
	*proposed = true;
	if (change.version > 0)
	{
		bool		committed;

		params[0] = psprintf(INT64_FORMAT, change.term);
		params[1] = psprintf(INT64_FORMAT, change.version);
		result = call_run(conn, whom, CLUSTER_WAIT_MS + CALL_TIMEOUT_MS,
						   "SELECT pgtopic.peer_wait_committed($1, $2)", 2, params);
		committed = PQgetvalue(result, 0, 0)[0] == 't';
		PQclear(result);
		if (!committed)
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("the change of the cluster's metadata is not committed"),
					 errdetail("No majority of the brokers has answered for %d ms.", CLUSTER_WAIT_MS),
					 errhint("It may still take effect when they are there again.")));
	}
	return change;
}

ChangeResult
cluster_change(const char *operation, const char *const *args, int nargs, int timeout_ms)
{
	MemoryContext context = CurrentMemoryContext;
	int64		deadline = cluster_clock_ms() + timeout_ms;
	char	   *array = args_array(args, nargs);

	for (;;)
	{
		ClusterState state;
		char	   *conninfo;
		char	   *whom;
		PGconn	   *volatile conn = NULL;
		volatile bool again = false;
		volatile bool proposed = false;
		ChangeResult result = {0};

		CHECK_FOR_INTERRUPTS();
		cluster_state_get(&state);

		/* the one we have heard of last may have left the cluster since */
		conninfo = state.controller == 0 ? NULL : broker_row_conninfo(state.controller);
		if (conninfo == NULL)
		{
			if (cluster_clock_ms() >= deadline)
				ereport(ERROR,
						(errcode(ERRCODE_CANNOT_CONNECT_NOW),
						 errmsg("the cluster has no controller"),
						 errdetail("This broker has heard of none for %d ms.", timeout_ms),
						 errhint("See broker_status for the brokers that are there; a majority is needed.")));
			pause_ms(RETRY_MS);
			continue;
		}

		/* what is no fault of the change is tried again, unless it may have been made */
		whom = psprintf("broker %d", state.controller);
		PG_TRY();
		{
			conn = call_open(conninfo, cluster_self(), whom, CALL_TIMEOUT_MS);
			result = try_change(conn, whom, operation, array, &proposed);
		}
		PG_CATCH();
		{
			int			code = geterrcode();

			call_close(conn);
			if (proposed || cluster_clock_ms() >= deadline || peer_is_in_vain() ||
				(code != ERRCODE_CANNOT_CONNECT_NOW &&
				 code != ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION))
				PG_RE_THROW();
			MemoryContextSwitchTo(context);
			FlushErrorState();
			again = true;
		}
		PG_END_TRY();
		if (!again)
		{
			call_close(conn);
			return result;
		}
		pause_ms(RETRY_MS);
	}
}

bool
cluster_wait_applied(int64 version, int timeout_ms)
{
	int64		deadline = cluster_clock_ms() + timeout_ms;
	ClusterState state;

	for (;;)
	{
		ConditionVariablePrepareToSleep(cluster_state_changed());
		cluster_state_get(&state);
		if (state.applied_version >= version || cluster_clock_ms() >= deadline)
			break;
		(void) ConditionVariableTimedSleep(cluster_state_changed(), 100, change_wait_event());
	}
	ConditionVariableCancelSleep();
	return state.applied_version >= version;
}
