/*-------------------------------------------------------------------------
 *
 * produce.h
 *	  Putting messages into a topic.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PRODUCE_H
#define PGTOPIC_PRODUCE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "catalog/topics.h"

/* What the values (and, for bytes, the keys) of a call are. */
typedef enum PayloadKind
{
	PAYLOAD_TEXT,
	PAYLOAD_BYTES,
	PAYLOAD_JSONB
} PayloadKind;

/* The messages of one call, column by column.  Not toasted. */
typedef struct MessageSet
{
	int			count;
	PayloadKind kind;
	Datum	   *values;
	bool	   *value_nulls;
	Datum	   *keys;			/* NULL if no message has one */
	bool	   *key_nulls;
	Datum	   *headers;		/* NULL if no message has any; else jsonb */
	bool	   *header_nulls;
	Datum	   *timestamps;		/* NULL if all are the same */
	TimestampTz timestamp;
} MessageSet;

/* Where the messages of one partition have gone. */
typedef struct ProducedRange
{
	int32		partition;
	int64		first_offset;
	int64		last_offset;
} ProducedRange;

/*
 * Appends messages in the order of the set.  partition is -1 to choose by key.
 * Fills ranges, in the order of the partitions, and returns how many there are;
 * there is room for one for each partition and no more than there are messages.
 *
 * Checks everything before anything is written.  The caller has seen to it that
 * the transaction can write (extension_require_writable()) and that the user may
 * use the topic, and has locked it (topic_lock()).
 */
extern int	produce_messages(Topic *topic, MessageSet *messages, int32 partition,
							 ProducedRange *ranges);

#endif							/* PGTOPIC_PRODUCE_H */
