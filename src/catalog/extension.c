/*-------------------------------------------------------------------------
 *
 * extension.c
 *	  The extension's own objects in this database, and acting as their owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "catalog/extension.h"
#include "shmem/slots.h"

void
extension_require_preload(void)
{
	if (!slots_available())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pgtopic must be loaded when the server starts"),
				 errhint("Add the line shared_preload_libraries = 'pgtopic' to postgresql.conf (separate it with a comma from what is there already) and restart the server.")));
}

void
extension_require_writable(const char *call)
{
	extension_require_preload();
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	PreventCommandIfParallelMode(call);
}

bool
extension_exists(void)
{
	return OidIsValid(get_extension_oid("pgtopic", true));
}

Oid
extension_schema(void)
{
	Oid			schema = get_namespace_oid(CATALOG_SCHEMA, true);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"pgtopic\" does not exist in this database"),
				 errhint("Use CREATE EXTENSION pgtopic.")));
	return schema;
}

Oid
extension_relation(const char *name)
{
	return get_relname_relid(name, extension_schema());
}

/* The extension's owner owns the schema that it made. */
static Oid
extension_owner(void)
{
	Oid			schema = extension_schema();
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(schema));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for schema %u", schema);
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

void
extension_owner_begin(ExtensionOwner *saved)
{
	Oid			owner = extension_owner();

	GetUserIdAndSecContext(&saved->user, &saved->context);
	saved->guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(owner, saved->context | SECURITY_LOCAL_USERID_CHANGE);
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	/* where the caller's own tables go is not for ours */
	(void) set_config_option("default_tablespace", "",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("default_table_access_method", "heap",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
extension_owner_end(ExtensionOwner *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->user, saved->context);
}

static void
run(int expected, const char *sql, int nparams, const char *const *params)
{
	Oid		   *types = palloc((nparams + 1) * sizeof(Oid));
	Datum	   *values = palloc((nparams + 1) * sizeof(Datum));
	char	   *nulls = palloc((nparams + 1) * sizeof(char));
	SPIPlanPtr	plan;
	int			result;

	for (int i = 0; i < nparams; i++)
	{
		types[i] = TEXTOID;
		nulls[i] = params[i] ? ' ' : 'n';
		values[i] = params[i] ? CStringGetTextDatum(params[i]) : (Datum) 0;
	}
	plan = SPI_prepare(sql, nparams, types);
	if (plan == NULL)
		elog(ERROR, "\"%s\" cannot be prepared: %s", sql, SPI_result_code_string(SPI_result));
	result = SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(), InvalidSnapshot,
								  false, true, 0);
	SPI_freeplan(plan);
	if (result != expected)
		elog(ERROR, "\"%s\" returned %s", sql, SPI_result_code_string(result));
}

void
extension_execute(int expected, const char *format,...)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}

	run(expected, sql.data, 0, NULL);
	pfree(sql.data);
}

void
extension_execute_params(int expected, const char *sql, int nparams, const char *const *params)
{
	run(expected, sql, nparams, params);
}

void
extension_execute_outside(const char *command)
{
	bool		saved = creating_extension;

	/* an error ends the script, which puts it right too */
	creating_extension = false;
	SPI_connect();
	run(SPI_OK_UTILITY, command, 0, NULL);
	SPI_finish();
	creating_extension = saved;
}
