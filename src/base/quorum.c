/*-------------------------------------------------------------------------
 *
 * quorum.c
 *	  How brokers agree on the cluster's metadata.
 *
 * Other processes of the broker answer vote and accept requests, and change the
 * durable state under the one that runs elections.  So what this one believes to
 * be (run) only ever counts as long as it fits the durable state.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/quorum.h"

/* Long ago, but the distance to any time can be had. */
#define NEVER	(PG_INT64_MIN / 2)

bool
quorum_is_member(const QuorumMembers *members, int32 id)
{
	for (int i = 0; i < members->count; i++)
	{
		if (members->ids[i] == id)
			return true;
	}
	return false;
}

int
quorum_majority(const QuorumMembers *members)
{
	return members->count / 2 + 1;
}

static bool
image_newer(int64 term, int64 version, int64 other_term, int64 other_version)
{
	return term != other_term ? term > other_term : version > other_version;
}

static void
take_term(QuorumDurable *durable, int64 term)
{
	durable->term = term;
	durable->voted_for = 0;
}

VoteReply
quorum_on_vote_request(QuorumDurable *durable, const VoteRequest *request,
					   bool heard_recently, bool *store)
{
	VoteReply	reply = {0, false};

	*store = false;

	/*
	 * A candidate with an older image does not get its term accepted either: it may
	 * be one that was taken out, does not know, and would go on for ever.  If it is
	 * a member, the controller learns of its term from its answers.
	 */
	if (!heard_recently && request->term >= durable->term &&
		!image_newer(durable->image_term, durable->image_version,
					 request->image_term, request->image_version))
	{
		if (request->term > durable->term)
			take_term(durable, request->term);
		if (durable->voted_for == 0)
		{
			durable->voted_for = request->candidate;
			*store = true;
		}
		/* also once more, to a candidate that did not get the first answer */
		reply.granted = durable->voted_for == request->candidate;
	}
	reply.term = durable->term;
	return reply;
}

AcceptReply
quorum_on_accept_request(QuorumDurable *durable, const AcceptRequest *request,
						 bool *store, bool *take_image, bool *committed)
{
	AcceptReply reply = {0, false, 0, 0};

	*store = *take_image = *committed = false;
	if (request->term >= durable->term)
	{
		reply.accepted = true;
		if (request->term > durable->term)
		{
			take_term(durable, request->term);
			*store = true;
		}
		if (request->has_image && request->image_term == request->term &&
			image_newer(request->image_term, request->image_version,
						durable->image_term, durable->image_version))
		{
			durable->image_term = request->image_term;
			durable->image_version = request->image_version;
			*take_image = *store = true;
		}

		/*
		 * An image of another term may have the same version and is not what the
		 * controller means.
		 */
		if (durable->image_term == request->term &&
			durable->image_version == request->committed_version &&
			durable->committed_version < request->committed_version)
		{
			durable->committed_version = request->committed_version;
			*committed = *store = true;
		}
	}
	reply.term = durable->term;
	reply.image_term = durable->image_term;
	reply.image_version = durable->image_version;
	return reply;
}

static void
set_election_due(QuorumRun *run, int64 now, uint32 random)
{
	run->election_due = now + run->times.election;
	if (run->times.election > 0)
		run->election_due += random % run->times.election;
}

static void
become_follower(QuorumRun *run, int64 now, uint32 random)
{
	run->controller_term = 0;
	run->candidate_term = 0;
	set_election_due(run, now, random);
}

void
quorum_run_init(QuorumRun *run, int32 self, QuorumTimes times, int64 now, uint32 random)
{
	memset(run, 0, sizeof(*run));
	run->self = self;
	run->times = times;
	become_follower(run, now, random);
}

static const QuorumPeer *
find_peer(const QuorumRun *run, int32 id)
{
	for (int i = 0; i < run->peers_count; i++)
	{
		if (run->peers[i].id == id)
			return &run->peers[i];
	}
	return NULL;
}

/* What was asked of the peers and what they answered belongs to one term. */
static void
forget_answers(QuorumRun *run)
{
	for (int i = 0; i < run->peers_count; i++)
	{
		run->peers[i].voted = false;
		run->peers[i].accepted_version = 0;
		run->peers[i].sent_version = 0;
		run->peers[i].sent_at = NEVER;
	}
}

void
quorum_set_members(QuorumRun *run, const QuorumMembers *members, int64 now)
{
	QuorumPeer	peers[QUORUM_MEMBERS_MAX];
	int			count = 0;

	for (int i = 0; i < members->count; i++)
	{
		const QuorumPeer *known = find_peer(run, members->ids[i]);

		if (members->ids[i] == run->self)
			continue;
		if (known != NULL)
			peers[count++] = *known;
		else
		{
			QuorumPeer *peer = &peers[count++];

			memset(peer, 0, sizeof(*peer));
			peer->id = members->ids[i];
			peer->sent_at = NEVER;
			peer->heard_at = run->controller_term != 0 ? now : NEVER;
		}
	}
	memcpy(run->peers, peers, sizeof(QuorumPeer) * count);
	run->peers_count = count;
	run->self_member = quorum_is_member(members, run->self);
}

bool
quorum_is_controller(const QuorumRun *run, const QuorumDurable *durable)
{
	return run->controller_term != 0 && run->controller_term == durable->term;
}

/* An image of the term that was accepted means that another has won. */
bool
quorum_is_candidate(const QuorumRun *run, const QuorumDurable *durable)
{
	return run->candidate_term != 0 && run->candidate_term == durable->term &&
		durable->image_term < durable->term;
}

void
quorum_heard_controller(QuorumRun *run, int64 now, uint32 random)
{
	become_follower(run, now, random);
}

bool
quorum_has_majority(const QuorumRun *run, int64 now)
{
	int			members = run->peers_count + (run->self_member ? 1 : 0);
	int			heard = run->self_member ? 1 : 0;

	for (int i = 0; i < run->peers_count; i++)
		heard += now - run->peers[i].heard_at <= run->times.election;
	return heard >= members / 2 + 1;
}

QuorumAction
quorum_tick(const QuorumRun *run, const QuorumDurable *durable,
			const QuorumMembers *members, int64 now)
{
	if (run->controller_term != 0)
	{
		if (!quorum_is_controller(run, durable) || !quorum_has_majority(run, now))
			return QUORUM_STEP_DOWN;
		/* one that took itself out goes on until the others have agreed to it */
		if (!quorum_is_member(members, run->self) &&
			durable->committed_version == durable->image_version)
			return QUORUM_STEP_DOWN;
		return QUORUM_NOTHING;
	}
	if (now < run->election_due)
		return QUORUM_NOTHING;

	/*
	 * A controller that took itself out and then stopped may be the only one that
	 * has this image: then the others cannot win against it, and need it once more.
	 */
	if (!quorum_is_member(members, run->self) &&
		durable->committed_version == durable->image_version)
		return QUORUM_NOTHING;
	return QUORUM_CAMPAIGN;
}

void
quorum_campaign(QuorumRun *run, QuorumDurable *durable, int64 now, uint32 random)
{
	become_follower(run, now, random);
	forget_answers(run);
	take_term(durable, durable->term + 1);
	durable->voted_for = run->self;
	run->candidate_term = durable->term;
}

void
quorum_step_down(QuorumRun *run, int64 now, uint32 random)
{
	become_follower(run, now, random);
}

void
quorum_on_vote_reply(QuorumRun *run, QuorumDurable *durable, int32 from,
					 const VoteReply *reply, int64 now, bool *store)
{
	QuorumPeer *peer = unconstify(QuorumPeer *, find_peer(run, from));

	*store = false;

	/*
	 * An answer that comes late must not end the term that was won without it: it
	 * may be that of a broker which was taken out, and counts its terms up.
	 */
	if (!quorum_is_candidate(run, durable))
		return;
	if (reply->term > durable->term)
	{
		take_term(durable, reply->term);
		*store = true;
	}
	else if (peer != NULL && reply->term == durable->term)
	{
		peer->heard_at = now;
		if (reply->granted)
			peer->voted = true;
	}
}

bool
quorum_has_won(const QuorumRun *run, const QuorumDurable *durable,
			   const QuorumMembers *members)
{
	int			votes = 0;

	if (!quorum_is_candidate(run, durable))
		return false;
	for (int i = 0; i < members->count; i++)
	{
		const QuorumPeer *peer = find_peer(run, members->ids[i]);

		if (members->ids[i] == run->self || (peer != NULL && peer->voted))
			votes++;
	}
	return votes >= quorum_majority(members);
}

void
quorum_become_controller(QuorumRun *run, QuorumDurable *durable, int64 now)
{
	run->candidate_term = 0;
	run->controller_term = durable->term;
	durable->image_term = durable->term;
	durable->image_version++;
	for (int i = 0; i < run->peers_count; i++)
	{
		/* the first votes may be older than it may be silent */
		if (run->peers[i].voted)
			run->peers[i].heard_at = now;
	}
	forget_answers(run);
}

/*
 * Waiting for the first image of its own term also is what makes changing members
 * one at a time safe: before that, the change of an earlier controller may still
 * be on its way.
 */
bool
quorum_can_propose(const QuorumRun *run, const QuorumDurable *durable)
{
	return quorum_is_controller(run, durable) &&
		durable->committed_version == durable->image_version;
}

void
quorum_propose(QuorumDurable *durable)
{
	durable->image_version++;
}

void
quorum_on_accept_reply(QuorumRun *run, QuorumDurable *durable, int32 from,
					   const AcceptReply *reply, int64 now, bool *store)
{
	QuorumPeer *peer = unconstify(QuorumPeer *, find_peer(run, from));

	*store = reply->term > durable->term;
	if (*store)
		take_term(durable, reply->term);
	else if (peer != NULL && reply->term == durable->term && reply->accepted &&
			 quorum_is_controller(run, durable))
	{
		peer->heard_at = now;
		/* less than before: a broker that was brought back without its last moments needs it again */
		peer->accepted_version = reply->image_term == durable->term ? reply->image_version : 0;
	}
}

bool
quorum_advance_commit(const QuorumRun *run, QuorumDurable *durable,
					  const QuorumMembers *members)
{
	int			accepted = 0;

	if (!quorum_is_controller(run, durable) ||
		durable->committed_version == durable->image_version)
		return false;
	for (int i = 0; i < members->count; i++)
	{
		const QuorumPeer *peer = find_peer(run, members->ids[i]);

		if (members->ids[i] == run->self ||
			(peer != NULL && peer->accepted_version == durable->image_version))
			accepted++;
	}
	if (accepted < quorum_majority(members))
		return false;
	durable->committed_version = durable->image_version;
	return true;
}

bool
quorum_should_send(const QuorumRun *run, const QuorumDurable *durable,
				   const QuorumPeer *peer, int64 committed_sent, int64 now,
				   bool *with_image)
{
	bool		due = now - peer->sent_at >= run->times.heartbeat;

	*with_image = false;
	if (quorum_is_candidate(run, durable))
		return due && !peer->voted;
	if (!quorum_is_controller(run, durable))
		return false;

	*with_image = peer->accepted_version != durable->image_version;
	if (*with_image && peer->sent_version != durable->image_version)
		return true;
	return due || committed_sent < durable->committed_version;
}

void
quorum_sent(QuorumPeer *peer, const QuorumDurable *durable, bool with_image, int64 now)
{
	peer->sent_at = now;
	if (with_image)
		peer->sent_version = durable->image_version;
}
