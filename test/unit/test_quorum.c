/* links: base/quorum.c */
/*
 * test_quorum.c
 *		Each decision by itself; how they work together is test_quorum_sim.c's.
 */
#include "c.h"

#include "base/quorum.h"
#include "unit.h"

#define ELECTION	100
#define HEARTBEAT	10

static const QuorumTimes times = {HEARTBEAT, ELECTION};
static const QuorumMembers one = {1, {1}};
static const QuorumMembers two = {2, {1, 2}};
static const QuorumMembers three = {3, {1, 2, 3}};
static const QuorumMembers others = {2, {2, 3}};

static bool store;

static void
test_members(void)
{
	QuorumMembers four = {4, {1, 2, 3, 4}};

	CHECK(quorum_is_member(&three, 3));
	CHECK(!quorum_is_member(&three, 4));
	CHECK_INT(quorum_majority(&one), 1);
	CHECK_INT(quorum_majority(&two), 2);
	CHECK_INT(quorum_majority(&three), 2);
	CHECK_INT(quorum_majority(&four), 3);
}

/* Votes of a broker that is in term 5, with image (4, 7). */
static VoteReply
vote(QuorumDurable *durable, int64 term, int64 image_term, int64 image_version, bool heard)
{
	VoteRequest request = {term, 2, image_term, image_version};

	return quorum_on_vote_request(durable, &request, heard, &store);
}

static void
test_vote(void)
{
	const QuorumDurable begin = {5, 0, 4, 7, 6};
	QuorumDurable durable = begin;
	VoteReply	reply;

	reply = vote(&durable, 6, 4, 7, false);
	CHECK(reply.granted && reply.term == 6 && store);
	CHECK(durable.term == 6 && durable.voted_for == 2 && durable.image_version == 7 &&
		  durable.committed_version == 6);
	/* once more, and nothing to store; but not for another */
	reply = vote(&durable, 6, 4, 7, false);
	CHECK(reply.granted && !store);
	durable.voted_for = 3;
	reply = vote(&durable, 6, 9, 9, false);
	CHECK(!reply.granted && reply.term == 6 && !store && durable.voted_for == 3);
	/* but in the next term */
	reply = vote(&durable, 7, 4, 7, false);
	CHECK(reply.granted && durable.voted_for == 2 && durable.term == 7);

	/* of this term, for which it has no vote yet */
	durable = begin;
	CHECK(vote(&durable, 5, 4, 8, false).granted && store && durable.voted_for == 2);

	/* an old term */
	durable = begin;
	reply = vote(&durable, 4, 4, 9, false);
	CHECK(!reply.granted && reply.term == 5 && !store);

	/* an older image */
	reply = vote(&durable, 6, 4, 6, false);
	CHECK(!reply.granted && reply.term == 5 && !store);
	CHECK(!vote(&durable, 6, 3, 99, false).granted);
	CHECK(memcmp(&durable, &begin, sizeof(begin)) == 0);
	CHECK(vote(&durable, 6, 5, 1, false).granted);

	/* a controller was heard */
	durable = begin;
	reply = vote(&durable, 6, 4, 7, true);
	CHECK(!reply.granted && reply.term == 5 && !store);
	CHECK(memcmp(&durable, &begin, sizeof(begin)) == 0);

	/* a broker that is new has nothing, and votes */
	memset(&durable, 0, sizeof(durable));
	CHECK(vote(&durable, 1, 0, 0, false).granted);
}

static void
test_accept(void)
{
	const QuorumDurable begin = {5, 2, 4, 7, 6};
	QuorumDurable durable = begin;
	AcceptRequest request = {4, 3, 4, 8, true, 8};
	AcceptReply reply;
	bool		take;
	bool		committed;

	/* an old controller */
	reply = quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(!reply.accepted && reply.term == 5 && !store && !take && !committed);
	CHECK(memcmp(&durable, &begin, sizeof(begin)) == 0);

	/* of my term, an image whose version is lower than mine of an older term */
	request = (AcceptRequest) {5, 3, 5, 7, true, 6};
	reply = quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(reply.accepted && reply.term == 5 && store && take && !committed);
	CHECK(reply.image_term == 5 && reply.image_version == 7);
	CHECK(durable.voted_for == 2);

	/* the same again */
	quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(!store && !take && !committed);

	/* a heartbeat that tells of the commit, twice */
	request = (AcceptRequest) {5, 3, 5, 7, false, 7};
	quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(store && !take && committed && durable.committed_version == 7);
	quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(!store && !committed);

	/* the next image; then the former one comes late */
	request = (AcceptRequest) {5, 3, 5, 8, true, 7};
	quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(take && !committed && durable.image_version == 8);
	request = (AcceptRequest) {5, 3, 5, 7, true, 7};
	reply = quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(reply.accepted && reply.image_version == 8 && !take && !committed && !store);

	/* committed, but I do not have it */
	request = (AcceptRequest) {5, 3, 5, 9, false, 9};
	reply = quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(reply.accepted && reply.image_version == 8 && !committed && durable.committed_version == 7);
	/* an image and that it is committed in one */
	request.has_image = true;
	quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(take && committed && durable.committed_version == 9);

	/* a newer term: the vote is of the old one */
	request = (AcceptRequest) {6, 3, 6, 10, false, 9};
	reply = quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(reply.accepted && reply.term == 6 && store && !take && durable.voted_for == 0);

	/* my version 7 is not the controller's version 7 */
	durable = begin;
	request = (AcceptRequest) {5, 3, 5, 7, false, 7};
	quorum_on_accept_request(&durable, &request, &store, &take, &committed);
	CHECK(!committed && durable.committed_version == 6);
}

static void
test_election(void)
{
	QuorumRun	run;
	QuorumDurable durable = {5, 0, 4, 7, 7};
	VoteReply	yes = {6, true};
	VoteReply	no = {6, false};
	bool		image;

	quorum_run_init(&run, 1, times, 1000, 12345);
	quorum_set_members(&run, &three, 1000);
	CHECK_INT(run.peers_count, 2);
	CHECK(run.election_due >= 1100 && run.election_due < 1200);
	CHECK(!quorum_is_controller(&run, &durable) && !quorum_is_candidate(&run, &durable));
	CHECK(!quorum_has_majority(&run, 1000));
	CHECK_INT(quorum_tick(&run, &durable, &three, run.election_due - 1), QUORUM_NOTHING);
	CHECK_INT(quorum_tick(&run, &durable, &three, run.election_due), QUORUM_CAMPAIGN);
	CHECK_INT(quorum_tick(&run, &durable, &others, run.election_due), QUORUM_NOTHING);
	CHECK(!quorum_should_send(&run, &durable, &run.peers[0], 0, 2000, &image));
	/* no member by an image that may have nobody else */
	durable.committed_version = 6;
	CHECK_INT(quorum_tick(&run, &durable, &others, run.election_due), QUORUM_CAMPAIGN);

	quorum_campaign(&run, &durable, 1200, 7);
	CHECK(durable.term == 6 && durable.voted_for == 1);
	CHECK(quorum_is_candidate(&run, &durable) && !quorum_has_won(&run, &durable, &three));
	CHECK_INT(run.election_due, 1307);
	CHECK(quorum_should_send(&run, &durable, &run.peers[0], 0, 1200, &image) && !image);
	quorum_sent(&run.peers[0], &durable, false, 1200);
	CHECK(!quorum_should_send(&run, &durable, &run.peers[0], 0, 1209, &image));
	CHECK(quorum_should_send(&run, &durable, &run.peers[0], 0, 1210, &image));

	/* refusals, votes of other terms and of others do not count */
	quorum_on_vote_reply(&run, &durable, 2, &no, 1210, &store);
	yes.term = 5;
	quorum_on_vote_reply(&run, &durable, 2, &yes, 1210, &store);
	yes.term = 6;
	quorum_on_vote_reply(&run, &durable, 4, &yes, 1210, &store);
	CHECK(!store && !quorum_has_won(&run, &durable, &three));
	quorum_on_vote_reply(&run, &durable, 3, &yes, 1210, &store);
	CHECK(!store && quorum_has_won(&run, &durable, &three));
	CHECK(!quorum_should_send(&run, &durable, &run.peers[1], 0, 1300, &image));

	/* votes count as of members now */
	CHECK(!quorum_has_won(&run, &durable, &two));

	/* another has won this term, whatever this process has heard */
	durable.image_term = 6;
	CHECK(!quorum_is_candidate(&run, &durable) && !quorum_has_won(&run, &durable, &three));
	durable.image_term = 4;
	/* or there is a newer term */
	durable.term = 7;
	CHECK(!quorum_has_won(&run, &durable, &three));
	durable.term = 6;
	CHECK(quorum_has_won(&run, &durable, &three));
	quorum_heard_controller(&run, 1250, 3);
	CHECK(!quorum_is_candidate(&run, &durable) && run.election_due == 1353);

	/* a newer term in an answer */
	quorum_campaign(&run, &durable, 1400, 0);
	yes = (VoteReply) {9, false};
	quorum_on_vote_reply(&run, &durable, 2, &yes, 1410, &store);
	CHECK(store && durable.term == 9 && durable.voted_for == 0);
	CHECK(!quorum_is_candidate(&run, &durable));

	/* alone */
	quorum_run_init(&run, 1, times, 0, 0);
	quorum_set_members(&run, &one, 0);
	quorum_campaign(&run, &durable, 200, 0);
	CHECK(quorum_has_won(&run, &durable, &one));
	quorum_become_controller(&run, &durable, 200);
	CHECK(quorum_advance_commit(&run, &durable, &one));
	CHECK(durable.committed_version == 8 && quorum_has_majority(&run, 100000));
}

static void
make_controller(QuorumRun *run, QuorumDurable *durable, const QuorumMembers *members, int64 now)
{
	VoteReply	yes;

	*durable = (QuorumDurable) {5, 0, 4, 7, 7};
	quorum_run_init(run, 1, times, now - 200, 0);
	quorum_set_members(run, members, now - 200);
	quorum_campaign(run, durable, now, 0);
	yes = (VoteReply) {durable->term, true};
	for (int i = 0; i < members->count / 2; i++)
		quorum_on_vote_reply(run, durable, run->peers[i].id, &yes, now, &store);
	CHECK(quorum_has_won(run, durable, members));
	quorum_become_controller(run, durable, now);
}

static void
test_controller(void)
{
	QuorumRun	run;
	QuorumDurable durable;
	AcceptReply reply;
	VoteReply	late = {9, false};
	bool		image;
	QuorumPeer *peer = &run.peers[0];

	make_controller(&run, &durable, &three, 1000);
	CHECK(quorum_is_controller(&run, &durable) && !quorum_is_candidate(&run, &durable));
	CHECK(durable.image_term == 6 && durable.image_version == 8 && durable.committed_version == 7);
	CHECK(!quorum_can_propose(&run, &durable) && !quorum_advance_commit(&run, &durable, &three));
	CHECK(quorum_has_majority(&run, 1100) && !quorum_has_majority(&run, 1101));

	/* an answer on its election that comes late, from one that counts its terms up */
	quorum_on_vote_reply(&run, &durable, 3, &late, 1000, &store);
	CHECK(!store && durable.term == 6 && quorum_is_controller(&run, &durable));

	/* the image goes out at once, and again when there is no answer */
	CHECK(quorum_should_send(&run, &durable, peer, 7, 1000, &image) && image);
	quorum_sent(peer, &durable, true, 1000);
	CHECK(!quorum_should_send(&run, &durable, peer, 7, 1009, &image));
	CHECK(quorum_should_send(&run, &durable, peer, 7, 1010, &image) && image);

	/* answers that say nothing of this image */
	reply = (AcceptReply) {6, true, 5, 8};
	quorum_on_accept_reply(&run, &durable, 2, &reply, 1001, &store);
	reply = (AcceptReply) {5, true, 5, 8};
	quorum_on_accept_reply(&run, &durable, 2, &reply, 1001, &store);
	reply = (AcceptReply) {6, true, 6, 8};
	quorum_on_accept_reply(&run, &durable, 4, &reply, 1001, &store);
	CHECK(!store && !quorum_advance_commit(&run, &durable, &three));
	quorum_on_accept_reply(&run, &durable, 2, &reply, 1050, &store);
	CHECK(quorum_advance_commit(&run, &durable, &three) && durable.committed_version == 8);
	CHECK(!quorum_advance_commit(&run, &durable, &three));
	CHECK(quorum_can_propose(&run, &durable));
	CHECK(quorum_has_majority(&run, 1150) && !quorum_has_majority(&run, 1151));

	/* that it is committed goes out at once, without the image */
	CHECK(quorum_should_send(&run, &durable, peer, 7, 1005, &image) && !image);
	CHECK(!quorum_should_send(&run, &durable, peer, 8, 1005, &image));

	/* the next image, whenever the last heartbeat was; an answer on the former */
	quorum_propose(&durable);
	CHECK(durable.image_version == 9 && durable.image_term == 6);
	CHECK(!quorum_can_propose(&run, &durable) && !quorum_advance_commit(&run, &durable, &three));
	CHECK(quorum_should_send(&run, &durable, peer, 8, 1005, &image) && image);
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	CHECK(!quorum_advance_commit(&run, &durable, &three));
	reply.image_version = 9;
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	CHECK(quorum_should_send(&run, &durable, &run.peers[1], 8, 1005, &image) && !image);

	/* it was brought back without its last moments: it does not count, and needs it again */
	reply.image_version = 8;
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	CHECK(!store && run.peers[1].accepted_version == 8);
	CHECK(!quorum_advance_commit(&run, &durable, &three));
	CHECK(quorum_should_send(&run, &durable, &run.peers[1], 8, 1005, &image) && image);
	/* it has what another controller had made */
	reply.image_version = 9;
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	reply.image_term = 5;
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	CHECK(!store && run.peers[1].accepted_version == 0);
	CHECK(!quorum_advance_commit(&run, &durable, &three));
	reply.image_term = 6;
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	CHECK(quorum_advance_commit(&run, &durable, &three) && durable.committed_version == 9);

	/* what is committed stays committed, and goes there again all the same */
	reply.image_version = 8;
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	CHECK(durable.committed_version == 9 && quorum_can_propose(&run, &durable));
	quorum_sent(&run.peers[1], &durable, true, 1060);
	CHECK(!quorum_should_send(&run, &durable, &run.peers[1], 9, 1069, &image));
	CHECK(quorum_should_send(&run, &durable, &run.peers[1], 9, 1070, &image) && image);
	reply.image_version = 9;
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1060, &store);
	CHECK(quorum_should_send(&run, &durable, &run.peers[1], 9, 1070, &image) && !image);

	/* silence, and a newer term */
	CHECK_INT(quorum_tick(&run, &durable, &three, 1150), QUORUM_NOTHING);
	CHECK_INT(quorum_tick(&run, &durable, &three, 1161), QUORUM_STEP_DOWN);
	reply = (AcceptReply) {8, false, 6, 9};
	quorum_on_accept_reply(&run, &durable, 3, &reply, 1070, &store);
	CHECK(store && durable.term == 8 && durable.voted_for == 0);
	CHECK(!quorum_is_controller(&run, &durable) && !quorum_can_propose(&run, &durable));
	CHECK_INT(quorum_tick(&run, &durable, &three, 1071), QUORUM_STEP_DOWN);
	quorum_step_down(&run, 1071, 0);
	CHECK_INT(quorum_tick(&run, &durable, &three, 1072), QUORUM_NOTHING);
	CHECK_INT(quorum_tick(&run, &durable, &three, 1171), QUORUM_CAMPAIGN);

	/* elected again, but its image was replaced by one with a lower version between */
	make_controller(&run, &durable, &three, 1000);
	durable.image_version = 20;
	reply = (AcceptReply) {6, true, 6, 20};
	quorum_on_accept_reply(&run, &durable, 2, &reply, 1001, &store);
	durable.term = durable.image_term = 7;
	durable.image_version = 19;
	quorum_step_down(&run, 1001, 0);
	quorum_campaign(&run, &durable, 1200, 0);
	CHECK(!quorum_has_won(&run, &durable, &three));
	quorum_become_controller(&run, &durable, 1200);
	CHECK(durable.image_version == 20 && !quorum_advance_commit(&run, &durable, &three));

	/* who has stepped down is not the controller of this term any more */
	make_controller(&run, &durable, &three, 1000);
	quorum_step_down(&run, 1200, 0);
	CHECK(!quorum_is_controller(&run, &durable));
	reply = (AcceptReply) {6, true, 6, 8};
	quorum_on_accept_reply(&run, &durable, 2, &reply, 1201, &store);
	CHECK(!quorum_advance_commit(&run, &durable, &three));
}

static void
test_change_members(void)
{
	QuorumRun	run;
	QuorumDurable durable;
	AcceptReply reply = {6, true, 6, 8};

	/* a second one: both have to have it; silence counts from now on */
	make_controller(&run, &durable, &one, 1000);
	CHECK(quorum_advance_commit(&run, &durable, &one));
	quorum_propose(&durable);
	quorum_set_members(&run, &two, 5000);
	CHECK_INT(run.peers_count, 1);
	CHECK(!quorum_advance_commit(&run, &durable, &two));
	CHECK_INT(quorum_tick(&run, &durable, &two, 5100), QUORUM_NOTHING);
	CHECK_INT(quorum_tick(&run, &durable, &two, 5101), QUORUM_STEP_DOWN);
	reply.image_version = 9;
	quorum_on_accept_reply(&run, &durable, 2, &reply, 5050, &store);
	CHECK(quorum_advance_commit(&run, &durable, &two));

	/* a third one: what is known of the second stays */
	quorum_propose(&durable);
	quorum_set_members(&run, &three, 5050);
	CHECK(run.peers[0].id == 2 && run.peers[0].accepted_version == 9);
	CHECK(run.peers[1].id == 3 && run.peers[1].accepted_version == 0);
	reply.image_version = 10;
	quorum_on_accept_reply(&run, &durable, 2, &reply, 5060, &store);
	CHECK(quorum_advance_commit(&run, &durable, &three));

	/* it takes itself out: does not count, and goes when the others have agreed */
	quorum_propose(&durable);
	quorum_set_members(&run, &others, 5060);
	reply.image_version = 11;
	quorum_on_accept_reply(&run, &durable, 2, &reply, 5070, &store);
	CHECK(!quorum_advance_commit(&run, &durable, &others));
	CHECK_INT(quorum_tick(&run, &durable, &others, 5070), QUORUM_NOTHING);
	quorum_on_accept_reply(&run, &durable, 3, &reply, 5070, &store);
	CHECK(quorum_has_majority(&run, 5170) && !quorum_has_majority(&run, 5171));
	CHECK(quorum_advance_commit(&run, &durable, &others));
	CHECK_INT(quorum_tick(&run, &durable, &others, 5070), QUORUM_STEP_DOWN);
	quorum_step_down(&run, 5070, 0);
	CHECK_INT(quorum_tick(&run, &durable, &others, 9999), QUORUM_NOTHING);
}

int
main(void)
{
	test_members();
	test_vote();
	test_accept();
	test_election();
	test_controller();
	test_change_members();
	return unit_done();
}
