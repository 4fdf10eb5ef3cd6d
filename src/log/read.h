/*-------------------------------------------------------------------------
 *
 * read.h
 *	  Reading a partition from an offset, and finding offsets by time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_READ_H
#define PGTOPIC_READ_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "catalog/topics.h"
#include "log/waiting.h"
#include "storage/batches.h"

/* Takes what is read; must copy what it keeps. */
typedef void (*MessageSink) (void *arg, int32 partition, const LogMessage *message);

typedef struct ReadResult
{
	int64		messages;
	int64		first_offset;	/* if there are messages */
	int64		next_offset;	/* where to go on: after the last message, or the
								 * watermark if all below it was read */
} ReadResult;

/*
 * Reads up to max messages that are settled, given a watermark that was taken
 * before.  Takes a fresh snapshot itself.  An error (57P03) if another broker has come
 * to lead the partition meanwhile.
 */
extern ReadResult log_read(LogPartition *partition, int64 from, int64 max,
						   int64 high_watermark, MessageSink sink, void *arg);

/*
 * fetch_messages(): checks rights and offsets, and waits if there is nothing
 * yet; asks the leader, if that is another broker.  Returns the number of messages.
 */
extern int64 log_fetch(int32 topic, int32 partition, int64 from, int64 max,
					   Deadline deadline, MessageSink sink, void *arg);

/* The same, but an error (57P03) if this broker does not lead the partition. */
extern int64 log_fetch_here(int32 topic, int32 partition, int64 from, int64 max,
							Deadline deadline, MessageSink sink, void *arg);

/*
 * The first settled message at or after a time; if there is none, the offset behind the
 * last one.  Not the high watermark: offsets that were rolled back at the end of the log
 * are another leader's messages, maybe, after a crash of this one.
 */
extern int64 log_offset_at(LogPartition *partition, TimestampTz timestamp);

/* The same for the first count partitions of a topic, whoever leads them. */
extern void log_offsets_at(int32 topic, TimestampTz timestamp, int64 *offsets, int count);

#endif							/* PGTOPIC_READ_H */
