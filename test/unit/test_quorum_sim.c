/* links: base/quorum.c */
/*
 * test_quorum_sim.c
 *		A cluster of brokers that use quorum.c, in one process and in simulated
 *		time: messages are lost, late, doubled and out of order, pairs of brokers
 *		are cut off from each other, brokers crash and come back with what they
 *		had stored, and members come and go.  A seed decides everything.
 *
 *		PGTOPIC_SEEDS		how many seeds (2000)
 *		PGTOPIC_FIRST_SEED	the first one (1)
 *		PGTOPIC_EVENTS		how many of the last events a failure prints (80)
 */
#include "c.h"

#include <setjmp.h>

#include "base/quorum.h"
#include "unit.h"

#define BROKERS_MAX		7
#define IMAGES_MAX		16384
#define TERMS_MAX		16384
#define MESSAGES_MAX	2048
#define EVENTS_MAX		4096

#define HEARTBEAT		5
#define ELECTION		20
#define LATE_TIME		200		/* how late messages can be */
#define SETTLE_TIME		1000	/* for a cluster without faults to agree */
#define STABLE_TIME		300		/* how long its controller is then watched */

/* An image: of its content, where it comes from is enough. */
typedef struct Image
{
	int			parent;
	int			depth;
	int64		term;
	int64		version;
	QuorumMembers members;
} Image;

typedef enum MessageKind
{
	VOTE_REQUEST, VOTE_REPLY, ACCEPT_REQUEST, ACCEPT_REPLY
} MessageKind;

typedef struct Message
{
	MessageKind kind;
	int			from;
	int			to;
	int64		arrives;
	int			image;			/* of ACCEPT_REQUEST, or 0 */
	union
	{
		VoteRequest vote_request;
		VoteReply	vote_reply;
		AcceptRequest accept_request;
		AcceptReply accept_reply;
	}			u;
} Message;

typedef struct Stored
{
	QuorumDurable durable;
	int			image;			/* index in images */
} Stored;

typedef struct Broker
{
	int32		id;
	bool		up;
	int64		restart_at;
	Stored		disk;
	Stored		mem;
	QuorumRun	run;
	int64		last_heard;
	bool		heard_unnoticed;	/* by the process that runs elections */
	bool		members_unnoticed;
	int64		committed_seen; /* highest that was stored, or known in this life */
	int64		committed_sent[BROKERS_MAX + 1];
} Broker;

typedef struct Event
{
	int64		time;
	const char *what;
	int			broker;
	int64		a;
	int64		b;
	int64		c;
} Event;

/* How bad a run is, in thousandths. */
typedef struct Faults
{
	uint32		lose;
	uint32		repeat;
	uint32		late;
	uint32		crash;			/* per broker and ms */
	uint32		crash_store;	/* per write */
	uint32		crash_send;		/* per message */
	uint32		cut;			/* per ms */
	uint32		idle;			/* a broker does nothing for a ms */
	uint32		unnoticed;		/* a process learns late of what another did */
	uint32		propose;
	uint32		members;		/* of the proposals */
} Faults;

static uint64 random_state;
static int64 now;
static bool quiet;				/* no more faults */
static Faults faults;
static int	brokers_count;
static Broker brokers[BROKERS_MAX];
static bool cut[BROKERS_MAX + 1][BROKERS_MAX + 1];
static Image images[IMAGES_MAX];
static int	images_count;
static Message messages[MESSAGES_MAX];
static int	messages_count;
static int	controllers[TERMS_MAX]; /* the image that a term began with, or 0 */
static int64 terms_max;
static int	commits[IMAGES_MAX];	/* by version: the image, or 0 */
static int64 commits_max;
static int	proposed_quiet;		/* first image proposed after the faults, or 0 */
static Event events[EVENTS_MAX];
static int	events_count;
static const char *failure;
static jmp_buf failed;

/* what all runs did, to see that they did enough */
static int64 total_commits,
			total_elections,
			total_crashes,
			total_members;
static int64 slowest;

static uint32
random_below(uint32 bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32) (random_state >> 32) % bound;
}

static bool
chance(uint32 thousandths)
{
	return random_below(1000) < thousandths;
}

static void
event(const char *what, int broker, int64 a, int64 b, int64 c)
{
	events[events_count++ % EVENTS_MAX] = (Event) {now, what, broker, a, b, c};
}

static void
require(bool condition, const char *what)
{
	if (!condition)
	{
		failure = what;
		longjmp(failed, 1);
	}
}

/* --- what must always be true --- */

static int
new_image(int parent, int64 term, int64 version, const QuorumMembers *members)
{
	require(images_count < IMAGES_MAX, "room for images");
	images[images_count] = (Image) {parent, images[parent].depth + 1, term, version, *members};
	return images_count++;
}

static bool
contains(int image, int older)
{
	while (images[image].depth > images[older].depth)
		image = images[image].parent;
	return image == older;
}

static void
check_controller(int64 term, int image)
{
	int			newest = 0;

	require(term < TERMS_MAX, "room for terms");
	require(controllers[term] == 0, "a term has one controller");
	controllers[term] = image;
	terms_max = Max(terms_max, term);
	for (int64 v = commits_max; v > 0 && newest == 0; v--)
	{
		if (commits[v] != 0 && images[commits[v]].term < term)
			newest = commits[v];
	}
	require(newest == 0 || contains(image, newest), "a controller has what was committed before");
	total_elections++;
}

static void
check_commit(int image)
{
	int64		version = images[image].version;

	require(commits[version] == 0 || commits[version] == image,
			"a version is committed with one content");
	if (commits[version] != 0)
		return;
	commits[version] = image;
	if (commits_max > 0)
		require(contains(image, commits[commits_max]) || contains(commits[commits_max], image),
				"commits are a line");
	commits_max = Max(commits_max, version);
	for (int64 term = images[image].term + 1; term <= terms_max; term++)
		require(controllers[term] == 0 || contains(controllers[term], image),
				"later controllers have what is committed");
	total_commits++;
}

static void
check_broker(Broker *broker)
{
	const QuorumDurable *durable = &broker->mem.durable;
	const Image *image = &images[broker->mem.image];

	require(durable->image_term == image->term && durable->image_version == image->version,
			"the image is the one that the durable state names");
	require(durable->committed_version <= durable->image_version,
			"what is committed is not newer than what there is");
	require(durable->committed_version >= broker->committed_seen,
			"what is known to be committed only grows");
	broker->committed_seen = durable->committed_version;
	require(durable->term >= broker->disk.durable.term, "terms only grow");
	require(durable->term >= durable->image_term, "no image is of a term to come");
}

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
	broker->up = false;
	broker->restart_at = now + 1 + random_below(chance(300) ? 300 : 30);
	total_crashes++;
}

/* Writes what is in memory; a crash may come before or after.  Whether it is alive. */
static bool
store(Broker *broker)
{
	if (!quiet && chance(faults.crash_store))
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

	broker->up = true;
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
	if (cut[message.from][message.to] || (!quiet && chance(faults.lose)))
		return;
	for (;;)
	{
		if (messages_count == MESSAGES_MAX)
			return;
		message.arrives = now + 1 + random_below(4);
		if (!quiet && chance(faults.late))
			message.arrives += random_below(LATE_TIME);
		messages[messages_count++] = message;
		if (quiet || !chance(faults.repeat))
			break;
	}
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

	if (!broker->up || cut[message->from][message->to])
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
	if (!quiet && chance(faults.unnoticed))
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

	if (!quiet && chance(faults.members))
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
		if (!quiet && chance(faults.crash_send))
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
cut_some(void)
{
	int			a = 1 + random_below(brokers_count);
	int			b = 1 + random_below(brokers_count);

	if (chance(400))
		memset(cut, 0, sizeof(cut));
	else if (chance(500))
	{
		/* one from all others */
		for (int i = 1; i <= brokers_count; i++)
			cut[a][i] = cut[i][a] = true;
	}
	else
	{
		cut[a][b] = true;
		if (chance(700))
			cut[b][a] = true;
	}
}

static void
tick(void)
{
	int			first = random_below(brokers_count);

	now++;
	if (!quiet && chance(faults.cut))
		cut_some();
	for (int i = 0; i < messages_count;)
	{
		Message		message = messages[i];

		if (message.arrives > now)
			i++;
		else
		{
			/* the last takes its place, which changes the order too */
			messages[i] = messages[--messages_count];
			deliver(&message);
		}
	}
	for (int i = 0; i < brokers_count; i++)
	{
		Broker	   *broker = &brokers[(first + i) % brokers_count];

		if (!broker->up && (quiet || now >= broker->restart_at))
			restart(broker);
		if (!broker->up || (!quiet && chance(faults.idle)))
			continue;
		if (!quiet && chance(faults.crash) && chance(50))
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
start(uint64 seed)
{
	QuorumMembers members = {0};
	int			image;

	random_state = (seed + 1) * 0x9E3779B97F4A7C15ULL;
	for (int i = 0; i < 8; i++)
		random_below(2);
	now = 0;
	quiet = false;
	messages_count = events_count = 0;
	terms_max = commits_max = 0;
	proposed_quiet = 0;
	images_count = 1;			/* 0 is none */
	memset(cut, 0, sizeof(cut));
	memset(controllers, 0, sizeof(controllers));
	memset(commits, 0, sizeof(commits));
	memset(brokers, 0, sizeof(brokers));

	faults = (Faults)
	{
		.lose = random_below(300),.repeat = random_below(200),.late = random_below(300),
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
}

static void
print_failure(uint64 seed, int wanted)
{
	fprintf(stderr, "# seed " UINT64_FORMAT ", time " INT64_FORMAT ": not so: %s\n", seed, now, failure);
	for (int i = Max(0, events_count - Min(wanted, EVENTS_MAX)); i < events_count; i++)
	{
		const Event *e = &events[i % EVENTS_MAX];

		fprintf(stderr, "# %6d: %d %s " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT "\n",
				(int) e->time, e->broker, e->what, e->a, e->b, e->c);
	}
}

static uint64
number_from_env(const char *name, uint64 otherwise)
{
	const char *value = getenv(name);

	return value == NULL ? otherwise : strtoull(value, NULL, 10);
}

int
main(void)
{
	uint64		first = number_from_env("PGTOPIC_FIRST_SEED", 1);
	uint64		count = number_from_env("PGTOPIC_SEEDS", 2000);
	volatile uint64 seed;

	for (seed = first; seed < first + count; seed++)
	{
		if (setjmp(failed) != 0)
		{
			print_failure(seed, number_from_env("PGTOPIC_EVENTS", 80));
			break;
		}
		run(seed);
	}
	CHECK(seed == first + count);
	CHECK(total_elections > 0 && total_commits > 0);
	printf("# " INT64_FORMAT " elections, " INT64_FORMAT " commits, " INT64_FORMAT " crashes, "
		   INT64_FORMAT " changes of members; slowest to agree " INT64_FORMAT " ms\n",
		   total_elections, total_commits, total_crashes, total_members, slowest);
	return unit_done();
}
