/*
 * failover_sim.h
 *		The world of test_failover_sim.c: what brokers have on disk and in memory, and
 *		what they say to each other.
 */
#ifndef FAILOVER_SIM_H
#define FAILOVER_SIM_H

#define BROKERS_MAX		8
#define PARTITIONS		2
#define OFFSETS_MAX		768
#define EPOCHS_MAX		200
#define WAL_MAX			16384
#define UNDO_MAX		4096
#define IMAGES_MAX		4096
#define VERSIONS_MAX	4096
#define TXNS_MAX		8
#define PUBLISHED_MAX	128
#define CALLS_MAX		4096

/* Times in ms.  What they are to each other is as in the server, more or less. */
#define SESSION			40		/* pgtopic.broker_session_timeout */
#define ELECTION		(SESSION / 2)
#define HEARTBEAT		(ELECTION / 5)
#define PING			(SESSION / 10)
#define LAG_MAX			80		/* pgtopic.replica_lag_time_max */
#define HANDOVER		60		/* pgtopic.handover_timeout */
#define CHECKPOINT		20		/* pgtopic.checkpoint_interval */
#define BUSY			8
#define IDLE			20
#define CALL_TIMEOUT	40
#define CALL_LATE		8		/* a session notices by then that its caller is gone */
#define CHANGE_WAIT		30
#define COMMIT_WAIT		60
#define RETRY			3
#define REPORT_AGAIN	20
#define BACK_OFF		10
#define SLOT_CHECK		20
#define PATIENCE		5
#define APPLY_RETRY		10
#define ADVANCE			60
#define WAL_KEEP		200		/* entries for a follower that is in sync with nothing */
#define HEAL_TIME		4000	/* for a cluster without faults to be well */

/* --- messages --- */

typedef enum MessageKind
{
	VOTE_REQUEST, VOTE_REPLY, ACCEPT_REQUEST, ACCEPT_REPLY,
	CALL, ANSWER,				/* peer_...() functions */
	CONFIRM						/* of a subscription, to the walsender */
} MessageKind;

typedef enum CallKind
{
	CALL_CHANGE, CALL_WAIT_COMMITTED,
	CALL_FOLLOW, CALL_CREATE_SLOT, CALL_UNFOLLOW, CALL_FORGET, CALL_UNPUBLISH, CALL_AGREED,
	CALL_PUBLISH, CALL_READY,
	CALL_TABLES,				/* of the publications: what a subscription asks */
	CALL_OPEN_PARTITIONS		/* with what arrivals.c asks along with it */
} CallKind;

typedef enum Change
{
	CHANGE_ISR, CHANGE_HAND_OVER, CHANGE_FENCE, CHANGE_UNFENCE, CHANGE_ADVANCE,
	CHANGE_PREFER_LEADERS, CHANGE_ELECT_LEADER, CHANGE_ELECT_UNCLEAN, CHANGE_MOVE_PARTITION,
	CHANGE_ADD_BROKER, CHANGE_REMOVE_BROKER,
	CHANGE_LEAD_ANEW			/* the server has no such change */
} Change;

typedef struct Call
{
	int			id;
	CallKind	kind;
	Change		change;
	int			args[9];
	int64		term;			/* CALL_WAIT_COMMITTED */
	int64		version;
} Call;

typedef enum Code
{
	DONE,
	NOT_NOW,					/* 57P03 */
	REFUSED,					/* by the image */
	FAILED						/* nobody knows what has become of it */
} Code;

typedef struct Answer
{
	int			call;
	Code		code;
	int			value;
	int			open;
	int			xmin;
	int			xmax;
	int			end;
	int64		term;
	int64		version;
} Answer;

typedef struct Message
{
	int			from;
	int			to;
	int64		arrives;
	MessageKind kind;
	int			image;			/* of ACCEPT_REQUEST, or 0 */
	union
	{
		VoteRequest vote_request;
		VoteReply	vote_reply;
		AcceptRequest accept_request;
		AcceptReply accept_reply;
		Call		call;
		Answer		answer;
		struct
		{
			int			slot;
			int			lsn;
		}			confirm;
	}			u;
} Message;

#include "sim.h"
#include "sim_task.h"
#include "failover_rules.h"

/* --- the metadata --- */

typedef struct SimImage
{
	Image	   *image;
	bool		shared;			/* the image is that of the parent */
	int			parent;
	int64		term;
	int64		version;
	QuorumMembers members;
} SimImage;

/* --- what a broker has on disk --- */

/* A replica at a follower: cluster/replica.h. */
typedef enum ReplicaState
{
	REPLICA_NEW, REPLICA_UNPUBLISHED, REPLICA_DETACHED, REPLICA_CUT, REPLICA_PUBLISHED,
	REPLICA_COPYING, REPLICA_READY
} ReplicaState;

/* A row of pgtopic.replica. */
typedef struct ReplicaRow
{
	bool		exists;
	int			leader;
	int			leader_epoch;
	int			placement;
	ReplicaState state;
	int			from;
} ReplicaRow;

/* A follower at its leader: cluster/publish.h. */
typedef enum FollowerState
{
	FOLLOWER_NONE, FOLLOWER_PUBLISHED, FOLLOWER_REPORTED, FOLLOWER_JOINING, FOLLOWER_READY,
	FOLLOWER_LAGGING, FOLLOWER_FORGOTTEN
} FollowerState;

typedef struct FollowerRow
{
	FollowerState state;
	int			placement;
} FollowerRow;

/* The two tables of a partition. */
enum
{
	ROWS, POSITIONS, TABLES
};

/* A table in a subscription. */
typedef struct SubTable
{
	char		state;			/* 0: not in it; i, s (copied, up to lsn), r */
	int			lsn;
} SubTable;

typedef struct Subscription
{
	int			id;				/* 0: there is none */
	int			origin;			/* of the last transaction that has changed something */
	SubTable	tables[PARTITIONS][TABLES];
} Subscription;

/*
 * All of this is as of the end of WAL: what has not been flushed is lost by a crash.
 * It is changed by PUT() alone.
 */
typedef struct Disk
{
	QuorumDurable quorum;
	int			image;			/* that was accepted last */
	int			committed_image;
	int64		applied_version;
	int			timeline;

	/* pgtopic.broker */
	bool		known[BROKERS_MAX + 1];
	bool		fenced[BROKERS_MAX + 1];
	int			fencings[BROKERS_MAX + 1];

	/* pgtopic.partition; the rest of the row is that of an image */
	int			row[PARTITIONS];
	int			watermark[PARTITIONS];

	bool		tables[PARTITIONS];
	int			log[PARTITIONS][OFFSETS_MAX];	/* messages by offset; 0: none */
	int			traces[PARTITIONS]; /* of rows that are dead: the log does not end before */
	int			position[PARTITIONS];	/* of the watermark; -1: none */
	int			epoch_starts[PARTITIONS][EPOCHS_MAX];	/* positions too; -1: none */

	ReplicaRow	replica[PARTITIONS];
	FollowerRow follower[PARTITIONS][BROKERS_MAX + 1];
	bool		publications[BROKERS_MAX + 1];
	int			published_from[BROKERS_MAX + 1][PARTITIONS];	/* -1: not */
	Subscription subscription[BROKERS_MAX + 1];
} Disk;

/* A change in WAL.  An LSN is how many of them there are before it. */
typedef enum WalKind
{
	WAL_ROW, WAL_POSITION_INSERT, WAL_POSITION_UPDATE, WAL_POSITION_DELETE, WAL_MARK, WAL_COMMIT
} WalKind;

#define WATERMARK	(-1)		/* key of that position; else it is an epoch */

typedef struct WalEntry
{
	uint8		kind;
	int8		partition;
	int16		key_epoch;		/* of a position */
	int			offset;			/* of a row; a position's value */
	int			message;
	int			written;		/* LSN when it was: before the commit */
} WalEntry;

/* Since when a table has been in a publication, or not. */
typedef struct Published
{
	int			lsn;
	int			from;
} Published;

typedef struct Undo
{
	void	   *where;
	int			size;
	char		old[sizeof(QuorumDurable)];
} Undo;

/* A replication slot.  It is no part of WAL, and not of a standby. */
typedef struct ReplicationSlot
{
	int			id;				/* 0: there is none */
	int			confirmed;
	int			saved;			/* of that, after a crash */
} ReplicationSlot;

/* --- what it has in memory --- */

/* An append in a partition's slot, open or waiting for followers. */
typedef struct Append
{
	int			first;
	int			lsn;			/* 0: open */
} Append;

#define APPENDS_MAX	(TXNS_MAX + 64)

/* shmem/slots_private.h */
typedef struct PartitionSlot
{
	bool		there;
	int			next;
	int			watermark;
	int			checkpointed;
	bool		closed;
	bool		abandoned;
	int			isr_count;
	uint32		isr_mask;
	uint32		ready_mask;
	int			leader_epoch;
	int64		filled_at;
	int			count;
	Append		appends[APPENDS_MAX];
	int			read;			/* by clients: all below */
} PartitionSlot;

/* A client's transaction at the broker that leads. */
typedef enum TxnState
{
	TXN_NONE, TXN_OPEN, TXN_WAITING
} TxnState;

typedef struct Txn
{
	TxnState	state;
	int			id;
	bool		acks_all;
	int64		ends;
	int			lsn;
	uint32		slots;			/* partitions whose followers are waited for */
	int			count;
	struct
	{
		int			partition;
		int			offset;
		int			message;
		int			written;
		int			epoch;
		bool		superseded; /* when it was committed, another one led */
	}			writes[3];
} Txn;

/* shmem/followers.c */
typedef struct Follower
{
	bool		there;
	bool		has_slot;
	int			confirmed;
	int64		caught_up_at;
	int			sample;
	int64		sampled_at;		/* 0: none */
} Follower;

/* The apply worker of a subscription, and what is on its way to it. */
typedef struct Stream
{
	bool		connected;
	int			subscription;
	int			slot;
	int			life;			/* of the leader's server */
	int			sent;			/* up to here it has left the leader */
	int			applied;
	int			flushed;
	int			reported;
	int			knows[PARTITIONS][TABLES];	/* has had the table ready, as it was published then */
	int64		try_at;
	int64		stalls_until;	/* the apply worker does nothing */
	int			horizon[PARTITIONS][TABLES];	/* the copy waits for these transactions; 0 */
	int			horizon_life[PARTITIONS][TABLES];
} Stream;

/* worker/leader.c */
typedef struct Memory
{
	int			leader_epoch;	/* what is here is about it; -1: nothing is here */
	int64		since;
	int			confirm;
	int64		reported;
	int			reported_revision;
	int			released;
} Memory;

/* worker/arrivals.c */
typedef struct Fence
{
	int			xmax;
	int			lsn;
	bool		passed_over;
	uint32		round;
} Fence;

/* A session that waits for something to become so before it answers. */
typedef struct Waiter
{
	Call		call;			/* id 0: free */
	int			from;
	int64		until;
	int			horizon;		/* CALL_CREATE_SLOT */
} Waiter;

#define WAITERS_MAX	16

typedef struct Broker
{
	int			id;
	Host		host;
	bool		lost;			/* with its disk: it does not come back */
	int64		pause_until;	/* it does nothing, and knows nothing of it */
	Disk		disk;
	ReplicationSlot slots[BROKERS_MAX + 1];
	int			server_timeline;
	int			wal_end;
	int			wal_flushed;
	int			undo_count;

	/* what a standby has that may be promoted one day */
	Disk		standby;
	int			standby_wal;	/* -1: there is none */

	int			life;			/* how often it was started */
	QuorumRun	run;
	int			members_of;		/* image that the run knows the members of */
	int64		heard;			/* a controller */
	bool		heard_unnoticed;
	int			controller;
	int64		started;
	int64		pinged;
	int64		seen[BROKERS_MAX + 1];
	int64		committed_sent[BROKERS_MAX + 1];
	int64		committed_seen;

	bool		serves;
	uint32		fenced_mask;	/* as cluster_state has it */
	PartitionSlot partitions[PARTITIONS];
	Follower	followers[BROKERS_MAX + 1];
	Stream		streams[BROKERS_MAX + 1];
	int			next_txn;
	Txn			txns[TXNS_MAX];
	Waiter		waiters[WAITERS_MAX];
	int64		checkpoint_at;
	bool		storing;		/* a watermark, read some time ago */
	int			storing_watermark[PARTITIONS];
	int			storing_epoch[PARTITIONS];
	int64		store_at;

	/* the replication worker */
	Task		worker;
	int64		wake_at;
	bool		woken;
	int			awaited;		/* call; 0: none */
	bool		answered;
	Answer		answer;
	Code		error;
	jmp_buf		on_error;
	bool		standing_known;
	bool		untidy;
	int64		untidy_until;	/* it cannot be tidied before */
	int64		round_version;
	uint32		round;
	Memory		memories[PARTITIONS][2 * BROKERS_MAX + 1];	/* of followers, and handovers */
	int64		checked_at[BROKERS_MAX + 1];
	int64		try_at[BROKERS_MAX + 1];
	Fence		fences[PARTITIONS][BROKERS_MAX + 1];

	/* for the judge */
	bool		has_gap[PARTITIONS];	/* a standby without its end was promoted, and not
										 * copied anew since */
} Broker;

/* --- the world --- */

/* How bad a run is, in thousandths; the network has its own. */
typedef struct Faults
{
	uint32		crash;			/* per broker and 10 ms */
	uint32		crash_commit;	/* per commit */
	uint32		pause;			/* per broker and 10 ms */
	uint32		promote;		/* of the crashes */
	uint32		lose_disk;		/* of the crashes */
	uint32		cut;			/* per ms */
	uint32		linger;			/* of a worker, between two transactions */
	uint32		fail;			/* a step, for no reason */
	uint32		stall;			/* per subscription and ms */
	uint32		lose_slot;		/* per broker and 10 ms */
	uint32		unnoticed;
	uint32		produce;		/* per broker and ms */
	uint32		administer;		/* per ms */
} Faults;

static Faults faults;
static int	brokers_count;		/* that the cluster is to have */
static int	replication_factor;
static int	min_insync;
static Broker brokers[BROKERS_MAX + 1];
static WalEntry wal[BROKERS_MAX + 1][WAL_MAX];
static Undo undo[BROKERS_MAX + 1][UNDO_MAX];
static struct
{
	int			count;
	Published	changes[PUBLISHED_MAX];
}			published[BROKERS_MAX + 1][BROKERS_MAX + 1][PARTITIONS];	/* at whom, to whom */
static SimImage images[IMAGES_MAX];
static int	images_count;
static int	commits[VERSIONS_MAX];	/* by version: the image, or 0 */
static int64 commits_max;
static int	calls_count;
static int64 given_up[CALLS_MAX];	/* when, of the last calls; 0: they are waited for */
static int	ids_count;			/* of slots and subscriptions */
static int	messages_made;
static int	losses;				/* of disks */
static int	max_losses;
static int64 quiet_since;
static jmp_buf died;			/* of the broker that does something now */

/* What clients were told, of each offset. */
typedef struct Told
{
	int			acknowledged;	/* message; 0: none */
	int			read;
} Told;

static Told told[PARTITIONS][OFFSETS_MAX];
static int	led_by[PARTITIONS][EPOCHS_MAX]; /* who has begun to lead in an epoch; 0 */
static int	newest_epoch[PARTITIONS];	/* that somebody has begun to lead in */
static int	epochs_max[PARTITIONS]; /* that any metadata has */
static int	lossy_epoch[PARTITIONS];	/* newest that was allowed to lose something */
static int64 acknowledged_at[PARTITIONS];	/* the last time */

/* what all runs did, to see that they did enough */
static struct
{
	int64		crashes;
	int64		promotions;
	int64		disks;
	int64		fencings;
	int64		unclean;
	int64		leaders;
	int64		acknowledged;
	int64		read;
	int64		lost_unclean;
	int64		late;
	int64		lost_gap;
	int64		gaps_led;
	int64		conflicts;
	int64		handovers;
	int64		moves;
	int64		slowest;
}			total;

static inline Broker *
broker_by_id(int id)
{
	return &brokers[id];
}

static inline uint32
bit(int id)
{
	return UINT32_C(1) << id;
}

static inline const Image *
image_at(int image)
{
	return images[image].image;
}

/* The partition's row in the catalog; NULL: it is not there yet. */
static inline const ImagePartition *
row_of(const Broker *broker, int partition)
{
	int			image = broker->disk.row[partition];

	return image == 0 ? NULL : &image_at(image)->partitions[partition];
}

/* By the catalog. */
static inline bool
leads(const Broker *broker, int partition)
{
	const ImagePartition *row = row_of(broker, partition);

	return row != NULL && row->leader == broker->id;
}

/* The newest metadata that was committed. */
static inline const Image *
newest_image(void)
{
	return image_at(commits[commits_max]);
}

/* --- the disk --- */

static inline void
undo_note(Broker *broker, void *where, int size)
{
	Undo	   *note;

	require(broker->undo_count < UNDO_MAX, "room for what can be undone");
	note = &undo[broker->id][broker->undo_count++];
	note->where = where;
	note->size = size;
	memcpy(note->old, where, size);
}

#define PUT(broker, field, new_value) \
	(undo_note(broker, &(broker)->disk.field, sizeof((broker)->disk.field)), \
	 (broker)->disk.field = (new_value))

static inline void
wal_add(Broker *broker, WalEntry entry)
{
	require(broker->wal_end < WAL_MAX, "room for WAL");
	wal[broker->id][broker->wal_end++] = entry;
}

/* Has all of WAL on disk. */
static inline void
flush(Broker *broker)
{
	broker->undo_count = 0;
	broker->wal_flushed = broker->wal_end;
	for (int l = 1; l <= BROKERS_MAX; l++)
		broker->streams[l].flushed = broker->streams[l].applied;
	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		if (chance(100))
			broker->slots[f].saved = broker->slots[f].confirmed;
	}
}

static inline void
forget_published_after(Broker *broker, int lsn)
{
	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		for (int p = 0; p < PARTITIONS; p++)
		{
			int		   *count = &published[broker->id][f][p].count;

			while (*count > 0 && published[broker->id][f][p].changes[*count - 1].lsn > lsn)
				(*count)--;
		}
	}
}

static inline void
crash(Broker *broker)
{
	event("crashes", broker->id, 0, 0, 0);
	/* what was not flushed may be there all the same */
	if (chance(300))
		flush(broker);
	while (broker->undo_count > 0)
	{
		Undo	   *note = &undo[broker->id][--broker->undo_count];

		memcpy(note->where, note->old, note->size);
	}
	broker->wal_end = broker->wal_flushed;
	forget_published_after(broker, broker->wal_end);
	if (broker->awaited != 0)
		given_up[broker->awaited % CALLS_MAX] = now;
	for (int f = 1; f <= BROKERS_MAX; f++)
	{
		if (chance(500))
			broker->slots[f].confirmed = broker->slots[f].saved;
	}
	host_crash(&broker->host);
	total.crashes++;
}

/* Crashes whoever does something now. */
static inline void
die(Broker *broker)
{
	crash(broker);
	if (running_task != NULL)
		task_yield();
	_longjmp(died, 1);
}

/* Ends a transaction.  One that does not flush may be lost with the next crash. */
static inline void
commit(Broker *broker, bool flushes)
{
	wal_add(broker, (WalEntry) {.kind = WAL_COMMIT});
	if (!flushes)
		return;
	if (mishap(faults.crash_commit))
	{
		if (chance(500))
			flush(broker);
		die(broker);
	}
	flush(broker);
}

#endif							/* FAILOVER_SIM_H */
