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

#include "catalog/topics.h"
#include "log/messages.h"

/* Where the messages of one partition have gone. */
typedef struct ProducedRange
{
	int32		partition;
	int64		first_offset;
	int64		last_offset;
} ProducedRange;

/*
 * Appends messages in the order of the set.  partition is -1 to choose by key, unless
 * messages->partitions says otherwise.
 * Numbered ones go to one partition; if it has them already, the range is that of
 * the first time.
 * Fills ranges, in the order of the partitions, and returns how many there are;
 * there is room for one for each partition and no more than there are messages.
 *
 * Partitions that other brokers lead get theirs there, in a transaction that commits
 * just before this one (peer/transaction.h).
 *
 * Checks everything before anything is written.  The caller has seen to it that
 * the transaction can write (extension_require_writable()) and that the user may
 * use the topic, and has locked it (topic_lock()).
 */
extern int	produce_messages(Topic *topic, MessageSet *messages, int32 partition,
							 ProducedRange *ranges);

/*
 * The same in two steps, for who has to say where a message is before the next one is
 * known.  produce_reserve() gives one message its partition, in messages->partitions, and
 * its offset, in messages->offsets; false if another broker leads the partition: then it
 * is for produce_messages().  produce_reserved() writes messages that have theirs, later in
 * the same command; the offsets of a command that fails in between are passed over as those
 * that are rolled back.
 */
extern bool produce_reserve(Topic *topic, MessageSet *messages, int i);
extern void produce_reserved(Topic *topic, MessageSet *messages);

#endif							/* PGTOPIC_PRODUCE_H */
