/*-------------------------------------------------------------------------
 *
 * openlist.h
 *	  The open appends of one partition, in offset order.
 *
 * Pure: the caller owns the memory and the lock.  Elements live in a pool that
 * all lists share, and are named by their number in it, since shared memory may
 * not hold pointers that all processes understand.
 *
 * Invariant: first_offset grows from head to tail.  It holds because an append
 * is added under the same lock under which its offsets are taken.
 *
 * Where a partition has followers, an append whose transaction has committed
 * stays, with the position of the commit in WAL, until they have confirmed that
 * position: it is not open any more, but waits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_OPENLIST_H
#define PGTOPIC_OPENLIST_H

#include "c.h"

#define OPENLIST_NONE	(-1)

typedef struct OpenAppend
{
	int64		first_offset;	/* of the transaction, in this partition */
	int64		since;			/* TimestampTz of the transaction's start */
	uint64		lsn;			/* end of its commit in WAL; 0: it is open */
	int32		pid;			/* of the backend */
	int32		next;			/* in the list, or in the pool's free list */
	int32		prev;
} OpenAppend;

typedef struct OpenList
{
	int32		head;			/* the oldest, or OPENLIST_NONE */
	int32		tail;
	int32		waiting;		/* how many have committed and wait */
} OpenList;

/*
 * The least that can be given as max_waiting below, and what is enough for what
 * openlist_commit() loses not to be noticed.
 */
#define OPENLIST_WAITING_MIN	8
#define OPENLIST_WAITING_MAX	128

extern void openlist_init(OpenList *list);

/*
 * Adds pool[element], whose first_offset must exceed all in the list and whose
 * lsn is 0.
 */
extern void openlist_append(OpenList *list, OpenAppend *pool, int32 element);

/* Takes pool[element] out, wherever it stands. */
extern void openlist_remove(OpenList *list, OpenAppend *pool, int32 element);

/*
 * Marks pool[element] as committed at lsn, not 0.  At most max_waiting elements
 * wait then: the rest are merged with others, so that the watermark moves a
 * little later than it could, in fewer steps.  Returns the elements that are not
 * needed any more, as a chain by next.
 */
extern int32 openlist_commit(OpenList *list, OpenAppend *pool, int32 element,
							 uint64 lsn, int32 max_waiting);

/*
 * Takes out all that have committed at lsn or before, wherever they stand, and
 * returns them as a chain by next.
 */
extern int32 openlist_confirm(OpenList *list, OpenAppend *pool, uint64 lsn);

/* Whether a transaction of the list is still open. */
extern bool openlist_has_open(const OpenList *list, const OpenAppend *pool);

/*
 * The high watermark: the first offset that is not settled, given the next
 * offset to be handed out.
 */
extern int64 openlist_watermark(const OpenList *list, const OpenAppend *pool,
								int64 next_offset);

#endif							/* PGTOPIC_OPENLIST_H */
