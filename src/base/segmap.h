/*-------------------------------------------------------------------------
 *
 * segmap.h
 *	  The segments of a partition, and which of them are too many.
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SEGMAP_H
#define PGTOPIC_SEGMAP_H

#include "c.h"

/* A table that holds the batches whose last offset is in [from, to). */
typedef struct Segment
{
	int64		from;
	int64		to;
	Oid			relid;
} Segment;

/*
 * The number of the first segment, in ascending order, whose end is beyond the
 * offset: the one that holds it or, where there is a hole, the next.  Returns
 * count if there is none.
 */
extern int	segmap_seek(const Segment *segments, int count, int64 offset);

/*
 * How many of the oldest segments go, so that what is left is as small as can
 * be but not below limit bytes (Kafka's retention.bytes: a segment goes only
 * if the limit is still reached without it).  The sizes are those of the
 * segments that may go; rest is the size of those after them.
 */
extern int	segmap_expired_by_size(const int64 *sizes, int count, int64 rest,
								   int64 limit);

#endif							/* PGTOPIC_SEGMAP_H */
