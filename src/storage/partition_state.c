/*-------------------------------------------------------------------------
 *
 * partition_state.c
 *	  The offsets of a partition.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "shmem/applying.h"
#include "shmem/cluster_state.h"
#include "shmem/databases.h"
#include "shmem/followers.h"
#include "storage/batches.h"
#include "storage/partition_state.h"
#include "storage/positions.h"
#include "storage/segments.h"

/* What storing the watermarks may take, beyond the interval. */
#define SLOT_WAIT_MS	1000

/* How long the other replicas may take to come into sync with a new leader. */
#define INSYNC_GRACE_MS	10000

static PartitionRow
read_row(LogPartition *partition)
{
	PartitionRow row;

	if (!partition_row_read(partition, &row))
		topic_error_unknown(partition->topic->name);
	return row;
}

/*
 * The next offset, from the tables.  Offsets that were handed out and left no
 * trace in the index (their transaction failed before it wrote, or vacuum has
 * been there) may come back: nobody has read anything there.  But somebody may
 * have been told that they are settled, and would miss what comes in their
 * place: a standby's reader by the stored watermark, a group that was sent to
 * the end of the log by its position.  Hence both count too.
 */
static int64
stored_next_offset(LogPartition *partition, const PartitionRow *row)
{
	int64		next = Max(batches_end(partition), row->log_start);

	next = Max(next, row->high_watermark);
	return Max(next, positions_max(partition));
}

/*
 * Waits a little for a slot to become free: the maintenance workers store the
 * watermarks of those without open appends.  Raises an error if none has become
 * free since start for longer than that can take.
 */
static void
wait_for_slot(const LogPartition *partition, TimestampTz start)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicSlot");
	if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
								   2 * Min(pgtopic_checkpoint_interval, INT_MAX / 4) + SLOT_WAIT_MS))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many partitions are in use"),
				 errdetail("Open transactions have written to the %d partitions that there is shared memory for.",
						   pgtopic_max_partitions),
				 errhint("Increase pgtopic.max_partitions.")));
	database_wake_worker(MyDatabaseId, false);
	ConditionVariablePrepareToSleep(topic_condition(partition->topic->id));
	(void) ConditionVariableTimedSleep(topic_condition(partition->topic->id), 20, wait_event);
	ConditionVariableCancelSleep();
}

/* Whether a follower is (still) the replica that its row is about. */
static bool
is_replica(const PartitionRow *row, const FollowerRow *follower)
{
	for (int i = 0; i < row->replicas_count; i++)
	{
		if (row->replicas[i] == follower->follower)
			return row->placements[i] == follower->placement;
	}
	return false;
}

/* The same, given the row. */
static void
replicas_of_row(const LogPartition *partition, const PartitionRow *row,
				PartitionReplicas *replicas)
{
	int32		self = cluster_self();
	FollowerRow followers[BROKERS_MAX];
	int			followers_count;
	char		slot_name[NAMEDATALEN];

	memset(replicas, 0, sizeof(PartitionReplicas));
	replicas->isr_count = 1;
	if (self == 0)
		return;
	replicas->isr_count = row->isr_count;
	replicas->closed = row->leader != self || row->successor != 0;
	if (row->leader != self)
		return;

	for (int i = 0; i < row->isr_count; i++)
	{
		if (row->isr[i] == self)
			continue;
		follower_slot_name(cluster_id(), self, row->isr[i], slot_name);
		replicas->isr_mask |= follower_mask(MyDatabaseId, row->isr[i], slot_name);
	}
	followers_count = follower_row_states(partition->topic->id, partition->number, followers);
	for (int i = 0; i < followers_count; i++)
	{
		uint64		mask;

		if (followers[i].phase == FOLLOWER_COPYING || !is_replica(row, &followers[i]))
			continue;
		follower_slot_name(cluster_id(), self, followers[i].follower, slot_name);
		mask = follower_mask(MyDatabaseId, followers[i].follower, slot_name);
		replicas->isr_mask |= mask;
		if (followers[i].phase == FOLLOWER_READY)
			replicas->ready_mask |= mask;
	}
}

void
partition_replicas(const LogPartition *partition, PartitionReplicas *replicas)
{
	PartitionRow row;

	if (!partition_row_read(partition, &row))
		topic_error_unknown(partition->topic->name);
	replicas_of_row(partition, &row, replicas);
}

/* Fills the slot of a partition. */
static void
install_slot(LogPartition *partition)
{
	TimestampTz start = GetCurrentTimestamp();
	SlotInstallResult result;

	do
	{
		uint64		epoch;
		SlotContent content;
		PartitionRow row;
		PartitionReplicas replicas;

		epoch = slot_install_epoch();
		row = read_row(partition);
		replicas_of_row(partition, &row, &replicas);
		partition->segments_valid = false;
		content.topic = partition->topic->id;
		content.partition = partition->number;
		content.segment_messages = partition->topic->segment_messages;
		content.checkpointed = row.high_watermark;
		content.next_offset = stored_next_offset(partition, &row);
		/* what has been replicated to here, readers may see from now on */
		if (cluster_self() != 0)
			applying_flush();
		content.segments_end = segments_end(partition);
		content.settled = Max(row.high_watermark, row.log_start);
		content.lsn = replicas.isr_mask != 0 ? followers_wal_end() : InvalidXLogRecPtr;
		content.leader_epoch = row.leader_epoch;
		content.isr_count = replicas.isr_count;
		content.isr_mask = replicas.isr_mask;
		content.ready_mask = replicas.ready_mask;
		content.closed = replicas.closed;
		/*
		 * If it is led elsewhere, who asks has not heard of that yet.  Nothing is to be
		 * stored of it here, and nothing to be read that is not settled everywhere.
		 */
		if (cluster_self() != 0 && row.leader != cluster_self())
			content.checkpointed = content.next_offset = content.settled;
		CHECK_FOR_INTERRUPTS();
		result = slot_install(&partition->slot, epoch, &content);
		if (result == SLOT_ALL_IN_USE)
			wait_for_slot(partition, start);
	} while (result != SLOT_INSTALLED);

	/* somebody uses this database: see to it that it has a worker */
	(void) database_request_worker(MyDatabaseId);
}

int64
partition_stored_end(LogPartition *partition)
{
	PartitionRow row = read_row(partition);

	return stored_next_offset(partition, &row);
}

static void
state_of_slot(LogPartition *partition, SlotState *state)
{
	while (slot_state(&partition->slot, state) == SLOT_MISSING)
		install_slot(partition);
}

void
partition_state(LogPartition *partition, SlotState *state)
{
	if (RecoveryInProgress() || !partition_is_led_here(partition))
	{
		PartitionRow row = read_row(partition);

		memset(state, 0, sizeof(SlotState));
		state->high_watermark = Max(row.high_watermark, row.log_start);
		state->next_offset = state->high_watermark;
		if (OidIsValid(partition->relation) && OidIsValid(partition->positions))
			state->next_offset = stored_next_offset(partition, &row);
		state->isr_count = row.isr_count;
		state->leader_epoch = row.leader_epoch;
		return;
	}
	state_of_slot(partition, state);

	/*
	 * The catalog says that this broker leads a moment before a slot hears of it that was
	 * filled while another one did: an apply worker has asked for segments in it, and it
	 * knows nothing of what came after that.  It goes here and now: nobody wakes those who
	 * look at it in that moment and find nothing.  One in use stays until it is not.
	 */
	if (state->leader_epoch < partition->leader_epoch &&
		slot_forget_older(&partition->slot.key, partition->leader_epoch))
		state_of_slot(partition, state);
}

void
partition_state_settled(LogPartition *partition, SlotState *state)
{
	LogReader	reader;
	RecordBatch batch;

	partition_state(partition, state);
	if (!RecoveryInProgress() || !partition_is_led_here(partition))
		return;

	PushActiveSnapshot(GetLatestSnapshot());
	reader_begin(&reader, partition, state->high_watermark, state->high_watermark, true);
	while (reader_next_batch(&reader, &batch))
		;
	state->high_watermark = reader.settled;
	reader_end(&reader);
	PopActiveSnapshot();
}

void
partition_make_segments(LogPartition *partition, int64 up_to)
{
	ExtensionOwner saved;
	int64		size = partition->topic->segment_messages;
	int64		end = segments_end(partition);
	int32		topic = partition->topic->id;
	int32		number = partition->number;
	SlotKey		key = partition->slot.key;

	extension_owner_begin(&saved);
	SPI_connect();
	while (end < up_to)
	{
		storage_create_segment(topic, number, end, end + size);
		end += size;
	}
	SPI_finish();
	extension_owner_end(&saved);
	slot_set_segments_end(&key, end, size);
}

bool
partition_made_here(const LogPartition *partition)
{
	Relation	relation = RelationIdGetRelation(partition->relation);
	bool		result;

	if (!RelationIsValid(relation))
		return false;
	result = relation->rd_createSubid != InvalidSubTransactionId;
	RelationClose(relation);
	return result;
}

static void
wait_for_segments_or_fail(LogPartition *partition, int64 count)
{
	static uint32 wait_event = 0;
	int64		end = slot_segments_end(&partition->slot.key);
	TimestampTz start = GetCurrentTimestamp();

	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicSegment");

	for (;;)
	{
		int64		now_end;
		int64		wanted;

		ConditionVariablePrepareToSleep(partition_condition(&partition->slot.key));
		now_end = slot_segments_end(&partition->slot.key);
		wanted = slot_segments_wanted(&partition->slot.key);
		if (now_end >= wanted)
			break;
		if (now_end > end)
		{
			end = now_end;
			start = GetCurrentTimestamp();
		}
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   pgtopic_segment_wait_timeout))
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("topic \"%s\" has no segment for the next " INT64_FORMAT " messages of partition %d",
							partition->topic->name, count, partition->number),
					 errdetail("The maintenance worker has made no segment for %d ms.",
							   pgtopic_segment_wait_timeout),
					 errhint("See worker_status and the server's log for what keeps the worker from it, or increase pgtopic.segment_wait_timeout.")));
		}
		database_wake_worker(MyDatabaseId, false);
		(void) ConditionVariableTimedSleep(partition_condition(&partition->slot.key), 100, wait_event);
	}
	ConditionVariableCancelSleep();
}

/*
 * Waits until the worker has made segments up to what is wanted, or raises an
 * error; then what was asked for is not made for nobody.
 */
static void
wait_for_segments(LogPartition *partition, int64 count)
{
	SlotKey		key = partition->slot.key;

	PG_TRY();
	{
		wait_for_segments_or_fail(partition, count);
	}
	PG_CATCH();
	{
		slot_forget_wanted(&key);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* This server takes nothing for the partition. */
pg_noreturn static void
error_closed(LogPartition *partition)
{
	PartitionRow row = read_row(partition);

	if (row.leader != cluster_self())
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("partition %d of topic \"%s\" is led by another broker, %d",
						partition->number, partition->topic->name, row.leader),
				 errhint("Try again.")));
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("partition %d of topic \"%s\" is being handed over to another broker",
					partition->number, partition->topic->name),
			 errhint("Try again.")));
}

void
partition_check_not_cut_off(const LogPartition *partition)
{
	const char *why = partition->replicas_count > 1 ? cluster_state_cut_off(1) : NULL;

	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("broker %d takes nothing for partition %d of topic \"%s\" now",
						cluster_self(), partition->number, partition->topic->name),
				 errdetail_internal("%s", why),
				 errhint("Try again, perhaps at another broker.")));
}

static void
wait_a_little(const LogPartition *partition)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = compat_wait_event("PgtopicInSync");
	ConditionVariablePrepareToSleep(topic_condition(partition->topic->id));
	(void) ConditionVariableTimedSleep(topic_condition(partition->topic->id), 20, wait_event);
	ConditionVariableCancelSleep();
	CHECK_FOR_INTERRUPTS();
}

/* Whether so many replicas may be in sync soon, as far as the controller knows. */
static bool
are_there(const LogPartition *partition, int wanted)
{
	PartitionRow row;
	int			there = 0;

	if (!partition_row_read(partition, &row))
		return false;
	for (int i = 0; i < row.replicas_count; i++)
		there += !cluster_state_is_fenced(row.replicas[i]);
	return there >= wanted;
}

int
partition_check_insync(LogPartition *partition)
{
	int			wanted = partition->topic->min_insync_replicas;
	SlotState	state;

	/* a leader counts itself, so one is always there */
	if (partition->leader == 0 || pgtopic_acks != ACKS_ALL || wanted <= 1 ||
		!partition_is_led_here(partition))
		return 0;
	for (;;)
	{
		partition_state(partition, &state);
		if (state.isr_count >= wanted)
			return 0;
		/*
		 * After a change of the leader the other replicas have to come into sync anew.
		 * PostgreSQL lets no table be copied before the transactions that are writing
		 * have ended, so one of them would wait for what waits for it: its commit does.
		 */
		if (partition->leader_epoch == 0 ||
			TimestampDifferenceExceeds(state.filled_at, GetCurrentTimestamp(), INSYNC_GRACE_MS))
			break;
		if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		{
			if (are_there(partition, wanted))
				return wanted;
			break;
		}
		wait_a_little(partition);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("not enough in-sync replicas of partition %d of topic \"%s\"",
					partition->number, partition->topic->name),
			 errdetail("There are %d, and min_insync_replicas is %d.",
					   state.isr_count, wanted),
			 errhint("Try again when more brokers have caught up, or use alter_topic() to decrease min_insync_replicas, or set pgtopic.acks to leader.")));
}

void
partition_state_awaiting(LogPartition *partition, int64 offset, SlotState *state)
{
	for (;;)
	{
		partition_state(partition, state);
		if (offset <= state->high_watermark || offset > state->next_offset || partition->leader == 0 ||
			TimestampDifferenceExceeds(state->filled_at, GetCurrentTimestamp(), INSYNC_GRACE_MS))
			return;
		wait_a_little(partition);
	}
}

/*
 * Whether a closed partition may be written to by this transaction, which has written to
 * it before: another broker is to lead it, and waits for this one's end.
 */
static bool
may_go_on(const LogPartition *partition)
{
	PartitionRow row;

	return partition_row_read(partition, &row) && row.leader == cluster_self() && row.successor != 0 &&
		row.leader_epoch == slot_leader_epoch(&partition->slot.key) && slot_is_mine(&partition->slot);
}

void
partition_begin_write(LogPartition *partition)
{
	bool		go_on = false;

	/* outside of a cluster nobody asks whether it is drained */
	if (partition->leader == 0)
		return;
	if (!partition_is_led_here(partition))
		error_closed(partition);
	partition_check_not_cut_off(partition);
	for (;;)
	{
		switch (slot_begin_write(&partition->slot, go_on))
		{
			case SLOT_CLOSED:
				if (go_on || !may_go_on(partition))
					error_closed(partition);
				go_on = true;
				break;
			case SLOT_MISSING:
				install_slot(partition);
				break;
			default:
				return;
		}
	}
}

int64
partition_reserve(LogPartition *partition, int64 count)
{
	int			wanted;
	bool		go_on = false;

	if (!partition_is_led_here(partition))
		error_closed(partition);
	partition_check_not_cut_off(partition);
	wanted = partition_check_insync(partition);
	for (;;)
	{
		int64		first;
		bool		wake;
		SlotResult	result = slot_reserve(&partition->slot, count, go_on, &first, &wake);

		if (wake)
			database_wake_worker(MyDatabaseId, false);
		switch (result)
		{
			case SLOT_OK:
				if (wanted > 0)
					slot_await_insync(&partition->slot, wanted);
				return first;
			case SLOT_MISSING:
				install_slot(partition);
				break;
			case SLOT_CLOSED:
				if (go_on || !may_go_on(partition))
					error_closed(partition);
				go_on = true;
				break;
			case SLOT_NO_SEGMENT:
				if (partition_made_here(partition))
					partition_make_segments(partition,
											slot_segments_wanted(&partition->slot.key));
				else
					wait_for_segments(partition, count);
				break;
		}
	}
}

void
partition_ensure_segments(LogPartition *partition, int64 offset)
{
	int64		up_to = offset + partition->topic->segment_messages;

	while (segments_end(partition) < up_to)
	{
		if (slot_want_segments(&partition->slot, up_to) == SLOT_MISSING)
		{
			install_slot(partition);
			continue;
		}
		wait_for_segments(partition, partition->topic->segment_messages);
		/* the table is locked already, so locking it tells nothing new */
		AcceptInvalidationMessages();
		partition->segments_valid = false;
		CHECK_FOR_INTERRUPTS();
	}
}

bool
partition_update_slot(LogPartition *partition)
{
	SlotKey    *key = &partition->slot.key;
	PartitionReplicas replicas;
	PartitionRow row;
	int32		epoch;

	if (!partition_row_read(partition, &row))
		return true;
	if (cluster_self() != 0 && row.leader != cluster_self())
	{
		slot_abandon(key);
		return slot_forget(key);
	}

	/* one that was filled when another broker led knows too little */
	epoch = slot_leader_epoch(key);
	if (epoch >= 0 && epoch != row.leader_epoch && !slot_forget(key))
	{
		/* commits that wait in it wait for what nobody confirms any more */
		slot_abandon(key);
		return false;
	}
	replicas_of_row(partition, &row, &replicas);
	slot_set_replicas(key, replicas.isr_mask, replicas.ready_mask, replicas.isr_count);
	slot_set_closed(key, replicas.closed);
	return true;
}

bool
partition_slot_is_stale(const LogPartition *partition)
{
	int32		epoch = slot_leader_epoch(&partition->slot.key);

	return epoch >= 0 && epoch != partition->leader_epoch;
}

bool
partition_is_drained(LogPartition *partition)
{
	SlotState	ignored;

	/* without a slot nobody would know what followers have yet to confirm */
	partition_state(partition, &ignored);
	return slot_is_drained(&partition->slot.key);
}
