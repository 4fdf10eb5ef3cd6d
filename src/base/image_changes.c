/*-------------------------------------------------------------------------
 *
 * image_changes.c
 *	  How the metadata of a cluster changes: topics, elections, and what leaders
 *	  report.
 *
 * Each change looks at everything that could be wrong first, and then cannot fail.
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#include "common/fe_memutils.h"
#else
#include "postgres.h"
#endif

#include "base/image.h"
#include "base/image_private.h"
#include "base/placement.h"

/* --- for all changes --- */

bool
image_refuse(ImageProblem *problem, ImageProblemKind kind,
			 char *message, char *detail, char *hint)
{
	problem->kind = kind;
	problem->message = message;
	problem->detail = detail;
	problem->hint = hint;
	return false;
}

ImageBroker *
image_need_broker(const Image *image, int32 id, ImageProblem *problem)
{
	ImageBroker *broker = image_broker(image, id);

	if (broker == NULL)
		image_refuse(problem, IMAGE_NO_SUCH_BROKER,
					 psprintf("broker %d does not exist", id), NULL, NULL);
	return broker;
}

ImageTopic *
image_need_topic(const Image *image, int32 id, ImageProblem *problem)
{
	ImageTopic *topic = image_topic(image, id);

	if (topic == NULL)
		image_refuse(problem, IMAGE_NO_SUCH_TOPIC,
					 psprintf("topic with id %d does not exist", id), NULL, NULL);
	return topic;
}

ImagePartition *
image_need_partition(const Image *image, int32 topic, int32 number, ImageProblem *problem)
{
	ImageTopic *of = image_need_topic(image, topic, problem);
	ImagePartition *partition;

	if (of == NULL)
		return NULL;
	partition = image_partition(image, topic, number);
	if (partition == NULL)
		image_refuse(problem, IMAGE_NO_SUCH_PARTITION,
					 psprintf("partition %d of topic \"%s\" does not exist", number, of->name),
					 psprintf("The topic has %d %s.", of->partitions,
							  of->partitions == 1 ? "partition" : "partitions"), NULL);
	return partition;
}

int
image_staying(const Image *image, int32 *ids)
{
	int			count = 0;

	for (int i = 0; i < image->brokers_count; i++)
	{
		if (!image->brokers[i].leaving)
			ids[count++] = image->brokers[i].id;
	}
	return count;
}

void
partition_order_isr(ImagePartition *partition)
{
	int32		ordered[IMAGE_BROKERS_MAX];
	int			count = 0;

	for (int i = 0; i < partition->replicas_count; i++)
	{
		if (partition_in_sync(partition, partition->replicas[i]))
			ordered[count++] = partition->replicas[i];
	}
	memcpy(partition->isr, ordered, sizeof(int32) * count);
	partition->isr_count = count;
}

void
partition_leave_isr(ImagePartition *partition, int32 broker)
{
	int			kept = 0;

	for (int i = 0; i < partition->isr_count; i++)
	{
		if (partition->isr[i] != broker)
			partition->isr[kept++] = partition->isr[i];
	}
	partition->isr_count = kept;
	if (partition->successor == broker)
		partition_stop_handover(partition);
}

void
partition_set_leader(ImagePartition *partition, int32 leader)
{
	partition->leader = leader;
	partition->leader_epoch++;
	/* who was to hand over does not lead any more */
	partition->successor = 0;
	partition->isr[0] = leader;
	partition->isr_count = 1;
}

void
partition_replace_leader(const Image *image, ImagePartition *partition)
{
	const ImageBroker *best = NULL;

	for (int i = 0; i < partition->isr_count; i++)
	{
		const ImageBroker *broker = image_broker(image, partition->isr[i]);

		if (broker && !broker->fenced && (best == NULL || (best->suspect && !broker->suspect)))
			best = broker;
	}
	if (best)
	{
		partition_set_leader(partition, best->id);
		return;
	}
	partition->successor = 0;
	if (!partition_in_sync(partition, partition->leader))
	{
		partition->leader = partition->isr[0];
		partition->leader_epoch++;
	}
}

/*
 * The leader's report on the handover that was called off may be on its way.  So
 * that it is not taken to be about another successor, the next one is not chosen
 * in the same change.
 */
void
partition_stop_handover(ImagePartition *partition)
{
	if (partition->successor != 0)
	{
		partition->successor = 0;
		partition->handover_stopped = true;
	}
}

void *
image_resize(void *array, Size size)
{
	return array == NULL ? palloc(size) : repalloc(array, size);
}

static char *
copy_or_null(const char *string)
{
	return string == NULL ? NULL : pstrdup(string);
}

/* --- topics --- */

static bool
check_replication_factor(int factor, int staying, ImageProblemKind kind, ImageProblem *problem)
{
	if (factor >= 1 && factor <= staying)
		return true;
	return image_refuse(problem, kind,
						psprintf("replication factor %d is not possible with %d %s",
								 factor, staying, staying == 1 ? "broker" : "brokers"),
						pstrdup("A partition has at least one and at most as many replicas as there are brokers that are not leaving."),
						NULL);
}

static bool
check_min_insync(int min_insync, int factor, ImageProblem *problem)
{
	/* 0 is none given */
	if (min_insync >= 0 && min_insync <= factor)
		return true;
	return image_refuse(problem, IMAGE_INVALID,
						psprintf("min_insync_replicas must be between 1 and %d, not %d",
								 factor, min_insync),
						pstrdup("It cannot exceed the topic's replication factor."), NULL);
}

/* Where new replicas go: not to who is fenced, if there are enough others. */
static int
brokers_for(const Image *image, int factor, int32 *brokers)
{
	int			staying = image_staying(image, brokers);
	int			count = 0;

	for (int i = 0; i < staying; i++)
		count += !image_is_fenced(image, brokers[i]);
	if (count < factor)
		return staying;
	count = 0;
	for (int i = 0; i < staying; i++)
	{
		if (!image_is_fenced(image, brokers[i]))
			brokers[count++] = brokers[i];
	}
	return count;
}

/*
 * Who leads a new partition, and is in sync, since there is nothing that it could miss:
 * all of its replicas, or those that are there.
 */
static void
begin_in_sync(const Image *image, ImagePartition *partition)
{
	for (int i = 0; i < partition->replicas_count; i++)
	{
		if (!image_is_fenced(image, partition->replicas[i]))
			partition->isr[partition->isr_count++] = partition->replicas[i];
	}
	if (partition->isr_count == 0)
	{
		memcpy(partition->isr, partition->replicas, sizeof(partition->isr));
		partition->isr_count = partition->replicas_count;
	}
	partition->leader = partition->isr[0];
}

/* Makes the partitions of a topic from the number that it has up to total. */
static void
make_partitions(Image *image, ImageTopic *topic, int32 total, uint32 start, uint32 shift)
{
	int32		brokers[IMAGE_BROKERS_MAX];
	int			brokers_count = brokers_for(image, topic->replication_factor, brokers);
	int			at = partition_lower_bound(image, topic->id, topic->partitions);
	int			more = total - topic->partitions;

	image->partitions = image_resize(image->partitions,
							   sizeof(ImagePartition) * ((Size) image->partitions_count + more));
	memmove(&image->partitions[at + more], &image->partitions[at],
			sizeof(ImagePartition) * (image->partitions_count - at));
	image->partitions_count += more;

	for (int i = 0; i < more; i++)
	{
		ImagePartition *partition = &image->partitions[at + i];
		int			factor = topic->replication_factor;

		memset(partition, 0, sizeof(*partition));
		partition->topic = topic->id;
		partition->number = topic->partitions + i;
		place_replicas(brokers, brokers_count, factor, start, shift,
					   partition->number, partition->replicas);
		partition->replicas_count = factor;
		begin_in_sync(image, partition);
		partition->placements = 1;
		for (int r = 0; r < factor; r++)
			partition->placed[r] = 1;
	}
	topic->partitions = total;
}

bool
image_add_topic(Image *image, const ImageTopic *topic, uint32 start, uint32 shift,
				int32 *id, ImageProblem *problem)
{
	int32		brokers[IMAGE_BROKERS_MAX];
	ImageTopic *added;

	if (image_topic_by_name(image, topic->name) != NULL)
		return image_refuse(problem, IMAGE_DUPLICATE_TOPIC,
							psprintf("topic \"%s\" already exists", topic->name), NULL, NULL);
	if (topic->partitions < 1)
		return image_refuse(problem, IMAGE_INVALID,
							psprintf("a topic cannot have %d partitions", topic->partitions),
							NULL, NULL);
	if (!check_replication_factor(topic->replication_factor, image_staying(image, brokers),
								  IMAGE_INVALID, problem) ||
		!check_min_insync(topic->min_insync_replicas, topic->replication_factor, problem))
		return false;
	if (image->next_topic == PG_INT32_MAX)
		return image_refuse(problem, IMAGE_NOT_NOW,
							pstrdup("there are no more ids for topics"), NULL, NULL);

	image->topics = image_resize(image->topics, sizeof(ImageTopic) * ((Size) image->topics_count + 1));
	added = &image->topics[image->topics_count++];
	*added = *topic;
	added->id = image->next_topic++;
	added->name = pstrdup(topic->name);
	added->owner = pstrdup(topic->owner);
	added->retention = copy_or_null(topic->retention);
	added->value_format = pstrdup(topic->value_format);
	added->created_at = pstrdup(topic->created_at);
	added->partitions = 0;
	make_partitions(image, added, topic->partitions, start, shift);
	*id = added->id;
	return true;
}

bool
image_alter_topic(Image *image, const ImageTopic *topic, ImageProblem *problem)
{
	ImageTopic *altered = image_need_topic(image, topic->id, problem);

	if (altered == NULL ||
		!check_min_insync(topic->min_insync_replicas, altered->replication_factor, problem))
		return false;
	altered->owner = pstrdup(topic->owner);
	altered->retention = copy_or_null(topic->retention);
	altered->retention_bytes = topic->retention_bytes;
	altered->segment_messages = topic->segment_messages;
	altered->max_message_bytes = topic->max_message_bytes;
	altered->min_insync_replicas = topic->min_insync_replicas;
	return true;
}

bool
image_add_partitions(Image *image, int32 id, int32 total, uint32 start, uint32 shift,
					 ImageProblem *problem)
{
	int32		brokers[IMAGE_BROKERS_MAX];
	ImageTopic *topic = image_need_topic(image, id, problem);

	if (topic == NULL)
		return false;
	if (total <= topic->partitions)
		return image_refuse(problem, IMAGE_INVALID,
							psprintf("topic \"%s\" has %d partitions already",
									 topic->name, topic->partitions),
							pstrdup("The number of partitions can only grow."), NULL);
	if (!check_replication_factor(topic->replication_factor, image_staying(image, brokers),
								  IMAGE_NOT_NOW, problem))
		return false;
	make_partitions(image, topic, total, start, shift);
	return true;
}

bool
image_drop_topic(Image *image, int32 id, ImageProblem *problem)
{
	ImageTopic *topic = image_need_topic(image, id, problem);
	int			first;
	int			count;

	if (topic == NULL)
		return false;
	first = partition_lower_bound(image, id, 0);
	count = topic->partitions;
	memmove(&image->partitions[first], &image->partitions[first + count],
			sizeof(ImagePartition) * (image->partitions_count - first - count));
	image->partitions_count -= count;
	memmove(topic, topic + 1,
			sizeof(ImageTopic) * (&image->topics[image->topics_count] - (topic + 1)));
	image->topics_count--;
	return true;
}

/* --- leaders --- */

bool
image_elect_leader(Image *image, int32 topic, int32 number, int32 broker,
				   ImageProblem *problem)
{
	ImagePartition *partition = image_need_partition(image, topic, number, problem);

	if (partition == NULL)
		return false;
	if (broker == 0)
		broker = partition->replicas[0];
	if (image_is_fenced(image, partition->leader))
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("partition %d of topic \"%s\" has no leader that could hand over",
									 number, image_topic(image, topic)->name),
							pstrdup("None of its in-sync replicas is there."),
							pstrdup("It has a leader when one of them is back. To lose what only they have, name another replica, and unclean => true."));
	if (broker == partition->leader || broker == partition->successor)
		return true;
	if (!partition_has_replica(partition, broker))
		return image_refuse(problem, IMAGE_INVALID,
							psprintf("broker %d has no replica of partition %d of topic \"%s\"",
									 broker, number, image_topic(image, topic)->name),
							NULL, NULL);
	if (!partition_in_sync(partition, broker))
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("the replica of partition %d of topic \"%s\" at broker %d is not in sync",
									 number, image_topic(image, topic)->name, broker),
							NULL, pstrdup("Wait until it has caught up with the leader."));
	if (partition->successor != 0)
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("the leader of partition %d of topic \"%s\" is handing over to broker %d",
									 number, image_topic(image, topic)->name, partition->successor),
							NULL, pstrdup("Try again when it has."));
	partition->successor = broker;
	return true;
}

bool
image_elect_unclean(Image *image, int32 topic, int32 number, int32 broker, ImageProblem *problem)
{
	ImagePartition *partition = image_need_partition(image, topic, number, problem);

	if (partition == NULL)
		return false;
	if (!partition_has_replica(partition, broker))
		return image_refuse(problem, IMAGE_INVALID,
							psprintf("broker %d has no replica of partition %d of topic \"%s\"",
									 broker, number, image_topic(image, topic)->name),
							NULL, NULL);
	if (!image_is_fenced(image, partition->leader))
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("partition %d of topic \"%s\" has a leader, broker %d",
									 number, image_topic(image, topic)->name, partition->leader),
							NULL, pstrdup("An election that loses messages is for partitions whose in-sync replicas are all gone."));
	if (image_is_fenced(image, broker))
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("broker %d is not there", broker), NULL, NULL);
	partition_set_leader(partition, broker);
	partition->unclean_epoch = partition->leader_epoch;
	return true;
}

void
image_prefer_leaders(Image *image, bool *changed)
{
	*changed = false;
	for (int p = 0; p < image->partitions_count; p++)
	{
		ImagePartition *partition = &image->partitions[p];
		int32		preferred = partition->replicas[0];

		if (partition->leader == preferred || partition->successor != 0 || partition->target_count > 0 ||
			!partition_in_sync(partition, preferred) || image_is_fenced(image, preferred) ||
			image_broker(image, preferred)->leaving)
			continue;
		partition->successor = preferred;
		*changed = true;
	}
}

static bool
is_leader(const ImagePartition *partition, int32 leader, int32 leader_epoch)
{
	return partition->leader == leader && partition->leader_epoch == leader_epoch;
}

bool
image_change_isr(Image *image, int32 topic, int32 number, int32 leader,
				 int32 leader_epoch, int32 broker, bool in_sync,
				 bool *changed, ImageProblem *problem)
{
	ImagePartition *partition = image_need_partition(image, topic, number, problem);

	*changed = false;
	if (partition == NULL)
		return false;
	if (!is_leader(partition, leader, leader_epoch) ||
		partition_in_sync(partition, broker) == in_sync)
		return true;
	if (broker == leader)
		return image_refuse(problem, IMAGE_INVALID,
							psprintf("the leader of partition %d of topic \"%s\" is always in sync",
									 number, image_topic(image, topic)->name),
							NULL, NULL);
	if (in_sync && !partition_has_replica(partition, broker))
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("broker %d has no replica of partition %d of topic \"%s\"",
									 broker, number, image_topic(image, topic)->name),
							NULL, NULL);
	/* the leader is not fenced, or it has not heard of it: it goes on when it is back */
	if (image_is_fenced(image, leader) || image_is_fenced(image, broker))
		return true;

	if (in_sync)
	{
		partition->isr[partition->isr_count++] = broker;
		partition_order_isr(partition);
	}
	else
		partition_leave_isr(partition, broker);
	*changed = true;
	return true;
}

bool
image_hand_over(Image *image, int32 topic, int32 number, int32 leader,
				int32 leader_epoch, int32 successor, bool done, bool *changed,
				ImageProblem *problem)
{
	ImagePartition *partition = image_need_partition(image, topic, number, problem);

	*changed = false;
	if (partition == NULL)
		return false;
	if (!is_leader(partition, leader, leader_epoch) || successor == 0 ||
		partition->successor != successor)
		return true;
	if (done)
		partition_set_leader(partition, successor);
	else
		partition_stop_handover(partition);
	*changed = true;
	return true;
}
