/* links: base/openlist.c */
/*
 * test_openlist.c
 *		Random appends and ends of transactions in several partitions that share
 *		a pool, next to a model that is too simple to be wrong; then with followers
 *		that confirm commits.
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
			pool[i].lsn = 0;
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

/* --- commits that wait for followers --- */

#define MANY		4096

typedef struct Commit
{
	int64		first_offset;
	uint64		lsn;			/* 0: open */
	bool		gone;			/* aborted, or confirmed */
} Commit;

static OpenAppend big[MANY];
static int32 free_big;

static int32
take(void)
{
	int32		element = free_big;

	free_big = big[element].next;
	return element;
}

static int
give(int32 chain)
{
	int			count = 0;

	while (chain != OPENLIST_NONE)
	{
		int32		next = big[chain].next;

		memset(&big[chain], 0x7f, sizeof(OpenAppend));
		big[chain].next = free_big;
		free_big = chain;
		chain = next;
		count++;
	}
	return count;
}

static void
fill_big(void)
{
	for (int32 i = 0; i < MANY; i++)
		big[i].next = i + 1 < MANY ? i + 1 : OPENLIST_NONE;
	free_big = 0;
}

static void
big_append(OpenList *list, int32 element, int64 first_offset)
{
	big[element].first_offset = first_offset;
	big[element].lsn = 0;
	openlist_append(list, big, element);
}

static bool
big_is_sound(const OpenList *list)
{
	int32		previous = OPENLIST_NONE;
	int			waiting = 0;

	for (int32 i = list->head; i != OPENLIST_NONE; i = big[i].next)
	{
		if (big[i].prev != previous ||
			(previous != OPENLIST_NONE && big[i].first_offset <= big[previous].first_offset))
			return false;
		waiting += big[i].lsn != 0;
		previous = i;
	}
	return list->tail == previous && list->waiting == waiting;
}

/*
 * Transactions of random length, of which some abort, and a follower that is lag
 * behind.  The watermark must never be beyond what the model says, which keeps
 * every commit, and not be far behind what it said a while ago.
 */
static void
test_waiting(uint64 lag, int32 max_waiting, int max_open)
{
	enum
	{
	STEPS_WAITING = 20000};
	static Commit commits[STEPS_WAITING];
	static int64 model_at[2 * STEPS_WAITING];	/* by LSN that was confirmed */
	int32		open[64];
	int			open_commit[64];
	int			open_count = 0;
	int			count = 0;
	int			oldest = 0;
	OpenList	list;
	int64		next_offset = 0;
	uint64		lsn = 1;
	int			ahead = 0;
	int			late = 0;
	int			unsound = 0;
	int			too_many = 0;
	int			back = 0;
	int64		last = 0;
	bool		exact = true;

	fill_big();
	openlist_init(&list);
	for (int step = 0; step < STEPS_WAITING; step++)
	{
		uint64		confirmed;
		uint64		width;
		int64		model;
		int64		watermark;

		if (open_count == 0 || (open_count < max_open && random_below(2) == 0))
		{
			open[open_count] = take();
			open_commit[open_count] = count;
			commits[count].first_offset = next_offset;
			commits[count].lsn = 0;
			commits[count].gone = false;
			big_append(&list, open[open_count], next_offset);
			open_count++;
			count++;
			next_offset += 1 + random_below(3);
		}
		else
		{
			int			i = random_below(open_count);
			Commit	   *commit = &commits[open_commit[i]];

			if (random_below(10) == 0)
			{
				openlist_remove(&list, big, open[i]);
				big[open[i]].next = OPENLIST_NONE;
				give(open[i]);
				commit->gone = true;
			}
			else
			{
				/* two commits may come here in another order than in WAL */
				commit->lsn = lsn + random_below(3);
				lsn += 1;
				exact &= give(openlist_commit(&list, big, open[i], commit->lsn,
											  max_waiting)) == 0;
			}
			open_count--;
			open[i] = open[open_count];
			open_commit[i] = open_commit[open_count];
		}

		confirmed = lsn > lag ? lsn - lag : 0;
		give(openlist_confirm(&list, big, confirmed));
		model = next_offset;
		while (oldest < count && (commits[oldest].gone ||
								  (commits[oldest].lsn != 0 && commits[oldest].lsn <= confirmed)))
			oldest++;
		if (oldest < count)
			model = commits[oldest].first_offset;
		model_at[step] = model;

		watermark = openlist_watermark(&list, big, next_offset);
		ahead += watermark > model;
		back += watermark < last;
		last = watermark;
		if (exact)
			late += watermark != model;
		else
		{
			/* steps back by twice as much WAL as the merging may cost */
			width = 2 * (4 * (lag + 3) / max_waiting + 1);
			if (step > 6 * (int) width)
				late += watermark < model_at[step - 6 * (int) width];
		}
		unsound += !big_is_sound(&list);
		too_many += list.waiting > max_waiting;
		unsound += openlist_has_open(&list, big) != (open_count > 0);
	}
	CHECK_INT(ahead, 0);
	CHECK_INT(back, 0);
	CHECK_INT(late, 0);
	CHECK_INT(unsound, 0);
	CHECK_INT(too_many, 0);

	/* in the end all is confirmed, and nothing is left but what is open */
	give(openlist_confirm(&list, big, lsn + 3));
	CHECK_INT(list.waiting, 0);
	while (open_count > 0)
	{
		openlist_remove(&list, big, open[--open_count]);
		big[open[open_count]].next = OPENLIST_NONE;
		give(open[open_count]);
	}
	CHECK_INT(list.head, OPENLIST_NONE);
	for (open_count = 0; free_big != OPENLIST_NONE; open_count++)
		free_big = big[free_big].next;
	CHECK_INT(open_count, MANY);
}

/*
 * A follower that confirms far less than is committed: the first that waits keeps
 * its LSN, and so all leave in the end.
 */
static void
test_starving(int32 max_waiting)
{
	OpenList	list;
	uint64		lsn = 1000;
	uint64		confirmed = 0;
	int32		first = OPENLIST_NONE;
	uint64		first_lsn = 0;
	int			moves = 0;
	int			pushed = 0;

	fill_big();
	openlist_init(&list);
	for (int i = 0; i < 100000; i++)
	{
		int32		element = take();

		big_append(&list, element, i);
		lsn += 1000;
		give(openlist_commit(&list, big, element, lsn, max_waiting));
		confirmed += 7;
		give(openlist_confirm(&list, big, confirmed));
		if (list.head != first)
		{
			first = list.head;
			first_lsn = big[first].lsn;
			moves++;
		}
		pushed += big[first].lsn != first_lsn;
	}
	CHECK(moves > 1);
	CHECK_INT(pushed, 0);
	CHECK(list.waiting <= max_waiting);
	give(openlist_confirm(&list, big, lsn));
	CHECK_INT(openlist_watermark(&list, big, 100000), 100000);
}

static void
test_waiting_by_hand(void)
{
	OpenList	list;

	fill_big();
	openlist_init(&list);
	CHECK_INT(openlist_confirm(&list, big, 10), OPENLIST_NONE);
	CHECK(!openlist_has_open(&list, big));
	for (int32 i = 0; i < 4; i++)
		big_append(&list, take(), 10 * i);
	CHECK(openlist_has_open(&list, big));
	CHECK_INT(openlist_commit(&list, big, 1, 100, 8), OPENLIST_NONE);
	CHECK_INT(openlist_commit(&list, big, 0, 200, 8), OPENLIST_NONE);
	CHECK_INT(openlist_commit(&list, big, 3, 300, 8), OPENLIST_NONE);
	CHECK_INT(list.waiting, 3);
	CHECK(openlist_has_open(&list, big));
	CHECK_INT(openlist_confirm(&list, big, 99), OPENLIST_NONE);
	CHECK_INT(openlist_confirm(&list, big, 100), 1);
	CHECK_INT(openlist_watermark(&list, big, 40), 0);
	CHECK_INT(openlist_confirm(&list, big, 250), 0);
	CHECK_INT(openlist_watermark(&list, big, 40), 20);

	/* an open one in front holds what has been confirmed */
	CHECK_INT(openlist_confirm(&list, big, PG_UINT64_MAX), 3);
	CHECK_INT(openlist_watermark(&list, big, 40), 20);
	CHECK_INT(openlist_commit(&list, big, 2, PG_UINT64_MAX, 8), OPENLIST_NONE);
	CHECK(!openlist_has_open(&list, big));
	openlist_remove(&list, big, 2);
	CHECK_INT(list.waiting, 0);
	CHECK_INT(openlist_watermark(&list, big, 40), 40);
}

int
main(void)
{
	test_by_hand();
	test_random();
	test_waiting_by_hand();
	test_waiting(0, OPENLIST_WAITING_MAX, 20);
	test_waiting(50, OPENLIST_WAITING_MAX, 20);
	test_waiting(1000, OPENLIST_WAITING_MAX, 1);
	test_waiting(1000, OPENLIST_WAITING_MAX, 60);
	test_waiting(2000, OPENLIST_WAITING_MIN, 60);
	test_waiting(100, OPENLIST_WAITING_MIN, 4);
	test_starving(OPENLIST_WAITING_MAX);
	test_starving(OPENLIST_WAITING_MIN);
	return unit_done();
}
