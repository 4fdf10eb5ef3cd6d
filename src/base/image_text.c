/*-------------------------------------------------------------------------
 *
 * image_text.c
 *	  The metadata of a cluster as text.
 *
 * A line for each thing, and at the end one that says so, by which a text that was
 * cut off is told.  Fields are separated by tabs, with COPY's escapes:
 *
 *		pgtopic-image	3
 *		cluster	id	next broker	next topic
 *		broker	id	leaving	fenced	fencings	conninfo
 *		topic	id	name	owner	partitions	replication factor	...
 *		partition	topic	number	leader	epoch	revision	unclean epoch	successor	placements	replicas	isr	target
 *		end
 *
 * Brokers of a list are separated by commas; each of replicas has its number in
 * placed[] after a colon.  Version 2, of pgtopic 0.2.0, is read as well: it has no fenced
 * brokers, revisions and unclean epochs.
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#include "common/fe_memutils.h"
#else
#include "postgres.h"
#endif

#include "lib/stringinfo.h"

#include "base/image.h"
#include "base/image_private.h"

#define FORMAT_NAME		"pgtopic-image"
#define FORMAT_VERSION	3
#define FORMAT_OLDEST	2
#define FIELDS_MAX		13

/* --- to text --- */

static void
append_string(StringInfo text, const char *string)
{
	appendStringInfoChar(text, '\t');
	if (string == NULL)
	{
		appendStringInfoString(text, "\\N");
		return;
	}
	for (; *string; string++)
	{
		switch (*string)
		{
			case '\\':
				appendStringInfoString(text, "\\\\");
				break;
			case '\t':
				appendStringInfoString(text, "\\t");
				break;
			case '\n':
				appendStringInfoString(text, "\\n");
				break;
			case '\r':
				appendStringInfoString(text, "\\r");
				break;
			default:
				appendStringInfoChar(text, *string);
		}
	}
}

/* With the numbers in placed after the brokers, unless it is NULL. */
static void
append_list(StringInfo text, const int32 *list, const int32 *placed, int count)
{
	appendStringInfoChar(text, '\t');
	for (int i = 0; i < count; i++)
	{
		appendStringInfo(text, i > 0 ? ",%d" : "%d", list[i]);
		if (placed != NULL)
			appendStringInfo(text, ":%d", placed[i]);
	}
}

static void
append_topic(StringInfo text, const ImageTopic *topic)
{
	appendStringInfo(text, "topic\t%d", topic->id);
	append_string(text, topic->name);
	append_string(text, topic->owner);
	appendStringInfo(text, "\t%d\t%d", topic->partitions, topic->replication_factor);
	append_string(text, topic->retention);
	appendStringInfo(text, "\t" INT64_FORMAT "\t" INT64_FORMAT "\t%d",
					 topic->retention_bytes, topic->segment_messages, topic->max_message_bytes);
	append_string(text, topic->value_format);
	appendStringInfo(text, "\t%d", topic->min_insync_replicas);
	append_string(text, topic->created_at);
	appendStringInfoChar(text, '\n');
}

static void
append_partition(StringInfo text, const ImagePartition *partition)
{
	appendStringInfo(text, "partition\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d",
					 partition->topic, partition->number, partition->leader,
					 partition->leader_epoch, partition->revision, partition->unclean_epoch,
					 partition->successor, partition->placements);
	append_list(text, partition->replicas, partition->placed, partition->replicas_count);
	append_list(text, partition->isr, NULL, partition->isr_count);
	append_list(text, partition->target, NULL, partition->target_count);
	appendStringInfoChar(text, '\n');
}

char *
image_format(const Image *image)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%s\t%d\ncluster", FORMAT_NAME, FORMAT_VERSION);
	append_string(&text, image->cluster_id);
	appendStringInfo(&text, "\t%d\t%d\n", image->next_broker, image->next_topic);
	for (int i = 0; i < image->brokers_count; i++)
	{
		const ImageBroker *broker = &image->brokers[i];

		appendStringInfo(&text, "broker\t%d\t%d\t%d\t%d", broker->id, broker->leaving ? 1 : 0,
						 broker->fenced ? 1 : 0, broker->fencings);
		append_string(&text, broker->conninfo);
		appendStringInfoChar(&text, '\n');
	}
	for (int i = 0; i < image->topics_count; i++)
		append_topic(&text, &image->topics[i]);
	for (int i = 0; i < image->partitions_count; i++)
		append_partition(&text, &image->partitions[i]);
	appendStringInfoString(&text, "end\n");
	return text.data;
}

/* --- from text --- */

/* One line; whatever is wrong with a field is noted here, and looked at once. */
typedef struct Line
{
	bool		ok;
	int			count;
	char	   *fields[FIELDS_MAX]; /* still with escapes */
} Line;

/* Splits the next line off; false if there is no whole line. */
static bool
next_line(char **rest, Line *line)
{
	char	   *at = *rest;
	char	   *end = strchr(at, '\n');

	if (end == NULL)
		return false;
	*end = '\0';
	*rest = end + 1;
	line->ok = true;
	line->count = 0;
	while (at != NULL)
	{
		char	   *tab = strchr(at, '\t');

		if (line->count == FIELDS_MAX)
		{
			line->ok = false;
			break;
		}
		line->fields[line->count++] = at;
		if (tab != NULL)
			*tab++ = '\0';
		at = tab;
	}
	return true;
}

static bool
line_is(const Line *line, const char *kind, int count)
{
	return line->ok && line->count == count && strcmp(line->fields[0], kind) == 0;
}

/* NULL for NULL, and for what is not possible. */
static char *
get_string_or_null(Line *line, int field)
{
	const char *from = line->fields[field];
	char	   *string;
	char	   *to;

	if (strcmp(from, "\\N") == 0)
		return NULL;
	to = string = palloc(strlen(from) + 1);
	for (; *from; from++)
	{
		char		c = *from;

		if (c == '\\')
		{
			switch (*++from)
			{
				case '\\':
					break;
				case 't':
					c = '\t';
					break;
				case 'n':
					c = '\n';
					break;
				case 'r':
					c = '\r';
					break;
				default:
					line->ok = false;
					return NULL;
			}
		}
		*to++ = c;
	}
	*to = '\0';
	return string;
}

static char *
get_string(Line *line, int field)
{
	char	   *string = get_string_or_null(line, field);

	if (string == NULL)
		line->ok = false;
	return string;
}

/* Reads a number up to a character that ends it; NULL if there is none. */
static const char *
read_number(const char *at, int64 min, int64 max, int64 *number)
{
	bool		negative = *at == '-';
	int64		value = 0;

	if (negative)
		at++;
	if (*at < '0' || *at > '9')
		return NULL;
	for (; *at >= '0' && *at <= '9'; at++)
	{
		int			digit = *at - '0';

		if (value > (PG_INT64_MAX - digit) / 10)
			return NULL;
		value = value * 10 + digit;
	}
	if (negative)
		value = -value;
	if (value < min || value > max)
		return NULL;
	*number = value;
	return at;
}

static int64
get_int64(Line *line, int field, int64 min, int64 max)
{
	int64		number = 0;
	const char *end = read_number(line->fields[field], min, max, &number);

	if (end == NULL || *end != '\0')
		line->ok = false;
	return number;
}

static int32
get_int32(Line *line, int field)
{
	return (int32) get_int64(line, field, 0, PG_INT32_MAX);
}

/* As append_list(); returns how many brokers there are. */
static int
get_list(Line *line, int field, int32 *list, int32 *placed)
{
	const char *at = line->fields[field];
	int			count = 0;

	if (*at == '\0')
		return 0;
	for (;;)
	{
		int64		number;

		at = read_number(at, 1, PG_INT32_MAX, &number);
		if (at == NULL || count == IMAGE_BROKERS_MAX)
			break;
		list[count] = (int32) number;
		if (placed != NULL)
		{
			at = *at == ':' ? read_number(at + 1, 1, PG_INT32_MAX, &number) : NULL;
			if (at == NULL)
				break;
			placed[count] = (int32) number;
		}
		count++;
		if (*at == '\0')
			return count;
		if (*at++ != ',')
			break;
	}
	line->ok = false;
	return 0;
}

/* Makes room for one more in an array that doubles. */
static void *
grow(void *array, int count, Size size)
{
	if (count == 0)
		return palloc(size);
	if ((count & (count - 1)) == 0)
		return repalloc(array, size * count * 2);
	return array;
}

static void
parse_broker(Image *image, Line *line, int64 version)
{
	ImageBroker broker = {0};
	int			field = 1;

	broker.id = get_int32(line, field++);
	broker.leaving = get_int64(line, field++, 0, 1) == 1;
	if (version > 2)
	{
		broker.fenced = get_int64(line, field++, 0, 1) == 1;
		broker.fencings = get_int32(line, field++);
	}
	broker.conninfo = get_string(line, field);
	if (!line->ok)
		return;
	image->brokers = grow(image->brokers, image->brokers_count, sizeof(broker));
	image->brokers[image->brokers_count++] = broker;
}

static void
parse_topic(Image *image, Line *line)
{
	ImageTopic	topic = {0};

	topic.id = get_int32(line, 1);
	topic.name = get_string(line, 2);
	topic.owner = get_string(line, 3);
	topic.partitions = get_int32(line, 4);
	topic.replication_factor = get_int32(line, 5);
	topic.retention = get_string_or_null(line, 6);
	topic.retention_bytes = get_int64(line, 7, -1, PG_INT64_MAX);
	topic.segment_messages = get_int64(line, 8, 0, PG_INT64_MAX);
	topic.max_message_bytes = get_int32(line, 9);
	topic.value_format = get_string(line, 10);
	topic.min_insync_replicas = get_int32(line, 11);
	topic.created_at = get_string(line, 12);
	if (!line->ok)
		return;
	image->topics = grow(image->topics, image->topics_count, sizeof(topic));
	image->topics[image->topics_count++] = topic;
}

static void
parse_partition(Image *image, Line *line, int64 version)
{
	ImagePartition partition = {0};
	int			field = 1;

	partition.topic = get_int32(line, field++);
	partition.number = get_int32(line, field++);
	partition.leader = get_int32(line, field++);
	partition.leader_epoch = get_int32(line, field++);
	if (version > 2)
	{
		partition.revision = get_int32(line, field++);
		partition.unclean_epoch = get_int32(line, field++);
	}
	partition.successor = get_int32(line, field++);
	partition.placements = get_int32(line, field++);
	partition.replicas_count = get_list(line, field++, partition.replicas, partition.placed);
	partition.isr_count = get_list(line, field++, partition.isr, NULL);
	partition.target_count = get_list(line, field, partition.target, NULL);
	if (!line->ok)
		return;
	image->partitions = grow(image->partitions, image->partitions_count, sizeof(partition));
	image->partitions[image->partitions_count++] = partition;
}

Image *
image_parse(const char *text)
{
	Image	   *image = palloc0(sizeof(Image));
	char	   *rest = pstrdup(text);
	Line		line;
	int64		version;

	if (!next_line(&rest, &line) || !line_is(&line, FORMAT_NAME, 2))
		return NULL;
	version = get_int64(&line, 1, FORMAT_OLDEST, FORMAT_VERSION);
	if (!line.ok || !next_line(&rest, &line) || !line_is(&line, "cluster", 4))
		return NULL;
	image->cluster_id = get_string(&line, 1);
	image->next_broker = get_int32(&line, 2);
	image->next_topic = get_int32(&line, 3);

	for (;;)
	{
		if (!line.ok || !next_line(&rest, &line))
			return NULL;
		if (line_is(&line, "broker", version > 2 ? 6 : 4))
			parse_broker(image, &line, version);
		else if (line_is(&line, "topic", 13))
			parse_topic(image, &line);
		else if (line_is(&line, "partition", version > 2 ? 12 : 10))
			parse_partition(image, &line, version);
		else
			break;
	}
	if (!line_is(&line, "end", 1) || *rest != '\0')
		return NULL;
	return image_fault(image) == NULL ? image : NULL;
}
