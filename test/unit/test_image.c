/* links: base/image.c base/image_text.c base/image_brokers.c base/image_changes.c base/image_moves.c base/placement.c */
/*
 * test_image.c
 *		The metadata of a cluster: to text and back, garbled text, and what makes an
 *		image invalid.
 */
#include "postgres_fe.h"

#include "common/fe_memutils.h"

#include "base/image.h"
#include "unit.h"
#include "unit_image.h"

/* One with all there is in it. */
static Image *
rich_image(void)
{
	Image	   *image = cluster_of(4);
	ImageTopic	odd = topic_options("a\tb\\c\nd\re \\N \x01 \xc3\xa4,\"'", 3, 2);
	int32		move[] = {4, 2};
	int32		id;

	odd.owner = "\\N";
	odd.retention = NULL;
	odd.retention_bytes = PG_INT64_MAX;
	odd.segment_messages = PG_INT64_MAX;
	odd.max_message_bytes = PG_INT32_MAX;
	odd.min_insync_replicas = 2;
	odd.created_at = "";
	CHECK(image_add_topic(image, &odd, 2, 1, &id, &problem) && id == 1);
	add_topic(image, "plain", 5, 3);
	CHECK(image_set_conninfo(image, 3, "host='a b\\'c'\n\tport=5432\\", &problem));
	CHECK(image_move_partition(image, 2, 1, move, 2, &problem));
	CHECK(image_elect_leader(image, 2, 0, 2, &problem));
	CHECK(image_remove_broker(image, 1, false, &problem));
	image_advance(image);

	/* one that was there and is not, and what only it had */
	CHECK(fence(image, 3) && unfence(image, 3, 1) && fence(image, 4) && unfence(image, 4, 1));
	CHECK_STR(show(image, 2, 2), "4.2>0 3412 4 342");
	CHECK(fence(image, 3) && fence(image, 4));
	image_partition(image, 2, 1)->revision = 7;
	image_partition(image, 2, 2)->revision = 0;
	CHECK(image_elect_unclean(image, 2, 2, 2, &problem));
	CHECK_STR(image_fault(image), NULL);
	return image;
}

static void
test_text(void)
{
	Image	   *image = rich_image();
	Image	   *back;
	char	   *text = image_format(image);

	CHECK(survives(image));
	back = image_parse(text);
	CHECK_STR(back->topics[0].name, image->topics[0].name);
	CHECK_STR(back->topics[0].owner, "\\N");
	CHECK_STR(back->topics[0].retention, NULL);
	CHECK_STR(back->topics[0].created_at, "");
	CHECK(back->topics[0].retention_bytes == PG_INT64_MAX);
	CHECK_STR(back->topics[1].retention, "7 days");
	CHECK(back->topics[1].retention_bytes == -1);
	CHECK_STR(back->brokers[2].conninfo, image->brokers[2].conninfo);
	CHECK(back->brokers[0].leaving && !back->brokers[1].leaving);
	CHECK(image_is_fenced(back, 3) && !image_is_fenced(back, 2) && !image_is_fenced(back, 5));
	CHECK(back->brokers[2].fencings == 2 && back->brokers[3].fencings == 2 && back->brokers[1].fencings == 0);
	CHECK(image_partition(back, 2, 1)->revision == 7 && image_partition(back, 2, 1)->unclean_epoch == 0);
	CHECK(image_partition(back, 2, 2)->revision == 0 && image_partition(back, 2, 2)->unclean_epoch == 3);
	CHECK(back->next_broker == 5 && back->next_topic == 3);
	for (int p = 0; p < 5; p++)
	{
		CHECK_STR(show(back, 2, p), show(image, 2, p));
		CHECK_STR(show_placed(back, 2, p), show_placed(image, 2, p));
	}
	CHECK_STR(show_placed(back, 2, 0), "2: 1.1 2.1 3.1 4.2");

	CHECK(survives(image_new("")));
	CHECK(survives(image_new("\t\n\\")));
	CHECK_STR(image_format(cluster_of(1)),
			  "pgtopic-image\t3\ncluster\tc1\t2\t1\nbroker\t1\t0\t0\t0\thost=b1\nend\n");
}

/* Whether a text with such a partition is valid; version 2 has less fields. */
static bool
partition_valid(int version, const char *fields)
{
	static const char start[] =
		"topic\t1\tn\to\t1\t3\t\\N\t-1\t1\t1\ttext\t0\t\npartition\t1\t0\t";
	const char *broker = version == 2 ? "0" : "0\t0\t0";

	return image_parse(psprintf("pgtopic-image\t%d\ncluster\tc\t4\t2\n"
								"broker\t1\t%s\tx\nbroker\t2\t%s\tx\nbroker\t3\t%s\tx\n%s%s\nend\n",
								version, broker, broker, broker, start, fields)) != NULL;
}

static void
test_partition_text(void)
{
	/* successor and what follows */
	static const char *const texts[] = {
		"",
		"0\t1:1,2:1\t1\t",
		"0\t2\t1,2\t1\t",
		"0\t2\t1:1,2\t1\t",
		"0\t2\t1,2:1\t1\t",
		"0\t2\t1:1 ,2:1\t1\t",
		"0\t2\t1:1:1,2:1\t1\t",
		"0\t2\t1:1,2:\t1\t",
		"0\t2\t1:1,:1\t1\t",
		"0\t2\t1:1,2:1,\t1\t",
		"0\t2\t1:1;2:1\t1\t",
		"0\t2\t1:1,2:0\t1\t",
		"0\t2\t1:1,2:-1\t1\t",
		"0\t2\t1:1,2:3\t1\t",
		"0\t2\t1:1,2:4294967297\t1\t",
		"0\t2\t1:2,2:2\t1\t",
		"0\t2\t1:1,1:2\t1\t",
		"0\t2\t\t1\t",
		"0\t2\t1:1,2:1\t1:1\t",
		"0\t2\t1:1,2:1\t1\t2:1",
		"0\t0\t1:1,2:1\t1\t",
		"0\t\t1:1,2:1\t1\t",
		"0\t-1\t1:1,2:1\t1\t",
		"0\t2x\t1:1,2:1\t1\t",
		"0\t2147483648\t1:1,2:1\t1\t",
		"0\t2147483616\t1:1,2:1\t1\t",
		"0\t2\t1:1,2:1\t1\t\t",
		"2\t2\t1:1,2:1\t1\t",
		"\t2\t1:1,2:1\t1\t",
	};
	/* leader, epoch, revision, unclean epoch */
	static const char *const beginnings[] = {
		"1\t5\t0",
		"1\t5\t0\t0\t0",
		"1\t5\t-1\t0",
		"1\t5\t\t0",
		"1\t5\t2147483647\t0",
		"1\t5\t2147483648\t0",
		"1\t5\t0\t6",
		"1\t5\t0\t-1",
		"1\t5\t0\t",
		"1\t2147483647\t0\t0",
		"3\t5\t0\t0",
	};
	int			bad = 0;

	CHECK(partition_valid(3, "1\t0\t0\t0\t0\t1\t1:1,2:1\t1\t"));
	CHECK(partition_valid(3, "1\t5\t2147483646\t5\t0\t2\t1:1,2:1\t1\t2"));
	CHECK(partition_valid(3, "1\t2147483646\t9\t1\t3\t5\t1:5,2:1,3:4\t3,1\t3,2"));
	CHECK(partition_valid(3, "1\t0\t0\t0\t0\t2147483615\t1:1,2:1\t1\t"));
	for (size_t i = 0; i < lengthof(texts); i++)
	{
		if (partition_valid(3, psprintf("1\t0\t0\t0\t%s", texts[i])) ||
			partition_valid(2, psprintf("1\t0\t%s", texts[i])))
		{
			fprintf(stderr, "# %s\n", texts[i]);
			bad++;
		}
	}
	for (size_t i = 0; i < lengthof(beginnings); i++)
	{
		if (partition_valid(3, psprintf("%s\t0\t1\t1:1,2:1\t1\t", beginnings[i])))
		{
			fprintf(stderr, "# %s\n", beginnings[i]);
			bad++;
		}
	}
	CHECK_INT(bad, 0);
}

/* That of version 0.2.0, which has neither fenced brokers nor revisions and unclean epochs. */
static void
test_old_text(void)
{
	static const char old[] =
		"pgtopic-image\t2\ncluster\tc\t4\t2\nbroker\t1\t0\tx\nbroker\t3\t1\ty\n"
		"topic\t1\tn\to\t1\t2\t\\N\t-1\t1\t1\ttext\t0\t\n"
		"partition\t1\t0\t3\t7\t1\t4\t1:4,3:1\t1,3\t1\nend\n";
	Image	   *image = image_parse(old);

	CHECK(image != NULL);
	CHECK_STR(show(image, 1, 0), "3.7>1 13 13 1");
	CHECK_STR(show_placed(image, 1, 0), "4: 1.4 3.1");
	CHECK(image->brokers[1].leaving && !image->brokers[1].fenced && image->brokers[1].fencings == 0);
	CHECK_STR(image->brokers[1].conninfo, "y");
	CHECK(image->partitions[0].revision == 0 && image->partitions[0].unclean_epoch == 0);
	CHECK(survives(image));

	CHECK(partition_valid(2, "1\t0\t0\t1\t1:1,2:1\t1\t"));
	CHECK(partition_valid(2, "1\t0\t0\t5\t1:5,2:1,3:4\t3,1\t3,2"));
	/* lines of the other version */
	CHECK(!partition_valid(2, "1\t0\t0\t0\t0\t1\t1:1,2:1\t1\t"));
	CHECK(!partition_valid(3, "1\t0\t0\t1\t1:1,2:1\t1\t"));
	CHECK(image_parse("pgtopic-image\t3\ncluster\tc\t2\t1\nbroker\t1\t0\tx\nend\n") == NULL);
	CHECK(image_parse("pgtopic-image\t2\ncluster\tc\t2\t1\nbroker\t1\t0\t0\t0\tx\nend\n") == NULL);
}

static void
test_garbled(void)
{
	static const char *const texts[] = {
		"", "\n", "end\n", "pgtopic-image\t3\n", "pgtopic-image\t3\nend\n",
		"pgtopic-image\t1\ncluster\tc\t1\t1\nend\n",
		"pgtopic-image\t4\ncluster\tc\t1\t1\nend\n",
		"pgtopic-image\t\ncluster\tc\t1\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\t1\t1\nend",
		"pgtopic-image\t3\ncluster\tc\t1\t1\nend\nend\n",
		"pgtopic-image\t3\ncluster\tc\t1\t1\tx\nend\n",
		"pgtopic-image\t3\ncluster\t\\N\t1\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\\\t1\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\\x\t1\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\t1\t1 \nend\n",
		"pgtopic-image\t3\ncluster\tc\t\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\t99999999999999999999\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\t2147483648\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\t-1\t1\nend\n",
		"pgtopic-image\t3\ncluster\tc\t1\t1\nbroker\t1\t0\t0\t0\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t2\t1\nbroker\t1\t2\t0\t0\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t2\t1\nbroker\t1\t0\t2\t1\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t2\t1\nbroker\t1\t0\t1\t0\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t2\t1\nbroker\t1\t0\t0\t-1\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t2\t1\nbroker\t1\t0\t0\t2147483647\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t2\t1\nbroker\t1\t0\t0\t0\t\\N\nend\n",
		"pgtopic-image\t3\ncluster\tc\t3\t1\nbroker\t2\t0\t0\t0\tx\nbroker\t1\t0\t0\t0\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t3\t1\nbroker\t1\t0\t0\t0\tx\nbroker\t1\t0\t0\t0\tx\nend\n",
		"pgtopic-image\t3\ncluster\tc\t3\t1\npartition\t1\t0\t1\t0\t0\t0\t0\t1\t1:1\t1\t\nend\n",
		"pgtopic-image\t3\ncluster\tc\t3\t1\nother\nend\n",
		"pgtopic-image\t3\ncluster\tc\t3\t1\n\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\nend\n",
	};
	static const char start[] = "pgtopic-image\t3\ncluster\tc\t3\t1\npartition\t1\t0\t1\t0\t0\t0\t0\t1\t";
	char	   *garbled;
	Image	   *image = rich_image();
	char	   *text = image_format(image);
	size_t		length = strlen(text);
	int			bad = 0;
	int			valid = 0;

	CHECK(image_parse("pgtopic-image\t3\ncluster\tc\t1\t1\nend\n") != NULL);
	for (size_t i = 0; i < lengthof(texts); i++)
		bad += image_parse(texts[i]) != NULL;
	CHECK_INT(bad, 0);

	for (size_t i = 0; i < length; i++)
		bad += image_parse(pnstrdup(text, i)) != NULL;
	CHECK_INT(bad, 0);

	/* a list that is too long for where it goes */
	garbled = palloc(sizeof(start) + 4 * 100000 + 16);
	strcpy(garbled, start);
	for (int i = 0; i < 100000; i++)
		strcpy(garbled + sizeof(start) - 1 + 4 * i, "1:1,");
	strcpy(garbled + sizeof(start) - 1 + 4 * 100000 - 1, "\t1\t\nend\n");
	CHECK(image_parse(garbled) == NULL);

	/* what can still be read is valid */
	for (int i = 0; i < 50000; i++)
	{
		Image	   *read;

		garbled = pstrdup(text);
		for (uint32 n = 1 + random_below(3); n > 0; n--)
		{
			static const char some[] = "\t\n\\0123459,:-Nt";
			uint32		at = random_below(length);

			garbled[at] = random_below(2) ? some[random_below(sizeof(some) - 1)] :
				(char) (1 + random_below(255));
		}
		read = image_parse(garbled);
		if (read != NULL)
		{
			valid++;
			bad += image_fault(read) != NULL || !survives(read);
		}
		pfree(garbled);
	}
	CHECK_INT(bad, 0);
	CHECK(valid > 0);
}

/* Whether a fault is found in an image in which one thing has been changed. */
#define FAULTY(change) CHANGED(change, image_fault(image) != NULL)
#define FAULTLESS(change) CHANGED(change, image_fault(image) == NULL)
#define CHANGED(change, condition) \
	do { \
		Image	   *image = image_parse(text); \
		ImagePartition *p = &image->partitions[0]; \
		ImageTopic *t = &image->topics[0]; \
		change; \
		(void) p; (void) t; \
		unit_check(condition, #change, __FILE__, __LINE__); \
	} while (0)

static void
test_fault(void)
{
	Image	   *good = cluster_of(4);
	char	   *text;

	add_topic(good, "a", 2, 3);
	add_topic(good, "b", 1, 1);
	text = image_format(good);
	CHECK(image_parse(text) != NULL);
	CHECK_STR(show(good, 1, 0), "1.0>0 123 123 ");

	FAULTY(image->brokers[1].id = 1);
	FAULTY(image->brokers[0].id = 0);
	FAULTY(image->next_broker = 4);
	FAULTY(image->next_topic = 2);
	FAULTY(image->brokers_count = 3; p->replicas[0] = 4);
	FAULTY(image->brokers[0].conninfo = NULL);
	FAULTY(image->brokers[0].fencings = -1);
	FAULTY(image->brokers[0].fencings = PG_INT32_MAX);
	FAULTY(p[1].isr_count = 2; image->brokers[3].fenced = true);
	/* in sync, with others that are there; or the one that leads */
	FAULTY(image->brokers[1].fenced = true; image->brokers[1].fencings = 1);
	FAULTY(image->brokers[0].fenced = true; image->brokers[0].fencings = 1);
	FAULTY(image->topics_count = 1);
	FAULTY(image->partitions_count--);
	FAULTY(t->partitions = 1);
	FAULTY(t->partitions = PG_INT32_MAX);
	FAULTY(t->name = "b");
	FAULTY(t->name = "");
	FAULTY(t->owner = NULL);
	FAULTY(t->replication_factor = 0);
	FAULTY(t->min_insync_replicas = 4);
	FAULTY(p->number = 1);
	FAULTY(p->topic = 2);
	FAULTY(p->replicas_count = 0);
	FAULTY(p->replicas_count = 33);
	FAULTY(p->isr_count = 0);
	FAULTY(p->placements = 0);
	FAULTY(p->placements = PG_INT32_MAX);
	FAULTY(p->placed[0] = 0);
	FAULTY(p->placed[2] = 2);
	FAULTY(p->placements = 3; p->placed[0] = p->placed[2] = 2);
	FAULTY(p->replicas[2] = 1);
	FAULTY(p->replicas[2] = 5);
	FAULTY(p->isr[2] = 1);
	FAULTY(p->isr[2] = 4);
	FAULTY(p->leader = 4);
	FAULTY(p->leader = 0);
	FAULTY(p->leader_epoch = -1);
	FAULTY(p->leader_epoch = PG_INT32_MAX);
	FAULTY(p->revision = -1);
	FAULTY(p->revision = PG_INT32_MAX);
	FAULTY(p->unclean_epoch = -1);
	FAULTY(p->unclean_epoch = 1);
	FAULTY(p->leader_epoch = 4; p->unclean_epoch = 5);
	/* two of three that are not there */
	FAULTY(image->brokers[1].fenced = image->brokers[2].fenced = true;
		   image->brokers[1].fencings = image->brokers[2].fencings = 1);
	FAULTY(p->successor = 1);
	FAULTY(p->successor = 4);
	FAULTY(p->isr_count = 2; p->successor = 3);
	FAULTY(p->target_count = 1; p->target[0] = 4);
	FAULTY(p->target_count = 2; p->target[0] = p->target[1] = 1);

	/* these are none: nobody in sync is there, and nobody is fenced who is in sync */
	FAULTLESS(p[1].isr_count = 2;
			  image->brokers[0].fenced = image->brokers[1].fenced = image->brokers[2].fenced = true;
			  image->brokers[0].fencings = image->brokers[1].fencings = image->brokers[2].fencings = 1);
	FAULTLESS(p[1].isr_count = 2; image->brokers[3].fenced = true; image->brokers[3].fencings = 1);
	FAULTLESS(image->brokers[3].fencings = PG_INT32_MAX - 1);
	FAULTLESS(p->leader_epoch = p->unclean_epoch = 4; p->revision = PG_INT32_MAX - 1);
}

int
main(void)
{
	test_text();
	test_partition_text();
	test_old_text();
	test_garbled();
	test_fault();
	return unit_done();
}
