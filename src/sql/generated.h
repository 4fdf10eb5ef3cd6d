/*-------------------------------------------------------------------------
 *
 * generated.h
 *	  Generated columns that a trigger's rows lack.
 *
 * These are the virtual ones (PostgreSQL 18), and stored ones in NEW TABLE of a
 * partitioned table: what a partition has taken from an INSERT into it, where the two have
 * their columns in different places, is there as it was before it was converted and its
 * generated columns were computed (tcs_original_insert_tuple, trigger.c).
 *
 * Their expressions are the table's: they run with the settings that are in force, as
 * planning them does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_GENERATED_H
#define PGTOPIC_GENERATED_H

#include "postgres.h"

#include "commands/trigger.h"
#include "executor/tuptable.h"

typedef struct GeneratedColumns GeneratedColumns;

/* Whether the rows lack any. */
extern bool generated_are_lacking(const TriggerData *trigger);

/* How to compute them, in the current memory context. */
extern GeneratedColumns *generated_prepare(const TriggerData *trigger);

/* A row with all its columns, in a slot for old rows, or new ones: good until the next one. */
extern TupleTableSlot *generated_complete(GeneratedColumns *generated, TupleTableSlot *row,
										  bool is_new);

extern void generated_release(GeneratedColumns *generated);

#endif							/* PGTOPIC_GENERATED_H */
