/*-------------------------------------------------------------------------
 *
 * image_moves.c
 *	  How replicas get from one broker to another, and brokers leave.
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

/* Where a partition's replicas are, or are to be. */
static const int32 *
destination(const ImagePartition *partition, int *count)
{
	*count = partition->target_count > 0 ? partition->target_count : partition->replicas_count;
	return partition->target_count > 0 ? partition->target : partition->replicas;
}

static int
list_without(int32 *list, int count, int32 id)
{
	int			kept = 0;

	for (int i = 0; i < count; i++)
	{
		if (list[i] != id)
			list[kept++] = list[i];
	}
	return kept;
}

static void
set_target(ImagePartition *partition, const int32 *target, int count)
{
	/* may be the same */
	memmove(partition->target, target, sizeof(int32) * count);
	partition->target_count = count;
	for (int i = 0; i < count; i++)
	{
		if (!partition_has_replica(partition, target[i]))
		{
			partition->placed[partition->replicas_count] = ++partition->placements;
			partition->replicas[partition->replicas_count++] = target[i];
		}
	}
}

/* Replicas become what is a part of them, maybe in another order. */
static void
keep_replicas(ImagePartition *partition, const int32 *kept, int count)
{
	int32		placed[IMAGE_BROKERS_MAX];

	for (int i = 0; i < count; i++)
		placed[i] = partition_placement(partition, kept[i]);
	memcpy(partition->replicas, kept, sizeof(int32) * count);
	memcpy(partition->placed, placed, sizeof(int32) * count);
	partition->replicas_count = count;
}

/* How many replicas each broker has, or is to have. */
typedef struct Load
{
	int			brokers_count;	/* those that can get replicas */
	int32		brokers[IMAGE_BROKERS_MAX];
	bool		fenced[IMAGE_BROKERS_MAX];
	int			replicas[IMAGE_BROKERS_MAX];
} Load;

static void
load_count(Load *load, const Image *image)
{
	memset(load, 0, sizeof(*load));
	load->brokers_count = image_staying(image, load->brokers);
	for (int i = 0; i < load->brokers_count; i++)
		load->fenced[i] = image_is_fenced(image, load->brokers[i]);
	for (int p = 0; p < image->partitions_count; p++)
	{
		int			count;
		const int32 *list = destination(&image->partitions[p], &count);

		for (int i = 0; i < load->brokers_count; i++)
			load->replicas[i] += list_has(list, count, load->brokers[i]);
	}
}

/* Whether a replica goes to the one rather than to the other. */
static bool
is_better(const Load *load, int a, int b)
{
	/* who is fenced may never come back, and until then the move does not end */
	if (load->fenced[a] != load->fenced[b])
		return load->fenced[b];
	return load->replicas[a] < load->replicas[b];
}

/*
 * Has a replica go to the broker with the fewest that is to have none of the
 * partition; to one that is fenced only if there is no other.  Where there is
 * none, the partition gets by with one replica fewer.
 */
static void
move_away(ImagePartition *partition, int32 broker, Load *load)
{
	int32		target[IMAGE_BROKERS_MAX];
	int			count;
	const int32 *list = destination(partition, &count);
	int			best = -1;

	for (int i = 0; i < load->brokers_count; i++)
	{
		if (!list_has(list, count, load->brokers[i]) &&
			(best < 0 || is_better(load, i, best)))
			best = i;
	}
	memcpy(target, list, sizeof(int32) * count);
	if (best < 0)
		count = list_without(target, count, broker);
	else
	{
		/* in its place, which may be that of the preferred leader */
		for (int i = 0; i < count; i++)
		{
			if (target[i] == broker)
				target[i] = load->brokers[best];
		}
		load->replicas[best]++;
	}
	set_target(partition, target, count);
}

/* Moves away what a broker that is not to get any more replicas has. */
static void
move_all_away(Image *image, int32 broker, Load *load)
{
	for (int p = 0; p < image->partitions_count; p++)
	{
		int			count;
		const int32 *list = destination(&image->partitions[p], &count);

		if (list_has(list, count, broker))
			move_away(&image->partitions[p], broker, load);
	}
}

static void
delete_broker(Image *image, int i)
{
	memmove(&image->brokers[i], &image->brokers[i + 1],
			sizeof(ImageBroker) * (image->brokers_count - i - 1));
	image->brokers_count--;
}

/* Has a replica go to a certain broker, or nowhere if that one has, or is to have, one. */
static void
move_to(ImagePartition *partition, int32 broker, int32 replacement)
{
	int32		target[IMAGE_BROKERS_MAX];
	int			count;
	const int32 *list = destination(partition, &count);

	if (!list_has(list, count, broker))
		return;
	memcpy(target, list, sizeof(int32) * count);
	if (list_has(target, count, replacement))
		count = list_without(target, count, broker);
	for (int i = 0; i < count; i++)
	{
		if (target[i] == broker)
			target[i] = replacement;
	}
	set_target(partition, target, count);
}

/* What a broker has that is not there any more.  replacement 0: none. */
static void
take_out_of_partition(const Image *image, ImagePartition *partition, int32 broker, int32 replacement,
					  Load *load)
{
	int32		kept[IMAGE_BROKERS_MAX];

	/* what was on its way to it goes elsewhere */
	if (replacement != 0)
		move_to(partition, broker, replacement);
	else if (list_has(partition->target, partition->target_count, broker))
		move_away(partition, broker, load);
	memcpy(kept, partition->replicas, sizeof(kept));
	keep_replicas(partition, kept, list_without(kept, partition->replicas_count, broker));
	partition->isr_count = list_without(partition->isr, partition->isr_count, broker);
	if (partition->successor == broker)
		partition_stop_handover(partition);
	if (partition->leader == broker)
		partition_replace_leader(image, partition);
}

static bool
take_out_gone(Image *image, ImageBroker *broker, int32 replacement, ImageProblem *problem)
{
	int32		id = broker->id;
	Load		load;

	for (int p = 0; p < image->partitions_count; p++)
	{
		const ImagePartition *partition = &image->partitions[p];

		if (partition->isr_count == 1 && partition->isr[0] == id)
			return image_refuse(problem, IMAGE_NOT_NOW,
								psprintf("broker %d has the last replica in sync of some partitions", id),
								psprintf("One of them is partition %d of topic \"%s\".", partition->number,
										 image_topic(image, partition->topic)->name),
								NULL);
	}
	delete_broker(image, broker - image->brokers);
	load_count(&load, image);
	for (int p = 0; p < image->partitions_count; p++)
		take_out_of_partition(image, &image->partitions[p], id, replacement, &load);
	return true;
}

/* Whether there is such a broker, and another one that stays. */
static ImageBroker *
need_broker_to_remove(const Image *image, int32 id, ImageProblem *problem)
{
	ImageBroker *broker = image_need_broker(image, id, problem);
	int32		staying[IMAGE_BROKERS_MAX];

	if (broker && !broker->leaving && image_staying(image, staying) == 1)
	{
		image_refuse(problem, IMAGE_NOT_NOW,
					 psprintf("broker %d is the last one that is not leaving", id),
					 NULL, pstrdup("Add another broker first."));
		return NULL;
	}
	return broker;
}

bool
image_remove_broker(Image *image, int32 id, bool gone, ImageProblem *problem)
{
	ImageBroker *broker = need_broker_to_remove(image, id, problem);
	Load		load;

	if (broker == NULL)
		return false;
	if (gone)
		return take_out_gone(image, broker, 0, problem);

	/*
	 * There is another broker to go to, so what has a single replica does not
	 * lose it.
	 */
	broker->leaving = true;
	load_count(&load, image);
	move_all_away(image, id, &load);
	return true;
}

bool
image_replace_broker(Image *image, int32 id, int32 replacement, ImageProblem *problem)
{
	ImageBroker *broker = need_broker_to_remove(image, id, problem);
	ImageBroker *other = broker ? image_need_broker(image, replacement, problem) : NULL;

	if (other == NULL)
		return false;
	if (replacement == id)
		return image_refuse(problem, IMAGE_INVALID,
							psprintf("broker %d cannot take its own place", id), NULL, NULL);
	if (other->leaving)
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("broker %d is leaving", replacement), NULL, NULL);
	return take_out_gone(image, broker, replacement, problem);
}

bool
image_move_partition(Image *image, int32 topic, int32 number,
					 const int32 *replicas, int count, ImageProblem *problem)
{
	ImagePartition *partition = image_need_partition(image, topic, number, problem);

	if (partition == NULL)
		return false;
	if (count < 1 || count > IMAGE_BROKERS_MAX)
		return image_refuse(problem, IMAGE_INVALID,
							psprintf("a partition cannot have %d replicas", count), NULL, NULL);
	for (int i = 0; i < count; i++)
	{
		ImageBroker *broker = image_need_broker(image, replicas[i], problem);

		if (broker == NULL)
			return false;
		if (list_has(replicas, i, replicas[i]))
			return image_refuse(problem, IMAGE_INVALID,
								psprintf("broker %d is named twice", replicas[i]),
								pstrdup("The replicas of a partition are at different brokers."), NULL);
		if (broker->leaving)
			return image_refuse(problem, IMAGE_NOT_NOW,
								psprintf("broker %d is leaving", replicas[i]), NULL, NULL);
	}
	set_target(partition, replicas, count);
	return true;
}

/* --- what follows --- */

static bool
target_in_sync(const ImagePartition *partition)
{
	for (int i = 0; i < partition->target_count; i++)
	{
		if (!partition_in_sync(partition, partition->target[i]))
			return false;
	}
	return true;
}

static void
finish_move(ImagePartition *partition)
{
	keep_replicas(partition, partition->target, partition->target_count);
	partition->target_count = 0;
	partition_order_isr(partition);
}

static bool
same_list(const int32 *list, int count, const int32 *other, int other_count)
{
	return count == other_count && memcmp(list, other, sizeof(int32) * count) == 0;
}

static bool
same_partition(const ImagePartition *a, const ImagePartition *b)
{
	return a->leader == b->leader && a->leader_epoch == b->leader_epoch &&
		a->unclean_epoch == b->unclean_epoch && a->successor == b->successor &&
		a->placements == b->placements &&
		same_list(a->replicas, a->replicas_count, b->replicas, b->replicas_count) &&
		same_list(a->placed, a->replicas_count, b->placed, b->replicas_count) &&
		same_list(a->isr, a->isr_count, b->isr, b->isr_count) &&
		same_list(a->target, a->target_count, b->target, b->target_count);
}

static void
advance_partition(const Image *image, ImagePartition *partition)
{
	bool		stopped = partition->handover_stopped;

	partition->handover_stopped = false;
	if (partition->target_count == 0 || !target_in_sync(partition))
		return;
	if (list_has(partition->target, partition->target_count, partition->leader))
	{
		/* one that is handing over to a broker outside has to end that first */
		if (partition->successor == 0 ||
			list_has(partition->target, partition->target_count, partition->successor))
			finish_move(partition);
	}
	else if (partition->successor == 0 && !stopped && !image_is_fenced(image, partition->leader))
		partition->successor = partition->target[0];
}

void
image_count_revisions(Image *image, const Image *before)
{
	for (int p = 0; p < image->partitions_count; p++)
	{
		ImagePartition *partition = &image->partitions[p];
		const ImagePartition *old = image_partition(before, partition->topic, partition->number);

		if (old != NULL && partition->revision == old->revision && !same_partition(partition, old))
			partition->revision++;
	}
}

void
image_advance(Image *image)
{
	bool		used[IMAGE_BROKERS_MAX] = {false};

	for (int p = 0; p < image->partitions_count; p++)
		advance_partition(image, &image->partitions[p]);

	for (int i = 0; i < image->brokers_count; i++)
	{
		for (int p = 0; p < image->partitions_count && !used[i]; p++)
			used[i] = partition_has_replica(&image->partitions[p], image->brokers[i].id);
	}
	for (int i = image->brokers_count - 1; i >= 0; i--)
	{
		if (image->brokers[i].leaving && !used[i])
			delete_broker(image, i);
	}
}
