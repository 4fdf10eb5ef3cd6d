/*-------------------------------------------------------------------------
 *
 * openlist.c
 *	  The open appends of one partition, in offset order.
 *
 * A transaction that ends leaves the list at once, also from the middle, so the
 * list is never longer than there are transactions with appends: one that stays
 * open for hours holds the watermark, but no memory of those after it.
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
}

int64
openlist_watermark(const OpenList *list, const OpenAppend *pool, int64 next_offset)
{
	if (list->head == OPENLIST_NONE)
		return next_offset;
	return pool[list->head].first_offset;
}
