/*-------------------------------------------------------------------------
 *
 * image.c
 *	  The metadata of a cluster: what it is made of, and whether it is valid.
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#include "common/fe_memutils.h"
#else
#include "postgres.h"
#endif

#include "lib/stringinfo.h"

#include "base/image.h"
#include "base/image_private.h"

Image *
image_new(const char *cluster_id)
{
	Image	   *image = palloc0(sizeof(Image));

	image->cluster_id = pstrdup(cluster_id);
	image->next_broker = 1;
	image->next_topic = 1;
	return image;
}

/* --- finding things --- */

bool
list_has(const int32 *list, int count, int32 id)
{
	for (int i = 0; i < count; i++)
	{
		if (list[i] == id)
			return true;
	}
	return false;
}

ImageBroker *
image_broker(const Image *image, int32 id)
{
	for (int i = 0; i < image->brokers_count; i++)
	{
		if (image->brokers[i].id == id)
			return &image->brokers[i];
	}
	return NULL;
}

bool
image_is_fenced(const Image *image, int32 broker)
{
	const ImageBroker *found = image_broker(image, broker);

	return found != NULL && found->fenced;
}

ImageTopic *
image_topic(const Image *image, int32 id)
{
	int			low = 0;
	int			high = image->topics_count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (image->topics[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < image->topics_count && image->topics[low].id == id)
		return &image->topics[low];
	return NULL;
}

ImageTopic *
image_topic_by_name(const Image *image, const char *name)
{
	for (int i = 0; i < image->topics_count; i++)
	{
		if (strcmp(image->topics[i].name, name) == 0)
			return &image->topics[i];
	}
	return NULL;
}

int
partition_lower_bound(const Image *image, int32 topic, int32 number)
{
	int			low = 0;
	int			high = image->partitions_count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		const ImagePartition *partition = &image->partitions[middle];

		if (partition->topic < topic ||
			(partition->topic == topic && partition->number < number))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

ImagePartition *
image_partition(const Image *image, int32 topic, int32 number)
{
	int			i = partition_lower_bound(image, topic, number);

	if (i < image->partitions_count &&
		image->partitions[i].topic == topic && image->partitions[i].number == number)
		return &image->partitions[i];
	return NULL;
}

bool
partition_has_replica(const ImagePartition *partition, int32 broker)
{
	return list_has(partition->replicas, partition->replicas_count, broker);
}

bool
partition_in_sync(const ImagePartition *partition, int32 broker)
{
	return list_has(partition->isr, partition->isr_count, broker);
}

int32
partition_placement(const ImagePartition *partition, int32 broker)
{
	for (int i = 0; i < partition->replicas_count; i++)
	{
		if (partition->replicas[i] == broker)
			return partition->placed[i];
	}
	return 0;
}

int
topic_min_insync(const ImageTopic *topic)
{
	if (topic->min_insync_replicas > 0)
		return topic->min_insync_replicas;
	return topic->replication_factor / 2 + topic->replication_factor % 2;
}

/* --- validity --- */

static char *
brokers_fault(const Image *image)
{
	if (image->brokers_count < 0 || image->brokers_count > IMAGE_BROKERS_MAX)
		return psprintf("%d brokers", image->brokers_count);
	for (int i = 0; i < image->brokers_count; i++)
	{
		const ImageBroker *broker = &image->brokers[i];

		if (broker->id <= (i > 0 ? image->brokers[i - 1].id : 0))
			return psprintf("broker %d is out of order", broker->id);
		if (broker->id >= image->next_broker)
			return psprintf("broker %d has an id that is yet to be given", broker->id);
		if (broker->conninfo == NULL)
			return psprintf("broker %d has no conninfo", broker->id);
		if (broker->fencings < 0 || broker->fencings == PG_INT32_MAX ||
			(broker->fenced && broker->fencings == 0))
			return psprintf("broker %d was fenced %d times", broker->id, broker->fencings);
	}
	return NULL;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

static char *
names_fault(const Image *image)
{
	char	  **names = palloc(sizeof(char *) * (image->topics_count + 1));
	char	   *fault = NULL;

	for (int i = 0; i < image->topics_count; i++)
		names[i] = image->topics[i].name;
	qsort(names, image->topics_count, sizeof(char *), compare_names);
	for (int i = 1; i < image->topics_count && fault == NULL; i++)
	{
		if (strcmp(names[i - 1], names[i]) == 0)
			fault = psprintf("two topics have the name \"%s\"", names[i]);
	}
	pfree(names);
	return fault;
}

static char *
topics_fault(const Image *image)
{
	for (int i = 0; i < image->topics_count; i++)
	{
		const ImageTopic *topic = &image->topics[i];

		if (topic->id <= (i > 0 ? image->topics[i - 1].id : 0))
			return psprintf("topic %d is out of order", topic->id);
		if (topic->id >= image->next_topic)
			return psprintf("topic %d has an id that is yet to be given", topic->id);
		if (topic->name == NULL || topic->name[0] == '\0' || topic->owner == NULL ||
			topic->value_format == NULL || topic->created_at == NULL)
			return psprintf("topic %d lacks a text", topic->id);
		if (topic->partitions < 1 ||
			topic->replication_factor < 1 || topic->replication_factor > IMAGE_BROKERS_MAX ||
			topic->min_insync_replicas < 0 ||
			topic->min_insync_replicas > topic->replication_factor ||
			topic->retention_bytes < -1 || topic->segment_messages < 1 ||
			topic->max_message_bytes < 1)
			return psprintf("a number of topic %d is out of range", topic->id);
	}
	return names_fault(image);
}

/* Whether all of a list are different, and in another list. */
static bool
is_subset(const int32 *list, int count, const int32 *whole, int whole_count)
{
	for (int i = 0; i < count; i++)
	{
		if (list_has(list, i, list[i]) || !list_has(whole, whole_count, list[i]))
			return false;
	}
	return true;
}

static const char *
partition_fault(const Image *image, const ImagePartition *partition)
{
	if (partition->replicas_count < 1 || partition->replicas_count > IMAGE_BROKERS_MAX ||
		partition->isr_count < 1 || partition->isr_count > IMAGE_BROKERS_MAX ||
		partition->target_count < 0 || partition->target_count > IMAGE_BROKERS_MAX)
		return "count of replicas";
	for (int i = 0; i < partition->replicas_count; i++)
	{
		if (list_has(partition->replicas, i, partition->replicas[i]) ||
			image_broker(image, partition->replicas[i]) == NULL)
			return "replicas";
	}
	/* what one change adds does not overflow */
	if (partition->placements > PG_INT32_MAX - IMAGE_BROKERS_MAX)
		return "count of placements";
	for (int i = 0; i < partition->replicas_count; i++)
	{
		int32		placed = partition->placed[i];

		if (placed < 1 || placed > partition->placements ||
			(placed > 1 && list_has(partition->placed, i, placed)))
			return "placement";
	}
	if (!is_subset(partition->isr, partition->isr_count,
				   partition->replicas, partition->replicas_count))
		return "isr";
	if (!is_subset(partition->target, partition->target_count,
				   partition->replicas, partition->replicas_count))
		return "target";
	if (!partition_in_sync(partition, partition->leader))
		return "leader";
	for (int i = 1; i < partition->isr_count; i++)
	{
		if (image_is_fenced(image, partition->isr[i]) != image_is_fenced(image, partition->isr[0]))
			return "isr";
	}
	if (partition->unclean_epoch < 0 || partition->unclean_epoch > partition->leader_epoch)
		return "unclean epoch";
	if (partition->revision < 0 || partition->revision == PG_INT32_MAX)
		return "revision";
	if (partition->leader_epoch < 0 || partition->leader_epoch == PG_INT32_MAX)
		return "leader epoch";
	if (partition->successor != 0 &&
		(partition->successor == partition->leader ||
		 !partition_in_sync(partition, partition->successor)))
		return "successor";
	return NULL;
}

static char *
partitions_fault(const Image *image)
{
	int			i = 0;

	for (int t = 0; t < image->topics_count; t++)
	{
		const ImageTopic *topic = &image->topics[t];

		for (int32 number = 0; number < topic->partitions; number++, i++)
		{
			const ImagePartition *partition = &image->partitions[i];
			const char *fault;

			if (i >= image->partitions_count ||
				partition->topic != topic->id || partition->number != number)
				return psprintf("partition %d of topic %d is not there", number, topic->id);
			fault = partition_fault(image, partition);
			if (fault != NULL)
				return psprintf("wrong %s of partition %d of topic %d", fault, number, topic->id);
		}
	}
	if (i != image->partitions_count)
		return pstrdup("there are partitions of no topic");
	return NULL;
}

char *
image_fault(const Image *image)
{
	char	   *fault;

	if (image->cluster_id == NULL)
		return pstrdup("the cluster has no id");
	fault = brokers_fault(image);
	if (fault == NULL)
		fault = topics_fault(image);
	if (fault == NULL)
		fault = partitions_fault(image);
	return fault;
}
