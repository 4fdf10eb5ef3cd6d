/*-------------------------------------------------------------------------
 *
 * quorum.c
 *	  The quorum worker: agrees with the other brokers on the metadata.
 *
 * It has a link to each of them (links.c) and never waits for one.  What it decides is
 * base/quorum.c's; here are the clock, the messages and the storing.  What is
 * stored is changed under the lock of its row (cluster/store.h), by this process or
 * by a session that another broker's worker has called (sql/peer_cluster_calls.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "common/pg_prng.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/image.h"
#include "base/quorum.h"
#include "base/settings.h"
#include "cluster/change.h"
#include "cluster/store.h"
#include "shmem/cluster_state.h"
#include "worker/links.h"
#include "worker/workers.h"

#define ROUND_MS		1000	/* worker_round(), and a look at the row */

/* To brokers that nothing else is sent to; so a new controller knows who is there. */
#define PINGS			10		/* within a session timeout */

static QuorumRun run;
static ClusterStore store;		/* as last read; store.image is not kept */
static Image *metadata = NULL;	/* the newest that was accepted */
static MemoryContext metadata_context;
static QuorumMembers members;
static int64 members_version = -1;
static int64 members_term = -1;
static int64 heard_ms = 0;
static int64 started_ms;		/* who was not heard before may have been there */

typedef enum QuorumCall
{
	CALL_PING,
	CALL_VOTE,
	CALL_ACCEPT
} QuorumCall;

/* --- the row --- */

static uint32
random_number(void)
{
	return pg_prng_uint32(&pg_global_prng_state);
}

static void
begin(void)
{
	worker_begin_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end(MemoryContext context, bool flush)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	/* what we say to others must not be taken back by a crash */
	if (flush)
		XLogFlush(XactLastCommitEnd);
}

static void
take_metadata(const char *text)
{
	MemoryContext old;

	MemoryContextReset(metadata_context);
	old = MemoryContextSwitchTo(metadata_context);
	metadata = image_parse(text);
	MemoryContextSwitchTo(old);
	if (metadata == NULL)
		elog(ERROR, "the stored metadata of the cluster cannot be read");
	members.count = 0;
	for (int i = 0; i < metadata->brokers_count && i < QUORUM_MEMBERS_MAX; i++)
		members.ids[members.count++] = metadata->brokers[i].id;
}

/* Takes over what the row says; false if there is none any more. */
static bool
take_over(bool lock)
{
	QuorumDurable before = store.durable;

	if (!(lock ? store_lock(&store) : store_read(&store)))
		return false;
	/* who has got our vote has its time to win */
	if (store.durable.voted_for != 0 && store.durable.voted_for != store.self &&
		(store.durable.term != before.term || store.durable.voted_for != before.voted_for))
		quorum_heard_controller(&run, cluster_clock_ms(), random_number());
	if (store.image && (store.durable.image_version != members_version ||
						store.durable.image_term != members_term))
	{
		take_metadata(store.image);
		members_version = store.durable.image_version;
		members_term = store.durable.image_term;
		run.self = store.self;
		quorum_set_members(&run, &members, cluster_clock_ms());
		links_set(metadata, store.self);
	}
	cluster_state_set_committed(store.durable.committed_version);
	return true;
}

static void
read_row(void)
{
	MemoryContext context = CurrentMemoryContext;
	bool		there;

	begin();
	there = take_over(false);
	end(context, false);
	if (!there)
		proc_exit(0);
}

static void
read_row_task(void *arg)
{
	read_row();
}

/*
 * Runs a decision over the row as it is now, stores what it has changed, and has it
 * on disk.  A decision that finds nothing to do returns false.
 */
static void
decide(bool (*decision) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	int64		committed = store.durable.committed_version;
	bool		store_it;

	begin();
	store_it = take_over(true) && decision(arg);
	if (store_it)
		store_write(&store, NULL);
	end(context, store_it);
	if (store.durable.committed_version > committed)
	{
		cluster_state_set_committed(store.durable.committed_version);
		database_wake(WORKER_REPLICATION);
	}
}

/* --- decisions --- */

static bool
campaign(void *arg)
{
	int64		now = cluster_clock_ms();

	/* who is alone has nobody to be told by, nor to vote twice for */
	if (members.count > 1 && store_may_forget_vote())
		return false;
	/* somebody may have been heard since */
	if (quorum_tick(&run, &store.durable, &members, now) != QUORUM_CAMPAIGN)
		return false;
	quorum_campaign(&run, &store.durable, now, random_number());
	return true;
}

static bool
become_controller(void *arg)
{
	if (!quorum_has_won(&run, &store.durable, &members))
		return false;
	quorum_become_controller(&run, &store.durable, cluster_clock_ms());
	ereport(LOG,
			(errmsg("pgtopic broker %d is the controller of the cluster (term " INT64_FORMAT ", version " INT64_FORMAT ")",
					store.self, store.durable.term, store.durable.image_version)));
	return true;
}

static bool
advance_commit(void *arg)
{
	return quorum_advance_commit(&run, &store.durable, &members);
}

typedef struct Reply
{
	Link	   *link;
	VoteReply	vote;
	AcceptReply accept;
} Reply;

static bool
on_vote_reply(void *arg)
{
	Reply	   *reply = arg;
	bool		store_it;

	quorum_on_vote_reply(&run, &store.durable, reply->link->broker, &reply->vote,
						 cluster_clock_ms(), &store_it);
	return store_it;
}

static bool
on_accept_reply(void *arg)
{
	Reply	   *reply = arg;
	bool		store_it;

	quorum_on_accept_reply(&run, &store.durable, reply->link->broker, &reply->accept,
						   cluster_clock_ms(), &store_it);
	return store_it;
}

/* What follows from answers and from time. */
static void
go_on(void)
{
	int64		now = cluster_clock_ms();

	switch (quorum_tick(&run, &store.durable, &members, now))
	{
		case QUORUM_NOTHING:
			break;
		case QUORUM_CAMPAIGN:
			decide(campaign, NULL);
			break;
		case QUORUM_STEP_DOWN:
			ereport(LOG,
					(errmsg("pgtopic broker %d is not the controller of the cluster any more", store.self),
					 quorum_has_majority(&run, now) ? errdetail("Another broker is, or it has left.") :
					 errdetail("No majority of the brokers answers.")));
			quorum_step_down(&run, now, random_number());
			break;
	}
	if (quorum_is_candidate(&run, &store.durable) && quorum_has_won(&run, &store.durable, &members))
		decide(become_controller, NULL);
	if (quorum_is_controller(&run, &store.durable))
	{
		QuorumDurable probe = store.durable;

		if (quorum_advance_commit(&run, &probe, &members))
			decide(advance_commit, NULL);
	}
}

/* --- messages --- */

static char *
int64_text(int64 value)
{
	return psprintf(INT64_FORMAT, value);
}

/* The newest accepted image, if it still is the one that we know. */
static char *
read_image(void)
{
	MemoryContext context = CurrentMemoryContext;
	ClusterStore now;

	begin();
	MemoryContextSwitchTo(context);
	if (!store_read(&now))
		now.image = NULL;
	end(context, false);
	if (now.image == NULL || now.durable.image_version != store.durable.image_version ||
		now.durable.image_term != store.durable.image_term)
		return NULL;
	return now.image;
}

static void
send_vote_request(Link *link)
{
	const char *params[6];

	params[0] = store.cluster_id;
	params[1] = psprintf("%d", link->broker);
	params[2] = int64_text(store.durable.term);
	params[3] = psprintf("%d", store.self);
	params[4] = int64_text(store.durable.image_term);
	params[5] = int64_text(store.durable.image_version);
	link_send(link, CALL_VOTE, "SELECT * FROM pgtopic.peer_vote($1, $2, $3, $4, $5, $6)", 6, params);
}

static void
send_accept_request(Link *link, const char *image)
{
	const char *params[9];

	params[0] = store.cluster_id;
	params[1] = psprintf("%d", link->broker);
	params[2] = int64_text(store.durable.term);
	params[3] = psprintf("%d", store.self);
	params[4] = int64_text(store.durable.image_term);
	params[5] = int64_text(store.durable.image_version);
	params[6] = int64_text(store.durable.committed_version);
	params[7] = image;
	params[8] = int64_text(link->clock);
	link->committed_sent = store.durable.committed_version;
	link_send(link, CALL_ACCEPT, "SELECT * FROM pgtopic.peer_accept($1, $2, $3, $4, $5, $6, $7, $8, $9)", 9, params);
}

static QuorumPeer *
peer_of(const Link *link)
{
	for (int i = 0; i < run.peers_count; i++)
	{
		if (run.peers[i].id == link->broker)
			return &run.peers[i];
	}
	return NULL;
}

/* Sends what is due to a broker that is connected and has answered all before. */
static void
send_to(Link *link, int64 now)
{
	QuorumPeer *peer = peer_of(link);
	bool		with_image = false;

	if (peer && quorum_should_send(&run, &store.durable, peer, link->committed_sent, now, &with_image))
	{
		if (quorum_is_controller(&run, &store.durable))
		{
			char	   *image = with_image ? read_image() : NULL;

			/* another one has come meanwhile: at the next look */
			if (with_image && image == NULL)
				return;
			quorum_sent(peer, &store.durable, with_image, now);
			send_accept_request(link, image);
		}
		else
		{
			quorum_sent(peer, &store.durable, false, now);
			send_vote_request(link);
		}
	}
	else if (now - link->since >= pgtopic_broker_session_timeout / PINGS)
		link_send(link, CALL_PING, "SELECT pgtopic.peer_ping()", 0, NULL);
}

static void
send_what_is_due(void)
{
	int			position = 0;
	Link	   *link;

	while ((link = links_next_idle(&position)) != NULL)
		send_to(link, cluster_clock_ms());
}

static int64
result_int64(const PGresult *result, int column)
{
	return PQgetisnull(result, 0, column) ? 0 : strtoll(PQgetvalue(result, 0, column), NULL, 10);
}

static bool
result_bool(const PGresult *result, int column)
{
	return PQgetvalue(result, 0, column)[0] == 't';
}

static void
take_answer(Link *link, PGresult *result)
{
	Reply		reply;
	QuorumDurable probe = store.durable;
	bool		store_it = false;
	int64		now = cluster_clock_ms();

	memset(&reply, 0, sizeof(reply));
	reply.link = link;
	cluster_state_saw(link->broker);
	switch ((QuorumCall) link->call)
	{
		case CALL_PING:
			break;
		case CALL_VOTE:
			reply.vote.term = result_int64(result, 0);
			reply.vote.granted = result_bool(result, 1);
			quorum_on_vote_reply(&run, &probe, link->broker, &reply.vote, now, &store_it);
			if (store_it)
				decide(on_vote_reply, &reply);
			break;
		case CALL_ACCEPT:
			reply.accept.term = result_int64(result, 0);
			reply.accept.accepted = result_bool(result, 1);
			reply.accept.image_term = result_int64(result, 2);
			reply.accept.image_version = result_int64(result, 3);
			if (reply.accept.accepted)
			{
				link->heard_ms = link->sent_ms;
				link->clock = result_int64(result, 4);
			}
			quorum_on_accept_reply(&run, &probe, link->broker, &reply.accept, now, &store_it);
			if (store_it)
				decide(on_accept_reply, &reply);
			break;
	}
}

static QuorumTimes
times(void)
{
	QuorumTimes result;

	result.election = settings_election_timeout();
	result.heartbeat = Max(result.election / 5, 20);
	return result;
}

/* What the sessions that other brokers call have noted in shared memory. */
static void
hear_controller(void)
{
	ClusterState state;

	cluster_state_get(&state);
	if (state.heard_ms > heard_ms)
	{
		heard_ms = state.heard_ms;
		quorum_heard_controller(&run, heard_ms, random_number());
	}
}

/* --- brokers that are gone --- */

/* Since when, in ms, a broker has not been heard. */
static int64
silent_since(const QuorumPeer *peer, const ClusterState *state)
{
	int64		heard = Max(peer->heard_at, started_ms);

	for (int i = 0; i < CLUSTER_BROKERS_MAX; i++)
	{
		if (state->seen[i].id == peer->id)
			heard = Max(heard, state->seen[i].at_ms);
	}
	return heard;
}

static void
fence(int32 broker, int64 silent)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *args[1] = {psprintf("%d", broker)};
	ChangeResult change;

	begin();
	change = change_propose(CHANGE_FENCE, args, 1);
	end(context, true);
	if (change.version == 0)
		return;
	ereport(LOG,
			(errmsg("pgtopic broker %d is counted as gone", broker),
			 errdetail("It has not been heard for " INT64_FORMAT " ms. Others lead what they can of its partitions.", silent)));
	read_row();
}

/*
 * The controller fences who has not been heard for the session timeout, one after the
 * other: each change builds upon one that is committed.  What others know of the clock
 * does not matter: see cluster/README.md for why a leader that is alive, and does not
 * know, can do no harm.
 */
static void
fence_who_is_gone(void)
{
	int64		now = cluster_clock_ms();
	ClusterState state;

	if (!quorum_can_propose(&run, &store.durable) || !quorum_has_majority(&run, now))
		return;
	cluster_state_get(&state);
	for (int i = 0; i < run.peers_count; i++)
	{
		int64		silent = now - silent_since(&run.peers[i], &state);

		if (silent > pgtopic_broker_session_timeout && !image_is_fenced(metadata, run.peers[i].id))
		{
			fence(run.peers[i].id, silent);
			return;
		}
	}
}

static int
compare_times(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* When this controller has sent what a majority has answered. */
static int64
majority_heard_ms(int64 now)
{
	int64		times[QUORUM_MEMBERS_MAX];
	int			count = 0;

	for (int i = 0; i < members.count; i++)
	{
		const Link *link = link_to(members.ids[i]);

		times[count++] = members.ids[i] == store.self ? now : link ? link->heard_ms : 0;
	}
	qsort(times, count, sizeof(int64), compare_times);
	return count > 0 ? times[quorum_majority(&members) - 1] : 0;
}

/* Tells the sessions who is the controller. */
static void
publish_role(void)
{
	ClusterState state;
	int32		controller;
	int64		now = cluster_clock_ms();

	cluster_state_get(&state);
	controller = state.controller;
	if (quorum_is_controller(&run, &store.durable))
	{
		bool		majority = quorum_has_majority(&run, now);

		cluster_state_extend_lease(majority_heard_ms(now), store.durable.image_version);
		if (controller != store.self || state.controller_term != store.durable.term ||
			state.has_majority != majority)
			cluster_state_set_role(store.self, store.durable.term, majority);
	}
	else
	{
		/* one that is not heard any more is none */
		if (controller == store.self || now - state.heard_ms > 2 * run.times.election)
			controller = 0;
		if (controller != state.controller || state.controller_term != 0)
			cluster_state_set_role(controller, 0, false);
	}
}

typedef struct Answer
{
	Link	   *link;
	PGresult   *result;
} Answer;

static void
answer_task(void *arg)
{
	Answer	   *answer = arg;

	take_answer(answer->link, answer->result);
}

/*
 * An answer whose decision fails is as one that was lost.  Who answers to a ping may be
 * another database than the one that the address led to before, in its place.
 */
static bool
on_answer(Link *link, PGresult *result)
{
	Answer		answer = {link, result};

	if (link->call == CALL_PING && result_int64(result, 0) != link->broker)
		return false;
	(void) worker_run_task("deciding on another broker's answer", answer_task, &answer);
	worker_doing(NULL);
	return true;
}

/*
 * One look.  An error in it (the row may be locked by a session for longer than the
 * worker waits) is tried again; nothing has been sent that is not stored.
 */
static void
look(void *arg)
{
	/* somebody who has changed the row wakes us */
	read_row();
	hear_controller();
	go_on();
	publish_role();
	fence_who_is_gone();
	links_keep(Max(run.times.election, 1000));
	send_what_is_due();
}

void
pgtopic_quorum_main(Datum arg)
{
	MemoryContext context = worker_begin(WORKER_QUORUM, DatumGetObjectId(arg));
	uint32		wait_event = compat_wait_event("PgtopicQuorumMain");
	int64		round_at = 0;

	started_ms = cluster_clock_ms();
	cluster_state_set_started();
	metadata_context = AllocSetContextCreate(TopMemoryContext, "pgtopic metadata", ALLOCSET_DEFAULT_SIZES);
	quorum_run_init(&run, 0, times(), cluster_clock_ms(), random_number());
	if (worker_run_task("reading the cluster's metadata", read_row_task, NULL) && members.count == 1)
		run.election_due = 0;	/* who is alone has nobody to wait for */
	for (;;)
	{
		int64		now = cluster_clock_ms();

		CHECK_FOR_INTERRUPTS();
		if (now - round_at >= ROUND_MS)
		{
			worker_round(context);
			run.times = times();
			round_at = now;
		}
		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		(void) worker_run_task("agreeing on the cluster's metadata", look, NULL);
		worker_doing(NULL);
		links_wait(Min(run.times.heartbeat / 2, 200), wait_event, on_answer);
	}
}
