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

#endif							/* PGTOPIC_REPLICATION_H */
