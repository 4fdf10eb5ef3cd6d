/* links: base/quorum.c base/image.c base/image_text.c base/image_changes.c base/image_moves.c base/placement.c */
/*
 * test_failover_sim.c
 *		A cluster of brokers in one process and in simulated time, with the real
 *		quorum.c and image*.c, and a model of all that replicates data.  A seed decides
 *		everything: see run() for what is to be true, and the end of this comment for
 *		what is not as in the server.
 *
 *		1200 seeds, unless sim.h's settings say otherwise.
 *		PGTOPIC_BREAK		breaks a rule, by name (see rules[]), so that it can be seen
 *							what is found; "each": one after the other
 */

/* it does not know that tasks have stacks of their own */
#undef _FORTIFY_SOURCE

#include "postgres_fe.h"

#include "common/fe_memutils.h"

#include "base/image.h"
#include "base/quorum.h"
#include "unit.h"
#include "failover_sim.h"
#include "failover_data.h"
#include "failover_worker.h"

/* --- the quorum: worker/quorum.c, sql/peer_cluster_calls.c --- */

static const QuorumMembers *
members_of(const Broker *broker)
{
	return &images[broker->disk.image].members;
}

/* Stores what a decision has changed; it is on disk before anybody hears of it. */
static void
store(Broker *broker, const QuorumDurable *durable, int image)
{
	PUT(broker, quorum, *durable);
	if (image != 0)
		PUT(broker, image, image);
	if (durable->committed_version == durable->image_version)
		PUT(broker, committed_image, broker->disk.image);
	commit(broker, true);
	require(durable->committed_version >= broker->committed_seen, "what is known to be committed only grows");
	if (durable->committed_version > broker->committed_seen)
		broker->woken = true;
	broker->committed_seen = durable->committed_version;
}

static void
learn_members(Broker *broker)
{
	if (broker->members_of == broker->disk.image)
		return;
	broker->members_of = broker->disk.image;
	quorum_set_members(&broker->run, members_of(broker), now);
}

static bool
has_majority(Broker *broker)
{
	return quorum_has_majority(&broker->run, now);
}

static bool
is_controller(Broker *broker)
{
	return quorum_is_controller(&broker->run, &broker->disk.quorum);
}

static void
answer_vote(Broker *broker, const Message *message)
{
	Message		reply = {.kind = VOTE_REPLY,.from = broker->id,.to = message->from};
	QuorumDurable durable = broker->disk.quorum;
	bool		changed;
	bool		heard = (broker->heard > 0 && now - broker->heard < ELECTION) ||
		(is_controller(broker) && has_majority(broker));

	reply.u.vote_reply = quorum_on_vote_request(&durable, &message->u.vote_request, heard, &changed);
	if (changed)
		store(broker, &durable, 0);
	if (changed && reply.u.vote_reply.granted)
		quorum_heard_controller(&broker->run, now, random_below(1 << 30));
	network_send(reply, false);
}

static void
answer_accept(Broker *broker, const Message *message)
{
	Message		reply = {.kind = ACCEPT_REPLY,.from = broker->id,.to = message->from};
	QuorumDurable durable = broker->disk.quorum;
	bool		changed;
	bool		take_image;
	bool		committed;

	reply.u.accept_reply = quorum_on_accept_request(&durable, &message->u.accept_request,
													&changed, &take_image, &committed);
	if (changed)
		store(broker, &durable, take_image ? message->image : 0);
	if (committed)
		check_commit(broker->disk.image);
	if (reply.u.accept_reply.accepted)
	{
		broker->controller = message->from;
		broker->heard = now;
		broker->heard_unnoticed = true;
	}
	network_send(reply, false);
}

static void
take_reply(Broker *broker, const Message *message)
{
	QuorumDurable durable = broker->disk.quorum;
	bool		changed;

	broker->seen[message->from] = now;
	if (message->kind == VOTE_REPLY)
		quorum_on_vote_reply(&broker->run, &durable, message->from, &message->u.vote_reply, now, &changed);
	else
		quorum_on_accept_reply(&broker->run, &durable, message->from, &message->u.accept_reply, now, &changed);
	if (changed)
		store(broker, &durable, 0);
}

static void
send_requests(Broker *broker)
{
	const QuorumDurable *durable = &broker->disk.quorum;

	for (int i = 0; i < broker->run.peers_count; i++)
	{
		QuorumPeer *peer = &broker->run.peers[i];
		int64	   *committed_sent = &broker->committed_sent[peer->id];
		Message		message = {.from = broker->id,.to = peer->id};
		bool		with_image;

		if (!quorum_should_send(&broker->run, durable, peer, *committed_sent, now, &with_image))
			continue;
		if (is_controller(broker))
		{
			message.kind = ACCEPT_REQUEST;
			message.image = with_image ? broker->disk.image : 0;
			message.u.accept_request = (AcceptRequest)
			{
				durable->term, broker->id, durable->image_term, durable->image_version,
					with_image, durable->committed_version
			};
			*committed_sent = durable->committed_version;
		}
		else
		{
			message.kind = VOTE_REQUEST;
			message.u.vote_request = (VoteRequest)
			{
				durable->term, broker->id, durable->image_term, durable->image_version
			};
		}
		quorum_sent(peer, durable, with_image, now);
		network_send(message, false);
	}
}

/* --- changes of the metadata: cluster/change.c --- */

static Image *
copy_image(const Image *from)
{
	Image	   *image = palloc(sizeof(Image));

	*image = *from;
	image->brokers = palloc(sizeof(ImageBroker) * from->brokers_count);
	image->topics = palloc(sizeof(ImageTopic) * from->topics_count);
	image->partitions = palloc(sizeof(ImagePartition) * from->partitions_count);
	memcpy(image->brokers, from->brokers, sizeof(ImageBroker) * from->brokers_count);
	memcpy(image->topics, from->topics, sizeof(ImageTopic) * from->topics_count);
	memcpy(image->partitions, from->partitions, sizeof(ImagePartition) * from->partitions_count);
	return image;
}

static void
free_image(Image *image)
{
	pfree(image->brokers);
	pfree(image->topics);
	pfree(image->partitions);
	pfree(image);
}

/*
 * What a broker has is not what it had: nobody takes it for that.  It is in sync with
 * nothing; what nobody else is in sync with, it leads as one that was elected unclean.
 * The server has no such change.
 */
static void
place_anew(Image *image, int broker)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		ImagePartition *partition = &image->partitions[p];
		int			kept = 0;

		for (int i = 0; i < partition->replicas_count; i++)
		{
			if (partition->replicas[i] == broker && broken != SERVER_PROMOTED_READY)
				partition->placed[i] = ++partition->placements;
		}
		if (!partition_in_sync(partition, broker) || broken == SERVER_PROMOTED_IN_SYNC)
			continue;
		partition->leader_epoch++;
		partition->successor = 0;
		for (int i = 0; i < partition->isr_count; i++)
		{
			if (partition->isr[i] != broker)
				partition->isr[kept++] = partition->isr[i];
		}
		if (kept > 0)
			partition->isr_count = kept;
		else if (broken != SERVER_PROMOTED_HOLES)
			partition->unclean_epoch = partition->leader_epoch;
		partition->leader = partition->isr[0];
	}
}

/* run_change(): what is to be done and is not a matter of the image alone. */
static bool
run_change(Image *image, Change change, const int *args, bool *changed, ImageProblem *problem)
{
	ImagePartition *partition;
	int32		id;
	int32		list[BROKERS_MAX];
	int			count = 0;

	*changed = true;
	switch (change)
	{
		case CHANGE_ISR:
			partition = &image->partitions[args[0]];
			if (partition_placement(partition, args[3]) != args[5] ||
				(partition->revision != args[6] && broken != BREAK_OLD_REVISION))
			{
				*changed = false;
				return true;
			}
			if (!args[4] && !partition_in_sync(partition, args[3]) && partition->leader == args[1] &&
				partition->leader_epoch == args[2])
			{
				partition->revision++;
				return true;
			}
			return image_change_isr(image, 1, args[0], args[1], args[2], args[3], args[4] != 0, changed, problem);
		case CHANGE_HAND_OVER:
			partition = &image->partitions[args[0]];
			if (partition->revision != args[5] && broken != BREAK_OLD_REVISION)
			{
				*changed = false;
				return true;
			}
			return image_hand_over(image, 1, args[0], args[1], args[2], args[3], args[4] != 0, changed, problem);
		case CHANGE_FENCE:
			if (!image_fence_broker(image, args[0], changed, problem))
				return false;
			if (args[1])
			{
				place_anew(image, args[0]);
				*changed = true;
			}
			return true;
		case CHANGE_UNFENCE:
			return image_unfence_broker(image, args[0], args[1], changed, problem);
		case CHANGE_ADVANCE:
			return true;
		case CHANGE_PREFER_LEADERS:
			image_prefer_leaders(image, changed);
			return true;
		case CHANGE_ELECT_LEADER:
			return image_elect_leader(image, 1, args[0], args[1], problem);
		case CHANGE_ELECT_UNCLEAN:
			if (!image_elect_unclean(image, 1, args[0], args[1], problem))
				return false;
			if (broken == BREAK_UNCLEAN_SILENT)
				image->partitions[args[0]].unclean_epoch = 0;
			return true;
		case CHANGE_MOVE_PARTITION:
			for (int i = 0; i < args[1]; i++)
				list[count++] = args[2 + i];
			return image_move_partition(image, 1, args[0], list, count, problem);
		case CHANGE_ADD_BROKER:
			return image->next_broker <= BROKERS_MAX && image_add_broker(image, "", &id, problem);
		case CHANGE_LEAD_ANEW:
			place_anew(image, args[0]);
			return true;
		case CHANGE_REMOVE_BROKER:
			return image_remove_broker(image, args[0], true, problem);
	}
	return false;
}

static bool
same_metadata(const Image *a, const Image *b)
{
	return a->brokers_count == b->brokers_count && a->next_broker == b->next_broker &&
		memcmp(a->brokers, b->brokers, sizeof(ImageBroker) * a->brokers_count) == 0 &&
		memcmp(a->partitions, b->partitions, sizeof(ImagePartition) * a->partitions_count) == 0;
}

/* change_propose() */
static Code
propose(Broker *broker, Change change, const int *args, int64 *version)
{
	QuorumDurable durable = broker->disk.quorum;
	const Image *before = image_at(broker->disk.image);
	ImageProblem problem = {0};
	Image	   *image;
	char	   *fault;
	bool		changed;
	bool		possible;
	int			number;

	*version = 0;
	if (!is_controller(broker) || durable.image_term != durable.term ||
		durable.committed_version != durable.image_version)
		return NOT_NOW;
	image = copy_image(before);
	possible = run_change(image, change, args, &changed, &problem);
	if (possible && changed)
	{
		image_advance(image);
		changed = change != CHANGE_ADVANCE || !same_metadata(image, before);
	}
	if (!possible || !changed)
	{
		/* all is made anew when asked for, but texts of problems */
		free_image(image);
		if (problem.message)
			pfree(problem.message);
		return possible ? DONE : REFUSED;
	}
	image_count_revisions(image, before);
	fault = image_fault(image);
	require(fault == NULL, "changes leave the metadata valid");
	quorum_propose(&durable);
	number = new_image(broker->disk.image, image, false, durable.image_term, durable.image_version);
	if (change == CHANGE_ISR && args[4])
		require(!broker_by_id(args[3])->has_gap[args[0]] || !broker_by_id(args[3])->host.up ||
				!broker_by_id(args[3])->standing_known,
				"who lacks something does not come into sync before it has been copied");
	event("proposes; version, change, argument", broker->id, durable.image_version, change,
		  change == CHANGE_ISR ? 1000 * args[0] + 100 * args[4] + args[3] : args[0]);
	store(broker, &durable, number);
	*version = durable.image_version;
	return DONE;
}

static void
fence_who_is_gone(Broker *broker)
{
	if (!quorum_can_propose(&broker->run, &broker->disk.quorum) || !has_majority(broker))
		return;
	for (int i = 0; i < broker->run.peers_count; i++)
	{
		const QuorumPeer *peer = &broker->run.peers[i];
		int64		heard = Max(Max(peer->heard_at, broker->started), broker->seen[peer->id]);
		int64		version;

		if (now - heard > SESSION && !image_is_fenced(image_at(broker->disk.image), peer->id))
		{
			event("fences; broker, silent for", broker->id, peer->id, now - heard, 0);
			propose(broker, CHANGE_FENCE, (int[]) {peer->id, false}, &version);
			total.fencings++;
			return;
		}
	}
}

/* Pings cost more than they tell, so there are no messages for them. */
static void
ping(Broker *broker)
{
	if (now - broker->pinged < PING)
		return;
	broker->pinged = now;
	for (int i = 0; i < broker->run.peers_count; i++)
	{
		int			id = broker->run.peers[i].id;

		if (can_talk(broker, broker_by_id(id)) && !mishap(network.lose))
			broker->seen[id] = now;
	}
}

static void
run_quorum(Broker *broker)
{
	QuorumDurable durable;

	if (mishap(faults.unnoticed))
		return;
	if (broker->heard_unnoticed)
		quorum_heard_controller(&broker->run, now, random_below(1 << 30));
	broker->heard_unnoticed = false;
	learn_members(broker);
	durable = broker->disk.quorum;
	switch (quorum_tick(&broker->run, &durable, members_of(broker), now))
	{
		case QUORUM_NOTHING:
			break;
		case QUORUM_CAMPAIGN:
			quorum_campaign(&broker->run, &durable, now, random_below(1 << 30));
			store(broker, &durable, 0);
			break;
		case QUORUM_STEP_DOWN:
			quorum_step_down(&broker->run, now, random_below(1 << 30));
			break;
	}
	if (quorum_has_won(&broker->run, &durable, members_of(broker)))
	{
		int			image;

		quorum_become_controller(&broker->run, &durable, now);
		image = new_image(broker->disk.image, images[broker->disk.image].image, true,
						  durable.image_term, durable.image_version);
		event("is the controller; term, version", broker->id, durable.term, durable.image_version, 0);
		store(broker, &durable, image);
		learn_members(broker);
	}
	if (is_controller(broker))
	{
		if (quorum_advance_commit(&broker->run, &durable, members_of(broker)))
		{
			check_commit(broker->disk.image);
			store(broker, &durable, 0);
		}
		broker->controller = broker->id;
		fence_who_is_gone(broker);
		learn_members(broker);
	}
	else if (broker->controller == broker->id || now - broker->heard > 2 * ELECTION)
		broker->controller = 0;
	ping(broker);
	send_requests(broker);
}

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

		if (leads(broker, p) && slot_of(broker, p)->leader_epoch == row_of(broker, p)->leader_epoch)
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

/* --- life and death --- */

static void
forget_memory(Broker *broker)
{
	memset(&broker->run, 0, offsetof(Broker, worker) - offsetof(Broker, run));
	broker->awaited = 0;
	broker->answered = broker->woken = broker->standing_known = broker->untidy = false;
	memset(broker->memories, 0, sizeof(broker->memories));
	memset(broker->checked_at, 0, sizeof(broker->checked_at));
	memset(broker->try_at, 0, sizeof(broker->try_at));
	memset(broker->fences, 0, sizeof(broker->fences));
	broker->round = 1000;
}

static void
start_broker(Broker *broker)
{
	QuorumTimes times = {HEARTBEAT, ELECTION};

	forget_memory(broker);
	broker->host.up = true;
	broker->life++;
	broker->pause_until = 0;
	broker->heard = -1000000;
	broker->started = now;
	broker->next_txn = 1000 * broker->life;
	broker->committed_seen = broker->disk.quorum.committed_version;
	broker->untidy = true;
	for (int p = 0; p < PARTITIONS; p++)
	{
		for (int m = 0; m <= 2 * BROKERS_MAX; m++)
			broker->memories[p][m].leader_epoch = -1;
		/* it may have crashed when it had become one */
		check_leader(broker, p);
	}
	quorum_run_init(&broker->run, broker->id, times, now, random_below(1 << 30));
	quorum_set_members(&broker->run, members_of(broker), now);
	broker->members_of = broker->disk.image;
	task_start(&broker->worker, worker_main, broker);
	broker->wake_at = now;
	event("starts; life, timeline, end of WAL", broker->id, broker->life, broker->server_timeline, broker->wal_end);
}

/* What is on its way to or from a broker is gone. */
static void
drop_messages_of(int id)
{
	for (int i = 0; i < messages_count;)
	{
		if (messages[i].from == id || messages[i].to == id)
			messages[i] = messages[--messages_count];
		else
			i++;
	}
}

/*
 * Whether nobody depends on what a broker has promised in the quorum since a time: all
 * others are there and have promised as much.
 */
static bool
can_forget_promises(const Broker *broker)
{
	const QuorumMembers *members = members_of(broker);
	const QuorumDurable *mine = &broker->disk.quorum;

	for (int i = 0; i < members->count; i++)
	{
		const Broker *other = broker_by_id(members->ids[i]);
		const QuorumDurable *theirs = &other->disk.quorum;

		if (other != broker && (!other->host.up || theirs->term < mine->term ||
								theirs->image_term < mine->image_term ||
								(theirs->image_term == mine->image_term &&
								 theirs->image_version < mine->image_version)))
			return false;
	}
	return true;
}

static void
take_standby(Broker *broker)
{
	/* one that is as old as the broker would not be noticed, as in the server */
	if (broker->disk.timeline == 0)
		return;
	flush(broker);
	broker->standby = broker->disk;
	broker->standby_wal = broker->wal_end;
}

/*
 * The server does not come back, but a standby of it that may lack the last moments.
 * What the broker has promised in the quorum it still knows, unless nobody depends on it:
 * a broker that forgets its vote, or what it has accepted, is no case for Raft.
 */
static void
promote_standby(Broker *broker)
{
	Disk		now_lost = broker->disk;
	bool		forgets = can_forget_promises(broker) && chance(500);

	broker->disk = broker->standby;
	if (!forgets)
	{
		broker->disk.quorum = now_lost.quorum;
		broker->disk.image = now_lost.image;
		broker->disk.committed_image = now_lost.committed_image;
	}
	broker->undo_count = 0;
	broker->wal_end = broker->wal_flushed = broker->standby_wal;
	forget_published_after(broker, broker->wal_end);
	memset(broker->slots, 0, sizeof(broker->slots));
	broker->server_timeline++;
	drop_messages_of(broker->id);
	for (int p = 0; p < PARTITIONS; p++)
		broker->has_gap[p] |= memcmp(broker->disk.log[p], now_lost.log[p], sizeof(now_lost.log[p])) != 0;
	total.promotions++;
	event("is a standby that was promoted; end of WAL, forgets", broker->id, broker->wal_end, forgets, 0);
}

/* Whether a broker can be done without for good. */
static bool
can_lose(const Broker *broker)
{
	const Image *image = newest_image();

	if (losses >= max_losses || image->next_broker > BROKERS_MAX || image->brokers_count < 3 ||
		image_broker(image, broker->id) == NULL)
		return false;
	for (int i = 0; i < image->brokers_count; i++)
	{
		if (broker_by_id(image->brokers[i].id)->lost)
			return false;
	}
	for (int p = 0; p < PARTITIONS; p++)
	{
		if (image->partitions[p].replicas_count < 2)
			return false;
	}
	/* some of its last images may be known to it and to one that was taken out */
	return images[broker->disk.image].version <= commits_max;
}

static void
crash_somehow(Broker *broker)
{
	crash(broker);
	if (chance(faults.lose_disk) && can_lose(broker))
	{
		broker->lost = true;
		losses++;
		total.disks++;
		drop_messages_of(broker->id);
		event("is gone with its disk", broker->id, 0, 0, 0);
	}
	else if (chance(faults.promote) && broker->standby_wal >= 0)
		promote_standby(broker);
}

/* --- administrators --- */

static Broker *
controller_now(void)
{
	for (int id = 1; id <= BROKERS_MAX; id++)
	{
		Broker	   *broker = broker_by_id(id);

		if (broker->host.up && is_awake(id) && quorum_can_propose(&broker->run, &broker->disk.quorum))
			return broker;
	}
	return NULL;
}

static Code
administer(Broker *broker, Change change, const int *args)
{
	int64		version;
	Code		code = DONE;

	if (_setjmp(died) == 0)
		code = propose(broker, change, args, &version);
	return code;
}

/* Brings up what a broker that is gone for good has left behind; true if it did something. */
static bool
repair(Broker *controller)
{
	const Image *image = image_at(controller->disk.image);
	int			lost = 0;

	for (int i = 0; i < image->brokers_count; i++)
	{
		if (broker_by_id(image->brokers[i].id)->lost)
			lost = image->brokers[i].id;
	}
	for (int p = 0; p < PARTITIONS && lost != 0; p++)
	{
		const ImagePartition *partition = &image->partitions[p];

		if (!image_is_fenced(image, partition->leader) || partition->isr_count != 1 || partition->isr[0] != lost)
			continue;
		for (int i = 0; i < partition->replicas_count; i++)
		{
			if (image_is_fenced(image, partition->replicas[i]))
				continue;
			event("elects unclean; partition, broker", controller->id, p, partition->replicas[i], 0);
			total.unclean++;
			administer(controller, CHANGE_ELECT_UNCLEAN, (int[]) {p, partition->replicas[i]});
			return true;
		}
	}
	if (lost != 0)
		return image_is_fenced(image, lost) &&
			administer(controller, CHANGE_REMOVE_BROKER, (int[]) {lost}) == DONE;
	if (image->brokers_count < brokers_count && image->next_broker <= BROKERS_MAX)
		return administer(controller, CHANGE_ADD_BROKER, (int[]) {0}) == DONE;
	for (int p = 0; p < PARTITIONS; p++)
	{
		const ImagePartition *partition = &image->partitions[p];
		int			args[2 + BROKERS_MAX] = {p, partition->replicas_count};

		if (partition->target_count > 0 || partition->replicas_count >= replication_factor)
			continue;
		for (int i = 0; i < partition->replicas_count; i++)
			args[2 + i] = partition->replicas[i];
		for (int i = 0; i < image->brokers_count && args[1] < replication_factor; i++)
		{
			if (!partition_has_replica(partition, image->brokers[i].id))
				args[2 + args[1]++] = image->brokers[i].id;
		}
		if (args[1] > partition->replicas_count)
			return administer(controller, CHANGE_MOVE_PARTITION, args) == DONE;
	}
	return false;
}

static void
administer_somehow(Broker *controller)
{
	const Image *image = image_at(controller->disk.image);
	int			p = random_below(PARTITIONS);
	const ImagePartition *partition = &image->partitions[p];
	int			args[2 + BROKERS_MAX] = {p};

	if (repair(controller))
		return;
	switch (random_below(4))
	{
		case 0:
			administer(controller, CHANGE_ELECT_LEADER,
					   (int[]) {p, partition->replicas[random_below(partition->replicas_count)]});
			break;
		case 1:
			for (int n = 0; n < replication_factor; n++)
			{
				int			id = image->brokers[random_below(image->brokers_count)].id;

				args[2 + args[1]++] = id;
				for (int i = 0; i < n; i++)
				{
					if (args[2 + i] == id)
						return;
				}
			}
			if (administer(controller, CHANGE_MOVE_PARTITION, args) == DONE)
				total.moves++;
			break;
		default:
			args[1] = partition->replicas[random_below(partition->replicas_count)];
			if (image_is_fenced(image, partition->leader) && !image_is_fenced(image, args[1]))
			{
				event("elects unclean; partition, broker", controller->id, p, args[1], 0);
				total.unclean++;
				administer(controller, CHANGE_ELECT_UNCLEAN, args);
			}
	}
}

/* --- a run --- */

static void
deliver_to(Broker *broker, const Message *message)
{
	if (_setjmp(died) != 0)
		return;
	switch (message->kind)
	{
		case VOTE_REQUEST:
			answer_vote(broker, message);
			break;
		case ACCEPT_REQUEST:
			answer_accept(broker, message);
			break;
		case VOTE_REPLY:
		case ACCEPT_REPLY:
			take_reply(broker, message);
			break;
		case CALL:
			answer_call(broker, message);
			break;
		case ANSWER:
			if (message->u.answer.call == broker->awaited)
			{
				broker->answer = message->u.answer;
				broker->answered = true;
			}
			break;
		case CONFIRM:
			if (broker->slots[message->from].id == message->u.confirm.slot)
				broker->slots[message->from].confirmed = Max(broker->slots[message->from].confirmed,
															 message->u.confirm.lsn);
			break;
	}
}

/*
 * A caller that gives up closes its connection, and a call that is not there yet does
 * not get there any more.  One that is there is executed, when the host goes on.
 */
static bool
is_too_late(const Message *message)
{
	int64		gave_up = given_up[message->u.call.id % CALLS_MAX];

	return gave_up != 0 && message->arrives > gave_up + CALL_LATE;
}

static void
deliver(const Message *message)
{
	Broker	   *broker = broker_by_id(message->to);

	/* changes of the metadata may wait for each other, and nobody looks after their callers */
	if (message->kind == CALL && message->u.call.kind != CALL_CHANGE && is_too_late(message) && broken != BREAK_LATE_CALLS)
		return;
	if (broker->host.up)
		deliver_to(broker, message);
	/* nobody listens, which is heard at once, mostly */
	else if (message->kind == CALL && chance(800))
		send_answer(message->to, message->from, &message->u.call, (Answer) {.code = FAILED});
}

/* What a broker does in a ms. */
static void
run_broker(Broker *broker)
{
	if (_setjmp(died) != 0)
		return;
	run_quorum(broker);
	run_waiters(broker);
	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		if (broker->disk.subscription[l].id != 0 || broker->streams[l].connected)
			run_stream(broker, l);
	}
	/* worker/flush.c */
	if (broker->undo_count > 0 && chance(400))
		flush(broker);
	run_acks(broker);
	run_clients(broker);
	run_maintenance(broker);
}

static void
tick_broker(Broker *broker)
{
	if (broker->lost)
		return;
	if (host_is_due(&broker->host))
		start_broker(broker);
	/* a host that has not been asked to join */
	if (!broker->host.up || !is_awake(broker->id) || broker->disk.image == 0)
		return;
	if (now % 10 == broker->id % 10)
	{
		if (mishap(faults.crash))
		{
			crash_somehow(broker);
			return;
		}
		if (mishap(faults.pause))
		{
			broker->pause_until = now + random_below(chance(300) ? 3 * SESSION : 20);
			return;
		}
		if (mishap(100))
			take_standby(broker);
		/* it held more WAL than the server keeps */
		if (mishap(faults.lose_slot))
			broker->slots[1 + random_below(BROKERS_MAX)].id = 0;
	}
	run_broker(broker);
	if (broker->host.up && (now >= broker->wake_at || broker->answered || broker->woken))
		task_run(&broker->worker);
}

static void
tick(void)
{
	int			first = random_below(BROKERS_MAX);

	sim_tick();
	if (mishap(faults.cut))
		network_cut_some(BROKERS_MAX);
	network_deliver(deliver, is_awake);
	for (int i = 0; i < BROKERS_MAX; i++)
		tick_broker(broker_by_id(1 + (first + i) % BROKERS_MAX));
	if (chance(quiet ? 100 : faults.administer))
	{
		Broker	   *controller = controller_now();

		if (controller != NULL && quiet)
			repair(controller);
		else if (controller != NULL)
			administer_somehow(controller);
	}
	if (now % 8 == 0)
	{
		for (int p = 0; p < PARTITIONS; p++)
			check_copies(p);
	}
}

static void
start(uint64 seed)
{
	Image	   *image = image_new("");
	ImageProblem problem;
	ImageTopic	topic = {
		.name = "t",.owner = "",.retention_bytes = -1,.segment_messages = 1,.max_message_bytes = 1,
		.value_format = "",.created_at = ""
	};
	int32		id;
	int			first;

	sim_begin(seed);
	for (int i = 1; i < images_count; i++)
	{
		if (!images[i].shared)
			free_image(images[i].image);
	}
	images_count = 1;			/* 0 is none */
	memset(commits, 0, sizeof(commits));
	commits_max = 0;
	memset(published, 0, sizeof(published));
	memset(told, 0, sizeof(told));
	memset(led_by, 0, sizeof(led_by));
	memset(newest_epoch, 0, sizeof(newest_epoch));
	memset(epochs_max, 0, sizeof(epochs_max));
	memset(lossy_epoch, 0, sizeof(lossy_epoch));
	memset(acknowledged_at, 0, sizeof(acknowledged_at));
	calls_count = ids_count = messages_made = losses = 0;

	network = (NetworkFaults)
	{
		.lose = chance(500) ? random_below(60) : 0,.repeat = random_below(100),
			.late = random_below(60),.late_time = 3 * SESSION
	};
	faults = (Faults)
	{
		.crash = random_below(30),.crash_commit = random_below(4),.pause = random_below(40),
			.promote = chance(400) ? random_below(500) : 0,.lose_disk = chance(200) ? random_below(300) : 0,
			.cut = random_below(20),.linger = random_below(300),.fail = random_below(20),.stall = random_below(10),
			.lose_slot = random_below(20),
			.unnoticed = random_below(200),.produce = 20 + random_below(100),
			.administer = random_below(30)
	};
	max_losses = 2;
	brokers_count = 3 + random_below(3);
	replication_factor = 2 + random_below(2);
	min_insync = 1 + chance(300);

	topic.partitions = PARTITIONS;
	topic.replication_factor = replication_factor;
	for (int i = 0; i < brokers_count; i++)
		image_add_broker(image, "", &id, &problem);
	image_add_topic(image, &topic, random_below(brokers_count), random_below(9), &id, &problem);
	first = new_image(0, image, false, 1, 1);
	check_commit(first);
	for (id = 1; id <= BROKERS_MAX; id++)
	{
		Broker	   *broker = broker_by_id(id);
		char	   *stack = broker->worker.stack;

		memset(broker, 0, sizeof(*broker));
		broker->worker.stack = stack;
		broker->id = id;
		broker->server_timeline = 1;
		broker->standby_wal = -1;
		memset(broker->disk.position, -1, sizeof(broker->disk.position));
		memset(broker->disk.epoch_starts, -1, sizeof(broker->disk.epoch_starts));
		memset(broker->disk.published_from, -1, sizeof(broker->disk.published_from));
		if (id <= brokers_count)
		{
			broker->disk.quorum = (QuorumDurable) {1, 1, 1, 1, 1};
			broker->disk.image = broker->disk.committed_image = first;
		}
		start_broker(broker);
	}
}

/* Whether there is nothing left that faults have left behind. */
static bool
is_well(void)
{
	const Image *image = newest_image();

	if (image->brokers_count < brokers_count && image->next_broker <= BROKERS_MAX)
		return false;
	for (int i = 0; i < image->brokers_count; i++)
	{
		const Broker *broker = broker_by_id(image->brokers[i].id);

		if (image->brokers[i].fenced || broker->lost || !broker->host.up ||
			broker->disk.applied_version < commits_max || broker->disk.image != commits[commits_max])
			return false;
	}
	for (int p = 0; p < PARTITIONS; p++)
	{
		const ImagePartition *partition = &image->partitions[p];

		if (partition->target_count > 0 || partition->successor != 0 ||
			partition->isr_count < partition->replicas_count ||
			partition->replicas_count < Min(replication_factor, image->brokers_count) ||
			acknowledged_at[p] <= quiet_since)
			return false;
	}
	return true;
}

/* All has been settled: leaders have all, and their followers the same. */
static void
check_end(void)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		const ImagePartition *row = &newest_image()->partitions[p];
		Broker	   *leader = broker_by_id(row->leader);

		check_copies(p);
		leader->partitions[p].read = 0;
		check_read(leader, p);
		for (int o = 0; o < OFFSETS_MAX; o++)
			require(told[p][o].acknowledged == 0 || told[p][o].acknowledged == leader->disk.log[p][o],
					"in the end, the leader has what was acknowledged");
		for (int i = 0; i < row->isr_count; i++)
		{
			const Broker *follower = broker_by_id(row->isr[i]);

			for (int o = 0; o < leader->partitions[p].watermark; o++)
			{
				if (leader->disk.log[p][o] == follower->disk.log[p][o])
					continue;
				event("lacks; partition, offset, message", follower->id, p, o, leader->disk.log[p][o]);
				require(false, "in the end, replicas are equal below the watermark");
			}
		}
	}
}

static void
run(uint64 seed)
{
	int64		noisy = 800 + 200 * (seed % 5);

	start(seed);
	while (now < noisy)
		tick();
	quiet = true;
	quiet_since = now;
	faults.produce = 20;
	memset(cut, 0, sizeof(cut));
	for (int id = 1; id <= BROKERS_MAX; id++)
		brokers[id].pause_until = Min(brokers[id].pause_until, now);
	event("no more faults", 0, 0, 0, 0);
	while (!is_well())
	{
		require(now - quiet_since < HEAL_TIME, "without faults, the cluster gets well");
		tick();
	}
	total.slowest = Max(total.slowest, now - quiet_since);
	faults.produce = 0;
	for (int i = 0; i < 100; i++)
		tick();
	check_end();
}

/* --- whether it would notice --- */

/*
 * What can be broken, in the order of Break.  Those of the server are no faults that
 * were planted: the server does so, as of now, and the simulation does not unless it
 * is told to.
 */
static const struct
{
	const char *name;
	const char *what;
}			rules[BREAKS] =
{
	{"", ""},
	{"deposed-streams", "what a deposed leader publishes is received on"},
	{"unclean-receives", "who is elected unclean receives on from all"},
	{"joining", "the watermark does not wait for followers that join"},
	{"told-before", "the metadata is told of a follower before the watermark waits for it"},
	{"ready-unconfirmed", "a follower is ready without having confirmed what was before"},
	{"unready-ignored", "followers in sync that are not ready are not waited for"},
	{"filled-settled", "what is in the tables when a slot is filled counts as settled"},
	{"forget-ready", "a copy that was complete is forgotten at once"},
	{"forgotten-begins", "who is in sync may begin its copy anew"},
	{"not-released", "who is not in sync is let go before reports that say otherwise are void"},
	{"old-revision", "reports about an older revision count"},
	{"no-epoch-starts", "copies are cut at the checkpoint, wherever leaders have begun"},
	{"epoch-late", "where a leader begins is stored when it leads already"},
	{"cut-at-end", "copies are not cut"},
	{"incomplete-counts", "the checkpoint counts for a copy that was not complete"},
	{"unclean-silent", "followers do not hear that their leader was elected unclean"},
	{"no-detach", "copies are cut while something may arrive"},
	{"not-quiet", "copies are cut while transactions of before are open"},
	{"copy-at-once", "tables are copied while transactions of before are open at the leader"},
	{"untidy", "what is not led any more stays published"},
	{"handover-open", "a partition that is handed over takes messages"},
	{"undrained", "it is handed over while transactions are open"},
	{"not-abandoned", "the slot of what is not led any more goes on"},
	{"stale-slot", "the slot of an older epoch goes on"},
	{"keeps-followers", "who was fenced does not let go of its followers"},
	{"back-at-once", "who is fenced comes back before it has applied that"},
	{"cut-off-serves", "a leader that is cut off goes on"},
	{"unflushed", "followers confirm what they have not flushed"},
	{"new-slot-counts", "a follower gets a new replication slot without beginning anew"},
	{"lost-slot-counts", "a new replication slot says what the old one did"},
	{"promoted-trusted", "a standby that was promoted trusts its copies"},
	{"promoted-leads", "a standby that was promoted goes on leading"},
	{"placement", "a replica that is put back is taken for the one that it was"},
	{"unsettled-stored", "what is not settled is stored as the watermark"},
	{"late-calls", "calls are executed long after their callers have given up"},
	{"server-released-stays", "is_released() remembers a release from before the last report"},
	{"server-state-blindly", "the state of a follower is set whatever has become of it since"},
	{"server-passed-over", "positions of a leader count that came when rows were passed over"},
	{"server-stale-waits", "commits wait for ever in the slot of an older epoch"},
	{"server-lagging-again", "who was lagging has to confirm within one round"},
	{"server-promoted-stores", "a standby stores watermarks before it distrusts its copies"},
	{"server-promoted-same-epoch", "a standby that nobody can replace leads on in the same epoch"},
	{"server-promoted-serves", "a standby serves before it has applied that it gave up"},
	{"server-promoted-holes", "a standby that leads takes the end of its log for what it has"},
	{"server-promoted-single", "a standby serves at once what had no other replica"},
	{"server-promoted-cuts", "a standby has its followers cut what it lacks"},
	{"server-promoted-ready", "leaders take a standby for the follower that it was"},
	{"server-promoted-in-sync", "a standby stays in sync if the others in sync are not there"},
	{"server-promoted-receives", "a standby confirms what it receives from leaders of before"},
	{"server-controller-unknown", "a standby that does not know the controller does not come up"},
	{"server-alone-deposed", "a leader alone in sync acknowledges although it knows better"},
	{"server-alone-cut-off", "a leader alone in sync acknowledges although it is cut off"},
};

/* The first seed that finds it, of so many; 0 if none does.  What is too small does not count. */
static uint64
find_broken(Break rule, uint64 count)
{
	uint64		seed = 1;

	broken = rule;
	while ((seed = sim_run(run, seed, count + 1 - seed)) <= count && strncmp(failure, "room", 4) == 0)
		seed++;
	broken = BREAK_NOTHING;
	return seed <= count ? seed : 0;
}

static void
find_each(uint64 count)
{
	for (int rule = BREAK_NOTHING + 1; rule < BREAKS; rule++)
	{
		uint64		seed = find_broken(rule, count);

		unit_check(seed != 0, rules[rule].name, __FILE__, __LINE__);
		if (seed != 0)
			printf("# seed " UINT64_FORMAT ", at %d ms: not so: %s\n", seed, (int) now, failure);
	}
}

static Break
rule_by_name(const char *name)
{
	for (int rule = BREAK_NOTHING + 1; rule < BREAKS; rule++)
	{
		if (strcmp(rules[rule].name, name) == 0)
			return rule;
	}
	fprintf(stderr, "# there is no rule \"%s\"\n", name);
	exit(1);
}

int
main(void)
{
	const char *name = getenv("PGTOPIC_BREAK");

	strict = getenv("PGTOPIC_STRICT") != NULL;
	if (name != NULL && strcmp(name, "each") == 0)
	{
		find_each(number_from_env("PGTOPIC_SEEDS", 20000));
		return unit_done();
	}
	if (name != NULL)
		broken = rule_by_name(name);
	CHECK(sim_run_all(run, 1200));
	printf("# " INT64_FORMAT " crashes, " INT64_FORMAT " promotions, " INT64_FORMAT " disks lost, " INT64_FORMAT
		   " fencings, " INT64_FORMAT " leaders, " INT64_FORMAT " handovers, " INT64_FORMAT " moves, "
		   INT64_FORMAT " unclean elections\n",
		   total.crashes, total.promotions, total.disks, total.fencings, total.leaders, total.handovers,
		   total.moves, total.unclean);
	printf("# " INT64_FORMAT " acknowledged, " INT64_FORMAT " read, lost by unclean elections " INT64_FORMAT
		   " + %d, by standbys that lack their end " INT64_FORMAT " (%d led); " INT64_FORMAT
		   " conflicts; slowest to get well " INT64_FORMAT " ms\n",
		   total.acknowledged, total.read, total.lost_unclean, (int) total.late, total.lost_gap, (int) total.gaps_led,
		   total.conflicts, total.slowest);
	return unit_done();
}
