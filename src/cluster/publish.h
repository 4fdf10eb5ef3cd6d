/*-------------------------------------------------------------------------
 *
 * publish.h
 *	  The leader's side of replication: publications for each follower.
 *
 * A follower has two publications here, one for the tables of messages (insert
 * only, through the partition's table) and one for those of positions, and one
 * replication slot.  The follower drives: it calls these functions one after the
 * other (worker/follower.c), so that no step can be skipped.
 *
 * Its row in pgtopic.follower says how far it is with a partition:
 *	published	 the tables are in its publications; it is copying
 *	reported	 it says that its copy is complete and streaming
 *	joining		 the watermark waits for it (it counts as in sync), and it is to
 *				 confirm what was written up to then
 *	ready		 it has: what it confirms from now on, it has
 *	lagging		 it was ready, and does not keep up
 *	forgotten	 its copy was complete, and it is to begin a new one.  What is settled
 *				 is on it only until then, so first it has to be out of the in-sync
 *				 replicas, and nobody must be about to put it there; commits wait until
 *				 then, and publish_remove() does.  publish_release() deletes the row
 * joining, ready and lagging are set by the leader's replication worker.  A row says something
 * of the leader's present epoch only: who stops leading deletes it.
 *
 * All run SQL as the extension's owner, in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PUBLISH_H
#define PGTOPIC_PUBLISH_H

#include "postgres.h"

#define FOLLOWER_IS_FORGOTTEN	"forgotten"
#define FOLLOWER_IS_PUBLISHED	"published"
#define FOLLOWER_IS_REPORTED	"reported"
#define FOLLOWER_IS_JOINING	"joining"
#define FOLLOWER_IS_READY		"ready"
#define FOLLOWER_IS_LAGGING	"lagging"

/*
 * Makes the publications of a follower, if they are not there, and says what its
 * slot is: "none", "ready" or "lost".
 */
extern const char *publish_begin(int32 follower);

/* Drops a follower's publications and its slot, ending who uses it. */
extern void publish_end(int32 follower);

/*
 * Forgets what a follower has confirmed, of one partition or of all (topic 0), in a
 * transaction of its own before publish_remove() or publish_end(): that must say
 * nothing any more when the tables leave its publications.
 */
extern void publish_forget(int32 follower, int32 topic, int32 partition, int64 attempt);

/* A follower that was forgotten is in sync nowhere: it may begin. */
extern void publish_release(int32 follower, int32 topic, int32 partition);

/*
 * The three steps for a partition.  Raise 57P03 if this broker does not lead it in
 * this epoch, or follower has no replica of this placement (then it has newer metadata,
 * or older), or has begun a newer attempt: a call that was given up can still arrive,
 * when others have been made since.  publish_remove() also while the follower has something
 * to lose.
 *
 * False: the leader knows nothing of the copy, or has begun it as such a call wanted; it
 * has to be begun anew.
 */
extern void publish_remove(int32 follower, int32 topic, int32 partition, int32 leader_epoch,
						   int32 placement, int64 attempt);
extern bool publish_add(int32 follower, int32 topic, int32 partition, int32 leader_epoch,
						int32 placement, int64 from_offset, int64 attempt);
extern bool publish_ready(int32 follower, int32 topic, int32 partition, int32 leader_epoch,
						  int32 placement, int64 attempt);

/*
 * Drops the slots that a server has left behind here: of table synchronisation, that
 * nobody uses, of no subscription (oid) that it still has.  Returns how many.
 */
extern int	publish_drop_sync_slots(const char *system_identifier, const char *subscriptions);

/* publish_end() for all followers: this database leaves the cluster, or was fenced. */
extern void publish_end_all(void);

/*
 * Makes the slot of a follower.  In a transaction that has written nothing; waits
 * for transactions that are open.
 */
extern void publish_create_slot(int32 follower);

/*
 * Takes what this broker does not lead, or who is no replica any more, out of the publications;
 * ends what there is for followers that have nothing here any more, and have gone.  True:
 * there are some that have still to go.
 */
extern bool publish_tidy(void);

/* Whether anybody receives anything from here. */
extern bool publish_is_followed(void);

/*
 * Below which offset a copy whose newest epoch is this one agrees with this leader's: see
 * storage/epochs.h.  The same errors.
 */
extern int64 publish_agreed(int32 follower, int32 topic, int32 partition, int32 leader_epoch,
							int32 placement, int32 newest_epoch);

/*
 * The partitions that open transactions of this database have written to, as
 * " t1_p0  t1_p3 ", in the caller's memory; positions that the maintenance worker
 * stores count, in all of them.
 */
extern char *publish_open_partitions(void);

/* Where the leader's log starts and ends now; the same errors. */
extern void publish_log_range(int32 follower, int32 topic, int32 partition, int32 leader_epoch,
						   int32 placement,
							  int64 *log_start, int64 *log_end);

/*
 * The leader's worker has a follower go on; false if it is not where it was: it may have
 * begun a new copy since.
 */
extern bool publish_change_state(int32 follower, int32 topic, int32 partition,
								 const char *from, const char *to);

/* Names, in the caller's memory. */
extern char *publication_name(int32 follower, bool positions);

#endif							/* PGTOPIC_PUBLISH_H */
