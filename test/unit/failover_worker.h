/*
 * failover_worker.h
 *		The replication worker of test_failover_sim.c, and its own standing: function by
 *		function as in worker/{standing,replication}.c.
 */
#ifndef FAILOVER_WORKER_H
#define FAILOVER_WORKER_H

/* --- worker/standing.c --- */

typedef struct GivingUp
{
	Change		change;
	int64		as_of;
} GivingUp;

static inline void
give_up_leading(Broker *broker, void *arg)
{
	GivingUp   *giving_up = arg;

	cluster_change_as_of(broker, (Call) {
		.change = giving_up->change,.args = {broker->id, true}
	}, &giving_up->as_of);
}

/*
 * The server goes on at once, and may take itself for a leader of before until it has
 * heard of the change.
 */
static inline void
await_giving_up(Broker *broker, const GivingUp *giving_up)
{
	while (broken != SERVER_PROMOTED_SERVES && broker->disk.applied_version < giving_up->as_of)
	{
		broker->round_version = broker->disk.quorum.committed_version;
		run_task(broker, apply_task, NULL);
		sleep_until(broker, now + BUSY);
	}
}

static inline void
begin_anew(Broker *broker)
{
	GivingUp	giving_up = {CHANGE_FENCE, 0};
	uint32		leaders = 0;

	/*
	 * cluster/replica.c, replicas_distrust(), which leaves alone what has no row: what
	 * this broker has led since it was made.
	 */
	for (int p = 0; p < PARTITIONS; p++)
	{
		const ReplicaRow *replica = &broker->disk.replica[p];

		if (!broker->disk.tables[p] || (!replica->exists && broken == SERVER_PROMOTED_STORES))
			continue;
		if (!replica->exists || replica->state == REPLICA_READY)
			PUT(broker, replica[p].from, Max(replica->exists ? replica->from : 0, broker->disk.watermark[p]));
		PUT(broker, replica[p].exists, true);
		PUT(broker, replica[p].leader, 0);
		PUT(broker, replica[p].state, REPLICA_NEW);
	}
	commit(broker, true);
	linger(broker);
	for (int i = 1; i <= BROKERS_MAX; i++)
	{
		if (broker->disk.subscription[i].id != 0)
			leaders |= bit(i);
		if (broker->disk.publications[i])
			publish_end(broker, i);
	}
	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		linger(broker);
		if (leaders & bit(l))
			subscribe_drop(broker, l);
	}
	if (broken == BREAK_PROMOTED_LEADS)
		return;
	if (run_task(broker, give_up_leading, &giving_up))
	{
		await_giving_up(broker, &giving_up);
		return;
	}
	if (broker->error != REFUSED)
		raise_error(broker, broker->error);

	/*
	 * What it has lost is no reason not to go on, where nobody else is there.  The server
	 * goes on in the same epoch, by which its followers believe that it has all still.
	 */
	if (broken == SERVER_PROMOTED_SAME_EPOCH)
	{
		for (int p = 0; p < PARTITIONS; p++)
		{
			if (leads(broker, p) && broker->has_gap[p])
				forgive_gap(broker, p);
		}
		return;
	}
	giving_up.change = CHANGE_LEAD_ANEW;
	give_up_leading(broker, &giving_up);
	await_giving_up(broker, &giving_up);
}

static inline void
know_self(Broker *broker, void *arg)
{
	int			timeline = broker->server_timeline;

	/* it is no broker yet */
	if (broker->disk.image == 0)
		raise_error(broker, FAILED);
	if (broker->disk.timeline != 0 && broker->disk.timeline != timeline && broken != BREAK_PROMOTED_TRUSTED)
		begin_anew(broker);
	if (broker->disk.timeline != timeline)
	{
		PUT(broker, timeline, timeline);
		commit(broker, true);
	}
	broker->standing_known = true;
}

static inline void
come_back(Broker *broker, void *arg)
{
	bool	   *busy = arg;
	bool		fenced = broker->disk.known[broker->id] && broker->disk.fenced[broker->id];
	int			fencings = broker->disk.fencings[broker->id];

	broker->serves = !fenced;
	if (broken == BREAK_BACK_AT_ONCE && !fenced && broker->disk.committed_image != 0)
	{
		/* by what it has heard, not by what it has applied */
		const ImageBroker *self = image_broker(image_at(broker->disk.committed_image), broker->id);

		fenced = self != NULL && self->fenced;
		fencings = fenced ? self->fencings : 0;
	}
	if (!fenced)
		return;
	*busy = true;
	cluster_change(broker, (Call) {.change = CHANGE_UNFENCE,.args = {broker->id, fencings}});
	event("has come back; fencings", broker->id, fencings, 0, 0);
}

/* --- worker/replication.c --- */

static inline void
change_task(Broker *broker, void *arg)
{
	if (broker->controller == broker->id)
		cluster_change(broker, (Call) {.change = *(Change *) arg});
}

static inline void
worker_main(void *arg)
{
	Broker	   *broker = arg;
	int64		advanced = now + random_below(ADVANCE);
	int64		rebalanced = now;
	int64		stored = 0;

	for (;;)
	{
		bool		busy = false;
		bool		checkpoints;
		Change		change;

		if (!broker->standing_known && !run_task(broker, know_self, NULL))
		{
			sleep_until(broker, now + BUSY);
			continue;
		}
		broker->round++;
		broker->round_version = broker->disk.quorum.committed_version;
		checkpoints = now - stored >= CHECKPOINT;
		if (checkpoints)
			stored = now;
		run_task(broker, apply_task, NULL);
		if (broker->untidy)
			run_task(broker, tidy_task, NULL);
		run_task(broker, come_back, &busy);
		busy |= leader_run(broker);
		/* the server goes on: what it copies then goes back to where it comes from */
		if (!broker->untidy || broken == SERVER_UNTIDY_FOLLOWS)
			busy |= follower_run(broker, checkpoints);
		if (now - advanced >= ADVANCE)
		{
			advanced = now;
			change = CHANGE_ADVANCE;
			run_task(broker, change_task, &change);
		}
		if (now - rebalanced >= 4 * ADVANCE && !quiet)
		{
			rebalanced = now;
			change = CHANGE_PREFER_LEADERS;
			run_task(broker, change_task, &change);
		}
		run_task(broker, drop_leftovers, NULL);
		if (!waits_in_vain(broker))
			sleep_until(broker, now + (busy ? broken == SERVER_LAGGING_AGAIN ? 1 : BUSY : IDLE));
	}
}

#endif							/* FAILOVER_WORKER_H */
