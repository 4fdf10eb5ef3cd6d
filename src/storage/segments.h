/*-------------------------------------------------------------------------
 *
 * segments.h
 *	  The tables of a topic: root, partitions, segments, positions.
 *
 * The functions that make or drop tables run SQL; their caller is connected to
 * SPI and acts as the extension's owner (extension_owner_begin()).
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SEGMENTS_H
#define PGTOPIC_SEGMENTS_H

#include "postgres.h"

#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "catalog/topics.h"

/* How many segments there should be beyond the one that is written to. */
#define SEGMENTS_AHEAD	2

/*
 * Brings partition->segments up to date.  The table of the partition is locked
 * for as long as that takes, not longer: a lock kept to the end of the
 * transaction would keep retention away.
 */
extern void segments_load(LogPartition *partition);

/*
 * Opens the segment that holds the batch ending at an offset, and sets *segment
 * to its number in the map.  NULL if there is none.  The lock is kept.
 */
extern Relation segment_open_for(LogPartition *partition, int64 last_offset,
								 LOCKMODE mode, int *segment);

/* End of the last segment; 0 if there is none. */
extern int64 segments_end(LogPartition *partition);

/* Makes the root and the table of positions of a new topic. */
extern void storage_create_topic(int32 topic, const char *name);

/* Makes the tables of one partition, with its first segments. */
extern void storage_create_partition(int32 topic, int32 partition, int64 segment_messages);

/* Makes one segment more, [from, to), and attaches it. */
extern void storage_create_segment(int32 topic, int32 partition, int64 from, int64 to);

/*
 * Drops the relation, all tables and the statistics of a topic, or the tables and the
 * statistics of one partition, as far as they are there.  Without must, the relation stays
 * where that is not possible (relation_try_drop()).
 */
extern void storage_drop_topic(int32 topic, bool must);
extern void storage_drop_partition(int32 topic, int32 partition);

/* Drops a segment, waiting for its lock. */
extern void storage_drop_segment(Oid segment);

/*
 * Drops a segment, if nobody uses it or its parent right now; false if somebody
 * does.  Never waits for a lock, so nobody ever queues behind it.
 */
extern bool storage_try_drop_segment(LogPartition *partition, const Segment *segment);

/*
 * Whether the tables of a partition have their indexes.  They do not while a dump
 * is being restored.
 */
extern bool storage_is_complete(const LogPartition *partition);

/* The same of the topic's own, which a dump restores last. */
extern bool storage_root_is_complete(int32 topic);

/*
 * Ties the tables and the relation of a topic to the extension, so that DROP EXTENSION
 * takes them along without asking, and makes the relation if it is missing.  Does
 * nothing where the tables are missing, or tied already.  Dumps do not contain these ties, and pg_upgrade loses them: what
 * restores rows of pgtopic.topic (its trigger), and the worker when it starts,
 * see to it too.
 */
extern void storage_adopt(int32 topic);

/*
 * Gives the tables of positions the columns that came with version 0.3.0, if they are
 * of a dump of an older one, and the extension is not.  Locks them all against
 * everybody then.
 */
extern void storage_add_columns(int32 topic);

#endif							/* PGTOPIC_SEGMENTS_H */
