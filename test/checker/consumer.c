/*
 * consumer.c
 *		Consumers of a group, which record what they consumed in the same
 *		transaction; and pipes, which also produce in it.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

#define POLL_COLUMNS "partition, log_offset, value, key"

/* Most polls are small and do not wait long. */
static void
random_limits(Client *c, char *max_messages, char *max_wait, size_t len)
{
	static const char *const waits[] = {"0", "0", "20ms", "200ms", "1s"};
	int			r = rnd_below(c, 100);

	snprintf(max_messages, len, "%d",
			 r < 30 ? 1 + rnd_below(c, 10) : r < 80 ? 1 + rnd_below(c, 200) : 1000);
	snprintf(max_wait, len, "%s", waits[rnd_below(c, 5)]);
}

/*
 * Record what a poll returned: partition, offset and id of each message, one
 * line for each run of messages of one partition.
 */
static void
record_poll(Client *c, ProducerTxn *txn, int call, const char *group,
			const char *topic, const PGresult *res)
{
	const char *current = NULL;
	char	   *line = NULL;
	size_t		len = 0;
	FILE	   *out = NULL;
	char		id[40];

	for (int i = 0; i <= PQntuples(res); i++)
	{
		const char *partition = i < PQntuples(res) ? PQgetvalue(res, i, 0) : NULL;

		if (out != NULL && (partition == NULL || strcmp(partition, current) != 0))
		{
			fclose(out);
			record(c, "poll", "%s\t%d\t%s\t%s\t%s%s", txn->id, call, group, topic,
				   current, line);
			free(line);
			out = NULL;
		}
		if (partition == NULL)
			break;
		if (out == NULL)
		{
			current = partition;
			out = open_memstream(&line, &len);
		}
		if (!value_ok(PQgetvalue(res, i, 2),
					  PQgetisnull(res, i, 3) ? NULL : PQgetvalue(res, i, 3),
					  id, sizeof(id)))
			record(c, "corrupt", "%s\t%s\t%s\t%s", topic, partition,
				   PQgetvalue(res, i, 1), id);
		fprintf(out, "\t%s=%s", PQgetvalue(res, i, 1), id);
	}
}

/* Notes who leads, as led_here() wants it; before each consume(). */
static Outcome
note_led(Client *c, const char *topic)
{
	const char *params[1] = {topic};
	Outcome		out;

	PQclear(client_exec(c, &out, "SELECT checker.note_led($1)", 1, params));
	return out;
}

/* consume() and the effects in one statement. */
static Outcome
consume_directly(Client *c, ProducerTxn *txn, const char *group,
				 const char *topic, int *messages)
{
	char		max_messages[16];
	char		max_wait[16];
	const char *params[5];
	Outcome		out;
	PGresult   *res;
	int			call = ++txn->calls;

	random_limits(c, max_messages, max_wait, sizeof(max_wait));
	params[0] = topic;
	params[1] = group;
	params[2] = max_messages;
	params[3] = max_wait;
	params[4] = txn->id;
	res = client_exec(c, &out,
					  "WITH polled AS MATERIALIZED (SELECT * FROM"
					  " consume($1::text::topic, $2::text, max_messages => $3::int, max_wait => $4::interval)),"
					  " led AS MATERIALIZED (SELECT partition, checker.led_here($1::text, partition) AS led"
					  " FROM (SELECT DISTINCT partition FROM polled) p),"
					  " m AS (INSERT INTO checker.effects"
					  " (consumer_group, topic, partition, log_offset, id, txn, led)"
					  " SELECT $2::text, $1::text, partition, log_offset, split_part(value, '|', 1), $5,"
					  " (SELECT led FROM led WHERE led.partition = polled.partition) FROM polled"
					  " RETURNING partition, log_offset, id)"
					  " SELECT partition, log_offset, id || '|-|0|', NULL FROM m",
					  5, params);
	if (out == OUT_OK)
	{
		*messages = PQntuples(res);
		record_poll(c, txn, call, group, topic, res);
	}
	PQclear(res);
	return out;
}

/* consume() to the client, which then writes the effects. */
static Outcome
consume_by_client(Client *c, ProducerTxn *txn, const char *group,
				  const char *topic, int *messages)
{
	char		max_messages[16];
	char		max_wait[16];
	const char *params[6];
	Outcome		out;
	PGresult   *res;
	int			call = ++txn->calls;
	char	   *lists[3] = {NULL, NULL, NULL};

	random_limits(c, max_messages, max_wait, sizeof(max_wait));
	params[0] = topic;
	params[1] = group;
	params[2] = max_messages;
	params[3] = max_wait;
	res = client_exec(c, &out, "SELECT " POLL_COLUMNS
					  " FROM consume($1, $2, max_messages => $3::int, max_wait => $4::interval)",
					  4, params);
	if (out != OUT_OK)
		return out;
	*messages = PQntuples(res);
	record_poll(c, txn, call, group, topic, res);
	if (PQntuples(res) == 0)
	{
		PQclear(res);
		return out;
	}

	for (int column = 0; column < 3; column++)
	{
		size_t		len;
		FILE	   *list = open_memstream(&lists[column], &len);

		for (int i = 0; i < PQntuples(res); i++)
		{
			const char *v = PQgetvalue(res, i, column);
			int			n = (int) strcspn(v, "|");

			fprintf(list, "%c%.*s", i == 0 ? '{' : ',', n, v);
		}
		fputc('}', list);
		fclose(list);
	}
	PQclear(res);
	params[2] = txn->id;
	params[3] = lists[0];
	params[4] = lists[1];
	params[5] = lists[2];
	PQclear(client_exec(c, &out,
						"INSERT INTO checker.effects"
						" (consumer_group, topic, partition, log_offset, id, txn, led)"
						" SELECT $2, $1, p, o, i, $3, CASE WHEN p = first THEN led ELSE checker.led_here($1, p) END"
						" FROM (SELECT f, checker.led_here($1, f) FROM (SELECT ($4::int[])[1] AS f) f) AS x (first, led), unnest($4::int[], $5::bigint[], $6::text[])"
						" WITH ORDINALITY AS u (p, o, i, n) ORDER BY n", 6, params));
	for (int column = 0; column < 3; column++)
		free(lists[column]);
	return out;
}

static Outcome
consume_somehow(Client *c, ProducerTxn *txn, const char *group,
				const char *topic, int *messages)
{
	Outcome		out = note_led(c, topic);

	if (out != OUT_OK)
		return out;
	if (chance(c, 50))
		return consume_directly(c, txn, group, topic, messages);
	return consume_by_client(c, txn, group, topic, messages);
}

/* Returns true if it learnt that there was nothing to consume. */
static bool
consume_autocommit(Client *c, const char *group, const char *topic)
{
	ProducerTxn txn;
	Outcome		out;
	int			messages = 0;

	if (note_led(c, topic) != OUT_OK)
		return false;
	txn_start(c, &txn, "autocommit");
	record(c, "commit", "%s", txn.id);
	out = consume_directly(c, &txn, group, topic, &messages);
	txn_outcome(c, &txn, out);
	return out == OUT_OK && messages == 0;
}

static void
consume_in_transaction(Client *c, const char *group)
{
	ProducerTxn txn;
	Outcome		out = OUT_OK;
	int			steps = 1 + rnd_below(c, 3);
	char		isolation[32];

	if (!begin_random(c, isolation, sizeof(isolation)))
		return;
	txn_start(c, &txn, isolation);

	for (int i = 0; i < steps && out == OUT_OK; i++)
	{
		const char *topic = chance(c, 15) ? DERIVED_TOPIC : MAIN_TOPIC;
		bool		savepoint = chance(c, 30);
		int			mark = txn.calls;
		int			messages;

		if (savepoint)
			out = client_command(c, "SAVEPOINT s");
		if (out == OUT_OK)
			out = consume_somehow(c, &txn, group, topic, &messages);
		/* after an error, or without one, put the position back */
		if (savepoint && (out == OUT_FAILED || (out == OUT_OK && chance(c, 40))))
		{
			out = client_command(c, "ROLLBACK TO SAVEPOINT s");
			if (out == OUT_OK)
				record(c, "undo", "%s\t%d\t%d", txn.id, mark + 1, txn.calls);
		}
	}
	if (out == OUT_OK && chance(c, 2))
		nap_ms(rnd_below(c, 1000));

	if (out != OUT_OK)
		txn_broken(c, &txn, out);
	else if (chance(c, 25))
		txn_rollback(c, &txn);
	else
		txn_commit(c, &txn);
}

/* CALL wait_for_messages(): it may return early or late, but not fail. */
static void
wait_outside(Client *c, const char *group, const char *topic)
{
	const char *params[2] = {topic, group};
	Outcome		out;

	PQclear(client_exec(c, &out, "CALL wait_for_messages($1, $2, '500ms')", 2, params));
}

void
run_consumer(Client *c, const char *group)
{
	int			empty = 0;

	/* When nobody writes any more, three times nothing is the end. */
	while (empty < 3 && client_connect(c))
	{
		bool		draining = c->shared->phase >= PHASE_DRAIN;
		const char *topic = draining ? (empty % 2 ? DERIVED_TOPIC : MAIN_TOPIC)
			: chance(c, 15) ? DERIVED_TOPIC : MAIN_TOPIC;
		int			r = rnd_below(c, 100);

		if (draining)
			empty = consume_autocommit(c, group, topic) ? empty + 1 : 0;
		else if (r < 30)
			consume_autocommit(c, group, topic);
		else if (r < 40)
			wait_outside(c, group, topic);
		else
			consume_in_transaction(c, group);
		client_wander(c);
		if (!draining)
			nap_ms(rnd_below(c, 10));
	}
	client_disconnect(c);
}

/*
 * A pipe consumes from one topic and produces to another, with effects, in one
 * transaction.
 */
void
run_pipe(Client *c)
{
	int			empty = 0;

	while (empty < 3 && client_connect(c))
	{
		bool		draining = c->shared->phase >= PHASE_DRAIN_PIPES;
		ProducerTxn txn;
		Outcome		out;
		int			messages = 0;
		char		isolation[32];

		if (!begin_random(c, isolation, sizeof(isolation)))
			continue;
		txn_start(c, &txn, isolation);
		out = consume_somehow(c, &txn, "pipe", MAIN_TOPIC, &messages);
		if (out == OUT_OK && messages > 0)
			out = messages == 1 ? produce_one(c, &txn, DERIVED_TOPIC)
				: produce_many(c, &txn, DERIVED_TOPIC, messages);
		if (draining)
			empty = out == OUT_OK && messages == 0 ? empty + 1 : 0;

		if (out != OUT_OK)
			txn_broken(c, &txn, out);
		else if (!draining && chance(c, 20))
			txn_rollback(c, &txn);
		else
			txn_commit(c, &txn);
		client_wander(c);
		if (!draining)
			nap_ms(rnd_below(c, 50));
	}
	client_disconnect(c);
}

/* Consume what a group has left; false if that is not possible. */
bool
drain_group(Client *c, const char *group, const char *topic)
{
	int			empty = 0;

	/* while a leader hands over, its partition has nothing to consume */
	while (empty < (in_cluster(c) ? 5 : 3))
	{
		if (!client_connect(c))
			return false;
		client_wander(c);
		if (c->conn == NULL)
			continue;
		if (empty > 0 && in_cluster(c))
			nap_ms(200);
		empty = consume_autocommit(c, group, topic) ? empty + 1 : 0;
	}
	return true;
}
