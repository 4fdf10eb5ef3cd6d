/*
 * sim.h
 *		What the simulations share: a seed that decides everything, simulated time, a
 *		log of what has happened, hosts that crash and come back, and a network that
 *		loses, delays and repeats messages and can be cut.
 *
 *		Whoever includes it has defined BROKERS_MAX, and declared Message, which begins
 *		with from, to and arrives.  Brokers have numbers from 1 on.
 *
 *		PGTOPIC_SEEDS		how many seeds
 *		PGTOPIC_FIRST_SEED	the first one (1)
 *		PGTOPIC_EVENTS		how many of the last events a failure prints (80)
 *		PGTOPIC_STOP		fails at this time, so that the events before are printed
 */
#ifndef SIM_H
#define SIM_H

#include <setjmp.h>

/* How bad the network is, in thousandths. */
typedef struct NetworkFaults
{
	uint32		lose;
	uint32		repeat;
	uint32		late;
	int			late_time;		/* how late, at most */
} NetworkFaults;

typedef struct SimEvent
{
	int64		time;
	const char *what;
	int			broker;
	int64		a;
	int64		b;
	int64		c;
} SimEvent;

/* What a broker runs on. */
typedef struct Host
{
	bool		up;
	int64		restart_at;
} Host;

#define EVENTS_MAX		8192
#define MESSAGES_MAX	2048

static uint64 random_state;
static int64 now;				/* ms */
static bool quiet;				/* no more faults */
static NetworkFaults network;
static bool cut[BROKERS_MAX + 1][BROKERS_MAX + 1];	/* from, to */
static Message messages[MESSAGES_MAX];
static int	messages_count;
static SimEvent events[EVENTS_MAX];
static int	events_count;
static const char *failure;
static jmp_buf failed;
static int64 stop_at = 0;

/* --- chance --- */

static inline uint32
random_below(uint32 bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32) (random_state >> 32) % bound;
}

/* In so many of a thousand cases. */
static inline bool
chance(uint32 thousandths)
{
	return random_below(1000) < thousandths;
}

/* The same, but not any more when there are no faults. */
static inline bool
mishap(uint32 thousandths)
{
	return !quiet && chance(thousandths);
}

/* --- what has happened --- */

static inline void
event(const char *what, int broker, int64 a, int64 b, int64 c)
{
	events[events_count++ % EVENTS_MAX] = (SimEvent) {now, what, broker, a, b, c};
}

/* Ends the run if something is not as it always has to be. */
static inline void
require(bool condition, const char *what)
{
	if (!condition)
	{
		failure = what;
		longjmp(failed, 1);
	}
}

/* Another ms. */
static inline void
sim_tick(void)
{
	require(++now != stop_at, "the run is to go on");
}

/* --- hosts --- */

/* It comes back soon, mostly. */
static inline void
host_crash(Host *host)
{
	host->up = false;
	host->restart_at = now + 1 + random_below(chance(300) ? 300 : 30);
}

static inline bool
host_is_due(const Host *host)
{
	return !host->up && (quiet || now >= host->restart_at);
}

/* --- the network --- */

static inline bool
is_linked(int from, int to)
{
	return !cut[from][to];
}

/* once: it comes there once at most, as what goes over a connection does. */
static inline void
network_send(Message message, bool once)
{
	if (!is_linked(message.from, message.to) || mishap(network.lose))
		return;
	do
	{
		if (messages_count == MESSAGES_MAX)
			return;
		message.arrives = now + 1 + random_below(4);
		if (mishap(network.late))
			message.arrives += random_below(network.late_time);
		messages[messages_count++] = message;
	} while (!once && mishap(network.repeat));
}

/*
 * Gives what has come there to deliver().  What comes to somebody who does not look
 * now (NULL: everybody does) waits.
 */
static inline void
network_deliver(void (*deliver) (const Message *message), bool (*looks) (int broker))
{
	for (int i = 0; i < messages_count;)
	{
		Message		message = messages[i];

		if (message.arrives > now || (looks != NULL && !looks(message.to)))
		{
			i++;
			continue;
		}
		/* the last takes its place, which changes the order too */
		messages[i] = messages[--messages_count];
		if (is_linked(message.from, message.to))
			deliver(&message);
	}
}

/* Cuts some off from others, in one or both directions, or ends all that. */
static inline void
network_cut_some(int brokers)
{
	int			a = 1 + random_below(brokers);
	int			b = 1 + random_below(brokers);

	if (chance(400))
		memset(cut, 0, sizeof(cut));
	else if (chance(500))
	{
		/* one from all others */
		for (int i = 1; i <= brokers; i++)
		{
			if (i != a)
				cut[a][i] = cut[i][a] = true;
		}
	}
	else if (a != b)
	{
		cut[a][b] = true;
		if (chance(700))
			cut[b][a] = true;
	}
}

/* --- a run for each seed --- */

static inline void
sim_begin(uint64 seed)
{
	random_state = (seed + 1) * 0x9E3779B97F4A7C15ULL;
	for (int i = 0; i < 8; i++)
		random_below(2);
	now = 0;
	quiet = false;
	failure = NULL;
	events_count = 0;
	messages_count = 0;
	memset(cut, 0, sizeof(cut));
}

static inline uint64
number_from_env(const char *name, uint64 otherwise)
{
	const char *value = getenv(name);

	return value == NULL ? otherwise : strtoull(value, NULL, 10);
}

static inline void
print_failure(uint64 seed)
{
	int			wanted = (int) number_from_env("PGTOPIC_EVENTS", 80);

	fprintf(stderr, "# seed " UINT64_FORMAT ", time " INT64_FORMAT ": not so: %s\n", seed, now, failure);
	for (int i = Max(0, events_count - Min(wanted, EVENTS_MAX)); i < events_count; i++)
	{
		const SimEvent *e = &events[i % EVENTS_MAX];

		fprintf(stderr, "# %6d: %d %s " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT "\n",
				(int) e->time, e->broker, e->what, e->a, e->b, e->c);
	}
}

/* Runs seeds one after the other; returns the one that fails, or what comes after them. */
static inline uint64
sim_run(void (*run) (uint64 seed), uint64 first, uint64 count)
{
	volatile uint64 seed;

	for (seed = first; seed < first + count; seed++)
	{
		if (setjmp(failed) != 0)
			break;
		run(seed);
	}
	return seed;
}

/* The same for the seeds that the environment asks for; true if none fails. */
static inline bool
sim_run_all(void (*run) (uint64 seed), uint64 count)
{
	uint64		first = number_from_env("PGTOPIC_FIRST_SEED", 1);
	uint64		seed;

	count = number_from_env("PGTOPIC_SEEDS", count);
	stop_at = number_from_env("PGTOPIC_STOP", 0);
	seed = sim_run(run, first, count);
	if (seed < first + count)
		print_failure(seed);
	return seed == first + count;
}

#endif							/* SIM_H */
