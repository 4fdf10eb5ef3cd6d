/*
 * failover_judge.h
 *		What must always be true in test_failover_sim.c: what clients were told, and what
 *		replicas have.
 */
#ifndef FAILOVER_JUDGE_H
#define FAILOVER_JUDGE_H

static inline int
new_image(int parent, Image *image, bool shared, int64 term, int64 version)
{
	SimImage   *new = &images[images_count];

	require(images_count < IMAGES_MAX, "room for images");
	*new = (SimImage) {image, shared, parent, term, version, {0}};
	for (int i = 0; i < image->brokers_count; i++)
		new->members.ids[new->members.count++] = image->brokers[i].id;
	for (int p = 0; p < PARTITIONS; p++)
		epochs_max[p] = Max(epochs_max[p], image->partitions[p].leader_epoch);
	require(epochs_max[0] < EPOCHS_MAX && epochs_max[1] < EPOCHS_MAX, "room for epochs");
	return images_count++;
}

static inline void
check_commit(int image)
{
	int64		version = images[image].version;

	require(version < VERSIONS_MAX, "room for versions");
	require(commits[version] == 0 || commits[version] == image, "a version is committed with one content");
	commits[version] = image;
	for (int at = image; version > commits_max && at != commits[commits_max]; at = images[at].parent)
		require(at != 0, "commits are a line");
	commits_max = Max(commits_max, version);
}

/* Clients are not to be surprised by what this leader lacks. */
static inline int
forgive(Broker *broker, int partition, int epoch)
{
	int			forgiven = 0;

	for (int o = 0; o < OFFSETS_MAX; o++)
	{
		Told	   *at = &told[partition][o];
		int			message = broker->disk.log[partition][o];

		forgiven += at->acknowledged != 0 && at->acknowledged != message;
		if (at->acknowledged != message)
			at->acknowledged = 0;
		if (at->read != message)
			at->read = 0;
	}
	lossy_epoch[partition] = epoch;
	return forgiven;
}

/* A standby that lacks its end leads what nobody else can lead. */
static inline void
forgive_gap(Broker *broker, int partition)
{
	event("leads without its end; partition", broker->id, partition, 0, 0);
	if (strict)
		return;
	total.gaps_led++;
	total.lost_gap += forgive(broker, partition, row_of(broker, partition)->leader_epoch);
	broker->has_gap[partition] = false;
}

/*
 * Whether a leader begins: the catalog says so.  It has all that was acknowledged,
 * unless it was elected without being in sync.
 */
static inline void
check_leader(Broker *broker, int partition)
{
	const ImagePartition *row = row_of(broker, partition);
	int			epoch;

	if (row == NULL || row->leader != broker->id)
		return;
	epoch = row->leader_epoch;
	if (led_by[partition][epoch] == broker->id)
		return;
	require(led_by[partition][epoch] == 0, "an epoch has one leader");
	led_by[partition][epoch] = broker->id;
	/* it does not know yet that another one leads */
	if (epoch < newest_epoch[partition])
		return;
	newest_epoch[partition] = epoch;
	total.leaders++;
	event("leads; partition, epoch", broker->id, partition, epoch, 0);
	if (row->unclean_epoch > lossy_epoch[partition])
	{
		total.lost_unclean += forgive(broker, partition, epoch);
		broker->has_gap[partition] = false;
		return;
	}
	if (broker->has_gap[partition])
	{
		/* nobody could know */
		require(!broker->standing_known, "who has given up leading leads nothing that others have");
		forgive_gap(broker, partition);
		return;
	}
	for (int o = 0; o < OFFSETS_MAX; o++)
	{
		const Told *at = &told[partition][o];
		int			message = broker->disk.log[partition][o];

		if (at->acknowledged != 0 && at->acknowledged != message)
			event("lacks; partition, offset, message", broker->id, partition, o, at->acknowledged);
		require(at->acknowledged == 0 || at->acknowledged == message,
				"a leader has what was acknowledged");
		if (at->read != 0 && at->read != message)
			event("lacks; partition, offset, message", broker->id, partition, o, at->read);
		require(at->read == 0 || at->read == message, "a leader has what was read");
	}
}

/* hears: the broker is not cut off, as far as it knows. */
static inline void
check_acknowledged(const Broker *broker, const Txn *txn, bool hears)
{
	for (int i = 0; i < txn->count; i++)
	{
		int			p = txn->writes[i].partition;

		event("acknowledges; partition, offset, message", broker->id, p, txn->writes[i].offset,
			  txn->writes[i].message);
		if (txn->writes[i].superseded)
		{
			/*
			 * Alone in sync, and not cut off for long, or the only replica when it was:
			 * an unclean election loses this too.
			 */
			require(txn->writes[i].epoch < lossy_epoch[p] && !strict &&
					(hears || row_of(broker, p)->replicas_count == 1),
					"who is not the leader any more acknowledges nothing new");
			total.late++;
		}
		if (txn->writes[i].epoch < lossy_epoch[p])
			continue;
		require(told[p][txn->writes[i].offset].acknowledged == 0,
				"one message is acknowledged for an offset");
		told[p][txn->writes[i].offset].acknowledged = txn->writes[i].message;
		acknowledged_at[p] = now;
		total.acknowledged++;
	}
}

/* A client reads at a broker, from where the last one has stopped to the watermark. */
static inline void
check_read(Broker *broker, int partition)
{
	PartitionSlot *slot = &broker->partitions[partition];

	if (slot->leader_epoch < lossy_epoch[partition])
		return;
	for (; slot->read < slot->watermark; slot->read++)
	{
		Told	   *at = &told[partition][slot->read];
		int			message = broker->disk.log[partition][slot->read];

		/* an offset that was rolled back, and that the next leader has given to another */
		if (message == 0 && slot->leader_epoch < newest_epoch[partition])
			continue;
		if (at->read != 0 && at->read != message)
			event("reads; partition, offset, message", broker->id, partition, slot->read, message);
		require(at->read == 0 || at->read == message, "what was read stays as it is");
		at->read = message;
		total.read += message != 0;
	}
}

/* In-sync replicas, by the newest metadata, have what is below their leader's watermark. */
static inline void
check_copies(int partition)
{
	const ImagePartition *row = &newest_image()->partitions[partition];
	const Broker *leader = broker_by_id(row->leader);
	const ImagePartition *known = row_of(leader, partition);

	/* one that does not know yet who it is serves nobody */
	if (!leader->host.up || !leader->standing_known || known == NULL || known->leader_epoch != row->leader_epoch ||
		known->leader != leader->id || !leader->partitions[partition].there ||
		leader->partitions[partition].leader_epoch != row->leader_epoch || leader->has_gap[partition])
		return;
	for (int i = 0; i < row->isr_count; i++)
	{
		const Broker *follower = broker_by_id(row->isr[i]);

		if (row->isr[i] == row->leader || follower->has_gap[partition] || follower->lost)
			continue;
		for (int o = 0; o < leader->partitions[partition].watermark; o++)
		{
			if (leader->disk.log[partition][o] != 0 &&
				leader->disk.log[partition][o] != follower->disk.log[partition][o])
			{
				event("lacks; partition, offset, message", follower->id, partition, o,
					  leader->disk.log[partition][o]);
				require(false, "in-sync replicas have what is below the watermark");
			}
		}
	}
}

#endif							/* FAILOVER_JUDGE_H */
