/*
 * common.c
 *		Connections, clocks and payloads of the benchmarks.
 */
#include "bench.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void
fail(PGconn *conn, const char *sql)
{
	fprintf(stderr, "bench: %s(in: %.200s)\n", PQerrorMessage(conn), sql);
	exit(1);
}

static void
ignore_notice(void *arg, const char *message)
{
	(void) arg;
	(void) message;
}

/* As the environment says. */
PGconn *
db_connect(const char *name)
{
	return db_connect_to("", name);
}

PGconn *
db_connect_to(const char *conninfo, const char *name)
{
	const char *keywords[] = {"dbname", "application_name", NULL};
	const char *values[] = {conninfo, name, NULL};
	PGconn	   *conn = PQconnectdbParams(keywords, values, 1);

	if (PQstatus(conn) != CONNECTION_OK)
		fail(conn, "connect");
	PQsetNoticeProcessor(conn, ignore_notice, NULL);
	return conn;
}

PGresult *
db_query(PGconn *conn, const char *sql)
{
	PGresult   *res = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK &&
		status != PGRES_COPY_IN)
		fail(conn, sql);
	return res;
}

static char *
format(const char *fmt, va_list ap)
{
	char	   *sql;

	if (vasprintf(&sql, fmt, ap) < 0)
		abort();
	return sql;
}

void
db_command(PGconn *conn, const char *fmt,...)
{
	va_list		ap;
	char	   *sql;

	va_start(ap, fmt);
	sql = format(fmt, ap);
	va_end(ap);
	PQclear(db_query(conn, sql));
	free(sql);
}

long long
db_number(PGconn *conn, const char *fmt,...)
{
	va_list		ap;
	char	   *sql;
	PGresult   *res;
	long long	n;

	va_start(ap, fmt);
	sql = format(fmt, ap);
	va_end(ap);
	res = db_query(conn, sql);
	if (PQntuples(res) != 1)
	{
		fprintf(stderr, "bench: one row expected of: %s\n", sql);
		exit(1);
	}
	n = atoll(PQgetvalue(res, 0, 0));
	PQclear(res);
	free(sql);
	return n;
}

void
db_prepare(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *res = PQprepare(conn, name, sql, 0, NULL);

	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		fail(conn, sql);
	PQclear(res);
}

double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

void
nap_us(long us)
{
	struct timespec ts = {us / 1000000, (us % 1000000) * 1000};

	nanosleep(&ts, NULL);
}

/* Time that a server process has spent on the CPU. */
static double
cpu_time(PGconn *conn)
{
	char		path[64];
	FILE	   *f;
	unsigned long long ns = 0;
	char		line[1024];
	char	   *p;
	unsigned long utime = 0;
	unsigned long stime = 0;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", PQbackendPID(conn));
	f = fopen(path, "r");
	if (f != NULL)
	{
		int			n = fscanf(f, "%llu", &ns);

		fclose(f);
		if (n == 1 && ns > 0)
			return (double) ns / 1e9;
	}
	/* a kernel without it: in ticks */
	snprintf(path, sizeof(path), "/proc/%d/stat", PQbackendPID(conn));
	f = fopen(path, "r");
	if (f == NULL)
		return 0;
	if (fgets(line, sizeof(line), f) != NULL && (p = strrchr(line, ')')) != NULL &&
		sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &utime, &stime) != 2)
		utime = stime = 0;
	fclose(f);
	return (double) (utime + stime) / (double) sysconf(_SC_CLK_TCK);
}

Timing
timing_start(PGconn *conn)
{
	return (Timing) {now(), cpu_time(conn)};
}

Timing
timing_end(PGconn *conn, Timing start)
{
	return (Timing) {now() - start.wall, cpu_time(conn) - start.cpu};
}

/* xorshift64* */
uint64_t
next_random(void)
{
	static uint64_t state = UINT64_C(0x2545f4914f6cdd1d);

	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * UINT64_C(0x2545f4914f6cdd1d);
}

/*
 * Printable text that compresses like text, not like zeros: words of a few
 * hundred.  No zero byte at the end.
 */
void
random_text(char *to, int len)
{
	static char words[256][9];

	if (words[0][0] == '\0')
		for (int w = 0; w < 256; w++)
			for (int i = 0, n = 3 + (int) (next_random() % 6); i < n; i++)
				words[w][i] = (char) ('a' + next_random() % 26);

	while (len > 0)
	{
		const char *word = words[next_random() % 256];
		int			n = (int) strlen(word);

		if (n >= len)
			n = len - 1;
		memcpy(to, word, (size_t) n);
		to[n] = (char) ('0' + next_random() % 10);
		to += n + 1;
		len -= n + 1;
	}
}

static char *
put_int(char *p, int32_t i)
{
	uint32_t	n = htonl((uint32_t) i);

	memcpy(p, &n, 4);
	return p + 4;
}

/* An array of random texts as a binary parameter of type text[]. */
char *
text_array(int n, int size, int *len)
{
	char	   *array = malloc(20 + (size_t) n * (4 + (size_t) size));
	char	   *p = array;

	if (array == NULL)
		abort();
	p = put_int(p, 1);			/* dimensions */
	p = put_int(p, 0);			/* no nulls */
	p = put_int(p, 25);			/* text */
	p = put_int(p, n);
	p = put_int(p, 1);			/* lower bound */
	for (int i = 0; i < n; i++)
	{
		p = put_int(p, size);
		random_text(p, size);
		p += size;
	}
	*len = (int) (p - array);
	return array;
}

/* Fill a topic of one partition with batches, without the client's part. */
void
load_batches(PGconn *conn, const char *topic, long long messages)
{
	const char *const sql = "SELECT count(*) FROM produce_batch($1, $2::text[])";
	const long long txn = 100 * BATCH;
	int			len;
	char	   *array = text_array(BATCH, PAYLOAD, &len);
	const char *values[2] = {topic, array};
	int			lengths[2] = {0, len};
	int			formats[2] = {0, 1};

	for (long long done = 0; done < messages; done += BATCH)
	{
		PGresult   *res;

		if (done % txn == 0)
			db_command(conn, done == 0 ? "BEGIN" : "COMMIT; BEGIN");
		res = PQexecParams(conn, sql, 2, NULL, values, lengths, formats, 0);
		if (PQresultStatus(res) != PGRES_TUPLES_OK)
			fail(conn, sql);
		PQclear(res);
	}
	db_command(conn, "COMMIT");
	free(array);
}

void
result(const char *measure, const char *variant, int round, double value)
{
	printf("%s\t%s\t%d\t%.9g\n", measure, variant, round, value);
	fflush(stdout);
}
