/*-------------------------------------------------------------------------
 *
 * links.c
 *	  Connections of the quorum worker to the other brokers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "base/quorum.h"
#include "peer/call.h"
#include "peer/connect.h"
#include "shmem/cluster_state.h"
#include "worker/links.h"

#define RECONNECT_MS	500		/* after a connection has failed */

static Link links[QUORUM_MEMBERS_MAX];
static MemoryContext links_context = NULL;
static int32 own_broker = 0;

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

void
links_set(const Image *image, int32 self)
{
	if (links_context == NULL)
		links_context = AllocSetContextCreate(TopMemoryContext, "pgtopic links", ALLOCSET_SMALL_SIZES);
	own_broker = self;
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
		if (found || image->brokers[b].id == self || unused == NULL)
			continue;
		memset(unused, 0, sizeof(Link));
		unused->broker = image->brokers[b].id;
		unused->conninfo = MemoryContextStrdup(links_context, image->brokers[b].conninfo);
		unused->since = -RECONNECT_MS;
	}
}

static void
link_failed(Link *link, const char *why)
{
	if (!link->complained)
		ereport(LOG,
				(errmsg("pgtopic broker %d cannot reach broker %d", own_broker, link->broker),
				 errdetail_internal("%s", why)));
	link->complained = true;
	link_close(link);
}

void
link_send(Link *link, int call, const char *sql, int nparams, const char *const *params)
{
	if (!PQsendQueryParams(link->conn, sql, nparams, NULL, params, NULL, NULL, 0))
	{
		link_failed(link, pchomp(PQerrorMessage(link->conn)));
		return;
	}
	(void) PQflush(link->conn);
	link->call = call;
	link->state = LINK_BUSY;
	link->since = link->sent_ms = cluster_clock_ms();
}

/* A busy link has something to read. */
static void
receive(Link *link, LinkAnswer answer)
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
			if (!answer(link, result))
				link_failed(link, "Another database answers.");
			else if (link->complained)
			{
				ereport(LOG,
						(errmsg("pgtopic broker %d reaches broker %d again", own_broker, link->broker)));
				link->complained = false;
			}
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
	link->conn = PQconnectStart(peer_conninfo(link->conninfo, own_broker));
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
		link->committed_sent = link->heard_ms = link->clock = 0;
	}
}

void
links_wait(long timeout, uint32 wait_event, LinkAnswer answer)
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
			receive(link, answer);
	}
}

void
links_keep(int64 too_long)
{
	int64		now = cluster_clock_ms();

	for (int i = 0; i < QUORUM_MEMBERS_MAX; i++)
	{
		Link	   *link = &links[i];

		if (link->broker == 0)
			continue;
		if ((link->state == LINK_CONNECTING || link->state == LINK_BUSY) && now - link->since > too_long)
			link_failed(link, "It does not answer.");
		if (link->state == LINK_CLOSED && now - link->since >= RECONNECT_MS)
			start_connecting(link);
	}
}

const Link *
link_to(int32 broker)
{
	for (int i = 0; i < QUORUM_MEMBERS_MAX; i++)
	{
		if (links[i].broker == broker)
			return &links[i];
	}
	return NULL;
}

Link *
links_next_idle(int *position)
{
	while (*position < QUORUM_MEMBERS_MAX)
	{
		Link	   *link = &links[(*position)++];

		if (link->broker != 0 && link->state == LINK_IDLE)
			return link;
	}
	return NULL;
}
