/*
 * unit_image.h
 *		What the tests of the image share: after unit.h.
 */
#ifndef UNIT_IMAGE_H
#define UNIT_IMAGE_H

static ImageProblem problem;

static uint64 state = 88172645463325252ULL;

static inline uint32
random_below(uint32 bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32) (state >> 32) % bound;
}

static inline ImageTopic
topic_options(char *name, int partitions, int factor)
{
	ImageTopic	topic = {
		.name = name,.owner = "alice",.partitions = partitions,.replication_factor = factor,
		.retention = "7 days",.retention_bytes = -1,.segment_messages = 1000000,
		.max_message_bytes = 1048576,.value_format = "text",
		.created_at = "2024-02-29 12:00:00.123456+00"
	};

	return topic;
}

static inline int32
add_topic(Image *image, char *name, int partitions, int factor)
{
	ImageTopic	topic = topic_options(name, partitions, factor);
	int32		id = 0;

	/* from the first broker on */
	CHECK(image_add_topic(image, &topic, 0, 0, &id, &problem));
	return id;
}

static inline Image *
cluster_of(int count)
{
	Image	   *image = image_new("c1");

	for (int i = 0; i < count; i++)
	{
		int32		id;

		CHECK(image_add_broker(image, psprintf("host=b%d", i + 1), &id, &problem) && id == i + 1);
	}
	CHECK_STR(image_fault(image), NULL);
	return image;
}

/* Whether a broker is fenced, or no longer, by this. */
static inline bool
fence(Image *image, int32 broker)
{
	bool		fenced;

	return image_fence_broker(image, broker, &fenced, &problem) && fenced;
}

static inline bool
unfence(Image *image, int32 broker, int32 fencings)
{
	bool		back;

	return image_unfence_broker(image, broker, fencings, &back, &problem) && back;
}

/* A partition as "leader.epoch>successor replicas isr target", with lists as digits. */
static inline char *
show(const Image *image, int32 topic, int32 number)
{
	const ImagePartition *p = image_partition(image, topic, number);
	char		text[3][IMAGE_BROKERS_MAX + 1] = {""};

	for (int i = 0; i < p->replicas_count; i++)
		text[0][i] = '0' + p->replicas[i];
	for (int i = 0; i < p->isr_count; i++)
		text[1][i] = '0' + p->isr[i];
	for (int i = 0; i < p->target_count; i++)
		text[2][i] = '0' + p->target[i];
	return psprintf("%d.%d>%d %s %s %s", p->leader, p->leader_epoch, p->successor,
					text[0], text[1], text[2]);
}

/* When the replicas of a partition were added, as "placements: broker.placed ...". */
static inline char *
show_placed(const Image *image, int32 topic, int32 number)
{
	const ImagePartition *p = image_partition(image, topic, number);
	char	   *text = psprintf("%d:", p->placements);

	for (int i = 0; i < p->replicas_count; i++)
		text = psprintf("%s %d.%d", text, p->replicas[i], p->placed[i]);
	return text;
}

/* Whether an image is the same after a way through text. */
static inline bool
survives(const Image *image)
{
	char	   *text = image_format(image);
	Image	   *back = image_parse(text);

	return back != NULL && strcmp(image_format(back), text) == 0;
}

#endif							/* UNIT_IMAGE_H */
