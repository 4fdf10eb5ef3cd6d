/*
 * unit.h
 *		Checks for the unit tests, printing TAP.  One program, one file:
 *
 *			/+ links: base/murmur2.c +/			(with *: the sources under src/ to link)
 *			#include "c.h"
 *			#include "base/murmur2.h"
 *			#include "unit.h"
 *
 *			int
 *			main(void)
 *			{
 *				CHECK_INT(murmur2("21", 2), -973932308);
 *				return unit_done();
 *			}
 */
#ifndef UNIT_H
#define UNIT_H

#include <stdio.h>
#include <string.h>

static int	unit_run = 0;
static int	unit_failed = 0;

/* True is a pass.  What failed is written as it stands in the source. */
#define CHECK(condition) \
	unit_check((condition), #condition, __FILE__, __LINE__)

#define CHECK_INT(got, expected) \
	unit_check_int((long long) (got), (long long) (expected), #got, __FILE__, __LINE__)

#define CHECK_STR(got, expected) \
	unit_check_str((got), (expected), #got, __FILE__, __LINE__)

static inline int
unit_check(int passed, const char *what, const char *file, int line)
{
	unit_run++;
	if (passed)
		printf("ok %d - %s\n", unit_run, what);
	else
	{
		unit_failed++;
		printf("not ok %d - %s\n", unit_run, what);
		fprintf(stderr, "# %d - %s, %s:%d\n", unit_run, what, file, line);
	}
	return passed;
}

static inline int
unit_check_int(long long got, long long expected, const char *what, const char *file, int line)
{
	int			passed = unit_check(got == expected, what, file, line);

	if (!passed)
		fprintf(stderr, "# got %lld, expected %lld\n", got, expected);
	return passed;
}

static inline int
unit_check_str(const char *got, const char *expected, const char *what, const char *file, int line)
{
	int			passed;

	if (got == NULL || expected == NULL)
		passed = unit_check(got == expected, what, file, line);
	else
		passed = unit_check(strcmp(got, expected) == 0, what, file, line);
	if (!passed)
		fprintf(stderr, "# got \"%s\", expected \"%s\"\n",
				got ? got : "(null)", expected ? expected : "(null)");
	return passed;
}

/* The end of main(): prints the plan, returns the exit status. */
static inline int
unit_done(void)
{
	printf("1..%d\n", unit_run);
	return unit_failed > 0 ? 1 : 0;
}

#endif							/* UNIT_H */
