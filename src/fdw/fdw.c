/*-------------------------------------------------------------------------
 *
 * fdw.c
 *	  The foreign data wrapper's handler and validator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_table.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "catalog/extension.h"
#include "catalog/relations.h"
#include "fdw/fdw.h"

PG_FUNCTION_INFO_V1(pgtopic_fdw_handler);
PG_FUNCTION_INFO_V1(pgtopic_fdw_validator);

Datum
pgtopic_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	fdw_plan_routine(routine);
	fdw_scan_routine(routine);
	fdw_modify_routine(routine);
	fdw_analyze_routine(routine);
	PG_RETURN_POINTER(routine);
}

/* fdw_validator(options, catalog): only foreign tables have an option, and only this one. */
Datum
pgtopic_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (catalog != ForeignTableRelationId || strcmp(option->defname, OPTION_TOPIC) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", option->defname),
					 errhint("Use alter_topic() to set the options of a topic.")));
		(void) pg_strtoint32(defGetString(option));
	}
	PG_RETURN_VOID();
}
