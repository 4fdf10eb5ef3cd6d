/*
 * failover_slots.h
 *		What brokers of test_failover_sim.c write, and whom that waits for: the slots of
 *		partitions and the followers (shmem/slots*.c, shmem/followers.c,
 *		storage/partition_state.c).
 */
#ifndef FAILOVER_SLOTS_H
#define FAILOVER_SLOTS_H

/* --- writing --- */

static inline void
put_row(Broker *broker, int partition, int offset, int message, int written)
{
	require(offset < OFFSETS_MAX, "room for offsets");
	event("writes; partition, offset, message", broker->id, partition, offset, message);
	PUT(broker, log[partition][offset], message);
	wal_add(broker, (WalEntry) {
		.kind = WAL_ROW,.partition = partition,.offset = offset,.message = message,.written = written
	});
}

static inline int *
position_at(Broker *broker, int partition, int key)
{
	return key == WATERMARK ? &broker->disk.position[partition] :
		&broker->disk.epoch_starts[partition][key];
}

static inline void
put_position(Broker *broker, int partition, int key, int value)
{
	int		   *at = position_at(broker, partition, key);

	if (*at == value)
		return;
	wal_add(broker, (WalEntry) {
		.kind = *at < 0 ? WAL_POSITION_INSERT : value < 0 ? WAL_POSITION_DELETE : WAL_POSITION_UPDATE,
			.partition = partition,.key_epoch = key,.offset = value,.written = broker->wal_end
	});
	undo_note(broker, at, sizeof(int));
	*at = value;
}

static inline void
delete_positions(Broker *broker, int partition)
{
	put_position(broker, partition, WATERMARK, -1);
	for (int e = 1; e <= epochs_max[partition]; e++)
		put_position(broker, partition, e, -1);
}

/* Of a row that is dead there may be a trace in an index, or not. */
static inline void
put_trace(Broker *broker, int partition, int end)
{
	if (chance(500) && broker->disk.traces[partition] < end)
		PUT(broker, traces[partition], end);
}

/* Writes something to WAL that says nothing: who has confirmed it has all before. */
static inline int
mark_wal(Broker *broker)
{
	wal_add(broker, (WalEntry) {.kind = WAL_MARK,.written = broker->wal_end});
	commit(broker, true);
	return broker->wal_end;
}

static inline int
log_end(const Broker *broker, int partition)
{
	int			end = OFFSETS_MAX;

	while (end > 0 && broker->disk.log[partition][end - 1] == 0)
		end--;
	return end;
}

/* storage/partition_state.c, stored_next_offset() */
static inline int
stored_end(const Broker *broker, int partition)
{
	int			end = Max(log_end(broker, partition), broker->disk.traces[partition]);

	end = Max(end, broker->disk.watermark[partition]);
	end = Max(end, broker->disk.position[partition]);
	for (int e = 1; e <= epochs_max[partition]; e++)
		end = Max(end, broker->disk.epoch_starts[partition][e]);
	for (int t = 0; t < TXNS_MAX; t++)
	{
		const Txn  *txn = &broker->txns[t];

		for (int i = 0; txn->state == TXN_OPEN && i < txn->count; i++)
		{
			if (txn->writes[i].partition == partition)
				end = Max(end, txn->writes[i].offset + 1);
		}
	}
	return end;
}

/* --- followers of this broker --- */

static inline uint32
follower_mask(Broker *broker, int id)
{
	Follower   *follower = &broker->followers[id];

	if (!follower->there)
		*follower = (Follower) {.there = true,.caught_up_at = now};
	return bit(id);
}

static inline void
slots_forget_follower(Broker *broker, int id)
{
	for (int p = 0; p < PARTITIONS; p++)
		broker->partitions[p].ready_mask &= ~bit(id);
}

static inline void
follower_forget(Broker *broker, int id)
{
	slots_forget_follower(broker, id);
	memset(&broker->followers[id], 0, sizeof(Follower));
}

static inline bool
followers_poll(Broker *broker)
{
	bool		moved = false;

	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		Follower   *follower = &broker->followers[f];
		const ReplicationSlot *slot = &broker->slots[f];
		int			confirmed = slot->id != 0 ? slot->confirmed : 0;

		if (!follower->there)
			continue;
		if (follower->has_slot && slot->id == 0 && broken != BREAK_LOST_SLOT_COUNTS)
			slots_forget_follower(broker, f);
		follower->has_slot = slot->id != 0;
		if (slot->id == 0)
			follower->sampled_at = 0;
		else
		{
			if (follower->sampled_at != 0 && confirmed >= follower->sample)
			{
				follower->caught_up_at = follower->sampled_at;
				follower->sampled_at = 0;
			}
			if (follower->sampled_at == 0)
			{
				follower->sample = broker->wal_flushed;
				follower->sampled_at = now;
			}
		}
		moved |= follower->confirmed != confirmed;
		follower->confirmed = confirmed;
	}
	return moved;
}

/* What all of a mask have confirmed. */
static inline int
followers_confirmed(const Broker *broker, uint32 mask)
{
	int			confirmed = WAL_MAX + 1;

	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		if (mask & bit(f))
			confirmed = Min(confirmed, broker->followers[f].confirmed);
	}
	return confirmed;
}

/* --- the slots of partitions --- */

/* What followers of a partition have confirmed; 0 if one of them is not ready. */
static inline int
slot_confirmed(const Broker *broker, const PartitionSlot *slot)
{
	if ((slot->isr_mask & ~slot->ready_mask) != 0 && broken != BREAK_UNREADY_IGNORED)
		return 0;
	return followers_confirmed(broker, broken == BREAK_UNREADY_IGNORED ?
							   slot->isr_mask & slot->ready_mask : slot->isr_mask);
}

static inline void
move_watermark(PartitionSlot *slot)
{
	if (slot->abandoned)
		return;
	slot->watermark = slot->count > 0 ? slot->appends[0].first : slot->next;
}

/* Takes out what followers have confirmed. */
static inline void
slot_confirm(Broker *broker, PartitionSlot *slot)
{
	int			confirmed = slot_confirmed(broker, slot);
	int			kept = 0;

	for (int i = 0; i < slot->count; i++)
	{
		if (slot->appends[i].lsn == 0 || slot->appends[i].lsn > confirmed)
			slot->appends[kept++] = slot->appends[i];
	}
	slot->count = kept;
	move_watermark(slot);
}

static inline bool
slot_in_use(const Broker *broker, int partition)
{
	for (int t = 0; t < TXNS_MAX; t++)
	{
		const Txn  *txn = &broker->txns[t];

		for (int i = 0; txn->state == TXN_OPEN && i < txn->count; i++)
		{
			if (txn->writes[i].partition == partition)
				return true;
		}
		if (txn->state == TXN_WAITING && (txn->slots & bit(partition)))
			return true;
	}
	return false;
}

/* False: somebody uses it. */
static inline bool
slot_forget(Broker *broker, int partition)
{
	if (broker->partitions[partition].there && slot_in_use(broker, partition))
		return false;
	broker->partitions[partition].there = false;
	return true;
}

typedef struct Replicas
{
	int			isr_count;
	uint32		isr_mask;
	uint32		ready_mask;
	bool		closed;
} Replicas;

/* storage/partition_state.c, replicas_of_row() */
static inline Replicas
replicas_of(Broker *broker, int partition)
{
	const ImagePartition *row = row_of(broker, partition);
	Replicas	replicas = {0};

	replicas.isr_count = row->isr_count;
	replicas.closed = row->leader != broker->id ||
		(row->successor != 0 && broken != BREAK_HANDOVER_OPEN);
	if (row->leader != broker->id)
		return replicas;
	for (int i = 0; i < row->isr_count; i++)
	{
		if (row->isr[i] != broker->id)
			replicas.isr_mask |= follower_mask(broker, row->isr[i]);
	}
	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		const FollowerRow *follower = &broker->disk.follower[partition][f];

		if (partition_placement(row, f) == 0 ||
			(partition_placement(row, f) != follower->placement && broken != BREAK_PLACEMENT))
			continue;
		if (follower->state == FOLLOWER_READY)
			replicas.ready_mask |= follower_mask(broker, f);
		else if (follower->state != FOLLOWER_FORGOTTEN &&
				 (follower->state != FOLLOWER_JOINING || broken == BREAK_JOINING))
			continue;
		replicas.isr_mask |= follower_mask(broker, f);
	}
	return replicas;
}

/* storage/partition_state.c, install_slot() */
static inline PartitionSlot *
slot_of(Broker *broker, int partition)
{
	PartitionSlot *slot = &broker->partitions[partition];
	const ImagePartition *row = row_of(broker, partition);
	Replicas	replicas;
	int			settled;

	if (slot->there)
		return slot;
	replicas = replicas_of(broker, partition);
	if (broken != BREAK_UNFLUSHED)
		flush(broker);
	settled = broker->disk.watermark[partition];
	memset(slot, 0, sizeof(*slot));
	slot->there = true;
	slot->next = stored_end(broker, partition);
	slot->checkpointed = settled;
	if (row->leader != broker->id)
		slot->checkpointed = slot->next = settled;
	slot->isr_count = replicas.isr_count;
	slot->isr_mask = replicas.isr_mask;
	slot->ready_mask = replicas.ready_mask;
	slot->closed = replicas.closed;
	slot->leader_epoch = row->leader_epoch;
	slot->filled_at = now;
	if (slot->isr_mask != 0 && settled < slot->next && broken != BREAK_FILLED_SETTLED)
		slot->appends[slot->count++] = (Append) {settled, broker->wal_end};
	move_watermark(slot);
	return slot;
}

/* What waits there is not waited for any more; what is open stays. */
static inline void
slot_abandon(PartitionSlot *slot)
{
	int			kept = 0;

	slot->closed = slot->abandoned = true;
	for (int i = 0; i < slot->count; i++)
	{
		if (slot->appends[i].lsn == 0)
			slot->appends[kept++] = slot->appends[i];
	}
	slot->count = kept;
	slot->checkpointed = slot->watermark;
}

/* storage/partition_state.c, partition_update_slot() */
static inline bool
partition_update_slot(Broker *broker, int partition)
{
	PartitionSlot *slot = &broker->partitions[partition];
	const ImagePartition *row = row_of(broker, partition);
	Replicas	replicas;

	if (row == NULL)
		return true;
	if (row->leader != broker->id)
	{
		if (slot->there && broken != BREAK_NOT_ABANDONED)
			slot_abandon(slot);
		return slot_forget(broker, partition);
	}
	if (slot->there && slot->leader_epoch != row->leader_epoch && broken != BREAK_STALE_SLOT &&
		!slot_forget(broker, partition))
	{
		/* the server only closes it, and what waits there for followers of before waits for ever */
		if (broken == SERVER_STALE_WAITS)
			slot->closed = true;
		else
			slot_abandon(slot);
		return false;
	}
	if (!slot->there)
		return true;
	replicas = replicas_of(broker, partition);
	slot->isr_mask = replicas.isr_mask;
	slot->ready_mask = replicas.ready_mask;
	slot->isr_count = replicas.isr_count;
	slot_confirm(broker, slot);
	slot->closed = replicas.closed || slot->abandoned;
	return true;
}

/* No transaction is open there, none has yet to be confirmed. */
static inline bool
partition_is_drained(Broker *broker, int partition)
{
	return slot_of(broker, partition)->count == 0 && !slot_in_use(broker, partition);
}

#endif							/* FAILOVER_SLOTS_H */
