/*
 * bench.h
 *		Benchmarks that pgbench cannot do.  Each prints one line for each
 *		measurement: measure, variant, round, value; report.pl makes a table of them.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#define PAYLOAD			100		/* bytes of a message's value */
#define BATCH			1000	/* messages of a batch */

typedef struct Settings
{
	int			rounds;
	bool		quick;
} Settings;

/* What a piece of work took: by the clock, and on the CPU in the server process. */
typedef struct Timing
{
	double		wall;			/* seconds */
	double		cpu;
} Timing;

extern PGconn *db_connect(const char *name);
extern PGconn *db_connect_to(const char *conninfo, const char *name);
extern PGresult *db_query(PGconn *conn, const char *sql);
extern void db_command(PGconn *conn, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));
extern long long db_number(PGconn *conn, const char *fmt,...)
			__attribute__((format(printf, 2, 3)));
extern void db_prepare(PGconn *conn, const char *name, const char *sql);

extern double now(void);
extern void nap_us(long us);
extern Timing timing_start(PGconn *conn);
extern Timing timing_end(PGconn *conn, Timing start);

extern uint64_t next_random(void);
extern void random_text(char *to, int len);
extern char *text_array(int n, int size, int *len);
extern void load_batches(PGconn *conn, const char *topic, long long messages);

extern void result(const char *measure, const char *variant, int round, double value);

extern void bench_batch(const Settings *settings);
extern void bench_read(const Settings *settings);
extern void bench_latency(const Settings *settings);
extern void bench_cost(const Settings *settings);
extern void bench_wal(const Settings *settings);
extern void bench_cluster_batch(const Settings *settings);
extern void bench_cluster_single(const Settings *settings);
extern void bench_failover(const Settings *settings);

#endif							/* BENCH_H */
