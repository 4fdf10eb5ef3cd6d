/*
 * client.c
 *		A connection that comes back after crashes, and statements whose outcome
 *		is one of: done, refused, or unknown.
 */
#include "workload.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

bool
is_stopping(Client *c)
{
	return c->shared->phase == PHASE_STOP;
}

bool
in_cluster(const Client *c)
{
	return c->opt->brokers > 1;
}

void
client_disconnect(Client *c)
{
	PQfinish(c->conn);
	c->conn = NULL;
}

/* What a client with several hosts in its conninfo does when one is not there. */
static void
try_next_broker(Client *c)
{
	if (!c->pinned)
		c->broker = (c->broker + 1) % c->opt->brokers;
	c->unhappy = 0;
}

static void
one_line(char *text)
{
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '\t')
			*p = ' ';
}

/*
 * Two warnings change what COMMIT means: another broker may, or may not, have
 * committed its part; and nobody waited for the in-sync replicas.
 */
static void
receive_notice(void *arg, const PGresult *res)
{
	Client	   *c = arg;
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	char		text[200];

	if (severity == NULL || sqlstate == NULL || message == NULL || strcmp(severity, "WARNING") != 0)
		return;
	if (strcmp(sqlstate, "08007") == 0 || strstr(message, "canceling the wait for in-sync replicas"))
	{
		c->warned = true;
		snprintf(text, sizeof(text), "%s", message);
		one_line(text);
		record(c, "warning", "%s\t%s", sqlstate, text);
	}
}

/*
 * Connect if there is no connection, trying until there is one.  False if the
 * run stops meanwhile.
 */
bool
client_connect(Client *c)
{
	/* "dbname" is empty so that PGDATABASE decides */
	while (c->conn == NULL && !is_stopping(c))
	{
		const Broker *broker = &c->opt->broker[c->broker];
		const char *keywords[] = {"host", "port", "application_name", "connect_timeout", "dbname", NULL};
		const char *values[] = {broker->folder, broker->port, c->name, in_cluster(c) ? "3" : "10", "", NULL};

		c->conn = PQconnectdbParams(keywords, values, 0);
		if (PQstatus(c->conn) == CONNECTION_OK)
		{
			PQsetNoticeReceiver(c->conn, receive_notice, c);
			break;
		}
		client_disconnect(c);
		try_next_broker(c);
		nap_ms(20 + rnd_below(c, 50));
	}
	return c->conn != NULL && !is_stopping(c);
}

/* Connect to this broker, and to no other one from now on. */
bool
client_connect_to(Client *c, int broker)
{
	if (c->broker != broker)
		client_disconnect(c);
	c->broker = broker;
	c->pinned = true;
	return client_connect(c);
}

/* Now and then a new session; to another broker if this one is of little use. */
void
client_wander(Client *c)
{
	if (c->unhappy > 1)
	{
		client_disconnect(c);
		try_next_broker(c);
	}
	else if (chance(c, 1))
	{
		client_disconnect(c);
		if (!c->pinned)
			c->broker = rnd_below(c, c->opt->brokers);
	}
}

/* Errors that the nemesis or concurrency explains; any other is a finding. */
static bool
expected_error(const Client *c, const char *sqlstate)
{
	static const char *const expected[] = {
		"57P01", "57P02", "57P03",	/* shut down, or about to start */
		"57014",				/* cancelled */
		"40001", "40P01",		/* serialization failure, deadlock */
		"22012"					/* division by zero: the workload does that on purpose */
	};
	static const char *const in_clusters[] = {
		"08001", "08006", "08007",	/* another broker cannot be reached, or is lost */
		"53000",				/* too few in-sync replicas */
		"55P03"					/* a wait for a lock at another broker */
	};

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		if (strcmp(sqlstate, expected[i]) == 0)
			return true;
	/* elections and moves are made at random: some are not possible */
	if (strcmp(c->name, "nemesis") == 0 &&
		(strcmp(sqlstate, "22023") == 0 || strcmp(sqlstate, "55000") == 0 || strcmp(sqlstate, "55006") == 0))
		return true;
	for (size_t i = 0; in_cluster(c) && i < sizeof(in_clusters) / sizeof(in_clusters[0]); i++)
		if (strcmp(sqlstate, in_clusters[i]) == 0)
			return true;
	return false;
}

static void
record_error(Client *c, const PGresult *res, const char *sql)
{
	const char *sqlstate = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
	const char *message = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	char		text[400];

	if (sqlstate == NULL)
	{
		record(c, "disconnect", "%.60s", sql);
		return;
	}
	snprintf(text, sizeof(text), "%s (in: %.150s)", message ? message : "", sql);
	one_line(text);
	snprintf(c->sqlstate, sizeof(c->sqlstate), "%s", sqlstate);
	if (in_cluster(c) && (strncmp(sqlstate, "08", 2) == 0 || strcmp(sqlstate, "57P03") == 0 ||
						  strcmp(sqlstate, "53000") == 0))
		c->unhappy++;
	record(c, expected_error(c, sqlstate) ? "error" : "unexpected", "%s\t%s",
		   sqlstate, text);
}

/* The server ended the session: what the statement did is not known. */
static bool
is_fatal(const PGresult *res)
{
	const char *severity = res ? PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED) : NULL;

	return severity != NULL &&
		(strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

/* Whether a client that has waited since then goes away; at calm times none does. */
static bool
is_impatient(const Client *c, int64_t since)
{
	return c->deadline > 0 && c->shared->phase == PHASE_RUN &&
		now_us() - since > c->deadline * INT64_C(1000);
}

/* Wait for the server's answer, but not for ever.  False: give up. */
static bool
wait_answer(Client *c)
{
	int64_t		since = now_us();
	int64_t		deadline = since + STUCK_AFTER * INT64_C(1000);

	while (PQisBusy(c->conn))
	{
		struct pollfd pfd = {.fd = PQsocket(c->conn), .events = POLLIN};
		int			rc = poll(&pfd, 1, 200);

		if (rc < 0 && errno != EINTR)
			return true;		/* PQgetResult will say what is wrong */
		if (rc > 0 && !PQconsumeInput(c->conn))
			return true;
		if (is_stopping(c) || is_impatient(c, since))
			return false;
		if (rc == 0 && now_us() > deadline)
		{
			record(c, "stuck", "no answer from broker %d within %d s", c->broker + 1, STUCK_AFTER / 1000);
			return false;
		}
	}
	return true;
}

/*
 * Run one statement.  The result is NULL unless the outcome is OUT_OK, and
 * after OUT_LOST there is no connection.
 */
PGresult *
client_exec(Client *c, Outcome *out, const char *sql, int nparams,
			const char *const *params)
{
	PGresult   *res = NULL;
	PGresult   *next;

	*out = OUT_LOST;
	c->sqlstate[0] = '\0';
	if (c->conn == NULL)
		return NULL;
	if (PQsendQueryParams(c->conn, sql, nparams, NULL, params, NULL, NULL, 0))
	{
		for (;;)
		{
			if (!wait_answer(c))
			{
				if (!is_stopping(c))
					record(c, "timeout", "%.150s", sql);
				PQclear(res);
				client_disconnect(c);
				try_next_broker(c);
				return NULL;
			}
			next = PQgetResult(c->conn);
			if (next == NULL)
				break;
			/* keep the first error, as PQexec keeps the last result */
			if (res == NULL || PQresultStatus(res) != PGRES_FATAL_ERROR)
			{
				PQclear(res);
				res = next;
			}
			else
				PQclear(next);
		}
	}

	if (res != NULL && PQstatus(c->conn) == CONNECTION_OK &&
		(PQresultStatus(res) == PGRES_TUPLES_OK ||
		 PQresultStatus(res) == PGRES_COMMAND_OK))
	{
		*out = OUT_OK;
		return res;
	}

	record_error(c, res, sql);
	if (PQstatus(c->conn) != CONNECTION_OK || is_fatal(res))
	{
		client_disconnect(c);
		try_next_broker(c);
	}
	else
		*out = OUT_FAILED;
	PQclear(res);
	return NULL;
}

Outcome
client_command(Client *c, const char *sql)
{
	Outcome		out;

	PQclear(client_exec(c, &out, sql, 0, NULL));
	return out;
}

/* BEGIN at a random isolation level. */
bool
begin_random(Client *c, char *isolation, size_t len)
{
	static const char *const levels[] = {
		"READ COMMITTED", "READ COMMITTED", "READ COMMITTED",
		"REPEATABLE READ", "SERIALIZABLE"
	};
	char		sql[64];

	snprintf(isolation, len, "%s", levels[rnd_below(c, 5)]);
	snprintf(sql, sizeof(sql), "BEGIN ISOLATION LEVEL %s", isolation);
	return client_command(c, sql) == OUT_OK;
}
