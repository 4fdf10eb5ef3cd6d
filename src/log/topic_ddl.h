/*-------------------------------------------------------------------------
 *
 * topic_ddl.h
 *	  Making, changing and dropping topics.
 *
 * All run SQL, so a Topic that was looked up before is stale afterwards.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_TOPIC_DDL_H
#define PGTOPIC_TOPIC_DDL_H

#include "postgres.h"

#include "datatype/timestamp.h"

#define PARTITIONS_MAX			10000
#define SEGMENT_MESSAGES_MIN	1000
#define SEGMENT_MESSAGES_MAX	INT64CONST(1000000000000)
#define MESSAGE_BYTES_MAX		(256 * 1024 * 1024)

typedef struct TopicOptions
{
	int32		partitions;
	int32		replication_factor;
	Interval   *retention;		/* NULL: for ever */
	bool		has_retention_bytes;
	int64		retention_bytes;
	int64		segment_messages;
	int32		max_message_bytes;
	const char *value_format;
	bool		has_min_insync_replicas;
	int32		min_insync_replicas;
} TopicOptions;

/* Returns the id of the new topic. */
extern int32 topic_create(const char *name, const TopicOptions *options);

/* Sets one option from its text; "default" resets it. */
extern void topic_alter(int32 topic, const char *option, const char *value);

extern void topic_add_partitions(int32 topic, int32 total);
extern void topic_drop(int32 topic);

/*
 * Moves the log start offset of a partition; returns where it is then.  _here: the
 * caller has checked rights, and that this broker leads the partition.
 */
extern int64 topic_delete_messages(int32 topic, int32 partition, int64 before_offset);
extern int64 topic_delete_messages_here(int32 topic, int32 partition, int64 before_offset);

#endif							/* PGTOPIC_TOPIC_DDL_H */
