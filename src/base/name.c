/*-------------------------------------------------------------------------
 *
 * name.c
 *	  What a topic may be called, and the text form of a topic partition.
 *
 * The rules are Kafka's (org.apache.kafka.common.internals.Topic), but for the
 * length: Kafka allows 249 characters, a PostgreSQL relation 63 bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/name.h"

const char *
topic_name_problem(const char *name)
{
	size_t		len = strlen(name);

	if (len == 0)
		return "A topic's name must not be empty.";
	if (len > TOPIC_NAME_MAX)
		return "A topic's name has at most 63 bytes.";
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return "A topic's name must not be \".\" or \"..\".";
	for (const char *p = name; *p; p++)
	{
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			  (*p >= '0' && *p <= '9') ||
			  *p == '.' || *p == '_' || *p == '-'))
			return "A topic's name consists of letters a-z and A-Z, digits, \".\", \"_\" and \"-\".";
	}
	return NULL;
}

/* Reads a number up to max written in digits alone, to the end of the text. */
static bool
digits_to_uint32(const char *text, uint32 max, uint32 *result)
{
	int64		value = 0;

	if (*text == '\0')
		return false;
	for (; *text; text++)
	{
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (*text - '0');
		if (value > (int64) max)
			return false;
	}
	*result = (uint32) value;
	return true;
}

int
topic_partition_split(const char *text, int32 *partition)
{
	const char *hyphen = strrchr(text, '-');
	uint32		number;

	if (hyphen == NULL || hyphen == text)
		return -1;
	if (!digits_to_uint32(hyphen + 1, PG_INT32_MAX, &number))
		return -1;
	*partition = (int32) number;
	return (int) (hyphen - text);
}

bool
topic_id_text(const char *text, uint32 *id)
{
	return text[0] == '#' && digits_to_uint32(text + 1, PG_UINT32_MAX, id);
}
