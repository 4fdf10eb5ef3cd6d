/*-------------------------------------------------------------------------
 *
 * store.h
 *	  What a broker has promised to the others: the row of pgtopic.cluster.
 *
 * Whoever changes it locks the row first and decides over what is there then, so
 * that a broker is one party to the quorum although several processes speak for
 * it: the quorum worker, and the sessions in which the others call.  What is
 * stored must be on disk before anybody is told: quorum_commit(), or, in a session
 * that another broker has called, store_make_durable().
 *
 * All need a transaction; those that read or write connect to SPI themselves.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_STORE_H
#define PGTOPIC_STORE_H

#include "postgres.h"

#include "base/quorum.h"
#include "catalog/rows.h"

typedef struct ClusterStore
{
	char		cluster_id[CLUSTER_ID_LENGTH + 1];
	int32		self;
	QuorumDurable durable;
	int64		applied_version;
	char	   *image;			/* newest accepted, in the caller's memory; NULL: none */
} ClusterStore;

/* Reads the row; false if this database is not in a cluster. */
extern bool store_read(ClusterStore *store);

/* The same, and locks the row to the end of the transaction. */
extern bool store_lock(ClusterStore *store);

/*
 * The newest image here that is known to be committed, in the caller's memory, and its
 * version: not always committed_version, since the next image may have come together
 * with the word that the one before is committed.
 */
extern char *store_committed_image(int64 *version);

/*
 * Writes self and durable.  image is the new one, or NULL if it stays.  Where
 * committed_version is image_version, the image is (or becomes) the committed one.
 */
extern void store_write(const ClusterStore *store, const char *image);

/* Makes the row of a new member; an error if there is one already. */
extern void store_create(const ClusterStore *store);

/*
 * Of a row without a number, which is an invitation: the least number that this broker
 * can get.  Another server may have been at its address before, and may still be written
 * to by a number that it had.
 */
extern int32 store_first_number(void);
extern void store_set_first_number(int32 number);

extern void store_set_applied(int64 version);

/* The commit of this transaction waits for the disk, whatever synchronous_commit is. */
extern void store_make_durable(void);

/*
 * The WAL timeline that this broker has last known to be its own; 0: none yet.  If WAL
 * is on another one, this server is a standby that was promoted, or was restored, and
 * may lack what it had told others.
 */
extern int32 store_timeline(void);

/*
 * Whether this broker may have voted, of late, and not know of it, since it is on another
 * timeline.  Then it takes no part in elections, until it has been told what it has to
 * know (worker/standing.c), or so much time has gone by that such an election is over: there
 * may be nobody to tell it.
 */
extern bool store_may_forget_vote(void);
extern void store_set_timeline(int32 timeline);

#endif							/* PGTOPIC_STORE_H */
