/*-------------------------------------------------------------------------
 *
 * partition_locks.c
 *	  Locks on a partition, beside those on its tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/inval.h"

#include "storage/partition_locks.h"

/* Numbers of partitions end before these, so no position's lock is meant (positions.c). */
#define REPLICAS_LOCK	0xFFFF
#define SEGMENTS_LOCK	0xFFFE
#define STATISTICS_LOCK	0xFFFD

static LOCKTAG
partition_tag(int32 topic, int32 partition, uint16 what)
{
	LOCKTAG		tag;

	tag.locktag_field1 = MyDatabaseId;
	tag.locktag_field2 = (uint32) topic;
	tag.locktag_field3 = (uint32) partition;
	tag.locktag_field4 = what;
	tag.locktag_type = LOCKTAG_USERLOCK;
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	return tag;
}

static void
lock_partition(int32 topic, int32 partition, uint16 what)
{
	LOCKTAG		tag = partition_tag(topic, partition, what);

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
partition_lock_replicas(int32 topic, int32 partition)
{
	lock_partition(topic, partition, REPLICAS_LOCK);
}

void
partition_lock_segments(LogPartition *partition)
{
	lock_partition(partition->topic->id, partition->number, SEGMENTS_LOCK);
	AcceptInvalidationMessages();
	partition->segments_valid = false;
}

void
partition_lock_statistics(int32 topic, int32 partition)
{
	lock_partition(topic, partition, STATISTICS_LOCK);
}

bool
partition_try_lock_statistics(int32 topic, int32 partition)
{
	LOCKTAG		tag = partition_tag(topic, partition, STATISTICS_LOCK);

	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

bool
partition_statistics_are_waited_for(int32 topic, int32 partition)
{
	LOCKTAG		tag = partition_tag(topic, partition, STATISTICS_LOCK);

	return LockHasWaiters(&tag, ExclusiveLock, false);
}
