/*-------------------------------------------------------------------------
 *
 * leaders.h
 *	  Which broker leads a partition.
 *
 * Leaders change.  The catalog of a broker tells who leads, as far as it has heard;
 * a peer that is asked for what it does not lead (any more, or yet) says so.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_LEADERS_H
#define PGTOPIC_LEADERS_H

#include "postgres.h"

#include "catalog/topics.h"
#include "shmem/slots.h"

/* What a broker says that is not asked the right thing. */
#define ERRCODE_NOT_LEADER	ERRCODE_CANNOT_CONNECT_NOW

/* How long a change of leaders is waited for, and how often one looks. */
#define HANDOVER_WAIT_MS	10000
#define HANDOVER_POLL_MS	20

/*
 * How long, in ms, to try again where a leader cannot be reached: until it is back, or
 * there is another one.  0 where that cannot be, since this broker is cut off itself.
 */
extern int	leader_wait_ms(void);

/*
 * This broker has come to lead the partition again, and its slot does not know yet: it tells
 * of the log as it was.  So for as long as transactions are open that have written to it
 * before.
 */
extern bool partition_is_stale_here(const LogPartition *partition);

/*
 * To be called before somebody is told that there is no such offset by the state of a
 * partition that was led here just now.  An error (57P03) if others may know better: this
 * broker is cut off, or the state is of another leader epoch than the one in which it led.
 */
extern void leader_check_state(const LogPartition *partition, const SlotState *state);

/* Whether the partition can be written to here and now. */
extern bool partition_is_ready_here(const LogPartition *partition);

/*
 * The broker that leads a partition; 0 if it is this one.  For writing, waits while
 * the leader is handing over, and raises an error (57P03) if that takes too long.  The
 * same error if nobody leads.
 * Looks the topic up anew.  Interruptible.
 */
extern int32 partition_leader(int32 topic, int32 partition, bool writing);

/*
 * The part of a topic that one broker leads.  Ascending by broker, so that calls
 * which lock many partitions come by them in the same order everywhere.
 */
typedef struct Place
{
	int32		broker;			/* 0: this one */
	int32	   *partitions;
	int			count;
} Place;

/* Fills places, which has room for BROKERS_MAX + 1, for writing to all partitions of a topic. */
extern int	topic_places(int32 topic, Place *places);

/* The error of a peer's function, or of a slot, that finds itself asked for what it
 * does not lead. */
pg_noreturn extern void error_not_leader(const LogPartition *partition);

#endif							/* PGTOPIC_LEADERS_H */
