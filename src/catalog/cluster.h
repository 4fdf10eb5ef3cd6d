/*-------------------------------------------------------------------------
 *
 * cluster.h
 *	  What the catalog says of the cluster that this database is a broker of.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_CATALOG_CLUSTER_H
#define PGTOPIC_CATALOG_CLUSTER_H

#include "postgres.h"

#include "catalog/topics.h"

/* The number of this broker; 0 if this database is not in a cluster. Cached. */
extern int32 cluster_self(void);

/* Its cluster; an empty string if it is not in one.  Cached. */
extern const char *cluster_id(void);

/*
 * The name of the logical replication slot, at the leader, through which a
 * follower receives all that it copies from there; buffer has NAMEDATALEN.
 */
extern void follower_slot_name(const char *cluster_id, int32 leader, int32 follower,
							   char *buffer);

/*
 * Whether this server takes and gives the partition's messages.  As far as the
 * cached catalog tells: the partition's slot knows it for certain.
 */
extern bool partition_is_led_here(const LogPartition *partition);

/*
 * How to connect to a broker, in the caller's memory.  It may hold secrets.  An
 * error (42704) if there is no such broker.
 */
extern char *broker_conninfo(int32 broker);

/* Has all backends look at pgtopic.cluster and pgtopic.broker again when this
 * transaction commits. */
extern void cluster_invalidate(void);

#endif							/* PGTOPIC_CATALOG_CLUSTER_H */
