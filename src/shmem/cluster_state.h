/*-------------------------------------------------------------------------
 *
 * cluster_state.h
 *	  What the processes of a broker tell each other about their cluster: who
 *	  the controller is, how far the metadata is, who was heard when.
 *
 * All of it can be lost: it is found out again.  What must not be lost is in
 * pgtopic.cluster.  One lock guards it all; it is held for a few instructions,
 * and taken when no other lock of pgtopic is held.  Nothing here raises errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_CLUSTER_STATE_H
#define PGTOPIC_CLUSTER_STATE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"

#define CLUSTER_BROKERS_MAX		32

typedef struct BrokerSeen
{
	int32		id;				/* 0: none */
	TimestampTz at;
} BrokerSeen;

typedef struct ClusterState
{
	int32		controller;		/* broker, as far as is known; 0: none */
	int64		controller_term;	/* this broker is the controller of this term; 0 */
	int64		heard_ms;		/* monotonic; when a controller was heard last */
	bool		has_majority;	/* of the controller: a majority answers it */
	int64		committed_version;
	int64		applied_version;
	BrokerSeen	seen[CLUSTER_BROKERS_MAX];
} ClusterState;

extern Size cluster_state_shmem_size(void);
extern void cluster_state_shmem_init(void);

/* Milliseconds of a clock that all processes share and that never steps. */
extern int64 cluster_clock_ms(void);

/* The state of this database; all zero if nothing is known. */
extern void cluster_state_get(ClusterState *state);

/* Each changes one thing and wakes who sleeps on cluster_state_changed(). */
extern void cluster_state_heard_controller(int32 controller);
extern void cluster_state_set_role(int32 controller, int64 controller_term, bool has_majority);
extern void cluster_state_set_committed(int64 version);
extern void cluster_state_set_applied(int64 version);
extern void cluster_state_saw(int32 broker);

/* This database has left its cluster. */
extern void cluster_state_forget(void);

extern ConditionVariable *cluster_state_changed(void);

#endif							/* PGTOPIC_CLUSTER_STATE_H */
