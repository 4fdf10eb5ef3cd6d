/*
 * cluster.c
 *		Producing to a partition of one, two and three replicas, in turns, on
 *		brokers that share this machine.
 *
 * Clients connect to the partition's leader.  A run is over when the followers
 * have confirmed the end of the log: the time until then counts, so that what
 * is reported can go on for ever.
 */
#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BROKERS_MAX		9
#define CLIENTS_MAX		8
#define ARRAYS			8
#define LATENCIES_MAX	1000000
#define SETTLE			60		/* seconds that something may take besides producing */

typedef struct Side
{
	const char *name;
	int			replicas;
	const char *acks;
} Side;

static const Side sides[] = {
	{"RF 1", 1, "all"},
	{"RF 2, acks = leader", 2, "leader"},
	{"RF 2, acks = all", 2, "all"},
	{"RF 3, acks = leader", 3, "leader"},
	{"RF 3, acks = all", 3, "all"}
};

#define SIDES			((int) (sizeof(sides) / sizeof(sides[0])))

typedef struct Client
{
	PGconn	   *conn;
	pthread_t	thread;
	double		until;
	bool		batches;
	char	   *arrays[ARRAYS];	/* values, in binary format */
	int			lens[ARRAYS];
	double	   *latency;		/* of the first LATENCIES_MAX transactions; or NULL */
	long long	transactions;
} Client;

static char *brokers[BROKERS_MAX];	/* conninfos; broker 1 is brokers[0] */
static int	brokers_count;

static void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, conn ? PQerrorMessage(conn) : "");
	exit(1);
}

static void
read_brokers(void)
{
	char	   *lines = getenv("BENCH_BROKERS");
	char	   *rest;

	if (lines == NULL)
		die(NULL, "BENCH_BROKERS is not set; see cluster.sh");
	for (char *line = strtok_r(strdup(lines), "\n", &rest); line != NULL && brokers_count < BROKERS_MAX;
		 line = strtok_r(NULL, "\n", &rest))
		brokers[brokers_count++] = line;
}

/* Makes the topic, waits until all replicas are in sync, and connects to its leader. */
static PGconn *
make_topic(const Side *side)
{
	PGconn	   *conn = db_connect_to(brokers[0], "bench");
	PGconn	   *leader;
	double		deadline = now() + SETTLE;
	long long	number;

	db_command(conn, "SELECT create_topic('bench', replication_factor => %d)", side->replicas);
	number = db_number(conn, "SELECT leader FROM partition_status WHERE topic::text = 'bench'");
	if (number < 1 || number > brokers_count)
		die(NULL, "the leader is no broker of BENCH_BROKERS");
	leader = db_connect_to(brokers[number - 1], "bench");
	while (db_number(leader, "SELECT count(*) FROM partition_status p WHERE topic::text = 'bench'"
					 " AND cardinality(isr) = %d AND NOT EXISTS (SELECT FROM replication_status r"
					 " WHERE r.topic = p.topic AND r.state <> 'ready')", side->replicas) == 0)
	{
		if (now() > deadline)
			die(NULL, "the replicas do not come in sync");
		nap_us(50000);
	}
	/* the leader's segments ahead are there as well */
	nap_us(500000);
	PQfinish(conn);
	return leader;
}

static void
drop_topic(void)
{
	PGconn	   *conn = db_connect_to(brokers[0], "bench");

	db_command(conn, "SELECT drop_topic('bench')");
	PQfinish(conn);
	/* until no follower has anything of it any more */
	for (int i = 0; i < brokers_count; i++)
	{
		double		deadline = now() + SETTLE;

		conn = db_connect_to(brokers[i], "bench");
		while (db_number(conn, "SELECT (SELECT count(*) FROM pgtopic.topic) + (SELECT count(*) FROM pg_replication_slots)") > 0)
		{
			if (now() > deadline)
				die(NULL, "the topic is still there");
			nap_us(50000);
		}
		db_command(conn, "CHECKPOINT");
		PQfinish(conn);
	}
}

static void *
produce(void *arg)
{
	Client	   *client = arg;
	double		before = now();

	while (before < client->until)
	{
		int			n = (int) (client->transactions % ARRAYS);
		const char *values[1] = {client->arrays[n]};
		int			lengths[1] = {client->lens[n]};
		int			formats[1] = {1};
		PGresult   *res = PQexecPrepared(client->conn, "produce", 1, values, lengths, formats, 1);
		double		after = now();

		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			die(client->conn, "produce");
		PQclear(res);
		if (client->latency != NULL && client->transactions < LATENCIES_MAX)
			client->latency[client->transactions] = after - before;
		client->transactions++;
		before = after;
	}
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static void
report_latencies(const char *name, const Side *side, int round, const Client *clients, int count)
{
	char		measure[64];
	double	   *all;
	size_t		n = 0;

	for (int i = 0; i < count; i++)
		n += (size_t) clients[i].transactions;
	all = malloc((n + 1) * sizeof(double));
	if (all == NULL)
		abort();
	n = 0;
	for (int i = 0; i < count; i++)
		for (long long j = 0; j < clients[i].transactions && j < LATENCIES_MAX; j++)
			all[n++] = clients[i].latency[j];
	qsort(all, n, sizeof(double), compare);
	snprintf(measure, sizeof(measure), "%s-p50", name);
	result(measure, side->name, round, all[n / 2] * 1e6);
	snprintf(measure, sizeof(measure), "%s-p99", name);
	result(measure, side->name, round, all[n * 99 / 100] * 1e6);
	free(all);
}

/* WAL that a follower of the topic has not confirmed. */
static long long
unconfirmed(PGconn *leader, const char *end)
{
	return db_number(leader, "SELECT coalesce(max('%s' - confirmed_flush_lsn), 0)::bigint FROM pg_replication_slots"
					 " WHERE database = current_database() AND slot_name ~ ("
					 " SELECT '_(' || string_agg(follower::text, '|') || ')$' FROM replication_status)", end);
}

/* Clients produce for so many seconds, and the followers catch up. */
static void
run(const char *name, const Side *side, int round, int count, bool batches, double seconds)
{
	PGconn	   *leader = make_topic(side);
	Client		clients[CLIENTS_MAX] = {0};
	long long	number = db_number(leader, "SELECT self FROM pgtopic.cluster");
	long long	transactions = 0;
	char		measure[64];
	double		start;
	double		produced;
	double		confirmed;
	PGresult   *res;
	char	   *end;
	long long	lag;

	for (int i = 0; i < count; i++)
	{
		Client	   *client = &clients[i];

		client->batches = batches;
		client->conn = db_connect_to(brokers[number - 1], "bench client");
		db_command(client->conn, "SET pgtopic.acks = '%s'", side->acks);
		db_prepare(client->conn, "produce", batches ?
				   "SELECT * FROM produce_batch('bench', $1::text[])" :
				   "SELECT * FROM produce('bench', $1::text)");
		for (int n = 0; n < ARRAYS; n++)
		{
			if (batches)
				client->arrays[n] = text_array(BATCH, PAYLOAD, &client->lens[n]);
			else
			{
				client->arrays[n] = malloc(PAYLOAD);
				if (client->arrays[n] == NULL)
					abort();
				random_text(client->arrays[n], PAYLOAD);
				client->lens[n] = PAYLOAD;
			}
		}
		if (!batches)
		{
			client->latency = malloc(LATENCIES_MAX * sizeof(double));
			if (client->latency == NULL)
				abort();
		}
	}

	start = now();
	for (int i = 0; i < count; i++)
	{
		clients[i].until = start + seconds;
		if (pthread_create(&clients[i].thread, NULL, produce, &clients[i]) != 0)
			abort();
	}
	for (int i = 0; i < count; i++)
	{
		pthread_join(clients[i].thread, NULL);
		transactions += clients[i].transactions;
	}
	produced = now();

	res = db_query(leader, "SELECT pg_current_wal_flush_lsn()");
	end = PQgetvalue(res, 0, 0);
	lag = unconfirmed(leader, end);
	for (long long rest = lag; rest > 0; rest = unconfirmed(leader, end))
	{
		if (now() > produced + 10 * SETTLE)
			die(NULL, "the followers do not catch up");
		nap_us(1000);
	}
	confirmed = now();
	PQclear(res);

	if (round > 0)
	{
		if (db_number(leader, "SELECT cardinality(isr) FROM partition_status WHERE topic::text = 'bench'") < side->replicas)
			fprintf(stderr, "bench: %s, %d clients, round %d: a follower has fallen out of sync\n",
					side->name, count, round);
		result(name, side->name, round, (double) (transactions * (batches ? BATCH : 1)) / (confirmed - start));
		snprintf(measure, sizeof(measure), "%s-lag-s", name);
		result(measure, side->name, round, confirmed - produced);
		snprintf(measure, sizeof(measure), "%s-lag-mb", name);
		result(measure, side->name, round, (double) lag / 1e6);
		if (!batches)
			report_latencies(name, side, round, clients, count);
	}
	for (int i = 0; i < count; i++)
	{
		for (int n = 0; n < ARRAYS; n++)
			free(clients[i].arrays[n]);
		free(clients[i].latency);
		PQfinish(clients[i].conn);
	}
	PQfinish(leader);
	drop_topic();
}

static void
run_all(const Settings *settings, const char *name, int count, bool batches, double seconds)
{
	const char *wanted = getenv("BENCH_SIDES");

	/* the round that warms up is number 0, and short; then each first half the time */
	for (int round = 0; round <= settings->rounds; round++)
		for (int i = 0; i < SIDES; i++)
		{
			const Side *side = &sides[round % 2 ? SIDES - 1 - i : i];

			if (wanted == NULL || strstr(side->name, wanted) != NULL)
				run(name, side, round, count, batches, round == 0 ? 1 : seconds);
		}
}

void
bench_cluster_batch(const Settings *settings)
{
	read_brokers();
	run_all(settings, "cluster-batch-1", 1, true, settings->quick ? 4 : 10);
	run_all(settings, "cluster-batch-4", 4, true, settings->quick ? 4 : 10);
}

void
bench_cluster_single(const Settings *settings)
{
	read_brokers();
	run_all(settings, "cluster-single-1", 1, false, settings->quick ? 2 : 5);
	run_all(settings, "cluster-single-8", 8, false, settings->quick ? 2 : 5);
}
