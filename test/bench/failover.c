/*
 * failover.c
 *		How long nobody takes messages of a partition when its leader is killed.
 *
 * A partition of three replicas, and clients at the two brokers that do not lead it,
 * which produce one message after the other and try again when that fails.  The server
 * of the leader is killed, all of its processes at once.  What counts is the time from
 * then until the first message that was sent after that is acknowledged.  Then the
 * server is started, and all replicas get in sync again.
 */
#include "bench.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define BROKERS			3
#define SETTLE			120		/* seconds that getting in sync may take */
#define CHILDREN_MAX	1000

static char *brokers[BROKERS];	/* conninfos */
static char *datadirs[BROKERS];

static volatile double killed_at;	/* 0: not yet */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double first_at;			/* 0: nothing acknowledged yet */

static void
die(const char *what)
{
	fprintf(stderr, "bench: %s\n", what);
	exit(1);
}

static void
read_lines(const char *variable, char **lines)
{
	char	   *value = getenv(variable);
	char	   *rest;
	int			count = 0;

	if (value == NULL)
		die("BENCH_BROKERS or BENCH_DATADIRS is not set; see cluster.sh");
	for (char *line = strtok_r(strdup(value), "\n", &rest); line != NULL && count < BROKERS;
		 line = strtok_r(NULL, "\n", &rest))
		lines[count++] = line;
	if (count < BROKERS)
		die("three brokers are needed");
}

/* Kills a postmaster and its children; none is left that could answer anybody. */
static void
kill_server(const char *datadir)
{
	char		path[1024];
	FILE	   *file;
	int			postmaster;
	pid_t		children[CHILDREN_MAX];
	int			count = 0;
	DIR		   *proc = opendir("/proc");

	snprintf(path, sizeof(path), "%s/postmaster.pid", datadir);
	file = fopen(path, "r");
	if (proc == NULL || file == NULL || fscanf(file, "%d", &postmaster) != 1)
		die("cannot find out whom to kill");
	fclose(file);
	kill(postmaster, SIGSTOP);
	for (struct dirent *entry; (entry = readdir(proc)) != NULL && count < CHILDREN_MAX;)
	{
		int			parent;

		snprintf(path, sizeof(path), "/proc/%.20s/stat", entry->d_name);
		file = atoi(entry->d_name) > 0 ? fopen(path, "r") : NULL;
		if (file == NULL)
			continue;
		if (fscanf(file, "%*d (%*[^)]) %*c %d", &parent) == 1 && parent == postmaster)
			children[count++] = atoi(entry->d_name);
		fclose(file);
	}
	closedir(proc);
	kill(postmaster, SIGKILL);
	for (int i = 0; i < count; i++)
		kill(children[i], SIGKILL);
	killed_at = now();
}

/* A client: until a message that it has sent after the kill is acknowledged, to whomever. */
static void *
produce(void *arg)
{
	PGconn	   *conn = db_connect_to(arg, "bench client");

	for (;;)
	{
		bool		after = killed_at > 0;
		PGresult   *res = PQexec(conn, "SELECT produce('bench', 'x', partition => 0)");
		bool		done = PQresultStatus(res) == PGRES_TUPLES_OK;
		bool		over;

		/* a commit that waits for replicas in vain ends the session */
		PQclear(res);
		if (PQstatus(conn) == CONNECTION_BAD)
		{
			PQreset(conn);
			done = false;
		}
		pthread_mutex_lock(&lock);
		if (after && done && first_at == 0)
			first_at = now();
		over = first_at > 0;
		pthread_mutex_unlock(&lock);
		if (over)
			break;
		nap_us(5000);
	}
	PQfinish(conn);
	return NULL;
}

static void
wait_in_sync(void)
{
	double		deadline = now() + SETTLE;

	for (int i = 0; i < BROKERS; i++)
	{
		PGconn	   *conn = db_connect_to(brokers[i], "bench");

		while (db_number(conn, "SELECT count(*) FROM partition_status WHERE topic::text = 'bench' AND cardinality(isr) = 3"
						 " AND leader IS NOT NULL") == 0 ||
			   db_number(conn, "SELECT count(*) FROM broker_status WHERE state <> 'online'") > 0)
		{
			if (now() > deadline)
				die("the replicas do not get in sync");
			nap_us(50000);
		}
		PQfinish(conn);
	}
}

static void
fail_over(int round)
{
	PGconn	   *conn = db_connect_to(brokers[0], "bench");
	int			leader = (int) db_number(conn, "SELECT leader FROM partition_status WHERE topic::text = 'bench'") - 1;
	int			controller = (int) db_number(conn, "SELECT broker FROM broker_status WHERE is_controller") - 1;
	pthread_t	threads[BROKERS];
	char		command[2048];

	PQfinish(conn);
	killed_at = first_at = 0;
	for (int i = 0; i < BROKERS; i++)
		if (i != leader && pthread_create(&threads[i], NULL, produce, brokers[i]) != 0)
			abort();
	/* not always at the same moment of what the brokers do regularly */
	nap_us(1000000 + (long) (next_random() % 1000000));
	kill_server(datadirs[leader]);
	for (int i = 0; i < BROKERS; i++)
		if (i != leader)
			pthread_join(threads[i], NULL);
	result("failover", leader == controller ? "leader and controller" : "leader", round, (first_at - killed_at) * 1e3);
	snprintf(command, sizeof(command), "pg_ctl start -s -w -D '%s' -l '%s/log' </dev/null >&2",
			 datadirs[leader], datadirs[leader]);
	if (system(command) != 0)
		die("the server does not start");
	wait_in_sync();
}

void
bench_failover(const Settings *settings)
{
	PGconn	   *conn;

	read_lines("BENCH_BROKERS", brokers);
	read_lines("BENCH_DATADIRS", datadirs);
	conn = db_connect_to(brokers[0], "bench");
	db_command(conn, "SELECT create_topic('bench', replication_factor => 3)");
	PQfinish(conn);
	wait_in_sync();
	for (int round = 1; round <= settings->rounds; round++)
		fail_over(round);
}
