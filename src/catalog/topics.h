/*-------------------------------------------------------------------------
 *
 * topics.h
 *	  Topics as the catalog describes them, kept in a cache of the backend.
 *
 * A Topic that topic_get() returns, and its partitions, can be read to the end of
 * the transaction, but describe the topic only until the next call of it: whoever
 * waits, or runs SQL, gets it anew.
 *
 * The cache is told of changes by relcache invalidations of the topic's root
 * table, its relation, and the partitions' tables: the trigger on pgtopic.topic sends
 * the former, PostgreSQL itself the latter when segments come and go.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_TOPICS_H
#define PGTOPIC_TOPICS_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/compat.h"
#include "base/segmap.h"
#include "catalog/rows.h"
#include "shmem/slots.h"

/* One partition of a topic. */
typedef struct LogPartition
{
	struct Topic *topic;
	int32		number;
	Oid			relation;		/* pgtopic.t7_p3; InvalidOid where this broker has
								 * no replica, and so below */
	Oid			positions;		/* pgtopic.t7_p3_offsets */
	int32		leader;			/* 0: this server is not in a cluster */
	int32		leader_epoch;
	int32		successor;		/* the leader is handing over to it, or 0 */
	int			replicas_count;
	SlotRef		slot;
	bool		segments_valid;
	int			segments_count;
	Segment    *segments;		/* ascending */
} LogPartition;

typedef struct Topic
{
	int32		id;				/* hash key, must be first */
	bool		valid;			/* as far as we have heard */
	bool		damaged;		/* some of its tables are missing */
	char		name[NAMEDATALEN];
	Oid			root;			/* pgtopic.t7 */
	Oid			relation;		/* topics.<name>; see catalog/relations.h */
	int			partitions_count;
	LogPartition *partitions;
	int32		replication_factor;
	int32		min_insync_replicas;	/* that acks = all asks for */
	int64		segment_messages;
	int32		max_message_bytes;
	ValueFormat format;
	MemoryContext context;		/* of all the above that is allocated */
} Topic;

/* The topic with an id, or NULL; an error if some of its tables are missing. */
extern Topic *topic_find(int32 id);

/* The same, but perhaps with damaged set: then only name, root and rights are
 * of use. */
extern Topic *topic_find_any(int32 id);

/* The same, but an error (42704) if there is none. */
extern Topic *topic_get(int32 id);

/*
 * The same, and locks the root table to the end of the transaction, so that
 * drop_topic() waits for it there, before it has locked anything else: who holds
 * a segment and wants another one must not meet it halfway.
 */
extern Topic *topic_lock(int32 id);

/* The id of the topic with this name; 0 if there is none. */
extern int32 topic_id_by_name(const char *name);

/* The name of a topic in the caller's memory, or NULL. */
extern char *topic_name_by_id(int32 id);

pg_noreturn extern void topic_error_unknown(const char *name);

/* Grows with each invalidation of any relation that this backend hears of. */
extern uint64 topics_invalidations(void);

/* The partition with this number; an error (22003) if there is none. */
extern LogPartition *topic_partition_get(Topic *topic, int32 number);

/* Has all backends look at the catalog again when this transaction commits. */
extern void topic_invalidate(int32 id);

/*
 * Has all sessions plan their statements anew when this transaction commits.  A
 * literal of type topic is an id in a plan; after the topic has been dropped and
 * made again, its name means another one.
 */
extern void topic_invalidate_plans(void);

/* What the catalog says of a partition now; false if it is not there. */
extern bool partition_row_read(const LogPartition *partition, PartitionRow *row);

/* The log start offset now; an error if the partition is not there. */
extern int64 partition_log_start(const LogPartition *partition);

#endif							/* PGTOPIC_TOPICS_H */
