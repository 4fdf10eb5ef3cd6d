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

void
client_disconnect(Client *c)
{
	PQfinish(c->conn);
	c->conn = NULL;
}

static void
ignore_notice(void *arg, const PGresult *res)
{
	(void) arg;
	(void) res;
}

/*
 * Connect if there is no connection, trying until there is one.  False if the
 * run stops meanwhile.
 */
bool
client_connect(Client *c)
{
	const char *keywords[] = {"application_name", "connect_timeout", "dbname", NULL};
	const char *values[] = {c->name, "10", "", NULL};

	/* "dbname" is empty so that PGDATABASE decides */
	while (c->conn == NULL && !is_stopping(c))
	{
		c->conn = PQconnectdbParams(keywords, values, 0);
		if (PQstatus(c->conn) == CONNECTION_OK)
		{
			PQsetNoticeReceiver(c->conn, ignore_notice, NULL);
			break;
		}
		client_disconnect(c);
		nap_ms(20 + rnd_below(c, 50));
	}
	return c->conn != NULL && !is_stopping(c);
}

/* Errors that the nemesis or concurrency explains; any other is a finding. */
static bool
expected_error(const char *sqlstate)
{
	static const char *const expected[] = {
		"57P01", "57P02", "57P03",	/* shut down, or about to start */
		"57014",				/* cancelled */
		"40001", "40P01",		/* serialization failure, deadlock */
		"22012"					/* division by zero: the workload does that on purpose */
	};

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		if (strcmp(sqlstate, expected[i]) == 0)
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
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '\t')
			*p = ' ';
	record(c, expected_error(sqlstate) ? "error" : "unexpected", "%s\t%s",
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

/* Wait for the server's answer, but not for ever.  False: give up. */
static bool
wait_answer(Client *c)
{
	int64_t		deadline = now_us() + STUCK_AFTER * INT64_C(1000);

	while (PQisBusy(c->conn))
	{
		struct pollfd pfd = {.fd = PQsocket(c->conn), .events = POLLIN};
		int			rc = poll(&pfd, 1, 1000);

		if (rc < 0 && errno != EINTR)
			return true;		/* PQgetResult will say what is wrong */
		if (rc > 0 && !PQconsumeInput(c->conn))
			return true;
		if (is_stopping(c))
			return false;
		if (rc == 0 && now_us() > deadline)
			return false;
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
	if (c->conn == NULL)
		return NULL;
	if (PQsendQueryParams(c->conn, sql, nparams, NULL, params, NULL, NULL, 0))
	{
		for (;;)
		{
			if (!wait_answer(c))
			{
				if (!is_stopping(c))
					record(c, "stuck", "no answer to: %.150s", sql);
				PQclear(res);
				client_disconnect(c);
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
		client_disconnect(c);
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
