/* links: base/quorum.c base/image.c base/image_text.c base/image_brokers.c base/image_changes.c base/image_moves.c base/placement.c */
/*
 * test_failover_sim.c
 *		A cluster of brokers in one process and in simulated time, with the real
 *		quorum.c and image*.c, and a model of all that replicates data.  Brokers crash,
 *		stop for a while, are cut off from each other, lose their disks, or come back as
 *		a standby that lacks the last moments; administrators have partitions move and
 *		change leaders, also to such that are not in sync.  A seed decides everything.
 *
 *		What must be true is in failover_judge.h.  In short: what was acknowledged, and
 *		what was read, is at all later leaders; who is not the leader any more
 *		acknowledges nothing new; in-sync replicas have what is below the watermark; and
 *		without faults everything is well in bounded time.
 *
 *		2000 seeds, unless sim.h's settings say otherwise.
 *		PGTOPIC_BREAK		breaks a rule, by name (failover_rules.h), so that it can be
 *							seen what is found; "each": one after the other, each with
 *							up to 20000 seeds
 *		PGTOPIC_STRICT		nothing is forgiven
 *
 *		What is forgiven, since nobody could do better: messages that an unclean election
 *		loses, among them such that a leader alone in sync acknowledges later, as long as
 *		it has no reason to think that it is cut off; and what a promoted standby lacks,
 *		until it has told the others, or if nobody else in sync has it.
 *
 *		Where the server is known to do otherwise than the model, there is a rule whose
 *		name begins with "server-"; with it the model does as the server does.
 *
 *		What is not as in the server:
 *		 - A row is one message.  There are no segments, no retention, no positions of
 *		   groups and no numbered messages; of the reserved positions there are those of
 *		   the watermark and of epochs.
 *		 - There is one topic of two partitions, which stays as it is.  Brokers leave only
 *		   when they have been lost.
 *		 - What a session or a transaction does happens at once, when the call comes
 *		   there.  Locks are not modelled, but for what waits for open transactions.
 *		   Calls happen at most once, and not long after their callers have given up.
 *		 - Sessions and the quorum worker see at once what the other one has stored:
 *		   test_quorum_sim.c has them see it late.  Images do not go through text.  Pings
 *		   are no messages.
 *		 - An apply worker receives transactions whole, in the order of their commits.  A
 *		   table's first copy is one step; its slots and workers do not fail by themselves.
 *		 - A standby that was promoted keeps what it has promised in the quorum, unless
 *		   all others have promised as much; and it is not older than the first start.
 *		 - Clients produce and read at leaders; nobody reads at followers, and no call is
 *		   forwarded.
 */

/* it does not know that tasks have stacks of their own */
#undef _FORTIFY_SOURCE

#include "postgres_fe.h"

#include "common/fe_memutils.h"

#include "base/image.h"
#include "base/quorum.h"
#include "unit.h"
#include "failover_sim.h"
#include "failover_judge.h"
#include "failover_slots.h"
#include "failover_streams.h"
#include "failover_calls.h"
#include "failover_apply.h"
#include "failover_leader.h"
#include "failover_follower.h"
#include "failover_worker.h"
#include "failover_quorum.h"
#include "failover_sessions.h"

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
			.cut = random_below(20),.linger = random_below(300),.fail = random_below(20),.stall = random_below(chance(200) ? 60 : 10),
			.lose_slot = random_below(20),
			.unnoticed = random_below(200),.produce = 20 + random_below(100),
			.administer = random_below(chance(300) ? 150 : 30)
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

/* Whether those are noticed that a few hundred seeds suffice for. */
static void
find_some(void)
{
	int			missed = 0;

	for (int rule = BREAK_NOTHING + 1; rule < BREAKS; rule++)
	{
		if (rules[rule].soon && find_broken(rule, 400) == 0)
		{
			fprintf(stderr, "# %s is not noticed\n", rules[rule].name);
			missed++;
		}
	}
	CHECK_INT(missed, 0);
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
	CHECK(sim_run_all(run, 2000));
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
	if (name == NULL && getenv("PGTOPIC_SEEDS") == NULL)
		find_some();
	return unit_done();
}
