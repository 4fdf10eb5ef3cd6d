/*-------------------------------------------------------------------------
 *
 * forward.c
 *	  Calls that another broker, the leader of a partition, answers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "log/forward.h"
#include "peer/transaction.h"
#include "shmem/slots.h"

/* What a peer waits for us in one call: its snapshot should not get too old. */
#define PEER_WAIT_MS		1000

/* Between two attempts to reach a leader. */
#define REOPEN_MS			100

/* Number 0 is connection.c's. */
static const PeerStatement produce_statement = {
	1, "pgtopic_produce", "SELECT pgtopic.peer_produce($1, $2, $3, $4, $5, $6, $7)",
	7, {INT4OID, INT4OID, BYTEAARRAYOID, BYTEAARRAYOID, JSONBARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID}
};
static const PeerStatement consume_statement = {
	2, "pgtopic_consume", "SELECT * FROM pgtopic.peer_consume($1, $2, $3, $4)",
	4, {INT4OID, TEXTOID, INT8OID, BOOLOID}
};
static const PeerStatement fetch_statement = {
	3, "pgtopic_fetch", "SELECT * FROM pgtopic.peer_fetch($1, $2, $3, $4, $5)",
	5, {INT4OID, INT4OID, INT8OID, INT8OID, INT4OID}
};
static const PeerStatement select_statement = {
	12, "pgtopic_select", "SELECT * FROM pgtopic.peer_select($1, $2, $3, $4, $5, $6, $7)",
	7, {INT4OID, INT4OID, INT8OID, INT8OID, TIMESTAMPTZOID, BOOLOID, INT8OID}
};
static const PeerStatement wait_statement = {
	4, "pgtopic_wait", "SELECT pgtopic.peer_wait($1, $2, $3)",
	3, {INT4OID, TEXTOID, INT4OID}
};
static const PeerStatement offsets_at_statement = {
	5, "pgtopic_offsets_at", "SELECT * FROM pgtopic.peer_offsets_at($1, $2, $3)",
	3, {INT4OID, INT4ARRAYOID, TIMESTAMPTZOID}
};
static const PeerStatement group_create_statement = {
	6, "pgtopic_group_create", "SELECT pgtopic.peer_create_consumer_group($1, $2, $3, $4, $5, $6)",
	6, {INT4OID, INT4ARRAYOID, TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID}
};
static const PeerStatement group_commit_statement = {
	7, "pgtopic_group_commit", "SELECT pgtopic.peer_commit_offset($1, $2, $3, $4)",
	4, {INT4OID, INT4OID, TEXTOID, INT8OID}
};
static const PeerStatement group_reset_statement = {
	8, "pgtopic_group_reset", "SELECT * FROM pgtopic.peer_reset_offsets($1, $2, $3, $4, $5, $6, $7)",
	7, {INT4OID, INT4ARRAYOID, TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID, BOOLOID}
};
static const PeerStatement group_drop_statement = {
	9, "pgtopic_group_drop", "SELECT pgtopic.peer_drop_consumer_group($1, $2, $3)",
	3, {INT4OID, INT4ARRAYOID, TEXTOID}
};
static const PeerStatement delete_messages_statement = {
	10, "pgtopic_delete_messages", "SELECT pgtopic.peer_delete_messages($1, $2, $3)",
	3, {INT4OID, INT4OID, INT8OID}
};
/* apart from produce_statement, which brokers of before version 0.3.0 know too */
static const PeerStatement produce_as_statement = {
	11, "pgtopic_produce_as", "SELECT pgtopic.peer_produce($1, $2, $3, $4, $5, $6, $7, $8, $9)",
	9, {INT4OID, INT4OID, BYTEAARRAYOID, BYTEAARRAYOID, JSONBARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, TEXTOID, INT8OID}
};

/* --- calls --- */

/*
 * A call has failed.  Returns if it is to be made again, after a pause, and raises
 * the error if not.  clean: there is nothing at the peer that this transaction would
 * lose.  opened: the call has opened the transaction there.
 */
static void
retry_or_raise(Peer *peer, PeerOutcome outcome, bool opened, bool clean, Attempt *attempt)
{
	TimestampTz now = GetCurrentTimestamp();

	if (attempt->since == 0)
		attempt->since = now;
	if (outcome == PEER_LOST && clean)
	{
		/* it was broken before, and there was no telling; or its broker has died now */
		bool		pause = peer->fresh;

		if (!pause || !TimestampDifferenceExceeds(attempt->since, now, leader_wait_ms()))
		{
			peer->lost = false;
			pause_milliseconds(pause ? HANDOVER_POLL_MS : 0);
			return;
		}
	}
	if (outcome == PEER_FAILED && clean && peer_error_code(peer) == ERRCODE_NOT_LEADER &&
		!TimestampDifferenceExceeds(attempt->since, now, HANDOVER_WAIT_MS))
	{
		if (opened)
			peer_rollback(peer);
		pause_milliseconds(HANDOVER_POLL_MS);
		return;
	}
	peer_raise(peer, outcome);
}

Peer *
forward_open(int32 broker, Attempt *attempt)
{
	PeerFailure failure = {0};
	Peer	   *peer = peer_open(broker, &failure);
	TimestampTz now;

	if (peer != NULL)
		return peer;
	now = GetCurrentTimestamp();
	if (attempt->since == 0)
		attempt->since = now;
	if (TimestampDifferenceExceeds(attempt->since, now, leader_wait_ms()))
		peer_raise_failure(&failure);
	pause_milliseconds(REOPEN_MS);
	return NULL;
}

/* Makes one call that writes; false if it is to be made again. */
static bool
call_writing(int32 broker, bool commit_after, const PeerStatement *statement,
			 const PeerParams *params, PeerRowSink sink, void *arg,
			 bool may_retry, Attempt *attempt)
{
	Peer	   *peer = may_retry ? forward_open(broker, attempt) : peer_open(broker, NULL);
	bool		opened;
	PeerOutcome outcome;

	if (peer == NULL)
		return false;
	opened = peer_begin(peer, commit_after);
	peer_send(peer, statement, params);
	peer_sync(peer);
	outcome = peer_receive(peer, sink, arg);
	if (outcome == PEER_OK)
		return true;
	retry_or_raise(peer, outcome, opened, opened && may_retry, attempt);
	return false;
}

static void
param_partitions(PeerParams *params, const Place *place)
{
	Datum	   *elements = palloc(place->count * sizeof(Datum));

	for (int i = 0; i < place->count; i++)
		elements[i] = Int32GetDatum(place->partitions[i]);
	peer_param_array(params,
					 PointerGetDatum(construct_array(elements, place->count, INT4OID,
													 sizeof(int32), true, TYPALIGN_INT)));
	pfree(elements);
}

static void
sink_int64(void *arg, const PGresult *result, int row)
{
	*(int64 *) arg = peer_get_int64(result, row, 0);
}

static void
sink_bool(void *arg, const PGresult *result, int row)
{
	*(bool *) arg = PQgetlength(result, row, 0) == 1 && PQgetvalue(result, row, 0)[0] != 0;
}

/* --- produce --- */

void
forward_produce(Peer *peer, int32 topic, int32 partition, const ProduceArrays *arrays)
{
	PeerParams	params = {0};

	peer_param_int32(&params, topic);
	peer_param_int32(&params, partition);
	peer_param_array(&params, arrays->values);
	peer_param_array(&params, arrays->keys);
	peer_param_array(&params, arrays->headers);
	peer_param_array(&params, arrays->timestamps);
	peer_param_int64(&params, arrays->timestamp);
	if (arrays->producer != NULL)
	{
		peer_param_text(&params, arrays->producer->name);
		peer_param_int64(&params, arrays->producer->sequence);
	}
	peer_send(peer, arrays->producer ? &produce_as_statement : &produce_statement, &params);
	slots_forbid_prepare("produce()");
}

bool
forward_produced(Peer *peer, bool opened, int64 *first_offset, Attempt *attempt)
{
	PeerOutcome outcome = peer_receive(peer, sink_int64, first_offset);

	if (outcome == PEER_OK)
		return true;
	retry_or_raise(peer, outcome, opened, opened, attempt);
	return false;
}

/* --- read --- */

typedef struct MessageReceiver
{
	MessageSink sink;
	void	   *arg;
	MemoryContext context;
	int64		messages;
	bool		moved;			/* the position, over nothing */
} MessageReceiver;

/* A row of the peer's functions that return messages, without one: only moved. */
static void
receive_message(void *arg, const PGresult *result, int row)
{
	MessageReceiver *receiver = arg;
	MemoryContext old;
	LogMessage	message;

	if (PQgetisnull(result, row, 1))
	{
		receiver->moved = true;
		return;
	}
	old = MemoryContextSwitchTo(receiver->context);
	message.offset = peer_get_int64(result, row, 1);
	message.timestamp = peer_get_int64(result, row, 2);
	message.key = peer_get_bytes(result, row, 3, &message.key_null);
	message.value = peer_get_bytes(result, row, 4, &message.value_null);
	message.headers = peer_get_jsonb(result, row, 5, &message.headers_null);
	receiver->sink(receiver->arg, peer_get_int32(result, row, 0), &message);
	receiver->messages++;
	MemoryContextSwitchTo(old);
	MemoryContextReset(receiver->context);
}

static void
receiver_init(MessageReceiver *receiver, MessageSink sink, void *arg)
{
	receiver->sink = sink;
	receiver->arg = arg;
	receiver->context = AllocSetContextCreate(CurrentMemoryContext, "pgtopic message",
											  ALLOCSET_DEFAULT_SIZES);
	receiver->messages = 0;
	receiver->moved = false;
}

int64
forward_fetch(int32 broker, int32 topic, int32 partition, int64 from, int64 max,
			  const Deadline *deadline, MessageSink sink, void *arg, Attempt *attempt)
{
	Peer	   *peer = forward_open(broker, attempt);
	bool		clean;
	PeerParams	params = {0};
	MessageReceiver receiver;
	PeerOutcome outcome;

	if (peer == NULL)
		return -1;
	clean = peer->depth == 0;
	receiver_init(&receiver, sink, arg);
	peer_param_int32(&params, topic);
	peer_param_int32(&params, partition);
	peer_param_int64(&params, from);
	peer_param_int64(&params, max);
	peer_param_int32(&params, (int32) Min(deadline_milliseconds(deadline), PEER_WAIT_MS));
	peer_join(peer);
	outcome = peer_send_wait(peer, &fetch_statement, &params);
	if (outcome == PEER_OK)
		outcome = peer_receive_wait(peer, receive_message, &receiver);
	if (outcome == PEER_LOST && receiver.messages > 0)
		peer_raise(peer, outcome);
	MemoryContextDelete(receiver.context);
	if (outcome != PEER_OK)
	{
		retry_or_raise(peer, outcome, false, clean, attempt);
		return -1;
	}
	attempt->since = 0;
	return receiver.messages;
}

int64
forward_select(int32 broker, int32 topic, int32 partition, OffsetRange range, TimestampTz since,
			   bool backward, int64 max, MessageSink sink, void *arg, Attempt *attempt)
{
	Peer	   *peer = forward_open(broker, attempt);
	bool		clean;
	PeerParams	params = {0};
	MessageReceiver receiver;
	PeerOutcome outcome;

	if (peer == NULL)
		return -1;
	clean = peer->depth == 0;
	receiver_init(&receiver, sink, arg);
	peer_param_int32(&params, topic);
	peer_param_int32(&params, partition);
	peer_param_int64(&params, range.from);
	peer_param_int64(&params, range.to);
	peer_param_int64(&params, since);
	peer_param_bool(&params, backward);
	peer_param_int64(&params, max);
	peer_join(peer);
	peer_send(peer, &select_statement, &params);
	peer_sync(peer);
	outcome = peer_receive(peer, receive_message, &receiver);
	MemoryContextDelete(receiver.context);
	if (outcome != PEER_OK)
	{
		retry_or_raise(peer, outcome, false, clean, attempt);
		return -1;
	}
	attempt->since = 0;
	return receiver.messages;
}

/* Notes that a connection was lost, with nothing that matters. */
static void
lost_to_failure(Peer *peer, PeerFailure *failure)
{
	peer->lost = false;
	failure->broker = peer->broker;
	failure->detail = pstrdup(peer->lost_detail ? peer->lost_detail : "");
}

int64
forward_consume(int32 broker, int32 topic, const char *group, int64 max, bool last,
				MessageSink sink, void *arg, PeerFailure *failure)
{
	MessageReceiver receiver;

	receiver_init(&receiver, sink, arg);
	for (;;)
	{
		Peer	   *peer = peer_open(broker, failure);
		PeerParams	params = {0};
		PeerOutcome outcome;
		bool		opened;

		if (peer == NULL)
			break;
		peer_param_int32(&params, topic);
		peer_param_text(&params, group);
		peer_param_int64(&params, max);
		peer_param_bool(&params, last);
		opened = peer_begin(peer, false);
		peer_send(peer, &consume_statement, &params);
		peer_sync(peer);
		outcome = peer_receive(peer, receive_message, &receiver);
		if (outcome == PEER_LOST && opened && receiver.messages == 0)
		{
			lost_to_failure(peer, failure);
			/* if it was broken before, it is tried again */
			if (peer->fresh)
				break;
			continue;
		}
		if (outcome != PEER_OK)
			peer_raise(peer, outcome);
		if (receiver.messages > 0 || receiver.moved)
		{
			peer->commit_after = true;
			slots_forbid_prepare("consume()");
		}
		else if (opened)
			peer_rollback(peer);
		break;
	}
	MemoryContextDelete(receiver.context);
	return receiver.messages;
}

Peer *
forward_wait(int32 broker, int32 topic, const char *group, int64 milliseconds,
			 PeerFailure *failure)
{
	for (;;)
	{
		Peer	   *peer = peer_open(broker, failure);
		PeerParams	params = {0};
		PeerOutcome outcome;

		if (peer == NULL)
			return NULL;
		peer_param_int32(&params, topic);
		peer_param_text(&params, group);
		peer_param_int32(&params, (int32) Min(milliseconds, PEER_WAIT_MS));
		peer_join(peer);
		outcome = peer_send_wait(peer, &wait_statement, &params);
		if (outcome == PEER_OK)
			return peer;
		if (outcome == PEER_FAILED || peer->lost)
			peer_raise(peer, outcome);
		/* if it was broken before, it is tried again */
		if (!peer->fresh)
			continue;
		lost_to_failure(peer, failure);
		return NULL;
	}
}

bool
forward_waited(Peer *peer, bool *lost)
{
	bool		ready = false;
	PeerOutcome outcome = peer_receive_wait(peer, sink_bool, &ready);

	if (outcome == PEER_FAILED || peer->lost)
		peer_raise(peer, outcome);
	*lost = outcome == PEER_LOST;
	return ready;
}

/* The number of a partition, in an answer to what was asked about those of a place. */
static int32
get_partition(const Place *place, const PGresult *result, int row)
{
	int32		partition = peer_get_int32(result, row, 0);

	for (int i = 0; i < place->count; i++)
	{
		if (place->partitions[i] == partition)
			return partition;
	}
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("broker %d answers about partition %d, which it was not asked about",
					place->broker, partition)));
}

typedef struct OffsetsReceiver
{
	const Place *place;
	int64	   *offsets;
} OffsetsReceiver;

static void
sink_offset_at(void *arg, const PGresult *result, int row)
{
	OffsetsReceiver *receiver = arg;

	receiver->offsets[get_partition(receiver->place, result, row)] = peer_get_int64(result, row, 1);
}

bool
forward_offsets_at(const Place *place, int32 topic, TimestampTz timestamp, int64 *offsets,
				   Attempt *attempt)
{
	OffsetsReceiver receiver = {place, offsets};
	Peer	   *peer = forward_open(place->broker, attempt);
	bool		clean;
	PeerParams	params = {0};
	PeerOutcome outcome;

	if (peer == NULL)
		return false;
	clean = peer->depth == 0;
	peer_param_int32(&params, topic);
	param_partitions(&params, place);
	peer_param_int64(&params, timestamp);
	peer_join(peer);
	peer_send(peer, &offsets_at_statement, &params);
	peer_sync(peer);
	outcome = peer_receive(peer, sink_offset_at, &receiver);
	if (outcome == PEER_OK)
		return true;
	retry_or_raise(peer, outcome, false, clean, attempt);
	return false;
}

/* --- groups, and the rest --- */

static void
group_params(PeerParams *params, const Place *place, int32 topic, const char *group)
{
	peer_param_int32(params, topic);
	param_partitions(params, place);
	peer_param_text(params, group);
}

static void
seek_params(PeerParams *params, Seek seek, TimestampTz timestamp)
{
	peer_param_int32(params, (int32) seek.kind);
	peer_param_int64(params, seek.number);
	peer_param_int64(params, timestamp);
}

bool
forward_group_create(const Place *place, int32 topic, const char *group, Seek seek,
					 TimestampTz timestamp, bool may_retry, Attempt *attempt)
{
	PeerParams	params = {0};

	group_params(&params, place, topic, group);
	seek_params(&params, seek, timestamp);
	slots_forbid_prepare("create_consumer_group()");
	return call_writing(place->broker, false, &group_create_statement, &params, NULL, NULL,
						may_retry, attempt);
}

typedef struct ResetReceiver
{
	const Place *place;
	ResetOffset *results;
} ResetReceiver;

static void
sink_reset_offset(void *arg, const PGresult *result, int row)
{
	ResetReceiver *receiver = arg;
	int32		partition = get_partition(receiver->place, result, row);
	ResetOffset *offset = &receiver->results[partition];

	offset->partition = partition;
	offset->had_offset = !PQgetisnull(result, row, 1);
	offset->old_offset = offset->had_offset ? peer_get_int64(result, row, 1) : 0;
	offset->new_offset = peer_get_int64(result, row, 2);
}

bool
forward_group_reset(const Place *place, int32 topic, const char *group, Seek seek,
					TimestampTz timestamp, bool dry_run, ResetOffset *results,
					bool may_retry, Attempt *attempt)
{
	PeerParams	params = {0};
	ResetReceiver receiver = {place, results};

	group_params(&params, place, topic, group);
	seek_params(&params, seek, timestamp);
	peer_param_bool(&params, dry_run);
	slots_forbid_prepare("reset_offsets()");
	return call_writing(place->broker, false, &group_reset_statement, &params,
						sink_reset_offset, &receiver, may_retry, attempt);
}

bool
forward_group_drop(const Place *place, int32 topic, const char *group, bool *found,
				   bool may_retry, Attempt *attempt)
{
	PeerParams	params = {0};
	bool		found_there = false;

	group_params(&params, place, topic, group);
	slots_forbid_prepare("drop_consumer_group()");
	if (!call_writing(place->broker, false, &group_drop_statement, &params, sink_bool,
					  &found_there, may_retry, attempt))
		return false;
	*found |= found_there;
	return true;
}

bool
forward_group_commit(int32 broker, int32 topic, int32 partition, const char *group,
					 int64 offset, Attempt *attempt)
{
	PeerParams	params = {0};

	peer_param_int32(&params, topic);
	peer_param_int32(&params, partition);
	peer_param_text(&params, group);
	peer_param_int64(&params, offset);
	slots_forbid_prepare("commit_offset()");
	return call_writing(broker, true, &group_commit_statement, &params, NULL, NULL,
						true, attempt);
}

bool
forward_delete_messages(int32 broker, int32 topic, int32 partition, int64 before_offset,
						int64 *start, Attempt *attempt)
{
	PeerParams	params = {0};

	peer_param_int32(&params, topic);
	peer_param_int32(&params, partition);
	peer_param_int64(&params, before_offset);
	slots_forbid_prepare("delete_messages()");
	return call_writing(broker, false, &delete_messages_statement, &params, sink_int64, start,
						true, attempt);
}
