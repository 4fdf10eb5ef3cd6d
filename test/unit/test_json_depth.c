/* links: base/json_depth.c */
#include "c.h"

#include "base/json_depth.h"
#include "unit.h"

static int
depth(const char *json)
{
	return json_depth(json, strlen(json));
}

int
main(void)
{
	char		buffer[64];
	static char nested[2 * 100000];

	/* no arrays, no objects */
	CHECK_INT(depth(""), 0);
	CHECK_INT(depth("null"), 0);
	CHECK_INT(depth(" -1.5e3 "), 0);
	CHECK_INT(depth("\"text\""), 0);

	/* how many are open at once, not how many there are */
	CHECK_INT(depth("[]"), 1);
	CHECK_INT(depth("{}"), 1);
	CHECK_INT(depth("[[], {}, [1]]"), 2);
	CHECK_INT(depth("{\"a\": {\"b\": [{}]}, \"c\": [[[[[]]]]], \"d\": {}}"), 6);
	CHECK_INT(depth("[1, [2, [3]], [[[4]]]]"), 4);

	/* what is in strings does not count */
	CHECK_INT(depth("\"[[[\""), 0);
	CHECK_INT(depth("{\"{[\": \"{[\"}"), 1);
	CHECK_INT(depth("[\"]\", [\"]\", []]]"), 3);
	CHECK_INT(depth("[\"\\\"[[\", []]"), 2);
	CHECK_INT(depth("[\"\\\\\", []]"), 2);
	CHECK_INT(depth("[\"\\\\\\\"[\", []]"), 2);
	CHECK_INT(depth("[\"\\u005b\", \"\xc3\xa4[\"]"), 1);

	/* what is no JSON: as far as it is read */
	CHECK_INT(depth("[[["), 3);
	CHECK_INT(depth("[[\"[["), 2);
	CHECK_INT(depth("[\"\\"), 1);
	CHECK_INT(depth("[\"\\\""), 1);
	CHECK_INT(depth("]]]["), 0);

	/* the length alone says where it ends */
	strcpy(buffer, "[[[]]]");
	CHECK_INT(json_depth(buffer, 2), 2);
	CHECK_INT(json_depth(buffer, 0), 0);
	strcpy(buffer, "\"\\\"[[");
	CHECK_INT(json_depth(buffer, 2), 0);
	CHECK_INT(json_depth("[\0[", 3), 2);

	memset(nested, '[', sizeof(nested) / 2);
	memset(nested + sizeof(nested) / 2, ']', sizeof(nested) / 2);
	CHECK_INT(json_depth(nested, sizeof(nested)), sizeof(nested) / 2);

	return unit_done();
}
