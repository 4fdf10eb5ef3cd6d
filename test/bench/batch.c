/*
 * batch.c
 *		produce_batch() against COPY BINARY of 8 kB rows into a bare table, in
 *		transactions of the same size, one session.
 */
#include "bench.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROW				8100	/* as much as fits in a page */
#define TXN_BYTES		(10 * 1000 * 1000)
#define ARRAYS			8

static void
check(PGconn *conn, PGresult *res, ExecStatusType expected)
{
	if (PQresultStatus(res) != expected)
	{
		fprintf(stderr, "bench: %s", PQerrorMessage(conn));
		exit(1);
	}
	PQclear(res);
}

/* COPY statements of TXN_BYTES each, until there are so many bytes. */
static Timing
copy(PGconn *conn, long long bytes)
{
	static const char header[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0";	/* and its last zero */
	char	   *rows[ARRAYS];
	Timing		start;
	uint16_t	fields = htons(1);
	uint16_t	trailer = htons(0xffff);
	uint32_t	length = htonl(ROW);

	for (int i = 0; i < ARRAYS; i++)
	{
		rows[i] = malloc(6 + ROW);
		if (rows[i] == NULL)
			abort();
		memcpy(rows[i], &fields, 2);
		memcpy(rows[i] + 2, &length, 4);
		random_text(rows[i] + 6, ROW);
	}
	start = timing_start(conn);
	for (long long done = 0, n = 0; done < bytes;)
	{
		PQclear(db_query(conn, "COPY bench_bare FROM STDIN (FORMAT binary)"));
		if (PQputCopyData(conn, header, sizeof(header)) != 1)
			abort();
		for (long long in_txn = 0; in_txn < TXN_BYTES; in_txn += ROW, done += ROW)
			if (PQputCopyData(conn, rows[n++ % ARRAYS], 6 + ROW) != 1)
				abort();
		if (PQputCopyData(conn, (char *) &trailer, 2) != 1 || PQputCopyEnd(conn, NULL) != 1)
			abort();
		check(conn, PQgetResult(conn), PGRES_COMMAND_OK);
		PQclear(PQgetResult(conn));
	}
	start = timing_end(conn, start);
	for (int i = 0; i < ARRAYS; i++)
		free(rows[i]);
	return start;
}

/* produce_batch() calls, so many bytes of them to a transaction. */
static Timing
produce(PGconn *conn, long long bytes, long long txn_bytes)
{
	char	   *arrays[ARRAYS];
	int			lens[ARRAYS];
	Timing		start;
	long long	n = 0;

	for (int i = 0; i < ARRAYS; i++)
		arrays[i] = text_array(BATCH, PAYLOAD, &lens[i]);
	start = timing_start(conn);
	for (long long done = 0; done < bytes;)
	{
		bool		several = txn_bytes > BATCH * PAYLOAD;

		if (several)
			db_command(conn, "BEGIN");
		for (long long in_txn = 0; in_txn < txn_bytes; in_txn += BATCH * PAYLOAD, n++)
		{
			const char *values[1] = {arrays[n % ARRAYS]};
			int			lengths[1] = {lens[n % ARRAYS]};
			int			formats[1] = {1};

			check(conn, PQexecPrepared(conn, "produce_batch", 1, values, lengths, formats, 1),
				  PGRES_TUPLES_OK);
			done += BATCH * PAYLOAD;
		}
		if (several)
			db_command(conn, "COMMIT");
	}
	start = timing_end(conn, start);
	for (int i = 0; i < ARRAYS; i++)
		free(arrays[i]);
	return start;
}

/* The same, with the array made inside the server once. */
static Timing
produce_inside(PGconn *conn, long long bytes)
{
	Timing		start = timing_start(conn);

	for (long long done = 0; done < bytes; done += TXN_BYTES)
		db_command(conn, "DO $$ DECLARE\n"
				   "	v text[] := array(SELECT left(string_agg(md5(i::text || j), ''), %d)\n"
				   "		FROM generate_series(1, %d) i, generate_series(1, 4) j GROUP BY i);\n"
				   "BEGIN\n"
				   "	FOR i IN 1 .. %d LOOP PERFORM produce_batch('bench_batch', v); END LOOP;\n"
				   "END $$", PAYLOAD, BATCH, TXN_BYTES / (BATCH * PAYLOAD));
	return timing_end(conn, start);
}

static void
report(const char *variant, int round, long long bytes, Timing timing)
{
	result("batch", variant, round, (double) bytes / timing.wall / 1e6);
	if (timing.cpu > 0)
		result("batch-cpu", variant, round, (double) bytes / timing.cpu / 1e6);
}

void
bench_batch(const Settings *settings)
{
	PGconn	   *conn = db_connect("bench batch");
	long long	bytes = settings->quick ? 50000000 : 300000000;

	db_command(conn, "CREATE TABLE bench_bare (v bytea)");
	db_command(conn, "ALTER TABLE bench_bare ALTER v SET STORAGE plain");
	for (int round = 0; round <= settings->rounds; round++)
	{
		/* the round that warms up is number 0, and short */
		long long	n = round == 0 ? bytes / 10 : bytes;
		Timing		timing;

		db_command(conn, "CHECKPOINT");
		timing = copy(conn, n);
		if (round > 0)
			report("COPY", round, n, timing);
		db_command(conn, "TRUNCATE bench_bare");

		db_command(conn, "SELECT create_topic('bench_batch')");
		db_prepare(conn, "produce_batch",
				   "SELECT * FROM produce_batch('bench_batch', $1::text[])");
		db_command(conn, "CHECKPOINT");
		timing = produce(conn, n, TXN_BYTES);
		if (round > 0)
			report("produce_batch", round, n, timing);
		db_command(conn, "CHECKPOINT");
		timing = produce(conn, n / 3, BATCH * PAYLOAD);
		if (round > 0)
			report("produce_batch, each a transaction", round, n / 3, timing);
		db_command(conn, "CHECKPOINT");
		timing = produce_inside(conn, n / 3);
		if (round > 0)
			report("produce_batch, array made in the server", round, n / 3, timing);
		db_command(conn, "DEALLOCATE produce_batch");
		db_command(conn, "SELECT drop_topic('bench_batch')");
	}
	db_command(conn, "DROP TABLE bench_bare");
	PQfinish(conn);
}
