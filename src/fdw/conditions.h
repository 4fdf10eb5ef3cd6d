/*-------------------------------------------------------------------------
 *
 * conditions.h
 *	  Which conditions of a query say what is to be read of a topic.
 *
 * These are comparisons of the columns partition, log_offset and "timestamp" with
 * something that does not depend on the row, joined by AND: <, <=, =, >=, > and = ANY of
 * an array for the former two, =, >= and > for "timestamp".
 *
 * A condition on partition or log_offset is *exact*: reading only what it says leaves
 * nothing to be filtered.  One on "timestamp" only says which batches need not be read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_CONDITIONS_H
#define PGTOPIC_CONDITIONS_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "nodes/pathnodes.h"

#include "base/offsets.h"
#include "catalog/relations.h"

typedef struct Condition
{
	int			column;			/* enum RelationColumn */
	OffsetComparison comparison;
	bool		is_array;		/* = ANY (value) */
	Oid			type;			/* of the value, or of the array's elements */
	Expr	   *value;
} Condition;

/* Reads a clause of a query; false if it says nothing of this kind about the relation. */
extern bool condition_from_clause(PlannerInfo *root, Index relid, Expr *clause,
								  Condition *condition);

static inline bool
condition_is_exact(const Condition *condition)
{
	return condition->column != COLUMN_TIMESTAMP;
}

/* All of a condition but the value, as integers in a plan, and back. */
#define CONDITION_INTS	4
extern List *condition_to_ints(List *ints, const Condition *condition);
extern void condition_from_ints(const List *ints, int number, Condition *condition);

/* What conditions leave of a topic, in the memory of whoever asked. */
typedef struct Selection
{
	bool		nothing;		/* some value was NULL, or they contradict each other */
	int32	   *partitions;		/* ascending */
	int			partitions_count;
	OffsetRange range;			/* of all comparisons */
	bool		has_offsets;	/* there is an array, too */
	int64	   *offsets;		/* sorted */
	int			offsets_count;
	TimestampTz since;			/* DT_NOBEGIN if there is no such condition */
} Selection;

/* All of a topic with so many partitions. */
extern void selection_begin(Selection *selection, int partitions_count);

/* What is left after a condition whose value is known now. */
extern void selection_cut(Selection *selection, const Condition *condition,
						  Datum value, bool isnull);

/* The offsets that are left, ascending; returns how many ranges there are. */
extern int	selection_ranges(const Selection *selection, OffsetRange **ranges);

#endif							/* PGTOPIC_CONDITIONS_H */
