/*-------------------------------------------------------------------------
 *
 * generated.c
 *	  Generated columns that a trigger's rows lack.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "sql/generated.h"

struct GeneratedColumns
{
	ExprContext *context;
	ExprState **states;			/* NULL for the other columns */
	TupleTableSlot *old;
	TupleTableSlot *new;
};

static bool
stored_are_lacking(const TriggerData *trigger)
{
	Relation	table = trigger->tg_relation;
	const TupleConstr *constraints = RelationGetDescr(table)->constr;

	return constraints != NULL && constraints->has_generated_stored &&
		table->rd_rel->relkind == RELKIND_PARTITIONED_TABLE &&
		TRIGGER_FIRED_BY_INSERT(trigger->tg_event);
}

bool
generated_are_lacking(const TriggerData *trigger)
{
	return stored_are_lacking(trigger) ||
		compat_has_virtual_columns(RelationGetDescr(trigger->tg_relation));
}

GeneratedColumns *
generated_prepare(const TriggerData *trigger)
{
	Relation	table = trigger->tg_relation;
	TupleDesc	desc = RelationGetDescr(table);
	bool		stored = stored_are_lacking(trigger);
	GeneratedColumns *generated;

	generated = palloc0(sizeof(GeneratedColumns));
	generated->context = CreateStandaloneExprContext();
	generated->states = palloc0(desc->natts * sizeof(ExprState *));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (compat_is_virtual(attribute) ||
			(stored && attribute->attgenerated == ATTRIBUTE_GENERATED_STORED))
		{
			Node	   *expression = compat_generation_expression(table, i + 1);

			generated->states[i] = ExecInitExpr(expression_planner((Expr *) expression), NULL);
		}
	}
	generated->old = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	generated->new = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	return generated;
}

TupleTableSlot *
generated_complete(GeneratedColumns *generated, TupleTableSlot *row, bool is_new)
{
	TupleTableSlot *complete = is_new ? generated->new : generated->old;
	TupleDesc	desc = complete->tts_tupleDescriptor;

	slot_getallattrs(row);
	ExecClearTuple(complete);
	memcpy(complete->tts_values, row->tts_values, desc->natts * sizeof(Datum));
	memcpy(complete->tts_isnull, row->tts_isnull, desc->natts * sizeof(bool));
	generated->context->ecxt_scantuple = row;
	for (int i = 0; i < desc->natts; i++)
	{
		/* what is stored is there, or NULL */
		if (generated->states[i] != NULL &&
			(row->tts_isnull[i] || compat_is_virtual(TupleDescAttr(desc, i))))
			complete->tts_values[i] = ExecEvalExpr(generated->states[i], generated->context,
												   &complete->tts_isnull[i]);
	}
	return ExecStoreVirtualTuple(complete);
}

void
generated_release(GeneratedColumns *generated)
{
	if (generated == NULL)
		return;
	ExecDropSingleTupleTableSlot(generated->old);
	ExecDropSingleTupleTableSlot(generated->new);
	FreeExprContext(generated->context, true);
}
