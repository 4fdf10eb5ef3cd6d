/*-------------------------------------------------------------------------
 *
 * arrivals.h
 *	  Whether anything of a table can still arrive through our subscriptions.
 *
 * That a table has left a publication, and the subscription knows, is not enough:
 * what is published is decided as of the WAL that is decoded, so rows that were
 * written before may be on their way, and an apply worker that has had the table
 * once writes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_ARRIVALS_H
#define PGTOPIC_ARRIVALS_H

#include "postgres.h"

/*
 * Begins a round of the replication worker.  What is known of a table is forgotten
 * if nobody asks for it in the next round.
 */
extern void arrivals_begin_round(MemoryContext context);

/*
 * Whether nothing of a partition's tables (of all of a topic's, if partition is -1)
 * arrives any more: no leader that we receive from publishes them to us, and all has
 * arrived that was written by transactions that had begun before they left the
 * publication.  None of our subscriptions has them when this is called.
 *
 * drop says that the tables are to be dropped.  Else a leader that cannot be asked
 * stops nobody: its apply worker is started anew, and then passes over what
 * may still come.  Called in no transaction.
 */
extern bool arrivals_are_over(int32 topic, int32 partition, bool drop);

#endif							/* PGTOPIC_ARRIVALS_H */
