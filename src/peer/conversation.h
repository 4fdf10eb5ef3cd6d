/*-------------------------------------------------------------------------
 *
 * conversation.h
 *	  Calling another broker's functions.
 *
 * Calls are sent one behind the other and answered in the same order; everything
 * is binary.  What is sent up to a sync is one unit for the peer: if something in it
 * fails, the rest is not done.
 *
 * Waits for a peer are interruptible.  An error that is raised in the midst of a
 * conversation leaves answers outstanding: the end of the (sub)transaction reads
 * them, or closes the connection (transaction.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PEER_CONVERSATION_H
#define PGTOPIC_PEER_CONVERSATION_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/compat.h"
#include "peer/connection.h"
#include "peer/wire.h"

/* A statement that is prepared when it is first used. */
typedef struct PeerStatement
{
	int			number;			/* below 64, unique */
	const char *name;
	const char *sql;
	int			params;
	Oid			types[PEER_PARAMS_MAX];
} PeerStatement;

/* Takes a row. */
typedef void (*PeerRowSink) (void *arg, const PGresult *result, int row);

typedef enum PeerOutcome
{
	PEER_OK,
	PEER_FAILED,				/* the peer has raised an error: peer->error */
	PEER_LOST					/* the connection is lost, and closed */
} PeerOutcome;

/* The wait event of all that waits for a peer. */
extern uint32 peer_wait_event(void);

/* Sends a call, or a command that concerns the transaction.  Not yet on its way. */
extern void peer_send(Peer *peer, const PeerStatement *statement, const PeerParams *params);
extern void peer_send_command(Peer *peer, const char *sql);

/* Ends a unit, and has it on its way, as far as that goes without waiting. */
extern void peer_sync(Peer *peer);

/* Reads the answer of the next call; rows go to the sink, which may be NULL. */
extern PeerOutcome peer_receive(Peer *peer, PeerRowSink sink, void *arg);
extern PeerOutcome peer_receive_by(Peer *peer, PeerRowSink sink, void *arg, TimestampTz deadline);

/* Reads all answers that are outstanding. */
extern PeerOutcome peer_receive_all(Peer *peer);

/*
 * Sends, as a unit of its own, a call whose answer may take long, and which ends
 * as soon as something is sent after it (the peer watches its connection).  So it
 * need not be cancelled, and may stay outstanding: the next call ends it.
 */
extern PeerOutcome peer_send_wait(Peer *peer, const PeerStatement *statement,
								  const PeerParams *params);

/*
 * Whether a call that was sent with peer_send_wait() has been answered, as far as
 * can be told without waiting; its answer is then read with peer_receive_wait().
 */
extern bool peer_wait_is_over(Peer *peer);
extern PeerOutcome peer_receive_wait(Peer *peer, PeerRowSink sink, void *arg);

/* Has such a call end.  Waits for nothing. */
extern void peer_end_wait(Peer *peer);

/*
 * Ends what has been sent with a sync and reads all answers within a time; false,
 * and the connection is closed, if that is over, the connection is lost, or the
 * last unit has failed.  Raises nothing, and is not interrupted.
 */
extern bool peer_settle(Peer *peer, int milliseconds);

/* Sends a command, as a unit of its own, at the end of a transaction.  Raises nothing. */
extern bool peer_send_quietly(Peer *peer, const char *sql);

/* Closes a connection that is no good any more, and notes what libpq says of it. */
extern void peer_note_lost(Peer *peer);

/* The SQLSTATE of the peer's error, as errcode() takes it. */
extern int	peer_error_code(const Peer *peer);

/* Raises what has happened: the peer's error as it is, or 08006. */
pg_noreturn extern void peer_raise(Peer *peer, PeerOutcome outcome);
pg_noreturn extern void peer_raise_lost(Peer *peer);

#endif							/* PGTOPIC_PEER_CONVERSATION_H */
