/*
 * failover_worker.h
 *		The replication worker of test_failover_sim.c, function by function as in
 *		worker/{replication,standing,leader,follower,arrivals}.c and cluster/{apply,
 *		replica}.c.  It is a task: where the server's waits, other brokers and other
 *		processes of this one go on.
 */
#ifndef FAILOVER_WORKER_H
#define FAILOVER_WORKER_H

/* --- waiting, errors --- */

/* Until a time, or an answer, or somebody wakes it. */
static inline void
sleep_until(Broker *broker, int64 time)
{
	broker->wake_at = time;
	broker->woken = false;
	task_yield();
}

/* Between two transactions others may do something. */
static inline void
linger(Broker *broker)
{
	if (mishap(faults.linger))
		sleep_until(broker, now + 1 + random_below(chance(50) ? 60 : 6));
}

static inline void
raise_error(Broker *broker, Code code)
{
	broker->error = code;
	_longjmp(broker->on_error, 1);
}

/* A step may fail for reasons that are not ours. */
static inline void
may_fail(Broker *broker)
{
	if (mishap(faults.fail))
		raise_error(broker, FAILED);
}

/* worker_run_task(): false if there was an error. */
static inline bool
run_task(Broker *broker, void (*task) (Broker *broker, void *arg), void *arg)
{
	jmp_buf		outer;
	volatile bool done = false;

	memcpy(outer, broker->on_error, sizeof(jmp_buf));
	if (_setjmp(broker->on_error) == 0)
	{
		task(broker, arg);
		done = true;
	}
	memcpy(broker->on_error, outer, sizeof(jmp_buf));
	return done;
}

/* There is newer metadata, which is to be applied first. */
static inline bool
waits_in_vain(const Broker *broker)
{
	return broker->disk.quorum.committed_version > broker->round_version;
}

/* Calls a function of another broker's, or of this one; an error if there is no answer. */
static inline Answer
call(Broker *broker, int to, Call request)
{
	Message		message = {.from = broker->id,.to = to,.kind = CALL};
	int64		began = now;

	request.id = ++calls_count;
	message.u.call = request;
	broker->awaited = request.id;
	broker->answered = false;
	given_up[request.id % CALLS_MAX] = 0;
	network_send(message, true);
	while (!broker->answered)
	{
		int64		limit = request.kind == CALL_WAIT_COMMITTED || request.kind == CALL_CREATE_SLOT ?
		COMMIT_WAIT + CALL_TIMEOUT : CALL_TIMEOUT;

		if (now - began >= limit || (now - began >= PATIENCE && waits_in_vain(broker)))
		{
			given_up[request.id % CALLS_MAX] = now;
			broker->awaited = 0;
			raise_error(broker, FAILED);
		}
		sleep_until(broker, waits_in_vain(broker) ? began + PATIENCE : began + limit);
	}
	broker->awaited = 0;
	broker->answered = false;
	return broker->answer;
}

/* The same, where an answer that is not DONE is an error. */
static inline Answer
call_done(Broker *broker, int to, Call request)
{
	Answer		answer = call(broker, to, request);

	if (answer.code != DONE)
		raise_error(broker, answer.code);
	return answer;
}

/*
 * The server has the controller's conninfo from the catalog.  A standby that was
 * promoted may not know of it there, and does not apply what says so before it has
 * given up leading, for which it needs the controller.
 */
static inline bool
can_call_controller(const Broker *broker)
{
	return broken == SERVER_CONTROLLER_UNKNOWN ? broker->disk.known[broker->controller] :
		image_broker(image_at(broker->disk.image), broker->controller) != NULL;
}

/*
 * cluster/change.c, cluster_change(): the version; 0: without effect.  *as_of is the
 * version that the controller has then.
 */
static inline int64
cluster_change_as_of(Broker *broker, Call request, int64 *as_of)
{
	int64		deadline = now + CHANGE_WAIT;

	request.kind = CALL_CHANGE;
	for (;;)
	{
		Answer		answer;

		if (broker->controller == 0 || !can_call_controller(broker))
		{
			if (now >= deadline)
				raise_error(broker, FAILED);
			sleep_until(broker, now + RETRY);
			continue;
		}
		answer = call(broker, broker->controller, request);
		if (answer.code == NOT_NOW && now < deadline && !waits_in_vain(broker))
		{
			sleep_until(broker, now + RETRY);
			continue;
		}
		if (answer.code != DONE)
			raise_error(broker, answer.code);
		if (answer.version != 0)
		{
			Answer		committed = call(broker, broker->controller, (Call) {
				.kind = CALL_WAIT_COMMITTED,.term = answer.term,.version = answer.version
			});

			if (committed.code != DONE)
				raise_error(broker, FAILED);
		}
		*as_of = answer.value;
		return answer.version;
	}
}

static inline int64
cluster_change(Broker *broker, Call request)
{
	int64		as_of;

	return cluster_change_as_of(broker, request, &as_of);
}

/* --- cluster/apply.c --- */

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
	may_fail(broker);
	if (broken != BREAK_UNTIDY)
		publish_tidy(broker);
	broker->untidy = false;
}

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

		if (broken == BREAK_PROMOTED_TRUSTED || !broker->disk.tables[p] ||
			(!replica->exists && broken == SERVER_PROMOTED_STORES))
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
	for (int l = 1; l <= BROKERS_MAX && broken != BREAK_PROMOTED_TRUSTED; l++)
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
	if (broker->disk.timeline != 0 && broker->disk.timeline != timeline)
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

/* --- worker/leader.c --- */

typedef struct Look
{
	int			rows[PARTITIONS];	/* images; 0: not led here */
	FollowerRow followers[PARTITIONS][BROKERS_MAX + 1];
} Look;

typedef struct Led
{
	const Look *look;
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
	FollowerRow *looked = (FollowerRow *) &led->look->followers[led->partition][follower];

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

/* --- worker/arrivals.c --- */

typedef struct Source
{
	bool		asked;
	Answer		answer;			/* value: published */
} Source;

typedef struct Following
{
	int			leader;
	uint32		partitions;
	uint32		subscribed;		/* leaders, when the round began */
	Source	   *sources;		/* of the round */
	bool		busy;
	int			partition;		/* of a step */
	void		(*step) (Broker *broker, struct Following *following, int partition);
} Following;

static inline Fence *
fence_of(Broker *broker, int partition, int leader)
{
	Fence	   *fence = &broker->fences[partition][leader];

	if (fence->round != broker->round && fence->round != broker->round - 1)
		*fence = (Fence) {0};
	fence->round = broker->round;
	return fence;
}

static inline void
ask(Broker *broker, Source *source, int leader)
{
	if (source->asked)
		return;
	source->answer = call_done(broker, leader, (Call) {.kind = CALL_OPEN_PARTITIONS});
	source->asked = true;
}

typedef struct Arrival
{
	int			partition;
	int			leader;
	Source	   *source;
	bool		over;
} Arrival;

static inline void
has_arrived(Broker *broker, void *arg)
{
	Arrival    *arrival = arg;
	Fence	   *fence = fence_of(broker, arrival->partition, arrival->leader);
	const Stream *stream = &broker->streams[arrival->leader];

	arrival->over = fence->passed_over;
	if (fence->passed_over)
		return;
	if (fence->xmax == 0)
	{
		ask(broker, arrival->source, arrival->leader);
		if (arrival->source->answer.value & bit(arrival->partition))
			return;
		fence->xmax = arrival->source->answer.xmax;
	}
	if (fence->lsn == 0)
	{
		ask(broker, arrival->source, arrival->leader);
		if (arrival->source->answer.xmin < fence->xmax &&
			(arrival->source->answer.open & bit(arrival->partition)))
			return;
		fence->lsn = arrival->source->answer.end;
	}
	arrival->over = stream->connected && stream->applied >= fence->lsn;
}

static inline void
subscribe_restart(Broker *broker, int leader)
{
	disconnect(&broker->streams[leader]);
	event("passes over what comes from", broker->id, leader, 0, 0);
}

/* drop: the tables are to be dropped; then who cannot be asked stops it. */
static inline bool
arrivals_are_over(Broker *broker, Source *sources, int partition, bool drop)
{
	bool		over = true;

	if (broken == BREAK_NO_DETACH)
		return true;
	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		Arrival		arrival = {partition, l, &sources[l], false};

		if (broker->disk.subscription[l].id == 0)
			continue;
		if (drop)
			has_arrived(broker, &arrival);
		else if (!run_task(broker, has_arrived, &arrival))
		{
			if (broker->error != FAILED)
				raise_error(broker, broker->error);
			subscribe_restart(broker, l);
			fence_of(broker, partition, l)->passed_over = true;
			arrival.over = true;
		}
		over &= arrival.over;
	}
	return over;
}

/* --- cluster/replica.c --- */

/* As replicas_read() has it. */
static inline ReplicaState
replica_state(const Broker *broker, int partition)
{
	const ReplicaRow *replica = &broker->disk.replica[partition];
	const ImagePartition *row = row_of(broker, partition);

	if (replica->exists && replica->leader == row->leader && replica->leader_epoch == row->leader_epoch &&
		(replica->placement == partition_placement(row, broker->id) || broken == BREAK_PLACEMENT))
		return replica->state;
	return REPLICA_NEW;
}

static inline void
set_replica(Broker *broker, int partition, ReplicaState state, int from)
{
	const ImagePartition *row = row_of(broker, partition);

	PUT(broker, replica[partition].exists, true);
	PUT(broker, replica[partition].leader, row->leader);
	PUT(broker, replica[partition].leader_epoch, row->leader_epoch);
	PUT(broker, replica[partition].placement, partition_placement(row, broker->id));
	PUT(broker, replica[partition].state, state);
	PUT(broker, replica[partition].from, from);
	commit(broker, true);
	event("copies; partition, state, from", broker->id, partition, state, from);
}

static inline int
replica_agreed(const Broker *broker, int partition, int *newest)
{
	const ReplicaRow *replica = &broker->disk.replica[partition];
	const ImagePartition *row = row_of(broker, partition);
	int			from = replica->exists ? replica->from : 0;
	bool		complete = !replica->exists || replica->state == REPLICA_READY;

	*newest = epoch_newest(broker, partition);
	if ((replica->exists ? replica->leader_epoch : 0) < row->unclean_epoch)
		return 0;
	if (broken == BREAK_CUT_AT_END)
		return log_end(broker, partition);
	if (broken == BREAK_INCOMPLETE_COUNTS)
		complete = true;
	if (!complete)
		return from;

	/*
	 * The server takes the position that its leader has stored last.  When the tables
	 * have left a subscription, rows may be passed over, and such a position not.
	 */
	if (broken == SERVER_PASSED_OVER)
		return Max(broker->disk.position[partition], from);
	return Max(broker->disk.watermark[partition], from);
}

static inline void
replica_cut(Broker *broker, int partition, int from)
{
	int			end = log_end(broker, partition);

	for (int o = from; o < end; o++)
	{
		if (broker->disk.log[partition][o] != 0)
			PUT(broker, log[partition][o], 0);
	}
	if (from == 0)
		PUT(broker, traces[partition], 0);
	else
		put_trace(broker, partition, end);
	delete_positions(broker, partition);
	PUT(broker, watermark[partition], from);
}

/* Whether its tables are in the subscription that it is to be copied by. */
static inline bool
is_streaming(const Broker *broker, int partition)
{
	const ImagePartition *row = row_of(broker, partition);
	const SubTable *tables = broker->disk.subscription[row->leader].tables[partition];

	return replica_state(broker, partition) == REPLICA_READY &&
		tables[ROWS].state == 'r' && tables[POSITIONS].state == 'r';
}

static inline void
replicas_take_checkpoints(Broker *broker)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		if (broker->disk.replica[p].exists && broker->disk.replica[p].state == REPLICA_READY &&
			broker->disk.tables[p] && (broken == SERVER_PASSED_OVER || is_streaming(broker, p)))
			PUT(broker, watermark[p], Max(broker->disk.watermark[p], broker->disk.position[p]));
	}
	commit(broker, true);
}

/* --- worker/follower.c --- */

/* Calls a function for a partition; what we say of our copy is flushed. */
static inline Answer
call_for(Broker *broker, Following *following, CallKind kind, int partition, int last)
{
	const ImagePartition *row = row_of(broker, partition);

	flush(broker);
	return call_done(broker, following->leader, (Call) {
		.kind = kind,.args = {partition, row->leader_epoch, partition_placement(row, broker->id), last}
	});
}

static inline void
ensure_subscription(Broker *broker, Following *following)
{
	int			leader = following->leader;
	bool		there = broker->disk.subscription[leader].id != 0;
	Answer		tables;

	if (there && now - broker->checked_at[leader] < SLOT_CHECK)
		return;
	if (call_done(broker, leader, (Call) {.kind = CALL_FOLLOW}).value != 0 && there)
	{
		broker->checked_at[leader] = now;
		return;
	}
	if (there)
		subscribe_drop(broker, leader);
	/* begin_again() */
	for (int p = 0; p < PARTITIONS; p++)
	{
		int			newest;

		if (!(following->partitions & bit(p)) || replica_state(broker, p) == REPLICA_NEW)
			continue;
		set_replica(broker, p, REPLICA_NEW, replica_agreed(broker, p, &newest));
	}
	if (broken != BREAK_NEW_SLOT_COUNTS)
		call_done(broker, leader, (Call) {.kind = CALL_FORGET,.args = {-1}});
	if (broken != BREAK_NEW_SLOT_COUNTS)
		call_done(broker, leader, (Call) {.kind = CALL_UNFOLLOW});
	call_done(broker, leader, (Call) {.kind = CALL_FOLLOW});
	call_done(broker, leader, (Call) {.kind = CALL_CREATE_SLOT});
	/* subscribe_create() */
	tables = call_done(broker, leader, (Call) {.kind = CALL_TABLES});
	PUT(broker, subscription[leader].id, ++ids_count);
	PUT(broker, subscription[leader].origin, 0);
	put_tables(broker, leader, tables.value);
	commit(broker, true);
	broker->streams[leader].connected = false;
	broker->checked_at[leader] = now;
	event("subscribes to; tables", broker->id, leader, tables.value, 0);
}

/* new → unpublished */
static inline void
unpublish(Broker *broker, Following *following, int p)
{
	int			newest;
	int			from;

	call_for(broker, following, CALL_FORGET, p, 0);
	call_for(broker, following, CALL_UNPUBLISH, p, 0);
	from = replica_agreed(broker, p, &newest);
	if (broken != BREAK_NO_EPOCH_STARTS)
		from = Min(from, call_for(broker, following, CALL_AGREED, p, newest).value);
	set_replica(broker, p, REPLICA_UNPUBLISHED, from);
}

/* unpublished → detached */
static inline void
detach(Broker *broker, Following *following, int p)
{
	for (int l = 1; l <= BROKERS_MAX && broken != BREAK_NO_DETACH; l++)
	{
		const SubTable *tables = broker->disk.subscription[l].tables[p];

		if (!(following->subscribed & bit(l)) || broker->disk.subscription[l].id == 0 ||
			(tables[ROWS].state == 0 && tables[POSITIONS].state == 0))
			continue;
		if (l == following->leader)
			set_replica(broker, p, REPLICA_NEW, broker->disk.replica[p].from);
		return;
	}
	if ((partition_update_slot(broker, p) || broken == BREAK_NOT_QUIET) &&
		arrivals_are_over(broker, following->sources, p, false))
		set_replica(broker, p, REPLICA_DETACHED, broker->disk.replica[p].from);
}

/* detached → cut → published */
static inline void
cut_and_publish(Broker *broker, Following *following, int p)
{
	if (replica_state(broker, p) == REPLICA_DETACHED)
	{
		replica_cut(broker, p, broker->disk.replica[p].from);
		set_replica(broker, p, REPLICA_CUT, broker->disk.replica[p].from);
	}
	call_for(broker, following, CALL_PUBLISH, p, broker->disk.replica[p].from);
	set_replica(broker, p, REPLICA_PUBLISHED, broker->disk.replica[p].from);
}

/* copying → ready */
static inline void
look_at_copy(Broker *broker, Following *following, int p)
{
	const SubTable *tables = broker->disk.subscription[following->leader].tables[p];

	if (tables[ROWS].state == 0 && tables[POSITIONS].state == 0)
	{
		set_replica(broker, p, REPLICA_PUBLISHED, broker->disk.replica[p].from);
		return;
	}
	if (tables[ROWS].state != 'r' || tables[POSITIONS].state != 'r')
		return;
	broker->has_gap[p] = false;
	set_replica(broker, p, call_for(broker, following, CALL_READY, p, 0).value ? REPLICA_READY : REPLICA_NEW,
				broker->disk.replica[p].from);
}

static inline void
subscribe_refresh(Broker *broker, int leader)
{
	Answer		answer = call_done(broker, leader, (Call) {.kind = CALL_TABLES});

	if (broker->disk.subscription[leader].id == 0)
		return;
	put_tables(broker, leader, answer.value);
	commit(broker, true);
}

static inline void
at_leader(Broker *broker, Following *following, int p)
{
	ReplicaState state = replica_state(broker, p);

	if (state == REPLICA_NEW)
		unpublish(broker, following, p);
	else if (state == REPLICA_DETACHED || state == REPLICA_CUT)
		cut_and_publish(broker, following, p);
}

static inline void
run_step(Broker *broker, void *arg)
{
	Following  *following = arg;

	following->step(broker, following, following->partition);
}

/* A leader that says that it is not, or not yet, is no failure. */
static inline void
try_step(Broker *broker, Following *following, int p,
		 void (*step) (Broker *broker, Following *following, int partition))
{
	following->step = step;
	following->partition = p;
	if (!run_task(broker, run_step, following) && broker->error != NOT_NOW)
		raise_error(broker, broker->error);
}

static inline void
follow(Broker *broker, void *arg)
{
	Following  *following = arg;
	bool		refresh = false;

	following->busy = true;
	ensure_subscription(broker, following);
	for (int p = 0; p < PARTITIONS; p++)
	{
		ReplicaState state;

		if (!(following->partitions & bit(p)))
			continue;
		try_step(broker, following, p, at_leader);
		linger(broker);
		state = replica_state(broker, p);
		refresh |= state == REPLICA_UNPUBLISHED || state == REPLICA_PUBLISHED;
	}
	if (refresh)
		subscribe_refresh(broker, following->leader);
	following->busy = false;
	for (int p = 0; p < PARTITIONS; p++)
	{
		ReplicaState state = replica_state(broker, p);

		if (!(following->partitions & bit(p)))
			continue;
		if (state == REPLICA_UNPUBLISHED)
			detach(broker, following, p);
		else if (state == REPLICA_PUBLISHED)
			set_replica(broker, p, REPLICA_COPYING, broker->disk.replica[p].from);
		else if (state == REPLICA_COPYING)
			try_step(broker, following, p, look_at_copy);
		following->busy |= replica_state(broker, p) != REPLICA_READY;
	}
}

static inline void
tidy(Broker *broker, void *arg)
{
	Following  *following = arg;

	if (following->partitions == 0)
	{
		subscribe_drop(broker, following->leader);
		return;
	}
	for (int p = 0; p < PARTITIONS; p++)
	{
		const SubTable *tables = broker->disk.subscription[following->leader].tables[p];

		if ((tables[ROWS].state != 0 || tables[POSITIONS].state != 0) &&
			!(following->partitions & bit(p)))
		{
			subscribe_refresh(broker, following->leader);
			following->busy = true;
			return;
		}
	}
}

static inline bool
follower_run(Broker *broker, bool checkpoints)
{
	Source		sources[BROKERS_MAX + 1] = {0};
	uint32		partitions[BROKERS_MAX + 1] = {0};
	uint32		subscribed = 0;
	bool		busy = false;

	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		for (int p = 0; p < PARTITIONS; p++)
		{
			const ImagePartition *row = row_of(broker, p);

			if (row != NULL && row->leader == l && l != broker->id && partition_has_replica(row, broker->id))
				partitions[l] |= bit(p);
		}
		if (broker->disk.subscription[l].id != 0)
			subscribed |= bit(l);
	}
	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		Following	following = {.leader = l,.partitions = partitions[l]};

		if (!(subscribed & bit(l)) || now < broker->try_at[l])
			continue;
		if (run_task(broker, tidy, &following))
			busy |= following.busy;
		else
			broker->try_at[l] = now + BACK_OFF;
	}
	for (int l = 1; l <= BROKERS_MAX; l++)
	{
		Following	following = {
			.leader = l,.partitions = partitions[l],.subscribed = subscribed,.sources = sources
		};

		if (partitions[l] == 0 || now < broker->try_at[l] || (broker->fenced_mask & bit(l)))
			continue;
		if (run_task(broker, follow, &following))
			busy |= following.busy;
		else
			broker->try_at[l] = now + BACK_OFF;
	}
	if (checkpoints)
		replicas_take_checkpoints(broker);
	return busy;
}

/* --- worker/leftovers.c --- */

static inline void
drop_leftovers(Broker *broker, void *arg)
{
	Source		sources[BROKERS_MAX + 1] = {0};

	for (int p = 0; p < PARTITIONS; p++)
	{
		const ImagePartition *row = row_of(broker, p);
		bool		subscribed = false;

		if (row == NULL || !broker->disk.tables[p] || partition_has_replica(row, broker->id))
			continue;
		for (int l = 1; l <= BROKERS_MAX; l++)
			subscribed |= broker->disk.subscription[l].id != 0 &&
				(broker->disk.subscription[l].tables[p][ROWS].state != 0 ||
				 broker->disk.subscription[l].tables[p][POSITIONS].state != 0);
		if (subscribed || !arrivals_are_over(broker, sources, p, true) || slot_in_use(broker, p))
			continue;
		/* it may have got the replica back meanwhile */
		if (partition_has_replica(row_of(broker, p), broker->id))
			continue;
		replica_cut(broker, p, 0);
		PUT(broker, tables[p], false);
		PUT(broker, replica[p].exists, false);
		broker->partitions[p].there = false;
		commit(broker, true);
		event("drops; partition", broker->id, p, 0, 0);
	}
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
