/*-------------------------------------------------------------------------
 *
 * follower.c
 *	  The replication worker's part that follows: brings the copies of partitions
 *	  that other brokers lead to where their leaders are.
 *
 * One task for each leader, so that one that does not answer keeps no other from
 * being followed.  What has to be done is said by the states of cluster/replica.h.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/topics.h"
#include "cluster/replica.h"
#include "cluster/subscribe.h"
#include "shmem/applying.h"
#include "shmem/cluster_state.h"
#include "worker/arrivals.h"
#include "worker/leader_calls.h"
#include "worker/replication.h"
#include "worker/workers.h"

/* A leader that does not answer is left alone for so long. */
#define BACK_OFF_MS			2000

/* How often a leader is asked whether our slot is all right; whether it knows our copies. */
#define SLOT_CHECK_MS		2000
#define COPY_CHECK_MS		30000

static MemoryContext round_context;

void
worker_owner_begin(ExtensionOwner *saved)
{
	worker_begin_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	extension_owner_begin(saved);
	SPI_connect();
}

void
worker_owner_end(ExtensionOwner *saved, MemoryContext context)
{
	SPI_finish();
	extension_owner_end(saved);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

static void
set_state(Replica *replica, const char *state)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	replica_set_state(replica, state);
	worker_owner_end(&saved, context);
	replica->state = pstrdup(state);
	ereport(DEBUG1,
			(errmsg_internal("pgtopic copy of %s from offset " INT64_FORMAT " in epoch %d of broker %d is %s",
							 worker_describe(psprintf("partition %d", replica->partition), replica->topic),
							 replica->from_offset, replica->leader_epoch, replica->leader, state)));
}

static bool
is_in(const Replica *replica, const char *state)
{
	return strcmp(replica->state, state) == 0;
}

/* How far a table is in a leader's subscription; see subscription_state(). */
static char
state_in(int32 leader, const Replica *replica)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	char		state;

	worker_owner_begin(&saved);
	state = subscription_state(leader, replica->topic, replica->partition);
	worker_owner_end(&saved, context);
	return state;
}

static bool
is_stuck(int32 leader, const Replica *replica)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	bool		stuck;

	worker_owner_begin(&saved);
	stuck = subscription_is_stuck(leader, replica->topic, replica->partition);
	worker_owner_end(&saved, context);
	return stuck;
}

/* --- the subscription --- */

static bool
subscription_is_there(int32 leader)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	bool		there;

	worker_owner_begin(&saved);
	there = subscription_exists(leader);
	worker_owner_end(&saved, context);
	return there;
}

/* Has all copies from this leader begin again: what confirms them is gone. */
static void
begin_again(Replica *replicas, int count)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int32		newest_epoch;

	for (int i = 0; i < count; i++)
	{
		if (is_in(&replicas[i], REPLICA_NEW))
			continue;
		/* while the state still says whether it was complete */
		worker_owner_begin(&saved);
		replicas[i].from_offset = replica_agreed(&replicas[i], &newest_epoch);
		worker_owner_end(&saved, context);
		set_state(&replicas[i], REPLICA_NEW);
	}
}

static int64
next_attempt(void)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int64		attempt;

	worker_owner_begin(&saved);
	attempt = replicas_next_attempt();
	worker_owner_end(&saved, context);
	return attempt;
}

/*
 * Sees to it that there are publications and a slot at the leader, and a
 * subscription here.  A slot without a subscription is a leftover, and one
 * that is lost, or a subscription without one, is of no use: then both sides begin
 * again from nothing.
 */
static void
ensure_subscription(Leader *leader, Replica *replicas, int count)
{
	const char *params[2] = {worker_int_text(worker_self()), NULL};
	bool		there = subscription_is_there(leader->id);
	PGresult   *result;
	bool		ready;
	bool		lost;

	if (there && cluster_clock_ms() - leader->checked_at < SLOT_CHECK_MS)
		return;
	result = leader_call(leader, "SELECT pgtopic.peer_follow($1)", 1, params);
	ready = strcmp(PQgetvalue(result, 0, 0), "ready") == 0;
	lost = strcmp(PQgetvalue(result, 0, 0), "lost") == 0;
	PQclear(result);
	if (there && ready)
	{
		leader->checked_at = cluster_clock_ms();
		return;
	}

	if (there)
		ereport(LOG,
				(errmsg("pgtopic follows broker %d anew: its replication slot %s", leader->id,
						lost ? "has been lost" : "is not there"),
				 lost ? errdetail("It held more WAL than the leader keeps.") : 0));
	else
		ereport(LOG,
				(errmsg("pgtopic begins to follow broker %d", leader->id)));
	if (there)
		subscribe_drop(leader->id, true);
	begin_again(replicas, count);
	/* what we say by it must not be taken back by a crash: copies that nobody knows of would stay */
	applying_flush();
	params[1] = worker_int_text(next_attempt());
	PQclear(leader_call(leader, "SELECT pgtopic.peer_forget($1, 0, 0, $2)", 2, params));
	PQclear(leader_call(leader, "SELECT pgtopic.peer_unfollow($1)", 1, params));
	PQclear(leader_call(leader, "SELECT pgtopic.peer_follow($1)", 1, params));
	PQclear(leader_call(leader, "SELECT pgtopic.peer_create_slot($1)", 1, params));
	subscribe_create(leader->id, leader_conninfo(leader->id));
	leader->checked_at = cluster_clock_ms();
}

/* --- the steps --- */

/* Where what we have is what the leader has, by what we know and what it knows. */
static void
find_beginning(Leader *leader, Replica *replica)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	PGresult   *result;
	int32		newest_epoch;
	int64		agreed;

	worker_owner_begin(&saved);
	replica->from_offset = replica_agreed(replica, &newest_epoch);
	worker_owner_end(&saved, context);
	result = leader_call_for(leader, replica, "SELECT pgtopic.peer_agreed($1, $2, $3, $4, $5, $6)", 6, newest_epoch);
	agreed = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
	replica->from_offset = Min(replica->from_offset, agreed);
}

/* new → unpublished */
static void
unpublish(Leader *leader, Replica *replica)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	const char *params[4];

	worker_owner_begin(&saved);
	replica_begin_attempt(replica);
	worker_owner_end(&saved, context);
	params[0] = worker_int_text(worker_self());
	params[1] = worker_int_text(replica->topic);
	params[2] = worker_int_text(replica->partition);
	params[3] = worker_int_text(replica->attempt);
	applying_flush();
	PQclear(leader_call(leader, "SELECT pgtopic.peer_forget($1, $2, $3, $4)", 4, params));
	PQclear(leader_call_for(leader, replica, "SELECT pgtopic.peer_unpublish($1, $2, $3, $4, $5, $6)", 6, replica->attempt));
	find_beginning(leader, replica);
	set_state(replica, REPLICA_UNPUBLISHED);
}

static bool
is_quiet(const Replica *replica)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	bool		quiet;

	worker_owner_begin(&saved);
	quiet = replica_is_quiet(replica);
	worker_owner_end(&saved, context);
	return quiet;
}

/*
 * unpublished → detached, once no subscription has the tables, neither this leader's
 * nor that of the last one, and nothing of them is on its way.
 */
static void
detach(Leader *leader, Replica *replica, const int32 *subscribed, int nsubscribed)
{
	for (int i = 0; i < nsubscribed; i++)
	{
		if (state_in(subscribed[i], replica) == 0)
			continue;
		/* it has been published to us again: an answer of ours was lost */
		if (subscribed[i] == leader->id)
			set_state(replica, REPLICA_NEW);
		return;
	}
	if (is_quiet(replica) && arrivals_are_over(replica->topic, replica->partition, false))
		set_state(replica, REPLICA_DETACHED);
}

/* Makes segments up to where the leader's log ends. */
static void
make_segments(Leader *leader, Replica *replica, int64 *log_start)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	PGresult   *result;
	int64		log_end;
	bool		more = true;

	result = leader_call_for(leader, replica, "SELECT log_start_offset, log_end_offset FROM pgtopic.peer_log_range($1, $2, $3, $4, $5)", 5, 0);
	*log_start = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	log_end = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
	PQclear(result);
	while (more && !is_in(replica, REPLICA_DETACHED))
	{
		CHECK_FOR_INTERRUPTS();
		worker_owner_begin(&saved);
		more = replica_make_segment(replica, log_end);
		worker_owner_end(&saved, context);
	}
}

/* detached → cut → published */
static void
cut_and_publish(Leader *leader, Replica *replica)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int64		log_start;
	PGresult   *result;
	bool		done;

	make_segments(leader, replica, &log_start);
	if (is_in(replica, REPLICA_DETACHED))
	{
		worker_owner_begin(&saved);
		replica_cut(replica, log_start);
		replica_set_state(replica, REPLICA_CUT);
		worker_owner_end(&saved, context);
		replica->state = pstrdup(REPLICA_CUT);
		make_segments(leader, replica, &log_start);
	}
	result = leader_call_for(leader, replica, "SELECT pgtopic.peer_publish($1, $2, $3, $4, $5, $6, $7)", 7, replica->from_offset);
	done = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	set_state(replica, done ? REPLICA_PUBLISHED : REPLICA_NEW);
}

/*
 * ready: so it stays.  But a leader that does not know the copy never counts it as in
 * sync; whatever the reason, it begins anew.
 */
static void
ask_about_copy(Leader *leader, Replica *replica)
{
	PGresult   *result = leader_call_for(leader, replica, "SELECT pgtopic.peer_ready($1, $2, $3, $4, $5, $6)", 6, replica->attempt);
	bool		known = PQgetvalue(result, 0, 0)[0] == 't';

	PQclear(result);
	if (known)
		return;
	ereport(LOG,
			(errmsg("pgtopic copies %s anew: broker %d does not know of the copy",
					worker_describe(psprintf("partition %d", replica->partition), replica->topic), leader->id)));
	set_state(replica, REPLICA_NEW);
}

/* copying → ready */
static void
look_at_copy(Leader *leader, Replica *replica)
{
	char		state = state_in(leader->id, replica);
	int64		log_start;
	PGresult   *result;
	bool		known;

	if (state == 0)
	{
		/* the refresh has not seen it: once more */
		set_state(replica, REPLICA_PUBLISHED);
		return;
	}
	if (state == 'f' && is_stuck(leader->id, replica))
	{
		set_state(replica, REPLICA_NEW);
		return;
	}
	if (state != 'r')
	{
		/* what is copied does not wait for segments that are attached meanwhile */
		make_segments(leader, replica, &log_start);
		return;
	}
	result = leader_call_for(leader, replica, "SELECT pgtopic.peer_ready($1, $2, $3, $4, $5, $6)", 6, replica->attempt);
	known = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	if (!known)
	{
		set_state(replica, REPLICA_NEW);
		return;
	}
	set_state(replica, REPLICA_READY);
	ereport(LOG,
			(errmsg("pgtopic follows %s: all from offset " INT64_FORMAT " has been copied from broker %d",
					worker_describe(psprintf("partition %d", replica->partition), replica->topic),
					replica->from_offset, leader->id)));
}

typedef struct FollowTask
{
	Leader	   *leader;
	Replica    *replicas;		/* of this leader */
	int			count;
	int32	   *subscribed;		/* leaders that there are subscriptions for */
	int			nsubscribed;
	bool		busy;			/* steps are under way */
} FollowTask;

/* The subscription looks at its publications again. */
static void
refresh_subscription(int32 leader)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	replicas_note_agreed(leader);
	worker_owner_end(&saved, context);
	subscribe_refresh(leader);
	worker_owner_begin(&saved);
	replicas_look_detached(leader);
	worker_owner_end(&saved, context);
}

/* Steps that need the subscription to look at its publications again. */
static bool
wants_refresh(const Replica *replica)
{
	return is_in(replica, REPLICA_UNPUBLISHED) || is_in(replica, REPLICA_PUBLISHED);
}

/* What the leader is asked for before the subscription looks at its publications. */
static void
at_leader(Leader *leader, Replica *replica)
{
	if (is_in(replica, REPLICA_NEW))
		unpublish(leader, replica);
	else if (is_in(replica, REPLICA_DETACHED) || is_in(replica, REPLICA_CUT))
		cut_and_publish(leader, replica);
}

/*
 * One step of one partition.  A leader who has not applied the metadata that makes it
 * one, or has applied newer one, says so (57P03): that is no failure, and keeps
 * the other partitions waiting for nothing.
 */
static void
try_step(Leader *leader, Replica *replica, void (*step) (Leader *, Replica *))
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		step(leader, replica);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_CANNOT_CONNECT_NOW)
			PG_RE_THROW();
		HOLD_INTERRUPTS();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
}

/* One step for each partition, and one refresh for all of them. */
static void
follow(void *arg)
{
	FollowTask *task = arg;
	bool		refresh = false;
	bool		ask = cluster_clock_ms() - task->leader->asked_at >= COPY_CHECK_MS;

	task->busy = true;
	ensure_subscription(task->leader, task->replicas, task->count);
	if (ask)
		task->leader->asked_at = cluster_clock_ms();
	for (int i = 0; i < task->count; i++)
	{
		try_step(task->leader, &task->replicas[i], at_leader);
		refresh |= wants_refresh(&task->replicas[i]);
	}
	if (refresh)
		refresh_subscription(task->leader->id);
	task->busy = false;
	for (int i = 0; i < task->count; i++)
	{
		Replica    *replica = &task->replicas[i];

		if (is_in(replica, REPLICA_UNPUBLISHED))
			detach(task->leader, replica, task->subscribed, task->nsubscribed);
		else if (is_in(replica, REPLICA_PUBLISHED))
			set_state(replica, REPLICA_COPYING);
		else if (is_in(replica, REPLICA_COPYING))
			try_step(task->leader, replica, look_at_copy);
		else if (ask && is_in(replica, REPLICA_READY))
			try_step(task->leader, replica, ask_about_copy);
		task->busy |= !is_in(replica, REPLICA_READY);
	}
}

/*
 * A subscription that has tables whose partition another broker leads by now, or
 * nobody here follows any more, looks at its publications again, once the old leader
 * has taken them out; one for a leader of nothing is dropped.
 */
static void
tidy(void *arg)
{
	FollowTask *task = arg;
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	int			count;

	if (task->count == 0)
	{
		ereport(LOG,
				(errmsg("pgtopic does not follow broker %d any more", task->leader->id)));
		subscribe_drop(task->leader->id, true);
		return;
	}
	worker_owner_begin(&saved);
	/* if we were interrupted the last time */
	replicas_look_detached(task->leader->id);
	extension_execute(SPI_OK_SELECT,
					  "SELECT DISTINCT x.leader::pg_catalog.int8 FROM"
					  " (SELECT pg_catalog.substring(s.subname, '^pgtopic_from_(\\d+)$')::pg_catalog.int4 AS leader,"
					  " pg_catalog.regexp_match(c.relname, '^t(\\d+)_p(\\d+)') AS name"
					  " FROM pg_catalog.pg_subscription_rel r JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid"
					  " JOIN pg_catalog.pg_class c ON c.oid = r.srrelid WHERE s.subname = 'pgtopic_from_%d') x"
					  " WHERE NOT EXISTS (SELECT FROM pgtopic.partition p, pgtopic.cluster l"
					  " WHERE p.topic_id = x.name[1]::pg_catalog.int4 AND p.partition = x.name[2]::pg_catalog.int4"
					  " AND p.leader = x.leader AND l.self = ANY (p.replicas))", task->leader->id);
	count = (int) SPI_processed;
	worker_owner_end(&saved, context);
	if (count > 0)
	{
		refresh_subscription(task->leader->id);
		task->busy = true;
	}
}

static void
take_checkpoints(void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;

	worker_owner_begin(&saved);
	replicas_take_checkpoints();
	worker_owner_end(&saved, context);
}

/* What this broker follows, and from whom it receives. */
typedef struct Look
{
	Replica    *replicas;
	int			count;
	int32	   *subscribed;
	int			nsubscribed;
} Look;

static void
look(void *arg)
{
	Look	   *result = arg;
	ExtensionOwner saved;
	MemoryContext context = round_context;

	worker_owner_begin(&saved);
	MemoryContextSwitchTo(context);
	result->replicas = replicas_read(&result->count);
	/* SPI leaves its own context behind */
	MemoryContextSwitchTo(context);
	result->subscribed = subscribe_leaders(&result->nsubscribed);
	worker_owner_end(&saved, context);
}

bool
follower_run(bool checkpoints)
{
	Look		now;
	bool		busy = false;

	round_context = CurrentMemoryContext;
	memset(&now, 0, sizeof(now));
	if (!worker_run_task("looking at what this broker follows", look, &now))
		return false;

	for (int i = 0; i < now.nsubscribed; i++)
	{
		FollowTask	task = {leader_entry(now.subscribed[i]), NULL, 0, NULL, 0, false};

		for (int r = 0; r < now.count; r++)
			task.count += now.replicas[r].leader == now.subscribed[i];
		if (cluster_clock_ms() < task.leader->try_at)
			continue;
		if (worker_run_task(psprintf("tidying what this broker receives from broker %d", task.leader->id),
							tidy, &task))
			busy |= task.busy;
		else
			task.leader->try_at = cluster_clock_ms() + BACK_OFF_MS;
	}
	for (int first = 0; first < now.count;)
	{
		FollowTask	task = {leader_entry(now.replicas[first].leader), &now.replicas[first], 0,
			now.subscribed, now.nsubscribed, false};

		while (first < now.count && now.replicas[first].leader == task.leader->id)
		{
			task.count++;
			first++;
		}
		/* there is nothing to be had from who is not there */
		if (cluster_clock_ms() < task.leader->try_at || cluster_state_is_fenced(task.leader->id))
			continue;
		if (worker_run_task(psprintf("following broker %d", task.leader->id), follow, &task))
			busy |= task.busy;
		else
			task.leader->try_at = cluster_clock_ms() + BACK_OFF_MS;
	}
	if (checkpoints && now.count > 0)
		(void) worker_run_task("storing the leaders' watermarks", take_checkpoints, NULL);
	return busy;
}
