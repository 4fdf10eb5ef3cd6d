/* links: base/image.c base/image_text.c base/image_brokers.c base/image_changes.c base/image_moves.c base/placement.c */
/*
 * test_image_changes.c
 *		The metadata of a cluster: each change and why it is refused, and random
 *		sequences of changes.
 */
#include "postgres_fe.h"

#include "common/fe_memutils.h"

#include "base/image.h"
#include "unit.h"
#include "unit_image.h"

static bool changed;

static bool
refused(bool result, ImageProblemKind kind, const char *message)
{
	return !result && problem.kind == kind && CHECK_STR(problem.message, message);
}

static void
test_topics(void)
{
	Image	   *image = cluster_of(3);
	ImageTopic	topic = topic_options("t", 2, 3);
	int32		id;

	CHECK_INT(add_topic(image, "first", 3, 2), 1);
	CHECK_INT(add_topic(image, "t", 2, 3), 2);
	CHECK_STR(show(image, 1, 1), "2.0>0 23 23 ");
	CHECK_STR(show_placed(image, 1, 1), "1: 2.1 3.1");
	CHECK_INT(partition_placement(image_partition(image, 1, 1), 3), 1);
	CHECK_INT(partition_placement(image_partition(image, 1, 1), 1), 0);
	CHECK(image_topic(image, 2) == &image->topics[1] && image_topic(image, 3) == NULL);
	CHECK(image_topic_by_name(image, "t")->id == 2 && image_topic_by_name(image, "T") == NULL);
	CHECK(image_partition(image, 1, 3) == NULL && image_partition(image, 2, 1)->number == 1);
	CHECK(partition_has_replica(image_partition(image, 1, 0), 2));
	CHECK(!partition_in_sync(image_partition(image, 1, 0), 3));

	CHECK(refused(image_add_topic(image, &topic, 0, 0, &id, &problem), IMAGE_DUPLICATE_TOPIC,
				  "topic \"t\" already exists"));
	topic.name = "u";
	topic.replication_factor = 4;
	CHECK(refused(image_add_topic(image, &topic, 0, 0, &id, &problem), IMAGE_INVALID,
				  "replication factor 4 is not possible with 3 brokers"));
	topic.replication_factor = 0;
	CHECK(refused(image_add_topic(image, &topic, 0, 0, &id, &problem), IMAGE_INVALID,
				  "replication factor 0 is not possible with 3 brokers"));
	topic.replication_factor = 2;
	topic.min_insync_replicas = 3;
	CHECK(refused(image_add_topic(image, &topic, 0, 0, &id, &problem), IMAGE_INVALID,
				  "min_insync_replicas must be between 1 and 2, not 3"));
	topic.min_insync_replicas = 0;
	topic.partitions = 0;
	CHECK(refused(image_add_topic(image, &topic, 0, 0, &id, &problem), IMAGE_INVALID,
				  "a topic cannot have 0 partitions"));
	CHECK(image->topics_count == 2 && image->next_topic == 3);

	/* half of the replicas, rounded up, unless told otherwise */
	for (int factor = 1; factor <= 5; factor++)
	{
		topic.replication_factor = factor;
		CHECK_INT(topic_min_insync(&topic), (factor + 1) / 2);
	}
	topic.min_insync_replicas = 5;
	CHECK_INT(topic_min_insync(&topic), 5);

	/* alter: what is no option stays */
	topic = topic_options("other", 9, 1);
	topic.id = 2;
	topic.owner = "bob";
	topic.retention = NULL;
	topic.retention_bytes = 5;
	topic.min_insync_replicas = 3;
	topic.value_format = "json";
	CHECK(image_alter_topic(image, &topic, &problem));
	CHECK_STR(image->topics[1].name, "t");
	CHECK_STR(image->topics[1].owner, "bob");
	CHECK_STR(image->topics[1].retention, NULL);
	CHECK_STR(image->topics[1].value_format, "text");
	CHECK(image->topics[1].partitions == 2 && image->topics[1].replication_factor == 3 &&
		  image->topics[1].min_insync_replicas == 3 && image->topics[1].retention_bytes == 5);
	topic.min_insync_replicas = 4;
	CHECK(refused(image_alter_topic(image, &topic, &problem), IMAGE_INVALID,
				  "min_insync_replicas must be between 1 and 3, not 4"));
	topic.id = 7;
	CHECK(refused(image_alter_topic(image, &topic, &problem), IMAGE_NO_SUCH_TOPIC,
				  "topic with id 7 does not exist"));

	/* more partitions, in the middle of the others */
	CHECK(image_add_partitions(image, 1, 5, 0, 0, &problem));
	CHECK(image->partitions_count == 7 && image->topics[0].partitions == 5);
	CHECK_STR(show(image, 1, 4), "2.0>0 21 21 ");
	CHECK_STR(show_placed(image, 1, 4), "1: 2.1 1.1");
	CHECK_STR(image_fault(image), NULL);
	CHECK(refused(image_add_partitions(image, 1, 5, 0, 0, &problem), IMAGE_INVALID,
				  "topic \"first\" has 5 partitions already"));
	CHECK(image_remove_broker(image, 3, false, &problem));
	CHECK(refused(image_add_partitions(image, 2, 3, 0, 0, &problem), IMAGE_NOT_NOW,
				  "replication factor 3 is not possible with 2 brokers"));

	/* in the middle of a move */
	CHECK(image_drop_topic(image, 1, &problem));
	CHECK(image->topics_count == 1 && image->partitions_count == 2 && image->partitions[0].topic == 2);
	CHECK_STR(image_fault(image), NULL);
	CHECK(refused(image_drop_topic(image, 1, &problem), IMAGE_NO_SUCH_TOPIC,
				  "topic with id 1 does not exist"));
	CHECK_INT(add_topic(image, "first", 1, 1), 3);
}

static bool
set_isr(Image *image, int32 leader, int32 epoch, int32 broker, bool in_sync)
{
	bool		done = image_change_isr(image, 1, 0, leader, epoch, broker, in_sync, &changed, &problem);

	image_advance(image);
	return done;
}

static bool
hand_over(Image *image, int32 leader, int32 epoch, bool done)
{
	int32		successor = image_partition(image, 1, 0)->successor;
	bool		result = image_hand_over(image, 1, 0, leader, epoch, successor, done, &changed, &problem);

	image_advance(image);
	return result;
}

static void
test_leaders(void)
{
	Image	   *image = cluster_of(4);

	add_topic(image, "t", 1, 3);
	CHECK(set_isr(image, 1, 0, 2, false) && changed);
	CHECK(set_isr(image, 1, 0, 2, false) && !changed);
	CHECK_STR(show(image, 1, 0), "1.0>0 123 13 ");
	CHECK(set_isr(image, 1, 1, 3, false) && !changed);
	CHECK(set_isr(image, 2, 0, 3, false) && !changed);
	CHECK(set_isr(image, 1, 0, 2, true) && changed);
	CHECK_STR(show(image, 1, 0), "1.0>0 123 123 ");
	CHECK(refused(set_isr(image, 1, 0, 1, false), IMAGE_INVALID,
				  "the leader of partition 0 of topic \"t\" is always in sync"));
	CHECK(refused(set_isr(image, 1, 0, 4, true), IMAGE_NOT_NOW,
				  "broker 4 has no replica of partition 0 of topic \"t\""));
	CHECK(set_isr(image, 1, 0, 4, false) && !changed);
	CHECK(refused(image_change_isr(image, 1, 1, 1, 0, 2, true, &changed, &problem),
				  IMAGE_NO_SUCH_PARTITION, "partition 1 of topic \"t\" does not exist"));

	/* handovers */
	CHECK(image_elect_leader(image, 1, 0, 0, &problem) && image->partitions[0].successor == 0);
	CHECK(hand_over(image, 1, 0, true) && !changed);
	CHECK(image_elect_leader(image, 1, 0, 2, &problem));
	CHECK(image_elect_leader(image, 1, 0, 2, &problem));
	CHECK_STR(show(image, 1, 0), "1.0>2 123 123 ");
	CHECK(refused(image_elect_leader(image, 1, 0, 3, &problem), IMAGE_NOT_NOW,
				  "the leader of partition 0 of topic \"t\" is handing over to broker 2"));
	CHECK(refused(image_elect_leader(image, 1, 0, 4, &problem), IMAGE_INVALID,
				  "broker 4 has no replica of partition 0 of topic \"t\""));
	CHECK(hand_over(image, 1, 1, true) && !changed && hand_over(image, 2, 0, true) && !changed);
	/* a report about a handover to somebody else */
	CHECK(image_hand_over(image, 1, 0, 1, 0, image_partition(image, 1, 0)->successor + 1, true,
						  &changed, &problem) && !changed);
	CHECK(hand_over(image, 1, 0, false) && changed);
	CHECK_STR(show(image, 1, 0), "1.0>0 123 123 ");
	CHECK(image_elect_leader(image, 1, 0, 2, &problem));
	CHECK(hand_over(image, 1, 0, true) && changed);
	/* the others are not in sync with it before it says so */
	CHECK_STR(show(image, 1, 0), "2.1>0 123 2 ");
	CHECK(hand_over(image, 1, 0, true) && !changed);
	CHECK(refused(image_elect_leader(image, 1, 0, 0, &problem), IMAGE_NOT_NOW,
				  "the replica of partition 0 of topic \"t\" at broker 1 is not in sync"));
	CHECK(set_isr(image, 1, 0, 3, true) && !changed);
	CHECK(set_isr(image, 2, 1, 3, true) && set_isr(image, 2, 1, 1, true));
	CHECK_STR(show(image, 1, 0), "2.1>0 123 123 ");
	/* the preferred one, which falls behind */
	CHECK(image_elect_leader(image, 1, 0, 0, &problem));
	CHECK_STR(show(image, 1, 0), "2.1>1 123 123 ");
	CHECK(set_isr(image, 2, 1, 1, false) && changed);
	CHECK_STR(show(image, 1, 0), "2.1>0 123 23 ");
	CHECK(refused(image_elect_leader(image, 1, 0, 0, &problem), IMAGE_NOT_NOW,
				  "the replica of partition 0 of topic \"t\" at broker 1 is not in sync"));
}

static void
test_moves(void)
{
	Image	   *image = cluster_of(5);
	int32		there[] = {4, 5};
	int32		twice[] = {4, 4};
	int32		unknown[] = {4, 6};
	int32		back[] = {1, 2};

	add_topic(image, "t", 1, 2);
	CHECK(refused(image_move_partition(image, 1, 0, twice, 2, &problem), IMAGE_INVALID,
				  "broker 4 is named twice"));
	CHECK(refused(image_move_partition(image, 1, 0, unknown, 2, &problem), IMAGE_NO_SUCH_BROKER,
				  "broker 6 does not exist"));
	CHECK(refused(image_move_partition(image, 1, 0, there, 0, &problem), IMAGE_INVALID,
				  "a partition cannot have 0 replicas"));
	CHECK(refused(image_move_partition(image, 1, 0, there, 33, &problem), IMAGE_INVALID,
				  "a partition cannot have 33 replicas"));

	CHECK(image_move_partition(image, 1, 0, there, 2, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "1.0>0 1245 12 45");
	CHECK(set_isr(image, 1, 0, 5, true));
	CHECK_STR(show(image, 1, 0), "1.0>0 1245 125 45");
	CHECK(set_isr(image, 1, 0, 4, true));
	CHECK_STR(show(image, 1, 0), "1.0>4 1245 1245 45");
	/* it cannot stop: it is asked again with the next change, whatever that is */
	CHECK(hand_over(image, 1, 0, false) && changed);
	CHECK_STR(show(image, 1, 0), "1.0>0 1245 1245 45");
	CHECK(image_set_conninfo(image, 1, "x", &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "1.0>4 1245 1245 45");
	/* the move ends when the rest of the target is in sync with the new leader */
	CHECK(hand_over(image, 1, 0, true));
	CHECK_STR(show(image, 1, 0), "4.1>0 1245 4 45");
	CHECK(set_isr(image, 4, 1, 1, true));
	CHECK_STR(show(image, 1, 0), "4.1>0 1245 14 45");
	CHECK_STR(show_placed(image, 1, 0), "3: 1.1 2.1 4.2 5.3");
	CHECK(set_isr(image, 4, 1, 5, true));
	CHECK_STR(show(image, 1, 0), "4.1>0 45 45 ");
	CHECK_STR(show_placed(image, 1, 0), "3: 4.2 5.3");

	/* a move that is called off; the replicas that it had begun are other ones now */
	CHECK(image_move_partition(image, 1, 0, back, 2, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "4.1>0 4512 45 12");
	CHECK_STR(show_placed(image, 1, 0), "5: 4.2 5.3 1.4 2.5");
	CHECK(image_move_partition(image, 1, 0, there, 2, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "4.1>0 45 45 ");
	CHECK_STR(show_placed(image, 1, 0), "5: 4.2 5.3");

	/* another order, and fewer; a handover to one outside ends first */
	there[0] = 5;
	there[1] = 4;
	CHECK(image_move_partition(image, 1, 0, there, 2, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "4.1>0 54 54 ");
	CHECK_STR(show_placed(image, 1, 0), "5: 5.3 4.2");
	CHECK(image_elect_leader(image, 1, 0, 5, &problem));
	CHECK(image_move_partition(image, 1, 0, there + 1, 1, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "4.1>5 54 54 4");
	CHECK(hand_over(image, 4, 1, true));
	CHECK_STR(show(image, 1, 0), "5.2>0 54 5 4");
	CHECK(set_isr(image, 5, 2, 4, true));
	CHECK_STR(show(image, 1, 0), "5.2>4 54 54 4");
	CHECK(hand_over(image, 5, 2, true));
	CHECK_STR(show(image, 1, 0), "4.3>0 4 4 ");
	CHECK_STR(show_placed(image, 1, 0), "5: 4.2");

	/* back to where it was before: not as the replica that it was */
	CHECK(image_move_partition(image, 1, 0, back, 2, &problem));
	image_advance(image);
	CHECK_STR(show_placed(image, 1, 0), "7: 4.2 1.6 2.7");
}

static void
test_leave(void)
{
	Image	   *image = cluster_of(4);
	int32		back[] = {1, 2};

	/* "t" leads at 1; "load" puts more on 3 than on 4 */
	add_topic(image, "t", 1, 2);
	add_topic(image, "load", 3, 1);
	CHECK(image_remove_broker(image, 1, false, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "1.0>0 124 12 42");
	/* the next replica goes elsewhere: 3 and 4 have one each now */
	CHECK_STR(show(image, 2, 0), "1.0>0 13 1 3");
	CHECK(image_broker(image, 1)->leaving);
	CHECK(refused(image_move_partition(image, 1, 0, back, 2, &problem), IMAGE_NOT_NOW,
				  "broker 1 is leaving"));
	/* once more is nothing */
	CHECK(image_remove_broker(image, 1, false, &problem));
	CHECK_STR(show(image, 1, 0), "1.0>0 124 12 42");

	CHECK(set_isr(image, 1, 0, 4, true));
	CHECK_STR(show(image, 1, 0), "1.0>4 124 124 42");
	CHECK(hand_over(image, 1, 0, true));
	CHECK_STR(show(image, 1, 0), "4.1>0 124 4 42");
	CHECK(set_isr(image, 4, 1, 2, true));
	CHECK_STR(show(image, 1, 0), "4.1>0 42 42 ");
	CHECK_STR(show_placed(image, 1, 0), "2: 4.2 2.1");
	CHECK(image_broker(image, 1) != NULL);
	CHECK(image_drop_topic(image, 2, &problem));
	image_advance(image);
	CHECK(image_broker(image, 1) == NULL && image->brokers_count == 3);
	CHECK(refused(image_remove_broker(image, 1, false, &problem), IMAGE_NO_SUCH_BROKER,
				  "broker 1 does not exist"));

	/* the target of a move leaves too; nobody is left but who is there */
	CHECK(image_remove_broker(image, 4, false, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "4.1>0 423 42 32");
	CHECK(image_remove_broker(image, 3, false, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "4.1>2 423 42 2");
	CHECK(refused(image_remove_broker(image, 2, false, &problem), IMAGE_NOT_NOW,
				  "broker 2 is the last one that is not leaving"));
	CHECK(refused(image_remove_broker(image, 2, true, &problem), IMAGE_NOT_NOW,
				  "broker 2 is the last one that is not leaving"));
	CHECK(hand_over(image, 4, 1, true));
	CHECK_STR(show(image, 1, 0), "2.2>0 2 2 ");
	CHECK_INT(image->brokers_count, 1);
	CHECK_STR(image_fault(image), NULL);

	/* two brokers */
	image = cluster_of(2);
	add_topic(image, "t", 1, 2);
	CHECK(image_remove_broker(image, 1, false, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "1.0>2 12 12 2");
	CHECK(hand_over(image, 1, 0, true));
	CHECK_STR(show(image, 1, 0), "2.1>0 2 2 ");
	CHECK_INT(image->brokers_count, 1);
}

static void
test_gone(void)
{
	Image	   *image = cluster_of(4);
	int32		there[] = {3, 4};

	/* the first of the rest that is in sync, and it alone */
	add_topic(image, "t", 1, 4);
	CHECK(set_isr(image, 1, 0, 2, false));
	CHECK(image_elect_leader(image, 1, 0, 4, &problem));
	CHECK(image_remove_broker(image, 1, true, &problem));
	CHECK_STR(show(image, 1, 0), "3.1>0 234 3 ");
	CHECK(image_broker(image, 1) == NULL);
	CHECK(refused(image_remove_broker(image, 3, true, &problem), IMAGE_NOT_NOW,
				  "broker 3 has the last replica in sync of some partitions"));
	CHECK_STR(problem.detail, "One of them is partition 0 of topic \"t\".");
	CHECK_STR(image_fault(image), NULL);

	/* the successor, which is also where it is to move: not the next one at once */
	image = cluster_of(5);
	add_topic(image, "t", 1, 2);
	CHECK(image_move_partition(image, 1, 0, there, 2, &problem));
	image_advance(image);
	CHECK(set_isr(image, 1, 0, 3, true) && set_isr(image, 1, 0, 4, true));
	CHECK_STR(show(image, 1, 0), "1.0>3 1234 1234 34");
	CHECK_STR(show_placed(image, 1, 0), "3: 1.1 2.1 3.2 4.3");
	CHECK(image_remove_broker(image, 1, false, &problem));
	CHECK(image_remove_broker(image, 2, false, &problem));
	CHECK(image_remove_broker(image, 3, true, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "1.0>0 1245 124 54");
	CHECK_STR(show_placed(image, 1, 0), "4: 1.1 2.1 4.3 5.4");
	CHECK(set_isr(image, 1, 0, 5, true));
	CHECK_STR(show(image, 1, 0), "1.0>5 1245 1245 54");
	/* and the leader */
	CHECK(image_remove_broker(image, 1, true, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "2.1>0 245 2 54");
	CHECK_STR(show_placed(image, 1, 0), "4: 2.1 4.3 5.4");
	CHECK(set_isr(image, 2, 1, 4, true) && set_isr(image, 2, 1, 5, true));
	CHECK_STR(show(image, 1, 0), "2.1>5 245 245 54");
	/* who is gone does not lead: the others stay in sync */
	CHECK(image_remove_broker(image, 4, true, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "2.1>5 25 25 5");
	CHECK_STR(image_fault(image), NULL);
}

/* --- brokers that are not there --- */

static void
test_fence(void)
{
	Image	   *image = cluster_of(4);

	add_topic(image, "t", 1, 3);
	CHECK(!image_is_fenced(image, 1) && !image_is_fenced(image, 9));
	CHECK(refused(image_fence_broker(image, 9, &changed, &problem), IMAGE_NO_SUCH_BROKER,
				  "broker 9 does not exist"));
	CHECK(refused(image_unfence_broker(image, 9, 0, &changed, &problem), IMAGE_NO_SUCH_BROKER,
				  "broker 9 does not exist"));
	/* who is there does not come back */
	CHECK(!unfence(image, 1, 0) && !unfence(image, 1, 1));

	/* a follower is not in sync any more, and does not come into sync */
	CHECK(fence(image, 2) && image_is_fenced(image, 2) && image->brokers[1].fencings == 1);
	CHECK_STR(show(image, 1, 0), "1.0>0 123 13 ");
	CHECK(!fence(image, 2) && image->brokers[1].fencings == 1);
	CHECK(set_isr(image, 1, 0, 2, true) && !changed);
	CHECK_STR(show(image, 1, 0), "1.0>0 123 13 ");
	CHECK(refused(image_elect_leader(image, 1, 0, 2, &problem), IMAGE_NOT_NOW,
				  "the replica of partition 0 of topic \"t\" at broker 2 is not in sync"));

	/* it comes back with the number of its fencing alone */
	CHECK(!unfence(image, 2, 0) && !unfence(image, 2, 2) && image_is_fenced(image, 2));
	CHECK(unfence(image, 2, 1) && !image_is_fenced(image, 2) && image->brokers[1].fencings == 1);
	CHECK(!unfence(image, 2, 1));
	CHECK_STR(show(image, 1, 0), "1.0>0 123 13 ");
	CHECK(set_isr(image, 1, 0, 2, true) && changed);

	/* the leader: the first of the others in sync leads, alone */
	CHECK(set_isr(image, 1, 0, 2, false) && image_elect_leader(image, 1, 0, 3, &problem));
	CHECK_STR(show(image, 1, 0), "1.0>3 123 13 ");
	CHECK(fence(image, 1));
	CHECK_STR(show(image, 1, 0), "3.1>0 123 3 ");
	CHECK(hand_over(image, 1, 0, true) && !changed);
	CHECK(set_isr(image, 1, 0, 2, true) && !changed);
	/* back, it is a follower, and preferred; who was to lead goes */
	CHECK(unfence(image, 1, 1));
	CHECK_STR(show(image, 1, 0), "3.1>0 123 3 ");
	CHECK(set_isr(image, 3, 1, 1, true) && set_isr(image, 3, 1, 2, true));
	CHECK(image_elect_leader(image, 1, 0, 0, &problem));
	CHECK_STR(show(image, 1, 0), "3.1>1 123 123 ");
	CHECK(fence(image, 1));
	CHECK_STR(show(image, 1, 0), "3.1>0 123 23 ");
	/* by the order of replicas */
	CHECK(unfence(image, 1, 2) && set_isr(image, 3, 1, 1, true) && fence(image, 3));
	CHECK_STR(show(image, 1, 0), "1.2>0 123 1 ");
	CHECK_STR(image_fault(image), NULL);

	/* the last one that is there */
	image = cluster_of(2);
	CHECK(fence(image, 1) && fence(image, 2));
	CHECK(image_fence_broker(image, 1, &changed, &problem) && !changed);
}

/* Two that die at once: none of them leads for a moment, and is the only one in sync then. */
static void
test_fence_several(void)
{
	const int32 both[] = {1, 2};
	const int32 wrong[] = {1, 9};
	Image	   *image = cluster_of(5);
	ImagePartition *partition;

	add_topic(image, "t", 1, 3);
	partition = image_partition(image, 1, 0);
	CHECK(refused(image_fence_brokers(image, wrong, 2, &changed, &problem), IMAGE_NO_SUCH_BROKER,
				  "broker 9 does not exist"));
	CHECK(!image_is_fenced(image, 1));
	CHECK(image_fence_brokers(image, both, 2, &changed, &problem) && changed);
	CHECK_STR(show(image, 1, 0), "3.1>0 123 3 ");
	CHECK(partition->revision == 1);
	CHECK(image_fence_brokers(image, both, 2, &changed, &problem) && !changed);
	CHECK_STR(image_fault(image), NULL);

	/* the second one is a little later: it is not chosen either */
	image = cluster_of(5);
	add_topic(image, "t", 1, 3);
	image_broker(image, 2)->suspect = true;
	CHECK(fence(image, 1));
	CHECK_STR(show(image, 1, 0), "3.1>0 123 3 ");
	/* unless there is nobody else */
	image = cluster_of(2);
	add_topic(image, "t", 1, 2);
	image_broker(image, 2)->suspect = true;
	CHECK(fence(image, 1));
	CHECK_STR(show(image, 1, 0), "2.1>0 12 2 ");

	/* all of those in sync: whoever is back first leads */
	image = cluster_of(5);
	add_topic(image, "t", 1, 2);
	CHECK(image_elect_leader(image, 1, 0, 2, &problem) && hand_over(image, 1, 0, true));
	CHECK(set_isr(image, 2, 1, 1, true));
	CHECK(image_fence_brokers(image, both, 2, &changed, &problem) && changed);
	CHECK_STR(show(image, 1, 0), "2.1>0 12 12 ");
	CHECK_STR(image_fault(image), NULL);
	CHECK(unfence(image, 1, 1));
	CHECK_STR(show(image, 1, 0), "1.2>0 12 1 ");
}

static void
test_nobody_leads(void)
{
	Image	   *image = cluster_of(4);

	/* the whole of isr is not there: it stays, and the leader only names one */
	add_topic(image, "t", 1, 3);
	CHECK(set_isr(image, 1, 0, 3, false));
	CHECK(fence(image, 2));
	CHECK_STR(show(image, 1, 0), "1.0>0 123 1 ");
	CHECK(fence(image, 1));
	CHECK_STR(show(image, 1, 0), "1.0>0 123 1 ");
	CHECK_STR(image_fault(image), NULL);
	CHECK(refused(image_elect_leader(image, 1, 0, 3, &problem), IMAGE_NOT_NOW,
				  "partition 0 of topic \"t\" has no leader that could hand over"));
	CHECK(refused(image_elect_leader(image, 1, 0, 0, &problem), IMAGE_NOT_NOW,
				  "partition 0 of topic \"t\" has no leader that could hand over"));
	/* who was the leader has reported this before it was fenced */
	CHECK(set_isr(image, 1, 0, 3, true) && !changed);
	/* others who come back do not lead; it leads anew */
	CHECK(unfence(image, 2, 1));
	CHECK_STR(show(image, 1, 0), "1.0>0 123 1 ");
	CHECK(unfence(image, 1, 1));
	CHECK_STR(show(image, 1, 0), "1.1>0 123 1 ");
	CHECK(set_isr(image, 1, 0, 3, true) && !changed);
	CHECK(set_isr(image, 1, 1, 3, true) && changed);

	/* several of isr at once, as when all of a new topic's are not there */
	image = cluster_of(4);
	CHECK(fence(image, 1) && fence(image, 2) && fence(image, 3));
	add_topic(image, "t", 1, 3);
	add_topic(image, "one", 1, 1);
	CHECK_STR(show(image, 1, 0), "1.0>0 123 123 ");
	CHECK_STR(show(image, 2, 0), "4.0>0 4 4 ");
	CHECK_STR(image_fault(image), NULL);
	CHECK(unfence(image, 2, 1));
	CHECK_STR(show(image, 1, 0), "2.1>0 123 2 ");
	CHECK(unfence(image, 1, 1));
	CHECK_STR(show(image, 1, 0), "2.1>0 123 2 ");

	/* one of them goes: another one is named */
	image = cluster_of(4);
	add_topic(image, "t", 1, 3);
	image->brokers[0].fenced = image->brokers[1].fenced = image->brokers[2].fenced = true;
	image->brokers[0].fencings = image->brokers[1].fencings = image->brokers[2].fencings = 1;
	CHECK(image_remove_broker(image, 3, true, &problem));
	CHECK_STR(show(image, 1, 0), "1.0>0 12 12 ");
	CHECK(image_remove_broker(image, 1, true, &problem));
	CHECK_STR(show(image, 1, 0), "2.1>0 2 2 ");
	CHECK_STR(image_fault(image), NULL);
}

static void
test_unclean(void)
{
	Image	   *image = cluster_of(4);

	add_topic(image, "t", 1, 3);
	CHECK(refused(image_elect_unclean(image, 1, 0, 2, &problem), IMAGE_NOT_NOW,
				  "partition 0 of topic \"t\" has a leader, broker 1"));
	CHECK(refused(image_elect_unclean(image, 1, 0, 4, &problem), IMAGE_INVALID,
				  "broker 4 has no replica of partition 0 of topic \"t\""));
	CHECK(refused(image_elect_unclean(image, 1, 1, 2, &problem), IMAGE_NO_SUCH_PARTITION,
				  "partition 1 of topic \"t\" does not exist"));
	CHECK(set_isr(image, 1, 0, 2, false) && set_isr(image, 1, 0, 3, false));
	CHECK(fence(image, 1) && fence(image, 2));
	CHECK(refused(image_elect_unclean(image, 1, 0, 2, &problem), IMAGE_NOT_NOW,
				  "broker 2 is not there"));
	CHECK(refused(image_elect_unclean(image, 1, 0, 1, &problem), IMAGE_NOT_NOW,
				  "broker 1 is not there"));
	CHECK_STR(show(image, 1, 0), "1.0>0 123 1 ");
	CHECK_INT(image_partition(image, 1, 0)->unclean_epoch, 0);
	CHECK(image_elect_unclean(image, 1, 0, 3, &problem));
	CHECK_STR(show(image, 1, 0), "3.1>0 123 3 ");
	CHECK_INT(image_partition(image, 1, 0)->unclean_epoch, 1);
	CHECK_STR(image_fault(image), NULL);
	CHECK(refused(image_elect_unclean(image, 1, 0, 3, &problem), IMAGE_NOT_NOW,
				  "partition 0 of topic \"t\" has a leader, broker 3"));

	/* who had everything is a follower now; a clean election does not count */
	CHECK(unfence(image, 1, 1));
	CHECK_STR(show(image, 1, 0), "3.1>0 123 3 ");
	CHECK(set_isr(image, 3, 1, 1, true) && fence(image, 3));
	CHECK_STR(show(image, 1, 0), "1.2>0 123 1 ");
	CHECK_INT(image_partition(image, 1, 0)->unclean_epoch, 1);
}

static void
test_prefer(void)
{
	Image	   *image = cluster_of(3);
	int32		there[] = {3, 1};

	add_topic(image, "t", 3, 3);
	image_prefer_leaders(image, &changed);
	CHECK(!changed);
	CHECK(fence(image, 1) && unfence(image, 1, 1) && fence(image, 2) && unfence(image, 2, 1));
	/* nobody is in sync with the new leaders yet */
	CHECK_STR(show(image, 1, 0), "2.2>0 123 2 ");
	CHECK_STR(show(image, 1, 1), "3.1>0 231 3 ");
	CHECK_STR(show(image, 1, 2), "3.0>0 312 3 ");
	image_prefer_leaders(image, &changed);
	CHECK(!changed);
	CHECK(set_isr(image, 2, 2, 1, true) && set_isr(image, 2, 2, 3, true) &&
		  image_change_isr(image, 1, 1, 3, 1, 2, true, &changed, &problem) && changed);

	/* not what something is under way with */
	CHECK(image_elect_leader(image, 1, 0, 3, &problem));
	image_prefer_leaders(image, &changed);
	CHECK(changed);
	CHECK_STR(show(image, 1, 0), "2.2>3 123 123 ");
	CHECK_STR(show(image, 1, 1), "3.1>2 231 23 ");
	CHECK_STR(show(image, 1, 2), "3.0>0 312 3 ");
	image_prefer_leaders(image, &changed);
	CHECK(!changed);
	CHECK(hand_over(image, 2, 2, true) && set_isr(image, 3, 3, 1, true));
	CHECK(image_move_partition(image, 1, 0, there, 2, &problem));
	image_prefer_leaders(image, &changed);
	CHECK(!changed);
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "3.3>0 31 31 ");
	/* who leaves is not preferred */
	CHECK(image_elect_leader(image, 1, 0, 1, &problem) && hand_over(image, 3, 3, true));
	CHECK(set_isr(image, 1, 4, 3, true));
	image->brokers[2].leaving = true;
	image_prefer_leaders(image, &changed);
	CHECK(!changed);
	image->brokers[2].leaving = false;
	image_prefer_leaders(image, &changed);
	CHECK(changed);
	CHECK_STR(show(image, 1, 0), "1.4>3 31 31 ");

	/* nobody leads: all of isr are not there, so is the preferred one */
	image = cluster_of(4);
	add_topic(image, "t", 1, 2);
	CHECK(set_isr(image, 1, 0, 2, true) && !changed);
	CHECK(image_elect_leader(image, 1, 0, 2, &problem) && hand_over(image, 1, 0, true));
	CHECK(set_isr(image, 2, 1, 1, true) && changed);
	image->brokers[0].fenced = image->brokers[1].fenced = true;
	image->brokers[0].fencings = image->brokers[1].fencings = 1;
	CHECK_STR(image_fault(image), NULL);
	image_prefer_leaders(image, &changed);
	CHECK(!changed);
}

/* New replicas, and such that are moved away, go to who is there, if there are enough. */
static void
test_places(void)
{
	Image	   *image = cluster_of(5);

	CHECK(fence(image, 1) && fence(image, 2));
	add_topic(image, "t", 3, 2);
	CHECK_STR(show(image, 1, 0), "3.0>0 34 34 ");
	CHECK_STR(show(image, 1, 1), "4.0>0 45 45 ");
	CHECK_STR(show(image, 1, 2), "5.0>0 53 53 ");
	/* not enough: those who are there are in sync */
	add_topic(image, "u", 1, 4);
	CHECK_STR(show(image, 2, 0), "3.0>0 1234 34 ");
	CHECK_STR(show_placed(image, 2, 0), "1: 1.1 2.1 3.1 4.1");
	CHECK_STR(image_fault(image), NULL);

	/* 1 and 2 have the fewest, but are not there */
	CHECK(image_remove_broker(image, 4, false, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "3.0>0 345 34 35");
	CHECK_STR(show(image, 1, 2), "5.0>0 53 53 ");
	CHECK_STR(show(image, 2, 0), "3.0>0 12345 34 1235");
	/* there is no other */
	CHECK_STR(show(image, 1, 1), "4.0>0 453 45 35");
	CHECK(image_remove_broker(image, 5, false, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "3.0>0 3451 34 31");
	CHECK_STR(show(image, 1, 1), "4.0>0 4532 45 32");
	/* the one of them with fewer */
	CHECK(unfence(image, 2, 1));
	CHECK_STR(show(image, 1, 2), "5.0>0 531 53 13");

	/* one that is gone: the same */
	image = cluster_of(4);
	add_topic(image, "t", 1, 2);
	add_topic(image, "load", 4, 1);
	CHECK(image_drop_topic(image, 2, &problem) && fence(image, 3));
	CHECK(image_move_partition(image, 1, 0, (int32[]) {1, 4}, 2, &problem));
	CHECK(fence(image, 4));
	CHECK(image_remove_broker(image, 4, true, &problem));
	CHECK_STR(show(image, 1, 0), "1.0>0 12 12 12");
	CHECK(image_move_partition(image, 1, 0, (int32[]) {1, 2}, 2, &problem));
	CHECK(image_remove_broker(image, 2, true, &problem));
	CHECK_STR(show(image, 1, 0), "1.0>0 13 1 13");
	CHECK_STR(image_fault(image), NULL);
}

static void
test_revisions(void)
{
	Image	   *image = cluster_of(3);
	Image	   *before;
	int32		id;

	add_topic(image, "t", 2, 2);
	before = image_parse(image_format(image));
	image_count_revisions(image, before);
	CHECK(image->partitions[0].revision == 0 && image->partitions[1].revision == 0);

	/* only what has changed, once for all that has */
#define REVISED(change, is_so) \
	do { \
		before = image_parse(image_format(image)); \
		CHECK(change); \
		image_count_revisions(image, before); \
		CHECK_INT(image->partitions[0].revision, before->partitions[0].revision + (is_so)); \
		CHECK_INT(image->partitions[1].revision, before->partitions[1].revision); \
	} while (0)

	REVISED(image_elect_leader(image, 1, 0, 2, &problem), 1);
	REVISED(set_isr(image, 1, 0, 2, false) && changed, 1);
	REVISED(set_isr(image, 1, 0, 2, false) && !changed, 0);
	REVISED(set_isr(image, 1, 0, 2, true) && changed, 1);
	REVISED(image_elect_leader(image, 1, 0, 2, &problem) && hand_over(image, 1, 0, true), 1);
	REVISED(image_move_partition(image, 1, 0, (int32[]) {2, 1}, 2, &problem), 1);
	REVISED((image_advance(image), true), 0);
	REVISED(set_isr(image, 2, 1, 1, true), 1);
	CHECK_STR(show(image, 1, 0), "2.1>0 21 21 ");
	REVISED(image_set_conninfo(image, 1, "x", &problem), 0);
	REVISED(image_add_broker(image, "y", &id, &problem), 0);
	REVISED(fence(image, 1), 1);
	REVISED(unfence(image, 1, 1), 0);
	image_partition(image, 1, 0)->unclean_epoch = 1;
	REVISED((image_partition(image, 1, 0)->unclean_epoch = 0) == 0, 1);
	REVISED((image_partition(image, 1, 0)->placements = 9) == 9, 1);
	/* a report that has no other effect than this */
	REVISED(image_partition(image, 1, 0)->revision++ >= 0, 1);
	REVISED(image_partition(image, 1, 0)->revision++ >= 0 && set_isr(image, 2, 1, 1, true) && changed, 1);

	/* a partition that is new, and one that was given away and came back as another */
	before = image_parse(image_format(image));
	CHECK(image_add_partitions(image, 1, 3, 0, 0, &problem));
	image_count_revisions(image, before);
	CHECK_INT(image->partitions[2].revision, 0);
	REVISED(image_move_partition(image, 1, 0, (int32[]) {2}, 1, &problem) && (image_advance(image), true) &&
			image_move_partition(image, 1, 0, (int32[]) {2, 1}, 2, &problem) && (image_advance(image), true), 1);
#undef REVISED
}

/* --- random sequences --- */

/* A change that may or may not be possible. */
static bool
random_change(Image *image)
{
	const ImagePartition *p = NULL;
	int32		topic = 1 + random_below(image->next_topic + 1);
	int32		number = random_below(4);
	int32		broker = 1 + random_below(image->next_broker + 1);
	int32		id;
	int32		list[IMAGE_BROKERS_MAX + 1];
	ImageTopic	options;

	if (image->partitions_count > 0 && random_below(10) > 0)
	{
		p = &image->partitions[random_below(image->partitions_count)];
		topic = p->topic;
		number = p->number;
	}
	if (random_below(4) > 0)
		broker = image->brokers[random_below(image->brokers_count)].id;
	switch (random_below(24))
	{
		case 0:
			return image->brokers_count < 9 && image_add_broker(image, "x", &id, &problem);
		case 1:
			return image_set_conninfo(image, broker, "y", &problem);
		case 2:
			return image_remove_broker(image, broker, random_below(2) == 0, &problem);
		case 3:
			options = topic_options(psprintf("t%d", random_below(9)), 1 + random_below(6),
									random_below(5));
			return image_add_topic(image, &options, random_below(99), random_below(99), &id, &problem);
		case 4:
			return image_add_partitions(image, topic, random_below(9), 3, 4, &problem);
		case 5:
			return random_below(4) == 0 && image_drop_topic(image, topic, &problem);
		case 6:
		case 7:
			for (int i = 0; i < 3; i++)
				list[i] = 1 + random_below(image->next_broker);
			return image_move_partition(image, topic, number, list, random_below(4), &problem);
		case 8:
		case 9:
			return image_elect_leader(image, topic, number, random_below(2) ? broker : 0, &problem);
		case 10:
		case 11:
		case 12:
			return image_hand_over(image, topic, number, p ? p->leader : 1, p ? p->leader_epoch : 0,
								   p ? p->successor : 1, random_below(4) > 0, &changed, &problem);
		case 13:
		case 14:
			return image_fence_broker(image, broker, &changed, &problem);
		case 15:
		case 16:
			return image_unfence_broker(image, broker, image->brokers[0].id == broker ?
										image->brokers[0].fencings : (int32) random_below(9), &changed, &problem);
		case 17:
			return image_elect_unclean(image, topic, number, broker, &problem);
		case 18:
			image_prefer_leaders(image, &changed);
			return true;
		default:
			return image_change_isr(image, topic, number, p ? p->leader : 1, p ? p->leader_epoch : 0,
									broker, random_below(4) > 0, &changed, &problem);
	}
}

/* Whether epochs are right after a change. */
static bool
epochs_grow(const Image *before, const Image *after)
{
	for (int i = 0; i < before->partitions_count; i++)
	{
		const ImagePartition *old = &before->partitions[i];
		const ImagePartition *new = image_partition(after, old->topic, old->number);
		bool		grows;

		if (new == NULL)
			continue;
		grows = new->leader_epoch > old->leader_epoch;
		if (new->leader_epoch != old->leader_epoch + grows || (new->leader != old->leader && !grows))
			return false;
		/* the same one leads anew when it is back */
		if (grows && new->leader == old->leader &&
			(!image_is_fenced(before, old->leader) || image_is_fenced(after, new->leader)))
			return false;
		if (new->unclean_epoch != old->unclean_epoch &&
			(new->unclean_epoch != new->leader_epoch || !grows))
			return false;
	}
	return true;
}

/* Whether those that stay keep their placements, and each one that comes gets a new one. */
static bool
placements_right(const Image *before, const Image *after)
{
	for (int i = 0; i < after->partitions_count; i++)
	{
		const ImagePartition *new = &after->partitions[i];
		const ImagePartition *old = image_partition(before, new->topic, new->number);
		int			come = 0;

		for (int r = 0; r < new->replicas_count; r++)
		{
			int32		broker = new->replicas[r];
			int32		placed = partition_placement(new, broker);

			if (old == NULL)
			{
				if (placed != 1)
					return false;
			}
			else if (!partition_has_replica(old, broker))
			{
				come++;
				if (placed <= old->placements)
					return false;
			}
			else if (placed != partition_placement(old, broker))
				return false;
		}
		if (new->placements != (old == NULL ? 1 : old->placements + come))
			return false;
	}
	return true;
}

/*
 * Whether new leaders are alone in sync, and have been in sync before or were elected
 * all the same; or nobody leads.
 */
static bool
leaders_right(const Image *before, const Image *after)
{
	for (int i = 0; i < before->partitions_count; i++)
	{
		const ImagePartition *old = &before->partitions[i];
		const ImagePartition *new = image_partition(after, old->topic, old->number);

		if (new == NULL || new->leader_epoch == old->leader_epoch)
			continue;
		if (new->unclean_epoch != new->leader_epoch && !partition_in_sync(old, new->leader))
			return false;
		if (new->unclean_epoch == new->leader_epoch && !image_is_fenced(before, old->leader))
			return false;
		if (new->isr_count != 1 && !image_is_fenced(after, new->leader))
			return false;
	}
	return true;
}

/* Whether a broker that has a replica was fenced. */
static bool
replica_was_fenced(const Image *before, const Image *after, const ImagePartition *partition)
{
	for (int i = 0; i < partition->replicas_count; i++)
	{
		const ImageBroker *old = image_broker(before, partition->replicas[i]);
		const ImageBroker *new = image_broker(after, partition->replicas[i]);

		if (old && new && new->fencings > old->fencings)
			return true;
	}
	return false;
}

/* Whether the revisions of those partitions have grown that are not as they were. */
static bool
revisions_right(const Image *before, const Image *after)
{
	for (int i = 0; i < before->partitions_count; i++)
	{
		const ImagePartition *old = &before->partitions[i];
		const ImagePartition *new = image_partition(after, old->topic, old->number);

		if (new != NULL && new->revision - old->revision !=
			(strcmp(show(before, old->topic, old->number), show(after, old->topic, old->number)) != 0 ||
			 strcmp(show_placed(before, old->topic, old->number),
					show_placed(after, old->topic, old->number)) != 0 ||
			 old->unclean_epoch != new->unclean_epoch ||
			 replica_was_fenced(before, after, old)))
			return false;
	}
	return true;
}

/* All are there, leaders do what they are asked, followers catch up; whether all moves end. */
static bool
moves_end(Image *image)
{
	for (int i = 0; i < image->brokers_count; i++)
		image_unfence_broker(image, image->brokers[i].id, image->brokers[i].fencings, &changed, &problem);
	for (int round = 0; round < 100; round++)
	{
		bool		under_way = false;

		for (int i = 0; i < image->partitions_count; i++)
		{
			ImagePartition *p = &image->partitions[i];

			under_way |= p->target_count > 0 || p->successor != 0;
			image_hand_over(image, p->topic, p->number, p->leader, p->leader_epoch, p->successor, true,
							&changed, &problem);
			for (int r = 0; r < p->replicas_count; r++)
				image_change_isr(image, p->topic, p->number, p->leader, p->leader_epoch,
								 p->replicas[r], true, &changed, &problem);
		}
		image_advance(image);
		if (!under_way)
		{
			for (int i = 0; i < image->brokers_count; i++)
				under_way |= image->brokers[i].leaving;
			return !under_way;
		}
	}
	return false;
}

static void
test_random(void)
{
	int			invalid = 0;
	int			lost = 0;
	int			epochs = 0;
	int			placements = 0;
	int			leaders = 0;
	int			revisions = 0;
	int			nobody_leads = 0;
	int			unclean = 0;
	int			refusals_that_change = 0;
	int			stuck = 0;
	int			done = 0;

	for (int sequence = 0; sequence < 200; sequence++)
	{
		Image	   *image = image_new("random");
		int32		id;

		image_add_broker(image, "first", &id, &problem);
		for (int i = 0; i < 200; i++)
		{
			char	   *before = image_format(image);
			bool		possible = random_change(image);
			char	   *after = image_format(image);

			done += possible;
			refusals_that_change += !possible && strcmp(before, after) != 0;
			invalid += image_fault(image) != NULL;
			image_advance(image);
			invalid += image_fault(image) != NULL;
			lost += !survives(image);
			epochs += !epochs_grow(image_parse(before), image);
			placements += !placements_right(image_parse(before), image);
			leaders += !leaders_right(image_parse(before), image);
			image_count_revisions(image, image_parse(before));
			revisions += !revisions_right(image_parse(before), image);
			for (int p = 0; p < image->partitions_count; p++)
			{
				nobody_leads += image_is_fenced(image, image->partitions[p].leader);
				unclean += image->partitions[p].unclean_epoch > 0;
			}
		}
		stuck += !moves_end(image);
		invalid += image_fault(image) != NULL;
	}
	CHECK_INT(invalid, 0);
	CHECK_INT(lost, 0);
	CHECK_INT(epochs, 0);
	CHECK_INT(placements, 0);
	CHECK_INT(leaders, 0);
	CHECK_INT(revisions, 0);
	CHECK_INT(refusals_that_change, 0);
	CHECK_INT(stuck, 0);
	CHECK(done > 10000 && nobody_leads > 1000 && unclean > 100);
}

/* A broker that is gone, and another one in its place. */
static void
test_replace(void)
{
	Image	   *image = cluster_of(4);
	int32		id;
	bool		changed;

	CHECK_INT(add_topic(image, "t", 4, 3), 1);
	/* replicas 123, 234, 341, 412 */
	CHECK(image_add_broker(image, "host=b2", &id, &problem) && id == 5);
	CHECK(image_move_partition(image, 1, 2, (int32[]) {2, 4}, 2, &problem));
	CHECK(image_move_partition(image, 1, 3, (int32[]) {2, 5, 1}, 3, &problem));
	CHECK(image_fence_broker(image, 2, &changed, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 0), "1.0>0 123 13 ");
	CHECK_STR(show(image, 1, 1), "3.1>0 234 3 ");
	CHECK_STR(show(image, 1, 2), "3.0>0 3412 341 24");
	CHECK_STR(show(image, 1, 3), "4.0>0 4125 41 251");

	CHECK(refused(image_replace_broker(image, 9, 5, &problem), IMAGE_NO_SUCH_BROKER, "broker 9 does not exist"));
	CHECK(refused(image_replace_broker(image, 2, 9, &problem), IMAGE_NO_SUCH_BROKER, "broker 9 does not exist"));
	CHECK(refused(image_replace_broker(image, 2, 2, &problem), IMAGE_INVALID, "broker 2 cannot take its own place"));
	CHECK(refused(image_replace_broker(image, 3, 5, &problem), IMAGE_NOT_NOW,
				  "broker 3 has the last replica in sync of some partitions"));

	/* where it was, unless it is to be there anyway */
	CHECK(image_replace_broker(image, 2, 5, &problem));
	CHECK_STR(image_fault(image), NULL);
	CHECK(image_broker(image, 2) == NULL);
	CHECK_STR(show(image, 1, 0), "1.0>0 135 13 153");
	CHECK_STR(show(image, 1, 1), "3.1>0 345 3 534");
	CHECK_STR(show(image, 1, 2), "3.0>0 3415 341 54");
	CHECK_STR(show(image, 1, 3), "4.0>0 415 41 51");

	/* and the preferred leader again */
	CHECK(image_change_isr(image, 1, 1, 3, 1, 4, true, &changed, &problem));
	CHECK(image_change_isr(image, 1, 1, 3, 1, 5, true, &changed, &problem));
	image_advance(image);
	CHECK_STR(show(image, 1, 1), "3.1>0 534 534 ");

	/* one that leaves takes nobody's place; what it has goes on to others */
	CHECK(image_remove_broker(image, 4, false, &problem));
	CHECK(refused(image_replace_broker(image, 3, 4, &problem), IMAGE_NOT_NOW, "broker 4 is leaving"));
}

int
main(void)
{
	test_topics();
	test_leaders();
	test_moves();
	test_leave();
	test_gone();
	test_replace();
	test_fence();
	test_fence_several();
	test_nobody_leads();
	test_unclean();
	test_prefer();
	test_places();
	test_revisions();
	test_random();
	return unit_done();
}
