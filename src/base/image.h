/*-------------------------------------------------------------------------
 *
 * image.h
 *	  The metadata of a cluster: brokers, topics, partitions; and how it changes.
 *
 * Pure: usable in the server and in a unit test without one (palloc() and
 * StringInfo are PostgreSQL's in both).  Images are never changed by more than
 * one caller at a time, and changes go from one valid image to another one or
 * fail and leave it as it was.
 *
 * Invariants of a valid image:
 *	 1. brokers are ascending by id, topics by id, partitions by (topic, number)
 *	 2. replicas of a partition are different brokers of the image, at least one;
 *		isr is a subset of replicas, at least one; leader is in isr
 *	 3. successor is 0 or in isr and not the leader
 *	 4. target is empty or a set of different brokers, all in replicas
 *	 5. leader_epoch grows whenever leader changes
 *	 6. placed[] has, for each of replicas, a number between 1 and placements, which
 *		is 1 for those that are there since the partition was made, and else different
 *	 7. nobody in isr is fenced, or all of isr are: then the partition is unavailable
 *	 8. unclean_epoch is 0 or an epoch up to leader_epoch
 *
 * A broker that the controller does not hear any more is fenced.  What it leads gets
 * another leader from isr, if one of them is there; what others lead has it in isr
 * no more.  So isr has a fenced broker only where there is nobody else, and the
 * first of them who is back leads.  Who is fenced has to hear of it, and to let go of
 * all that it led, before it is not fenced any more: fencings says which time it is.
 *
 * A new leader is the whole isr at first: the others cut their copies to what it
 * has and copy on from it, and are in sync again when it reports that they are.
 *
 * A broker that is taken out of replicas loses its copy.  So that it is not taken
 * for the replica that it was when it is put back, it gets another number in
 * placed[] then; as long as it stays, whatever happens to the others, it keeps it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_IMAGE_H
#define PGTOPIC_IMAGE_H

#include "c.h"

#define IMAGE_BROKERS_MAX	32

typedef struct ImageBroker
{
	int32		id;
	bool		leaving;		/* its replicas are being moved away */
	bool		fenced;			/* it is not there, as far as the controller knows */
	int32		fencings;		/* how often it was fenced; only grows */
	bool		suspect;		/* for this change; not part of the text: it may be gone too */
	char	   *conninfo;		/* how the others connect to it */
} ImageBroker;

typedef struct ImageTopic
{
	int32		id;
	char	   *name;
	char	   *owner;			/* a role's name */
	int32		partitions;
	int32		replication_factor;
	char	   *retention;		/* an interval as text; NULL: for ever */
	int64		retention_bytes;	/* -1: no limit */
	int64		segment_messages;
	int32		max_message_bytes;
	char	   *value_format;
	int32		min_insync_replicas;	/* 0: by the replication factor */
	char	   *created_at;		/* timestamptz as text */
} ImageTopic;

typedef struct ImagePartition
{
	int32		topic;
	int32		number;
	int32		leader;
	int32		leader_epoch;
	int32		revision;		/* grows with each change of the partition */
	int32		unclean_epoch;	/* of the last leader that was not in sync when it
								 * was elected; 0: none */
	int32		successor;		/* the leader is handing over to it; 0: no */
	int			replicas_count;
	int32		replicas[IMAGE_BROKERS_MAX];	/* the first is preferred as leader */
	int32		placements;		/* how often brokers were added; only grows */
	int32		placed[IMAGE_BROKERS_MAX];	/* placements when each of replicas was */
	int			isr_count;
	int32		isr[IMAGE_BROKERS_MAX];
	int			target_count;	/* > 0: replicas are to become these */
	int32		target[IMAGE_BROKERS_MAX];
	bool		handover_stopped;	/* in this change; not part of the text */
} ImagePartition;

typedef struct Image
{
	char	   *cluster_id;
	int32		next_broker;	/* ids are never given twice */
	int32		next_topic;
	int			brokers_count;
	ImageBroker *brokers;
	int			topics_count;
	ImageTopic *topics;
	int			partitions_count;
	ImagePartition *partitions;
} Image;

/* Why a change is not possible; the texts are as ereport() wants them. */
typedef enum ImageProblemKind
{
	IMAGE_NO_SUCH_BROKER,
	IMAGE_NO_SUCH_TOPIC,
	IMAGE_NO_SUCH_PARTITION,
	IMAGE_DUPLICATE_TOPIC,
	IMAGE_INVALID,				/* an argument is not possible */
	IMAGE_NOT_NOW				/* not in this state of the cluster */
} ImageProblemKind;

typedef struct ImageProblem
{
	ImageProblemKind kind;
	char	   *message;
	char	   *detail;			/* NULL: none */
	char	   *hint;			/* NULL: none */
} ImageProblem;

extern Image *image_new(const char *cluster_id);

/*
 * To and from text: lines of fields, with escapes for what is not plain.  Text
 * comes from other brokers: image_parse() returns NULL for whatever is not a valid
 * image in this version's format, and never trusts a number in it for sizes.
 */
extern char *image_format(const Image *image);
extern Image *image_parse(const char *text);

/* NULL if the image is valid, else what is wrong, for tests and elog(). */
extern char *image_fault(const Image *image);

extern ImageBroker *image_broker(const Image *image, int32 id);
extern bool image_is_fenced(const Image *image, int32 broker);
extern ImageTopic *image_topic(const Image *image, int32 id);
extern ImageTopic *image_topic_by_name(const Image *image, const char *name);
extern ImagePartition *image_partition(const Image *image, int32 topic, int32 number);

extern bool partition_has_replica(const ImagePartition *partition, int32 broker);
extern bool partition_in_sync(const ImagePartition *partition, int32 broker);

/* The broker's number in placed[]; 0: it has no replica. */
extern int32 partition_placement(const ImagePartition *partition, int32 broker);

/* How many in-sync replicas acks = all asks for. */
extern int	topic_min_insync(const ImageTopic *topic);

/*
 * Changes.  All return false, with *problem filled, if they are not possible.
 * start and shift are random numbers for place_replicas(); brokers that are
 * leaving get no new replicas.
 */

/* Adds a broker and sets *id. */
extern bool image_add_broker(Image *image, const char *conninfo, int32 *id, ImageProblem *problem);

extern bool image_set_conninfo(Image *image, int32 broker, const char *conninfo, ImageProblem *problem);

/*
 * Begins moving away what a broker has.  Each of its replicas goes to a broker
 * that has none of the partition yet, the one with the fewest replicas first (the
 * lowest id among equals), and to one that is fenced only if there is no other;
 * where there is none, the partition has one replica fewer from then on.  Refused (IMAGE_NOT_NOW) if it is the only in-sync replica
 * of something that has no other replica and no other broker to go to, or the
 * last broker that is not leaving.
 *
 * With gone, the broker is not there any more and cannot hand over: it is taken
 * out of all partitions and of the image at once; where it led, the first in-sync
 * replica of the rest leads, with a new epoch and nobody else in sync.  Refused if
 * it is the last in-sync replica of anything, with the partition in the detail, or
 * the last broker that is not leaving.
 *
 * A move that is under way is changed: in its target, another broker takes the
 * place of the one that leaves or is gone, in both cases as above.
 */
extern bool image_remove_broker(Image *image, int32 broker, bool gone, ImageProblem *problem);

/*
 * Takes out a broker that is gone, as above, and has another one take its place: in
 * each partition that has, or is to have, a replica at the broker, the replacement is
 * to have one, in the same place among them, unless it is to have one anyway.
 * Refused too: the replacement is leaving.
 */
extern bool image_replace_broker(Image *image, int32 broker, int32 replacement, ImageProblem *problem);

/*
 * Fences brokers that are not there.  *changed is false if all are fenced already.
 * They are fenced together, so that none of them becomes a leader instead of another
 * one, and is alone in sync then; a broker that is suspect becomes one only where there
 * is nobody else.
 */
extern bool image_fence_brokers(Image *image, const int32 *brokers, int count,
								bool *changed, ImageProblem *problem);

/* The same for one. */
extern bool image_fence_broker(Image *image, int32 broker, bool *changed, ImageProblem *problem);

/*
 * Takes a broker for there again.  fencings is the number that it had heard of when it
 * had let go of all that it led; without effect if it was fenced again since, or is not
 * fenced.  Partitions that nobody leads and that have it in isr are led by it from then
 * on, in a new epoch.
 */
extern bool image_unfence_broker(Image *image, int32 broker, int32 fencings, bool *changed,
								 ImageProblem *problem);

/*
 * Adds a topic (id, and partitions' places, are set here; name, owner and options
 * are given, and have been checked for what has nothing to do with the cluster)
 * and sets *id.  Refused: the name is there already; replication_factor is not
 * between 1 and the brokers that are not leaving; min_insync_replicas exceeds it.
 */
extern bool image_add_topic(Image *image, const ImageTopic *topic, uint32 start, uint32 shift,
							int32 *id, ImageProblem *problem);

/* Replaces all options of a topic but id, name, partitions, replication_factor, value_format. */
extern bool image_alter_topic(Image *image, const ImageTopic *topic, ImageProblem *problem);
extern bool image_add_partitions(Image *image, int32 topic, int32 total, uint32 start, uint32 shift,
								 ImageProblem *problem);
extern bool image_drop_topic(Image *image, int32 topic, ImageProblem *problem);

/*
 * Sets where the replicas of a partition are to be; they get there by
 * image_advance().  A move that is under way is replaced.  Refused: unknown or
 * leaving brokers, one named twice, none, more than IMAGE_BROKERS_MAX.
 */
extern bool image_move_partition(Image *image, int32 topic, int32 number,
								 const int32 *replicas, int count, ImageProblem *problem);

/*
 * Has the leader hand over to an in-sync replica: sets successor.  broker 0 is the
 * preferred one.  Nothing, if that one leads already.  Refused if it is no replica
 * or not in sync, or another handover is under way, or nobody leads.
 */
extern bool image_elect_leader(Image *image, int32 topic, int32 number, int32 broker,
							   ImageProblem *problem);

/*
 * Has a replica lead that is not in sync, where nobody leads: what the others have and
 * it has not is lost.  They all begin their copies from nothing.  Refused if somebody
 * leads, or the broker is no replica or fenced.
 */
extern bool image_elect_unclean(Image *image, int32 topic, int32 number, int32 broker,
								ImageProblem *problem);

/*
 * Has the leaders that are not the preferred ones hand over to those, where these are
 * in sync and nothing else is under way.  *changed if there was any.
 */
extern void image_prefer_leaders(Image *image, bool *changed);

/*
 * What the leader of a partition reports; without effect (true, *changed false) if
 * it is not the leader of that epoch any more, or was to hand over to another one.
 *
 * image_change_isr(): broker is in sync, or is not.  The leader stays.  Who is fenced
 * does not come into sync: without effect.
 * image_hand_over(): it has stopped, and its successor has everything (done): the
 * successor leads, with the next epoch and nobody else in sync; or it could not
 * stop, and goes on leading.
 * A leader sends one report at a time, and after "done" does not go on before it
 * has got an answer or seen a newer image.
 */
extern bool image_change_isr(Image *image, int32 topic, int32 number, int32 leader,
							 int32 leader_epoch, int32 broker, bool in_sync,
							 bool *changed, ImageProblem *problem);
extern bool image_hand_over(Image *image, int32 topic, int32 number, int32 leader,
							int32 leader_epoch, int32 successor, bool done, bool *changed,
							ImageProblem *problem);

/*
 * Counts the changes of an image from the one before: a partition that is not as it
 * was has the next revision.  What a leader reports is about the revision that it knew,
 * and comes to nothing if there has been another one since: so a report that has not
 * been answered can be made void, by one that takes effect.
 */
extern void image_count_revisions(Image *image, const Image *before);

/*
 * Brings about what follows from the rest, and is called after each of the changes
 * above: a partition with a target gets the target's brokers as replicas as well;
 * when all of the target are in sync, a leader outside of it hands over to the
 * target's first, with which the others have to get in sync then; when they are
 * and the leader is in the target, replicas become the target, isr what of it is
 * in there.  A leaving broker without replicas is taken out.
 *
 * A handover that is under way to a broker outside of the target comes to its end
 * first.  One that came to nothing (the leader could not stop, or the successor is
 * not in sync or gone) is not begun again in the same change, but in the next one,
 * whatever it is about; a controller without changes may call this by itself.
 */
extern void image_advance(Image *image);

#endif							/* PGTOPIC_IMAGE_H */
