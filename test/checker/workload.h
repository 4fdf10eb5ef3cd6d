/*
 * workload.h
 *		The load that the history checker judges: processes that produce, consume
 *		and fetch, one that breaks things, and one history file for each.  All of it
 *		works with one server, and with the brokers of a cluster.
 *
 * README.md describes the history format and the anomalies.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <libpq-fe.h>

#define MAIN_TOPIC		"checker.events"
#define DERIVED_TOPIC	"checker.derived"

/* A server that does not answer for this long counts as stuck, in ms. */
#define STUCK_AFTER		60000

/* What the processes share: the parent moves the phase on, the others follow. */
typedef enum Phase
{
	PHASE_RUN,					/* everything, with faults */
	PHASE_CALM,					/* everything, no more faults */
	PHASE_DRAIN_PIPES,			/* producers have stopped */
	PHASE_DRAIN,				/* pipes have stopped too: read to the end */
	PHASE_STOP					/* give up: something is stuck */
} Phase;

typedef struct Shared
{
	volatile Phase phase;
} Shared;

/* A server; its folder has its socket, log, and what else run.sh puts there. */
typedef struct Broker
{
	char		datadir[400];
	char		folder[400];	/* also what to connect to */
	char		port[16];
} Broker;

#define MAX_BROKERS		8

typedef struct Options
{
	const char *dir;			/* where the histories go */
	const char *bindir;
	const char *proxies;		/* the socket of proxies.pl; NULL: none */
	const char *shim;			/* the library of shim.c; NULL: none */
	Broker		broker[MAX_BROKERS];	/* number n of the cluster is broker[n - 1] */
	int			brokers;
	double		duration;
	uint64_t	seed;
	int			producers;
	int			numbered;		/* producers that number their messages */
	int			consumers;		/* of each of the two groups */
	int			pipes;
	int			fetchers;
	bool		nemesis;
} Options;

typedef struct Client
{
	char		name[16];
	FILE	   *hist;
	PGconn	   *conn;
	int			broker;			/* index of the one that it is, or tries to be, connected to */
	bool		pinned;			/* it does not go to another one */
	int			deadline;		/* ms until it goes, if there is no answer; 0: stays */
	int			unhappy;		/* errors of this broker that another might not give */
	bool		warned;			/* the transaction may not be what COMMIT says */
	char		sqlstate[6];	/* of the last error */
	uint64_t	rng;
	Shared	   *shared;
	const Options *opt;
	long		next_txn;
	long		next_id;
} Client;

/* How a statement ended, as far as the client can know. */
typedef enum Outcome
{
	OUT_OK,						/* the server said so */
	OUT_FAILED,					/* the server said ERROR; the connection goes on */
	OUT_LOST					/* no answer: the connection is gone */
} Outcome;

/* history.c */
extern uint64_t rnd(Client *c);
extern int	rnd_below(Client *c, int n);
extern bool chance(Client *c, int percent);
extern int64_t now_us(void);
extern void nap_ms(int ms);
extern void record(Client *c, const char *event, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));
extern void client_init(Client *c, const Options *opt, Shared *shared,
						const char *name, int number);
extern char *make_value(const char *id, const char *key, int pad);
extern bool value_ok(const char *value, const char *key, char *id, size_t idlen);

/* client.c */
extern bool in_cluster(const Client *c);
extern bool client_connect(Client *c);
extern bool client_connect_to(Client *c, int broker);
extern void client_disconnect(Client *c);
extern void client_wander(Client *c);
extern PGresult *client_exec(Client *c, Outcome *out, const char *sql,
							 int nparams, const char *const *params);
extern Outcome client_command(Client *c, const char *sql);
extern bool is_stopping(Client *c);
extern bool begin_random(Client *c, char *isolation, size_t len);

/* producer.c: what a pipe needs of it too */
typedef struct ProducerTxn
{
	char		id[48];
	int			calls;			/* numbered from 1 */
} ProducerTxn;

extern void txn_start(Client *c, ProducerTxn *txn, const char *mode);
extern void txn_outcome(Client *c, ProducerTxn *txn, Outcome out);
extern Outcome produce_one(Client *c, ProducerTxn *txn, const char *topic);
extern Outcome produce_many(Client *c, ProducerTxn *txn, const char *topic, int n);
extern void txn_commit(Client *c, ProducerTxn *txn);
extern void txn_rollback(Client *c, ProducerTxn *txn);
extern void txn_broken(Client *c, ProducerTxn *txn, Outcome out);

/* The roles; each runs in a process of its own until its phase is over. */
extern void run_producer(Client *c, bool holder);
extern void run_numbered(Client *c);
extern void run_consumer(Client *c, const char *group);
extern void run_pipe(Client *c);
extern void run_fetcher(Client *c, int number);
extern void run_nemesis(Client *c, double seconds);
extern void crash_servers(Client *c);

/* consumer.c, final.c */
extern bool drain_group(Client *c, const char *group, const char *topic);
extern bool sessions_gone(Client *c, const char *roles);
extern bool wait_in_sync(Client *c, int seconds);
extern bool final_read(Client *c);

#endif							/* WORKLOAD_H */
