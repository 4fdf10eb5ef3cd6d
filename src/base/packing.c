/*-------------------------------------------------------------------------
 *
 * packing.c
 *	  How many messages go into one row of storage.
 *
 * Rows are filled up to one page, not further.  Larger rows would go to TOAST,
 * which costs a second table, a second index and, without lz4, most of the
 * speed; and a reader that starts in the middle unpacks less.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/packing.h"

/*
 * Tuple header with a null bitmap (32), the fixed columns partition,
 * base_offset, last_offset, leader_epoch and "timestamp" with their padding
 * (40), and padding between the arrays (a varlena header is 4-aligned; 8 for
 * the array of timestamps).
 */
#define ROW_OVERHEAD		(32 + 40 + 8)

/* varlena header and array header of a one-dimensional array: 4 + 20 */
#define ARRAY_OVERHEAD		24

#define ELEMENT_SIZE(len)	((len) < 0 ? 0 : (((int64) (len) + 4 + 3) & ~INT64CONST(3)))

/* The null bitmap of one array, were it needed, with its alignment. */
static int64
bitmap_size(int messages)
{
	return (messages + 7) / 8 + 8;
}

void
packing_start(Packing *packing, PackColumns columns)
{
	packing->columns = columns;
	packing->messages = 0;
	packing->bytes = 0;
}

bool
packing_add(Packing *packing, PackSizes sizes)
{
	int			messages = packing->messages + 1;
	int64		bytes = packing->bytes + ELEMENT_SIZE(sizes.value);
	int64		arrays = 1;

	if (packing->columns.keys)
	{
		bytes += ELEMENT_SIZE(sizes.key);
		arrays++;
	}
	if (packing->columns.headers)
	{
		bytes += ELEMENT_SIZE(sizes.headers);
		arrays++;
	}
	if (packing->columns.timestamps)
	{
		bytes += 8;
		arrays++;
	}

	if (packing->messages > 0 &&
		ROW_OVERHEAD + arrays * (ARRAY_OVERHEAD + bitmap_size(messages)) + bytes > PACK_TUPLE_MAX)
		return false;

	packing->messages = messages;
	packing->bytes = bytes;
	return true;
}
