/*-------------------------------------------------------------------------
 *
 * conversation.c
 *	  Calling another broker's functions.
 *
 * libpq's pipeline mode carries it.  peer->items are the commands that have been
 * sent and whose answers have not been read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <poll.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "peer/connect.h"
#include "peer/conversation.h"
#include "shmem/cluster_state.h"

/* Room for what the end of a transaction sends without being able to make room. */
#define ITEMS_SPARE		32

/* How often to look whether a broker that does not answer was fenced. */
#define FENCED_LOOK_MS		200

/* A wait that we have asked to end may have begun just after that: ask again. */
#define END_WAIT_MS		3

uint32
peer_wait_event(void)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicPeer");
	return wait_event;
}

/* --- sending --- */

static void
reserve_items(Peer *peer)
{
	if (peer->items_first == peer->items_end)
		peer->items_first = peer->items_end = 0;
	if (peer->items == NULL)
	{
		peer->items = MemoryContextAlloc(TopMemoryContext, 2 * ITEMS_SPARE * sizeof(PeerItem));
		peer->items_size = 2 * ITEMS_SPARE;
	}
	else if (peer->items_end + ITEMS_SPARE > peer->items_size)
	{
		peer->items = repalloc(peer->items, 2 * peer->items_size * sizeof(PeerItem));
		peer->items_size *= 2;
	}
}

/* There is room for it: reserve_items(), or the spare. */
static void
add_item(Peer *peer, PeerItemKind kind, int statement)
{
	peer->items[peer->items_end].kind = kind;
	peer->items[peer->items_end].statement = statement;
	peer->items_end++;
}

static bool
has_items(const Peer *peer)
{
	return peer->items_first < peer->items_end;
}

/* Whether the last unit is still without its sync: the peer need not answer to it. */
static bool
has_open_unit(const Peer *peer)
{
	return has_items(peer) && peer->items[peer->items_end - 1].kind != ITEM_SYNC;
}

void
peer_note_lost(Peer *peer)
{
	char	   *detail = cluster_state_is_fenced(peer->broker) ? pstrdup(PEER_IS_GONE) :
		pchomp(PQerrorMessage(peer->conn));

	if (peer->lost_detail)
		pfree(peer->lost_detail);
	peer->lost_detail = MemoryContextStrdup(TopMemoryContext, detail);
	pfree(detail);
	peer_close(peer);
}

/* libpq refuses to send only where the connection is gone, or memory. */
static void
check_sent(Peer *peer, int sent)
{
	if (sent)
		return;
	peer_note_lost(peer);
	peer_raise_lost(peer);
}

static void
send_prepare(Peer *peer, const PeerStatement *statement)
{
	uint64		bit = UINT64CONST(1) << statement->number;

	if ((peer->prepared | peer->preparing) & bit)
		return;
	reserve_items(peer);
	check_sent(peer, PQsendPrepare(peer->conn, statement->name, statement->sql,
								   statement->params, statement->types));
	add_item(peer, ITEM_PREPARE, statement->number);
	peer->preparing |= bit;
}

static void
send_call(Peer *peer, const PeerStatement *statement, const PeerParams *params, PeerItemKind kind)
{
	static const int formats[] = {1, 1, 1, 1, 1, 1, 1, 1, 1};

	StaticAssertStmt(lengthof(formats) == PEER_PARAMS_MAX, "all parameters are binary");
	Assert(statement->params == (params ? params->count : 0));
	send_prepare(peer, statement);
	reserve_items(peer);
	check_sent(peer, PQsendQueryPrepared(peer->conn, statement->name, statement->params,
										 params ? params->values : NULL,
										 params ? params->lengths : NULL, formats, 1));
	add_item(peer, kind, statement->number);
}

void
peer_send(Peer *peer, const PeerStatement *statement, const PeerParams *params)
{
	send_call(peer, statement, params, ITEM_CALL);
}

/* Nothing is outstanding before the wait: what can be read is its answer. */
PeerOutcome
peer_send_wait(Peer *peer, const PeerStatement *statement, const PeerParams *params)
{
	PeerOutcome outcome;

	if (!(peer->prepared & (UINT64CONST(1) << statement->number)))
		send_prepare(peer, statement);
	outcome = peer_receive_all(peer);
	if (outcome != PEER_OK)
		return outcome;
	send_call(peer, statement, params, ITEM_WAIT);
	peer_sync(peer);
	return PEER_OK;
}

static void
add_command(Peer *peer, const char *sql)
{
	add_item(peer, strcmp(sql, "COMMIT") == 0 ? ITEM_COMMIT : ITEM_COMMAND, 0);
}

void
peer_send_command(Peer *peer, const char *sql)
{
	reserve_items(peer);
	check_sent(peer, PQsendQueryParams(peer->conn, sql, 0, NULL, NULL, NULL, NULL, 1));
	add_command(peer, sql);
}

void
peer_sync(Peer *peer)
{
	reserve_items(peer);
	check_sent(peer, PQpipelineSync(peer->conn));
	add_item(peer, ITEM_SYNC, 0);
	(void) PQflush(peer->conn);
}

static bool
sync_quietly(Peer *peer)
{
	if (peer->items_end >= peer->items_size || !PQpipelineSync(peer->conn))
		return false;
	add_item(peer, ITEM_SYNC, 0);
	(void) PQflush(peer->conn);
	return true;
}

bool
peer_send_quietly(Peer *peer, const char *sql)
{
	if (peer->conn == NULL)
		return false;
	/* what has been sent so far may fail, and this is no part of it */
	if (has_open_unit(peer) && !sync_quietly(peer))
		return false;
	if (peer->items_end >= peer->items_size ||
		!PQsendQueryParams(peer->conn, sql, 0, NULL, NULL, NULL, NULL, 1))
		return false;
	add_command(peer, sql);
	return sync_quietly(peer);
}

/* --- receiving --- */

/* How to wait for answers. */
typedef struct Waiting
{
	bool		quietly;		/* raise nothing, and ignore interrupts */
	bool		end_waits;		/* calls of peer_send_wait() are to end now */
	TimestampTz deadline;		/* 0: none */
} Waiting;

/* Waits until something can be read, or the time is over. */
static int
wait_for_socket(Peer *peer, const Waiting *waiting, bool write, long milliseconds)
{
	int			happened;

	if (waiting->quietly)
	{
		struct pollfd pollfd;

		pollfd.fd = PQsocket(peer->conn);
		pollfd.events = POLLIN | (write ? POLLOUT : 0);
		pollfd.revents = 0;
		return poll(&pollfd, 1, (int) milliseconds) > 0 ? WL_SOCKET_READABLE : 0;
	}

	happened = WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE |
								 (write ? WL_SOCKET_WRITEABLE : 0) |
								 (milliseconds >= 0 ? WL_TIMEOUT : 0),
								 PQsocket(peer->conn), milliseconds, peer_wait_event());
	if (happened & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return happened;
}

/*
 * Waits until PQgetResult() returns at once.  false if the time is over or the
 * connection is lost, and then it may have something to say about that.  A broker that
 * has stopped, or that no network leads to, closes no connection: it is lost when the
 * metadata has it as fenced.
 */
static bool
await_result(Peer *peer, const Waiting *waiting)
{
	int			ends = 0;
	bool		waited = false;

	for (;;)
	{
		int			unsent = PQflush(peer->conn);
		long		milliseconds;

		if (!PQisBusy(peer->conn))
			return true;
		if (waited && cluster_state_is_fenced(peer->broker))
			return false;
		waited = true;
		milliseconds = FENCED_LOOK_MS;
		if (waiting->deadline != 0)
		{
			long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
															   waiting->deadline);

			if (left <= 0)
				return false;
			milliseconds = Min(milliseconds, left);
		}
		if (waiting->end_waits && peer->items[peer->items_first].kind == ITEM_WAIT)
		{
			long		pause = (long) END_WAIT_MS << Min(ends, 5);

			milliseconds = Min(milliseconds, pause);
		}
		if (wait_for_socket(peer, waiting, unsent > 0, milliseconds) & WL_SOCKET_READABLE)
		{
			if (!PQconsumeInput(peer->conn))
				return false;
		}
		else if (waiting->end_waits && peer->items[peer->items_first].kind == ITEM_WAIT &&
				 ends++ < ITEMS_SPARE / 4)
			(void) sync_quietly(peer);
	}
}

/* Keeps the first error since the last sync. */
static void
note_error(Peer *peer)
{
	if (peer->error)
		PQclear(peer->result);
	else
		peer->error = peer->result;
	peer->result = NULL;
}

/* Whether libpq, or the peer with its last word, says that the session is over. */
static bool
is_fatal(const PGresult *result)
{
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

	return severity == NULL || strcmp(severity, "ERROR") != 0;
}

/*
 * Reads the whole answer to the first item, and takes it off the list.  PEER_FAILED
 * if it is an error, or was not carried out after one.
 */
static PeerOutcome
receive_item(Peer *peer, PeerRowSink sink, void *arg, const Waiting *waiting)
{
	PeerItem	item = peer->items[peer->items_first];
	PeerOutcome outcome = PEER_OK;

	/* rows as they come, not all of them in memory */
	if (sink)
		(void) PQsetSingleRowMode(peer->conn);
	for (;;)
	{
		if (!await_result(peer, waiting))
			return PEER_LOST;
		peer->result = PQgetResult(peer->conn);
		if (peer->result == NULL)
		{
			if (PQstatus(peer->conn) != CONNECTION_OK)
				return PEER_LOST;
			break;
		}
		switch (PQresultStatus(peer->result))
		{
			case PGRES_COMMAND_OK:
				/* what it says when there is nothing to commit any more */
				if (item.kind == ITEM_COMMIT && strcmp(PQcmdStatus(peer->result), "COMMIT") != 0)
					outcome = PEER_FAILED;
				break;
			case PGRES_SINGLE_TUPLE:
			case PGRES_TUPLES_OK:
				for (int row = 0; sink && row < PQntuples(peer->result); row++)
					sink(arg, peer->result, row);
				break;
			case PGRES_PIPELINE_SYNC:
				break;
			case PGRES_PIPELINE_ABORTED:
				outcome = PEER_FAILED;
				break;
			default:
				if (is_fatal(peer->result) || PQstatus(peer->conn) != CONNECTION_OK)
					return PEER_LOST;
				note_error(peer);
				outcome = PEER_FAILED;
				break;
		}
		PQclear(peer->result);
		peer->result = NULL;
		/* libpq ends all but this one with NULL */
		if (item.kind == ITEM_SYNC)
			break;
	}
	peer->items_first++;
	if (item.kind == ITEM_PREPARE && outcome == PEER_OK)
		peer->prepared |= UINT64CONST(1) << item.statement;
	if (item.kind == ITEM_SYNC)
		peer->preparing = 0;
	return outcome;
}

/* The same, until an item of this kind and the syncs behind it are read. */
static PeerOutcome
receive_until(Peer *peer, PeerItemKind kind, PeerRowSink sink, void *arg, const Waiting *waiting)
{
	PeerOutcome outcome = PEER_OK;
	bool		found = false;

	PQclear(peer->error);
	peer->error = NULL;
	while (has_items(peer))
	{
		PeerItem	item = peer->items[peer->items_first];
		bool		wanted = item.kind == kind;
		PeerOutcome result;

		if (found && outcome == PEER_OK && item.kind != ITEM_SYNC)
			break;
		result = receive_item(peer, wanted && !found ? sink : NULL, arg, waiting);
		if (result == PEER_LOST)
		{
			if (waiting->quietly)
				peer_close(peer);
			else
				peer_note_lost(peer);
			return PEER_LOST;
		}
		found |= wanted;
		/* a wait that has failed for itself concerns nobody */
		if (result == PEER_FAILED && (item.kind != ITEM_WAIT || wanted || peer->depth > 0))
			outcome = PEER_FAILED;
		/* after an error, the rest of its unit is not done */
		if (outcome == PEER_FAILED && item.kind == ITEM_SYNC)
			break;
	}
	return outcome;
}

PeerOutcome
peer_receive(Peer *peer, PeerRowSink sink, void *arg)
{
	Waiting		waiting = {false, true, 0};

	return receive_until(peer, ITEM_CALL, sink, arg, &waiting);
}

PeerOutcome
peer_receive_by(Peer *peer, PeerRowSink sink, void *arg, TimestampTz deadline)
{
	Waiting		waiting = {false, true, deadline};

	return receive_until(peer, ITEM_CALL, sink, arg, &waiting);
}

PeerOutcome
peer_receive_all(Peer *peer)
{
	PeerOutcome outcome = PEER_OK;

	if (has_open_unit(peer))
		peer_sync(peer);
	while (has_items(peer) && outcome == PEER_OK)
		outcome = peer_receive(peer, NULL, NULL);
	return outcome;
}

/* Whether there is a wait among what is outstanding. */
static bool
has_wait(const Peer *peer)
{
	for (int i = peer->items_first; i < peer->items_end; i++)
	{
		if (peer->items[i].kind == ITEM_WAIT)
			return true;
	}
	return false;
}

bool
peer_wait_is_over(Peer *peer)
{
	if (peer->conn == NULL || !has_wait(peer))
		return true;
	(void) PQflush(peer->conn);
	return !PQconsumeInput(peer->conn) || !PQisBusy(peer->conn);
}

PeerOutcome
peer_receive_wait(Peer *peer, PeerRowSink sink, void *arg)
{
	Waiting		waiting = {false, false, 0};

	if (peer->conn == NULL)
		return PEER_LOST;
	return receive_until(peer, ITEM_WAIT, sink, arg, &waiting);
}

void
peer_end_wait(Peer *peer)
{
	if (peer->conn && has_wait(peer))
		(void) sync_quietly(peer);
}

bool
peer_settle(Peer *peer, int milliseconds)
{
	Waiting		waiting = {true, true, 0};
	PeerOutcome outcome = PEER_OK;

	if (peer->conn == NULL)
		return false;
	PQclear(peer->result);
	peer->result = NULL;
	waiting.deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
	if (has_open_unit(peer) && !sync_quietly(peer))
		outcome = PEER_LOST;
	/* the last unit counts; those before it may have failed for good reason */
	while (has_items(peer) && outcome != PEER_LOST)
		outcome = receive_until(peer, ITEM_SYNC, NULL, NULL, &waiting);
	if (outcome != PEER_OK)
		peer_close(peer);
	return outcome == PEER_OK;
}

/* --- errors --- */

int
peer_error_code(const Peer *peer)
{
	const char *state = peer->error ? PQresultErrorField(peer->error, PG_DIAG_SQLSTATE) : NULL;

	if (state == NULL || strlen(state) != 5)
		return ERRCODE_CONNECTION_FAILURE;
	return MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
}

/* A field of the peer's error in our memory; NULL if it has none. */
static char *
error_field(const Peer *peer, int field)
{
	const char *value = PQresultErrorField(peer->error, field);

	return value ? pstrdup(value) : NULL;
}

void
peer_raise_lost(Peer *peer)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("connection to broker %d was lost", peer->broker),
			 peer->lost_detail && peer->lost_detail[0] ?
			 errdetail_internal("%s", peer->lost_detail) : 0));
}

void
peer_raise(Peer *peer, PeerOutcome outcome)
{
	char	   *message;
	char	   *detail;
	char	   *hint;
	char	   *context;

	if (outcome == PEER_LOST || peer->error == NULL)
		peer_raise_lost(peer);
	message = error_field(peer, PG_DIAG_MESSAGE_PRIMARY);
	detail = error_field(peer, PG_DIAG_MESSAGE_DETAIL);
	hint = error_field(peer, PG_DIAG_MESSAGE_HINT);
	context = error_field(peer, PG_DIAG_CONTEXT);
	ereport(ERROR,
			(errcode(peer_error_code(peer)),
			 errmsg_internal("%s", message ? message : "unknown error"),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 errcontext("on broker %d", peer->broker)));
}
