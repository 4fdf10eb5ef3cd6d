/* links: base/segmap.c */
/*
 * test_segmap.c
 *		The binary search next to a linear one; what expires by size next to a
 *		model that tries every number of segments.
 */
#include "c.h"

#include "base/segmap.h"
#include "unit.h"

#define SEGMENTS_MAX	40

static uint64 state = 88172645463325252ULL;

static uint32
random_below(uint32 bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32) (state >> 32) % bound;
}

static int
linear_seek(const Segment *segments, int count, int64 offset)
{
	int			i = 0;

	while (i < count && segments[i].to <= offset)
		i++;
	return i;
}

static void
test_seek(void)
{
	Segment		one = {1000, 2000, 1};
	Segment		segments[SEGMENTS_MAX];
	int			bad = 0;

	CHECK_INT(segmap_seek(NULL, 0, 0), 0);
	CHECK_INT(segmap_seek(NULL, 0, PG_INT64_MAX), 0);
	CHECK_INT(segmap_seek(&one, 1, 0), 0);
	CHECK_INT(segmap_seek(&one, 1, 999), 0);
	CHECK_INT(segmap_seek(&one, 1, 1000), 0);
	CHECK_INT(segmap_seek(&one, 1, 1999), 0);
	CHECK_INT(segmap_seek(&one, 1, 2000), 1);
	CHECK_INT(segmap_seek(&one, 1, PG_INT64_MAX), 1);

	/* a log with a hole: from there, to the next one */
	segments[0] = (Segment) {1000, 2000, 1};
	segments[1] = (Segment) {5000, 6000, 2};
	CHECK_INT(segmap_seek(segments, 2, 1999), 0);
	CHECK_INT(segmap_seek(segments, 2, 2000), 1);
	CHECK_INT(segmap_seek(segments, 2, 4999), 1);
	CHECK_INT(segmap_seek(segments, 2, 5999), 1);
	CHECK_INT(segmap_seek(segments, 2, 6000), 2);

	/* the last segment may end at the last offset that there is */
	segments[1] = (Segment) {5000, PG_INT64_MAX, 2};
	CHECK_INT(segmap_seek(segments, 2, PG_INT64_MAX - 1), 1);
	CHECK_INT(segmap_seek(segments, 2, PG_INT64_MAX), 2);

	for (int round = 0; round < 2000; round++)
	{
		int			count = random_below(SEGMENTS_MAX + 1);
		int64		end = random_below(3) ? 0 : random_below(100);

		for (int i = 0; i < count; i++)
		{
			segments[i].from = end + (random_below(4) ? 0 : random_below(10));
			segments[i].to = segments[i].from + 1 + random_below(20);
			segments[i].relid = i + 1;
			end = segments[i].to;
		}
		for (int64 offset = 0; offset <= end + 2; offset++)
			bad += segmap_seek(segments, count, offset) != linear_seek(segments, count, offset);
	}
	CHECK_INT(bad, 0);
}

/* The largest number of segments without which the limit is still reached. */
static int
naive_expired(const int64 *sizes, int count, int64 rest, int64 limit)
{
	int			expired = 0;

	for (int n = 1; n <= count; n++)
	{
		int64		left = rest;

		for (int i = n; i < count; i++)
			left += sizes[i];
		if (left >= limit)
			expired = n;
	}
	return expired;
}

static void
test_expired_by_size(void)
{
	int64		sizes[SEGMENTS_MAX] = {100, 200, 300};
	int			bad = 0;
	int			seen[SEGMENTS_MAX + 1] = {0};
	int			different = 0;

	/* 100 + 200 + 300, and 50 that are being written */
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, PG_INT64_MAX), 0);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 651), 0);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 650), 0);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 551), 0);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 550), 1);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 351), 1);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 350), 2);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 51), 2);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 50), 3);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 50, 0), 3);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 0, 0), 3);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 0, 1), 2);

	/* what cannot go is large enough alone, or there is nothing that can */
	CHECK_INT(segmap_expired_by_size(sizes, 3, 1000, 1000), 3);
	CHECK_INT(segmap_expired_by_size(sizes, 3, 1000, 1001), 2);
	CHECK_INT(segmap_expired_by_size(NULL, 0, 1000, 0), 0);
	CHECK_INT(segmap_expired_by_size(NULL, 0, 0, 0), 0);

	for (int round = 0; round < 100000; round++)
	{
		int			count = random_below(10);
		int64		total = 0;
		int64		rest = random_below(2) ? 0 : random_below(1000);
		int64		limit;
		int			got;

		for (int i = 0; i < count; i++)
		{
			/* 0 is the size of what is before the log start already */
			sizes[i] = random_below(3) ? random_below(500) : 0;
			total += sizes[i];
		}
		limit = random_below((uint32) (total + rest) * 5 / 4 + 2);
		got = segmap_expired_by_size(sizes, count, rest, limit);
		bad += got != naive_expired(sizes, count, rest, limit);
		if (got >= 0 && got <= SEGMENTS_MAX)
			seen[got]++;
	}
	CHECK_INT(bad, 0);
	for (int i = 0; i <= SEGMENTS_MAX; i++)
		different += seen[i] > 0;
	CHECK(different == 10);
}

int
main(void)
{
	test_seek();
	test_expired_by_size();
	return unit_done();
}
