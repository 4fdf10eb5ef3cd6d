/*
 * fetcher.c
 *		Readers that follow partitions with fetch_messages(), each from the offset
 *		after the last that it saw, and now and then look back, or SELECT from the
 *		topic's relation.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PARTITIONS 16

typedef struct Tail
{
	const char *topic;
	int			partitions;		/* as far as known */
	long long	next[MAX_PARTITIONS];
	bool		at_end[MAX_PARTITIONS];
} Tail;

/* Partitions may have been added. */
static void
count_partitions(Client *c, Tail *tail, int only)
{
	const char *params[1] = {tail->topic};
	Outcome		out;
	PGresult   *res;

	res = client_exec(c, &out, "SELECT partitions FROM topic_status"
					  " WHERE topic::text = $1", 1, params);
	if (out == OUT_OK && PQntuples(res) == 1)
	{
		int			n = atoi(PQgetvalue(res, 0, 0));

		if (n > MAX_PARTITIONS)
			n = MAX_PARTITIONS;
		for (int p = tail->partitions; p < n; p++)
			if (only < 0 || p == only)
				record(c, "tail", "%s\t%d", tail->topic, p);
		if (n > tail->partitions)
			tail->partitions = n;
	}
	PQclear(res);
}

/*
 * One fetch.  Everything that is returned is recorded, with where the fetch
 * began: it must be exactly what the log has from there on.
 */
static Outcome
fetch(Client *c, const char *topic, int partition, long long from,
	  int max_messages, const char *max_wait, long long *next, int *messages)
{
	char		partition_text[16];
	char		from_text[24];
	char		max_text[16];
	const char *params[5] = {topic, partition_text, from_text, max_text, max_wait};
	Outcome		out;
	PGresult   *res;

	snprintf(partition_text, sizeof(partition_text), "%d", partition);
	snprintf(from_text, sizeof(from_text), "%lld", from);
	snprintf(max_text, sizeof(max_text), "%d", max_messages);
	*messages = 0;
	res = client_exec(c, &out, "SELECT partition, log_offset, value, key"
					  " FROM fetch_messages($1, $2::int, $3::bigint, max_messages => $4::int,"
					  " max_wait => $5::interval)", 5, params);
	if (out == OUT_OK && PQntuples(res) > 0)
	{
		char	   *line;
		size_t		len;
		FILE	   *list = open_memstream(&line, &len);
		char		id[40];

		*messages = PQntuples(res);
		for (int i = 0; i < *messages; i++)
		{
			if (!value_ok(PQgetvalue(res, i, 2),
						  PQgetisnull(res, i, 3) ? NULL : PQgetvalue(res, i, 3),
						  id, sizeof(id)) ||
				atoi(PQgetvalue(res, i, 0)) != partition)
				record(c, "corrupt", "%s\t%d\t%s\t%s", topic, partition,
					   PQgetvalue(res, i, 1), id);
			fprintf(list, "\t%s=%s", PQgetvalue(res, i, 1), id);
		}
		fclose(list);
		record(c, "seen", "%s\t%d\t%lld%s", topic, partition, from, line);
		free(line);
		if (next)
			*next = atoll(PQgetvalue(res, *messages - 1, 1)) + 1;
	}
	PQclear(res);
	return out;
}

/*
 * A SELECT of some offsets, from either end.  What is recorded begins with the time
 * before it: all that was acknowledged then is there.
 */
static void
select_some(Client *c, const char *topic, int partition, long long from, long long to)
{
	char		partition_text[16];
	char		from_text[24];
	char		to_text[24];
	const char *params[3] = {partition_text, from_text, to_text};
	const char *direction = chance(c, 50) ? "asc" : "desc";
	char		sql[256];
	long long	started = (long long) now_us();
	Outcome		out;
	PGresult   *res;

	snprintf(partition_text, sizeof(partition_text), "%d", partition);
	snprintf(from_text, sizeof(from_text), "%lld", from);
	snprintf(to_text, sizeof(to_text), "%lld", to);
	snprintf(sql, sizeof(sql), "SELECT log_offset, value, key FROM topics.\"%s\" WHERE partition = $1::int"
			 " AND log_offset >= $2::bigint AND log_offset < $3::bigint ORDER BY log_offset %s", topic, direction);
	res = client_exec(c, &out, sql, 3, params);
	if (out == OUT_OK)
	{
		char	   *line;
		size_t		len;
		FILE	   *list = open_memstream(&line, &len);
		char		id[40];

		for (int i = 0; i < PQntuples(res); i++)
		{
			if (!value_ok(PQgetvalue(res, i, 1), PQgetisnull(res, i, 2) ? NULL : PQgetvalue(res, i, 2),
						  id, sizeof(id)))
				record(c, "corrupt", "%s\t%d\t%s\t%s", topic, partition, PQgetvalue(res, i, 0), id);
			fprintf(list, "\t%s=%s", PQgetvalue(res, i, 0), id);
		}
		fclose(list);
		record(c, "selected", "%s\t%d\t%lld\t%lld\t%lld\t%s%s", topic, partition, started, from, to,
			   direction, line);
		free(line);
	}
	PQclear(res);
}

/* Read on at the tail of one partition. */
static Outcome
fetch_tail(Client *c, Tail *tail, int partition, const char *max_wait)
{
	bool		draining = c->shared->phase >= PHASE_DRAIN;
	int			max_messages = chance(c, 20) ? 1 + rnd_below(c, 10) : 500;
	int			messages;
	Outcome		out;

	out = fetch(c, tail->topic, partition, tail->next[partition], max_messages,
				max_wait, &tail->next[partition], &messages);
	tail->at_end[partition] = out == OUT_OK && messages == 0 && draining;
	return out;
}

static bool
all_at_end(Tail *tail, int from, int to)
{
	for (int p = from; p < to; p++)
		if (!tail->at_end[p])
			return false;
	return true;
}

/*
 * The kinds of fetcher: one that looks at all partitions in turn, one that
 * waits long at a single partition, one for the derived topic, one that fetches
 * several times within a transaction.
 */
void
run_fetcher(Client *c, int number)
{
	Tail		tail = {.topic = number % 4 == 2 ? DERIVED_TOPIC : MAIN_TOPIC};
	bool		single = number % 4 == 1;
	bool		transactions = number % 4 == 3;
	bool		counted = false;
	int			p = 0;

	while (client_connect(c))
	{
		bool		draining = c->shared->phase >= PHASE_DRAIN;
		const char *max_wait = draining ? "0" : single ? "2s" :
			chance(c, 50) ? "30ms" : "0";
		int			first = single ? number % 4 : 0;
		int			last = single ? first + 1 : tail.partitions;

		if ((draining && !counted) || tail.partitions == 0 || chance(c, 2))
		{
			count_partitions(c, &tail, single ? number % 4 : -1);
			counted = draining && c->conn != NULL;
			continue;
		}
		if (draining && all_at_end(&tail, first, last))
			break;

		if (++p >= last || p < first)
			p = first;
		if (transactions && chance(c, 50))
		{
			char		isolation[32];
			Outcome		out = OUT_OK;

			if (!begin_random(c, isolation, sizeof(isolation)))
				continue;
			for (int i = rnd_below(c, 6); i > 0 && out == OUT_OK; i--)
				out = fetch_tail(c, &tail, rnd_below(c, tail.partitions), max_wait);
			if (c->conn != NULL)
				client_command(c, chance(c, 50) && out == OUT_OK ? "COMMIT" : "ROLLBACK");
		}
		else if (tail.next[p] > 0 && chance(c, 10))
		{
			/* look back: from the middle of a batch, from a gap */
			long long	from = (long long) (rnd(c) % (uint64_t) tail.next[p]);
			int			messages;

			fetch(c, tail.topic, p, from, 1 + rnd_below(c, 300), "0", NULL, &messages);
		}
		else if (chance(c, 10))
		{
			/* what is new, or anything */
			long long	from = chance(c, 50) || tail.next[p] == 0 ? tail.next[p] :
				(long long) (rnd(c) % (uint64_t) tail.next[p]);

			select_some(c, tail.topic, p, from, from + 1 + rnd_below(c, 300));
		}
		else
			fetch_tail(c, &tail, p, max_wait);
		client_wander(c);
		if (!draining && !single)
			nap_ms(rnd_below(c, 15));
	}
	client_disconnect(c);
}
