/*-------------------------------------------------------------------------
 *
 * slots_maintenance.c
 *	  What the maintenance worker and the producers tell each other by way of the
 *	  slots: segments that are wanted and made, watermarks that are stored.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"

#include "base/settings.h"
#include "shmem/slots.h"
#include "shmem/slots_private.h"

void
slot_set_segments_end(const SlotKey *key, int64 end, int64 segment_messages)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_EXCLUSIVE);

	if (slot == NULL)
		return;
	slot->segments_end = end;
	slot->wake_at = end - 2 * segment_messages;
	slot->wants_segments = slot->next_offset > slot->wake_at ||
		slot->segments_wanted > end;
	LWLockRelease(&slot->lock);
	ConditionVariableBroadcast(partition_condition(key));
}

SlotResult
slot_want_segments(SlotRef *ref, int64 up_to)
{
	PartitionSlot *slot = slots_lock(ref, LW_EXCLUSIVE);

	if (slot == NULL)
		return SLOT_MISSING;
	slot->segments_wanted = Max(slot->segments_wanted, up_to);
	slot->wants_segments = true;
	LWLockRelease(&slot->lock);
	return SLOT_OK;
}

int64
slot_segments_wanted(const SlotKey *key)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_SHARED);
	int64		wanted;

	if (slot == NULL)
		return 0;
	wanted = Max(slot->segments_wanted, slot->next_offset);
	LWLockRelease(&slot->lock);
	return wanted;
}

void
slot_forget_wanted(const SlotKey *key)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_EXCLUSIVE);

	if (slot == NULL)
		return;
	slot->segments_wanted = 0;
	LWLockRelease(&slot->lock);
}

int64
slot_segments_end(const SlotKey *key)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_SHARED);
	int64		end;

	if (slot == NULL)
		return 0;
	end = slot->segments_end;
	LWLockRelease(&slot->lock);
	return end;
}

void
slot_set_checkpointed(const SlotKey *key, int64 watermark)
{
	SlotRef		ref = {*key, -1};
	PartitionSlot *slot = slots_lock(&ref, LW_EXCLUSIVE);

	if (slot == NULL)
		return;
	slot->checkpointed = watermark;
	LWLockRelease(&slot->lock);
}

bool
slots_next(int *position, SlotReport *report)
{
	while (*position < pgtopic_max_partitions)
	{
		PartitionSlot *slot = &slots_array[(*position)++];

		/* a look without the lock; what it finds is looked at again below */
		if (slot->key.database != MyDatabaseId)
			continue;

		LWLockAcquire(&slot->lock, LW_SHARED);
		if (slot->key.database == MyDatabaseId)
		{
			report->key = slot->key;
			report->topic = slot->topic;
			report->partition = slot->partition;
			report->high_watermark = slot->high_watermark;
			report->checkpointed = slot->checkpointed;
			report->wants_segments = slot->wants_segments;
			LWLockRelease(&slot->lock);
			return true;
		}
		LWLockRelease(&slot->lock);
	}
	return false;
}

bool
slots_next_open(int *position, int32 *topic, int32 *partition)
{
	while (*position < pgtopic_max_partitions)
	{
		PartitionSlot *slot = &slots_array[(*position)++];
		bool		open;

		/* without a lock: most are not ours */
		if (slot->key.database != MyDatabaseId)
			continue;
		LWLockAcquire(&slot->lock, LW_SHARED);
		open = slot->key.database == MyDatabaseId &&
			(slot->holders > 0 || openlist_has_open(&slot->open, slots_pool));
		*topic = slot->topic;
		*partition = slot->partition;
		LWLockRelease(&slot->lock);
		if (open)
			return true;
	}
	return false;
}
