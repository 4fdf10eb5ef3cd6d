/*-------------------------------------------------------------------------
 *
 * slots.c
 *	  Partition slots in shared memory.  See slots.h for what makes them right.
 *
 * The callbacks that run at the end of a transaction are in slots_xact.c, what has
 * to do with followers is in slots_acks.c, and what the maintenance worker does
 * with slots in slots_maintenance.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "shmem/slots.h"
#include "shmem/slots_private.h"

typedef struct DirectoryEntry
{
	SlotKey		key;
	int			slot;
} DirectoryEntry;

SlotsControl *slots_control = NULL;
PartitionSlot *slots_array = NULL;
OpenAppend *slots_pool = NULL;
AcksWaiter *slots_waiters = NULL;

static HTAB *directory = NULL;

/* Of what is in one piece, without the directory. */
static Size
arrays_size(void)
{
	Size		size;

	size = MAXALIGN(sizeof(SlotsControl));
	size = add_size(size, mul_size(pgtopic_max_partitions, sizeof(PartitionSlot)));
	size = add_size(size, mul_size(pgtopic_max_open_appends, sizeof(OpenAppend)));
	size = add_size(size, mul_size(MaxBackends, sizeof(AcksWaiter)));
	return size;
}

Size
slots_shmem_size(void)
{
	return add_size(arrays_size(), hash_estimate_size(pgtopic_max_partitions,
													  sizeof(DirectoryEntry)));
}

/* Called with AddinShmemInitLock held. */
void
slots_shmem_init(void)
{
	bool		found;
	HASHCTL		info;

	slots_control = ShmemInitStruct("pgtopic partition slots", arrays_size(), &found);
	slots_array = (PartitionSlot *) ((char *) slots_control + MAXALIGN(sizeof(SlotsControl)));
	slots_pool = (OpenAppend *) (slots_array + pgtopic_max_partitions);
	slots_waiters = (AcksWaiter *) (slots_pool + pgtopic_max_open_appends);

	if (!found)
	{
		slots_control->tranche = LWLockNewTrancheId();
		LWLockInitialize(&slots_control->directory_lock, slots_control->tranche);
		slots_control->evictions = 1;
		slots_control->clock_hand = 0;
		for (int i = 0; i < TOPIC_CONDITIONS; i++)
			ConditionVariableInit(&slots_control->topic_conditions[i]);
		for (int i = 0; i < PARTITION_CONDITIONS; i++)
			ConditionVariableInit(&slots_control->partition_conditions[i]);

		slots_control->free_slot = 0;
		for (int i = 0; i < pgtopic_max_partitions; i++)
		{
			PartitionSlot *slot = &slots_array[i];

			memset(slot, 0, sizeof(PartitionSlot));
			LWLockInitialize(&slot->lock, slots_control->tranche);
			openlist_init(&slot->open);
			slot->next_free = i + 1 < pgtopic_max_partitions ? i + 1 : -1;
		}

		SpinLockInit(&slots_control->pool_lock);
		slots_control->free_append = 0;
		slots_control->free_appends = pgtopic_max_open_appends;
		for (int i = 0; i < pgtopic_max_open_appends; i++)
			slots_pool[i].next = i + 1 < pgtopic_max_open_appends ? i + 1 : OPENLIST_NONE;

		LWLockInitialize(&slots_control->acks_lock, slots_control->tranche);
		slots_control->waiting = -1;
		slots_control->waiters = -1;
		pg_atomic_init_u32(&slots_control->commits, 0);
		pg_atomic_init_u32(&slots_control->sleeping, 0);
	}
	LWLockRegisterTranche(slots_control->tranche, "pgtopic");

	info.keysize = sizeof(SlotKey);
	info.entrysize = sizeof(DirectoryEntry);
	directory = ShmemInitHash("pgtopic partition directory",
							  pgtopic_max_partitions, pgtopic_max_partitions,
							  &info, HASH_ELEM | HASH_BLOBS);
}

bool
slots_available(void)
{
	return slots_control != NULL;
}

static inline bool
key_equal(const SlotKey *a, const SlotKey *b)
{
	return a->database == b->database && a->relation == b->relation;
}

PartitionSlot *
slots_lock(SlotRef *ref, LWLockMode mode)
{
	for (;;)
	{
		DirectoryEntry *entry;

		if (ref->slot >= 0)
		{
			PartitionSlot *slot = &slots_array[ref->slot];

			LWLockAcquire(&slot->lock, mode);
			if (key_equal(&slot->key, &ref->key))
			{
				slot->recently_used = true;
				return slot;
			}
			LWLockRelease(&slot->lock);
		}

		LWLockAcquire(&slots_control->directory_lock, LW_SHARED);
		entry = hash_search(directory, &ref->key, HASH_FIND, NULL);
		ref->slot = entry ? entry->slot : -1;
		LWLockRelease(&slots_control->directory_lock);
		if (ref->slot < 0)
			return NULL;
	}
}

void
slots_fill_anew(void)
{
	LWLockAcquire(&slots_control->directory_lock, LW_EXCLUSIVE);
	slots_control->evictions++;
	LWLockRelease(&slots_control->directory_lock);
}

int32
slots_pool_take(void)
{
	int32		append;

	SpinLockAcquire(&slots_control->pool_lock);
	append = slots_control->free_append;
	if (append != OPENLIST_NONE)
	{
		slots_control->free_append = slots_pool[append].next;
		slots_control->free_appends--;
	}
	SpinLockRelease(&slots_control->pool_lock);
	return append;
}

void
slots_pool_give(int32 chain)
{
	int32		last = chain;
	int			count = 1;

	if (chain == OPENLIST_NONE)
		return;
	for (; slots_pool[last].next != OPENLIST_NONE; last = slots_pool[last].next)
		count++;

	SpinLockAcquire(&slots_control->pool_lock);
	slots_pool[last].next = slots_control->free_append;
	slots_control->free_append = chain;
	slots_control->free_appends += count;
	SpinLockRelease(&slots_control->pool_lock);
}

bool
slots_move_watermark(PartitionSlot *slot)
{
	int64		watermark = openlist_watermark(&slot->open, slots_pool, slot->next_offset);
	bool		moved = watermark != slot->high_watermark && !slot->abandoned;

	if (moved)
		slot->high_watermark = watermark;
	return moved;
}

void
slots_wake(const SlotKey *key, int32 topic)
{
	ConditionVariableBroadcast(partition_condition(key));
	ConditionVariableBroadcast(topic_condition(topic));
}

/* For this transaction: an abandoned one is for everybody. */
static bool
is_closed(const PartitionSlot *slot, const SlotRef *ref, bool go_on)
{
	if (!slot->closed)
		return false;
	return slot->abandoned || !go_on ||
		!(slots_xact_has_append(ref->slot) || slots_xact_writes(ref->slot));
}

SlotResult
slot_reserve(SlotRef *ref, int64 count, bool go_on, int64 *first, bool *wake)
{
	PartitionSlot *slot;
	int32		append;

	*wake = false;

	/* memory for one more is made sure of before any lock is taken */
	slots_xact_prepare();

	slot = slots_lock(ref, LW_EXCLUSIVE);
	if (slot == NULL)
		return SLOT_MISSING;
	if (is_closed(slot, ref, go_on))
	{
		LWLockRelease(&slot->lock);
		return SLOT_CLOSED;
	}

	/* an int64 is not enough for more, and there is no segment for them */
	if (count > slot->segments_end - slot->next_offset)
	{
		if (slot->segments_wanted < slot->next_offset + count)
			slot->segments_wanted = slot->next_offset + count;
		slot->wants_segments = true;
		*wake = true;
		LWLockRelease(&slot->lock);
		return SLOT_NO_SEGMENT;
	}

	if (!slots_xact_has_append(ref->slot))
	{
		append = slots_pool_take();
		if (append == OPENLIST_NONE)
		{
			LWLockRelease(&slot->lock);
			ereport(ERROR,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("too many open appends"),
					 errdetail("Open transactions, and such that in-sync replicas have yet to confirm, have written to %d partitions, counted once for each transaction and partition.",
							   pgtopic_max_open_appends),
					 errhint("Increase pgtopic.max_open_appends, or end transactions earlier.")));
		}
		slots_pool[append].first_offset = slot->next_offset;
		slots_pool[append].since = GetCurrentTransactionStartTimestamp();
		slots_pool[append].lsn = InvalidXLogRecPtr;
		slots_pool[append].pid = MyProcPid;
		openlist_append(&slot->open, slots_pool, append);
		slot->high_watermark = openlist_watermark(&slot->open, slots_pool, slot->next_offset);
		slots_xact_add_append(ref->slot, append);
	}

	*first = slot->next_offset;
	slot->next_offset += count;
	if (slot->next_offset > slot->wake_at && !slot->wants_segments)
	{
		slot->wants_segments = true;
		*wake = true;
	}
	LWLockRelease(&slot->lock);
	return SLOT_OK;
}

SlotResult
slot_begin_write(SlotRef *ref, bool go_on)
{
	PartitionSlot *slot;
	bool		closed;

	slots_xact_prepare();

	slot = slots_lock(ref, LW_EXCLUSIVE);
	if (slot == NULL)
		return SLOT_MISSING;
	closed = is_closed(slot, ref, go_on);
	if (!closed && !slots_xact_writes(ref->slot))
	{
		slot->holders++;
		slots_xact_add_write(ref->slot);
	}
	LWLockRelease(&slot->lock);
	return closed ? SLOT_CLOSED : SLOT_OK;
}

bool
slot_is_mine(const SlotRef *ref)
{
	SlotRef		found = *ref;
	PartitionSlot *slot;
	bool		mine;

	slots_xact_prepare();
	slot = slots_lock(&found, LW_SHARED);
	if (slot == NULL)
		return false;
	mine = slots_xact_has_append(found.slot) || slots_xact_writes(found.slot);
	LWLockRelease(&slot->lock);
	return mine;
}

void
slot_await_insync(SlotRef *ref, int wanted)
{
	slots_xact_await_insync(ref->slot, wanted);
}

SlotResult
slot_state(SlotRef *ref, SlotState *state)
{
	PartitionSlot *slot = slots_lock(ref, LW_SHARED);

	if (slot == NULL)
		return SLOT_MISSING;
	state->next_offset = slot->next_offset;
	state->high_watermark = slot->high_watermark;
	state->isr_count = slot->isr_count;
	state->isr_mask = slot->isr_mask;
	state->filled_at = slot->filled_at;
	state->leader_epoch = slot->leader_epoch;
	if (slot->open.head == OPENLIST_NONE || slots_pool[slot->open.head].lsn != 0)
	{
		state->blocking_pid = 0;
		state->blocking_since = 0;
	}
	else
	{
		state->blocking_pid = slots_pool[slot->open.head].pid;
		state->blocking_since = slots_pool[slot->open.head].since;
	}
	LWLockRelease(&slot->lock);
	return SLOT_OK;
}

/*
 * Empties a slot and takes it out of the directory.  Both the directory lock
 * and the slot's lock are held exclusively, and no append is open.
 */
static void
slot_give_away(PartitionSlot *slot)
{
	hash_search(directory, &slot->key, HASH_REMOVE, NULL);
	slot->key.database = InvalidOid;
	slot->key.relation = InvalidOid;
	slots_control->evictions++;
}

/*
 * Returns the number of an empty slot, taking one from a partition that is not
 * in use if need be, or -1.  The directory lock is held exclusively.
 *
 * The slots' locks are only tried: somebody who holds one may be about to wait
 * for the directory, and a slot whose lock is held is in use anyway.
 */
static int
slot_find_victim(void)
{
	int			tries = 2 * pgtopic_max_partitions;

	if (slots_control->free_slot >= 0)
	{
		int			number = slots_control->free_slot;

		slots_control->free_slot = slots_array[number].next_free;
		return number;
	}

	while (tries-- > 0)
	{
		int			number = slots_control->clock_hand;
		PartitionSlot *slot = &slots_array[number];

		slots_control->clock_hand = (number + 1) % pgtopic_max_partitions;
		if (!LWLockConditionalAcquire(&slot->lock, LW_EXCLUSIVE))
			continue;
		if (slot->open.head != OPENLIST_NONE || slot->holders > 0 ||
			slot->high_watermark != slot->checkpointed || !slots_acks_positions(slot))
			LWLockRelease(&slot->lock);
		else if (slot->recently_used)
		{
			slot->recently_used = false;
			LWLockRelease(&slot->lock);
		}
		else
		{
			slot_give_away(slot);
			LWLockRelease(&slot->lock);
			return number;
		}
	}
	return -1;
}

uint64
slot_install_epoch(void)
{
	uint64		epoch;

	LWLockAcquire(&slots_control->directory_lock, LW_SHARED);
	epoch = slots_control->evictions;
	LWLockRelease(&slots_control->directory_lock);
	return epoch;
}

SlotInstallResult
slot_install(SlotRef *ref, uint64 epoch, const SlotContent *content)
{
	DirectoryEntry *entry;
	PartitionSlot *slot;
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	int32		append = OPENLIST_NONE;
	int			number;
	bool		found;

	/* what followers have not confirmed yet waits as one append */
	if (content->isr_mask != 0 && content->settled < content->next_offset)
	{
		append = slots_pool_take();
		if (append == OPENLIST_NONE)
			return SLOT_ALL_IN_USE;
		slots_pool[append].next = OPENLIST_NONE;
	}

	LWLockAcquire(&slots_control->directory_lock, LW_EXCLUSIVE);
	entry = hash_search(directory, &ref->key, HASH_FIND, NULL);
	if (entry != NULL)
	{
		ref->slot = entry->slot;
		LWLockRelease(&slots_control->directory_lock);
		slots_pool_give(append);
		return SLOT_INSTALLED;
	}
	if (slots_control->evictions != epoch)
	{
		LWLockRelease(&slots_control->directory_lock);
		slots_pool_give(append);
		return SLOT_STALE;
	}

	number = slot_find_victim();
	if (number < 0)
	{
		LWLockRelease(&slots_control->directory_lock);
		slots_pool_give(append);
		return SLOT_ALL_IN_USE;
	}

	slot = &slots_array[number];
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->key = ref->key;
	slot->topic = content->topic;
	slot->partition = content->partition;
	slot->next_offset = content->next_offset;
	slot->high_watermark = content->next_offset;
	slot->checkpointed = content->checkpointed;
	slot->leader_epoch = content->leader_epoch;
	slot->filled_at = GetCurrentTimestamp();
	slot->segments_end = content->segments_end;
	slot->segments_wanted = 0;
	slot->wake_at = content->segments_end - 2 * content->segment_messages;
	slot->wants_segments = false;
	slot->recently_used = true;
	slot->closed = content->closed;
	slot->abandoned = false;
	slot->holders = 0;
	slot->isr_count = content->isr_count;
	slot->isr_mask = content->isr_mask;
	slot->ready_mask = content->ready_mask;
	slot->positions_lsn = content->isr_mask != 0 ? content->lsn : InvalidXLogRecPtr;
	openlist_init(&slot->open);
	if (append != OPENLIST_NONE)
	{
		slots_pool[append].first_offset = content->settled;
		slots_pool[append].since = now;
		slots_pool[append].lsn = InvalidXLogRecPtr;
		slots_pool[append].pid = 0;
		openlist_append(&slot->open, slots_pool, append);
		(void) slots_acks_add(slot, append, content->lsn);
		(void) slots_move_watermark(slot);
	}
	LWLockRelease(&slot->lock);

	entry = hash_search(directory, &ref->key, HASH_ENTER_NULL, &found);
	Assert(entry != NULL && !found);	/* there are as many entries as slots */
	entry->slot = number;
	ref->slot = number;
	LWLockRelease(&slots_control->directory_lock);
	if (append != OPENLIST_NONE)
		slots_acks_wake_worker();
	return SLOT_INSTALLED;
}

/*
 * Empties a slot if it still belongs to whom it did, and was filled before a leader
 * epoch; the directory is locked.  Returns false if it is in use, or newer.
 */
static bool
slot_forget_if(int number, const SlotKey *key, int32 before_epoch)
{
	PartitionSlot *slot = &slots_array[number];
	int32		dropped = OPENLIST_NONE;
	bool		in_use;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	in_use = key_equal(&slot->key, key) &&
		(slot->leader_epoch >= before_epoch || slot->holders > 0 ||
		 openlist_has_open(&slot->open, slots_pool));
	if (key_equal(&slot->key, key) && !in_use)
	{
		dropped = slots_acks_drop(slot);
		slot_give_away(slot);
		slot->next_free = slots_control->free_slot;
		slots_control->free_slot = number;
	}
	LWLockRelease(&slot->lock);
	slots_pool_give(dropped);
	return !in_use;
}

bool
slot_forget(const SlotKey *key)
{
	DirectoryEntry *entry;
	bool		gone = true;

	LWLockAcquire(&slots_control->directory_lock, LW_EXCLUSIVE);
	entry = hash_search(directory, key, HASH_FIND, NULL);
	if (entry != NULL)
		gone = slot_forget_if(entry->slot, key, PG_INT32_MAX);
	else
		slots_control->evictions++;
	LWLockRelease(&slots_control->directory_lock);
	return gone;
}

bool
slot_forget_older(const SlotKey *key, int32 leader_epoch)
{
	DirectoryEntry *entry;
	bool		gone;

	LWLockAcquire(&slots_control->directory_lock, LW_EXCLUSIVE);
	entry = hash_search(directory, key, HASH_FIND, NULL);
	gone = entry != NULL && slot_forget_if(entry->slot, key, leader_epoch);
	LWLockRelease(&slots_control->directory_lock);
	return gone;
}

void
slots_forget_database(Oid database)
{
	LWLockAcquire(&slots_control->directory_lock, LW_EXCLUSIVE);
	for (int i = 0; i < pgtopic_max_partitions; i++)
	{
		/* keys are written under the directory lock */
		SlotKey		key = slots_array[i].key;

		if (key.database == database)
			(void) slot_forget_if(i, &key, PG_INT32_MAX);
	}
	LWLockRelease(&slots_control->directory_lock);
}

ConditionVariable *
partition_condition(const SlotKey *key)
{
	uint32		hash = hash_combine(murmurhash32(key->database), murmurhash32(key->relation));

	return &slots_control->partition_conditions[hash % PARTITION_CONDITIONS];
}

ConditionVariable *
topic_condition(int32 topic)
{
	uint32		hash = hash_combine(murmurhash32(MyDatabaseId), murmurhash32((uint32) topic));

	return &slots_control->topic_conditions[hash % TOPIC_CONDITIONS];
}
