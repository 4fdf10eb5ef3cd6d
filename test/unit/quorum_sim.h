/*
 * quorum_sim.h
 *		The world of test_quorum_sim.c: what there is in it, what has happened, and
 *		what must always be true.
 */
#ifndef QUORUM_SIM_H
#define QUORUM_SIM_H

#define BROKERS_MAX		7
#define IMAGES_MAX		16384
#define TERMS_MAX		16384

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

#include "sim.h"

typedef struct Stored
{
	QuorumDurable durable;
	int			image;			/* index in images */
} Stored;

typedef struct Broker
{
	int32		id;
	Host		host;
	Stored		disk;
	Stored		mem;
	QuorumRun	run;
	int64		last_heard;
	bool		heard_unnoticed;	/* by the process that runs elections */
	bool		members_unnoticed;
	int64		committed_seen; /* highest that was stored, or known in this life */
	int64		committed_sent[BROKERS_MAX + 1];
} Broker;

/* How bad a run is, in thousandths; the network has its own. */
typedef struct Faults
{
	uint32		crash;			/* per broker and ms */
	uint32		crash_store;	/* per write */
	uint32		crash_send;		/* per message */
	uint32		cut;			/* per ms */
	uint32		idle;			/* a broker does nothing for a ms */
	uint32		unnoticed;		/* a process learns late of what another did */
	uint32		propose;
	uint32		members;		/* of the proposals */
} Faults;

static Faults faults;
static int	brokers_count;
static Broker brokers[BROKERS_MAX];
static Image images[IMAGES_MAX];
static int	images_count;
static int	controllers[TERMS_MAX]; /* the image that a term began with, or 0 */
static int64 terms_max;
static int	commits[IMAGES_MAX];	/* by version: the image, or 0 */
static int64 commits_max;
static int	proposed_quiet;		/* first image proposed after the faults, or 0 */

/* what all runs did, to see that they did enough */
static int64 total_commits,
			total_elections,
			total_crashes,
			total_members;
static int64 slowest;

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

#endif							/* QUORUM_SIM_H */
