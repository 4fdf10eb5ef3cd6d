/* links: base/packing.c */
/*
 * test_packing.c
 *		Rows of storage must fit a page, and should fill it.  What a row really
 *		takes is computed here from the server's own headers, the way
 *		heap_form_tuple() and construct_md_array() lay it out.
 */
#undef FRONTEND
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/array.h"

#include "base/packing.h"
#include "unit.h"

#define MESSAGES_MAX	100000
#define COLUMNS			9		/* of a segment */

/* The messages of one row. */
static PackSizes row[MESSAGES_MAX];
static int	row_count;

static uint64 state = 88172645463325252ULL;

static uint32
random_below(uint32 bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32) (state >> 32) % bound;
}

typedef enum ArrayOf
{
	KEYS,
	VALUES,
	HEADERS
} ArrayOf;

static int64
element(int i, ArrayOf what)
{
	return what == KEYS ? row[i].key : what == VALUES ? row[i].value : row[i].headers;
}

/*
 * Adds an array of varlenas to the data of a tuple.  One whose elements are all
 * NULL is NULL itself, but for the values'.
 */
static Size
add_array(Size data, ArrayOf what, bool *has_nulls)
{
	bool		nulls = false;
	bool		any = what == VALUES;
	Size		size = 0;

	for (int i = 0; i < row_count; i++)
	{
		if (element(i, what) < 0)
			nulls = true;
		else
		{
			any = true;
			size = INTALIGN(size + VARHDRSZ + element(i, what));
		}
	}
	if (!any)
	{
		*has_nulls = true;
		return data;
	}
	size += nulls ? ARR_OVERHEAD_WITHNULLS(1, row_count) : ARR_OVERHEAD_NONULLS(1);

	/* a short one has a header of one byte and is not aligned */
	if (size - VARHDRSZ + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
		return data + size - VARHDRSZ + VARHDRSZ_SHORT;
	return INTALIGN(data) + size;
}

/*
 * The length of the heap tuple of the messages in row, if their timestamps
 * differ, which is the worst case.
 */
static Size
tuple_size(PackColumns columns)
{
	Size		data = 0;
	bool		has_nulls = false;

	data += 2 * sizeof(int32);	/* partition, leader_epoch */
	data = DOUBLEALIGN(data) + 3 * sizeof(int64);	/* offsets, timestamp */
	if (columns.keys)
		data = add_array(data, KEYS, &has_nulls);
	else
		has_nulls = true;
	data = add_array(data, VALUES, &has_nulls);
	if (columns.headers)
		data = add_array(data, HEADERS, &has_nulls);
	else
		has_nulls = true;
	if (columns.timestamps)
	{
		Size		size = ARR_OVERHEAD_NONULLS(1) + row_count * sizeof(int64);

		if (size - VARHDRSZ + VARHDRSZ_SHORT <= VARATT_SHORT_MAX)
			data += size - VARHDRSZ + VARHDRSZ_SHORT;
		else
			data = DOUBLEALIGN(data) + size;
	}
	else
		has_nulls = true;

	return MAXALIGN(SizeofHeapTupleHeader + (has_nulls ? BITMAPLEN(COLUMNS) : 0)) + data;
}

/* As many messages of the same sizes as go into a row. */
static int
fill(PackColumns columns, PackSizes sizes)
{
	Packing		packing;

	packing_start(&packing, columns);
	row_count = 0;
	while (row_count < MESSAGES_MAX && packing_add(&packing, sizes))
		row[row_count++] = sizes;
	return row_count;
}

static const PackColumns no_columns = {false, false, false};
static const PackColumns all_columns = {true, true, true};

static void
test_by_hand(void)
{
	Packing		packing;
	int			count;

	/* the limit is PostgreSQL's: no larger row fits a page */
	CHECK_INT(PACK_TUPLE_MAX, MaxHeapTupleSize);

	/* 77 messages of 100 bytes are what a page can hold, 78 are not */
	CHECK_INT(fill(no_columns, (PackSizes) {-1, 100, -1}), 77);
	CHECK(tuple_size(no_columns) <= MaxHeapTupleSize);
	row[row_count++] = row[0];
	CHECK(tuple_size(no_columns) > MaxHeapTupleSize);

	/* the same with 10 bytes of key, 20 of headers, and timestamps that differ */
	CHECK_INT(fill(all_columns, (PackSizes) {10, 100, 20}), 52);
	CHECK(tuple_size(all_columns) <= MaxHeapTupleSize);

	/* nothing but tombstones without keys: a bit each */
	count = fill(no_columns, (PackSizes) {-1, -1, -1});
	CHECK(count > 60000 && count < MESSAGES_MAX);
	CHECK(tuple_size(no_columns) <= MaxHeapTupleSize);

	/* empty values: a header each */
	count = fill(no_columns, (PackSizes) {-1, 0, -1});
	CHECK(count > 1900);
	CHECK(tuple_size(no_columns) <= MaxHeapTupleSize);

	/* a large message gets a row of its own, wherever it comes */
	packing_start(&packing, no_columns);
	CHECK(packing_add(&packing, (PackSizes) {-1, 1024 * 1024, -1}));
	CHECK(!packing_add(&packing, (PackSizes) {-1, 1, -1}));
	CHECK(!packing_add(&packing, (PackSizes) {-1, -1, -1}));
	CHECK_INT(packing.messages, 1);
	packing_start(&packing, no_columns);
	CHECK(packing_add(&packing, (PackSizes) {-1, 1, -1}));
	CHECK(!packing_add(&packing, (PackSizes) {-1, 1024 * 1024, -1}));
	CHECK_INT(packing.messages, 1);
	CHECK(packing_add(&packing, (PackSizes) {-1, 1, -1}));
	CHECK_INT(packing.messages, 2);

	/* large in its key, or in its headers */
	packing_start(&packing, all_columns);
	CHECK(packing_add(&packing, (PackSizes) {9000, 1, 1}));
	CHECK(!packing_add(&packing, (PackSizes) {-1, -1, -1}));
	packing_start(&packing, all_columns);
	CHECK(packing_add(&packing, (PackSizes) {1, 1, 9000}));
	CHECK(!packing_add(&packing, (PackSizes) {-1, -1, -1}));

	/* the largest that there can be, and sums that do not fit an int */
	packing_start(&packing, all_columns);
	CHECK(packing_add(&packing, (PackSizes) {PG_INT32_MAX, PG_INT32_MAX, PG_INT32_MAX}));
	CHECK(!packing_add(&packing, (PackSizes) {PG_INT32_MAX, PG_INT32_MAX, PG_INT32_MAX}));
	CHECK(!packing_add(&packing, (PackSizes) {0, 0, 0}));

	/* a row begins empty */
	packing_start(&packing, no_columns);
	CHECK_INT(packing.messages, 0);
	CHECK(packing_add(&packing, (PackSizes) {-1, 8000, -1}));
	packing_start(&packing, no_columns);
	CHECK(packing_add(&packing, (PackSizes) {-1, 8000, -1}));
	CHECK_INT(packing.messages, 1);
}

/* Two messages up to the last byte of a page: where do they part? */
static void
test_last_bytes(void)
{
	int64		largest = 0;

	for (int64 size = 7800; size < 8200; size++)
	{
		Packing		packing;
		bool		together;

		packing_start(&packing, no_columns);
		row[0] = (PackSizes) {-1, 100, -1};
		row[1] = (PackSizes) {-1, size, -1};
		row_count = 2;
		(void) packing_add(&packing, row[0]);
		together = packing_add(&packing, row[1]);
		if (together && tuple_size(no_columns) > MaxHeapTupleSize)
			CHECK_INT(size, -1);
		if (together)
			largest = size;
	}

	/* what is given away is small change */
	row[1].value = largest;
	CHECK(tuple_size(no_columns) > MaxHeapTupleSize - 48);
}

/*
 * Messages of random sizes, in the proportions of some load: whatever is put
 * into a row together fits, and what is refused would not have, or hardly.
 */
static void
test_random(void)
{
	static const uint32 bounds[] = {1, 2, 8, 30, 130, 300, 1000, 3000, 9000};
	int			too_large = 0;
	int			too_small = 0;
	int			shared = 0;
	int			alone = 0;
	int			miscounted = 0;

	for (int round = 0; round < 3000; round++)
	{
		PackColumns columns;
		Packing		packing;
		uint32		key_bound = bounds[random_below(lengthof(bounds))];
		uint32		value_bound = bounds[random_below(lengthof(bounds))];
		uint32		header_bound = bounds[random_below(lengthof(bounds))];
		uint32		null_tenths = random_below(11);
		int			rows = 0;

		columns.keys = random_below(2);
		columns.headers = random_below(2);
		columns.timestamps = random_below(2);
		packing_start(&packing, columns);
		row_count = 0;
		while (rows < 3 && row_count < MESSAGES_MAX - 1)
		{
			PackSizes	sizes;
			Size		size;
			Size		given_away;

			sizes.key = columns.keys && random_below(10) >= null_tenths ?
				(int64) random_below(key_bound) : -1;
			sizes.value = random_below(10) >= null_tenths ? (int64) random_below(value_bound) : -1;
			sizes.headers = columns.headers && random_below(10) >= null_tenths ?
				(int64) random_below(header_bound) : -1;

			if (packing_add(&packing, sizes))
			{
				row[row_count++] = sizes;
				continue;
			}

			miscounted += packing.messages != row_count;
			size = tuple_size(columns);
			if (row_count > 1)
			{
				too_large += size > MaxHeapTupleSize;
				shared++;
			}
			else
				alone++;

			/* with the message that was refused */
			row[row_count++] = sizes;
			size = tuple_size(columns);
			row_count--;
			/* what packing.c puts aside for nulls, in arrays that may have none */
			given_away = 48 + (1 + columns.keys + columns.headers + columns.timestamps) *
				(32 + (row_count + 8) / 8);
			too_small += size + given_away <= MaxHeapTupleSize;

			packing_start(&packing, columns);
			(void) packing_add(&packing, sizes);
			row[0] = sizes;
			row_count = 1;
			rows++;
		}
	}
	CHECK_INT(too_large, 0);
	CHECK_INT(too_small, 0);
	CHECK_INT(miscounted, 0);

	/* both kinds of rows have come up */
	CHECK(shared > 1000);
	CHECK(alone > 100);
}

int
main(void)
{
	test_by_hand();
	test_last_bytes();
	test_random();
	return unit_done();
}
