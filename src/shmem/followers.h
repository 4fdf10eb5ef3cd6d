/*-------------------------------------------------------------------------
 *
 * followers.h
 *	  The brokers that copy partitions from databases of this server, and how far
 *	  each has confirmed what it received.
 *
 * A follower gets all the partitions that it copies from a database through one
 * logical replication slot.  So one position in WAL says how far it is in all of
 * them, and a set of followers is a mask of their numbers here.
 *
 * One lock guards the table, but for the confirmed positions, which everybody
 * reads without one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_FOLLOWERS_H
#define PGTOPIC_FOLLOWERS_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

/*
 * How many there can be in the server.  The last bit of a mask stands for those
 * that there was no room for: they never confirm anything.
 */
#define FOLLOWERS_MAX			63
#define FOLLOWER_UNKNOWN_MASK	(UINT64CONST(1) << FOLLOWERS_MAX)

typedef struct FollowerState
{
	Oid			database;
	int32		broker;
	char		slot_name[NAMEDATALEN];
	bool		has_slot;		/* as of the last poll, a valid one */
	XLogRecPtr	confirmed;
	TimestampTz caught_up_at;	/* it had all that was in WAL at this time; at
								 * first, when it was entered here */
} FollowerState;

extern Size followers_shmem_size(void);
extern void followers_shmem_init(void);

/*
 * The number of a follower, which is entered if it is not there, with nothing
 * confirmed until the next poll.  With another slot name than before it is
 * another follower.  -1 if there is no room; logged once.
 */
extern int	follower_index(Oid database, int32 broker, const char *slot_name);

/* The same as a mask, never empty. */
extern uint64 follower_mask(Oid database, int32 broker, const char *slot_name);

/* Its number; -1 if it is not there. */
extern int	follower_find(Oid database, int32 broker);

/* Takes one out.  Masks that name it should have been changed before. */
extern void follower_forget(Oid database, int32 broker);

/* The same for all of a database. */
extern void followers_forget_database(Oid database);

/*
 * Looks at the replication slots of this database's followers.  Returns whether
 * something has changed.  No errors.
 *
 * One whose slot is missing or invalidated has confirmed nothing, and is not
 * ready for any partition any more (see slots.h): a new slot of the same name
 * starts at the present, and says nothing of what the old one has not sent.
 */
extern bool followers_poll(void);

/* What it had confirmed when it was polled last; InvalidXLogRecPtr: nothing. */
extern XLogRecPtr follower_confirmed(int index);

/* The least of what all of a mask have; the greatest LSN if the mask is empty. */
extern XLogRecPtr followers_confirmed(uint64 mask);

/*
 * What a follower will have confirmed when it has all that is in WAL now.  Has it
 * written out soon, as after an asynchronous commit, even if nobody commits.
 */
extern XLogRecPtr followers_wal_end(void);

/* For people and for the in-sync set; false if there is none at this number. */
extern bool follower_state(int index, FollowerState *state);

#endif							/* PGTOPIC_FOLLOWERS_H */
