/*
 * latency.c
 *		From just before the producer sends COMMIT to when a waiting consumer has
 *		the message: pgtopic against LISTEN/NOTIFY with a table.
 *
 * Two pairs: consume() against deleting the rows, which end in a transaction's
 * commit both; fetch_messages() against selecting the rows after the last.  The
 * two of a pair take turns message by message, with both consumers waiting.  Each
 * pair once as it is and once with asynchronous commit everywhere, which shows
 * what there is besides waiting for the disk.
 */
#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Variant
{
	const char *name;
	const char *produce;		/* in a transaction that is open */
	const char *notify;			/* then this, or NULL */
	const char *consume;		/* $1: after which offset or id */
	bool		listen;			/* wait for a notification before each consume */
	const char *setup;			/* for the consumer: a plan that does not grow with the table */
} Variant;

static const Variant variants[] = {
	{"consume", "SELECT produce('bench_latency', $1::text)", NULL,
	"SELECT log_offset + 1, value FROM consume('bench_latency', 'g', 500, '1min')"
	" WHERE $1::bigint IS NOT NULL", false, NULL},
	{"LISTEN, DELETE", "INSERT INTO bench_queue (value) VALUES ($1::text)", "NOTIFY bench",
	"DELETE FROM bench_queue WHERE $1::bigint IS NOT NULL RETURNING id, value", true, ""},
	{"fetch_messages", "SELECT produce('bench_tail', $1::text)", NULL,
	"SELECT log_offset + 1, value FROM fetch_messages('bench_tail', 0, $1::bigint, 500, '1min')", false, NULL},
	{"LISTEN, SELECT", "INSERT INTO bench_table (value) VALUES ($1::text)", "NOTIFY bench",
	"SELECT id, value FROM bench_table WHERE id > $1::bigint ORDER BY id LIMIT 500", true,
	"SET enable_seqscan = off; SET enable_sort = off"}
};

#define VARIANTS ((int) (sizeof(variants) / sizeof(variants[0])))

typedef struct Run
{
	const Variant *variant;
	bool		asynchronous;
	int			messages;
	long long	position;		/* of the consumer; goes on from run to run */
	double	   *latency;
	PGconn	   *producer;
	pthread_t	thread;
	_Atomic double sent;		/* when the message under way was committed */
	atomic_int	received;		/* how many the consumer has */
	atomic_bool ready;			/* the consumer waits for the first time */
} Run;

static void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "bench: %s: %s", what, PQerrorMessage(conn));
	exit(1);
}

static void
wait_notification(PGconn *conn)
{
	PGnotify   *notify;

	for (;;)
	{
		struct pollfd pfd = {.fd = PQsocket(conn), .events = POLLIN};
		bool		any = false;

		if (!PQconsumeInput(conn))
			die(conn, "waiting for a notification");
		while ((notify = PQnotifies(conn)) != NULL)
		{
			PQfreemem(notify);
			any = true;
		}
		if (any)
			return;
		if (poll(&pfd, 1, 60000) == 0)
			die(conn, "no notification for a minute");
	}
}

static void *
consumer(void *arg)
{
	Run		   *run = arg;
	PGconn	   *conn = db_connect("bench consumer");

	if (run->asynchronous)
		db_command(conn, "SET synchronous_commit = off");
	if (run->variant->listen)
		db_command(conn, "LISTEN bench; SET jit = off; %s", run->variant->setup);
	db_prepare(conn, "consume", run->variant->consume);
	run->ready = true;
	while (run->received < run->messages)
	{
		char		position[24];
		const char *values[1] = {position};
		PGresult   *res;
		double		received;

		if (run->variant->listen)
			wait_notification(conn);
		snprintf(position, sizeof(position), "%lld", run->position);
		res = PQexecPrepared(conn, "consume", 1, values, NULL, NULL, 0);
		received = now();
		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			die(conn, run->variant->name);
		/* one message is under way at a time */
		if (PQntuples(res) > 1 ||
			(PQntuples(res) == 1 && atoi(PQgetvalue(res, 0, 1)) != run->received))
		{
			fprintf(stderr, "bench: %s: message %d expected, not %s\n", run->variant->name,
					run->received, PQgetvalue(res, 0, 1));
			exit(1);
		}
		if (PQntuples(res) == 1)
		{
			run->position = atoll(PQgetvalue(res, 0, 0));
			run->latency[run->received] = received - run->sent;
			run->received++;
		}
		PQclear(res);
	}
	PQfinish(conn);
	return NULL;
}

static void
start(Run *run, int messages)
{
	run->messages = messages;
	run->latency = calloc((size_t) messages, sizeof(double));
	run->received = 0;
	run->ready = false;
	run->producer = db_connect("bench producer");
	if (run->asynchronous)
		db_command(run->producer, "SET synchronous_commit = off");
	db_prepare(run->producer, "produce", run->variant->produce);
	if (run->latency == NULL || pthread_create(&run->thread, NULL, consumer, run) != 0)
		abort();
	while (!run->ready)
		nap_us(1000);
}

/* One message, until the consumer has it. */
static void
send_one(Run *run)
{
	PGconn	   *conn = run->producer;
	int			i = run->received;
	char		value[16];
	const char *values[1] = {value};
	PGresult   *res;
	double		deadline = now() + 20;

	/* time enough for the consumer to be waiting again */
	nap_us(1500 + (long) (next_random() % 2000));
	snprintf(value, sizeof(value), "%d", i);
	db_command(conn, "BEGIN");
	res = PQexecPrepared(conn, "produce", 1, values, NULL, NULL, 0);
	if (PQresultStatus(res) != PGRES_TUPLES_OK && PQresultStatus(res) != PGRES_COMMAND_OK)
		die(conn, run->variant->name);
	PQclear(res);
	if (run->variant->notify)
		db_command(conn, "%s", run->variant->notify);
	run->sent = now();
	db_command(conn, "COMMIT");
	while (run->received <= i)
	{
		nap_us(100);
		if (now() > deadline)
			die(conn, "the consumer does not get the message");
	}
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static void
finish(Run *run, int round)
{
	const char *suffix = run->asynchronous ? "-async" : "";
	char		measure[32];

	pthread_join(run->thread, NULL);
	PQfinish(run->producer);
	qsort(run->latency, (size_t) run->messages, sizeof(double), compare);
	if (round > 0)
	{
		snprintf(measure, sizeof(measure), "latency%s-p50", suffix);
		result(measure, run->variant->name, round, run->latency[run->messages / 2] * 1e6);
		snprintf(measure, sizeof(measure), "latency%s-p99", suffix);
		result(measure, run->variant->name, round, run->latency[run->messages * 99 / 100] * 1e6);
	}
	free(run->latency);
}

static void
run_pair(Run *a, Run *b, int messages, int round)
{
	start(a, messages);
	start(b, messages);
	for (int i = 0; i < messages; i++)
	{
		/* each first half the time */
		send_one(i % 2 ? a : b);
		send_one(i % 2 ? b : a);
	}
	finish(a, round);
	finish(b, round);
}

void
bench_latency(const Settings *settings)
{
	PGconn	   *conn = db_connect("bench latency");
	int			messages = settings->quick ? 300 : 700;
	Run			runs[VARIANTS] = {0};

	db_command(conn, "SELECT create_topic('bench_latency')");
	db_command(conn, "SELECT create_topic('bench_tail')");
	db_command(conn, "CREATE TABLE bench_queue"
			   " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, value text)");
	db_command(conn, "CREATE TABLE bench_table"
			   " (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, value text)");
	for (int round = 0; round <= settings->rounds; round++)
		for (int asynchronous = 0; asynchronous <= 1; asynchronous++)
			for (int v = 0; v < VARIANTS; v += 2)
			{
				for (int i = v; i < v + 2; i++)
				{
					runs[i].variant = &variants[i];
					runs[i].asynchronous = asynchronous;
				}
				run_pair(&runs[v], &runs[v + 1], round == 0 ? 20 : messages, round);
			}
	db_command(conn, "SELECT drop_topic('bench_latency')");
	db_command(conn, "SELECT drop_topic('bench_tail')");
	db_command(conn, "DROP TABLE bench_queue, bench_table");
	PQfinish(conn);
}
