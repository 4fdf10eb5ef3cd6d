/*-------------------------------------------------------------------------
 *
 * restored.h
 *	  A dump of a broker, restored as a database of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_RESTORED_H
#define PGTOPIC_RESTORED_H

#include "postgres.h"

/*
 * Where this database is not in a cluster, makes a topic one of a single server: its
 * only replicas are here, and partitions that the broker had no replica of begin with
 * nothing.  In a transaction.  Returns false, having done nothing, if the dump is not
 * restored to its end yet, as far as can be told.  True too if there is nothing to be done.
 */
extern bool restored_settle(int32 topic);

/*
 * Forgets what leaders have told followers along with a topic's positions: it is about
 * the leaders of this cluster.  As the extension's owner, with SPI connected.
 */
extern void restored_forget_leaders(int32 topic);

#endif							/* PGTOPIC_RESTORED_H */
