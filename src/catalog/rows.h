/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  The rows of the catalog, as they are now.
 *
 * Read through an index with a fresh snapshot, like a system catalog's, in every
 * isolation level.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_ROWS_H
#define PGTOPIC_ROWS_H

#include "postgres.h"

/* Brokers of a cluster; an id can be greater, since none is given twice. */
#define BROKERS_MAX			32

#define CLUSTER_ID_LENGTH	16

typedef enum ValueFormat
{
	FORMAT_TEXT,
	FORMAT_JSON,
	FORMAT_BYTES
} ValueFormat;

/* By its name: text, json or bytes. */
extern ValueFormat value_format(const char *name);

/* What is of use of a row of pgtopic.topic. */
typedef struct TopicRow
{
	int32		id;
	char		name[NAMEDATALEN];
	int32		partitions;
	int32		replication_factor;
	int64		segment_messages;
	int32		max_message_bytes;
	ValueFormat format;
	int32		min_insync_replicas;	/* 0: by the replication factor */
} TopicRow;

/* What is of use of a row of pgtopic.partition. */
typedef struct PartitionRow
{
	int64		log_start;
	int64		high_watermark; /* as of the last checkpoint */
	int32		leader;
	int32		leader_epoch;
	int32		revision;		/* of the metadata's partition */
	int32		successor;		/* the leader is handing over to it, or 0 */
	bool		has_tables;		/* this broker has a replica, or is none */
	int			replicas_count;
	int32		replicas[BROKERS_MAX];
	int32		placements[BROKERS_MAX];	/* of each of them */
	int			isr_count;
	int32		isr[BROKERS_MAX];
} PartitionRow;

/* What is of use of the row of pgtopic.cluster. */
typedef struct ClusterRow
{
	char		cluster_id[CLUSTER_ID_LENGTH + 1];
	int32		self;			/* number of this broker; 0: not told yet */
	int64		applied_version;
} ClusterRow;

/* Whether this broker publishes a partition to a follower: pgtopic.follower. */
typedef enum FollowerPhase
{
	FOLLOWER_COPYING,			/* not there yet: any other state */
	FOLLOWER_READY,				/* its copy streams */
	FOLLOWER_JOINING			/* the same, and it may be made an in-sync replica
								 * any moment: commits wait for it already */
} FollowerPhase;

typedef struct FollowerRow
{
	int32		follower;
	int32		placement;
	FollowerPhase phase;
} FollowerRow;

/* All return false if there is no such row. */
extern bool topic_row_by_id(int32 id, TopicRow *row);
extern bool topic_row_by_name(const char *name, TopicRow *row);
extern bool partition_row_by_number(int32 topic, int32 partition, PartitionRow *row);

/* false if this database is not in a cluster. */
extern bool cluster_row_read(ClusterRow *row);

/* The followers of a partition; returns how many. */
extern int	follower_row_states(int32 topic, int32 partition, FollowerRow rows[BROKERS_MAX]);

/* How to connect to a broker, in the caller's memory; NULL if there is none. */
extern char *broker_row_conninfo(int32 broker);

/*
 * The id of a topic that has no row yet, but whose tables are there, since a dump
 * is being restored; 0 if there is none.
 */
extern int32 topic_id_by_storage_comment(const char *name);

#endif							/* PGTOPIC_ROWS_H */
