/*-------------------------------------------------------------------------
 *
 * murmur2.h
 *	  The hash by which Kafka's default partitioner spreads keys.
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_MURMUR2_H
#define PGTOPIC_MURMUR2_H

#include "c.h"

/* Kafka's murmur2 (seed 0x9747b28c) of len bytes, as the signed int of Java. */
extern int32 murmur2(const void *data, size_t len);

/* The partition of a key: (murmur2(key) & 0x7fffffff) % partitions. */
extern int	murmur2_partition(const void *key, size_t len, int partitions);

#endif							/* PGTOPIC_MURMUR2_H */
