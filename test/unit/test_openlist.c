/* links: base/openlist.c */
/*
 * test_openlist.c
 *		Random appends and ends of transactions in several partitions that share
 *		a pool, next to a model that is too simple to be wrong.
 */
#include "c.h"

#include "base/openlist.h"
#include "unit.h"

#define LISTS		3
#define POOL		64
#define STEPS		200000

typedef struct Model
{
	int64		next_offset;
	int64		first[POOL];	/* of open append i, or -1 */
} Model;

static OpenAppend pool[POOL];
static OpenList lists[LISTS];
static Model models[LISTS];
static bool used[POOL];

static uint64 state = 88172645463325252ULL;

static uint32
random_below(uint32 bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32) (state >> 32) % bound;
}

/* The smallest first offset of what is open, else the next offset. */
static int64
model_watermark(const Model *model)
{
	int64		watermark = model->next_offset;

	for (int i = 0; i < POOL; i++)
	{
		if (model->first[i] >= 0 && model->first[i] < watermark)
			watermark = model->first[i];
	}
	return watermark;
}

static int
model_count(const Model *model)
{
	int			count = 0;

	for (int i = 0; i < POOL; i++)
		count += model->first[i] >= 0;
	return count;
}

/* Whether a list holds what its model does, in order, read from either end. */
static bool
list_matches(const OpenList *list, const Model *model)
{
	int			count = 0;
	int64		last = -1;
	int32		previous = OPENLIST_NONE;
	int32		i;

	for (i = list->head; i != OPENLIST_NONE; i = pool[i].next)
	{
		if (i < 0 || i >= POOL || ++count > POOL ||
			pool[i].prev != previous ||
			model->first[i] != pool[i].first_offset ||
			pool[i].first_offset <= last)
			return false;
		last = pool[i].first_offset;
		previous = i;
	}
	return list->tail == previous && count == model_count(model);
}

static void
test_random(void)
{
	int			bad_watermarks = 0;
	int			bad_lists = 0;
	int			watermarks_back = 0;
	int			longest = 0;
	int			open = 0;
	int			emptied = 0;
	int64		watermarks[LISTS] = {0};

	for (int l = 0; l < LISTS; l++)
	{
		openlist_init(&lists[l]);
		models[l].next_offset = 0;
		for (int i = 0; i < POOL; i++)
			models[l].first[i] = -1;
	}

	for (int step = 0; step < STEPS; step++)
	{
		int			l = random_below(LISTS);
		int32		i = random_below(POOL);
		/* phases of growing and of shrinking, so that lists get long and empty */
		bool		growing = (step / 500) % 2 == 0;
		int64		watermark;

		if (!used[i] && random_below(10) < (growing ? 9 : 2))
		{
			pool[i].first_offset = models[l].next_offset;
			openlist_append(&lists[l], pool, i);
			models[l].first[i] = models[l].next_offset;
			models[l].next_offset += 1 + random_below(1000);
			used[i] = true;
			open++;
		}
		else if (used[i] && random_below(10) < (growing ? 2 : 9))
		{
			for (l = 0; models[l].first[i] < 0; l++)
				;
			openlist_remove(&lists[l], pool, i);
			models[l].first[i] = -1;
			used[i] = false;
			/* nothing in a list may depend on what is left behind here */
			memset(&pool[i], 0x7f, sizeof(OpenAppend));
			open--;
			emptied += model_count(&models[l]) == 0;
		}
		else if (random_below(4) == 0)
			models[l].next_offset += random_below(3);	/* by who has an append */

		longest = Max(longest, open);
		watermark = openlist_watermark(&lists[l], pool, models[l].next_offset);
		bad_watermarks += watermark != model_watermark(&models[l]);
		bad_lists += !list_matches(&lists[l], &models[l]);
		watermarks_back += watermark < watermarks[l];
		watermarks[l] = watermark;
	}
	CHECK_INT(bad_watermarks, 0);
	CHECK_INT(bad_lists, 0);
	CHECK_INT(watermarks_back, 0);

	/* it has been where it should: nearly full, and empty many times */
	CHECK(longest > POOL - 4);
	CHECK(emptied > 100);
}

static void
test_by_hand(void)
{
	OpenList	list;

	openlist_init(&list);
	CHECK_INT(list.head, OPENLIST_NONE);
	CHECK_INT(openlist_watermark(&list, pool, 0), 0);
	CHECK_INT(openlist_watermark(&list, pool, 17), 17);

	/* three transactions; that in the middle, the last and the first end */
	pool[5].first_offset = 10;
	openlist_append(&list, pool, 5);
	CHECK_INT(openlist_watermark(&list, pool, 12), 10);
	pool[0].first_offset = 12;
	openlist_append(&list, pool, 0);
	pool[9].first_offset = PG_INT64_MAX - 1;
	openlist_append(&list, pool, 9);
	openlist_remove(&list, pool, 0);
	CHECK_INT(openlist_watermark(&list, pool, PG_INT64_MAX), 10);
	openlist_remove(&list, pool, 5);
	CHECK_INT(openlist_watermark(&list, pool, PG_INT64_MAX), PG_INT64_MAX - 1);
	openlist_remove(&list, pool, 9);
	CHECK_INT(openlist_watermark(&list, pool, PG_INT64_MAX), PG_INT64_MAX);
	CHECK_INT(list.head, OPENLIST_NONE);
	CHECK_INT(list.tail, OPENLIST_NONE);
}

int
main(void)
{
	test_by_hand();
	test_random();
	return unit_done();
}
