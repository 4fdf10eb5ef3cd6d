/*
 * producer.c
 *		Producers: single messages, batches and INSERTs, in autocommit and in transactions
 *		with savepoints, rollbacks and pauses.
 *
 * Every call of a producing function has a number within its transaction.  A
 * rollback to a savepoint is recorded as undoing a range of calls.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BATCH		3000
#define MAX_SAVEPOINTS	3

typedef struct Buffer
{
	char	   *data;
	size_t		len;
	size_t		size;
} Buffer;

static void
append(Buffer *b, const char *s)
{
	size_t		n = strlen(s);

	if (b->len + n + 1 > b->size)
	{
		b->size = (b->len + n + 1) * 2;
		b->data = realloc(b->data, b->size);
		if (b->data == NULL)
			abort();
	}
	memcpy(b->data + b->len, s, n + 1);
	b->len += n;
}

void
txn_start(Client *c, ProducerTxn *txn, const char *mode)
{
	snprintf(txn->id, sizeof(txn->id), "%s.%ld", c->name, c->next_txn++);
	txn->calls = 0;
	c->warned = false;
	record(c, "begin", "%s\t%s\t%d", txn->id, mode, c->broker + 1);
}

/* What is known of a transaction when COMMIT, or a statement that commits, has ended so. */
void
txn_outcome(Client *c, ProducerTxn *txn, Outcome out)
{
	if (out == OUT_OK)
		record(c, "ok", c->warned ? "%s\twarned" : "%s", txn->id);
	else if (out == OUT_LOST)
		record(c, "info", "%s", txn->id);
	else if (c->warned || strcmp(c->sqlstate, "08007") == 0)
		record(c, "info", "%s\trefused", txn->id);
	else
		record(c, "fail", "%s", txn->id);
}

static void
next_id(Client *c, char *id, size_t len)
{
	snprintf(id, len, "%s:%ld", c->name, c->next_id++);
}

/* A key of a small set, or none. */
static const char *
random_key(Client *c, char *key, size_t len)
{
	if (chance(c, 30))
		return NULL;
	snprintf(key, len, "k%d", rnd_below(c, 40));
	return key;
}

/* Small as a rule, now and then more than a page, seldom much more. */
static int
random_padding(Client *c)
{
	int			r = rnd_below(c, 1000);

	if (r < 900)
		return rnd_below(c, 100);
	if (r < 990)
		return rnd_below(c, 2000);
	if (r < 998)
		return 6000 + rnd_below(c, 6000);
	return rnd_below(c, 200000);
}

static void
random_partition(Client *c, char *partition, size_t len)
{
	/* both topics have at least two */
	snprintf(partition, len, "%d", rnd_below(c, 2));
}

Outcome
produce_one(Client *c, ProducerTxn *txn, const char *topic)
{
	char		id[40];
	char		keybuf[16];
	char		partition[16];
	const char *params[4];
	char	   *value;
	Outcome		out;
	PGresult   *res;
	int			call = ++txn->calls;

	next_id(c, id, sizeof(id));
	params[0] = topic;
	params[2] = random_key(c, keybuf, sizeof(keybuf));
	params[1] = value = make_value(id, params[2], random_padding(c));
	random_partition(c, partition, sizeof(partition));
	params[3] = chance(c, 20) ? partition : NULL;

	record(c, "invoke", "%s\t%d\t%s\t%s", txn->id, call, topic, id);
	if (chance(c, 20))
		res = client_exec(c, &out,
						  "SELECT partition, log_offset FROM produce($1, $2::text, "
						  "key => $3, partition => $4::int, headers => '{\"a\": 1}')", 4, params);
	else
		res = client_exec(c, &out,
						  "SELECT partition, log_offset FROM produce($1, $2::text, "
						  "key => $3, partition => $4::int)", 4, params);
	free(value);
	if (out == OUT_OK)
		record(c, "sent", "%s\t%d\t%s\t%s\t%s\t%s", txn->id, call, topic,
			   PQgetvalue(res, 0, 0), PQgetvalue(res, 0, 1), PQgetvalue(res, 0, 1));
	PQclear(res);
	return out;
}

/*
 * What a batch sends: "values" and "keys" as array literals (nothing in them
 * needs quotes), and the ids for the history.
 */
static void
fill_batch(Client *c, int n, Buffer *values, Buffer *keys, Buffer *ids)
{
	for (int i = 0; i < n; i++)
	{
		char		id[40];
		char		keybuf[16];
		const char *key = keys ? random_key(c, keybuf, sizeof(keybuf)) : NULL;
		char	   *value;

		next_id(c, id, sizeof(id));
		value = make_value(id, key, random_padding(c));
		append(values, i == 0 ? "{" : ",");
		append(values, value);
		free(value);
		if (keys)
		{
			append(keys, i == 0 ? "{" : ",");
			append(keys, key ? key : "NULL");
		}
		append(ids, i == 0 ? "" : "\t");
		append(ids, id);
	}
	append(values, "}");
	if (keys)
		append(keys, "}");
}

Outcome
produce_many(Client *c, ProducerTxn *txn, const char *topic, int n)
{
	Buffer		values = {0};
	Buffer		keys = {0};
	Buffer		ids = {0};
	bool		keyed = chance(c, 50);
	char		partition[16];
	const char *params[4];
	Outcome		out;
	PGresult   *res;
	int			call = ++txn->calls;

	fill_batch(c, n, &values, keyed ? &keys : NULL, &ids);
	random_partition(c, partition, sizeof(partition));
	params[0] = topic;
	params[1] = values.data;
	params[2] = keys.data;
	params[3] = chance(c, 20) ? partition : NULL;

	record(c, "invoke", "%s\t%d\t%s\t%s", txn->id, call, topic, ids.data);
	res = client_exec(c, &out,
					  "SELECT partition, first_offset, last_offset FROM produce_batch($1, "
					  "$2::text[], keys => $3::text[], partition => $4::int)", 4, params);
	if (out == OUT_OK)
		for (int i = 0; i < PQntuples(res); i++)
			record(c, "sent", "%s\t%d\t%s\t%s\t%s\t%s", txn->id, call, topic,
				   PQgetvalue(res, i, 0), PQgetvalue(res, i, 1), PQgetvalue(res, i, 2));
	PQclear(res);
	free(values.data);
	free(keys.data);
	free(ids.data);
	return out;
}

/*
 * INSERT into the topic's relation, of which each row is a call; without RETURNING it is
 * one call that does not tell where its messages are.
 */
static Outcome
insert_many(Client *c, ProducerTxn *txn, const char *topic, int n)
{
	Buffer		values = {0};
	Buffer		keys = {0};
	Buffer		ids = {0};
	bool		returning = chance(c, 50);
	int			first = txn->calls + 1;
	char		partition[16];
	char		sql[512];
	const char *params[3];
	Outcome		out;
	PGresult   *res;

	fill_batch(c, n, &values, &keys, &ids);
	random_partition(c, partition, sizeof(partition));
	params[0] = values.data;
	params[1] = keys.data;
	params[2] = chance(c, 20) ? partition : NULL;
	if (returning)
		for (char *id = strtok(ids.data, "\t"); id; id = strtok(NULL, "\t"))
			record(c, "invoke", "%s\t%d\t%s\t%s", txn->id, ++txn->calls, topic, id);
	else
		record(c, "invoke", "%s\t%d\t%s\t%s", txn->id, ++txn->calls, topic, ids.data);

	snprintf(sql, sizeof(sql), "INSERT INTO topics.\"%s\" (partition, key, value)"
			 " SELECT $3::int, k, v FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u (v, k, n) ORDER BY n%s",
			 topic, returning ? " RETURNING partition, log_offset" : "");
	res = client_exec(c, &out, sql, 3, params);
	if (out == OUT_OK && returning)
		for (int i = 0; i < PQntuples(res); i++)
			record(c, "sent", "%s\t%d\t%s\t%s\t%s\t%s", txn->id, first + i, topic,
				   PQgetvalue(res, i, 0), PQgetvalue(res, i, 1), PQgetvalue(res, i, 1));
	PQclear(res);
	free(values.data);
	free(keys.data);
	free(ids.data);
	return out;
}

/* A PL/pgSQL loop with an exception block around each produce(). */
static Outcome
produce_in_function(Client *c, ProducerTxn *txn, const char *topic)
{
	int			n = 1 + rnd_below(c, 10);
	int			first = txn->calls + 1;
	Buffer		values = {0};
	Buffer		keys = {0};
	Buffer		ids = {0};
	Buffer		doomed = {0};
	const char *params[4];
	Outcome		out;
	PGresult   *res;
	char	   *id;

	fill_batch(c, n, &values, &keys, &ids);
	id = strtok(ids.data, "\t");
	for (int i = 0; i < n; i++)
	{
		append(&doomed, i == 0 ? "{" : ",");
		append(&doomed, chance(c, 40) ? "t" : "f");
		record(c, "invoke", "%s\t%d\t%s\t%s", txn->id, ++txn->calls, topic, id);
		id = strtok(NULL, "\t");
	}
	append(&doomed, "}");
	params[0] = topic;
	params[1] = values.data;
	params[2] = keys.data;
	params[3] = doomed.data;

	res = client_exec(c, &out, "SELECT n, partition, log_offset, kept FROM "
					  "checker.produce_some($1, $2, $3, $4)", 4, params);
	if (out == OUT_OK)
		for (int i = 0; i < PQntuples(res); i++)
		{
			int			call = first + atoi(PQgetvalue(res, i, 0)) - 1;

			if (PQgetvalue(res, i, 3)[0] == 't')
				record(c, "sent", "%s\t%d\t%s\t%s\t%s\t%s", txn->id, call, topic,
					   PQgetvalue(res, i, 1), PQgetvalue(res, i, 2), PQgetvalue(res, i, 2));
			else
				record(c, "undo", "%s\t%d\t%d", txn->id, call, call);
		}
	else
		/* if it happened all the same, these were undone in it */
		for (int i = 0; i < n; i++)
			if (doomed.data[1 + 2 * i] == 't')
				record(c, "undo", "%s\t%d\t%d", txn->id, first + i, first + i);
	PQclear(res);
	free(values.data);
	free(keys.data);
	free(ids.data);
	free(doomed.data);
	return out;
}

static int
random_batch_size(Client *c)
{
	int			r = rnd_below(c, 100);

	if (r < 70)
		return 1 + rnd_below(c, 30);
	if (r < 98)
		return 1 + rnd_below(c, 300);
	return 1 + rnd_below(c, MAX_BATCH);
}

static Outcome
produce_something(Client *c, ProducerTxn *txn)
{
	const char *topic = chance(c, 12) ? DERIVED_TOPIC : MAIN_TOPIC;
	int			r = rnd_below(c, 100);

	if (r < 60)
		return produce_one(c, txn, topic);
	if (r < 75)
		return produce_many(c, txn, topic, random_batch_size(c));
	if (r < 87)
		return insert_many(c, txn, topic, random_batch_size(c));
	return produce_in_function(c, txn, topic);
}

/* COMMIT, and what became of it. */
void
txn_commit(Client *c, ProducerTxn *txn)
{
	Outcome		out;
	PGresult   *res;

	record(c, "commit", "%s", txn->id);
	if (chance(c, 2) && PQsendQuery(c->conn, "COMMIT"))
	{
		/* go away without waiting for the answer: most of these happen */
		client_disconnect(c);
		record(c, "info", "%s", txn->id);
		return;
	}
	res = client_exec(c, &out, "COMMIT", 0, NULL);
	if (out == OUT_OK && strcmp(PQcmdStatus(res), "COMMIT") != 0)
		out = OUT_FAILED;
	txn_outcome(c, txn, out);
	PQclear(res);
}

void
txn_rollback(Client *c, ProducerTxn *txn)
{
	/* A session that goes away without a word is a rollback as well. */
	if (chance(c, 10))
		client_disconnect(c);
	else
		client_command(c, "ROLLBACK");
	record(c, "fail", "%s\trollback", txn->id);
}

/* A statement failed, or the session was lost, before COMMIT was sent. */
void
txn_broken(Client *c, ProducerTxn *txn, Outcome out)
{
	if (out == OUT_FAILED)
		client_command(c, "ROLLBACK");
	record(c, "fail", "%s", txn->id);
}

static void
autocommit(Client *c)
{
	ProducerTxn txn;
	Outcome		out;

	txn_start(c, &txn, "autocommit");
	record(c, "commit", "%s", txn.id);
	out = produce_something(c, &txn);
	txn_outcome(c, &txn, out);
}

static void
rollback_to(Client *c, ProducerTxn *txn, int savepoint, int mark, Outcome *out)
{
	char		sql[64];

	snprintf(sql, sizeof(sql), "ROLLBACK TO SAVEPOINT s%d", savepoint);
	*out = client_command(c, sql);
	if (*out == OUT_OK && txn->calls > mark)
		record(c, "undo", "%s\t%d\t%d", txn->id, mark + 1, txn->calls);
}

static void
transaction(Client *c, bool holder)
{
	ProducerTxn txn;
	Outcome		out = OUT_OK;
	int			marks[MAX_SAVEPOINTS];
	int			depth = 0;
	int			steps = 1 + rnd_below(c, 7);
	char		isolation[32];
	char		sql[64];

	if (!begin_random(c, isolation, sizeof(isolation)))
		return;
	txn_start(c, &txn, isolation);

	for (int i = 0; i < steps && out == OUT_OK; i++)
	{
		int			r = rnd_below(c, 100);

		if (r < 15 && depth < MAX_SAVEPOINTS)
		{
			snprintf(sql, sizeof(sql), "SAVEPOINT s%d", depth);
			out = client_command(c, sql);
			marks[depth++] = txn.calls;
		}
		else if (r < 28 && depth > 0)
		{
			/* to any of them: those made after it are gone then */
			depth = 1 + rnd_below(c, depth);
			rollback_to(c, &txn, depth - 1, marks[depth - 1], &out);
		}
		else if (r < 35 && depth > 0)
		{
			snprintf(sql, sizeof(sql), "RELEASE SAVEPOINT s%d", --depth);
			out = client_command(c, sql);
		}
		else if (r < 40 && depth > 0)
		{
			out = client_command(c, "SELECT 1 / 0");
			if (out == OUT_FAILED)
				rollback_to(c, &txn, depth - 1, marks[depth - 1], &out);
		}
		else
		{
			out = produce_something(c, &txn);
			if (out == OUT_FAILED && depth > 0)
				rollback_to(c, &txn, depth - 1, marks[depth - 1], &out);
		}
		if (out == OUT_OK && chance(c, 20))
			nap_ms(rnd_below(c, 30));
	}

	if (out == OUT_OK && holder && chance(c, 60))
	{
		record(c, "hold", "%s", txn.id);
		nap_ms(1000 + rnd_below(c, 2500));
	}
	/* an error that comes with COMMIT itself */
	if (out == OUT_OK && chance(c, 3))
		out = client_command(c, "INSERT INTO checker.fails_at_commit VALUES (1)");

	if (out != OUT_OK)
		txn_broken(c, &txn, out);
	else if (chance(c, 25))
		txn_rollback(c, &txn);
	else
		txn_commit(c, &txn);
}

void
run_producer(Client *c, bool holder)
{
	while (c->shared->phase <= PHASE_CALM && client_connect(c))
	{
		if (!holder && chance(c, 45))
			autocommit(c);
		else
			transaction(c, holder);
		/* a new session has a new sticky partition, too */
		client_wander(c);
		nap_ms(rnd_below(c, holder ? 1500 : 25));
	}
	client_disconnect(c);
}

/* A call of a numbered producer, which may be made several times. */
typedef struct NumberedCall
{
	int			partition;
	char		partition_text[16];
	char		sequence[24];
	Buffer		values;
	Buffer		ids;
	PGresult   *result;			/* of the last attempt */
} NumberedCall;

#define MAX_NUMBERED_CALLS	4
#define NUMBERED_PARTITIONS	4	/* of the main topic, from its first one on */

static Outcome
numbered_call(Client *c, NumberedCall *call)
{
	const char *params[] = {MAIN_TOPIC, call->values.data, call->partition_text, c->name, call->sequence};
	Outcome		out;

	PQclear(call->result);
	call->result = client_exec(c, &out,
							   "SELECT partition, first_offset, last_offset FROM produce_batch($1, $2::text[],"
							   " partition => $3::int, producer => $4, sequence => $5::bigint)", 5, params);
	return out;
}

/* The whole transaction, once.  It is to be made again unless that is OUT_OK. */
static Outcome
numbered_attempt(Client *c, ProducerTxn *txn, NumberedCall *calls, int n, bool autocommit)
{
	Outcome		out;
	PGresult   *res;

	c->warned = false;
	if (autocommit)
	{
		record(c, "commit", "%s", txn->id);
		out = numbered_call(c, &calls[0]);
		return out == OUT_OK && c->warned ? OUT_FAILED : out;
	}
	out = client_command(c, "BEGIN");
	for (int i = 0; i < n && out == OUT_OK; i++)
		out = numbered_call(c, &calls[i]);
	if (out != OUT_OK || chance(c, 5))
	{
		client_command(c, "ROLLBACK");
		return OUT_FAILED;
	}
	record(c, "commit", "%s", txn->id);
	res = client_exec(c, &out, "COMMIT", 0, NULL);
	if (out == OUT_OK && (c->warned || strcmp(PQcmdStatus(res), "COMMIT") != 0))
		out = OUT_FAILED;
	PQclear(res);
	return out;
}

/*
 * Producers that number their messages try a transaction until it is known to be
 * committed, with any broker.  However often that is, each message is there once.
 */
void
run_numbered(Client *c)
{
	long		next[NUMBERED_PARTITIONS] = {0};

	while (c->shared->phase <= PHASE_CALM && client_connect(c))
	{
		int			n = 1 + rnd_below(c, MAX_NUMBERED_CALLS);
		bool		autocommit = n == 1 && chance(c, 50);
		NumberedCall calls[MAX_NUMBERED_CALLS] = {0};
		ProducerTxn txn;
		int			attempts = 0;
		bool		done = false;

		txn_start(c, &txn, "numbered");
		for (int i = 0; i < n; i++)
		{
			NumberedCall *call = &calls[i];
			int			messages = chance(c, 50) ? 1 : 1 + rnd_below(c, 40);

			call->partition = rnd_below(c, NUMBERED_PARTITIONS);
			snprintf(call->partition_text, sizeof(call->partition_text), "%d", call->partition);
			snprintf(call->sequence, sizeof(call->sequence), "%ld", next[call->partition]);
			next[call->partition] += messages;
			fill_batch(c, messages, &call->values, NULL, &call->ids);
			record(c, "invoke", "%s\t%d\t" MAIN_TOPIC "\t%s", txn.id, ++txn.calls, call->ids.data);
		}
		while (!done && client_connect(c))
		{
			done = numbered_attempt(c, &txn, calls, n, autocommit) == OUT_OK;
			attempts++;
			if (!done)
			{
				client_wander(c);
				nap_ms(rnd_below(c, 200));
			}
		}
		for (int i = 0; i < n; i++)
		{
			for (int row = 0; done && row < PQntuples(calls[i].result); row++)
				record(c, "sent", "%s\t%d\t" MAIN_TOPIC "\t%s\t%s\t%s", txn.id, i + 1,
					   PQgetvalue(calls[i].result, row, 0), PQgetvalue(calls[i].result, row, 1),
					   PQgetvalue(calls[i].result, row, 2));
			PQclear(calls[i].result);
			free(calls[i].values.data);
			free(calls[i].ids.data);
		}
		if (attempts > 1)
			record(c, "retried", "%s\t%d", txn.id, attempts);
		record(c, done ? "ok" : "info", "%s", txn.id);
		client_wander(c);
		nap_ms(rnd_below(c, 40));
	}
	client_disconnect(c);
}
