/*-------------------------------------------------------------------------
 *
 * subscribe.h
 *	  The follower's side of replication: one subscription for each leader.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SUBSCRIBE_H
#define PGTOPIC_SUBSCRIBE_H

#include "postgres.h"

/* In the caller's memory. */
extern char *subscription_name(int32 leader);

/* Needs a transaction, connected to SPI as the extension's owner. */
extern bool subscription_exists(int32 leader);

/*
 * How far PostgreSQL is in bringing the tables of a partition here: 0 if neither is
 * in the subscription, 'r' if both are and are streaming, else something else.
 * Needs what subscription_exists() needs.
 */
extern char subscription_state(int32 leader, int32 topic, int32 partition);

/*
 * Whether the copying of a partition's tables has come to a stop: the copy is there, and
 * since long no worker is at what comes after it.  So it is when this server was
 * stopped in between: PostgreSQL has dropped the slot for it already.  Needs the same.
 */
extern bool subscription_is_stuck(int32 leader, int32 topic, int32 partition);

/*
 * Makes the subscription, empty or with what the leader publishes now; has
 * it look at what is published.  For a worker that is in no transaction: they run
 * as a command of their own, since they connect to the leader.
 */
extern void subscribe_create(int32 leader, const char *conninfo);
extern void subscribe_refresh(int32 leader);

/*
 * Drops the subscription; when it returns, nothing that it receives is written any
 * more.  The leader drops the slot (publish_end()).  If it does not answer, slots of
 * tables that were being copied stay there: see worker/sync_slots.c.  For a worker that
 * is in no transaction.
 */
extern void subscribe_drop(int32 leader, bool answers);

/*
 * Ends the apply worker and starts it anew; returns when the old one is gone.  The new
 * one has to look up again which tables it may write.
 */
extern void subscribe_restart(int32 leader);

/* The leaders that there are subscriptions for, in the caller's memory. Like subscription_exists(). */
extern int32 *subscribe_leaders(int *count);

/*
 * The same as subscribe_drop() for all leaders, in the caller's transaction, for the
 * session that takes this database out of the cluster.
 */
extern void subscribe_drop_all(void);

#endif							/* PGTOPIC_SUBSCRIBE_H */
