/* links: base/seek.c */
#include "c.h"

#include "base/seek.h"
#include "unit.h"

static int
kind(const char *text)
{
	return seek_parse(text).kind;
}

static int64
number(const char *text)
{
	return seek_parse(text).number;
}

/* Where a text leads to from offset 50 of a log of [10, 100). */
static int64
target(const char *text)
{
	return seek_target(seek_parse(text), 50, 10, 100);
}

static void
test_parse(void)
{
	CHECK_INT(kind("earliest"), SEEK_EARLIEST);
	CHECK_INT(kind("latest"), SEEK_LATEST);

	CHECK_INT(kind("0"), SEEK_OFFSET);
	CHECK_INT(number("0"), 0);
	CHECK_INT(kind("42"), SEEK_OFFSET);
	CHECK_INT(number("42"), 42);
	CHECK_INT(number("007"), 7);
	CHECK_INT(kind("+10"), SEEK_RELATIVE);
	CHECK_INT(number("+10"), 10);
	CHECK_INT(kind("-10"), SEEK_RELATIVE);
	CHECK_INT(number("-10"), -10);
	CHECK_INT(kind("+0"), SEEK_RELATIVE);
	CHECK_INT(number("+0"), 0);
	CHECK_INT(kind("-0"), SEEK_RELATIVE);
	CHECK_INT(number("-0"), 0);

	/* the bounds of bigint, and beyond */
	CHECK_INT(kind("9223372036854775807"), SEEK_OFFSET);
	CHECK_INT(number("9223372036854775806"), PG_INT64_MAX - 1);
	CHECK_INT(number("9223372036854775807"), PG_INT64_MAX);
	CHECK_INT(kind("9223372036854775808"), SEEK_OFFSET);
	CHECK_INT(number("9223372036854775808"), PG_INT64_MAX);
	CHECK_INT(number("18446744073709551617"), PG_INT64_MAX);
	CHECK_INT(number("99999999999999999999999999999999990"), PG_INT64_MAX);
	CHECK_INT(kind("+99999999999999999999"), SEEK_RELATIVE);
	CHECK_INT(number("+99999999999999999999"), PG_INT64_MAX);
	CHECK_INT(kind("-99999999999999999999"), SEEK_RELATIVE);
	CHECK(number("-99999999999999999999") <= -PG_INT64_MAX);
	CHECK_INT(number("-9223372036854775807"), -PG_INT64_MAX);

	/* nothing of these: perhaps a timestamp, for the caller to find out */
	CHECK_INT(kind(""), SEEK_OTHER);
	CHECK_INT(kind("+"), SEEK_OTHER);
	CHECK_INT(kind("-"), SEEK_OTHER);
	CHECK_INT(kind("++1"), SEEK_OTHER);
	CHECK_INT(kind("+-1"), SEEK_OTHER);
	CHECK_INT(kind("1+"), SEEK_OTHER);
	CHECK_INT(kind(" 1"), SEEK_OTHER);
	CHECK_INT(kind("1 "), SEEK_OTHER);
	CHECK_INT(kind("1.5"), SEEK_OTHER);
	CHECK_INT(kind("1e3"), SEEK_OTHER);
	CHECK_INT(kind("0x10"), SEEK_OTHER);
	CHECK_INT(kind("1/"), SEEK_OTHER);
	CHECK_INT(kind("1:"), SEEK_OTHER);
	CHECK_INT(kind("Earliest"), SEEK_OTHER);
	CHECK_INT(kind("earliest "), SEEK_OTHER);
	CHECK_INT(kind("earlies"), SEEK_OTHER);
	CHECK_INT(kind("latest2"), SEEK_OTHER);
	CHECK_INT(kind("2026-01-31"), SEEK_OTHER);
	CHECK_INT(kind("2026-01-31 12:00:00+01"), SEEK_OTHER);
	CHECK_INT(kind("now"), SEEK_OTHER);
	CHECK_INT(kind("-infinity"), SEEK_OTHER);
}

static void
test_target(void)
{
	CHECK_INT(target("earliest"), 10);
	CHECK_INT(target("latest"), 100);
	CHECK_INT(target("60"), 60);
	CHECK_INT(target("+7"), 57);
	CHECK_INT(target("-7"), 43);
	CHECK_INT(target("+0"), 50);
	CHECK_INT(target("-0"), 50);

	/* within the log: the log end is a position too, what is beyond is not */
	CHECK_INT(target("10"), 10);
	CHECK_INT(target("9"), 10);
	CHECK_INT(target("0"), 10);
	CHECK_INT(target("100"), 100);
	CHECK_INT(target("101"), 100);
	CHECK_INT(target("-40"), 10);
	CHECK_INT(target("-41"), 10);
	CHECK_INT(target("+50"), 100);
	CHECK_INT(target("+51"), 100);
	CHECK_INT(target("99999999999999999999"), 100);
	CHECK_INT(target("+99999999999999999999"), 100);
	CHECK_INT(target("-99999999999999999999"), 10);

	/* an empty log is one position */
	CHECK_INT(seek_target(seek_parse("earliest"), 0, 0, 0), 0);
	CHECK_INT(seek_target(seek_parse("latest"), 0, 0, 0), 0);
	CHECK_INT(seek_target(seek_parse("+1"), 0, 0, 0), 0);
	CHECK_INT(seek_target(seek_parse("5"), 7, 7, 7), 7);

	/* the group was outside of the log: before what has expired, say */
	CHECK_INT(seek_target(seek_parse("+1"), 3, 10, 100), 10);
	CHECK_INT(seek_target(seek_parse("+9"), 3, 10, 100), 12);
	CHECK_INT(seek_target(seek_parse("-1"), 200, 10, 100), 100);

	/* sums that do not fit a bigint */
	CHECK_INT(seek_target(seek_parse("+1"), PG_INT64_MAX, 10, PG_INT64_MAX), PG_INT64_MAX);
	CHECK_INT(seek_target(seek_parse("+9223372036854775807"), 50, 10, PG_INT64_MAX), PG_INT64_MAX);
	CHECK_INT(seek_target(seek_parse("+9223372036854775757"), 50, 10, PG_INT64_MAX), PG_INT64_MAX);
	CHECK_INT(seek_target(seek_parse("+9223372036854775756"), 50, 10, PG_INT64_MAX), PG_INT64_MAX - 1);
	CHECK_INT(seek_target(seek_parse("-9223372036854775807"), 0, 10, 100), 10);
	CHECK_INT(seek_target(seek_parse("-9223372036854775807"), PG_INT64_MAX, 0, PG_INT64_MAX), 0);
	CHECK_INT(seek_target(seek_parse("-9223372036854775806"), PG_INT64_MAX, 0, PG_INT64_MAX), 1);
}

int
main(void)
{
	test_parse();
	test_target();
	return unit_done();
}
