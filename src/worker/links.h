/*-------------------------------------------------------------------------
 *
 * links.h
 *	  Connections of the quorum worker to the other brokers, none of which it ever
 *	  waits for: connecting, sending and receiving go on when sockets are ready.
 *
 * One call is under way on a link at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_LINKS_H
#define PGTOPIC_LINKS_H

#include "postgres.h"

#include "libpq-fe.h"

#include "base/image.h"

typedef enum LinkState
{
	LINK_CLOSED,
	LINK_CONNECTING,
	LINK_IDLE,
	LINK_BUSY
} LinkState;

typedef struct Link
{
	int32		broker;			/* 0: unused */
	char	   *conninfo;
	LinkState	state;
	PGconn	   *conn;
	PostgresPollingStatusType polling;
	int			call;			/* the caller's name for what is under way */
	PGresult   *answer;			/* that came; good once its transaction has ended */
	int64		since;			/* ms; of the state */
	int64		sent_ms;		/* when what is under way was sent */
	int64		committed_sent; /* the caller's; 0 on a new connection, and so below */
	int64		heard_ms;		/* when what was answered last was sent */
	int64		clock;			/* of the other broker, in that answer */
	bool		complained;
} Link;

/*
 * One row came back, and the transaction there has ended.  False: it is not the answer of
 * that broker, and the link is as one that has failed.
 */
typedef bool (*LinkAnswer) (Link *link, PGresult *result);

/* Brings the links in line with the brokers that an image names, but for self. */
extern void links_set(const Image *image, int32 self);

/* Gives up what takes longer than so many ms, and connects again what was lost. */
extern void links_keep(int64 too_long);

/* The link to a broker; NULL: there is none. */
extern const Link *link_to(int32 broker);

/* Goes through the links that a call can be sent on; start with *position = 0. */
extern Link *links_next_idle(int *position);
extern void link_send(Link *link, int call, const char *sql, int nparams, const char *const *params);

/* Waits for sockets, the latch, or the time, and moves the links on. */
extern void links_wait(long timeout, uint32 wait_event, LinkAnswer answer);

#endif							/* PGTOPIC_LINKS_H */
