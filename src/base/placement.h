/*-------------------------------------------------------------------------
 *
 * placement.h
 *	  Which brokers get the replicas of a new topic's partitions.
 *
 * Pure.  Kafka's rule (AdminUtils.assignReplicasToBrokers): the first replicas, the
 * preferred leaders, go round the brokers from a random start; the other replicas
 * follow at a shift that grows by one with each round, so that the partitions of
 * one leader have their followers on different brokers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PLACEMENT_H
#define PGTOPIC_PLACEMENT_H

#include "c.h"

/*
 * Fills replicas[0 .. factor - 1] for partition number partition of a topic.
 * brokers are ascending and count >= factor >= 1; start and shift are random
 * numbers, the same for all partitions of the topic.
 */
extern void place_replicas(const int32 *brokers, int count, int factor,
						   uint32 start, uint32 shift, int partition, int32 *replicas);

#endif							/* PGTOPIC_PLACEMENT_H */
