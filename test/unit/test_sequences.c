/* links: base/sequences.c */
#include "c.h"

#include "base/sequences.h"
#include "unit.h"

static Sequences sequences;
static int64 offset;

static SequenceVerdict
judge(int64 sequence, int64 count)
{
	offset = -1;
	return sequences_judge(&sequences, sequence, count, &offset);
}

static const char *
call(int64 sequence)
{
	static char text[64];
	int64		first;
	int64		last;

	sequences_call(&sequences, sequence, &first, &last);
	snprintf(text, sizeof(text), "%d-%d", (int) first, (int) last);
	return text;
}

static void
test_unknown(void)
{
	memset(&sequences, 0, sizeof(sequences));
	CHECK_INT(judge(0, 1), SEQUENCE_NEW);
	CHECK_INT(judge(42, 3), SEQUENCE_NEW);
	CHECK_INT(judge(PG_INT64_MAX - 1, 1), SEQUENCE_NEW);
	CHECK_INT(offset, -1);
}

/* Calls of 3, 1 and 2 messages. */
static void
test_some(void)
{
	memset(&sequences, 0, sizeof(sequences));
	sequences_add(&sequences, 10, 3, 100);
	CHECK_INT(sequences.count, 1);
	CHECK_INT(sequences_end_offset(&sequences), 103);
	sequences_add(&sequences, 13, 1, 110);
	CHECK_INT(sequences_end_offset(&sequences), 111);
	sequences_add(&sequences, 14, 2, 120);
	CHECK_INT(sequences.count, 3);
	CHECK_INT(sequences.next, 16);
	CHECK_INT(sequences_end_offset(&sequences), 122);

	CHECK_INT(judge(16, 1), SEQUENCE_NEW);
	CHECK_INT(judge(16, 1000), SEQUENCE_NEW);
	CHECK_INT(judge(17, 1), SEQUENCE_GAP);
	CHECK_INT(judge(PG_INT64_MAX - 1, 1), SEQUENCE_GAP);

	CHECK_INT(judge(10, 3), SEQUENCE_REPEATED);
	CHECK_INT(offset, 100);
	CHECK_INT(judge(13, 1), SEQUENCE_REPEATED);
	CHECK_INT(offset, 110);
	CHECK_INT(judge(14, 2), SEQUENCE_REPEATED);
	CHECK_INT(offset, 120);

	CHECK_STR(call(10), "10-12");
	CHECK_STR(call(12), "10-12");
	CHECK_STR(call(13), "13-13");
	CHECK_STR(call(14), "14-15");
	CHECK_STR(call(15), "14-15");

	/* shorter, longer, from the middle, over two calls, over the end */
	CHECK_INT(judge(10, 2), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(10, 4), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(11, 1), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(11, 2), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(13, 3), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(14, 1), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(15, 1), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(15, 2), SEQUENCE_DIFFERENT);
	CHECK_INT(judge(10, 100), SEQUENCE_DIFFERENT);
	CHECK_INT(offset, -1);

	CHECK_INT(judge(9, 1), SEQUENCE_FORGOTTEN);
	CHECK_INT(judge(9, 4), SEQUENCE_FORGOTTEN);
	CHECK_INT(judge(0, 16), SEQUENCE_FORGOTTEN);
}

/* The oldest ones make room. */
static void
test_many(void)
{
	memset(&sequences, 0, sizeof(sequences));
	for (int i = 0; i < SEQUENCES_KEPT; i++)
		sequences_add(&sequences, 2 * i, 2, 1000 + 10 * i);
	CHECK_INT(sequences.count, SEQUENCES_KEPT);
	CHECK_INT(judge(0, 2), SEQUENCE_REPEATED);
	CHECK_INT(offset, 1000);

	sequences_add(&sequences, 2 * SEQUENCES_KEPT, 5, 5000);
	CHECK_INT(sequences.count, SEQUENCES_KEPT);
	CHECK_INT(judge(0, 2), SEQUENCE_FORGOTTEN);
	CHECK_INT(judge(2, 2), SEQUENCE_REPEATED);
	CHECK_INT(offset, 1010);
	CHECK_INT(judge(2 * SEQUENCES_KEPT - 2, 2), SEQUENCE_REPEATED);
	CHECK_INT(offset, 1000 + 10 * (SEQUENCES_KEPT - 1));
	CHECK_INT(judge(2 * SEQUENCES_KEPT, 5), SEQUENCE_REPEATED);
	CHECK_INT(offset, 5000);
	CHECK_INT(judge(2 * SEQUENCES_KEPT + 5, 1), SEQUENCE_NEW);
	CHECK_INT(sequences_end_offset(&sequences), 5005);

	for (int i = 0; i < 100; i++)
		sequences_add(&sequences, 1000 + i, 1, 6000 + i);
	CHECK_INT(sequences.count, SEQUENCES_KEPT);
	CHECK_INT(sequences.next, 1100);
	CHECK_INT(judge(1100 - SEQUENCES_KEPT, 1), SEQUENCE_REPEATED);
	CHECK_INT(offset, 6100 - SEQUENCES_KEPT);
	CHECK_INT(judge(1099 - SEQUENCES_KEPT, 1), SEQUENCE_FORGOTTEN);
}

int
main(void)
{
	test_unknown();
	test_some();
	test_many();
	return unit_done();
}
