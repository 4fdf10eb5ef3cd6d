/*
 * failover_streams.h
 *		How the data gets about in test_failover_sim.c: what leaders publish
 *		(cluster/publish.c), and PostgreSQL's part, logical replication.
 */
#ifndef FAILOVER_STREAMS_H
#define FAILOVER_STREAMS_H

/* --- what followers call: cluster/publish.c --- */

static inline bool
is_published(const Broker *broker, int to, int partition)
{
	return broker->disk.published_from[to][partition] >= 0;
}

/* To be committed as the next thing in WAL. */
static inline void
set_published(Broker *broker, int to, int partition, int from)
{
	int		   *count = &published[broker->id][to][partition].count;
	Published  *changes = published[broker->id][to][partition].changes;

	if (broker->disk.published_from[to][partition] == from)
		return;
	PUT(broker, published_from[to][partition], from);
	if (*count == PUBLISHED_MAX)
	{
		*count /= 2;
		memmove(changes, changes + *count, sizeof(Published) * *count);
	}
	changes[(*count)++] = (Published) {broker->wal_end + 1, from};
}

/* What is published of what was written at an LSN. */
static inline Published
published_at(int by, int to, int partition, int lsn)
{
	for (int i = published[by][to][partition].count - 1; i >= 0; i--)
	{
		if (published[by][to][partition].changes[i].lsn <= lsn)
			return published[by][to][partition].changes[i];
	}
	return (Published) {0, -1};
}

/*
 * The server does not ask whether it is the broker that it was.  A standby that lacks
 * its end has followers cut what they have and it has not, before it gives up leading.
 */
static inline bool
is_led_for(const Broker *broker, int follower, const Call *call)
{
	const ImagePartition *row = row_of(broker, call->args[0]);

	if (!broker->standing_known && broken != SERVER_PROMOTED_CUTS)
		return false;
	return row != NULL && row->leader == broker->id && row->leader_epoch == call->args[1] &&
		partition_has_replica(row, follower) &&
		(partition_placement(row, follower) == call->args[2] || broken == BREAK_PLACEMENT);
}

static inline void
put_follower(Broker *broker, int partition, int id, FollowerState state, int placement)
{
	event("has a follower; partition, broker, state", broker->id, partition, id, state);
	PUT(broker, follower[partition][id].state, state);
	PUT(broker, follower[partition][id].placement, placement);
}

/* Of one partition; -1: of all. */
static inline void
forget_follower(Broker *broker, int id, int partition)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		const FollowerRow *row = &broker->disk.follower[p][id];

		if ((partition >= 0 && p != partition) || row->state == FOLLOWER_NONE ||
			row->state == FOLLOWER_FORGOTTEN)
			continue;
		put_follower(broker, p, id, row->state == FOLLOWER_READY && broken != BREAK_FORGET_READY ?
					 FOLLOWER_FORGOTTEN : FOLLOWER_NONE, row->placement);
	}
}

static inline void
publish_end(Broker *broker, int id)
{
	forget_follower(broker, id, -1);
	follower_forget(broker, id);
	for (int p = 0; p < PARTITIONS; p++)
		set_published(broker, id, p, -1);
	PUT(broker, publications[id], false);
	broker->slots[id].id = 0;
	commit(broker, true);
	event("publishes nothing any more to", broker->id, id, 0, 0);
}

static inline Code
publish_remove(Broker *broker, int id, const Call *call)
{
	int			partition = call->args[0];
	const FollowerRow *row = &broker->disk.follower[partition][id];

	if (row->state == FOLLOWER_FORGOTTEN && broken != BREAK_FORGOTTEN_BEGINS)
		return NOT_NOW;
	if (row->state != FOLLOWER_NONE && row->state != FOLLOWER_FORGOTTEN && row_of(broker, partition) != NULL &&
		partition_in_sync(row_of(broker, partition), id) && broken != BREAK_FORGOTTEN_BEGINS)
		return NOT_NOW;
	if (!is_led_for(broker, id, call))
		return NOT_NOW;
	partition_update_slot(broker, partition);
	put_follower(broker, partition, id, FOLLOWER_NONE, 0);
	set_published(broker, id, partition, -1);
	commit(broker, true);
	return DONE;
}

static inline Code
publish_add(Broker *broker, int id, const Call *call)
{
	int			partition = call->args[0];

	if (!is_led_for(broker, id, call))
		return NOT_NOW;
	if (is_published(broker, id, partition))
		return DONE;
	/* there are no publications */
	if (!broker->disk.publications[id])
		return FAILED;
	set_published(broker, id, partition, call->args[3]);
	put_follower(broker, partition, id, FOLLOWER_PUBLISHED, call->args[2]);
	commit(broker, true);
	return DONE;
}

/* *known: false if the leader knows nothing of the copy. */
static inline Code
publish_ready(Broker *broker, int id, const Call *call, int *known)
{
	const FollowerRow *row = &broker->disk.follower[call->args[0]][id];

	if (!is_led_for(broker, id, call))
		return NOT_NOW;
	if (row->state == FOLLOWER_PUBLISHED)
		put_follower(broker, call->args[0], id, FOLLOWER_REPORTED, row->placement);
	*known = row->state != FOLLOWER_NONE && row->state != FOLLOWER_FORGOTTEN;
	commit(broker, true);
	return DONE;
}

/* storage/epochs.c */
static inline int
epoch_newest(const Broker *broker, int partition)
{
	for (int e = epochs_max[partition]; e > 0; e--)
	{
		if (broker->disk.epoch_starts[partition][e] >= 0)
			return e;
	}
	return 0;
}

static inline int
epoch_agreed(const Broker *broker, int partition, int after)
{
	int			agreed = OFFSETS_MAX;

	for (int e = after + 1; e <= epochs_max[partition]; e++)
	{
		if (broker->disk.epoch_starts[partition][e] >= 0)
			agreed = Min(agreed, broker->disk.epoch_starts[partition][e]);
	}
	return agreed;
}

/* Takes out what is not led here, or has no replica there, and ends what has nothing. */
static inline void
publish_tidy(Broker *broker)
{
	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		bool		any = false;

		if (!broker->disk.publications[f])
			continue;
		for (int p = 0; p < PARTITIONS; p++)
		{
			const ImagePartition *row = row_of(broker, p);
			bool		follows = row != NULL && row->leader == broker->id && partition_has_replica(row, f);

			if (!follows && is_published(broker, f, p))
			{
				set_published(broker, f, p, -1);
				commit(broker, true);
			}
			any |= follows;
		}
		if (!any)
			publish_end(broker, f);
	}
}

/* --- subscriptions --- */

static inline void
disconnect(Stream *stream)
{
	stream->connected = false;
	stream->try_at = now + 1 + random_below(4);
	memset(stream->knows, 0, sizeof(stream->knows));
	memset(stream->horizon, 0, sizeof(stream->horizon));
}

static inline bool
is_awake(int id)
{
	return now >= brokers[id].pause_until;
}

static inline bool
can_talk(const Broker *a, const Broker *b)
{
	return b->host.up && is_awake(b->id) && is_linked(a->id, b->id) && is_linked(b->id, a->id);
}

/*
 * Whether what the leader writes of a table is written here.  An apply worker that has
 * seen a table to be ready does not look again, until the leader tells it anew of the
 * table, which it does when something has changed in what is published.
 */
static inline bool
is_applied(Stream *stream, const SubTable *table, int partition, int which, int lsn, Published as)
{
	int		   *knows = &stream->knows[partition][which];

	if (*knows == as.lsn)
		return true;
	*knows = table->state == 'r' ? as.lsn : 0;
	return table->state == 'r' || (table->state == 's' && lsn > table->lsn);
}

typedef enum Applied
{
	APPLIED, APPLIED_NOTHING, APPLY_CONFLICT
} Applied;

/* Writes one change here that was made at a leader. */
static inline Applied
apply_change(Broker *broker, const WalEntry *entry)
{
	int			p = entry->partition;

	if (entry->kind == WAL_ROW)
	{
		require(!leads(broker, p), "nothing arrives where somebody leads");
		/* two rows of one offset: the worker ends, and begins again with this */
		if (broker->disk.log[p][entry->offset] != 0)
			return APPLY_CONFLICT;
		for (int t = 0; t < TXNS_MAX; t++)
		{
			const Txn  *txn = &broker->txns[t];

			/* waits for who has it in an index */
			for (int i = 0; txn->state == TXN_OPEN && i < txn->count; i++)
			{
				if (txn->writes[i].partition == p && txn->writes[i].offset == entry->offset)
					return APPLY_CONFLICT;
			}
		}
		put_row(broker, p, entry->offset, entry->message, broker->wal_end);
		return APPLIED;
	}
	if (entry->kind == WAL_POSITION_INSERT)
	{
		if (*position_at(broker, p, entry->key_epoch) >= 0)
			return APPLY_CONFLICT;
	}
	else if (*position_at(broker, p, entry->key_epoch) < 0)
		return APPLIED_NOTHING;
	put_position(broker, p, entry->key_epoch, entry->offset);
	return APPLIED;
}

/*
 * Writes a transaction of a leader's, from one LSN up to the next commit, or of it what
 * goes to one table (which >= 0).  False if that is not possible; then nothing is.
 */
static inline bool
apply_transaction(Broker *broker, int from, int lsn, Stream *stream, int partition, int which)
{
	int			undo_before = broker->undo_count;
	int			wal_before = broker->wal_end;
	int			leader = stream - broker->streams;
	bool		any = false;

	for (int i = from; i < lsn; i++)
	{
		const WalEntry *entry = &wal[leader][i];
		int			table = entry->kind == WAL_ROW ? ROWS : POSITIONS;
		Published	as;
		Applied		applied;

		if (entry->kind >= WAL_MARK)
			continue;
		as = published_at(leader, broker->id, entry->partition, entry->written);
		if (as.from < 0 || (entry->kind == WAL_ROW && entry->offset < as.from))
			continue;
		if (which >= 0 ? entry->partition != partition || table != which :
			!is_applied(stream, &broker->disk.subscription[leader].tables[entry->partition][table],
						entry->partition, table, lsn, as))
			continue;
		applied = apply_change(broker, entry);
		any |= applied == APPLIED;
		if (applied == APPLY_CONFLICT)
		{
			total.conflicts++;
			event("cannot write; from, partition, offset", broker->id, leader, entry->partition,
				  entry->kind == WAL_ROW ? entry->offset : -1 - entry->key_epoch);
			while (broker->undo_count > undo_before)
			{
				Undo	   *note = &undo[broker->id][--broker->undo_count];

				memcpy(note->where, note->old, note->size);
			}
			broker->wal_end = wal_before;
			return false;
		}
	}
	if (any)
	{
		if (which < 0)
			PUT(broker, subscription[leader].origin, lsn);
		commit(broker, false);
	}
	return true;
}

/* Where the transaction that begins at an LSN ends. */
static inline int
next_commit(int broker, int lsn)
{
	while (wal[broker][lsn].kind != WAL_COMMIT)
		lsn++;
	return lsn + 1;
}

/* A table that was copied is part of the stream from where that has come there. */
static inline void
end_copies(Broker *broker, int leader)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		for (int t = 0; t < TABLES; t++)
		{
			SubTable   *table = &broker->disk.subscription[leader].tables[p][t];

			if (table->state != 's' || broker->streams[leader].applied < table->lsn)
				continue;
			PUT(broker, subscription[leader].tables[p][t].state, 'r');
			commit(broker, false);
		}
	}
}

/* What a table holds at the leader is copied, when transactions of before have ended there. */
static inline void
copy_table(Broker *broker, int leader_id, int p, int which)
{
	Broker	   *leader = broker_by_id(leader_id);
	Stream	   *stream = &broker->streams[leader_id];
	int			from = leader->disk.published_from[broker->id][p];
	int			undo_before = broker->undo_count;
	int			wal_before = broker->wal_end;
	bool		conflict = false;

	if (stream->horizon[p][which] == 0 || stream->horizon_life[p][which] != leader->life)
	{
		stream->horizon[p][which] = leader->next_txn;
		stream->horizon_life[p][which] = leader->life;
		return;
	}
	for (int t = 0; t < TXNS_MAX; t++)
	{
		if (leader->txns[t].state == TXN_OPEN && leader->txns[t].id < stream->horizon[p][which] &&
			broken != BREAK_COPY_AT_ONCE)
			return;
	}
	/* it is not published any more */
	if (from < 0)
		return;
	flush(leader);
	for (int o = from; which == ROWS && o < OFFSETS_MAX && !conflict; o++)
	{
		if (leader->disk.log[p][o] == 0)
			continue;
		conflict = apply_change(broker, &(WalEntry) {
			.kind = WAL_ROW,.partition = p,.offset = o,.message = leader->disk.log[p][o]
		}) == APPLY_CONFLICT;
	}
	for (int e = WATERMARK; which == POSITIONS && e <= epochs_max[p] && !conflict; e++)
	{
		if (e == 0 || *position_at(leader, p, e) < 0)
			continue;
		conflict = apply_change(broker, &(WalEntry) {
			.kind = WAL_POSITION_INSERT,.partition = p,.key_epoch = e,.offset = *position_at(leader, p, e)
		}) == APPLY_CONFLICT;
	}
	/* the stream is further than the copy: it is brought there */
	for (int at = leader->wal_end; at < stream->applied && !conflict; at = next_commit(leader_id, at))
		conflict = !apply_transaction(broker, at, next_commit(leader_id, at), stream, p, which);
	stream->horizon[p][which] = 0;
	if (conflict)
	{
		total.conflicts++;
		event("cannot copy; from, partition", broker->id, leader_id, p, which);
		while (broker->undo_count > undo_before)
		{
			Undo	   *note = &undo[broker->id][--broker->undo_count];

			memcpy(note->where, note->old, note->size);
		}
		broker->wal_end = wal_before;
		return;
	}
	PUT(broker, subscription[leader_id].tables[p][which].state, 's');
	PUT(broker, subscription[leader_id].tables[p][which].lsn, leader->wal_end);
	commit(broker, false);
	event("has copied; from, partition, table", broker->id, leader_id, p, which);
}

static inline void
connect_stream(Broker *broker, int leader_id)
{
	Broker	   *leader = broker_by_id(leader_id);
	Stream	   *stream = &broker->streams[leader_id];
	const Subscription *subscription = &broker->disk.subscription[leader_id];
	int			begin;

	/*
	 * PostgreSQL receives as soon as it is up, also a standby that was promoted and does
	 * not know yet that it is one; and whom it confirms to may not lead any more.
	 */
	if (now < stream->try_at || (!broker->standing_known && broken != SERVER_PROMOTED_RECEIVES))
		return;
	stream->try_at = now + 1 + random_below(4);
	if (!can_talk(broker, leader) || leader->slots[broker->id].id == 0 ||
		!leader->disk.publications[broker->id])
		return;
	/* the server begins where its slot is, even if less was asked for */
	begin = Max(subscription->origin, leader->slots[broker->id].confirmed);
	if (begin > leader->wal_flushed)
		return;
	memset(stream->knows, 0, sizeof(stream->knows));
	memset(stream->horizon, 0, sizeof(stream->horizon));
	stream->connected = true;
	stream->subscription = subscription->id;
	stream->slot = leader->slots[broker->id].id;
	stream->life = leader->life;
	stream->sent = stream->applied = stream->flushed = begin;
	stream->reported = 0;
	event("receives; from, slot, lsn", broker->id, leader_id, stream->slot, begin);
}

/* What a subscription does in a ms. */
static inline void
run_stream(Broker *broker, int leader_id)
{
	Broker	   *leader = broker_by_id(leader_id);
	Stream	   *stream = &broker->streams[leader_id];
	bool		talks;

	if (broker->disk.subscription[leader_id].id == 0)
	{
		stream->connected = false;
		return;
	}
	if (!stream->connected)
	{
		connect_stream(broker, leader_id);
		return;
	}
	talks = can_talk(broker, leader);
	if (!leader->host.up || leader->life != stream->life || leader->slots[broker->id].id != stream->slot)
	{
		/* WAL from here on may be another one by now */
		if (leader->life != stream->life || stream->applied == stream->sent || chance(200))
		{
			disconnect(stream);
			return;
		}
	}
	else if (talks && stream->sent < leader->wal_flushed && chance(700))
	{
		stream->sent += 1 + random_below(16);
		stream->sent = Min(stream->sent, leader->wal_flushed);
	}
	if (mishap(faults.stall))
		stream->stalls_until = now + random_below(150);
	for (int n = random_below(8); n > 0 && stream->applied < stream->sent && now >= stream->stalls_until; n--)
	{
		int			lsn = next_commit(leader_id, stream->applied);

		if (lsn > stream->sent)
			break;
		if (!apply_transaction(broker, stream->applied, lsn, stream, 0, -1))
		{
			disconnect(stream);
			stream->try_at = now + APPLY_RETRY;
			return;
		}
		stream->applied = lsn;
		if (broker->undo_count == 0)
			stream->flushed = lsn;
		end_copies(broker, leader_id);
	}
	if (broken == BREAK_UNFLUSHED)
		stream->flushed = stream->applied;
	for (int p = 0; p < PARTITIONS && talks && leader->life == stream->life; p++)
	{
		for (int t = 0; t < TABLES; t++)
		{
			if (broker->disk.subscription[leader_id].tables[p][t].state == 'i' && chance(250))
				copy_table(broker, leader_id, p, t);
		}
	}
	end_copies(broker, leader_id);
	if (stream->flushed > stream->reported && chance(600))
	{
		Message		message = {.from = broker->id,.to = leader_id,.kind = CONFIRM};

		message.u.confirm.slot = stream->slot;
		message.u.confirm.lsn = stream->flushed;
		stream->reported = stream->flushed;
		network_send(message, true);
	}
	else if (talks && chance(20))
		stream->reported = 0;	/* once more: one may have been lost */
}

static inline void
subscribe_drop(Broker *broker, int leader)
{
	if (broker->disk.subscription[leader].id == 0)
		return;
	PUT(broker, subscription[leader].id, 0);
	for (int p = 0; p < PARTITIONS; p++)
	{
		for (int t = 0; t < TABLES; t++)
			PUT(broker, subscription[leader].tables[p][t].state, 0);
	}
	commit(broker, true);
	broker->streams[leader].connected = false;
	event("receives nothing any more from", broker->id, leader, 0, 0);
}

/* Brings a subscription's tables in line with what is published. */
static inline void
put_tables(Broker *broker, int leader, int tables)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		for (int t = 0; t < TABLES; t++)
		{
			char		state = broker->disk.subscription[leader].tables[p][t].state;

			if (((tables >> p) & 1) == (state != 0))
				continue;
			PUT(broker, subscription[leader].tables[p][t].state, state != 0 ? 0 : 'i');
			broker->streams[leader].horizon[p][t] = 0;
		}
	}
}

#endif							/* FAILOVER_STREAMS_H */
