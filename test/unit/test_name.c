/* links: base/name.c */
/*
 * test_name.c
 *		Names of topics are bounded as in Kafka's Topic class, but for their
 *		length; and the text forms of topic_partition and of dropped topics.
 */
#include "c.h"

#include "pg_config_manual.h"

#include "base/name.h"
#include "unit.h"

static bool
problem_says(const char *name, const char *words)
{
	const char *problem = topic_name_problem(name);

	return problem != NULL && strstr(problem, words) != NULL;
}

static int32
split_partition(const char *text)
{
	int32		partition = -99;

	return topic_partition_split(text, &partition) < 0 ? -1 : partition;
}

static int
split_length(const char *text)
{
	int32		partition;

	return topic_partition_split(text, &partition);
}

static int64
id_of(const char *text)
{
	uint32		id = 99;

	return topic_id_text(text, &id) ? (int64) id : -1;
}

static void
test_names(void)
{
	char		name[256];
	char		good[256] = "";
	char		expected[256] = "";

	CHECK(topic_name_problem("orders") == NULL);
	CHECK(topic_name_problem("a") == NULL);
	CHECK(topic_name_problem("Orders.EU_west-1") == NULL);
	CHECK(topic_name_problem("0") == NULL);
	CHECK(topic_name_problem("-") == NULL);
	CHECK(topic_name_problem("_") == NULL);

	/* empty, and the two that a file system would take for something else */
	CHECK(problem_says("", "must not be empty"));
	CHECK(problem_says(".", "must not be \".\""));
	CHECK(problem_says("..", "must not be \".\""));
	CHECK(topic_name_problem("...") == NULL);
	CHECK(topic_name_problem(".a") == NULL);
	CHECK(topic_name_problem("..a") == NULL);

	/* the length, which is that of a relation's name */
	CHECK_INT(TOPIC_NAME_MAX, NAMEDATALEN - 1);
	memset(name, 'x', sizeof(name));
	name[62] = '\0';
	CHECK(topic_name_problem(name) == NULL);
	name[62] = 'x';
	name[63] = '\0';
	CHECK(topic_name_problem(name) == NULL);
	name[63] = 'x';
	name[64] = '\0';
	CHECK(problem_says(name, "at most 63 bytes"));
	name[64] = 'x';
	name[255] = '\0';
	CHECK(problem_says(name, "at most 63 bytes"));

	/* every byte, alone, and at each end and in the middle of a name */
	for (int c = 1; c < 256; c++)
	{
		char		alone[] = {(char) c, '\0'};
		char		first[] = {(char) c, 'x', 'x', '\0'};
		char		middle[] = {'x', (char) c, 'x', '\0'};
		char		last[] = {'x', 'x', (char) c, '\0'};
		bool		ok = topic_name_problem(middle) == NULL;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			c == '.' || c == '_' || c == '-')
			strncat(expected, alone, 1);
		if (ok)
			strncat(good, alone, 1);
		if ((topic_name_problem(first) == NULL) != ok ||
			(topic_name_problem(last) == NULL) != ok ||
			(c != '.' && (topic_name_problem(alone) == NULL) != ok) ||
			(!ok && !problem_says(middle, "consists of")))
			CHECK_INT(c, -1);
	}
	CHECK_STR(good, expected);
	CHECK_INT(strlen(expected), 26 + 26 + 10 + 3);
	CHECK(problem_says("bestellungen-\xc3\xbc", "consists of"));
	CHECK(problem_says("a b", "consists of"));
	CHECK(problem_says("a/b", "consists of"));
	CHECK(problem_says("a\"b", "consists of"));
}

static void
test_split(void)
{
	CHECK_INT(split_length("orders-3"), 6);
	CHECK_INT(split_partition("orders-3"), 3);
	CHECK_INT(split_partition("orders-0"), 0);
	CHECK_INT(split_length("o-0"), 1);

	/* at the last hyphen */
	CHECK_INT(split_length("orders-2-17"), 8);
	CHECK_INT(split_partition("orders-2-17"), 17);
	CHECK_INT(split_length("orders--3"), 7);
	CHECK_INT(split_partition("orders--3"), 3);
	CHECK_INT(split_length("--3"), 1);
	CHECK_INT(split_length("#7-3"), 2);
	CHECK_INT(split_partition("#7-3"), 3);

	/* no such form */
	CHECK_INT(split_length(""), -1);
	CHECK_INT(split_length("-"), -1);
	CHECK_INT(split_length("-3"), -1);
	CHECK_INT(split_length("orders"), -1);
	CHECK_INT(split_length("orders-"), -1);
	CHECK_INT(split_length("orders-x"), -1);
	CHECK_INT(split_length("orders-3x"), -1);
	CHECK_INT(split_length("orders-3 "), -1);
	CHECK_INT(split_length("orders- 3"), -1);
	CHECK_INT(split_length("orders-+3"), -1);
	CHECK_INT(split_length("orders-0x3"), -1);
	CHECK_INT(split_length("orders-3.0"), -1);
	CHECK_INT(split_length("orders-3/"), -1);
	CHECK_INT(split_length("orders-3:"), -1);

	/* the bounds of int, and what would come around to a small number */
	CHECK_INT(split_partition("orders-2147483647"), PG_INT32_MAX);
	CHECK_INT(split_length("orders-2147483648"), -1);
	CHECK_INT(split_length("orders-4294967299"), -1);
	CHECK_INT(split_length("orders-18446744073709551619"), -1);
	CHECK_INT(split_length("orders-99999999999999999999999999999999999999999"), -1);
	CHECK_INT(split_partition("orders-00000000000000000000000000003"), 3);
}

static void
test_ids(void)
{
	CHECK_INT(id_of("#7"), 7);
	CHECK_INT(id_of("#0"), 0);
	CHECK_INT(id_of("#2147483647"), PG_INT32_MAX);
	CHECK_INT(id_of("#2147483648"), INT64CONST(2147483648));
	CHECK_INT(id_of("#4294967295"), PG_UINT32_MAX);
	CHECK_INT(id_of("#4294967296"), -1);
	CHECK_INT(id_of("#4294967303"), -1);
	CHECK_INT(id_of("#18446744073709551623"), -1);
	CHECK_INT(id_of(""), -1);
	CHECK_INT(id_of("#"), -1);
	CHECK_INT(id_of("7"), -1);
	CHECK_INT(id_of("77"), -1);
	CHECK_INT(id_of("##7"), -1);
	CHECK_INT(id_of("#-7"), -1);
	CHECK_INT(id_of("#+7"), -1);
	CHECK_INT(id_of("# 7"), -1);
	CHECK_INT(id_of("#7 "), -1);
	CHECK_INT(id_of("#7-3"), -1);
	CHECK_INT(id_of(" #7"), -1);

	/* no topic can be called so */
	CHECK(topic_name_problem("#7") != NULL);
}

int
main(void)
{
	test_names();
	test_split();
	test_ids();
	return unit_done();
}
