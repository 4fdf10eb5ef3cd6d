/*-------------------------------------------------------------------------
 *
 * conditions.c
 *	  Which conditions of a query say what is to be read of a topic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "fdw/conditions.h"

/* Whether an expression is one of the three columns. */
static bool
is_column(Expr *expr, Index relid, int *column)
{
	Var		   *var = (Var *) expr;

	if (!IsA(expr, Var) || var->varno != (int) relid || var->varlevelsup != 0 ||
		(var->varattno != COLUMN_PARTITION && var->varattno != COLUMN_LOG_OFFSET &&
		 var->varattno != COLUMN_TIMESTAMP))
		return false;
	*column = var->varattno;
	return true;
}

/* Whether it can be known before any row is read. */
static bool
is_value(PlannerInfo *root, Index relid, Expr *expr)
{
	return !bms_is_member(relid, pull_varnos(root, (Node *) expr)) &&
		!contain_volatile_functions((Node *) expr) &&
		!contain_subplans((Node *) expr);
}

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* Whether an operator is a comparison that we know, and which. */
static bool
is_comparison(Oid operator, Condition *condition)
{
	bool		is_time = condition->column == COLUMN_TIMESTAMP;
	Oid			family = lookup_type_cache(is_time ? TIMESTAMPTZOID : INT8OID,
										   TYPECACHE_BTREE_OPFAMILY)->btree_opf;
	int			strategy;
	Oid			left;

	if (!op_in_opfamily(operator, family))
		return false;
	get_op_opfamily_properties(operator, family, false, &strategy, &left, &condition->type);
	if (is_time ? condition->type != TIMESTAMPTZOID && condition->type != TIMESTAMPOID &&
		condition->type != DATEOID : !is_integer(condition->type))
		return false;
	/* these are the five strategies of a btree, in this order */
	condition->comparison = (OffsetComparison) (strategy - BTLessStrategyNumber + OFFSET_LESS);
	return !is_time || condition->comparison >= OFFSET_EQUAL;
}

bool
condition_from_clause(PlannerInfo *root, Index relid, Expr *clause, Condition *condition)
{
	memset(condition, 0, sizeof(Condition));
	if (IsA(clause, OpExpr) && list_length(((OpExpr *) clause)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) clause;
		Expr	   *left = linitial(op->args);
		Expr	   *right = lsecond(op->args);
		Oid			operator = op->opno;

		if (!is_column(left, relid, &condition->column))
		{
			Expr	   *swap = left;

			left = right;
			right = swap;
			operator = get_commutator(operator);
			if (!OidIsValid(operator) || !is_column(left, relid, &condition->column))
				return false;
		}
		condition->value = right;
		return is_value(root, relid, right) && is_comparison(operator, condition);
	}
	if (IsA(clause, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) clause)->useOr)
	{
		ScalarArrayOpExpr *op = (ScalarArrayOpExpr *) clause;

		condition->is_array = true;
		condition->value = lsecond(op->args);
		return is_column(linitial(op->args), relid, &condition->column) &&
			condition->column != COLUMN_TIMESTAMP &&
			is_value(root, relid, condition->value) &&
			is_comparison(op->opno, condition) &&
			condition->comparison == OFFSET_EQUAL;
	}
	return false;
}

List *
condition_to_ints(List *ints, const Condition *condition)
{
	ints = lappend_int(ints, condition->column);
	ints = lappend_int(ints, condition->comparison);
	ints = lappend_int(ints, condition->is_array);
	return lappend_int(ints, (int) condition->type);
}

void
condition_from_ints(const List *ints, int number, Condition *condition)
{
	int			first = number * CONDITION_INTS;

	condition->column = list_nth_int(ints, first);
	condition->comparison = list_nth_int(ints, first + 1);
	condition->is_array = list_nth_int(ints, first + 2);
	condition->type = (Oid) list_nth_int(ints, first + 3);
	condition->value = NULL;
}

void
selection_begin(Selection *selection, int partitions_count)
{
	memset(selection, 0, sizeof(Selection));
	selection->partitions = palloc(Max(partitions_count, 1) * sizeof(int32));
	selection->partitions_count = partitions_count;
	for (int p = 0; p < partitions_count; p++)
		selection->partitions[p] = p;
	selection->range = offsets_all();
	selection->since = DT_NOBEGIN;
}

static int64
integer(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

/* What no timestamp can be is infinity, as by the operators of these types. */
static TimestampTz
instant(Datum value, Oid type)
{
	int			overflow;

	switch (type)
	{
		case DATEOID:
			return date2timestamptz_opt_overflow(DatumGetDateADT(value), &overflow);
		case TIMESTAMPOID:
			return timestamp2timestamptz_opt_overflow(DatumGetTimestamp(value), &overflow);
		default:
			return DatumGetTimestampTz(value);
	}
}

/* The elements of an array that are not NULL, sorted; NULL equals nothing. */
static int64 *
integers(Datum value, Oid type, int *count)
{
	Datum	   *elements;
	bool	   *nulls;
	int64	   *numbers;
	int			all;
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	deconstruct_array(DatumGetArrayTypeP(value), type, length, by_value, align,
					  &elements, &nulls, &all);
	numbers = MemoryContextAllocHuge(CurrentMemoryContext, Max(all, 1) * sizeof(int64));
	*count = 0;
	for (int i = 0; i < all; i++)
	{
		if (!nulls[i])
			numbers[(*count)++] = integer(elements[i], type);
	}
	*count = offsets_sort(numbers, *count);
	return numbers;
}

/* Leaves the partitions that are in a range and, if there is one, in an array. */
static void
cut_partitions(Selection *selection, OffsetRange range, const int64 *numbers, int count)
{
	int			kept = 0;

	for (int i = 0; i < selection->partitions_count; i++)
	{
		int32		partition = selection->partitions[i];
		bool		keep = partition >= range.from && partition < range.to;

		if (keep && numbers != NULL)
		{
			int64		wanted = partition;

			keep = offsets_intersect(&wanted, 1, numbers, count) == 1;
		}
		if (keep)
			selection->partitions[kept++] = partition;
	}
	selection->partitions_count = kept;
}

void
selection_cut(Selection *selection, const Condition *condition, Datum value, bool isnull)
{
	if (isnull)
		selection->nothing = true;
	if (selection->nothing)
		return;

	if (condition->column == COLUMN_TIMESTAMP)
		selection->since = Max(selection->since, instant(value, condition->type));
	else if (condition->is_array)
	{
		int			count;
		int64	   *numbers = integers(value, condition->type, &count);

		if (condition->column == COLUMN_PARTITION)
			cut_partitions(selection, offsets_all(), numbers, count);
		else if (selection->has_offsets)
			selection->offsets_count = offsets_intersect(selection->offsets,
														 selection->offsets_count,
														 numbers, count);
		else
		{
			selection->has_offsets = true;
			selection->offsets = numbers;
			selection->offsets_count = count;
		}
	}
	else if (condition->column == COLUMN_PARTITION)
		cut_partitions(selection, offsets_cut(offsets_all(), condition->comparison,
											  integer(value, condition->type)), NULL, 0);
	else
		selection->range = offsets_cut(selection->range, condition->comparison,
									   integer(value, condition->type));

	selection->nothing = selection->partitions_count == 0 ||
		selection->range.from >= selection->range.to ||
		(selection->has_offsets && selection->offsets_count == 0);
}

int
selection_ranges(const Selection *selection, OffsetRange **ranges)
{
	if (selection->nothing)
	{
		*ranges = NULL;
		return 0;
	}
	*ranges = MemoryContextAllocHuge(CurrentMemoryContext,
									 Max(selection->offsets_count, 1) * sizeof(OffsetRange));
	if (selection->has_offsets)
		return offsets_to_ranges(selection->range, selection->offsets, selection->offsets_count,
								 *ranges);
	(*ranges)[0] = selection->range;
	return 1;
}
