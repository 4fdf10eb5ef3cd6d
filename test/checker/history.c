/*
 * history.c
 *		Histories, random choices and message values.
 */
#include "workload.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* splitmix64 */
uint64_t
rnd(Client *c)
{
	uint64_t	z = (c->rng += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

int
rnd_below(Client *c, int n)
{
	return (int) (rnd(c) % (uint64_t) n);
}

bool
chance(Client *c, int percent)
{
	return rnd_below(c, 100) < percent;
}

int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void
nap_ms(int ms)
{
	struct timespec ts = {ms / 1000, (long) (ms % 1000) * 1000000};

	nanosleep(&ts, NULL);
}

/* One line of history: time, process, event, and the event's own fields. */
void
record(Client *c, const char *event, const char *fmt,...)
{
	va_list		ap;

	fprintf(c->hist, "%lld\t%s\t%s\t", (long long) now_us(), c->name, event);
	va_start(ap, fmt);
	vfprintf(c->hist, fmt, ap);
	va_end(ap);
	fputc('\n', c->hist);
	if (fflush(c->hist) != 0)
	{
		perror("cannot write the history");
		exit(2);
	}
}

void
client_init(Client *c, const Options *opt, Shared *shared, const char *name,
			int number)
{
	char		path[1024];

	memset(c, 0, sizeof(*c));
	if (number > 0)
		snprintf(c->name, sizeof(c->name), "%s%d", name, number);
	else
		snprintf(c->name, sizeof(c->name), "%s", name);
	c->opt = opt;
	c->shared = shared;
	c->rng = opt->seed * UINT64_C(1000003);
	for (const char *p = c->name; *p; p++)
		c->rng = (c->rng ^ (uint64_t) (unsigned char) *p) * UINT64_C(0x100000001b3);
	c->next_txn = 1;
	c->next_id = 1;
	c->broker = number % opt->brokers;

	snprintf(path, sizeof(path), "%s/%s.hist", opt->dir, c->name);
	c->hist = fopen(path, "w");
	if (c->hist == NULL)
	{
		perror(path);
		exit(2);
	}
}

/*
 * A value says which message it is, with which key it was sent and how much
 * padding follows: "id|key|length|padding".  The padding follows from the id,
 * so that a reader can verify every byte.
 */
static uint32_t
pad_start(const char *id)
{
	uint32_t	h = 2166136261u;

	for (; *id && *id != '|'; id++)
		h = (h ^ (unsigned char) *id) * 16777619u;
	return h;
}

static char
pad_char(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."[*state >> 26];
}

char *
make_value(const char *id, const char *key, int pad)
{
	char	   *value = malloc(strlen(id) + 64 + (size_t) pad);
	uint32_t	state = pad_start(id);
	char	   *p;

	if (value == NULL)
		abort();
	p = value + sprintf(value, "%s|%s|%d|", id, key ? key : "-", pad);
	while (pad-- > 0)
		*p++ = pad_char(&state);
	*p = '\0';
	return value;
}

/* Is the value whole, and does its key match?  Gives its id back. */
bool
value_ok(const char *value, const char *key, char *id, size_t idlen)
{
	const char *bar = strchr(value, '|');
	const char *bar2 = bar ? strchr(bar + 1, '|') : NULL;
	size_t		keylen;
	uint32_t	state;
	char	   *end;
	long		pad;

	snprintf(id, idlen, "%.*s", bar ? (int) (bar - value) : 20, value);
	if (bar2 == NULL)
		return false;
	keylen = (size_t) (bar2 - bar - 1);
	if (key == NULL ? !(keylen == 1 && bar[1] == '-')
		: !(keylen == strlen(key) && memcmp(bar + 1, key, keylen) == 0))
		return false;
	pad = strtol(bar2 + 1, &end, 10);
	if (*end++ != '|')
		return false;
	state = pad_start(id);
	while (pad-- > 0)
		if (*end++ != pad_char(&state))
			return false;
	return *end == '\0';
}
