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

typedef enum ValueFormat
{
	FORMAT_TEXT,
	FORMAT_JSON,
	FORMAT_BYTES
} ValueFormat;

/* What is of use of a row of pgtopic.topic. */
typedef struct TopicRow
{
	int32		id;
	char		name[NAMEDATALEN];
	int32		partitions;
	int64		segment_messages;
	int32		max_message_bytes;
	ValueFormat format;
} TopicRow;

/* What is of use of a row of pgtopic.partition. */
typedef struct PartitionRow
{
	int64		log_start;
	int64		high_watermark; /* as of the last checkpoint */
} PartitionRow;

/* All return false if there is no such row. */
extern bool topic_row_by_id(int32 id, TopicRow *row);
extern bool topic_row_by_name(const char *name, TopicRow *row);
extern bool partition_row_by_number(int32 topic, int32 partition, PartitionRow *row);

/*
 * The id of a topic that has no row yet, but whose tables are there, since a dump
 * is being restored; 0 if there is none.
 */
extern int32 topic_id_by_storage_comment(const char *name);

#endif							/* PGTOPIC_ROWS_H */
