/*-------------------------------------------------------------------------
 *
 * replica.h
 *	  This broker's copies of partitions that others lead, and how far each is.
 *
 * A copy goes through these states, one after the other, so that no step can be
 * skipped (a row of pgtopic.replica; worker/follower.c does the steps):
 *	new			 the leader, its epoch, or that this broker has the replica is new to us
 *	unpublished	 the leader has taken the tables out of our publications
 *	detached	 they are in none of our subscriptions any more: nothing writes them
 *	cut			 what may differ from the leader's has been removed: all from
 *				 from_offset on, and all positions
 *	published	 the leader has put them into our publications, from from_offset on
 *	copying		 our subscription copies what is there, and then follows the stream
 *	ready		 it follows
 * Taking out and adding again without looking in between, or cutting while a copy
 * is under way, loses messages without anybody noticing.
 *
 * All run SQL as the extension's owner, in the caller's transaction and SPI
 * connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_REPLICA_H
#define PGTOPIC_REPLICA_H

#include "postgres.h"

#define REPLICA_NEW			"new"
#define REPLICA_UNPUBLISHED "unpublished"
#define REPLICA_DETACHED	"detached"
#define REPLICA_CUT			"cut"
#define REPLICA_PUBLISHED	"published"
#define REPLICA_COPYING		"copying"
#define REPLICA_READY		"ready"

typedef struct Replica
{
	int32		topic;
	int32		partition;
	int32		leader;			/* as the metadata has it now */
	int32		leader_epoch;
	int32		placement;		/* of this broker */
	char	   *state;
	int64		from_offset;
	int64		attempt;		/* which copy it is, in what the leader is asked for */
} Replica;

/*
 * All partitions that this broker follows, by leader, in the caller's memory.  One
 * whose leader or epoch has changed since the last time, or that was taken away from
 * this broker and given back, is new again.
 */
extern Replica *replicas_read(int *count);

/*
 * Where a copy of a new leader is to begin, as far as this broker knows: below that, it
 * has what all have.  Called while the row still is that of the last leader.
 * *newest_epoch is the epoch of what it has.
 */
extern int64 replica_agreed(const Replica *replica, int32 *newest_epoch);

/*
 * Sets and stores the number of the copy that begins now.  It grows, also if this server
 * is a standby that was promoted and has not heard of the last one, unless clocks go back.
 */
extern void replica_begin_attempt(Replica *replica);

/* One that is greater than those of all copies. */
extern int64 replicas_next_attempt(void);

/* Stores the state, and where the copy begins: the state is not new, and both are set. */
extern void replica_set_state(const Replica *replica, const char *state);

/*
 * Whether no transaction of this server is open any more that has written to the
 * partition when it was led here: what it wrote cannot be removed before it has ended.
 */
extern bool replica_is_quiet(const Replica *replica);

/*
 * Removes what may differ from the leader's, whose log goes from log_start to
 * log_end, and the statistics of segments that it was in, and sets
 * replica->from_offset.  Below the watermark that the last leader has stored here all
 * in-sync replicas agree; a copy that was not complete starts again from where it
 * began.
 */
extern void replica_cut(Replica *replica, int64 log_start);

/* Makes one segment, if there are too few up to log_end; true if more are needed. */
extern bool replica_make_segment(const Replica *replica, int64 log_end);

/*
 * This server may lack the end of what it had received: no copy counts as complete, and
 * each begins anew where it was right when its leader's watermark was stored last.
 */
extern void replicas_distrust(void);

/*
 * Before and after a subscription looks at its publications.  A table that it loses is
 * written on for a while by the apply worker, which has it open: until a change of its
 * definition arrives, from when on its rows are passed over.  That may be so for the
 * messages and not for the positions, so that the watermark goes over what is missing.  So
 * where a complete copy agrees with all is noted before, in from_offset, and if it is
 * not subscribed any more it does not count as complete.
 */
extern void replicas_note_agreed(int32 leader);
extern void replicas_look_detached(int32 leader);

/*
 * Takes over the watermarks and log starts that the leaders have stored, so that the
 * catalog of this broker shows them, and retention follows.
 */
extern void replicas_take_checkpoints(void);

/* The same for the partitions p of a topic that a condition is true of. */
extern void replica_take_checkpoints(int32 topic, const char *condition);

#endif							/* PGTOPIC_REPLICA_H */
