/*-------------------------------------------------------------------------
 *
 * select.h
 *	  Reading a topic as a query does: any partitions, any offsets, from either end.
 *
 * What is led here is read with the query's snapshot (storage/batch_scan.h).  What
 * another broker leads is read there, in pieces, each with a snapshot of its own, in the
 * transaction that this one has there if it has written there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SELECT_H
#define PGTOPIC_SELECT_H

#include "postgres.h"

#include "log/read.h"
#include "storage/batch_scan.h"

/* What to read.  The arrays must stay. */
typedef struct SelectQuery
{
	int32		topic;
	const int32 *partitions;	/* in the order of reading, ascending or descending */
	int			partitions_count;
	const OffsetRange *ranges;	/* ascending */
	int			ranges_count;
	TimestampTz since;			/* older messages need not be returned, but may be */
	bool		backward;
	int			columns;		/* BATCH_BIT()s of what is wanted */
} SelectQuery;

typedef struct LogSelect
{
	SelectQuery query;
	Snapshot	snapshot;
	MemoryContext context;		/* that this was begun in */
	BatchScanCounts *counts;
	int64	   *partitions_read;
	int			place;			/* in query.partitions */
	bool		open;
	bool		here;
	/* here: the part of the batch that is left */
	BatchScan	scan;
	int			first;
	int			last;
	/* elsewhere: the piece that was fetched */
	MemoryContext piece;
	LogMessage *messages;
	int			messages_count;
	int			messages_room;
	int			position;
	int			range;			/* in the order of reading */
	OffsetRange left;			/* of it */
	int64		size;			/* messages to ask for next */
	LogMessage	message;		/* the one that was returned last */
} LogSelect;

/*
 * Begins, and reads nothing yet.  The caller has checked rights, and keeps the snapshot
 * and counts.
 */
extern void log_select_begin(LogSelect *select, const SelectQuery *query, Snapshot snapshot,
							 BatchScanCounts *counts, int64 *partitions_read);

/* The next message, good until the next call, and its partition; NULL if there is none. */
extern const LogMessage *log_select_next(LogSelect *select, int32 *partition);

extern void log_select_end(LogSelect *select);

/*
 * A piece of a partition that this broker leads, at most max messages and not much more
 * than SELECT_PIECE_BYTES, for another broker.
 */
#define SELECT_PIECE_BYTES	(4 * 1024 * 1024)

extern void log_select_here(LogPartition *partition, OffsetRange range, TimestampTz since,
							bool backward, int64 max, MessageSink sink, void *arg);

#endif							/* PGTOPIC_SELECT_H */
