/*-------------------------------------------------------------------------
 *
 * segmap.c
 *	  The segments of a partition, and which of them are too many.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/segmap.h"

int
segmap_seek(const Segment *segments, int count, int64 offset)
{
	int			low = 0;
	int			high = count;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (segments[middle].to > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

int
segmap_expired_by_size(const int64 *sizes, int count, int64 rest, int64 limit)
{
	int64		total = rest;
	int			expired = 0;

	for (int i = 0; i < count; i++)
		total += sizes[i];
	while (expired < count && total - sizes[expired] >= limit)
		total -= sizes[expired++];
	return expired;
}
