/*-------------------------------------------------------------------------
 *
 * slots.h
 *	  What all backends know of a partition: its next offset, the transactions
 *	  that have open appends, and with them the high watermark.
 *
 * A slot belongs to one partition, named by the table that stores it.  It is
 * made when the partition is first used, from what the tables hold, and may be
 * given to another partition while no transaction has an open append in it and
 * its watermark is stored in the catalog.
 *
 * What makes it right:
 *
 * (1) Offsets are taken, and the transaction's open append is added, under one
 *	   hold of the slot's lock.  So whatever is below the watermark belongs to
 *	   transactions that have ended.
 * (2) An open append is closed by the commit or abort callback, which runs when
 *	   the transaction has left the proc array.  So a snapshot taken after
 *	   the watermark was read sees all that committed below it.
 * (3) A slot with open appends is never given away, and a slot is filled from
 *	   the tables only if none was given away meanwhile.  So no stale next
 *	   offset can come into use.
 * (4) A slot whose watermark is not stored is never given away, and the next
 *	   slot of the partition begins at the stored watermark or after it.  So no
 *	   offset comes back that anybody was told to be settled.
 * (5) Where the partition has in-sync followers, an append that has committed
 *	   stays in the list until each of them has confirmed the commit.  So
 *	   whatever is below the watermark is on all of them.
 *
 * Lock order: directory lock, then a slot's lock, then the lock of what waits for
 * followers, then the pool's spinlock.
 * Nothing is read, allocated or raised while any of them is held, and nobody
 * waits for anything else.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SLOTS_H
#define PGTOPIC_SLOTS_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "storage/condition_variable.h"

/* Which partition: the database and the table of the partition. */
typedef struct SlotKey
{
	Oid			database;
	Oid			relation;
} SlotKey;

/*
 * A backend's way to a slot.  The number is a hint that each call checks, under
 * the slot's lock, and corrects; set it to -1 at first.
 */
typedef struct SlotRef
{
	SlotKey		key;
	int			slot;
} SlotRef;

typedef enum SlotResult
{
	SLOT_OK,
	SLOT_MISSING,				/* fill one with slot_install() */
	SLOT_NO_SEGMENT,			/* no segment for so many offsets is there */
	SLOT_CLOSED					/* takes nothing new: another broker is to lead */
} SlotResult;

typedef struct SlotState
{
	int64		next_offset;
	int64		high_watermark;
	int32		blocking_pid;	/* of the oldest open append, or 0 if there is
								 * none or the watermark waits for followers */
	TimestampTz blocking_since;
	int			isr_count;
	uint64		isr_mask;
	TimestampTz filled_at;		/* when this server began to know it */
	int32		leader_epoch;	/* that it was filled in */
} SlotState;

/* What a slot is filled with. */
typedef struct SlotContent
{
	int32		topic;
	int32		partition;
	int64		next_offset;
	int64		checkpointed;	/* watermark in the catalog */
	int64		segments_end;	/* end of the last segment */
	int64		segment_messages;

	/*
	 * If there are in-sync followers, the watermark begins at settled, and moves
	 * on when they have confirmed lsn, at which all is in WAL that the tables hold.
	 */
	int64		settled;
	XLogRecPtr	lsn;
	int32		leader_epoch;
	int			isr_count;		/* this server included */
	uint64		isr_mask;		/* the others */
	uint64		ready_mask;		/* see slot_set_replicas() */
	bool		closed;
} SlotContent;

/* What the maintenance worker asks about. */
typedef struct SlotReport
{
	SlotKey		key;
	int32		topic;
	int32		partition;
	int64		high_watermark;
	int64		checkpointed;
	bool		wants_segments;
} SlotReport;

/* Shared memory, for the hooks of the module. */
extern Size slots_shmem_size(void);
extern void slots_shmem_init(void);

/* True if the library was loaded by shared_preload_libraries. */
extern bool slots_available(void);

/*
 * Registers the callbacks by which a backend closes its open appends.  Once a
 * process.
 */
extern void slots_register_callbacks(void);

/*
 * Takes count offsets for the current transaction.  *wake is set if the
 * maintenance worker should make segments.  Raises an error, before anything
 * is taken, if there is no memory for one more open append.
 *
 * A slot that is closed since another broker is to lead waits for those who use it
 * (slot_is_mine()).  They may go on: go_on says so.
 */
extern SlotResult slot_reserve(SlotRef *ref, int64 count, bool go_on, int64 *first, bool *wake);

/*
 * Says, before the current transaction writes positions of the partition, that
 * it does: until it has ended, and all in-sync followers have confirmed it if it
 * waits for that, the slot is not drained.  Never SLOT_NO_SEGMENT.
 */
extern SlotResult slot_begin_write(SlotRef *ref, bool go_on);

/* Whether the current transaction has an append in the slot, or writes positions. */
extern bool slot_is_mine(const SlotRef *ref);

/*
 * The commit of this transaction, which uses the slot, waits until so many replicas are
 * in sync and have it.  Only where it waits for acknowledgements at all.
 */
extern void slot_await_insync(SlotRef *ref, int wanted);

/* Reads the state, of a closed slot too. */
extern SlotResult slot_state(SlotRef *ref, SlotState *state);

typedef enum SlotInstallResult
{
	SLOT_INSTALLED,
	SLOT_STALE,					/* a slot was given away since the epoch */
	SLOT_ALL_IN_USE				/* perhaps free when watermarks are stored */
} SlotInstallResult;

/*
 * Fills a slot for a partition that has none: take the epoch, read the tables,
 * then install; if that says SLOT_STALE, all of it again.  If somebody else was
 * first, that slot stays and this content is dropped.
 */
extern uint64 slot_install_epoch(void);
extern SlotInstallResult slot_install(SlotRef *ref, uint64 epoch,
									  const SlotContent *content);

/* Says that segments up to this offset exist now (are committed). */
extern void slot_set_segments_end(const SlotKey *key, int64 end, int64 segment_messages);

/* Asks the worker for segments up to an offset, as slot_reserve() does. */
extern SlotResult slot_want_segments(SlotRef *ref, int64 up_to);

/* How far segments should reach: all offsets asked for so far.  0 if no slot. */
extern int64 slot_segments_wanted(const SlotKey *key);

/* Takes back what a producer asked for; others who wait ask again. */
extern void slot_forget_wanted(const SlotKey *key);

/* How far they reach.  0 if no slot. */
extern int64 slot_segments_end(const SlotKey *key);

/* Says that the catalog has this watermark. */
extern void slot_set_checkpointed(const SlotKey *key, int64 watermark);

/* Goes through the slots of this database; start with *position = 0. */
extern bool slots_next(int *position, SlotReport *report);

/*
 * Takes the slot from a partition, if it has one and no transaction has it in
 * use: the partition is gone, or will get another slot when it is used again.
 * Commits that wait for followers are not waited for any more.  A slot that is
 * being filled is filled anew.  Returns false if it is in use.
 */
extern bool slot_forget(const SlotKey *key);

/*
 * The same, if the slot was filled in an older leader epoch.  Returns whether it was, and
 * has gone.
 */
extern bool slot_forget_older(const SlotKey *key, int32 leader_epoch);

/* The same for all partitions of a database that has been dropped. */
extern void slots_forget_database(Oid database);

/*
 * Goes through the slots of this database in which transactions are open that have
 * written there, messages or positions; start with *position = 0.
 */
extern bool slots_next_open(int *position, int32 *topic, int32 *partition);

/* --- partitions with replicas; see followers.h for the masks --- */

/*
 * Sets the followers of a partition: those in sync, and those that are ready,
 * since their copy of this partition streams in this leader epoch, so that what
 * they confirm speaks for it.  Followers in sync that are not ready have
 * confirmed nothing.
 *
 * If there is no slot, one that is being filled is filled anew; so call this after
 * the transaction that changed the catalog has committed.  And a broker may be
 * made a member of the in-sync set only after it has been in isr_mask here for so
 * long that it has confirmed followers_wal_end() of a moment after this call: else
 * what was acknowledged without it may be lost with this server.
 */
extern void slot_set_replicas(const SlotKey *key, uint64 isr_mask, uint64 ready_mask,
							  int isr_count);

/* The epoch that the slot was filled in; -1 if there is none. */
extern int32 slot_leader_epoch(const SlotKey *key);

/* Has the slot take nothing new, or take it again. */
extern void slot_set_closed(const SlotKey *key, bool closed);

/*
 * No transaction is open in the partition, none has yet to be confirmed.  True
 * if there is no slot.
 */
extern bool slot_is_drained(const SlotKey *key);

/*
 * Another broker leads the partition from now on, whatever was open here: the
 * slot is closed, its watermark stays where it is, and commits that wait for
 * followers end with their sessions.  Before this server leads the partition again,
 * the slot has to go by slot_forget(), once it is drained.
 */
extern void slot_abandon(const SlotKey *key);

/* No partition's copy of this follower is ready any more. */
extern void slots_forget_follower(int follower);

/*
 * For the acks worker.  Moves the watermarks of this database as far as followers
 * have confirmed, and wakes who waits for that; with moved set, followers_poll()
 * has found something.  Returns whether anything waits.  No errors, but for want
 * of memory the first time.
 */
extern bool slots_confirm(bool moved);

/*
 * Around the sleep of that worker, before a last slots_confirm(): from then on it
 * is woken.
 */
extern void slots_confirm_sleeps(bool sleeps);

/*
 * What a reader of one partition, and what a consumer of a topic sleeps on.
 * Spurious wakeups occur.  They are no part of a slot: who sleeps needs none, so
 * there can be more sleepers than slots, and giving a slot away wakes nobody.
 */
extern ConditionVariable *partition_condition(const SlotKey *key);
extern ConditionVariable *topic_condition(int32 topic);

/*
 * Has everybody who sleeps on the topic woken when this transaction has ended
 * and its locks are gone, or this subtransaction has been rolled back: what it
 * consumed may be there again.  With all_partitions, readers of single
 * partitions too (the topic is being dropped or changed).
 */
extern void slots_wake_at_end(int32 topic, bool all_partitions);

/* Marks the transaction as one that cannot be prepared, naming the call. */
extern void slots_forbid_prepare(const char *call);

#endif							/* PGTOPIC_SLOTS_H */
