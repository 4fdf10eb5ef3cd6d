/*-------------------------------------------------------------------------
 *
 * openlist.c
 *	  The open appends of one partition, in offset order.
 *
 * A transaction that ends leaves the list at once, also from the middle, so the
 * list is never longer than there are transactions with appends: one that stays
 * open for hours holds the watermark, but no memory of those after it.
 *
 * Those that wait for followers could be any number, if a follower is slow and
 * nobody waits for it.  So from time to time they are thinned out: see thin_out().
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/openlist.h"

void
openlist_init(OpenList *list)
{
	list->head = OPENLIST_NONE;
	list->tail = OPENLIST_NONE;
	list->waiting = 0;
}

void
openlist_append(OpenList *list, OpenAppend *pool, int32 element)
{
	pool[element].prev = list->tail;
	pool[element].next = OPENLIST_NONE;
	if (list->tail == OPENLIST_NONE)
		list->head = element;
	else
		pool[list->tail].next = element;
	list->tail = element;
}

void
openlist_remove(OpenList *list, OpenAppend *pool, int32 element)
{
	OpenAppend *append = &pool[element];

	if (append->prev == OPENLIST_NONE)
		list->head = append->next;
	else
		pool[append->prev].next = append->next;
	if (append->next == OPENLIST_NONE)
		list->tail = append->prev;
	else
		pool[append->next].prev = append->prev;
	if (append->lsn != 0)
		list->waiting--;
}

/* Takes pool[element] out and puts it in front of a chain. */
static void
move_to_chain(OpenList *list, OpenAppend *pool, int32 element, int32 *chain)
{
	openlist_remove(list, pool, element);
	pool[element].next = *chain;
	*chain = element;
}

/*
 * Takes elements that wait out of the list until few are left.
 *
 * The watermark stops at the first that is left.  So one that committed before
 * another that stands in front of it says nothing, and goes.  Among the others
 * lsn grows from head to tail.  These are put into classes, by lsn, of a
 * width that is a power of two, and of each class the first stays, with the
 * lsn of the last.
 *
 * What that costs: an append leaves when all of its class could have, which is
 * later by no more than the width, at most 4 / max_waiting of what the follower
 * is behind.  It does not add up, since classes of a greater width consist of
 * whole classes of a smaller one.
 *
 * And nobody starves, however slow a follower is: the first that waits keeps its
 * lsn.  So it leaves when the follower has come there, then the next is first, and
 * there are finitely many before any given one.
 */
static int32
thin_out(OpenList *list, OpenAppend *pool, int32 max_waiting)
{
	int32		chain = OPENLIST_NONE;
	int32		first = OPENLIST_NONE;
	int32		last = OPENLIST_NONE;
	int32		next;
	uint64		newest = 0;
	int			shift = 0;

	for (int32 i = list->head; i != OPENLIST_NONE; i = pool[i].next)
	{
		if (pool[i].lsn != 0 && first == OPENLIST_NONE)
			first = i;
		newest = Max(newest, pool[i].lsn);
	}
	while ((newest - pool[first].lsn) >> shift >= (uint64) (max_waiting / 2))
		shift++;

	last = first;
	for (int32 i = pool[first].next; i != OPENLIST_NONE; i = next)
	{
		next = pool[i].next;
		if (pool[i].lsn == 0)
			continue;
		if (pool[i].lsn <= pool[last].lsn)
			move_to_chain(list, pool, i, &chain);
		else if (last != first && pool[i].lsn >> shift == pool[last].lsn >> shift)
		{
			pool[last].lsn = pool[i].lsn;
			move_to_chain(list, pool, i, &chain);
		}
		else
			last = i;
	}
	return chain;
}

int32
openlist_commit(OpenList *list, OpenAppend *pool, int32 element, uint64 lsn,
				int32 max_waiting)
{
	pool[element].lsn = lsn;
	list->waiting++;
	if (list->waiting <= max_waiting)
		return OPENLIST_NONE;
	return thin_out(list, pool, max_waiting);
}

int32
openlist_confirm(OpenList *list, OpenAppend *pool, uint64 lsn)
{
	int32		chain = OPENLIST_NONE;
	int32		left = list->waiting;
	int32		next;

	for (int32 i = list->head; i != OPENLIST_NONE && left > 0; i = next)
	{
		next = pool[i].next;
		if (pool[i].lsn == 0)
			continue;
		left--;
		if (pool[i].lsn <= lsn)
			move_to_chain(list, pool, i, &chain);
	}
	return chain;
}

bool
openlist_has_open(const OpenList *list, const OpenAppend *pool)
{
	int32		left = list->waiting;

	for (int32 i = list->head; i != OPENLIST_NONE; i = pool[i].next)
	{
		if (pool[i].lsn == 0)
			return true;
		if (--left == 0)
			return pool[i].next != OPENLIST_NONE;
	}
	return false;
}

int64
openlist_watermark(const OpenList *list, const OpenAppend *pool, int64 next_offset)
{
	if (list->head == OPENLIST_NONE)
		return next_offset;
	return pool[list->head].first_offset;
}
