/*-------------------------------------------------------------------------
 *
 * database_commands.c
 *	  Getting the workers out of the way of DROP DATABASE, and keeping brokers from
 *	  being dropped behind the others' backs.
 *
 * DROP DATABASE, ALTER DATABASE … RENAME and … SET TABLESPACE, and CREATE
 * DATABASE … TEMPLATE refuse while somebody is connected to the database.  A
 * worker that nobody has started by hand must not be that somebody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "shmem/databases.h"
#include "shmem/followers.h"
#include "shmem/slots.h"
#include "worker/workers.h"

static ProcessUtility_hook_type previous_hook = NULL;

/* The value of an option of CREATE DATABASE, or NULL. */
static char *
option_value(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0 && option->arg)
			return defGetString(option);
	}
	return NULL;
}

/* The database that must have no sessions for the command, or InvalidOid. */
static Oid
database_of_command(Node *command)
{
	const char *name = NULL;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) command)->dbname;
			break;
		case T_CreatedbStmt:
			/* template1 is what createdb() copies if it is not told otherwise */
			name = option_value(((CreatedbStmt *) command)->options, "template");
			if (name == NULL)
				name = "template1";
			break;
		case T_AlterDatabaseStmt:
			if (option_value(((AlterDatabaseStmt *) command)->options, "tablespace"))
				name = ((AlterDatabaseStmt *) command)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) command)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) command)->subname;
			break;
		default:
			break;
	}
	return name ? get_database_oid(name, true) : InvalidOid;
}

/*
 * Whether the user may do what the command does to the database, so far as we
 * can tell before: who may not do it may not stop the worker either.
 */
static bool
may_command(Node *command, Oid database)
{
	HeapTuple	tuple;
	bool		allowed;

	if (superuser())
		return true;
	if (!IsA(command, CreatedbStmt))
		return compat_database_ownercheck(database, GetUserId());

	/* createdb(): the attribute, and a template that is free or one's own */
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	allowed = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	if (!allowed || compat_database_ownercheck(database, GetUserId()))
		return allowed;

	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (!HeapTupleIsValid(tuple))
		return false;
	allowed = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return allowed;
}

/*
 * The other brokers would go on waiting for this one, and keep WAL for it, and its own
 * subscriptions would be left behind.
 */
static void
refuse_drop_in_cluster(const DropStmt *statement)
{
	ListCell   *cell;

	if (statement->removeType != OBJECT_EXTENSION)
		return;
	foreach(cell, statement->objects)
	{
		if (strcmp(strVal(lfirst(cell)), "pgtopic") == 0 && extension_exists() && cluster_self() != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop extension pgtopic, since this database is a broker of a cluster"),
					 errhint("Use leave_cluster() first.")));
	}
}

/* Runs when the command ends by an error, or with the session. */
static void
resume(int code, Datum database)
{
	database_resume(DatumGetObjectId(database));
}

static void
process_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *destination,
				QueryCompletion *completion)
{
	ProcessUtility_hook_type next = previous_hook ? previous_hook : standard_ProcessUtility;
	Oid			database = InvalidOid;

	/* the types are tested first: this is called for every utility command */
	switch (nodeTag(statement->utilityStmt))
	{
		case T_DropdbStmt:
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
		case T_RenameStmt:
			database = database_of_command(statement->utilityStmt);
			break;
		case T_DropStmt:
			refuse_drop_in_cluster((DropStmt *) statement->utilityStmt);
			break;
		default:
			break;
	}

	if (!OidIsValid(database) || !may_command(statement->utilityStmt, database))
	{
		next(statement, query, read_only_tree, context, params, environment,
			 destination, completion);
		return;
	}

	PG_ENSURE_ERROR_CLEANUP(resume, ObjectIdGetDatum(database));
	{
		database_suspend(database);
		next(statement, query, read_only_tree, context, params, environment,
			 destination, completion);
	}
	PG_END_ENSURE_ERROR_CLEANUP(resume, ObjectIdGetDatum(database));

	if (IsA(statement->utilityStmt, DropdbStmt))
	{
		/* its files are gone, so whether or not the commit succeeds, it is */
		slots_forget_database(database);
		followers_forget_database(database);
		database_forget(database);
	}
	else
		database_resume(database);
}

void
database_commands_hook_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
