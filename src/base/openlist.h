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
	int32		pid;			/* of the backend */
	int32		next;			/* in the list, or in the pool's free list */
	int32		prev;
} OpenAppend;

typedef struct OpenList
{
	int32		head;			/* the oldest, or OPENLIST_NONE */
	int32		tail;
} OpenList;

extern void openlist_init(OpenList *list);

/* Adds pool[element], whose first_offset must exceed all in the list. */
extern void openlist_append(OpenList *list, OpenAppend *pool, int32 element);

/* Takes pool[element] out, wherever it stands. */
extern void openlist_remove(OpenList *list, OpenAppend *pool, int32 element);

/*
 * The high watermark: the first offset that is not settled, given the next
 * offset to be handed out.
 */
extern int64 openlist_watermark(const OpenList *list, const OpenAppend *pool,
								int64 next_offset);

#endif							/* PGTOPIC_OPENLIST_H */
