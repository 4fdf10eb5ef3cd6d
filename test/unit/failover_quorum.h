/*
 * failover_quorum.h
 *		How brokers of test_failover_sim.c agree on the metadata and change it: the real
 *		quorum.c and image*.c, and about them what is in worker/quorum.c and cluster/change.c.
 */
#ifndef FAILOVER_QUORUM_H
#define FAILOVER_QUORUM_H

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
		free_image(image);
		free(problem.message);
		free(problem.detail);
		free(problem.hint);
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

#endif							/* FAILOVER_QUORUM_H */
