/*-------------------------------------------------------------------------
 *
 * quorum.h
 *	  How brokers agree on the cluster's metadata: Raft's rules (Ongaro and
 *	  Ousterhout, "In Search of an Understandable Consensus Algorithm"), with the
 *	  log cut down to its last entry, the whole image of the metadata.
 *
 * Pure: decisions over (state, event), without I/O and without a clock.  Who
 * calls stores what has to be stored *before* it sends what says so, carries the
 * images about, and tells the time.
 *
 * A version is a number that grows with each image.  (term, version) names one
 * image: the controller of a term makes one image of a version, and puts its own
 * term to the image that it begins with.  Which brokers count are the members
 * that the newest image that a broker has accepted names, committed or not;
 * members change one at a time.
 *
 * Invariants, which the simulation in test/unit checks:
 *	 1. a term has at most one controller
 *	 2. an image that was committed is contained in (is older than or equal to)
 *		the image of every later controller
 *	 3. what a broker knows to be committed only grows, and no two brokers know
 *		different images of one version to be committed
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_QUORUM_H
#define PGTOPIC_QUORUM_H

#include "c.h"

#define QUORUM_MEMBERS_MAX	32

/* What a broker has stored before it sends any message that depends on it. */
typedef struct QuorumDurable
{
	int64		term;			/* newest seen; 0 at first */
	int32		voted_for;		/* in this term, or 0 */
	int64		image_term;		/* of the newest image that was accepted */
	int64		image_version;	/* 0: none yet */
	int64		committed_version;	/* newest known to be committed */
} QuorumDurable;

typedef struct QuorumMembers
{
	int			count;
	int32		ids[QUORUM_MEMBERS_MAX];
} QuorumMembers;

extern bool quorum_is_member(const QuorumMembers *members, int32 id);
extern int	quorum_majority(const QuorumMembers *members);

/* --- what a broker answers to others --- */

typedef struct VoteRequest
{
	int64		term;
	int32		candidate;
	int64		image_term;
	int64		image_version;
} VoteRequest;

typedef struct VoteReply
{
	int64		term;
	bool		granted;
} VoteReply;

/*
 * heard_recently: this broker has heard from a controller within the shortest
 * election timeout (or is one that a majority has answered lately).  Then it
 * neither votes nor takes the new term, so that a broker that was cut off does not
 * depose a controller that works.  Nor does it for a candidate with an older image.
 * *store is set if durable has changed.
 */
extern VoteReply quorum_on_vote_request(QuorumDurable *durable, const VoteRequest *request,
										bool heard_recently, bool *store);

/* Also the controller's heartbeat, then without the image itself. */
typedef struct AcceptRequest
{
	int64		term;
	int32		controller;
	int64		image_term;		/* of the controller's newest image: = term */
	int64		image_version;
	bool		has_image;		/* it comes along */
	int64		committed_version;
} AcceptRequest;

typedef struct AcceptReply
{
	int64		term;
	bool		accepted;		/* the sender is the controller of my term */
	int64		image_term;		/* of what I have now */
	int64		image_version;
} AcceptReply;

/*
 * *store is set if durable has changed; *take_image if the image that came along
 * is to be stored with it; *committed if committed_version has grown: then the
 * image that is stored now is that version, and is committed.
 */
extern AcceptReply quorum_on_accept_request(QuorumDurable *durable, const AcceptRequest *request,
											bool *store, bool *take_image, bool *committed);

/* --- what the one process of a broker that speaks to the others does --- */

typedef struct QuorumPeer
{
	int32		id;
	bool		voted;			/* for me, in candidate_term */
	int64		accepted_version;	/* in my term as controller; 0 unknown */
	int64		sent_version;	/* the last image that went to it, in my term; 0 none */
	int64		sent_at;		/* ms; last request of mine, see quorum_sent() */
	int64		heard_at;		/* ms; last answer */
} QuorumPeer;

typedef struct QuorumTimes
{
	int64		heartbeat;		/* ms between two messages to each peer */
	int64		election;		/* ms; the shortest timeout; the longest is twice it */
} QuorumTimes;

/* Not stored: lost at a restart, which then begins as a follower. */
typedef struct QuorumRun
{
	int32		self;
	bool		self_member;	/* as of quorum_set_members() */
	QuorumTimes times;
	int64		controller_term;	/* I am the controller if this is durable's term */
	int64		candidate_term; /* I ask for votes if this is durable's term */
	int64		election_due;	/* ms; ask for votes then */
	int			peers_count;
	QuorumPeer	peers[QUORUM_MEMBERS_MAX];	/* the members but for self */
} QuorumRun;

extern void quorum_run_init(QuorumRun *run, int32 self, QuorumTimes times, int64 now, uint32 random);

/*
 * Brings peers in line with members; those that stay keep what is known.  One that
 * is new to a controller counts as heard now, since nobody has asked it yet.
 */
extern void quorum_set_members(QuorumRun *run, const QuorumMembers *members, int64 now);

extern bool quorum_is_controller(const QuorumRun *run, const QuorumDurable *durable);
extern bool quorum_is_candidate(const QuorumRun *run, const QuorumDurable *durable);

/*
 * A controller was heard (an accept request was accepted) at this time, or another
 * broker got this one's vote: then it has its time to win.
 */
extern void quorum_heard_controller(QuorumRun *run, int64 now, uint32 random);

/*
 * Whether a majority, self included, has answered within the shortest election
 * timeout.  A controller for which this is false is cut off.
 */
extern bool quorum_has_majority(const QuorumRun *run, int64 now);

typedef enum QuorumAction
{
	QUORUM_NOTHING,
	QUORUM_CAMPAIGN,			/* quorum_campaign(), store, send vote requests */
	QUORUM_STEP_DOWN			/* quorum_step_down(): no majority answers, there is
								 * a newer term, or it is no member any more */
} QuorumAction;

/*
 * What time asks for.  One that is no member campaigns only if it does not know its
 * newest image, by which it is none, to be committed.
 */
extern QuorumAction quorum_tick(const QuorumRun *run, const QuorumDurable *durable,
								const QuorumMembers *members, int64 now);

/*
 * Begins an election: the next term, a vote for itself.  A broker alone has won
 * at once: the caller asks quorum_has_won().
 */
extern void quorum_campaign(QuorumRun *run, QuorumDurable *durable, int64 now, uint32 random);
extern void quorum_step_down(QuorumRun *run, int64 now, uint32 random);

/*
 * Notes an answer, which counts for a candidate alone.  *store if durable has
 * changed: a newer term was seen.
 */
extern void quorum_on_vote_reply(QuorumRun *run, QuorumDurable *durable, int32 from,
								 const VoteReply *reply, int64 now, bool *store);
extern bool quorum_has_won(const QuorumRun *run, const QuorumDurable *durable,
						   const QuorumMembers *members);

/*
 * The winner becomes the controller: its image gets its term and the next version,
 * with the same content.  To be stored before it is sent.
 */
extern void quorum_become_controller(QuorumRun *run, QuorumDurable *durable, int64 now);

/* Whether the controller may make another image: its last one is committed. */
extern bool quorum_can_propose(const QuorumRun *run, const QuorumDurable *durable);

/* The next version, by the controller.  To be stored with the new image before it is sent. */
extern void quorum_propose(QuorumDurable *durable);

extern void quorum_on_accept_reply(QuorumRun *run, QuorumDurable *durable, int32 from,
								   const AcceptReply *reply, int64 now, bool *store);

/*
 * Whether a majority of members, self included, has the controller's image; then
 * sets committed_version (to be stored; nothing depends on when).
 */
extern bool quorum_advance_commit(const QuorumRun *run, QuorumDurable *durable,
								  const QuorumMembers *members);

/*
 * Whether it is time to send a peer something: a candidate a vote request, the
 * controller its image or a heartbeat.  committed_sent is what the caller told it
 * last of committed_version.  *with_image: the peer has not got the image yet.
 */
extern bool quorum_should_send(const QuorumRun *run, const QuorumDurable *durable,
							   const QuorumPeer *peer, int64 committed_sent, int64 now,
							   bool *with_image);

/* To be told of each request that goes out: vote requests, images, heartbeats. */
extern void quorum_sent(QuorumPeer *peer, const QuorumDurable *durable, bool with_image, int64 now);

#endif							/* PGTOPIC_QUORUM_H */
