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

/* Each fills in the callbacks of its part. */
extern void fdw_plan_routine(FdwRoutine *routine);
extern void fdw_scan_routine(FdwRoutine *routine);
extern void fdw_modify_routine(FdwRoutine *routine);

/* What a plan says beside its conditions (conditions.h): a list of integers. */
enum PlanFlag
{
	PLAN_BACKWARD,				/* within a partition, from its end */
	PLAN_PARTITIONS_DESCENDING,
	PLAN_ONE_PARTITION,			/* it is right only if there are no more */
	PLAN_COLUMNS				/* of the relation that are wanted, as bits */
};

#endif							/* PGTOPIC_FDW_H */
