/* links: base/offsets.c */
#include "c.h"

#include "base/offsets.h"
#include "unit.h"

static int64
from(OffsetComparison comparison, int64 value)
{
	OffsetRange range = {10, 20};

	return offsets_cut(range, comparison, value).from;
}

static int64
to(OffsetComparison comparison, int64 value)
{
	OffsetRange range = {10, 20};

	return offsets_cut(range, comparison, value).to;
}

static void
test_cut(void)
{
	CHECK_INT(offsets_all().from, 0);
	CHECK_INT(offsets_all().to, PG_INT64_MAX);

	CHECK_INT(from(OFFSET_LESS, 15), 10);
	CHECK_INT(to(OFFSET_LESS, 15), 15);
	CHECK_INT(to(OFFSET_LESS, 25), 20);
	CHECK_INT(to(OFFSET_LESS, PG_INT64_MIN), PG_INT64_MIN);
	CHECK_INT(to(OFFSET_LESS_EQUAL, 15), 16);
	CHECK_INT(to(OFFSET_LESS_EQUAL, 19), 20);
	CHECK_INT(to(OFFSET_LESS_EQUAL, PG_INT64_MAX), 20);
	CHECK_INT(from(OFFSET_EQUAL, 15), 15);
	CHECK_INT(to(OFFSET_EQUAL, 15), 16);
	CHECK(from(OFFSET_EQUAL, 25) >= to(OFFSET_EQUAL, 25));
	CHECK(from(OFFSET_EQUAL, 5) >= to(OFFSET_EQUAL, 5));
	CHECK_INT(from(OFFSET_GREATER_EQUAL, 15), 15);
	CHECK_INT(from(OFFSET_GREATER_EQUAL, 5), 10);
	CHECK_INT(to(OFFSET_GREATER_EQUAL, 15), 20);
	CHECK_INT(from(OFFSET_GREATER, 15), 16);
	CHECK_INT(from(OFFSET_GREATER, PG_INT64_MAX), PG_INT64_MAX);

	/* the greatest number is no offset, so nothing is lost */
	CHECK_INT(offsets_cut(offsets_all(), OFFSET_LESS_EQUAL, PG_INT64_MAX).to, PG_INT64_MAX);
	CHECK_INT(offsets_cut(offsets_all(), OFFSET_EQUAL, PG_INT64_MAX).from, PG_INT64_MAX);
}

static void
test_numbers(void)
{
	int64		numbers[] = {7, 3, 7, PG_INT64_MIN, 9, 3, 4, PG_INT64_MAX};
	int64		others[] = {3, 5, 9};
	OffsetRange ranges[8];
	OffsetRange within = {0, 9};
	int			count = offsets_sort(numbers, 8);

	CHECK_INT(count, 6);
	CHECK_INT(numbers[0], PG_INT64_MIN);
	CHECK_INT(numbers[1], 3);
	CHECK_INT(numbers[2], 4);
	CHECK_INT(numbers[3], 7);
	CHECK_INT(numbers[4], 9);
	CHECK_INT(numbers[5], PG_INT64_MAX);
	CHECK_INT(offsets_sort(numbers, 0), 0);

	CHECK_INT(offsets_to_ranges(within, numbers, count, ranges), 2);
	CHECK_INT(ranges[0].from, 3);
	CHECK_INT(ranges[0].to, 5);
	CHECK_INT(ranges[1].from, 7);
	CHECK_INT(ranges[1].to, 8);
	CHECK_INT(offsets_to_ranges(offsets_all(), numbers, count, ranges), 3);
	CHECK_INT(ranges[2].to, 10);

	CHECK_INT(offsets_intersect(numbers, count, others, 3), 2);
	CHECK_INT(numbers[0], 3);
	CHECK_INT(numbers[1], 9);
	CHECK_INT(offsets_intersect(numbers, 2, others, 0), 0);
}

int
main(void)
{
	test_cut();
	test_numbers();
	return unit_done();
}
