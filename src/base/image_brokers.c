/*-------------------------------------------------------------------------
 *
 * image_brokers.c
 *	  Brokers that come, that are gone, and that are back.
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

bool
image_add_broker(Image *image, const char *conninfo, int32 *id, ImageProblem *problem)
{
	ImageBroker *broker;

	if (image->brokers_count >= IMAGE_BROKERS_MAX || image->next_broker == PG_INT32_MAX)
		return image_refuse(problem, IMAGE_NOT_NOW,
							psprintf("the cluster has %d brokers already", image->brokers_count),
							psprintf("It can have at most %d.", IMAGE_BROKERS_MAX), NULL);

	/* its id is the highest one, so it comes last */
	image->brokers = image_resize(image->brokers, sizeof(ImageBroker) * (image->brokers_count + 1));
	broker = &image->brokers[image->brokers_count++];
	broker->id = image->next_broker++;
	broker->leaving = broker->fenced = broker->suspect = false;
	broker->fencings = 0;
	broker->conninfo = pstrdup(conninfo);
	*id = broker->id;
	return true;
}

bool
image_set_conninfo(Image *image, int32 id, const char *conninfo, ImageProblem *problem)
{
	ImageBroker *broker = image_need_broker(image, id, problem);

	if (broker == NULL)
		return false;
	broker->conninfo = pstrdup(conninfo);
	return true;
}

bool
image_fence_brokers(Image *image, const int32 *ids, int count, bool *changed, ImageProblem *problem)
{
	bool		fences[IMAGE_BROKERS_MAX] = {false};

	*changed = false;
	for (int i = 0; i < count; i++)
	{
		ImageBroker *broker = image_need_broker(image, ids[i], problem);

		if (broker == NULL)
			return false;
		fences[broker - image->brokers] = !broker->fenced;
	}
	for (int i = 0; i < image->brokers_count; i++)
	{
		if (!fences[i])
			continue;
		image->brokers[i].fenced = true;
		image->brokers[i].fencings++;
		*changed = true;
	}
	for (int p = 0; p < image->partitions_count; p++)
	{
		ImagePartition *partition = &image->partitions[p];
		bool		concerned = false;

		for (int i = 0; i < image->brokers_count; i++)
		{
			int32		id = image->brokers[i].id;

			if (!fences[i])
				continue;
			concerned |= partition_has_replica(partition, id);
			if (partition->leader == id)
				partition_replace_leader(image, partition);
			/* the last ones stay: nobody else has everything */
			else if (partition_in_sync(partition, id) && !image_is_fenced(image, partition->leader))
				partition_leave_isr(partition, id);
		}
		/* what is reported of it is void, so that its leader need not report that it is gone */
		if (concerned && partition->revision < PG_INT32_MAX - 1)
			partition->revision++;
	}
	return true;
}

bool
image_fence_broker(Image *image, int32 id, bool *changed, ImageProblem *problem)
{
	return image_fence_brokers(image, &id, 1, changed, problem);
}

bool
image_unfence_broker(Image *image, int32 id, int32 fencings, bool *changed, ImageProblem *problem)
{
	ImageBroker *broker = image_need_broker(image, id, problem);

	*changed = false;
	if (broker == NULL)
		return false;
	if (!broker->fenced || broker->fencings != fencings)
		return true;
	broker->fenced = false;
	for (int p = 0; p < image->partitions_count; p++)
	{
		ImagePartition *partition = &image->partitions[p];

		/* all in isr were fenced, so nobody led */
		if (partition_in_sync(partition, id))
			partition_set_leader(partition, id);
	}
	*changed = true;
	return true;
}
