/*
 * final.c
 *		After everything else, and one more crash: the whole log and all effects,
 *		into the history.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 2000

/*
 * No session of some roles is left in the server: one whose client is gone may
 * still be at its commit.  "roles" are the first letters of their names.
 */
bool
sessions_gone(Client *c, const char *roles)
{
	Outcome		out;
	PGresult   *res;
	bool		gone = false;
	char		pattern[32];
	const char *params[1] = {pattern};

	if (!client_connect(c))
		return false;
	snprintf(pattern, sizeof(pattern), "^[%s][0-9]+$", roles);
	res = client_exec(c, &out, "SELECT count(*) FROM pg_stat_activity"
					  " WHERE application_name ~ $1", 1, params);
	if (out == OUT_OK)
		gone = strcmp(PQgetvalue(res, 0, 0), "0") == 0;
	PQclear(res);
	return gone;
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

/* The partitions with their bounds, or their messages. */
static bool
read_partitions(Client *c, bool messages)
{
	Outcome		out;
	PGresult   *res;
	bool		done = true;

	res = client_exec(c, &out, "SELECT topic::text, partition, log_start_offset,"
					  " high_watermark, log_end_offset FROM partition_status"
					  " WHERE topic::text IN ('" MAIN_TOPIC "', '" DERIVED_TOPIC "')"
					  " ORDER BY 1, 2", 0, NULL);
	if (out != OUT_OK)
		return false;
	for (int i = 0; i < PQntuples(res) && done; i++)
	{
		if (messages)
			done = read_partition(c, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1),
							  atoll(PQgetvalue(res, i, 2)));
		else
			record(c, "bounds", "%s\t%s\t%s\t%s\t%s", PQgetvalue(res, i, 0),
			   PQgetvalue(res, i, 1), PQgetvalue(res, i, 2), PQgetvalue(res, i, 3),
			   PQgetvalue(res, i, 4));
	}
	done = done && PQntuples(res) > 0;
	PQclear(res);
	return done;
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
		res = client_exec(c, &out, "SELECT seq, consumer_group, topic, partition, log_offset, id, txn"
						  " FROM checker.effects WHERE seq > $1::bigint ORDER BY seq LIMIT 20000",
						  1, params);
		if (out != OUT_OK)
			return false;
		rows = PQntuples(res);
		for (int i = 0; i < rows; i++)
		{
			record(c, "effect", "%s\t%s\t%s\t%s\t%s\t%s", PQgetvalue(res, i, 1),
				   PQgetvalue(res, i, 2), PQgetvalue(res, i, 3), PQgetvalue(res, i, 4),
				   PQgetvalue(res, i, 5), PQgetvalue(res, i, 6));
			after = atoll(PQgetvalue(res, i, 0));
		}
		PQclear(res);
	} while (rows > 0);
	return true;
}

bool
final_read(Client *c)
{
	bool		done = client_connect(c) && read_partitions(c, false);

	if (done && c->opt->nemesis)
		crash_server(c);
	done = done && client_connect(c) && read_partitions(c, true) && read_effects(c);
	if (done)
		record(c, "complete", "-");
	client_disconnect(c);
	return done;
}
