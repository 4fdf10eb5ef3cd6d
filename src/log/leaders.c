/*-------------------------------------------------------------------------
 *
 * leaders.c
 *	  Which broker leads a partition.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "lib/stringinfo.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "catalog/cluster.h"
#include "log/leaders.h"
#include "log/waiting.h"
#include "shmem/cluster_state.h"
#include "shmem/slots.h"
#include "storage/partition_state.h"

#define NO_LEADER_WAIT_MS	1000

bool
partition_is_ready_here(const LogPartition *partition)
{
	/* who has written to it already goes on, since that is what is waited for */
	return partition_is_led_here(partition) &&
		(partition->successor == 0 || slot_is_mine(&partition->slot));
}

/*
 * A slot that nobody uses goes here and now.  A transaction that keeps it from going does
 * not wait for that.
 */
bool
partition_is_stale_here(const LogPartition *partition)
{
	return partition->leader != 0 && partition_is_led_here(partition) && !RecoveryInProgress() &&
		partition_slot_is_stale(partition) && !slot_is_mine(&partition->slot) &&
		!slot_forget_older(&partition->slot.key, partition->leader_epoch);
}

/*
 * Between a look at who leads and one at the slot a process may be stopped, and its broker
 * deposed, its copy cut, and the slot filled from that.  Leaders change with their epoch alone.
 */
void
leader_check_state(const LogPartition *partition, const SlotState *state)
{
	if (partition->leader == 0 || RecoveryInProgress())
		return;
	partition_check_not_cut_off(partition);
	if (state->leader_epoch != partition->leader_epoch)
		error_not_leader(partition);
}

int
leader_wait_ms(void)
{
	if (cluster_state_cut_off(1) != NULL)
		return 0;
	return 2 * pgtopic_broker_session_timeout + 5000;
}

/* A partition has no leader: all of its in-sync replicas are gone. */
static void
error_no_leader(const LogPartition *partition)
{
	PartitionRow row;
	StringInfoData isr;

	initStringInfo(&isr);
	if (partition_row_read(partition, &row))
	{
		for (int i = 0; i < row.isr_count; i++)
			appendStringInfo(&isr, i > 0 ? ", %d" : "%d", row.isr[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_NOT_LEADER),
			 errmsg("partition %d of topic \"%s\" is unavailable",
					partition->number, partition->topic->name),
			 errdetail("Its in-sync replicas are on brokers that are not there: %s.", isr.data),
			 errhint("It has a leader when one of them is back.")));
}

int32
partition_leader(int32 topic_id, int32 number, bool writing)
{
	TimestampTz start = 0;

	for (;;)
	{
		LogPartition *partition = topic_partition_get(topic_get(topic_id), number);

		bool		gone = cluster_state_is_fenced(partition->leader);
		bool		ready = !writing || partition->successor == 0 || partition_is_ready_here(partition);

		if (ready && !gone && !partition_is_stale_here(partition))
			return partition_is_led_here(partition) ? 0 : partition->leader;
		if (start == 0)
			start = GetCurrentTimestamp();
		/* the metadata may be half applied */
		if (gone && TimestampDifferenceExceeds(start, GetCurrentTimestamp(), NO_LEADER_WAIT_MS))
			error_no_leader(partition);
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), HANDOVER_WAIT_MS) &&
			partition_is_stale_here(partition))
			ereport(ERROR,
					(errcode(ERRCODE_NOT_LEADER),
					 errmsg("broker %d has not yet begun to lead partition %d of topic \"%s\" again",
							partition->leader, number, partition->topic->name),
					 errdetail("Transactions are open that wrote to it before."),
					 errhint("The transaction might succeed if retried.")));
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), HANDOVER_WAIT_MS))
			ereport(ERROR,
					(errcode(ERRCODE_NOT_LEADER),
					 errmsg("broker %d is still handing over partition %d of topic \"%s\"",
							partition->leader, number, partition->topic->name),
					 errdetail("Broker %d is to lead it.", partition->successor),
					 errhint("The transaction might succeed if retried.")));
		pause_milliseconds(HANDOVER_POLL_MS);
	}
}

int
topic_places(int32 topic_id, Place *places)
{
	int			partitions_count = topic_get(topic_id)->partitions_count;
	int			count = 0;

	for (int p = 0; p < partitions_count; p++)
	{
		int32		leader = partition_leader(topic_id, p, true);
		int			i = 0;

		/* this broker among the others, by its number */
		if (leader == 0)
			leader = cluster_self();
		while (i < count && places[i].broker < leader)
			i++;
		if (i == count || places[i].broker != leader)
		{
			if (count > BROKERS_MAX)
				elog(ERROR, "more than %d brokers lead a topic", BROKERS_MAX);
			memmove(&places[i + 1], &places[i], (count - i) * sizeof(Place));
			places[i].broker = leader;
			places[i].partitions = palloc(partitions_count * sizeof(int32));
			places[i].count = 0;
			count++;
		}
		places[i].partitions[places[i].count++] = p;
	}
	for (int i = 0; i < count; i++)
	{
		if (places[i].broker == cluster_self())
			places[i].broker = 0;
	}
	return count;
}

void
error_not_leader(const LogPartition *partition)
{
	ereport(ERROR,
			(errcode(ERRCODE_NOT_LEADER),
			 errmsg("broker %d does not lead partition %d of topic \"%s\"",
					cluster_self(), partition->number, partition->topic->name),
			 errhint("The transaction might succeed if retried.")));
}
