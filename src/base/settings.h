/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings (GUCs) of pgtopic.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SETTINGS_H
#define PGTOPIC_SETTINGS_H

#include "postgres.h"

/* What a commit that has produced waits for. */
typedef enum AcksSetting
{
	ACKS_LEADER,				/* nothing more */
	ACKS_ALL					/* all in-sync replicas */
} AcksSetting;

extern int	pgtopic_acks;
extern int	pgtopic_max_partitions; /* partition slots in shared memory */
extern int	pgtopic_max_open_appends;	/* (transaction, partition) pairs */
extern int	pgtopic_max_databases;	/* databases with the extension */
extern int	pgtopic_producer_expiration;	/* s; -1: never */
extern int	pgtopic_retention_check_interval;	/* ms */
extern int	pgtopic_checkpoint_interval;	/* ms */
extern int	pgtopic_segment_wait_timeout;	/* ms */
extern int	pgtopic_broker_session_timeout; /* ms */
extern int	pgtopic_replica_lag_time_max;	/* ms */
extern int	pgtopic_handover_timeout;	/* ms */
extern int	pgtopic_leader_rebalance_interval;	/* ms; -1: never */
extern int	pgtopic_follower_wal_keep_size; /* MB; -1: no limit */

/* Defines them; only while shared_preload_libraries is being processed. */
extern void settings_define(void);

/*
 * The shortest time, in ms, without a controller after which brokers elect another one;
 * the longest is twice that.  So there is one, as a rule, by the time that the broker
 * which was it is to be fenced.
 */
extern int	settings_election_timeout(void);

#endif							/* PGTOPIC_SETTINGS_H */
