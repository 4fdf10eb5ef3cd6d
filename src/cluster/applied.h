/*-------------------------------------------------------------------------
 *
 * applied.h
 *	  What a follower does with each batch that replication brings.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_APPLIED_H
#define PGTOPIC_APPLIED_H

#include "postgres.h"

#include "fmgr.h"

/*
 * A trigger before each insert by the apply worker.  Waits for the maintenance worker
 * where segments for what follows are not there yet: a row without a segment would be
 * an error, and have the apply worker start again after seconds.
 */
extern Datum applied_trigger(FunctionCallInfo fcinfo);

/*
 * The same before each insert and update of a position: the leader says by one of a
 * reserved name how far its segments reach, before it writes there.
 */
extern Datum applied_position_trigger(FunctionCallInfo fcinfo);

#endif							/* PGTOPIC_APPLIED_H */
