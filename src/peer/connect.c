/*-------------------------------------------------------------------------
 *
 * connect.c
 *	  How brokers connect to each other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/latch.h"

#include "peer/connect.h"
#include "shmem/cluster_state.h"

#define CONNECT_TIMEOUT_S	"5"

/* What a connection between brokers has, unless its conninfo says otherwise. */
static const char *const defaults[][2] = {
	{"connect_timeout", CONNECT_TIMEOUT_S},
	{"keepalives_idle", "10"},
	{"keepalives_interval", "5"},
	{"keepalives_count", "3"},
	{"tcp_user_timeout", "20000"},
	{"target_session_attrs", "primary"},
};

/* A value as conninfo strings want it. */
static void
append_option(StringInfo to, const char *name, const char *value)
{
	appendStringInfo(to, "%s%s='", to->len > 0 ? " " : "", name);
	for (const char *c = value; *c; c++)
	{
		if (*c == '\'' || *c == '\\')
			appendStringInfoChar(to, '\\');
		appendStringInfoChar(to, *c);
	}
	appendStringInfoChar(to, '\'');
}

/* NULL if it is malformed. */
static PQconninfoOption *
parse(const char *conninfo)
{
	return PQconninfoParse(conninfo, NULL);
}

bool
peer_conninfo_is_valid(const char *conninfo)
{
	PQconninfoOption *options = parse(conninfo);

	if (options == NULL)
		return false;
	PQconninfoFree(options);
	return true;
}

static const char *
option_value(const PQconninfoOption *options, const char *name)
{
	for (const PQconninfoOption *option = options; option->keyword; option++)
	{
		if (strcmp(option->keyword, name) == 0)
			return option->val;
	}
	return NULL;
}

char *
peer_conninfo(const char *conninfo, int32 self)
{
	PQconninfoOption *options = parse(conninfo);
	StringInfoData result;

	if (options == NULL)
		return pstrdup(conninfo);
	initStringInfo(&result);
	for (PQconninfoOption *option = options; option->keyword; option++)
	{
		if (option->val && strcmp(option->keyword, "fallback_application_name") != 0 &&
			strcmp(option->keyword, "client_encoding") != 0)
			append_option(&result, option->keyword, option->val);
	}
	for (size_t i = 0; i < lengthof(defaults); i++)
	{
		if (option_value(options, defaults[i][0]) == NULL)
			append_option(&result, defaults[i][0], defaults[i][1]);
	}
	append_option(&result, "client_encoding", GetDatabaseEncodingName());
	append_option(&result, "fallback_application_name", psprintf("pgtopic broker %d", self));
	PQconninfoFree(options);
	return result.data;
}

char *
peer_conninfo_shown(const char *conninfo)
{
	PQconninfoOption *options = parse(conninfo);
	StringInfoData result;

	initStringInfo(&result);
	if (options == NULL)
		return result.data;
	for (PQconninfoOption *option = options; option->keyword; option++)
	{
		/* dispchar says which are not to be shown: "*" for secrets */
		if (option->val && option->dispchar[0] != '*')
			append_option(&result, option->keyword, option->val);
	}
	PQconninfoFree(options);
	return result.data;
}

int
peer_connect_timeout(const char *conninfo)
{
	PQconninfoOption *options = parse(conninfo);
	const char *value = options ? option_value(options, "connect_timeout") : NULL;
	int			seconds = value ? atoi(value) : 0;

	if (options)
		PQconninfoFree(options);
	return seconds > 0 ? seconds : atoi(CONNECT_TIMEOUT_S);
}

static bool (*give_up_when) (void) = NULL;

void
peer_give_up_when(bool (*in_vain) (void))
{
	give_up_when = in_vain;
}

bool
peer_is_in_vain(void)
{
	return give_up_when != NULL && give_up_when();
}

char *
peer_establish(PGconn *conn, int64 deadline, uint32 wait_event, int32 broker)
{
	PostgresPollingStatusType polling = PGRES_POLLING_WRITING;
	int64		started = cluster_clock_ms();

	while (polling != PGRES_POLLING_OK)
	{
		int64		now = cluster_clock_ms();
		int64		left = Min(deadline - now, PEER_PATIENCE_MS);
		int			happened;

		if (polling == PGRES_POLLING_FAILED || PQstatus(conn) == CONNECTION_BAD)
			return pchomp(PQerrorMessage(conn));
		if (left <= 0)
			return pstrdup("The time for connecting is over.");
		if (now - started >= PEER_PATIENCE_MS && peer_is_in_vain())
			return pstrdup("There is newer metadata of the cluster.");
		if (cluster_state_is_fenced(broker))
			return pstrdup(PEER_IS_GONE);
		happened = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH |
									 (polling == PGRES_POLLING_READING ? WL_SOCKET_READABLE :
									  WL_SOCKET_WRITEABLE),
									 PQsocket(conn), (long) left, wait_event);
		if (happened & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		if (happened & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE))
			polling = PQconnectPoll(conn);
	}
	return NULL;
}
