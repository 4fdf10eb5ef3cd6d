/*
 * cost.c
 *		What a message costs the server in a log of ten million messages and in
 *		one of ten thousand, in CPU time; and what it costs in WAL.
 */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

#define SMALL			10000

typedef struct Log
{
	const char *topic;
	const char *size;			/* for the report */
	long long	messages;
} Log;

static void
cost(const char *what, const Log *log, int round, long long messages, Timing timing)
{
	char		measure[64];

	if (round == 0)
		return;
	snprintf(measure, sizeof(measure), "cost: %s", what);
	result(measure, log->size, round, timing.cpu / (double) messages * 1e9);
	snprintf(measure, sizeof(measure), "cost-wall: %s", what);
	result(measure, log->size, round, timing.wall / (double) messages * 1e9);
}

/* Everything once; the first time it only warms up. */
static void
use(PGconn *conn, const Log *log, int round)
{
	Timing		timing;
	long long	n;
	char		group[32];

	timing = timing_start(conn);
	db_command(conn, "DO $$ DECLARE v text[] := array(SELECT repeat(md5(i::text), 3)"
			   " FROM generate_series(1, 100) i); BEGIN\n"
			   "	FOR i IN 1 .. 20 LOOP PERFORM produce_batch('%s', v); END LOOP;\n"
			   "END $$", log->topic);
	cost("produce_batch of 100", log, round, 2000, timing_end(conn, timing));

	timing = timing_start(conn);
	db_command(conn, "DO $$ DECLARE v text := repeat(md5('x'), 3); BEGIN\n"
			   "	FOR i IN 1 .. 2000 LOOP PERFORM produce('%s', v); END LOOP;\n"
			   "END $$", log->topic);
	cost("produce", log, round, 2000, timing_end(conn, timing));

	/* what was just written are single messages and a few batches in both */
	n = db_number(conn, "SELECT log_end_offset FROM partition_status"
				  " WHERE topic::text = '%s'", log->topic);
	timing = timing_start(conn);
	db_command(conn, "DO $$ BEGIN\n"
			   "	FOR i IN 1 .. 2000 LOOP\n"
			   "		PERFORM count(*) FROM fetch_messages('%s', 0, %lld, 100);\n"
			   "	END LOOP;\n"
			   "END $$", log->topic, n - 100);
	cost("fetch 100 at the tail", log, round, 200000, timing_end(conn, timing));

	timing = timing_start(conn);
	db_command(conn, "DO $$ BEGIN\n"
			   "	FOR i IN 1 .. 2000 LOOP\n"
			   "		PERFORM count(*) FROM fetch_messages('%s', 0, i %% 500, 100);\n"
			   "	END LOOP;\n"
			   "END $$", log->topic);
	cost("fetch 100 at the start", log, round, 200000, timing_end(conn, timing));

	snprintf(group, sizeof(group), "g%d", round);
	db_command(conn, "SELECT create_consumer_group('%s', '%s')", group, log->topic);
	db_command(conn, "SELECT reset_offsets('%s', '%s', '%lld')", group, log->topic, log->messages / 2);
	timing = timing_start(conn);
	for (int i = 0; i < 300; i++)
		db_number(conn, "SELECT count(*) FROM consume('%s', '%s', 10)", log->topic, group);
	cost("consume 10", log, round, 3000, timing_end(conn, timing));
}

void
bench_cost(const Settings *settings)
{
	PGconn	   *conn = db_connect("bench cost");
	Log			big = {"bench_big", settings->quick ? "1 million" : "10 million",
	settings->quick ? 1000000 : 10000000};
	Log			small = {"bench_small", "10 thousand", SMALL};

	db_command(conn, "SET synchronous_commit = off");
	db_command(conn, "SELECT create_topic('%s')", big.topic);
	load_batches(conn, big.topic, big.messages);
	for (int round = 0; round <= settings->rounds; round++)
	{
		/* a new one each time, so that it stays small; used once before, to open it */
		db_command(conn, "SELECT create_topic('%s')", small.topic);
		load_batches(conn, small.topic, small.messages - 8000);
		use(conn, &small, 0);
		db_command(conn, "SELECT drop_consumer_group('g0', '%s')", small.topic);
		db_command(conn, "CHECKPOINT");
		/* each first half the time */
		use(conn, round % 2 ? &big : &small, round);
		use(conn, round % 2 ? &small : &big, round);
		if (round == 0)
			db_command(conn, "SELECT drop_consumer_group('g0', '%s')", big.topic);
		db_command(conn, "SELECT drop_topic('%s')", small.topic);
	}
	db_command(conn, "SELECT drop_topic('%s')", big.topic);
	PQfinish(conn);
}

/* WAL bytes of what a statement writes, a message. */
static double
wal(PGconn *conn, const char *sql, int times, long long messages)
{
	long long	before;

	db_command(conn, "%s", sql);
	before = db_number(conn, "SELECT pg_current_wal_insert_lsn() - '0/0'");
	for (int i = 0; i < times; i++)
		db_command(conn, "%s", sql);
	return (double) (db_number(conn, "SELECT pg_current_wal_insert_lsn() - '0/0'") - before) /
		(double) times / (double) messages;
}

void
bench_wal(const Settings *settings)
{
	PGconn	   *conn = db_connect("bench wal");

	(void) settings;
	db_command(conn, "SET synchronous_commit = off");
	db_command(conn, "CREATE TABLE bench_wal_plain (id bigint GENERATED ALWAYS AS IDENTITY"
			   " PRIMARY KEY, \"timestamp\" timestamptz DEFAULT now(), key text, value text)");
	db_command(conn, "SELECT create_topic('bench_wal')");
	result("wal", "INSERT of a row", 1,
		   wal(conn, "INSERT INTO bench_wal_plain (key, value) VALUES ('42', repeat('x', 100))", 3000, 1));
	result("wal", "produce", 1,
		   wal(conn, "SELECT produce('bench_wal', repeat('x', 100), key => '42')", 3000, 1));
	result("wal", "INSERT of 1000 rows", 1,
		   wal(conn, "INSERT INTO bench_wal_plain (key, value) SELECT '42', repeat('x', 100)"
			   " FROM generate_series(1, 1000)", 50, 1000));
	result("wal", "produce_batch of 1000, no keys", 1,
		   wal(conn, "SELECT produce_batch('bench_wal', array(SELECT left(string_agg(md5(i::text || j), ''), 100)"
			   " FROM generate_series(1, 1000) i, generate_series(1, 4) j GROUP BY i))", 50, 1000));
	result("wal", "produce_batch of 1000, with keys", 1,
		   wal(conn, "SELECT produce_batch('bench_wal', array(SELECT left(string_agg(md5(i::text || j), ''), 100)"
			   " FROM generate_series(1, 1000) i, generate_series(1, 4) j GROUP BY i),"
			   " keys => array(SELECT i::text FROM generate_series(1, 1000) i))", 50, 1000));
	db_command(conn, "SELECT drop_topic('bench_wal')");
	db_command(conn, "DROP TABLE bench_wal_plain");
	PQfinish(conn);
}
