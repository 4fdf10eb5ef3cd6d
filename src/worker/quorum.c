/*-------------------------------------------------------------------------
 *
 * quorum.c
 *	  The quorum worker: agrees with the other brokers on the metadata.
 *
 * It has a connection to each of them and never waits for one: connecting,
 * sending and receiving are driven by readiness of the sockets.  What it decides is
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
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/image.h"
#include "base/quorum.h"
#include "base/settings.h"
#include "cluster/store.h"
#include "peer/call.h"
#include "shmem/cluster_state.h"
#include "worker/workers.h"

#define ROUND_MS		1000	/* worker_round(), and a look at the row */
#define RECONNECT_MS	500		/* after a connection has failed */
#define PING_MS			1000	/* to brokers that nothing else is sent to */

typedef enum LinkState
{
	LINK_CLOSED,
	LINK_CONNECTING,
	LINK_IDLE,
	LINK_BUSY
} LinkState;

typedef enum LinkCall
{
	CALL_PING,
	CALL_VOTE,
	CALL_ACCEPT
} LinkCall;

/* The connection to another broker. */
typedef struct Link
{
	int32		broker;			/* 0: unused */
	char	   *conninfo;
	LinkState	state;
	PGconn	   *conn;
	PostgresPollingStatusType polling;
	LinkCall	call;
	PGresult   *answer;			/* that came; good once its transaction has ended */
	int64		since;			/* ms; of the state */
	int64		committed_sent;
	bool		complained;
} Link;

static Link links[QUORUM_MEMBERS_MAX];
static QuorumRun run;
static ClusterStore store;		/* as last read; store.image is not kept */
static QuorumMembers members;
static int64 members_version = -1;
static int64 members_term = -1;
static MemoryContext links_context;
static int64 heard_ms = 0;

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
link_close(Link *link)
{
	PQclear(link->answer);
	link->answer = NULL;
	call_close(link->conn);
	link->conn = NULL;
	link->state = LINK_CLOSED;
	link->since = cluster_clock_ms();
}

/* Brings the links in line with the brokers of the newest accepted image. */
static void
set_links(const char *text)
{
	Image	   *image = image_parse(text);

	if (image == NULL)
		elog(ERROR, "the stored metadata of the cluster cannot be read");
	for (int i = 0; i < QUORUM_MEMBERS_MAX; i++)
	{
		ImageBroker *broker = links[i].broker ? image_broker(image, links[i].broker) : NULL;

		if (links[i].broker == 0 || (broker && strcmp(broker->conninfo, links[i].conninfo) == 0))
			continue;
		link_close(&links[i]);
		pfree(links[i].conninfo);
		memset(&links[i], 0, sizeof(Link));
	}
	for (int b = 0; b < image->brokers_count; b++)
	{
		Link	   *unused = NULL;
		bool		found = false;

		for (int i = 0; i < QUORUM_MEMBERS_MAX; i++)
		{
			found |= links[i].broker == image->brokers[b].id;
			if (links[i].broker == 0 && unused == NULL)
				unused = &links[i];
		}
		if (found || image->brokers[b].id == store.self || unused == NULL)
			continue;
		memset(unused, 0, sizeof(Link));
		unused->broker = image->brokers[b].id;
		unused->conninfo = MemoryContextStrdup(links_context, image->brokers[b].conninfo);
		unused->since = -RECONNECT_MS;
	}
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
		store_members(store.image, &members);
		members_version = store.durable.image_version;
		members_term = store.durable.image_term;
		run.self = store.self;
		quorum_set_members(&run, &members, cluster_clock_ms());
		set_links(store.image);
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
link_failed(Link *link, const char *why)
{
	if (!link->complained)
		ereport(LOG,
				(errmsg("pgtopic broker %d cannot reach broker %d", store.self, link->broker),
				 errdetail_internal("%s", why)));
	link->complained = true;
	link_close(link);
}

static void
send_call(Link *link, LinkCall call, const char *sql, int nparams, const char *const *params)
{
	if (!PQsendQueryParams(link->conn, sql, nparams, NULL, params, NULL, NULL, 0))
	{
		link_failed(link, pchomp(PQerrorMessage(link->conn)));
		return;
	}
	(void) PQflush(link->conn);
	link->call = call;
	link->state = LINK_BUSY;
	link->since = cluster_clock_ms();
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
	send_call(link, CALL_VOTE, "SELECT * FROM pgtopic.peer_vote($1, $2, $3, $4, $5, $6)", 6, params);
}

static void
send_accept_request(Link *link, const char *image)
{
	const char *params[8];

	params[0] = store.cluster_id;
	params[1] = psprintf("%d", link->broker);
	params[2] = int64_text(store.durable.term);
	params[3] = psprintf("%d", store.self);
	params[4] = int64_text(store.durable.image_term);
	params[5] = int64_text(store.durable.image_version);
	params[6] = int64_text(store.durable.committed_version);
	params[7] = image;
	link->committed_sent = store.durable.committed_version;
	send_call(link, CALL_ACCEPT, "SELECT * FROM pgtopic.peer_accept($1, $2, $3, $4, $5, $6, $7, $8)", 8, params);
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
send_what_is_due(Link *link, int64 now)
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
	else if (now - link->since >= PING_MS)
		send_call(link, CALL_PING, "SELECT pgtopic.peer_ping()", 0, NULL);
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
	if (link->complained)
		ereport(LOG,
				(errmsg("pgtopic broker %d reaches broker %d again", store.self, link->broker)));
	link->complained = false;
	switch (link->call)
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
			quorum_on_accept_reply(&run, &probe, link->broker, &reply.accept, now, &store_it);
			if (store_it)
				decide(on_accept_reply, &reply);
			break;
	}
}

/* A busy link has something to read. */
static void
receive(Link *link)
{
	if (!PQconsumeInput(link->conn))
	{
		link_failed(link, pchomp(PQerrorMessage(link->conn)));
		return;
	}
	while (!PQisBusy(link->conn))
	{
		PGresult   *result = PQgetResult(link->conn);

		if (result != NULL)
		{
			PQclear(link->answer);
			link->answer = result;
			continue;
		}

		/* NULL: its transaction has ended, and what it says is stored there */
		result = link->answer;
		link->answer = NULL;
		if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
			link_failed(link, pchomp(PQresultErrorMessage(result)));
		else
		{
			link->state = LINK_IDLE;
			link->since = cluster_clock_ms();
			take_answer(link, result);
		}
		PQclear(result);
		return;
	}
}

static void
start_connecting(Link *link)
{
	if (!AcquireExternalFD())
		return;
	link->conn = PQconnectStart(peer_conninfo(link->conninfo, store.self));
	if (link->conn == NULL)
	{
		ReleaseExternalFD();
		return;
	}
	link->state = LINK_CONNECTING;
	link->polling = PGRES_POLLING_WRITING;
	link->since = cluster_clock_ms();
	if (PQstatus(link->conn) == CONNECTION_BAD)
		link_failed(link, pchomp(PQerrorMessage(link->conn)));
}

static void
go_on_connecting(Link *link)
{
	link->polling = PQconnectPoll(link->conn);
	if (link->polling == PGRES_POLLING_FAILED)
		link_failed(link, pchomp(PQerrorMessage(link->conn)));
	else if (link->polling == PGRES_POLLING_OK)
	{
		(void) PQsetnonblocking(link->conn, 1);
		link->state = LINK_IDLE;
		link->since = 0;		/* something is due at once */
		link->committed_sent = 0;
	}
}

/* Waits for sockets, the latch, or the time, and moves the links on. */
static void
wait_and_move(long timeout, uint32 wait_event)
{
	WaitEventSet *set = compat_create_wait_event_set(QUORUM_MEMBERS_MAX + 2);
	WaitEvent	events[QUORUM_MEMBERS_MAX + 2];
	int			count;

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < QUORUM_MEMBERS_MAX; i++)
	{
		Link	   *link = &links[i];

		if (link->state == LINK_CONNECTING)
			AddWaitEventToSet(set, link->polling == PGRES_POLLING_READING ? WL_SOCKET_READABLE :
							  WL_SOCKET_WRITEABLE, PQsocket(link->conn), NULL, link);
		else if (link->state == LINK_BUSY)
		{
			int			flushed = PQflush(link->conn);

			AddWaitEventToSet(set, flushed == 1 ? WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE :
							  WL_SOCKET_READABLE, PQsocket(link->conn), NULL, link);
		}
	}
	count = WaitEventSetWait(set, timeout, events, lengthof(events), wait_event);
	FreeWaitEventSet(set);

	for (int i = 0; i < count; i++)
	{
		Link	   *link = events[i].user_data;

		if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (link == NULL)
			continue;
		else if (link->state == LINK_CONNECTING)
			go_on_connecting(link);
		else if (link->state == LINK_BUSY)
			receive(link);
	}
}

static QuorumTimes
times(void)
{
	QuorumTimes result;

	result.election = pgtopic_broker_session_timeout;
	result.heartbeat = Max(pgtopic_broker_session_timeout / 10, 20);
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

static void
move_links(int64 now)
{
	int64		too_long = Max(run.times.election, 1000);

	for (int i = 0; i < QUORUM_MEMBERS_MAX; i++)
	{
		Link	   *link = &links[i];

		if (link->broker == 0)
			continue;
		if ((link->state == LINK_CONNECTING || link->state == LINK_BUSY) && now - link->since > too_long)
			link_failed(link, "It does not answer.");
		if (link->state == LINK_CLOSED && now - link->since >= RECONNECT_MS)
			start_connecting(link);
		if (link->state == LINK_IDLE)
			send_what_is_due(link, now);
	}
}

void
pgtopic_quorum_main(Datum arg)
{
	MemoryContext context = worker_begin(WORKER_QUORUM, DatumGetObjectId(arg));
	uint32		wait_event = compat_wait_event("PgtopicQuorumMain");
	int64		round_at = 0;

	links_context = AllocSetContextCreate(TopMemoryContext, "pgtopic links", ALLOCSET_SMALL_SIZES);
	quorum_run_init(&run, 0, times(), cluster_clock_ms(), random_number());
	read_row();
	/* who is alone has nobody to wait for */
	if (members.count == 1)
		run.election_due = 0;
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
		/* somebody who has changed the row wakes us */
		read_row();
		hear_controller();
		go_on();
		publish_role();
		move_links(cluster_clock_ms());
		wait_and_move(Min(run.times.heartbeat / 2, 200), wait_event);
	}
}
