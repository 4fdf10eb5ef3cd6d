/*-------------------------------------------------------------------------
 *
 * connection.c
 *	  Connections to other brokers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "catalog/cluster.h"
#include "catalog/rows.h"
#include "peer/connect.h"
#include "peer/connection.h"
#include "peer/conversation.h"
#include "shmem/cluster_state.h"

#define FAILURE_MS			1000

/*
 * Few, and in no order: at most the brokers of a cluster, but for those that have
 * left it.
 */
static Peer **peers = NULL;
static int	peers_count = 0;

static Peer *
peer_entry(int32 broker)
{
	MemoryContext old;
	Peer	   *peer;

	for (int i = 0; i < peers_count; i++)
	{
		if (peers[i]->broker == broker)
			return peers[i];
	}

	old = MemoryContextSwitchTo(TopMemoryContext);
	peer = palloc0(sizeof(Peer));
	peer->broker = broker;
	peers = peers ? repalloc(peers, (peers_count + 1) * sizeof(Peer *)) : palloc(sizeof(Peer *));
	peers[peers_count++] = peer;
	MemoryContextSwitchTo(old);
	return peer;
}

Peer *
peers_next(int *position)
{
	return *position < peers_count ? peers[(*position)++] : NULL;
}

void
peer_close(Peer *peer)
{
	if (peer->conn == NULL)
		return;
	PQclear(peer->result);
	PQclear(peer->error);
	PQfinish(peer->conn);
	ReleaseExternalFD();
	peer->conn = NULL;
	peer->result = NULL;
	peer->error = NULL;
	peer->connected = false;
	peer->prepared = 0;
	peer->preparing = 0;
	peer->items_first = peer->items_end = 0;
	if (peer->depth > 0)
		peer->lost = true;
	peer->depth = 0;
}

void
peer_raise_failure(const PeerFailure *failure)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("could not connect to broker %d", failure->broker),
			 failure->detail[0] ? errdetail_internal("%s", failure->detail) : 0));
}

/* What libpq says, without the newline at its end. */
static char *
libpq_message(PGconn *conn)
{
	return pchomp(PQerrorMessage(conn));
}

/* Notes that connecting has failed, and why; fills failure. */
static void
note_failure(Peer *peer, PeerFailure *failure, const char *detail)
{
	peer_close(peer);
	if (peer->failure)
		pfree(peer->failure);
	peer->failure = MemoryContextStrdup(TopMemoryContext, detail);
	peer->failed_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FAILURE_MS);
	failure->broker = peer->broker;
	failure->detail = pstrdup(detail);
}

/* Warnings of the peer are ours; the rest is of no interest. */
static void
receive_notice(void *arg, const PGresult *result)
{
	const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

	if (severity && message && strcmp(severity, "WARNING") == 0)
		ereport(WARNING,
				(errmsg("broker %d: %s", ((Peer *) arg)->broker, message)));
}

/* What the peer says that it is. */
typedef struct Identity
{
	char		cluster_id[CLUSTER_ID_LENGTH + 1];
	int32		broker;
} Identity;

static void
sink_identity(void *arg, const PGresult *result, int row)
{
	Identity   *identity = arg;

	if (PQgetisnull(result, row, 0) || PQgetisnull(result, row, 1))
		return;
	strlcpy(identity->cluster_id, PQgetvalue(result, row, 0), sizeof(identity->cluster_id));
	identity->broker = peer_get_int32(result, row, 1);
}

/*
 * Asks who is there, and has that session watch its connection: what it has done
 * in a transaction is undone, and its locks are gone, soon after we are.  Since no
 * broker sees the locks of others, a deadlock between brokers is ended by the
 * lock_timeout.
 */
static const PeerStatement identity_statement = {
	0, "pgtopic_identity",
	"SELECT cluster_id, broker,"
	" pg_catalog.set_config('client_connection_check_interval', '1s', false),"
	" pg_catalog.set_config('tcp_keepalives_idle', '10', false),"
	" pg_catalog.set_config('tcp_keepalives_interval', '5', false),"
	" pg_catalog.set_config('tcp_keepalives_count', '3', false),"
	" pg_catalog.set_config('statement_timeout', '0', false),"
	" pg_catalog.set_config('idle_in_transaction_session_timeout', '0', false),"
	" pg_catalog.set_config('lock_timeout', '10s', false)"
	" FROM pgtopic.peer_identity()",
	0, {0}
};

/* Whether the right broker is there: NULL, or why not. */
static char *
check_identity(Peer *peer, TimestampTz deadline)
{
	Identity	identity = {"", 0};
	ClusterRow	own;
	PeerOutcome outcome;

	if (!PQenterPipelineMode(peer->conn) || PQsetnonblocking(peer->conn, 1) != 0)
		return libpq_message(peer->conn);
	peer_send(peer, &identity_statement, NULL);
	peer_sync(peer);
	outcome = peer_receive_by(peer, sink_identity, &identity, deadline);
	if (outcome == PEER_LOST)
		return pstrdup(peer->lost_detail && peer->lost_detail[0] ? peer->lost_detail :
					   "The time for connecting is over.");
	if (outcome == PEER_FAILED)
		return pchomp(PQresultErrorMessage(peer->error));
	if (!cluster_row_read(&own))
		return pstrdup("This database is not in a cluster.");
	if (identity.broker == 0)
		return pstrdup("The database there is not in a cluster.");
	if (strcmp(identity.cluster_id, own.cluster_id) != 0)
		return psprintf("The database there is in another cluster, %s instead of %s.",
						identity.cluster_id, own.cluster_id);
	if (identity.broker != peer->broker)
		return psprintf("The database there is broker %d.", identity.broker);
	return NULL;
}

static bool
connect_peer(Peer *peer, const char *conninfo, PeerFailure *failure)
{
	int			timeout_s = peer_connect_timeout(conninfo);
	TimestampTz deadline;
	char	   *problem;

	if (!peer_conninfo_is_valid(conninfo))
	{
		note_failure(peer, failure, "Its connection string is malformed.");
		return false;
	}
	if (!AcquireExternalFD())
	{
		note_failure(peer, failure, "There are too many open files.");
		return false;
	}
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_s * INT64CONST(1000));
	peer->conn = PQconnectStart(peer_conninfo(conninfo, cluster_self()));
	if (peer->conn == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	}
	/* an error or an interrupt from here on leaves it for the next use to close */
	PQsetNoticeReceiver(peer->conn, receive_notice, peer);
	problem = peer_establish(peer->conn, cluster_clock_ms() + timeout_s * INT64CONST(1000),
							 peer_wait_event(), peer->broker);
	if (problem == NULL)
		problem = check_identity(peer, deadline);
	if (problem != NULL)
	{
		note_failure(peer, failure, problem);
		return false;
	}

	if (peer->conninfo)
		pfree(peer->conninfo);
	peer->conninfo = MemoryContextStrdup(TopMemoryContext, conninfo);
	peer->connected = true;
	peer->fresh = true;
	peer->failed_until = 0;
	return true;
}

/* A session that is being ended says why before it goes. */
bool
peer_is_broken(Peer *peer)
{
	struct pollfd pollfd;

	for (int looks = 0; looks < 3; looks++)
	{
		if (!PQconsumeInput(peer->conn) || PQstatus(peer->conn) != CONNECTION_OK)
			return true;
		pollfd.fd = PQsocket(peer->conn);
		pollfd.events = POLLIN;
		pollfd.revents = 0;
		if (poll(&pollfd, 1, 0) <= 0)
			return false;
	}
	return false;
}

Peer *
peer_open(int32 broker, PeerFailure *failure)
{
	Peer	   *peer = peer_entry(broker);
	PeerFailure own_failure;
	char	   *conninfo;

	if (failure == NULL)
		failure = &own_failure;
	failure->broker = 0;
	if (peer->lost)
		peer_raise_lost(peer);
	if (peer->connected && peer->used)
		return peer;

	conninfo = broker_row_conninfo(broker);
	if (peer->conn &&
		(!peer->connected || conninfo == NULL || strcmp(conninfo, peer->conninfo) != 0 ||
		 peer_is_broken(peer)))
		peer_close(peer);
	if (peer->conn == NULL)
	{
		if (conninfo == NULL)
			note_failure(peer, failure, "There is no such broker.");
		else if (cluster_state_is_fenced(broker))
		{
			failure->broker = broker;
			failure->detail = pstrdup(PEER_IS_GONE);
		}
		else if (peer->failed_until > GetCurrentTimestamp())
		{
			failure->broker = broker;
			failure->detail = pstrdup(peer->failure);
		}
		else
			(void) connect_peer(peer, conninfo, failure);
	}
	if (conninfo)
		pfree(conninfo);
	if (failure->broker != 0)
	{
		if (failure == &own_failure)
			peer_raise_failure(failure);
		return NULL;
	}
	peer->used = true;
	return peer;
}

bool
peer_has_failed(int32 broker)
{
	return peer_entry(broker)->failed_until != 0;
}
