/*
 * failover_leader.h
 *		How brokers of test_failover_sim.c lead: function by function as in worker/leader.c.
 */
#ifndef FAILOVER_LEADER_H
#define FAILOVER_LEADER_H

typedef struct Look
{
	int			rows[PARTITIONS];	/* images; 0: not led here */
	FollowerRow followers[PARTITIONS][BROKERS_MAX + 1];
} Look;

typedef struct Led
{
	Look	   *look;			/* states are noted that are set in this round */
	int			partition;
	const ImagePartition *row;
	bool		busy;
} Led;

/* follower: -broker of a handover to it */
static inline Memory *
memory_of(Broker *broker, const Led *led, int follower)
{
	Memory	   *memory = &broker->memories[led->partition][follower < 0 ? BROKERS_MAX - follower : follower];

	if (memory->leader_epoch != led->row->leader_epoch)
		*memory = (Memory) {.leader_epoch = led->row->leader_epoch,.since = now};
	return memory;
}

static inline bool
is_reported(const Led *led, const Memory *memory)
{
	return memory->reported != 0 && led->row->revision == memory->reported_revision &&
		now - memory->reported < REPORT_AGAIN;
}

static inline FollowerState
state_of(const Led *led, int follower)
{
	const FollowerRow *row = &led->look->followers[led->partition][follower];

	return row->placement == partition_placement(led->row, follower) || broken == BREAK_PLACEMENT ?
		row->state : FOLLOWER_NONE;
}

static inline int
update_slot(Broker *broker, const Led *led)
{
	(void) partition_update_slot(broker, led->partition);
	return mark_wal(broker);
}

/*
 * The server does not look whether it is still as it was when the round began: a follower
 * that has been forgotten since is lagging, say, and comes into sync without a copy.
 */
static inline int
set_follower(Broker *broker, const Led *led, int follower, FollowerState state)
{
	FollowerRow *looked = &led->look->followers[led->partition][follower];

	if (broken != SERVER_STATE_BLINDLY &&
		broker->disk.follower[led->partition][follower].state != looked->state)
		raise_error(broker, NOT_NOW);
	looked->state = state;
	put_follower(broker, led->partition, follower, state, partition_placement(led->row, follower));
	commit(broker, true);
	linger(broker);
	return update_slot(broker, led);
}

static inline void
change_isr(Broker *broker, const Led *led, int follower, bool joins)
{
	int64		version;

	/* the server forgets this: what it was told before it now asks for the opposite */
	if (joins && broken != SERVER_RELEASED_STAYS)
		memory_of(broker, led, follower)->released = 0;
	version = cluster_change(broker, (Call) {
		.change = CHANGE_ISR,.args = {led->partition, broker->id, led->row->leader_epoch, follower, joins,
		partition_placement(led->row, follower), led->row->revision}
	});

	memory_of(broker, led, follower)->reported = now;
	memory_of(broker, led, follower)->reported_revision = led->row->revision;
	if (version != 0)
		event(joins ? "is in sync; partition, leader, revision" : "is not in sync; partition, leader, revision",
			  follower, led->partition, broker->id, led->row->revision);
}

static inline bool
is_released(Broker *broker, const Led *led, int follower, Memory *memory)
{
	if (broken == BREAK_NOT_RELEASED && !partition_in_sync(led->row, follower))
		return true;
	if (!partition_in_sync(led->row, follower) && memory->released != 0 &&
		led->row->revision >= memory->released)
		return true;
	memory->released = led->row->revision + 1;
	change_isr(broker, led, follower, false);
	return false;
}

/* True if something is under way. */
static inline bool
look_after(Broker *broker, const Led *led, int follower)
{
	FollowerState state = state_of(led, follower);
	bool		in_sync = partition_in_sync(led->row, follower);
	Memory	   *memory = memory_of(broker, led, follower);
	const Follower *known = &broker->followers[follower];
	int			confirmed = known->confirmed;
	int64		caught_up = known->caught_up_at;
	bool		confirms = !(broker->fenced_mask & bit(follower)) && known->there && known->has_slot &&
		confirmed > 0;

	if (is_reported(led, memory))
		return true;
	if (state == FOLLOWER_REPORTED || (state == FOLLOWER_JOINING && memory->confirm == 0))
	{
		if (broken == BREAK_TOLD_BEFORE && !in_sync)
		{
			change_isr(broker, led, follower, true);
			return true;
		}
		memory->confirm = set_follower(broker, led, follower, FOLLOWER_JOINING);
		return true;
	}
	if (state == FOLLOWER_JOINING && confirms &&
		(confirmed >= memory->confirm || broken == BREAK_READY_UNCONFIRMED))
	{
		set_follower(broker, led, follower, FOLLOWER_READY);
		memory->since = now;
		state = FOLLOWER_READY;
		if (!in_sync)
		{
			change_isr(broker, led, follower, true);
			return true;
		}
	}

	if (state == FOLLOWER_READY && confirms && now - caught_up <= LAG_MAX)
	{
		memory->since = caught_up;
		if (!in_sync)
			change_isr(broker, led, follower, true);
		return !in_sync;
	}

	if (state == FOLLOWER_FORGOTTEN)
	{
		if (!is_released(broker, led, follower, memory))
			return true;
		/* publish_release() */
		if (broker->disk.follower[led->partition][follower].state == FOLLOWER_FORGOTTEN)
			put_follower(broker, led->partition, follower, FOLLOWER_NONE, 0);
		commit(broker, true);
		linger(broker);
		update_slot(broker, led);
		return false;
	}
	if (state == FOLLOWER_LAGGING && !in_sync)
	{
		if (confirms && now - caught_up <= LAG_MAX / 2)
		{
			memory->confirm = 0;
			/* the server leaves this, so it has to have confirmed by the next round but one */
			if (broken != SERVER_LAGGING_AGAIN)
				memory->since = now;
			set_follower(broker, led, follower, FOLLOWER_REPORTED);
			return true;
		}
		return false;
	}
	if (state == FOLLOWER_PUBLISHED && confirms)
		mark_wal(broker);
	if (now - memory->since < LAG_MAX)
		return state == FOLLOWER_JOINING || state == FOLLOWER_PUBLISHED;
	if (in_sync)
	{
		change_isr(broker, led, follower, false);
		return true;
	}
	if (state == FOLLOWER_READY && !is_released(broker, led, follower, memory))
		return true;
	if (state == FOLLOWER_READY || state == FOLLOWER_JOINING)
		set_follower(broker, led, follower, FOLLOWER_LAGGING);
	return false;
}

static inline bool
hand_over(Broker *broker, const Led *led)
{
	int			successor = led->row->successor;
	Memory	   *memory = memory_of(broker, led, -successor);
	const Follower *known = &broker->followers[successor];
	bool		done = false;

	if (is_reported(led, memory))
		return true;
	if (state_of(led, successor) == FOLLOWER_READY &&
		(partition_is_drained(broker, led->partition) || broken == BREAK_UNDRAINED))
	{
		if (memory->confirm == 0)
			memory->confirm = update_slot(broker, led);
		done = known->there && known->has_slot && known->confirmed >= memory->confirm;
	}
	if (!done && now - memory->since < HANDOVER)
		return true;
	if (cluster_change(broker, (Call) {
		.change = CHANGE_HAND_OVER,.args = {led->partition, broker->id, led->row->leader_epoch, successor, done,
		led->row->revision}
	}) != 0 && done)
		total.handovers++;
	memory->reported = now;
	memory->reported_revision = led->row->revision;
	return true;
}

static inline void
lead(Broker *broker, void *arg)
{
	Led		   *led = arg;

	for (int i = 0; i < led->row->replicas_count; i++)
	{
		if (led->row->replicas[i] != broker->id)
			led->busy |= look_after(broker, led, led->row->replicas[i]);
	}
	for (int i = 0; i < led->row->replicas_count; i++)
	{
		if (led->row->replicas[i] != led->row->successor)
			memory_of(broker, led, -led->row->replicas[i])->leader_epoch = -1;
	}
	if (led->row->successor != 0)
		led->busy |= hand_over(broker, led);
}

static inline void
bound_wal(Broker *broker, void *arg)
{
	bool		any = false;

	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		bool		in_sync = false;

		for (int p = 0; p < PARTITIONS; p++)
			in_sync |= leads(broker, p) && partition_in_sync(row_of(broker, p), f);
		if (in_sync || broker->slots[f].id == 0 || broker->wal_end - broker->slots[f].confirmed <= WAL_KEEP)
			continue;
		publish_end(broker, f);
		any = true;
	}
	for (int p = 0; any && p < PARTITIONS; p++)
	{
		if (leads(broker, p))
			partition_update_slot(broker, p);
	}
}

static inline bool
leader_run(Broker *broker)
{
	Look		look = {0};
	bool		busy = false;

	if (followers_poll(broker))
	{
		for (int p = 0; p < PARTITIONS; p++)
		{
			if (broker->partitions[p].there)
				slot_confirm(broker, &broker->partitions[p]);
		}
	}
	for (int p = 0; p < PARTITIONS; p++)
	{
		if (leads(broker, p) && row_of(broker, p)->replicas_count > 1)
			look.rows[p] = broker->disk.row[p];
		for (int f = 1; f <= BROKERS_MAX; f++)
		{
			look.followers[p][f] = broker->disk.follower[p][f];
			if (broker->disk.follower[p][f].state != FOLLOWER_NONE)
				follower_mask(broker, f);
		}
	}
	for (int p = 0; p < PARTITIONS; p++)
	{
		Led			led = {&look, p, NULL, false};

		if (look.rows[p] == 0)
			continue;
		led.row = &image_at(look.rows[p])->partitions[p];
		busy |= run_task(broker, lead, &led) && led.busy;
	}
	for (int p = 0; p < PARTITIONS; p++)
	{
		/* update_stale_slots() */
		if (leads(broker, p) && broker->partitions[p].there &&
			broker->partitions[p].leader_epoch != row_of(broker, p)->leader_epoch)
			partition_update_slot(broker, p);
	}
	run_task(broker, bound_wal, NULL);
	return busy;
}

#endif							/* FAILOVER_LEADER_H */
