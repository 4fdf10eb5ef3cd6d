/*-------------------------------------------------------------------------
 *
 * followers.c
 *	  The brokers that copy partitions from databases of this server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "replication/slot.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "shmem/followers.h"
#include "shmem/slots.h"

typedef struct Follower
{
	pg_atomic_uint64 confirmed; /* read without the lock */
	FollowerState state;		/* InvalidOid: free; but for confirmed */
	XLogRecPtr	sample;			/* end of WAL at … */
	TimestampTz sampled_at;		/* 0: no sample */
} Follower;

typedef struct FollowersControl
{
	int			tranche;
	bool		complained;		/* that it is full */
	LWLock		lock;
	Follower	followers[FOLLOWERS_MAX];
} FollowersControl;

static FollowersControl *control = NULL;

Size
followers_shmem_size(void)
{
	return sizeof(FollowersControl);
}

void
followers_shmem_init(void)
{
	bool		found;

	control = ShmemInitStruct("pgtopic followers", followers_shmem_size(), &found);
	if (!found)
	{
		memset(control, 0, followers_shmem_size());
		control->tranche = LWLockNewTrancheId();
		LWLockInitialize(&control->lock, control->tranche);
		for (int i = 0; i < FOLLOWERS_MAX; i++)
			pg_atomic_init_u64(&control->followers[i].confirmed, InvalidXLogRecPtr);
	}
	LWLockRegisterTranche(control->tranche, "pgtopic");
}

/* Finds a follower, or with InvalidOid and 0 a free place; the lock is held. */
static int
find(Oid database, int32 broker)
{
	for (int i = 0; i < FOLLOWERS_MAX; i++)
	{
		if (control->followers[i].state.database == database &&
			control->followers[i].state.broker == broker)
			return i;
	}
	return -1;
}

static void
clear(Follower *follower)
{
	memset(&follower->state, 0, sizeof(FollowerState));
	follower->sampled_at = 0;
	pg_atomic_write_u64(&follower->confirmed, InvalidXLogRecPtr);
}

int
follower_index(Oid database, int32 broker, const char *slot_name)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		complain = false;
	bool		renamed = false;
	int			i;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	i = find(database, broker);
	if (i >= 0 && strcmp(control->followers[i].state.slot_name, slot_name) != 0)
		renamed = true;
	else if (i < 0)
		i = find(InvalidOid, 0);
	if (i >= 0 && (renamed || !OidIsValid(control->followers[i].state.database)))
	{
		Follower   *follower = &control->followers[i];

		clear(follower);
		follower->state.database = database;
		follower->state.broker = broker;
		strlcpy(follower->state.slot_name, slot_name, NAMEDATALEN);
		follower->state.caught_up_at = now;
	}
	else if (i < 0)
	{
		complain = !control->complained;
		control->complained = true;
	}
	LWLockRelease(&control->lock);

	if (renamed)
		slots_forget_follower(i);
	if (complain)
		ereport(LOG,
				(errmsg("pgtopic has no room for more than %d followers of databases of this server",
						FOLLOWERS_MAX),
				 errdetail("What is produced to partitions with further in-sync replicas is not confirmed.")));
	return i;
}

uint64
follower_mask(Oid database, int32 broker, const char *slot_name)
{
	int			i = follower_index(database, broker, slot_name);

	return i < 0 ? FOLLOWER_UNKNOWN_MASK : UINT64CONST(1) << i;
}

int
follower_find(Oid database, int32 broker)
{
	int			i;

	LWLockAcquire(&control->lock, LW_SHARED);
	i = find(database, broker);
	LWLockRelease(&control->lock);
	return i;
}

void
follower_forget(Oid database, int32 broker)
{
	int			i = follower_find(database, broker);

	if (i < 0)
		return;

	/* before its number can be another's, for whom the bit would speak */
	slots_forget_follower(i);
	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	if (find(database, broker) == i)
		clear(&control->followers[i]);
	control->complained = false;
	LWLockRelease(&control->lock);
}

void
followers_forget_database(Oid database)
{
	for (int i = 0; i < FOLLOWERS_MAX; i++)
	{
		FollowerState state;

		if (follower_state(i, &state) && state.database == database)
			follower_forget(database, state.broker);
	}
}

/* What a replication slot's client has confirmed; false if there is no slot. */
static bool
read_slot(const char *name, XLogRecPtr *confirmed)
{
	ReplicationSlot *slot;
	bool		valid = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		valid = slot->data.database == MyDatabaseId &&
			!compat_slot_is_invalidated(&slot->data);
		*confirmed = slot->data.confirmed_flush;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return valid;
}

/* Looks at one follower; the lock is held.  *lost: its slot is not there now. */
static bool
poll(Follower *follower, XLogRecPtr end, TimestampTz now, bool *lost)
{
	XLogRecPtr	before = pg_atomic_read_u64(&follower->confirmed);
	XLogRecPtr	confirmed = InvalidXLogRecPtr;
	bool		has_slot = read_slot(follower->state.slot_name, &confirmed);

	*lost = follower->state.has_slot && !has_slot;
	follower->state.has_slot = has_slot;
	if (!has_slot)
	{
		confirmed = InvalidXLogRecPtr;
		follower->sampled_at = 0;
	}
	else
	{
		if (follower->sampled_at != 0 && confirmed >= follower->sample)
		{
			follower->state.caught_up_at = follower->sampled_at;
			follower->sampled_at = 0;
		}
		if (follower->sampled_at == 0)
		{
			follower->sample = end;
			follower->sampled_at = now;
		}
	}
	if (confirmed == before)
		return *lost;
	pg_atomic_write_u64(&follower->confirmed, confirmed);
	return true;
}

bool
followers_poll(void)
{
	XLogRecPtr	end = GetFlushRecPtr(NULL);
	TimestampTz now = GetCurrentTimestamp();
	bool		moved = false;
	uint64		lost_mask = 0;

	LWLockAcquire(&control->lock, LW_EXCLUSIVE);
	for (int i = 0; i < FOLLOWERS_MAX; i++)
	{
		bool		lost;

		if (control->followers[i].state.database != MyDatabaseId)
			continue;
		moved |= poll(&control->followers[i], end, now, &lost);
		if (lost)
			lost_mask |= UINT64CONST(1) << i;
	}
	LWLockRelease(&control->lock);

	for (int i = 0; lost_mask != 0; i++)
	{
		if (lost_mask & (UINT64CONST(1) << i))
			slots_forget_follower(i);
		lost_mask &= ~(UINT64CONST(1) << i);
	}
	return moved;
}

XLogRecPtr
follower_confirmed(int index)
{
	return pg_atomic_read_u64(&control->followers[index].confirmed);
}

XLogRecPtr
followers_confirmed(uint64 mask)
{
	XLogRecPtr	confirmed = PG_UINT64_MAX;

	if (mask & FOLLOWER_UNKNOWN_MASK)
		return InvalidXLogRecPtr;
	while (mask != 0)
	{
		confirmed = Min(confirmed, follower_confirmed(pg_rightmost_one_pos64(mask)));
		mask &= mask - 1;
	}
	return confirmed;
}

XLogRecPtr
followers_wal_end(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();

	/*
	 * Where a page has just been filled, that is behind the header of the next one,
	 * which is not written before there is another record.
	 */
	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD ||
		(XLogSegmentOffset(end, wal_segment_size) > XLOG_BLCKSZ &&
		 end % XLOG_BLCKSZ == SizeOfXLogShortPHD))
		end -= end % XLOG_BLCKSZ;
	XLogSetAsyncXactLSN(end);
	return end;
}

bool
follower_state(int index, FollowerState *state)
{
	LWLockAcquire(&control->lock, LW_SHARED);
	*state = control->followers[index].state;
	state->confirmed = follower_confirmed(index);
	LWLockRelease(&control->lock);
	return OidIsValid(state->database);
}
