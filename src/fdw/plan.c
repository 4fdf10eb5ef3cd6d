/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  Planning a query of a topic: estimates, paths, plan.
 *
 * A topic is read partition after partition, in order of offsets, each of the two
 * upwards or downwards.  So there is a path for each order that the query may make use of.
 * Where the partition is fixed the order is that of log_offset alone.
 *
 * Estimates are made of the catalog (log start and watermark of the partitions) and of the
 * statistics of complete segments, which tell when they were written, and how many
 * batches and messages they hold.  Nothing of the log is read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "fdw/conditions.h"
#include "fdw/fdw.h"
#include "shmem/slots.h"
#include "storage/segment_statistics.h"

/* Messages of a batch where there are no statistics. */
#define BATCH_MESSAGES	50

/* Messages of a partition where nothing is known of any: another broker has them all. */
#define UNKNOWN_MESSAGES	10000

/* What is not in the payload's columns: arrays, offsets, the row's header. */
#define BATCH_OVERHEAD	150

/* What is known of a topic while a query of it is planned: baserel->fdw_private. */
typedef struct TopicPlan
{
	int32		topic;
	int			partitions_count;
	OffsetRange *logs;			/* of each partition, from the log start to the watermark */
	SegmentStatistics **statistics;	/* of each */
	int		   *statistics_count;
	double		batch_messages;
} TopicPlan;

/* What is known of a partition whose log is here. */
static OffsetRange
partition_log(int32 topic, int32 partition)
{
	OffsetRange log = {0, 0};
	PartitionRow row;
	SlotState	slot;

	if (partition_row_by_number(topic, partition, &row))
	{
		log.from = row.log_start;
		log.to = row.high_watermark;
	}
	/* the stored watermark is a little old; what is in shared memory is not */
	if (slots_available() &&
		slot_state(&topic_get(topic)->partitions[partition].slot, &slot) == SLOT_OK)
		log.to = Max(log.to, slot.next_offset);
	log.to = Max(log.to, log.from);
	return log;
}

void
fdw_topic_logs(int32 topic, int partitions_count, OffsetRange *logs)
{
	int			here = 0;
	double		from = 0;
	double		to = 0;

	for (int p = 0; p < partitions_count; p++)
	{
		if (!fdw_partition_is_here(topic, p))
			continue;
		logs[p] = partition_log(topic, p);
		from += logs[p].from;
		to += logs[p].to;
		here++;
	}
	for (int p = 0; p < partitions_count; p++)
	{
		if (fdw_partition_is_here(topic, p))
			continue;
		logs[p].from = here > 0 ? (int64) (from / here) : 0;
		logs[p].to = here > 0 ? (int64) (to / here) : UNKNOWN_MESSAGES;
	}
}

bool
fdw_partition_is_here(int32 topic, int32 partition)
{
	return OidIsValid(topic_get(topic)->partitions[partition].relation);
}

static TopicPlan *
topic_plan(Oid relation)
{
	TopicPlan  *state = palloc0(sizeof(TopicPlan));
	Topic	   *topic = topic_of_relation(relation, false);
	int64		messages = 0;
	int64		batches = 0;

	state->topic = topic->id;
	state->partitions_count = topic->partitions_count;
	state->logs = palloc0(state->partitions_count * sizeof(OffsetRange));
	state->statistics = palloc0(state->partitions_count * sizeof(SegmentStatistics *));
	state->statistics_count = palloc0(state->partitions_count * sizeof(int));
	fdw_topic_logs(state->topic, state->partitions_count, state->logs);
	for (int p = 0; p < state->partitions_count; p++)
	{
		state->statistics_count[p] = segment_statistics_read(state->topic, p,
															 &state->statistics[p]);
		for (int i = 0; i < state->statistics_count[p]; i++)
		{
			messages += state->statistics[p][i].messages;
			batches += state->statistics[p][i].batches;
		}
	}
	state->batch_messages = batches > 0 ? (double) messages / batches : BATCH_MESSAGES;
	return state;
}

/* How many offsets a range and the log of a partition have in common. */
static double
offsets_in(const TopicPlan *state, int32 partition, OffsetRange range)
{
	const OffsetRange *log = &state->logs[partition];

	return Max(Min(range.to, log->to) - Max(range.from, log->from), 0);
}

/* The part of a partition's log that is at least as new as a time. */
static double
newer_part(const TopicPlan *state, int32 partition, TimestampTz since)
{
	const SegmentStatistics *statistics = state->statistics[partition];
	int			count = state->statistics_count[partition];
	double		all = offsets_in(state, partition, offsets_all());
	double		rest = all;
	double		newer = 0;
	bool		is_known = false;
	double		begin = 0;

	/* in double: a difference of timestamps may be more than fits into one */
	for (int i = 0; i < count; i++)
	{
		double		messages = statistics[i].messages;
		double		newest = statistics[i].max_timestamp;
		double		length = newest - statistics[i].min_timestamp;

		/* then there are no timestamps either */
		if (messages == 0)
			continue;
		rest -= messages;
		if (since <= statistics[i].min_timestamp)
			newer += messages;
		else if (since <= statistics[i].max_timestamp && length > 0)
			newer += messages * (newest - since) / length;
		is_known = true;
		begin = newest;
	}
	if (rest > 0)
	{
		/* what has no statistics has come since the last that has, evenly */
		double		now = GetCurrentTimestamp();
		double		length = now - begin;

		if (!is_known)
			newer += rest * DEFAULT_INEQ_SEL;
		else if (since <= begin)
			newer += rest;
		else if (length > 0)
			newer += rest * Max(now - since, 0) / length;
	}
	return all > 0 ? Min(newer / all, 1.0) : 0;
}

/*
 * How many messages conditions leave, and in how many partitions they are looked for.
 * Values that are not known yet are taken to be like any: one of the partitions, one
 * message for =, a third for the rest.
 */
static double
estimate_rows(PlannerInfo *root, RelOptInfo *baserel, const TopicPlan *state,
			  const List *clauses, Selectivity others, double *partitions)
{
	Selection	selection;
	double		part = 1.0;
	bool		one_partition = false;
	bool		one_offset = false;
	double		rows = 0;
	ListCell   *cell;

	selection_begin(&selection, state->partitions_count);
	foreach(cell, clauses)
	{
		RestrictInfo *info = lfirst(cell);
		Condition	condition;
		Node	   *value;

		if (!condition_from_clause(root, baserel->relid, info->clause, &condition))
			continue;
		value = estimate_expression_value(root, (Node *) condition.value);
		if (IsA(value, Const))
			selection_cut(&selection, &condition, ((Const *) value)->constvalue,
						  ((Const *) value)->constisnull);
		else if (condition.column == COLUMN_TIMESTAMP || condition.comparison != OFFSET_EQUAL)
			part *= DEFAULT_INEQ_SEL;
		else if (condition.column == COLUMN_PARTITION)
			one_partition = true;
		else
			one_offset = true;
	}
	*partitions = 1;
	if (selection.nothing)
		return 1;

	for (int i = 0; i < selection.partitions_count; i++)
	{
		int32		partition = selection.partitions[i];
		double		offsets = offsets_in(state, partition, selection.range);

		if (selection.has_offsets)
			offsets = Min(offsets, selection.offsets_count);
		if (selection.since != DT_NOBEGIN)
			offsets *= newer_part(state, partition, selection.since);
		rows += offsets;
	}
	if (one_partition)
		rows /= selection.partitions_count;
	else
		*partitions = selection.partitions_count;
	if (one_offset)
		rows = Min(rows, *partitions);
	return clamp_row_est(rows * part * others);
}

/* The selectivity of clauses that do not say what is to be read. */
static Selectivity
other_selectivity(PlannerInfo *root, RelOptInfo *baserel, List *clauses)
{
	List	   *others = NIL;
	ListCell   *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *info = lfirst(cell);
		Condition	condition;

		if (!condition_from_clause(root, baserel->relid, info->clause, &condition))
			others = lappend(others, info);
	}
	return clauselist_selectivity(root, others, baserel->relid, JOIN_INNER, NULL);
}

static void
get_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid relation)
{
	TopicPlan  *state = topic_plan(relation);
	double		partitions;

	baserel->fdw_private = state;
	baserel->tuples = 0;
	for (int p = 0; p < state->partitions_count; p++)
		baserel->tuples += offsets_in(state, p, offsets_all());
	baserel->rows = estimate_rows(root, baserel, state, baserel->baserestrictinfo,
								  other_selectivity(root, baserel, baserel->baserestrictinfo),
								  &partitions);
}

/* Of reading what conditions leave. */
static void
estimate_cost(PlannerInfo *root, RelOptInfo *baserel, const List *clauses,
			  Cost *startup, Cost *total)
{
	TopicPlan  *state = baserel->fdw_private;
	double		partitions;
	double		read = estimate_rows(root, baserel, state, clauses, 1.0, &partitions);
	/* no batch has messages of two partitions */
	double		batches = Max(ceil(read / state->batch_messages), Min(read, partitions));
	double		bytes = read * baserel->reltarget->width + batches * BATCH_OVERHEAD;
	double		pages = Max(ceil(bytes / BLCKSZ), Min(batches, read));
	Cost		per_row = cpu_tuple_cost + baserel->baserestrictcost.per_tuple;

	/* a descent of an index for each partition, of the first before there is any row */
	*startup = baserel->baserestrictcost.startup + random_page_cost;
	*total = *startup + (partitions - 1) * random_page_cost +
		pages * seq_page_cost + batches * cpu_index_tuple_cost + read * per_row;
}

/* Adds a column's order to pathkeys; false if the query can make no use of it. */
static bool
add_order(PlannerInfo *root, RelOptInfo *baserel, int column, bool descending, List **pathkeys)
{
	bool		is_partition = column == COLUMN_PARTITION;
	Var		   *var = makeVar(baserel->relid, column, is_partition ? INT4OID : INT8OID, -1,
							  InvalidOid, 0);
	Oid			operator = get_opfamily_member(INTEGER_BTREE_FAM_OID, var->vartype, var->vartype,
											   descending ? BTGreaterStrategyNumber :
											   BTLessStrategyNumber);
	List	   *keys = compat_build_expression_pathkey(root, (Expr *) var, operator,
													   baserel->relids);
	PathKey    *key;

	if (keys == NIL)
		return false;
	key = linitial(keys);
	/* what is fixed has no order, and the planner leaves it out */
	if (!EC_MUST_BE_REDUNDANT(key->pk_eclass))
		*pathkeys = lappend(*pathkeys, key);
	return true;
}

/* Whether a column equals something known, so that every order is its order. */
static bool
is_fixed(PlannerInfo *root, RelOptInfo *baserel, const List *clauses, int column)
{
	ListCell   *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *info = lfirst(cell);
		Condition	condition;

		if (condition_from_clause(root, baserel->relid, info->clause, &condition) &&
			condition.column == column && !condition.is_array &&
			condition.comparison == OFFSET_EQUAL)
			return true;
	}
	return false;
}

static void
add_scan_path(PlannerInfo *root, RelOptInfo *baserel, double rows, Cost startup, Cost total,
			  List *pathkeys, Relids outer, bool backward, bool descending, bool one_partition)
{
	List	   *flags = list_make3_int(backward, descending, one_partition);

	add_path(baserel, (Path *) compat_create_foreignscan_path(root, baserel, rows, startup, total,
															  pathkeys, outer, flags));
}

/* Adds a path for each order of use, and the plain one. */
static void
add_paths(PlannerInfo *root, RelOptInfo *baserel, double rows, Cost startup, Cost total,
		  const List *clauses, Relids outer)
{
	TopicPlan  *state = baserel->fdw_private;
	bool		single = state->partitions_count == 1;
	bool		fixed = single || is_fixed(root, baserel, clauses, COLUMN_PARTITION);

	add_scan_path(root, baserel, rows, startup, total, NIL, outer, false, false, false);
	for (int i = 0; i < 4; i++)
	{
		bool		backward = i & 1;
		bool		descending = i & 2;
		List	   *pathkeys = NIL;

		if (fixed && descending)
			continue;
		if (fixed || add_order(root, baserel, COLUMN_PARTITION, descending, &pathkeys))
			(void) add_order(root, baserel, COLUMN_LOG_OFFSET, backward, &pathkeys);
		if (pathkeys != NIL)
			add_scan_path(root, baserel, rows, startup, total, pathkeys, outer,
						  backward, descending, single);
	}
}

/*
 * Rows that a nested loop's inner side reads for each outer row: the conditions that join
 * are among those that say what is to be read.
 */
static void
add_parameterized_path(PlannerInfo *root, RelOptInfo *baserel, Relids outer)
{
	TopicPlan  *state = baserel->fdw_private;
	ParamPathInfo *param;
	List	   *clauses;
	double		rows;
	double		partitions;
	Cost		startup;
	Cost		total;

	param = get_baserel_parampathinfo(root, baserel, outer);
	clauses = list_concat_copy(baserel->baserestrictinfo, param->ppi_clauses);
	rows = estimate_rows(root, baserel, state, clauses,
						 other_selectivity(root, baserel, clauses), &partitions);
	/* all paths of one parameterization have the same number of rows */
	param->ppi_rows = rows;
	estimate_cost(root, baserel, clauses, &startup, &total);
	add_paths(root, baserel, rows, startup, total, clauses, outer);
}

/* The other relations that a clause, if it becomes ours, needs; NULL if it does not help. */
static Relids
outer_of_clause(PlannerInfo *root, RelOptInfo *baserel, RestrictInfo *info)
{
	Condition	condition;
	Relids		outer;

	if (!join_clause_is_movable_to(info, baserel) ||
		!condition_from_clause(root, baserel->relid, info->clause, &condition))
		return NULL;
	outer = bms_union(info->clause_relids, baserel->lateral_relids);
	outer = bms_del_member(outer, baserel->relid);
	return bms_is_empty(outer) ? NULL : outer;
}

/* For generate_implied_equalities_for_column(): is it the column that is asked for? */
static bool
is_member_column(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *class,
				 EquivalenceMember *member, void *arg)
{
	Var		   *var = (Var *) member->em_expr;

	return IsA(var, Var) && var->varno == (int) rel->relid && var->varlevelsup == 0 &&
		var->varattno == *(int *) arg;
}

static void
get_paths(PlannerInfo *root, RelOptInfo *baserel, Oid relation)
{
	Cost		startup;
	Cost		total;
	List	   *joins = list_copy(baserel->joininfo);
	List	   *outers = NIL;
	Relids		all = NULL;
	ListCell   *cell;

	estimate_cost(root, baserel, baserel->baserestrictinfo, &startup, &total);
	add_paths(root, baserel, baserel->rows, startup, total, baserel->baserestrictinfo,
			  baserel->lateral_relids);

	if (baserel->has_eclass_joins)
	{
		for (int column = COLUMN_PARTITION; column <= COLUMN_LOG_OFFSET; column++)
			joins = list_concat(joins,
								generate_implied_equalities_for_column(root, baserel,
																	   is_member_column, &column,
																	   baserel->lateral_referencers));
	}
	foreach(cell, joins)
	{
		Relids		outer = outer_of_clause(root, baserel, lfirst(cell));
		ListCell   *other;
		bool		known = outer == NULL;

		foreach(other, outers)
			known |= bms_equal(lfirst(other), outer);
		if (known)
			continue;
		outers = lappend(outers, outer);
		all = bms_union(all, outer);
	}
	foreach(cell, outers)
		add_parameterized_path(root, baserel, lfirst(cell));
	/* (partition, log_offset) may come from two relations */
	if (list_length(outers) > 1)
		add_parameterized_path(root, baserel, all);
}

/* As EXPLAIN shows it: what is implied by equalities has its sides in any order. */
static Expr *
column_first(Expr *clause, Index relid)
{
	OpExpr	   *op = (OpExpr *) clause;
	Var		   *left;

	if (!IsA(clause, OpExpr))
		return clause;
	left = linitial(op->args);
	if (IsA(left, Var) && left->varno == (int) relid)
		return clause;
	op = copyObject(op);
	CommuteOpExpr(op);
	return (Expr *) op;
}

static ForeignScan *
get_plan(PlannerInfo *root, RelOptInfo *baserel, Oid relation, ForeignPath *path, List *tlist,
		 List *clauses, Plan *outer_plan)
{
	List	   *quals = NIL;
	List	   *recheck = NIL;
	List	   *values = NIL;
	List	   *conditions = NIL;
	List	   *flags = list_copy(path->fdw_private);
	Bitmapset  *attributes = NULL;
	int			columns = 0;
	ListCell   *cell;

	foreach(cell, clauses)
	{
		RestrictInfo *info = lfirst_node(RestrictInfo, cell);
		Condition	condition;

		if (info->pseudoconstant)
			continue;
		if (condition_from_clause(root, baserel->relid, info->clause, &condition))
		{
			conditions = condition_to_ints(conditions, &condition);
			values = lappend(values, condition.value);
			if (condition_is_exact(&condition))
			{
				recheck = lappend(recheck, column_first(info->clause, baserel->relid));
				continue;
			}
		}
		quals = lappend(quals, info->clause);
	}

	pull_varattnos((Node *) baserel->reltarget->exprs, baserel->relid, &attributes);
	pull_varattnos((Node *) quals, baserel->relid, &attributes);
	for (int column = 1; column <= RELATION_COLUMNS; column++)
	{
		if (bms_is_member(column - FirstLowInvalidHeapAttributeNumber, attributes) ||
			bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, attributes))
			columns |= 1 << column;
	}
	flags = lappend_int(flags, columns);
	return make_foreignscan(tlist, quals, baserel->relid, values, list_make2(conditions, flags),
							NIL, recheck, outer_plan);
}

void
fdw_plan_routine(FdwRoutine *routine)
{
	routine->GetForeignRelSize = get_rel_size;
	routine->GetForeignPaths = get_paths;
	routine->GetForeignPlan = get_plan;
}
