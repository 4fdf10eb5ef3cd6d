/*
 * failover_sessions.h
 *		What sessions and other processes of a broker of test_failover_sim.c do: answer other
 *		brokers (sql/peer_cluster_calls.c), serve clients, store watermarks.
 */
#ifndef FAILOVER_SESSIONS_H
#define FAILOVER_SESSIONS_H

/* --- sessions that other brokers have called --- */

static void
send_answer(int from, int to, const Call *call, Answer answer)
{
	Message		message = {.from = from,.to = to,.kind = ANSWER};

	answer.call = call->id;
	message.u.answer = answer;
	network_send(message, true);
}

/* Whether a session has waited for what it waits for; then *answer is set. */
static bool
has_waited(Broker *broker, const Waiter *waiter, Answer *answer)
{
	const Call *call = &waiter->call;

	if (call->kind == CALL_WAIT_COMMITTED)
	{
		if (!is_controller(broker) || broker->disk.quorum.term != call->term)
			answer->code = FAILED;
		else if (broker->disk.quorum.committed_version < call->version)
		{
			if (now < waiter->until)
				return false;
			answer->code = FAILED;
		}
		return true;
	}
	for (int t = 0; t < TXNS_MAX; t++)
	{
		if (broker->txns[t].state == TXN_OPEN && broker->txns[t].id < waiter->horizon)
			return false;
	}
	if (broker->slots[waiter->from].id == 0)
	{
		/* it begins where WAL can be decoded */
		flush(broker);
		broker->slots[waiter->from] = (ReplicationSlot) {++ids_count, broker->wal_end, broker->wal_end};
		event("makes a slot; for, lsn", broker->id, waiter->from, broker->wal_end, 0);
	}
	return true;
}

static void
answer_call(Broker *broker, const Message *message)
{
	const Call *call = &message->u.call;
	int			from = message->from;
	int			partition = call->args[0];
	Answer		answer = {.code = DONE};

	switch (call->kind)
	{
		case CALL_CHANGE:
			answer.code = propose(broker, call->change, call->args, &answer.version);
			answer.value = broker->disk.quorum.image_version;
			answer.term = broker->disk.quorum.term;
			break;
		case CALL_WAIT_COMMITTED:
		case CALL_CREATE_SLOT:
			for (int w = 0; w < WAITERS_MAX; w++)
			{
				if (broker->waiters[w].call.id != 0)
					continue;
				broker->waiters[w] = (Waiter) {*call, from, now + COMMIT_WAIT, broker->next_txn};
				break;
			}
			return;
		case CALL_FOLLOW:
			if (!broker->disk.publications[from])
			{
				PUT(broker, publications[from], true);
				commit(broker, true);
			}
			answer.value = broker->slots[from].id != 0;
			break;
		case CALL_UNFOLLOW:
			publish_end(broker, from);
			break;
		case CALL_FORGET:
			forget_follower(broker, from, partition);
			commit(broker, true);
			broker->woken = true;
			break;
		case CALL_UNPUBLISH:
			answer.code = publish_remove(broker, from, call);
			break;
		case CALL_AGREED:
			if (is_led_for(broker, from, call))
				answer.value = epoch_agreed(broker, partition, call->args[3]);
			else
				answer.code = NOT_NOW;
			break;
		case CALL_PUBLISH:
			answer.code = publish_add(broker, from, call);
			break;
		case CALL_READY:
			answer.code = publish_ready(broker, from, call, &answer.value);
			broker->woken = true;
			break;
		case CALL_TABLES:
			for (int p = 0; p < PARTITIONS; p++)
			{
				if (is_published(broker, from, p))
					answer.value |= bit(p);
			}
			break;
		case CALL_OPEN_PARTITIONS:
			answer.xmin = answer.xmax = broker->next_txn;
			answer.end = broker->wal_end;
			for (int p = 0; p < PARTITIONS; p++)
			{
				if (is_published(broker, from, p))
					answer.value |= bit(p);
			}
			for (int t = 0; t < TXNS_MAX; t++)
			{
				if (broker->txns[t].state != TXN_OPEN)
					continue;
				answer.xmin = Min(answer.xmin, broker->txns[t].id);
				for (int i = 0; i < broker->txns[t].count; i++)
					answer.open |= bit(broker->txns[t].writes[i].partition);
			}
			break;
	}
	send_answer(broker->id, from, call, answer);
}

static void
run_waiters(Broker *broker)
{
	for (int w = 0; w < WAITERS_MAX; w++)
	{
		Waiter	   *waiter = &broker->waiters[w];
		Answer		answer = {.code = DONE};

		if (waiter->call.id == 0 || !has_waited(broker, waiter, &answer))
			continue;
		send_answer(broker->id, waiter->from, &waiter->call, answer);
		waiter->call.id = 0;
	}
}

/* --- clients --- */

/* shmem/cluster_state.c */
static bool
is_cut_off(Broker *broker, int timeouts)
{
	if (broken == BREAK_CUT_OFF_SERVES)
		return false;
	if (is_controller(broker) ? !has_majority(broker) : now - broker->heard > timeouts * SESSION)
		return true;
	return !broker->serves;
}

/* It has heard, and not applied yet, that another one may lead, or it itself anew. */
static bool
is_known_deposed(const Broker *broker, int partition, int epoch)
{
	return broken != SERVER_ALONE_DEPOSED &&
		image_at(broker->disk.image)->partitions[partition].leader_epoch > epoch;
}

/* Takes an offset of a partition for a transaction, if that is possible here. */
static void
produce(Broker *broker, Txn *txn, int partition)
{
	const ImagePartition *row = row_of(broker, partition);
	PartitionSlot *slot;
	bool		has_append = false;

	if (!leads(broker, partition) || txn->count == lengthof(txn->writes) ||
		(row->replicas_count > 1 && is_cut_off(broker, 1)))
		return;
	/* the server asks only where there are other replicas, as far as it knows */
	if (!broker->serves && broken != SERVER_PROMOTED_SINGLE && broken != BREAK_CUT_OFF_SERVES)
		return;
	/* nobody else has anything of it */
	if (row->replicas_count == 1 && broker->has_gap[partition])
		forgive_gap(broker, partition);
	slot = slot_of(broker, partition);
	if (is_known_deposed(broker, partition, slot->leader_epoch))
		return;
	if (slot->closed || slot->isr_count < min_insync || slot->count >= APPENDS_MAX - 1)
		return;
	for (int i = 0; i < txn->count; i++)
		has_append |= txn->writes[i].partition == partition;
	require(slot->next < OFFSETS_MAX, "room for offsets");
	if (!has_append)
		slot->appends[slot->count++] = (Append) {slot->next, 0};
	txn->writes[txn->count].partition = partition;
	txn->writes[txn->count].offset = slot->next++;
	txn->writes[txn->count].message = ++messages_made;
	txn->writes[txn->count].written = broker->wal_end;
	txn->writes[txn->count].epoch = slot->leader_epoch;
	txn->writes[txn->count].superseded = false;
	txn->count++;
	move_watermark(slot);
}

static void
begin_txn(Broker *broker)
{
	for (int t = 0; t < TXNS_MAX; t++)
	{
		Txn		   *txn = &broker->txns[t];

		if (txn->state != TXN_NONE)
			continue;
		*txn = (Txn) {
			.state = TXN_OPEN,.id = broker->next_txn++,.acks_all = chance(800),
				.ends = now + random_below(chance(950) || quiet ? 6 : 250)
		};
		for (int n = random_below(3); n >= 0; n--)
			produce(broker, txn, random_below(PARTITIONS));
		if (txn->count == 0)
			txn->state = TXN_NONE;
		return;
	}
}

/* Takes a transaction's append out of a slot, or has it wait. */
static void
close_append(PartitionSlot *slot, int offset, int lsn)
{
	int			kept = 0;

	for (int i = 0; i < slot->count; i++)
	{
		if (slot->appends[i].first == offset && slot->appends[i].lsn == 0)
		{
			if (lsn == 0)
				continue;
			slot->appends[i].lsn = lsn;
		}
		slot->appends[kept++] = slot->appends[i];
	}
	slot->count = kept;
	move_watermark(slot);
}

/*
 * Whether the commit of a leader that is alone in sync counts.  The server does not ask:
 * its commits have nobody to wait for.
 */
static bool
may_acknowledge_alone(Broker *broker, const Txn *txn)
{
	for (int i = 0; i < txn->count; i++)
	{
		int			p = txn->writes[i].partition;

		if (row_of(broker, p)->replicas_count == 1)
			continue;
		if ((broken != SERVER_ALONE_CUT_OFF && is_cut_off(broker, 1)) ||
			is_known_deposed(broker, p, txn->writes[i].epoch))
			return false;
	}
	return true;
}

static void
end_txn(Broker *broker, Txn *txn, bool commits)
{
	uint32		closed = 0;

	if (commits)
	{
		for (int i = 0; i < txn->count; i++)
			put_row(broker, txn->writes[i].partition, txn->writes[i].offset, txn->writes[i].message,
					txn->writes[i].written);
		commit(broker, true);
		txn->lsn = broker->wal_end;
	}
	for (int i = 0; i < txn->count; i++)
	{
		int			p = txn->writes[i].partition;
		PartitionSlot *slot = &broker->partitions[p];
		bool		replicated = slot->isr_mask != 0 || slot->abandoned;

		if (!commits)
			put_trace(broker, p, txn->writes[i].offset + 1);
		txn->writes[i].superseded = newest_epoch[p] > txn->writes[i].epoch &&
			led_by[p][newest_epoch[p]] != broker->id;
		if (closed & bit(p))
			continue;
		closed |= bit(p);
		if (commits && replicated)
			txn->slots |= bit(p);
		close_append(slot, txn->writes[i].offset, commits && replicated && !slot->abandoned ? txn->lsn : 0);
	}
	if (!commits)
		commit(broker, true);
	txn->state = commits && txn->acks_all && txn->slots != 0 ? TXN_WAITING : TXN_NONE;
	if (commits && txn->acks_all && txn->slots == 0 && may_acknowledge_alone(broker, txn))
		check_acknowledged(broker, txn, !is_cut_off(broker, 1));
}

/* shmem/slots_acks.c, sleep_until_confirmed() */
static void
look_at_waiting(Broker *broker, Txn *txn)
{
	int			confirmed = WAL_MAX + 1;
	bool		abandoned = false;
	bool		alone = false;

	for (int p = 0; p < PARTITIONS; p++)
	{
		if (!(txn->slots & bit(p)))
			continue;
		confirmed = Min(confirmed, slot_confirmed(broker, &broker->partitions[p]));
		abandoned |= broker->partitions[p].abandoned;
		alone |= broker->partitions[p].isr_mask == 0;
	}
	if (abandoned)
		txn->state = TXN_NONE;
	else if (confirmed >= txn->lsn)
	{
		txn->state = TXN_NONE;
		if (!alone || may_acknowledge_alone(broker, txn))
			check_acknowledged(broker, txn, !is_cut_off(broker, 1));
	}
	/* nobody is told that it has committed; or the client does not want to know */
	else if (is_cut_off(broker, 2) || mishap(2))
		txn->state = TXN_NONE;
}

static void
run_clients(Broker *broker)
{
	if (broker->disk.image == 0)
		return;
	if (chance(faults.produce))
		begin_txn(broker);
	for (int t = 0; t < TXNS_MAX; t++)
	{
		Txn		   *txn = &broker->txns[t];

		if (txn->state == TXN_OPEN && now >= txn->ends)
			end_txn(broker, txn, chance(900));
		else if (txn->state == TXN_WAITING)
			look_at_waiting(broker, txn);
	}
	if (chance(100))
	{
		int			p = random_below(PARTITIONS);

		/* the server's readers do not ask whether it serves */
		if (leads(broker, p) && (broker->serves || broken == SERVER_PROMOTED_READS) &&
			slot_of(broker, p)->leader_epoch == row_of(broker, p)->leader_epoch)
			check_read(broker, p);
	}
}

/* --- other processes of a broker --- */

/* worker/acks.c */
static void
run_acks(Broker *broker)
{
	if (chance(400))
		return;
	followers_poll(broker);
	for (int p = 0; p < PARTITIONS; p++)
	{
		if (broker->partitions[p].there && broker->partitions[p].count > 0)
			slot_confirm(broker, &broker->partitions[p]);
	}
}

/*
 * worker/maintenance.c: the watermarks are read first, and stored when the worker comes
 * to it.
 */
static void
run_maintenance(Broker *broker)
{
	/* a standby that was promoted knows nothing of what was settled */
	if (!broker->standing_known && broken != SERVER_PROMOTED_STORES)
		return;
	if (!broker->storing && now >= broker->checkpoint_at)
	{
		broker->checkpoint_at = now + CHECKPOINT + random_below(CHECKPOINT);
		for (int p = 0; p < PARTITIONS; p++)
		{
			const PartitionSlot *slot = &broker->partitions[p];

			broker->storing_epoch[p] = slot->there && slot->watermark != slot->checkpointed ? slot->leader_epoch : -1;
			broker->storing_watermark[p] = broken == BREAK_UNSETTLED_STORED ? slot->next : slot->watermark;
		}
		broker->storing = true;
		broker->store_at = now + random_below(mishap(50) ? 60 : 3);
	}
	if (!broker->storing || now < broker->store_at)
		return;
	broker->storing = false;
	for (int p = 0; p < PARTITIONS; p++)
	{
		if (!leads(broker, p))
			continue;
		if (broker->storing_epoch[p] >= 0)
		{
			PUT(broker, watermark[p], broker->storing_watermark[p]);
			if (row_of(broker, p)->replicas_count > 1)
				put_position(broker, p, WATERMARK, broker->storing_watermark[p]);
			broker->partitions[p].checkpointed = broker->storing_watermark[p];
		}
		else if (broker->disk.position[p] < 0)
			put_position(broker, p, WATERMARK, broker->disk.watermark[p]);
		else
			continue;
		commit(broker, true);
	}
}

#endif							/* FAILOVER_SESSIONS_H */
