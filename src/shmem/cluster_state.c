/*-------------------------------------------------------------------------
 *
 * cluster_state.c
 *	  What the processes of a broker tell each other about their cluster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "shmem/cluster_state.h"

typedef struct StateEntry
{
	Oid			database;		/* InvalidOid: empty */
	ClusterState state;
} StateEntry;

typedef struct StatesControl
{
	int			tranche;
	LWLock		lock;			/* all below */
	ConditionVariable changed;	/* any of them */
	int64		started_ms;
	StateEntry	entries[FLEXIBLE_ARRAY_MEMBER];
} StatesControl;

static StatesControl *control = NULL;

Size
cluster_state_shmem_size(void)
{
	return add_size(offsetof(StatesControl, entries),
					mul_size(pgtopic_max_databases, sizeof(StateEntry)));
}

void
cluster_state_shmem_init(void)
{
	bool		found;

	control = ShmemInitStruct("pgtopic clusters", cluster_state_shmem_size(), &found);
	if (!found)
	{
		memset(control, 0, cluster_state_shmem_size());
		control->tranche = LWLockNewTrancheId();
		LWLockInitialize(&control->lock, control->tranche);
		ConditionVariableInit(&control->changed);
		control->started_ms = cluster_clock_ms();
	}
	LWLockRegisterTranche(control->tranche, "pgtopic");
}

int64
cluster_clock_ms(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

/* The entry of a database; the lock is held. */
static StateEntry *
entry_find(Oid database)
{
	for (int i = 0; i < pgtopic_max_databases; i++)
	{
		if (control->entries[i].database == database)
			return &control->entries[i];
	}
	return NULL;
}

/*
 * Locks this database's state to change it.  There is one entry for each database
 * that can have workers, so there is room for each that can be in a cluster; where
 * there is none all the same, what is changed is lost, as it is after a restart.
 */
static ClusterState *
change_begin(void)
{
	static ClusterState nowhere;
	StateEntry *entry;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(MyDatabaseId);
	if (entry == NULL)
	{
		entry = entry_find(InvalidOid);
		if (entry == NULL)
			return &nowhere;
		memset(entry, 0, sizeof(StateEntry));
		entry->database = MyDatabaseId;
	}
	return &entry->state;
}

static void
change_end(void)
{
	LWLockRelease(&control->lock);
	ConditionVariableBroadcast(&control->changed);
}

void
cluster_state_get(ClusterState *state)
{
	StateEntry *entry;

	LWLockAcquire(&control->lock, LW_SHARED);
	entry = entry_find(MyDatabaseId);
	if (entry != NULL)
		*state = entry->state;
	else
		memset(state, 0, sizeof(ClusterState));
	LWLockRelease(&control->lock);
}

void
cluster_state_heard_controller(int32 controller)
{
	int64		now = cluster_clock_ms();
	ClusterState *state = change_begin();

	state->controller = controller;
	state->heard_ms = now;
	change_end();
}

void
cluster_state_extend_lease(int64 ms, int64 version)
{
	int64		now = cluster_clock_ms();
	ClusterState *state = change_begin();

	if (ms >= control->started_ms && ms <= now)
	{
		if (state->lease_ms == 0 || now - state->lease_ms > pgtopic_broker_session_timeout)
			state->lease_version = version;
		state->lease_ms = Max(state->lease_ms, ms);
	}
	LWLockRelease(&control->lock);
}

void
cluster_state_set_role(int32 controller, int64 controller_term, bool has_majority)
{
	ClusterState *state = change_begin();

	state->controller = controller;
	state->controller_term = controller_term;
	state->has_majority = has_majority;
	change_end();
}

void
cluster_state_set_started(void)
{
	int64		now = cluster_clock_ms();
	ClusterState *state = change_begin();

	state->started_ms = now;
	change_end();
}

void
cluster_state_set_committed(int64 version)
{
	ClusterState *state = change_begin();

	state->committed_version = Max(state->committed_version, version);
	change_end();
}

void
cluster_state_set_applied(int64 version)
{
	ClusterState *state = change_begin();

	state->applied_version = Max(state->applied_version, version);
	change_end();
}

void
cluster_state_set_fenced(const int32 *brokers, int count)
{
	ClusterState *state = change_begin();

	state->fenced_count = Min(count, CLUSTER_BROKERS_MAX);
	memcpy(state->fenced, brokers, state->fenced_count * sizeof(int32));
	change_end();
}

void
cluster_state_set_serves(bool serves)
{
	ClusterState *state = change_begin();

	state->serves = serves;
	change_end();
}

bool
cluster_state_is_fenced(int32 broker)
{
	StateEntry *entry;
	bool		fenced = false;

	LWLockAcquire(&control->lock, LW_SHARED);
	entry = entry_find(MyDatabaseId);
	for (int i = 0; entry != NULL && i < entry->state.fenced_count; i++)
		fenced |= entry->state.fenced[i] == broker;
	LWLockRelease(&control->lock);
	return fenced;
}

const char *
cluster_state_cut_off(int timeouts)
{
	StateEntry *entry;
	const char *why = "It has not read the cluster's metadata yet.";

	LWLockAcquire(&control->lock, LW_SHARED);
	entry = entry_find(MyDatabaseId);
	if (entry != NULL)
	{
		const ClusterState *state = &entry->state;

		if (state->lease_ms == 0)
			;
		else if (cluster_clock_ms() - state->lease_ms > (int64) timeouts * pgtopic_broker_session_timeout)
			why = "It has heard from no majority of the brokers for pgtopic.broker_session_timeout.";
		else if (!state->serves || state->applied_version < state->lease_version)
			why = "It is coming back into the cluster.";
		else
			why = NULL;
	}
	LWLockRelease(&control->lock);
	return why;
}

void
cluster_state_saw(int32 broker)
{
	TimestampTz now = GetCurrentTimestamp();
	ClusterState *state = change_begin();

	for (int i = 0; i < CLUSTER_BROKERS_MAX; i++)
	{
		if (state->seen[i].id == broker || state->seen[i].id == 0)
		{
			state->seen[i].id = broker;
			state->seen[i].at = now;
			state->seen[i].at_ms = cluster_clock_ms();
			break;
		}
	}
	LWLockRelease(&control->lock);
}

void
cluster_state_forget(void)
{
	StateEntry *entry;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	entry = entry_find(MyDatabaseId);
	if (entry != NULL)
		entry->database = InvalidOid;
	change_end();
}

ConditionVariable *
cluster_state_changed(void)
{
	return &control->changed;
}
