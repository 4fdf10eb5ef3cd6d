/*-------------------------------------------------------------------------
 *
 * groups.c
 *	  Positions of consumer groups, moved by hand.
 *
 * A group is what has positions; there is no other record of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "catalog/extension.h"
#include "log/consume.h"
#include "shmem/slots.h"
#include "storage/partition_state.h"
#include "storage/positions.h"

static void
move(LogPartition *partition, const char *group, int64 offset, const char *call)
{
	(void) topic_lock(partition->topic->id);
	position_write(partition, group, offset);
	slots_forbid_prepare(call);
}

/* Where a seek leads to in a partition. */
static int64
seek_in_partition(LogPartition *partition, Seek seek, TimestampTz timestamp, int64 current)
{
	SlotState	state;
	int64		start = partition_log_start(partition);

	partition_state(partition, &state);
	if (seek.kind == SEEK_OTHER)
		return Max(start, log_offset_at(partition, timestamp));
	return seek_target(seek, current, start, state.high_watermark);
}

void
group_create(Topic *topic, const char *group, Seek seek, TimestampTz timestamp)
{
	extension_require_writable("create_consumer_group()");
	group_check_name(group);
	topic_check_use(topic);

	/* all locks first: nobody makes the group while we look whether it is there */
	for (int p = 0; p < topic->partitions_count; p++)
	{
		int64		ignored;

		position_lock(&topic->partitions[p], group);
		if (position_read(&topic->partitions[p], group, &ignored))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("consumer group \"%s\" of topic \"%s\" already exists",
							group, topic->name),
					 errhint("Use reset_offsets() to move it.")));
	}
	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition = &topic->partitions[p];

		move(partition, group,
			 seek_in_partition(partition, seek, timestamp, 0),
			 "create_consumer_group()");
	}
}

void
group_commit(Topic *topic, int32 number, const char *group, int64 offset)
{
	LogPartition *partition;
	SlotState	state;
	int64		start;

	extension_require_writable("commit_offset()");
	group_check_name(group);
	topic_check_use(topic);
	partition = topic_partition_get(topic, number);
	partition_state(partition, &state);
	start = partition_log_start(partition);
	if (offset < start || offset > state.high_watermark)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("offset " INT64_FORMAT " is out of range for partition %d of topic \"%s\"",
						offset, number, topic->name),
				 errdetail("A position is the next offset to read, from " INT64_FORMAT " to the high watermark, " INT64_FORMAT ".",
						   start, state.high_watermark)));
	position_lock(partition, group);
	move(partition, group, offset, "commit_offset()");
}

static void
lock_or_fail(LogPartition *partition, const char *group)
{
	bool		taken;

	if (!position_try_lock(partition, group, &taken))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("consumer group \"%s\" is consuming partition %d of topic \"%s\"",
						group, partition->number, partition->topic->name),
				 errhint("Stop its consumers, or try again when their transactions have ended.")));
}

void
group_reset(Topic *topic, const char *group, Seek seek, TimestampTz timestamp,
			bool dry_run, ResetOffset *results)
{
	bool		exists = false;

	extension_require_writable("reset_offsets()");
	group_check_name(group);
	topic_check_owner(topic);
	for (int p = 0; p < topic->partitions_count; p++)
		lock_or_fail(&topic->partitions[p], group);

	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition = &topic->partitions[p];
		ResetOffset *result = &results[p];
		int64		current = 0;

		result->partition = p;
		result->had_offset = position_read(partition, group, &current);
		result->old_offset = current;
		exists |= result->had_offset;
		/* without a position, a group is at the start of the log */
		result->new_offset = seek_in_partition(partition, seek, timestamp,
											   Max(current, partition_log_start(partition)));
	}
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer group \"%s\" of topic \"%s\" does not exist",
						group, topic->name),
				 errhint("Use create_consumer_group() to make one that starts somewhere else than at the earliest message.")));

	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition = &topic->partitions[p];

		if (dry_run)
			position_unlock(partition, group);
		else
			move(partition, group, results[p].new_offset, "reset_offsets()");
	}
}

/*
 * Locks only the partitions where the group has a position: there may be
 * thousands where it has none.
 */
bool
group_drop(Topic *topic, const char *group)
{
	bool		found = false;

	extension_require_writable("drop_consumer_group()");
	topic_check_use(topic);
	for (int p = 0; p < topic->partitions_count; p++)
	{
		LogPartition *partition = &topic->partitions[p];
		int64		ignored;

		if (!position_read(partition, group, &ignored))
			continue;
		lock_or_fail(partition, group);
		found |= position_delete(partition, group);
	}
	if (found)
		slots_forbid_prepare("drop_consumer_group()");
	return found;
}
