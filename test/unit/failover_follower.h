/*
 * failover_follower.h
 *		How brokers of test_failover_sim.c follow: function by function as in
 *		worker/{arrivals,follower,leftovers}.c and cluster/replica.c.
 */
#ifndef FAILOVER_FOLLOWER_H
#define FAILOVER_FOLLOWER_H

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

#endif							/* FAILOVER_FOLLOWER_H */
