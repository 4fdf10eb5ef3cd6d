/*
 * final.c
 *		After everything else, and one more crash: the whole log and all effects,
 *		into the history.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 2000

/* One value of a question to one broker, "" if there is no answer; to be freed. */
static char *
ask(Client *c, int broker, const char *sql, const char *param)
{
	const char *params[1] = {param};
	char	   *answer = NULL;
	Outcome		out;
	PGresult   *res;

	if (!client_connect_to(c, broker))
		return strdup("");
	res = client_exec(c, &out, sql, param ? 1 : 0, params);
	if (out == OUT_OK && PQntuples(res) == 1)
		answer = strdup(PQgetvalue(res, 0, 0));
	PQclear(res);
	return answer ? answer : strdup("");
}

/*
 * No session of some roles is left in the servers: one whose client is gone may
 * still be at its commit.  "roles" are the first letters of their names.
 */
bool
sessions_gone(Client *c, const char *roles)
{
	bool		gone = true;
	char		pattern[32];

	snprintf(pattern, sizeof(pattern), "^[%s][0-9]+$", roles);
	for (int b = 0; b < c->opt->brokers && gone; b++)
	{
		char	   *answer = ask(c, b, "SELECT count(*) FROM pg_stat_activity"
								 " WHERE application_name ~ $1", pattern);

		gone = strcmp(answer, "0") == 0;
		free(answer);
	}
	return gone;
}

/*
 * Wait until all brokers agree on the leaders and all replicas are in sync.  False if
 * they are not after so many seconds.
 */
bool
wait_in_sync(Client *c, int seconds)
{
	int64_t		deadline = now_us() + seconds * INT64_C(1000000);
	bool		good = false;

	while (in_cluster(c) && !good && now_us() < deadline && !is_stopping(c))
	{
		char	   *first = NULL;

		good = true;
		for (int b = 0; b < c->opt->brokers && good; b++)
		{
			char	   *answer = ask(c, b, "SELECT CASE WHEN bool_and(leader IS NOT NULL AND replicas <@ isr)"
									 " THEN string_agg(concat_ws(' ', topic, partition, leader, leader_epoch, replicas), ',' ORDER BY topic::text, partition) END"
									 " FROM partition_status", NULL);

			good = *answer != '\0' && (first == NULL || strcmp(first, answer) == 0);
			if (first == NULL)
				first = answer;
			else
				free(answer);
		}
		free(first);
		if (!good)
			nap_ms(100);
	}
	c->pinned = false;
	return good || !in_cluster(c);
}

/* One partition, page by page, from its start to its end. */
static bool
read_partition(Client *c, const char *topic, const char *partition, long long from)
{
	int			messages;

	do
	{
		char		from_text[24];
		char		page_text[16];
		const char *params[4] = {topic, partition, from_text, page_text};
		Outcome		out;
		PGresult   *res;
		char	   *line;
		size_t		len;
		FILE	   *list;
		char		id[40];

		snprintf(from_text, sizeof(from_text), "%lld", from);
		snprintf(page_text, sizeof(page_text), "%d", PAGE);
		res = client_exec(c, &out, "SELECT log_offset, value, key"
						  " FROM fetch_messages($1, $2::int, $3::bigint, $4::int)", 4, params);
		if (out != OUT_OK)
			return false;
		messages = PQntuples(res);
		list = open_memstream(&line, &len);
		for (int i = 0; i < messages; i++)
		{
			if (!value_ok(PQgetvalue(res, i, 1),
						  PQgetisnull(res, i, 2) ? NULL : PQgetvalue(res, i, 2),
						  id, sizeof(id)))
				record(c, "corrupt", "%s\t%s\t%s\t%s", topic, partition,
					   PQgetvalue(res, i, 0), id);
			fprintf(list, "\t%s=%s", PQgetvalue(res, i, 0), id);
			from = atoll(PQgetvalue(res, i, 0)) + 1;
		}
		fclose(list);
		if (messages > 0)
			record(c, "log", "%s\t%s%s", topic, partition, line);
		free(line);
		PQclear(res);
	} while (messages > 0);
	return true;
}

/* The partitions that a broker leads: their bounds, or their messages. */
static bool
read_partitions(Client *c, int broker, bool messages)
{
	char		number[16];
	const char *params[1] = {number};
	Outcome		out;
	PGresult   *res;
	bool		done = client_connect_to(c, broker);

	snprintf(number, sizeof(number), "%d", broker + 1);
	res = client_exec(c, &out, "SELECT topic::text, partition, log_start_offset,"
					  " high_watermark, log_end_offset FROM partition_status"
					  " WHERE topic::text IN ('" MAIN_TOPIC "', '" DERIVED_TOPIC "') AND leader = $1::int"
					  " ORDER BY 1, 2", 1, params);
	if (out != OUT_OK)
		return false;
	for (int i = 0; i < PQntuples(res) && done; i++)
	{
		if (messages)
			/* any broker gives any partition */
			done = client_connect_to(c, rnd_below(c, c->opt->brokers)) &&
				read_partition(c, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1), atoll(PQgetvalue(res, i, 2)));
		else
			record(c, "bounds", "%s\t%s\t%s\t%s\t%s", PQgetvalue(res, i, 0),
				   PQgetvalue(res, i, 1), PQgetvalue(res, i, 2), PQgetvalue(res, i, 3),
				   PQgetvalue(res, i, 4));
	}
	PQclear(res);
	return done;
}

/* What a broker has in its tables, of each partition that it has a replica of. */
static bool
read_copies(Client *c, int broker)
{
	char		number[16];
	const char *params[1] = {number};
	Outcome		out;
	PGresult   *res;

	snprintf(number, sizeof(number), "%d", broker + 1);
	if (!client_connect_to(c, broker))
		return false;
	res = client_exec(c, &out, "SELECT p.topic_id, t.name, p.partition FROM pgtopic.partition p JOIN pgtopic.topic t ON t.id = p.topic_id"
					  " WHERE t.name IN ('" MAIN_TOPIC "', '" DERIVED_TOPIC "') AND $1::int = ANY (p.replicas)", 1, params);
	for (int i = 0; out == OUT_OK && i < PQntuples(res); i++)
	{
		char		sql[500];
		PGresult   *rows;
		char	   *line;
		size_t		len;
		FILE	   *list = open_memstream(&line, &len);

		snprintf(sql, sizeof(sql), "SELECT base_offset + n - 1, split_part(convert_from(value, 'UTF8'), '|', 1)"
				 " FROM pgtopic.t%s_p%s, unnest(\"values\") WITH ORDINALITY v (value, n) ORDER BY 1",
				 PQgetvalue(res, i, 0), PQgetvalue(res, i, 2));
		rows = client_exec(c, &out, sql, 0, NULL);
		for (int row = 0; out == OUT_OK && row < PQntuples(rows); row++)
			fprintf(list, "\t%s=%s", PQgetvalue(rows, row, 0), PQgetvalue(rows, row, 1));
		fclose(list);
		if (out == OUT_OK)
			record(c, "copy", "%d\t%s\t%s%s", broker + 1, PQgetvalue(res, i, 1), PQgetvalue(res, i, 2), line);
		free(line);
		PQclear(rows);
	}
	PQclear(res);
	return out == OUT_OK;
}

/* In the order in which they were written. */
static bool
read_effects(Client *c)
{
	long long	after = 0;
	int			rows;

	do
	{
		char		after_text[24];
		const char *params[1] = {after_text};
		Outcome		out;
		PGresult   *res;

		snprintf(after_text, sizeof(after_text), "%lld", after);
		res = client_exec(c, &out, "SELECT seq, consumer_group, topic, partition, log_offset, id, txn, led"
						  " FROM checker.effects WHERE seq > $1::bigint ORDER BY seq LIMIT 20000",
						  1, params);
		if (out != OUT_OK)
			return false;
		rows = PQntuples(res);
		for (int i = 0; i < rows; i++)
		{
			record(c, "effect", "%s\t%s\t%s\t%s\t%s\t%s\t%s", PQgetvalue(res, i, 1),
				   PQgetvalue(res, i, 2), PQgetvalue(res, i, 3), PQgetvalue(res, i, 4),
				   PQgetvalue(res, i, 5), PQgetvalue(res, i, 6), PQgetvalue(res, i, 7));
			after = atoll(PQgetvalue(res, i, 0));
		}
		PQclear(res);
	} while (rows > 0);
	return true;
}

static bool
in_sync_or_stuck(Client *c)
{
	if (wait_in_sync(c, 90))
		return true;
	if (!is_stopping(c))
		record(c, "stuck", "not all replicas are in sync in the end");
	return false;
}

bool
final_read(Client *c)
{
	int			n = c->opt->brokers;
	bool		done = in_sync_or_stuck(c);

	for (int b = 0; b < n; b++)
		done = done && read_partitions(c, b, false);
	if (done && c->opt->nemesis)
	{
		crash_servers(c);
		done = in_sync_or_stuck(c);
	}
	for (int b = 0; b < n; b++)
		done = done && read_partitions(c, b, true);
	for (int b = 0; b < n; b++)
		done = done && client_connect_to(c, b) && read_effects(c) &&
			(!in_cluster(c) || read_copies(c, b));
	if (done)
		record(c, "complete", "-");
	client_disconnect(c);
	return done;
}
