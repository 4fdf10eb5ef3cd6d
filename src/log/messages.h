/*-------------------------------------------------------------------------
 *
 * messages.h
 *	  The messages of a call, and what they must be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_MESSAGES_H
#define PGTOPIC_MESSAGES_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/packing.h"
#include "catalog/topics.h"
#include "log/producers.h"

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
	int32	   *partitions;		/* NULL if all are chosen by key; -1: this one is */
	int64	   *offsets;		/* NULL but for produce_reserved() */
	Datum	   *timestamps;		/* NULL if all are the same */
	TimestampTz timestamp;
	const Producer *producer;	/* NULL if they are not numbered */
} MessageSet;

/*
 * Raises an error unless all of them can be put into the topic.  Brings them into the
 * form in which they are stored: jsonb as text, one timestamp where all are equal.
 */
extern void messages_check(const Topic *topic, MessageSet *messages);

/* The bytes of one of them; -1 for what is NULL. */
extern PackSizes messages_sizes(const MessageSet *messages, int i);

#endif							/* PGTOPIC_MESSAGES_H */
