/*-------------------------------------------------------------------------
 *
 * offsets.c
 *	  Which offsets of a partition the conditions of a query leave.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/offsets.h"

OffsetRange
offsets_all(void)
{
	OffsetRange all = {0, PG_INT64_MAX};

	return all;
}

/* No message has the greatest number as its offset, so it can stand for the end. */
OffsetRange
offsets_cut(OffsetRange range, OffsetComparison comparison, int64 value)
{
	int64		next = value < PG_INT64_MAX ? value + 1 : PG_INT64_MAX;

	switch (comparison)
	{
		case OFFSET_LESS:
			range.to = Min(range.to, value);
			break;
		case OFFSET_LESS_EQUAL:
			range.to = Min(range.to, next);
			break;
		case OFFSET_EQUAL:
			range.from = Max(range.from, value);
			range.to = Min(range.to, next);
			break;
		case OFFSET_GREATER_EQUAL:
			range.from = Max(range.from, value);
			break;
		case OFFSET_GREATER:
			range.from = Max(range.from, next);
			break;
	}
	return range;
}

static int
compare(const void *a, const void *b)
{
	int64		left = *(const int64 *) a;
	int64		right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

int
offsets_sort(int64 *numbers, int count)
{
	int			kept = 0;

	if (count > 1)
		qsort(numbers, count, sizeof(int64), compare);
	for (int i = 0; i < count; i++)
	{
		if (kept == 0 || numbers[kept - 1] != numbers[i])
			numbers[kept++] = numbers[i];
	}
	return kept;
}

int
offsets_intersect(int64 *numbers, int count, const int64 *others, int others_count)
{
	int			kept = 0;
	int			j = 0;

	for (int i = 0; i < count; i++)
	{
		while (j < others_count && others[j] < numbers[i])
			j++;
		if (j < others_count && others[j] == numbers[i])
			numbers[kept++] = numbers[i];
	}
	return kept;
}

int
offsets_to_ranges(OffsetRange within, const int64 *numbers, int count, OffsetRange *ranges)
{
	int			made = 0;

	for (int i = 0; i < count; i++)
	{
		if (numbers[i] < within.from || numbers[i] >= within.to)
			continue;
		if (made > 0 && ranges[made - 1].to == numbers[i])
			ranges[made - 1].to++;
		else
		{
			ranges[made].from = numbers[i];
			ranges[made].to = numbers[i] + 1;
			made++;
		}
	}
	return made;
}
