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
	TimestampTz at;				/* for people */
	int64		at_ms;			/* monotonic */
} BrokerSeen;

typedef struct ClusterState
{
	int32		controller;		/* broker, as far as is known; 0: none */
	int64		controller_term;	/* this broker is the controller of this term; 0 */
	int64		heard_ms;		/* monotonic; when a controller was heard last */
	int64		lease_ms;		/* see cluster_state_extend_lease() */
	int64		lease_version;	/* what has to be applied before the lease is worth anything */
	bool		has_majority;	/* of the controller: a majority answers it */
	int64		started_ms;		/* monotonic; when the quorum worker has begun; 0: not yet */
	int64		committed_version;
	int64		applied_version;
	bool		serves;			/* see cluster_state_set_serves() */
	int			fenced_count;
	int32		fenced[CLUSTER_BROKERS_MAX];	/* by the metadata that was applied */
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
extern void cluster_state_set_started(void);
extern void cluster_state_set_committed(int64 version);
extern void cluster_state_set_applied(int64 version);
extern void cluster_state_set_fenced(const int32 *brokers, int count);
extern void cluster_state_saw(int32 broker);

/*
 * Says that what this broker has sent at a time of its own clock has been heard: by the
 * controller, which fences nobody whom it has heard within the session timeout, or, for
 * the controller itself, by a majority.  When a message arrives says nothing: it may have
 * waited for a process that was stopped.  version is the newest metadata that the other
 * one knew to be committed then; if this broker was cut off before, it does nothing for
 * others before it has applied that.  Times before this server was started do not count.
 */
extern void cluster_state_extend_lease(int64 ms, int64 version);

/*
 * Whether this broker may lead what the metadata says that it leads: not before the
 * replication worker has seen that it is the broker that it was (no standby that was
 * promoted), and not while it is fenced.
 */
extern void cluster_state_set_serves(bool serves);

/* Whether the applied metadata has a broker as fenced. */
extern bool cluster_state_is_fenced(int32 broker);

/*
 * Why this broker takes nothing for partitions with replicas, for the detail of an
 * error; NULL if it does.  So it is when nobody has heard it (see above) for as many
 * session timeouts: others may lead by now.  This keeps nobody from losing anything
 * (that is done by commits, which wait for in-sync replicas); it tells clients soon
 * that they are at the wrong broker.
 */
extern const char *cluster_state_cut_off(int timeouts);

/* This database has left its cluster. */
extern void cluster_state_forget(void);

extern ConditionVariable *cluster_state_changed(void);

#endif							/* PGTOPIC_CLUSTER_STATE_H */
