/*-------------------------------------------------------------------------
 *
 * offsets.h
 *	  Which offsets of a partition the conditions of a query leave.
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_OFFSETS_H
#define PGTOPIC_OFFSETS_H

#include "c.h"

/* Offsets from <= offset < to; empty if from >= to. */
typedef struct OffsetRange
{
	int64		from;
	int64		to;
} OffsetRange;

typedef enum OffsetComparison
{
	OFFSET_LESS,
	OFFSET_LESS_EQUAL,
	OFFSET_EQUAL,
	OFFSET_GREATER_EQUAL,
	OFFSET_GREATER
} OffsetComparison;

/* All offsets that there can be: 0 and more, PG_INT64_MAX excluded. */
extern OffsetRange offsets_all(void);

/* What a comparison with a value leaves of a range. */
extern OffsetRange offsets_cut(OffsetRange range, OffsetComparison comparison, int64 value);

/* Sorts numbers, and leaves one of each; returns how many there are then. */
extern int	offsets_sort(int64 *numbers, int count);

/* Leaves those of numbers that are in others, too; both are sorted. */
extern int	offsets_intersect(int64 *numbers, int count, const int64 *others, int others_count);

/*
 * Brings sorted numbers that are in a range into as few ranges as possible, ascending.
 * There is room for count of them.  Returns how many there are.
 */
extern int	offsets_to_ranges(OffsetRange within, const int64 *numbers, int count,
							  OffsetRange *ranges);

#endif							/* PGTOPIC_OFFSETS_H */
