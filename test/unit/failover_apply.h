/*
 * failover_apply.h
 *		How brokers of test_failover_sim.c apply the metadata: function by function as in
 *		cluster/apply.c.
 */
#ifndef FAILOVER_APPLY_H
#define FAILOVER_APPLY_H

static inline bool
is_deposed(const Broker *broker, const Image *image, int id)
{
	const ImageBroker *other = image_broker(image, id);

	return other == NULL || other->fencings > (broker->disk.known[id] ? broker->disk.fencings[id] : 0);
}

static inline bool
leads_unclean(const Broker *broker, const Image *image)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		const ImagePartition *partition = &image->partitions[p];
		const ImagePartition *row = row_of(broker, p);

		if (partition->leader == broker->id && partition->leader_epoch == partition->unclean_epoch &&
			row != NULL && row->leader_epoch < partition->leader_epoch)
			return true;
	}
	return false;
}

static inline void
part_from_deposed(Broker *broker, const Image *image)
{
	bool		all = leads_unclean(broker, image) && broken != BREAK_UNCLEAN_RECEIVES;
	uint32		deposed = 0;

	if (broken == BREAK_DEPOSED_STREAMS)
		return;
	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		if (broker->disk.subscription[l].id != 0 && (all || is_deposed(broker, image, l)))
			deposed |= bit(l);
	}
	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		if (!(deposed & bit(l)))
			continue;
		linger(broker);
		subscribe_drop(broker, l);
	}
}

static inline void
apply_brokers(Broker *broker, const Image *image)
{
	for (int id = 1; id <= BROKERS_MAX; id++)
	{
		bool		known = image_broker(image, id) != NULL;

		if (broker->disk.known[id] == known)
			continue;
		PUT(broker, known[id], known);
		PUT(broker, fenced[id], false);
		PUT(broker, fencings[id], 0);
	}
	commit(broker, true);
}

static inline void
tell_fenced(Broker *broker)
{
	broker->fenced_mask = 0;
	for (int id = 1; id <= BROKERS_MAX; id++)
	{
		if (broker->disk.known[id] && broker->disk.fenced[id])
			broker->fenced_mask |= bit(id);
	}
}

static inline void
note_fencings(Broker *broker, const Image *image)
{
	if (is_deposed(broker, image, broker->id) && broken != BREAK_KEEPS_FOLLOWERS)
	{
		for (int f = 1; f <= BROKERS_MAX; f++)
		{
			if (broker->disk.publications[f])
				publish_end(broker, f);
		}
		linger(broker);
	}
	for (int i = 0; i < image->brokers_count; i++)
	{
		const ImageBroker *other = &image->brokers[i];

		PUT(broker, fenced[other->id], other->fenced);
		PUT(broker, fencings[other->id], other->fencings);
	}
	commit(broker, true);
	tell_fenced(broker);
}

/* storage/epochs.c */
static inline void
epoch_begin(Broker *broker, int partition, int epoch)
{
	put_position(broker, partition, epoch, stored_end(broker, partition));
}

static inline void
begin_epochs(Broker *broker, const Image *image, const ImagePartition **before)
{
	bool		any = false;

	for (int p = 0; p < PARTITIONS; p++)
	{
		const ImagePartition *next = &image->partitions[p];

		if (next->leader == broker->id && next->replicas_count > 1 && broker->disk.tables[p] &&
			before[p] != NULL && next->leader_epoch > before[p]->leader_epoch)
		{
			epoch_begin(broker, p, next->leader_epoch);
			any = true;
		}
	}
	if (any)
		commit(broker, true);
}

static inline void
apply_topic(Broker *broker, const Image *image, int number)
{
	const ImagePartition *before[PARTITIONS] = {row_of(broker, 0), row_of(broker, 1)};
	bool		changed = false;

	if (broken != BREAK_EPOCH_LATE)
		begin_epochs(broker, image, before);
	linger(broker);
	for (int p = 0; p < PARTITIONS; p++)
	{
		const ImagePartition *next = &image->partitions[p];
		const ImagePartition *row = row_of(broker, p);

		changed |= row == NULL || row->revision != next->revision || row->leader_epoch != next->leader_epoch;
		for (int f = 1; f <= BROKERS_MAX; f++)
		{
			FollowerRow *follower = &broker->disk.follower[p][f];

			if (follower->state != FOLLOWER_NONE &&
				((row != NULL && row->leader_epoch != next->leader_epoch) || next->leader != broker->id ||
				 (partition_placement(next, f) != follower->placement && broken != BREAK_PLACEMENT)))
				put_follower(broker, p, f, FOLLOWER_NONE, 0);
		}
		PUT(broker, row[p], number);
		if (!partition_has_replica(next, broker->id))
		{
			/* the tables go later */
			if (broker->disk.replica[p].exists)
			{
				PUT(broker, replica[p].leader, 0);
				PUT(broker, replica[p].leader_epoch, 0);
			}
		}
		else if (!broker->disk.tables[p])
		{
			PUT(broker, replica[p].exists, false);
			PUT(broker, tables[p], true);
		}
	}
	commit(broker, true);
	for (int p = 0; p < PARTITIONS; p++)
		check_leader(broker, p);
	if (broken == BREAK_EPOCH_LATE)
	{
		linger(broker);
		begin_epochs(broker, image, before);
	}
	if (!changed)
		return;
	linger(broker);
	for (int p = 0; p < PARTITIONS; p++)
	{
		if (broker->disk.tables[p])
			partition_update_slot(broker, p);
	}
}

static inline void
apply_task(Broker *broker, void *arg)
{
	int			number = broker->disk.committed_image;
	const Image *image;

	if (number == 0 || images[number].version <= broker->disk.applied_version)
	{
		tell_fenced(broker);
		return;
	}
	image = image_at(number);
	if (image_broker(image, broker->id) == NULL)
		return;
	event("applies; version", broker->id, images[number].version, 0, 0);
	part_from_deposed(broker, image);
	may_fail(broker);
	linger(broker);
	apply_brokers(broker, image);
	apply_topic(broker, image, number);
	linger(broker);
	note_fencings(broker, image);
	PUT(broker, applied_version, images[number].version);
	commit(broker, true);
	broker->untidy = true;
}

static inline void
tidy_task(Broker *broker, void *arg)
{
	/* somebody has a table locked, say */
	if (mishap(faults.fail))
		broker->untidy_until = now + random_below(200);
	if (now < broker->untidy_until)
		raise_error(broker, FAILED);
	if (broken != BREAK_UNTIDY)
		publish_tidy(broker);
	broker->untidy = false;
}

#endif							/* FAILOVER_APPLY_H */
