/*-------------------------------------------------------------------------
 *
 * fdw.h
 *	  A topic as a relation: what its foreign table does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_FDW_H
#define PGTOPIC_FDW_H

#include "postgres.h"

#include "foreign/fdwapi.h"

#include "base/offsets.h"
#include "catalog/relations.h"
#include "storage/batches.h"

/* Each fills in the callbacks of its part. */
extern void fdw_plan_routine(FdwRoutine *routine);
extern void fdw_scan_routine(FdwRoutine *routine);
extern void fdw_modify_routine(FdwRoutine *routine);
extern void fdw_analyze_routine(FdwRoutine *routine);

/* What a plan says beside its conditions (conditions.h): a list of integers. */
enum PlanFlag
{
	PLAN_BACKWARD,				/* within a partition, from its end */
	PLAN_PARTITIONS_DESCENDING,
	PLAN_ONE_PARTITION,			/* it is right only if there are no more */
	PLAN_COLUMNS				/* of the relation that are wanted, as bits */
};

/*
 * The offsets of each of the first partitions, without reading any of it.  Partitions that
 * other brokers have are taken to be like those that are here.  The caller says how many it
 * knows of: a topic may get more at any time.
 */
extern void fdw_topic_logs(int32 topic, int partitions_count, OffsetRange *logs);

/* Whether this broker has a copy of the partition. */
extern bool fdw_partition_is_here(int32 topic, int32 partition);

/*
 * The columns of a message's row, RELATION_COLUMNS of them.  They point to what the
 * message points to, but for JSON, which is in the caller's memory.
 */
extern void fdw_form_row(int32 topic, ValueFormat format, int32 partition,
						 const LogMessage *message, Datum *values, bool *nulls);

#endif							/* PGTOPIC_FDW_H */
