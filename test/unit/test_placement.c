/* links: base/placement.c */
/*
 * test_placement.c
 *		Kafka's own example, and what the rule is for, for all sizes.
 */
#include "c.h"

#include "base/placement.h"
#include "unit.h"

#define BROKERS_MAX		12

static int32 brokers[BROKERS_MAX];

static void
test_kafka_example(void)
{
	/* AdminRackAwareTest/AdminUtils: 5 brokers, 10 partitions, 3 replicas, from 0 with shift 0 */
	static const int32 expected[10][3] = {
		{0, 1, 2}, {1, 2, 3}, {2, 3, 4}, {3, 4, 0}, {4, 0, 1},
		{0, 2, 3}, {1, 3, 4}, {2, 4, 0}, {3, 0, 1}, {4, 1, 2}
	};
	int32		ids[5] = {0, 1, 2, 3, 4};

	for (int p = 0; p < 10; p++)
	{
		int32		replicas[3];

		place_replicas(ids, 5, 3, 0, 0, p, replicas);
		CHECK(memcmp(replicas, expected[p], sizeof(replicas)) == 0);
	}
}

static void
test_few(void)
{
	int32		one[1] = {7};
	int32		two[2] = {3, 9};
	int32		replicas[2];

	place_replicas(one, 1, 1, 12345, 678, 90, replicas);
	CHECK_INT(replicas[0], 7);
	place_replicas(two, 2, 2, 0, 5, 0, replicas);
	CHECK(replicas[0] == 3 && replicas[1] == 9);
	place_replicas(two, 2, 2, 0, 5, 1, replicas);
	CHECK(replicas[0] == 9 && replicas[1] == 3);
	/* the largest numbers there are */
	place_replicas(two, 2, 2, PG_UINT32_MAX, PG_UINT32_MAX, PG_INT32_MAX, replicas);
	CHECK(replicas[0] == 3 && replicas[1] == 9);
}

/* The broker with an id, by its place. */
static int
place_of(int count, int32 id)
{
	for (int i = 0; i < count; i++)
	{
		if (brokers[i] == id)
			return i;
	}
	return -1;
}

static int
range_of(const int *values, int count)
{
	int			least = values[0];
	int			most = values[0];

	for (int i = 1; i < count; i++)
	{
		least = Min(least, values[i]);
		most = Max(most, values[i]);
	}
	return most - least;
}

/* What is wrong with a topic's placement: a number of a kind, 0 if nothing is. */
static int
fault(int count, int factor, int partitions, uint32 start, uint32 shift)
{
	int			leads[BROKERS_MAX] = {0};
	int			holds[BROKERS_MAX] = {0};
	int			follows[BROKERS_MAX][BROKERS_MAX] = {0};

	for (int p = 0; p < partitions; p++)
	{
		int32		replicas[BROKERS_MAX];
		bool		seen[BROKERS_MAX] = {false};

		place_replicas(brokers, count, factor, start, shift, p, replicas);
		for (int i = 0; i < factor; i++)
		{
			int			at = place_of(count, replicas[i]);

			if (at < 0 || seen[at])
				return 1;
			seen[at] = true;
			holds[at]++;
			if (i == 0)
				leads[at]++;
			else
				follows[place_of(count, replicas[0])][at]++;
		}
	}
	if (range_of(leads, count) > 1)
		return 2;
	if (partitions % count == 0 && range_of(holds, count) > 0)
		return 3;

	/* after count - 1 rounds each leader has used each shift once */
	if (factor > 1 && partitions == count * (count - 1))
	{
		for (int i = 0; i < count; i++)
		{
			follows[i][i] = factor - 1;
			if (range_of(follows[i], count) > 0)
				return 4;
		}
	}
	return 0;
}

static void
test_balance(void)
{
	int			bad = 0;

	for (int i = 0; i < BROKERS_MAX; i++)
		brokers[i] = 2 + 3 * i;
	for (int count = 1; count <= BROKERS_MAX; count++)
	{
		for (int factor = 1; factor <= count; factor++)
		{
			for (int partitions = 1; partitions <= count * count; partitions++)
			{
				uint32		start = partitions * 2654435761U + factor;
				uint32		shift = start * 2246822519U + count;

				bad += fault(count, factor, partitions, start, shift) != 0;
				bad += fault(count, factor, partitions, 0, 0) != 0;
			}
		}
	}
	CHECK_INT(bad, 0);
}

int
main(void)
{
	test_kafka_example();
	test_few();
	test_balance();
	return unit_done();
}
