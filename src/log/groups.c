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
#include "catalog/relations.h"
#include "log/consume.h"
#include "log/forward.h"
#include "log/leaders.h"
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
group_create_here(Topic *topic, const int32 *partitions, int count, const char *group,
				  Seek seek, TimestampTz timestamp)
{
	/* all locks first: nobody makes the group while we look whether it is there */
	for (int i = 0; i < count; i++)
	{
		LogPartition *partition = &topic->partitions[partitions[i]];
		int64		ignored;

		position_lock(partition, group);
		if (position_read(partition, group, &ignored))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("consumer group \"%s\" of topic \"%s\" already exists",
							group, topic->name),
					 errhint("Use reset_offsets() to move it.")));
	}
	for (int i = 0; i < count; i++)
	{
		LogPartition *partition = &topic->partitions[partitions[i]];

		move(partition, group,
			 seek_in_partition(partition, seek, timestamp, 0),
			 "create_consumer_group()");
	}
}

void
group_create(int32 topic_id, const char *group, Seek seek, TimestampTz timestamp)
{
	Place		places[BROKERS_MAX + 1];
	Attempt		attempt = {0};
	int			count = 0;

	extension_require_writable("create_consumer_group()");
	group_check_name(group);
	topic_check_consume(topic_get(topic_id));
	for (int i = 0; i < count || i == 0;)
	{
		if (i == 0)
			count = topic_places(topic_id, places);
		if (places[i].broker == 0)
			group_create_here(topic_get(topic_id), places[i].partitions, places[i].count,
							  group, seek, timestamp);
		else if (!forward_group_create(&places[i], topic_id, group, seek, timestamp,
									   i == 0, &attempt))
			continue;
		i++;
	}
}

void
group_commit_here(LogPartition *partition, const char *group, int64 offset)
{
	SlotState	state;
	int64		start;

	partition_state_awaiting(partition, offset, &state);
	start = partition_log_start(partition);
	if (offset > state.high_watermark)
		leader_check_state(partition, &state);
	if (offset < start || offset > state.high_watermark)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("offset " INT64_FORMAT " is out of range for partition %d of topic \"%s\"",
						offset, partition->number, partition->topic->name),
				 errdetail("A position is the next offset to read, from " INT64_FORMAT " to the high watermark, " INT64_FORMAT ".",
						   start, state.high_watermark)));
	position_lock(partition, group);
	move(partition, group, offset, "commit_offset()");
}

void
group_commit(int32 topic_id, int32 number, const char *group, int64 offset)
{
	Attempt		attempt = {0};
	int32		leader;

	extension_require_writable("commit_offset()");
	group_check_name(group);
	topic_check_consume(topic_get(topic_id));
	do
	{
		leader = partition_leader(topic_id, number, true);
		if (leader == 0)
			group_commit_here(topic_partition_get(topic_get(topic_id), number), group, offset);
	} while (leader != 0 &&
			 !forward_group_commit(leader, topic_id, number, group, offset, &attempt));
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

bool
group_reset_here(Topic *topic, const int32 *partitions, int count, const char *group,
				 Seek seek, TimestampTz timestamp, bool dry_run, ResetOffset *results)
{
	bool		exists = false;

	for (int i = 0; i < count; i++)
		lock_or_fail(&topic->partitions[partitions[i]], group);

	for (int i = 0; i < count; i++)
	{
		LogPartition *partition = &topic->partitions[partitions[i]];
		ResetOffset *result = &results[partitions[i]];
		int64		current = 0;

		result->partition = partitions[i];
		result->had_offset = position_read(partition, group, &current);
		result->old_offset = current;
		exists |= result->had_offset;
		/* without a position, a group is at the start of the log */
		result->new_offset = seek_in_partition(partition, seek, timestamp,
											   Max(current, partition_log_start(partition)));
	}
	for (int i = 0; i < count; i++)
	{
		LogPartition *partition = &topic->partitions[partitions[i]];

		if (dry_run)
			position_unlock(partition, group);
		else
			move(partition, group, results[partitions[i]].new_offset, "reset_offsets()");
	}
	return exists;
}

ResetOffset *
group_reset(int32 topic_id, const char *group, Seek seek, TimestampTz timestamp,
			bool dry_run, int *partitions_count)
{
	ResetOffset *results = NULL;
	Place		places[BROKERS_MAX + 1];
	Attempt		attempt = {0};
	int			count = 0;
	bool		exists = false;

	extension_require_writable("reset_offsets()");
	group_check_name(group);
	topic_check_owner(topic_get(topic_id));
	for (int i = 0; i < count || i == 0;)
	{
		if (i == 0)
		{
			/* a topic may get more partitions at any time: those that there are now */
			count = topic_places(topic_id, places);
			*partitions_count = 0;
			for (int j = 0; j < count; j++)
				*partitions_count += places[j].count;
			results = palloc(*partitions_count * sizeof(ResetOffset));
		}
		if (places[i].broker == 0)
			(void) group_reset_here(topic_get(topic_id), places[i].partitions, places[i].count,
									group, seek, timestamp, dry_run, results);
		else if (!forward_group_reset(&places[i], topic_id, group, seek, timestamp, dry_run,
									  results, i == 0, &attempt))
			continue;
		for (int j = 0; j < places[i].count; j++)
			exists |= results[places[i].partitions[j]].had_offset;
		i++;
	}
	/* what was moved is rolled back */
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer group \"%s\" of topic \"%s\" does not exist",
						group, topic_get(topic_id)->name),
				 errhint("Use create_consumer_group() to make one that starts somewhere else than at the earliest message.")));
	return results;
}

/*
 * Locks only the partitions where the group has a position: there may be
 * thousands where it has none.
 */
bool
group_drop_here(Topic *topic, const int32 *partitions, int count, const char *group)
{
	bool		found = false;

	/* what is under these names is no group's */
	if (position_is_reserved(group))
		return false;
	for (int i = 0; i < count; i++)
	{
		LogPartition *partition = &topic->partitions[partitions[i]];
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

bool
group_drop(int32 topic_id, const char *group)
{
	Place		places[BROKERS_MAX + 1];
	Attempt		attempt = {0};
	int			count = 0;
	bool		found = false;

	extension_require_writable("drop_consumer_group()");
	topic_check_owner(topic_get(topic_id));
	for (int i = 0; i < count || i == 0;)
	{
		if (i == 0)
			count = topic_places(topic_id, places);
		if (places[i].broker == 0)
			found |= group_drop_here(topic_get(topic_id), places[i].partitions, places[i].count,
									 group);
		else if (!forward_group_drop(&places[i], topic_id, group, &found, i == 0, &attempt))
			continue;
		i++;
	}
	return found;
}
