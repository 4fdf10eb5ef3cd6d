/*-------------------------------------------------------------------------
 *
 * image_private.h
 *	  What the files of the image share with each other alone.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_IMAGE_PRIVATE_H
#define PGTOPIC_IMAGE_PRIVATE_H

#include "c.h"

#include "base/image.h"

extern bool list_has(const int32 *list, int count, int32 id);

/* The index of the first partition that is not before this one. */
extern int	partition_lower_bound(const Image *image, int32 topic, int32 number);

/* Fills *problem (the texts are palloc'd, or NULL) and returns false. */
extern bool image_refuse(ImageProblem *problem, ImageProblemKind kind,
						 char *message, char *detail, char *hint);

/* NULL, with *problem filled, if there is no such thing. */
extern ImageBroker *image_need_broker(const Image *image, int32 id, ImageProblem *problem);
extern ImageTopic *image_need_topic(const Image *image, int32 id, ImageProblem *problem);
extern ImagePartition *image_need_partition(const Image *image, int32 topic, int32 number,
											ImageProblem *problem);

/* As repalloc(), but an array of nothing is NULL. */
extern void *image_resize(void *array, Size size);

/* Brokers that are not leaving, ascending; returns how many. */
extern int	image_staying(const Image *image, int32 *ids);

/*
 * Somebody else than the leader, who is not there, leads from now on: the first of isr
 * who is not fenced; if there is none, nobody does, and leader only names one of isr.
 */
extern void partition_replace_leader(const Image *image, ImagePartition *partition);

/* It is not in sync any more, nor to lead. */
extern void partition_leave_isr(ImagePartition *partition, int32 broker);

/* Puts isr into the order of replicas. */
extern void partition_order_isr(ImagePartition *partition);

/* It leads from now on, with the next epoch, and is the only one in sync. */
extern void partition_set_leader(ImagePartition *partition, int32 leader);

/* The handover under way, if any, is off. */
extern void partition_stop_handover(ImagePartition *partition);

#endif							/* PGTOPIC_IMAGE_PRIVATE_H */
