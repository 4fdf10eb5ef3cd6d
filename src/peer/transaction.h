/*-------------------------------------------------------------------------
 *
 * transaction.h
 *	  Transactions at other brokers, as parts of the local one.
 *
 * The first call that writes at a peer opens a transaction there, and the local
 * transaction's end ends it.  Savepoints there stand for the subtransactions in
 * which something was called.  There is no two-phase commit.  What holds:
 *
 * Rollback.  Nothing that was done at any peer stays, whatever happens: where a
 * peer cannot be told to roll back, it does so by itself when it finds that the
 * connection is gone, within seconds.
 *
 * Produced at a peer (commit_after is false).  Commits there just *before* the
 * local transaction does, after deferred triggers and the check for serialization
 * failures.  If the peer cannot commit, the local transaction is rolled back.
 * But
 *	 - if the server crashes, or the local commit fails, in the moment between the
 *	   two, the messages are there, though the local transaction is not: they may
 *	   come twice, when it is tried again, and are never lost
 *	 - if the connection is lost, or the wait is interrupted, while the peer
 *	   commits, nobody knows which it is
 *	 - several peers commit each for itself: if the second fails after the first has
 *	   committed, what was produced at the first stays
 *
 * Consumed at a peer (commit_after is true).  All that was done at that peer, be it
 * producing, commits there just *after* the local transaction has.  If that fails,
 * or is not heard of in time, there is a warning: the messages that were consumed
 * come again (at least once), and what was produced at that peer in
 * the same transaction may be missing.  Where nothing fails in that moment, what
 * was consumed counts exactly once.
 *
 * A transaction that has written at a peer cannot be prepared
 * (slots_forbid_prepare(), which callers of peer_begin() call).
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PEER_TRANSACTION_H
#define PGTOPIC_PEER_TRANSACTION_H

#include "postgres.h"

#include "base/compat.h"
#include "peer/connection.h"

/*
 * Before a call that writes: opens a transaction at the peer, unless it is open,
 * and brings its savepoints up to the current subtransaction.  Returns whether it
 * was opened now.
 */
extern bool peer_begin(Peer *peer, bool commit_after);

/*
 * Whether this transaction has written to a partition at a broker, as was noted when it
 * did.  If that one is to hand over, it waits for the transaction, which therefore goes on
 * there.
 */
extern void peer_note_written(Peer *peer, int32 topic, int32 partition);
extern bool peer_has_written(int32 broker, int32 topic, int32 partition);

/*
 * Before a call that only reads: the same, if a transaction is open there; an
 * error must not undo more than it does here.
 */
extern void peer_join(Peer *peer);

/*
 * Rolls the peer's transaction back, which this very call has opened.  Does not
 * wait for the answer.
 */
extern void peer_rollback(Peer *peer);

/*
 * Registers the callbacks that end transactions at peers.  Once a process, before
 * those of the slots: the last to be registered are called first, and what was
 * produced here should not wait for others.
 */
extern void peer_register_callbacks(void);

#endif							/* PGTOPIC_PEER_TRANSACTION_H */
