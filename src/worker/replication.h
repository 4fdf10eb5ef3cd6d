/*-------------------------------------------------------------------------
 *
 * replication.h
 *	  The parts of the replication worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_REPLICATION_H
#define PGTOPIC_REPLICATION_H

#include "postgres.h"

#include "catalog/extension.h"

/* A transaction as the extension's owner, connected to SPI. */
extern void worker_owner_begin(ExtensionOwner *saved);
extern void worker_owner_end(ExtensionOwner *saved, MemoryContext context);

/*
 * Both look once, do what can be done now, and return whether to look again soon.
 * Called in no transaction.
 */
extern bool leader_run(void);
extern bool follower_run(bool checkpoints);

/*
 * Drops the tables of topics that are gone, and of partitions that this broker has no
 * replica of, as far as that can be done now.  True if there are some left.
 */
extern bool leftovers_run(void);

/*
 * Whether this is the broker that it was, and not a standby of it that was promoted;
 * sees to it that it is.  Until then it neither leads nor follows.
 */
extern bool standing_is_known(void);

/* Comes back into the cluster if this broker was fenced.  Whether to look again soon. */
extern bool standing_run(void);

/* Drops slots of table synchronisation that this broker has left behind at others. */
extern void sync_slots_run(void);

#endif							/* PGTOPIC_REPLICATION_H */
