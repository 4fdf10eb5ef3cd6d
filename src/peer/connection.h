/*-------------------------------------------------------------------------
 *
 * connection.h
 *	  Connections to other brokers: one a session and broker, through libpq.
 *
 * A connection is kept from one transaction to the next.  It is looked at before
 * its first use in a transaction, and replaced if it has been broken meanwhile;
 * one that breaks later in a transaction is an error, if the transaction has
 * done anything there.
 *
 * Nothing here ever shows a connection string: it may hold a password.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PEER_CONNECTION_H
#define PGTOPIC_PEER_CONNECTION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "libpq-fe.h"

#include "base/compat.h"

/* What has been sent and not yet been answered, in this order. */
typedef enum PeerItemKind
{
	ITEM_COMMAND,				/* of a transaction */
	ITEM_COMMIT,
	ITEM_PREPARE,
	ITEM_CALL,
	ITEM_WAIT,					/* a call whose answer may take long, and that
								 * ends when something is sent after it */
	ITEM_SYNC
} PeerItemKind;

typedef struct PeerItem
{
	uint8		kind;			/* PeerItemKind */
	uint8		statement;		/* number of the statement, of ITEM_PREPARE */
} PeerItem;

typedef struct Peer
{
	int32		broker;			/* hash key, must be first */
	PGconn	   *conn;			/* NULL: none */
	bool		connected;		/* it is made, and leads to the right broker */
	char	   *conninfo;		/* that it was made with */
	bool		used;			/* in this transaction */
	bool		fresh;			/* made in this transaction */
	TimestampTz failed_until;	/* not to be tried again before; 0: last time it
								 * went well */
	char	   *failure;		/* why */

	/* conversation.c */
	PGresult   *result;			/* that is being looked at */
	PGresult   *error;			/* the first error since the last sync */
	char	   *lost_detail;	/* what libpq says of a lost connection */
	uint64		prepared;		/* statements that the peer knows: bits */
	uint64		preparing;		/* that it has been sent */
	PeerItem   *items;
	int			items_size;
	int			items_first;
	int			items_end;

	/* transaction.c */
	int			depth;			/* 0: no transaction is open there; 1: one is; more:
								 * with so many savepoints */
	int			opened_depth;	/* how deep in subtransactions the outermost is that has used it */
	bool		commit_after;	/* commits after the local transaction */
	bool		committing;		/* has been told to commit */
	bool		committed;
	bool		lost;			/* with what this transaction had done there */
	struct PeerPartition *written;	/* by this transaction, while depth > 0 */
	int			written_count;
	int			written_size;
} Peer;

/* Why there is no connection. */
typedef struct PeerFailure
{
	int32		broker;			/* 0: there is one */
	char	   *detail;			/* in the caller's memory */
} PeerFailure;

/*
 * The connection to a broker, made if need be.  If that is not possible: an error
 * (08001), or NULL where failure is given.  After that has happened, it is not
 * tried again for a second.  An error (08006) if the connection was lost
 * with what this transaction had done there.  Interruptible.
 */
extern Peer *peer_open(int32 broker, PeerFailure *failure);

/* Whether the last attempt to connect has failed: others first. */
extern bool peer_has_failed(int32 broker);

/* Raises what peer_open() has not. */
pg_noreturn extern void peer_raise_failure(const PeerFailure *failure);

/* Whether a connection is known to be broken.  Waits for nothing. */
extern bool peer_is_broken(Peer *peer);

/* Closes a connection at once.  Raises nothing. */
extern void peer_close(Peer *peer);

/* Goes through all peers; start with *position = 0. */
extern Peer *peers_next(int *position);

#endif							/* PGTOPIC_PEER_CONNECTION_H */
