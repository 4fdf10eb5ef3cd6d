/* links: base/quorum.c */
/*
 * test_quorum_sim.c
 *		A cluster of brokers that use quorum.c, in one process and in simulated
 *		time: messages are lost, late, doubled and out of order, pairs of brokers
 *		are cut off from each other, brokers crash and come back with what they
 *		had stored, and members come and go.  A seed decides everything.
 *
 *		2000 seeds, unless sim.h's settings say otherwise.
 */
#include "c.h"

#include "base/quorum.h"
#include "unit.h"
#include "quorum_sim.h"

/* --- brokers --- */

static Broker *
broker_by_id(int32 id)
{
	return &brokers[id - 1];
}

static const QuorumMembers *
members_of(const Broker *broker)
{
	return &images[broker->mem.image].members;
}

static void
crash(Broker *broker)
{
	event("crashes", broker->id, 0, 0, 0);
	host_crash(&broker->host);
	total_crashes++;
}

/* Writes what is in memory; a crash may come before or after.  Whether it is alive. */
static bool
store(Broker *broker)
{
	if (mishap(faults.crash_store))
	{
		if (chance(500))
			broker->disk = broker->mem;
		crash(broker);
		return false;
	}
	broker->disk = broker->mem;
	return true;
}

static void
restart(Broker *broker)
{
	QuorumTimes times = {HEARTBEAT, ELECTION};

	broker->host.up = true;
	broker->mem = broker->disk;
	broker->committed_seen = broker->disk.durable.committed_version;
	broker->last_heard = -1000000;
	broker->heard_unnoticed = false;
	broker->members_unnoticed = false;
	memset(broker->committed_sent, 0, sizeof(broker->committed_sent));
	quorum_run_init(&broker->run, broker->id, times, now, random_below(1 << 30));
	quorum_set_members(&broker->run, members_of(broker), now);
	event("starts; term, image", broker->id, broker->mem.durable.term, broker->mem.image, 0);
}

static void
send(Message message)
{
	network_send(message, false);
}

static void
answer_vote(Broker *broker, const Message *message)
{
	Message		reply = {.kind = VOTE_REPLY,.from = broker->id,.to = message->from};
	bool		must_store;
	bool		heard = now - broker->last_heard < ELECTION ||
		(quorum_is_controller(&broker->run, &broker->mem.durable) &&
		 quorum_has_majority(&broker->run, now));

	reply.u.vote_reply = quorum_on_vote_request(&broker->mem.durable, &message->u.vote_request,
												heard, &must_store);
	broker->heard_unnoticed |= reply.u.vote_reply.granted;
	event(reply.u.vote_reply.granted ? "votes for; term" : "does not vote for; term", broker->id,
		  message->from, message->u.vote_request.term, 0);
	if (!must_store || store(broker))
		send(reply);
}

static void
answer_accept(Broker *broker, const Message *message)
{
	Message		reply = {.kind = ACCEPT_REPLY,.from = broker->id,.to = message->from};
	bool		must_store;
	bool		take_image;
	bool		committed;

	reply.u.accept_reply = quorum_on_accept_request(&broker->mem.durable, &message->u.accept_request,
													&must_store, &take_image, &committed);
	if (reply.u.accept_reply.accepted)
	{
		broker->last_heard = now;
		broker->heard_unnoticed = true;
	}
	if (take_image)
	{
		broker->mem.image = message->image;
		broker->members_unnoticed = true;
		event("takes from; image, version", broker->id, message->from, message->image,
			  images[message->image].version);
	}
	check_broker(broker);
	if (committed)
	{
		event("hears of commit; version", broker->id, broker->mem.durable.committed_version, 0, 0);
		check_commit(broker->mem.image);
	}
	if (!must_store || store(broker))
		send(reply);
}

static void
deliver(const Message *message)
{
	Broker	   *broker = broker_by_id(message->to);
	bool		must_store = false;

	if (!broker->host.up)
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
			quorum_on_vote_reply(&broker->run, &broker->mem.durable, message->from,
								 &message->u.vote_reply, now, &must_store);
			break;
		case ACCEPT_REPLY:
			quorum_on_accept_reply(&broker->run, &broker->mem.durable, message->from,
								   &message->u.accept_reply, now, &must_store);
			break;
	}
	if (must_store)
		store(broker);
}

static void
notice(Broker *broker)
{
	if (mishap(faults.unnoticed))
		return;
	if (broker->heard_unnoticed)
		quorum_heard_controller(&broker->run, now, random_below(1 << 30));
	if (broker->members_unnoticed)
		quorum_set_members(&broker->run, members_of(broker), now);
	broker->heard_unnoticed = broker->members_unnoticed = false;
}

/* Whether it is alive after that. */
static bool
take_new_image(Broker *broker, const QuorumMembers *members)
{
	const QuorumDurable *durable = &broker->mem.durable;

	broker->mem.image = new_image(broker->mem.image, durable->image_term,
								  durable->image_version, members);
	broker->members_unnoticed = true;
	return store(broker);
}

static bool
propose(Broker *broker)
{
	QuorumMembers members = *members_of(broker);

	if (mishap(faults.members))
	{
		int32		id = 1 + random_below(brokers_count);

		if (!quorum_is_member(&members, id))
			members.ids[members.count++] = id;
		else if (members.count > 1)
		{
			for (int i = 0; i < members.count; i++)
			{
				if (members.ids[i] == id)
					members.ids[i] = members.ids[members.count - 1];
			}
			members.count--;
		}
		total_members++;
	}
	quorum_propose(&broker->mem.durable);
	if (quiet && proposed_quiet == 0)
		proposed_quiet = images_count;
	event("proposes; image, version, members", broker->id, images_count,
		  broker->mem.durable.image_version, members.count);
	return take_new_image(broker, &members);
}

static void
send_requests(Broker *broker)
{
	const QuorumDurable *durable = &broker->mem.durable;

	for (int i = 0; i < broker->run.peers_count; i++)
	{
		QuorumPeer *peer = &broker->run.peers[i];
		int64	   *committed_sent = &broker->committed_sent[peer->id];
		Message		message = {.from = broker->id,.to = peer->id};
		bool		with_image;

		if (!quorum_should_send(&broker->run, durable, peer, *committed_sent, now, &with_image))
			continue;
		if (mishap(faults.crash_send))
		{
			crash(broker);
			return;
		}
		if (quorum_is_controller(&broker->run, durable))
		{
			message.kind = ACCEPT_REQUEST;
			message.image = with_image ? broker->mem.image : 0;
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
		send(message);
	}
}

static void
step(Broker *broker)
{
	QuorumDurable *durable = &broker->mem.durable;

	notice(broker);
	switch (quorum_tick(&broker->run, durable, members_of(broker), now))
	{
		case QUORUM_NOTHING:
			break;
		case QUORUM_CAMPAIGN:
			quorum_campaign(&broker->run, durable, now, random_below(1 << 30));
			event("campaigns; term", broker->id, durable->term, 0, 0);
			if (!store(broker))
				return;
			break;
		case QUORUM_STEP_DOWN:
			event("steps down; term", broker->id, durable->term, 0, 0);
			quorum_step_down(&broker->run, now, random_below(1 << 30));
			break;
	}
	if (quorum_has_won(&broker->run, durable, members_of(broker)))
	{
		quorum_become_controller(&broker->run, durable, now);
		event("wins; term, image, version", broker->id, durable->term, images_count,
			  durable->image_version);
		if (!take_new_image(broker, members_of(broker)))
			return;
		check_controller(durable->term, broker->mem.image);
	}
	if (quorum_can_propose(&broker->run, durable) &&
		chance(quiet ? 100 : faults.propose) && !propose(broker))
		return;
	if (quorum_advance_commit(&broker->run, durable, members_of(broker)))
	{
		event("commits; image, version", broker->id, broker->mem.image, durable->image_version, 0);
		check_commit(broker->mem.image);
		if (chance(500) && !store(broker))
			return;
	}
	check_broker(broker);
	send_requests(broker);
}

/* --- a run --- */

static void
tick(void)
{
	int			first = random_below(brokers_count);

	sim_tick();
	if (mishap(faults.cut))
		network_cut_some(brokers_count);
	network_deliver(deliver, NULL);
	for (int i = 0; i < brokers_count; i++)
	{
		Broker	   *broker = &brokers[(first + i) % brokers_count];

		if (host_is_due(&broker->host))
			restart(broker);
		if (!broker->host.up || mishap(faults.idle))
			continue;
		if (mishap(faults.crash) && chance(50))
			crash(broker);
		else
			step(broker);
	}
}

/* Whether all members know what was proposed after the faults to be committed. */
static bool
agreed(void)
{
	const Image *image;

	if (proposed_quiet == 0)
		return false;
	image = &images[commits[commits_max]];
	if (image->version < images[proposed_quiet].version || image->term < images[proposed_quiet].term)
		return false;
	for (int i = 0; i < image->members.count; i++)
	{
		if (broker_by_id(image->members.ids[i])->mem.durable.committed_version <
			images[proposed_quiet].version)
			return false;
	}
	return true;
}

static void
check_one_controller(void)
{
	int			count = 0;

	for (int i = 0; i < brokers_count; i++)
	{
		if (quorum_is_controller(&brokers[i].run, &brokers[i].mem.durable))
		{
			count++;
			require(quorum_is_member(&images[commits[commits_max]].members, brokers[i].id),
					"without faults, the controller is a member");
		}
	}
	require(count == 1, "without faults, there is one controller");
}

static void
start(uint64 seed)
{
	QuorumMembers members = {0};
	int			image;

	sim_begin(seed);
	terms_max = commits_max = 0;
	proposed_quiet = 0;
	images_count = 1;			/* 0 is none */
	memset(controllers, 0, sizeof(controllers));
	memset(commits, 0, sizeof(commits));
	memset(brokers, 0, sizeof(brokers));

	network = (NetworkFaults)
	{
		.lose = random_below(300),.repeat = random_below(200),.late = random_below(300),
			.late_time = LATE_TIME
	};
	faults = (Faults)
	{
		.crash = random_below(200),.crash_store = random_below(30),
			.crash_send = random_below(10),.cut = random_below(60),.idle = random_below(200),
			.unnoticed = random_below(400),.propose = 20 + random_below(300),
			.members = random_below(500)
	};
	brokers_count = 3 + random_below(5);
	members.count = 1 + random_below(brokers_count);
	for (int i = 0; i < members.count; i++)
		members.ids[i] = i + 1;
	image = new_image(0, 1, 1, &members);
	check_controller(1, image);
	check_commit(image);
	for (int i = 0; i < brokers_count; i++)
	{
		brokers[i].id = i + 1;
		if (i < members.count)
		{
			brokers[i].disk.durable = (QuorumDurable) {1, 1, 1, 1, 1};
			brokers[i].disk.image = image;
		}
		restart(&brokers[i]);
	}
}

static void
run(uint64 seed)
{
	int64		noisy = 1000 + 250 * (seed % 8);
	int64		began;
	int64		term;

	start(seed);
	while (now < noisy)
		tick();
	quiet = true;
	memset(cut, 0, sizeof(cut));
	event("no more faults", 0, 0, 0, 0);
	for (int i = 0; i < LATE_TIME + 10; i++)
		tick();
	proposed_quiet = 0;
	began = now;
	event("nothing is late any more", 0, 0, 0, 0);
	while (!agreed())
	{
		require(now - began < SETTLE_TIME, "without faults, brokers agree in time");
		tick();
	}
	slowest = Max(slowest, now - began);
	term = images[commits[commits_max]].term;
	for (int i = 0; i < STABLE_TIME; i++)
		tick();
	require(images[commits[commits_max]].term == term, "without faults, a controller stays");
	check_one_controller();
}

int
main(void)
{
	CHECK(sim_run_all(run, 2000));
	CHECK(total_elections > 0 && total_commits > 0);
	printf("# " INT64_FORMAT " elections, " INT64_FORMAT " commits, " INT64_FORMAT " crashes, "
		   INT64_FORMAT " changes of members; slowest to agree " INT64_FORMAT " ms\n",
		   total_elections, total_commits, total_crashes, total_members, slowest);
	return unit_done();
}
