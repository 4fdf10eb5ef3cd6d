/*
 * read.c
 *		Messages a second and core that the server reads, for a log written in
 *		batches and for one of single messages.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

#define CALL 100000				/* messages of one call, at most */

static void
report(const char *what, const char *log, int round, long long messages, Timing timing)
{
	char		variant[100];

	snprintf(variant, sizeof(variant), "%s, %s", what, log);
	result("read", variant, round, (double) messages / timing.cpu);
	result("read-wall", variant, round, (double) messages / timing.wall);
}

static void
read_log(PGconn *conn, const char *topic, const char *log, int round, long long messages)
{
	Timing		timing;
	long long	done;

	timing = timing_start(conn);
	for (done = 0; done < messages; done += CALL)
		db_number(conn, "SELECT count(*) FROM fetch_messages('%s', 0, %lld, %d)",
				  topic, done, CALL);
	timing = timing_end(conn, timing);
	if (round > 0)
		report("fetch_messages", log, round, messages, timing);

	/* a group for each round */
	timing = timing_start(conn);
	for (done = 0; done < messages;)
	{
		long long	n = db_number(conn, "SELECT count(*) FROM consume('%s', 'g%d', %d)",
								  topic, round, CALL);

		if (n == 0)
		{
			fprintf(stderr, "bench: nothing to consume after %lld of %lld messages\n",
					done, messages);
			exit(1);
		}
		done += n;
	}
	timing = timing_end(conn, timing);
	if (round > 0)
		report("consume", log, round, messages, timing);
}

void
bench_read(const Settings *settings)
{
	PGconn	   *conn = db_connect("bench read");
	long long	batched = settings->quick ? 500000 : 2000000;
	long long	single = settings->quick ? 100000 : 300000;

	db_command(conn, "SELECT create_topic('bench_batches')");
	db_command(conn, "SELECT create_topic('bench_singles')");
	load_batches(conn, "bench_batches", batched);
	for (long long done = 0; done < single; done += 10000)
		db_command(conn, "DO $$ DECLARE v text := left(repeat(md5('%lld'), 4), %d); BEGIN\n"
				   "	FOR i IN 1 .. 10000 LOOP PERFORM produce('bench_singles', v); END LOOP;\n"
				   "END $$", done, PAYLOAD);
	for (int round = 0; round <= settings->rounds; round++)
	{
		read_log(conn, "bench_batches", "batches", round, batched);
		read_log(conn, "bench_singles", "single messages", round, single);
	}
	db_command(conn, "SELECT drop_topic('bench_batches')");
	db_command(conn, "SELECT drop_topic('bench_singles')");
	PQfinish(conn);
}
