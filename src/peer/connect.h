/*-------------------------------------------------------------------------
 *
 * connect.h
 *	  How brokers connect to each other: conninfo, and connecting without ever
 *	  blocking.
 *
 * A conninfo may hold secrets.  Nothing here puts one into a message, and not what
 * libpq says of a malformed one either, since that quotes from it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_CONNECT_H
#define PGTOPIC_CONNECT_H

#include "postgres.h"

#include "libpq-fe.h"

/*
 * The conninfo with what every connection between brokers has, unless it has its
 * own: an application_name that says whose it is, time limits, and of several hosts
 * the one that can write; and this database's client_encoding.  In the caller's memory; as it was if it is malformed.
 */
extern char *peer_conninfo(const char *conninfo, int32 self);

/* The conninfo without its password and other secrets, to be shown; "" if it is malformed. */
extern char *peer_conninfo_shown(const char *conninfo);

extern bool peer_conninfo_is_valid(const char *conninfo);

/* Seconds that connecting may take, by the conninfo or by default. */
extern int	peer_connect_timeout(const char *conninfo);

/*
 * Goes on connecting what PQconnectStart() has begun, interruptibly, up to a time of
 * cluster_clock_ms(), or until the metadata has the broker (0: no matter which) as
 * fenced.  NULL if it is connected, else why not, in the caller's memory.
 */
extern char *peer_establish(PGconn *conn, int64 deadline, uint32 wait_event, int32 broker);

/*
 * Has this process not wait any longer for other brokers, when it has waited for
 * PEER_PATIENCE_MS and the function says that it is in vain.
 */
#define PEER_PATIENCE_MS	200
extern void peer_give_up_when(bool (*in_vain) (void));
extern bool peer_is_in_vain(void);

/* What to say of a broker that the metadata has as fenced. */
#define PEER_IS_GONE	"It is counted as gone."

#endif							/* PGTOPIC_CONNECT_H */
