/*-------------------------------------------------------------------------
 *
 * transaction.c
 *	  Transactions at other brokers, as parts of the local one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/predicate.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "peer/conversation.h"
#include "peer/transaction.h"

/* How long the end of a transaction waits for a peer, when it cannot fail any more. */
#define COMMIT_MS		10000
#define ROLLBACK_MS		500

/* Brings the savepoints up to the current subtransaction. */
static void
add_savepoints(Peer *peer)
{
	while (peer->depth < GetCurrentTransactionNestLevel())
	{
		char		sql[64];

		snprintf(sql, sizeof(sql), "SAVEPOINT s%d", peer->depth + 1);
		peer_send_command(peer, sql);
		peer->depth++;
	}
}

bool
peer_begin(Peer *peer, bool commit_after)
{
	bool		opened = peer->depth == 0;

	if (opened)
	{
		const char *acks = GetConfigOption("pgtopic.acks", true, false);

		peer_send_command(peer, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
		peer->depth = 1;
		peer->written_count = 0;
		peer->opened_depth = GetCurrentTransactionNestLevel();
		peer->commit_after = false;
		if (acks)
		{
			char	   *sql = psprintf("SET LOCAL pgtopic.acks = %s", quote_literal_cstr(acks));

			peer_send_command(peer, sql);
			pfree(sql);
		}
	}
	/* if it was opened further in, and what was done there was rolled back, it went on empty */
	peer->opened_depth = Min(peer->opened_depth, GetCurrentTransactionNestLevel());
	peer->commit_after |= commit_after;
	add_savepoints(peer);
	return opened;
}

typedef struct PeerPartition
{
	int32		topic;
	int32		partition;
} PeerPartition;

static bool
has_written(const Peer *peer, int32 topic, int32 partition)
{
	for (int i = 0; i < peer->written_count; i++)
	{
		if (peer->written[i].topic == topic && peer->written[i].partition == partition)
			return true;
	}
	return false;
}

void
peer_note_written(Peer *peer, int32 topic, int32 partition)
{
	if (peer->depth == 0 || has_written(peer, topic, partition))
		return;
	if (peer->written == NULL)
	{
		peer->written = MemoryContextAlloc(TopMemoryContext, 8 * sizeof(PeerPartition));
		peer->written_size = 8;
	}
	else if (peer->written_count == peer->written_size)
	{
		peer->written = repalloc(peer->written, 2 * peer->written_size * sizeof(PeerPartition));
		peer->written_size *= 2;
	}
	peer->written[peer->written_count].topic = topic;
	peer->written[peer->written_count].partition = partition;
	peer->written_count++;
}

bool
peer_has_written(int32 broker, int32 topic, int32 partition)
{
	int			position = 0;
	Peer	   *peer;

	while ((peer = peers_next(&position)) != NULL)
	{
		if (peer->broker == broker)
			return peer->depth > 0 && has_written(peer, topic, partition);
	}
	return false;
}

void
peer_join(Peer *peer)
{
	if (peer->depth > 0)
		add_savepoints(peer);
}

void
peer_rollback(Peer *peer)
{
	if (peer->conn == NULL)
	{
		/* nothing was done there but by this call */
		peer->lost = false;
		return;
	}
	peer_send_command(peer, "ROLLBACK");
	peer_sync(peer);
	peer->depth = 0;
}

/*
 * The local transaction is about to commit, and can still fail.  The peers commit
 * at the same time: what takes long is their disks.
 */
static void
commit_before(void)
{
	Peer	   *peer;
	Peer	   *failed = NULL;
	PeerOutcome failed_outcome = PEER_OK;
	bool		any = false;

	for (int i = 0; (peer = peers_next(&i)) != NULL;)
	{
		if (peer->lost)
			peer_raise_lost(peer);
		if (peer->depth == 0)
			continue;
		any = true;
		/* a last look at those that are to commit later */
		if (peer_is_broken(peer))
		{
			peer_note_lost(peer);
			peer_raise_lost(peer);
		}
	}
	if (!any)
		return;

	/*
	 * CommitTransaction() checks this itself, but only after us.  Who has passed
	 * is not chosen as a victim any more.
	 */
	PreCommit_CheckForSerializationFailure();

	for (int i = 0; (peer = peers_next(&i)) != NULL;)
	{
		if (peer->depth == 0 || peer->commit_after)
			continue;
		peer_send_command(peer, "COMMIT");
		peer->committing = true;
		peer_sync(peer);
	}
	for (int i = 0; (peer = peers_next(&i)) != NULL;)
	{
		PeerOutcome outcome;

		if (!peer->committing)
			continue;
		outcome = peer_receive_all(peer);
		peer->committed = outcome == PEER_OK;
		/* if the connection is lost, it stays open whether it has committed */
		if (outcome != PEER_LOST)
		{
			peer->committing = false;
			peer->depth = 0;
		}
		if (outcome != PEER_OK && failed == NULL)
		{
			failed = peer;
			failed_outcome = outcome;
		}
	}
	if (failed && failed_outcome == PEER_FAILED && failed->error == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
				 errmsg("transaction at broker %d was rolled back", failed->broker)));
	if (failed && failed_outcome == PEER_LOST)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("connection to broker %d was lost while the transaction was to be committed there", failed->broker),
				 failed->lost_detail && failed->lost_detail[0] ?
				 errdetail_internal("%s", failed->lost_detail) : 0,
				 errhint("What it has produced there may be there or not. If it named a producer and sequences, it can be repeated.")));
	if (failed)
		peer_raise(failed, failed_outcome);
}

/* The local transaction has committed: nothing may be raised from here on. */
static void
commit_after(void)
{
	Peer	   *peer;

	for (int i = 0; (peer = peers_next(&i)) != NULL;)
	{
		if (peer->depth > 0 && !peer_send_quietly(peer, "COMMIT"))
			peer_close(peer);
	}
	for (int i = 0; (peer = peers_next(&i)) != NULL;)
	{
		if (peer->lost || (peer->depth > 0 && !peer_settle(peer, COMMIT_MS)))
			ereport(WARNING,
					(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					 errmsg("broker %d may not have committed", peer->broker),
					 errdetail("The transaction is committed here. Messages that it has consumed there may come again.")));
	}
}

/* The local transaction is being rolled back. */
static void
roll_back(Peer *peer)
{
	bool		settled = true;

	/* a connection in the making is of no use to anybody else */
	if (peer->conn && !peer->connected)
		peer_close(peer);
	if (peer->depth > 0 && !peer->committing && !peer_send_quietly(peer, "ROLLBACK"))
		peer_close(peer);
	if (peer->conn && peer->items_first < peer->items_end)
		settled = peer_settle(peer, ROLLBACK_MS);
	if (peer->committed || peer->committing)
		ereport(WARNING,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 peer->committed || (settled && !peer->lost) ?
				 errmsg("broker %d has committed", peer->broker) :
				 errmsg("broker %d may have committed", peer->broker),
				 errdetail("The transaction is rolled back here. Messages that it has produced there may stay.")));
}

static void
xact_callback(XactEvent event, void *arg)
{
	Peer	   *peer;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			commit_before();
			return;
		case XACT_EVENT_COMMIT:
			commit_after();
			break;
		case XACT_EVENT_ABORT:
			for (int i = 0; (peer = peers_next(&i)) != NULL;)
				roll_back(peer);
			break;
		case XACT_EVENT_PREPARE:
			/* callers of peer_begin() have seen to it that there is nothing */
			break;
		default:
			return;
	}

	for (int i = 0; (peer = peers_next(&i)) != NULL;)
	{
		peer->depth = 0;
		peer->commit_after = false;
		peer->committing = false;
		peer->committed = false;
		peer->lost = false;
		peer->used = false;
		peer->fresh = false;
	}
}

/* A subtransaction commits: what it has done belongs to the one around it. */
static void
release_savepoint(Peer *peer, int level)
{
	char		sql[64];

	if (peer->lost || peer->depth >= level)
		peer->opened_depth = Min(peer->opened_depth, level - 1);
	if (peer->depth < level)
		return;
	/* on its way with whatever comes next */
	snprintf(sql, sizeof(sql), "RELEASE SAVEPOINT s%d", level);
	peer_send_command(peer, sql);
	peer->depth = level - 1;
}

/*
 * A subtransaction is being rolled back.  Where a transaction is open at the peer,
 * nothing is called there without a savepoint for the current subtransaction.
 */
static void
roll_back_to_savepoint(Peer *peer, int level)
{
	char		sql[64];
	bool		sent = true;

	if (peer->conn && !peer->connected)
		peer_close(peer);
	if (peer->depth >= level)
	{
		snprintf(sql, sizeof(sql), "ROLLBACK TO SAVEPOINT s%d", level);
		sent = peer_send_quietly(peer, sql);
		snprintf(sql, sizeof(sql), "RELEASE SAVEPOINT s%d", level);
		sent = sent && peer_send_quietly(peer, sql);
		if (!sent)
			peer_close(peer);
	}
	if (peer->conn && peer->items_first < peer->items_end)
		(void) peer_settle(peer, ROLLBACK_MS);
	if (peer->depth >= level)
		peer->depth = level - 1;
	/* if all that was lost would have been rolled back now, nothing is */
	if (peer->lost && peer->opened_depth >= level)
		peer->lost = false;
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	Peer	   *peer;

	for (int i = 0; (peer = peers_next(&i)) != NULL;)
	{
		if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
			release_savepoint(peer, level);
		else if (event == SUBXACT_EVENT_ABORT_SUB)
			roll_back_to_savepoint(peer, level);
	}
}

void
peer_register_callbacks(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
