/*-------------------------------------------------------------------------
 *
 * relation.c
 *	  Making and dropping the foreign tables that topics are to SQL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "storage/relation.h"

/*
 * Gives a relation that the extension's owner has made, and given away, the rights that its
 * owner's default privileges say, in place of those of the extension's owner.
 */
static void
set_default_rights(Oid relation)
{
	Relation	pg_class = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relation));
	Form_pg_class form;
	Acl		   *acl;
	Datum		old;
	Oid		   *old_members = NULL;
	Oid		   *new_members = NULL;
	int			old_count = 0;
	int			new_count = 0;
	bool		isnull;
	Datum		values[Natts_pg_class] = {0};
	bool		nulls[Natts_pg_class] = {false};
	bool		replace[Natts_pg_class] = {false};

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	form = (Form_pg_class) GETSTRUCT(tuple);
	acl = get_user_default_acl(OBJECT_TABLE, form->relowner, form->relnamespace);
	old = heap_getattr(tuple, Anum_pg_class_relacl, RelationGetDescr(pg_class), &isnull);
	if (!isnull)
		old_count = aclmembers(DatumGetAclPCopy(old), &old_members);
	if (acl != NULL)
		new_count = aclmembers(acl, &new_members);
	values[Anum_pg_class_relacl - 1] = PointerGetDatum(acl);
	nulls[Anum_pg_class_relacl - 1] = acl == NULL;
	replace[Anum_pg_class_relacl - 1] = true;
	if (acl != NULL || !isnull)
	{
		HeapTuple	changed = heap_modify_tuple(tuple, RelationGetDescr(pg_class), values, nulls, replace);

		CatalogTupleUpdate(pg_class, &changed->t_self, changed);
		updateAclDependencies(RelationRelationId, relation, 0, form->relowner,
							  old_count, old_members, new_count, new_members);
		CommandCounterIncrement();
	}
	heap_freetuple(tuple);
	table_close(pg_class, RowExclusiveLock);
}

/*
 * The extension's script that finds topics without a relation makes them, too; they are
 * no part of the extension, so that dumps have them and their rights.
 */
static void
create(int32 topic, const char *name, ValueFormat format, Oid owner)
{
	const char *qualified = quote_qualified_identifier(TOPICS_SCHEMA, name);
	StringInfoData columns;
	bool		saved = creating_extension;

	initStringInfo(&columns);
	for (int i = 1; i <= RELATION_COLUMNS; i++)
		appendStringInfo(&columns, "%s%s %s", i > 1 ? ", " : "",
						 quote_identifier(relation_column_name(i)),
						 format_type_be_qualified(relation_column_type(i, format)));
	/* an error ends the script, which puts it right too */
	creating_extension = false;
	extension_execute(SPI_OK_UTILITY,
					  "CREATE FOREIGN TABLE %s (%s) SERVER " SERVER_NAME " OPTIONS (" OPTION_TOPIC " '%d')",
					  qualified, columns.data, topic);
	if (owner != GetUserId())
	{
		extension_execute(SPI_OK_UTILITY, "ALTER FOREIGN TABLE %s OWNER TO %s", qualified,
						  quote_identifier(GetUserNameFromId(owner, false)));
		set_default_rights(relation_by_name(name));
	}
	creating_extension = saved;
	pfree(columns.data);
}

/*
 * What a change of the cluster's metadata wants, it wants at all brokers, whatever somebody
 * has made of relations at this one.  So that is tried in a subtransaction.
 */
typedef struct Trial
{
	MemoryContext context;
	ResourceOwner owner;
} Trial;

static void
trial_begin(Trial *trial)
{
	trial->context = CurrentMemoryContext;
	trial->owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(trial->context);
}

static void
trial_end(Trial *trial, bool commit)
{
	if (commit)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(trial->context);
	CurrentResourceOwner = trial->owner;
}

/* The error that a trial has ended with, if it is one of these; any other goes on. */
static ErrorData *
trial_failed(Trial *trial, int sqlstate, int other_sqlstate)
{
	ErrorData  *error;

	MemoryContextSwitchTo(trial->context);
	error = CopyErrorData();
	FlushErrorState();
	trial_end(trial, false);
	if (error->sqlerrcode != sqlstate && error->sqlerrcode != other_sqlstate)
		ReThrowError(error);
	return error;
}

/*
 * Drops a relation, or only looks whether it could be dropped.  Returns the error if other
 * objects depend on it.
 */
static ErrorData *
try_deletion(Oid relation, bool for_good)
{
	ObjectAddress address;
	Trial		trial;
	ErrorData  *volatile error = NULL;

	ObjectAddressSet(address, RelationRelationId, relation);
	trial_begin(&trial);
	PG_TRY();
	{
		performDeletion(&address, DROP_RESTRICT, 0);
		trial_end(&trial, for_good);
	}
	PG_CATCH();
	{
		error = trial_failed(&trial, ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
							 ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST);
	}
	PG_END_TRY();
	return error;
}

/* Drops a relation, if nobody uses it, and nothing depends on it. */
static bool
try_drop(Oid relation)
{
	ErrorData  *error;
	char	   *name;

	if (!ConditionalLockRelationOid(relation, AccessExclusiveLock))
		return false;
	name = get_rel_name(relation);
	error = try_deletion(relation, true);
	if (error != NULL)
		ereport(LOG,
				(errmsg("pgtopic leaves foreign table %s, whose topic has been dropped: other objects depend on it",
						quote_qualified_identifier(TOPICS_SCHEMA, name)),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("Drop it.")));
	return error == NULL;
}

/* Makes a relation unless the name is taken, by a type for example. */
static void
try_create(int32 topic, const char *name, ValueFormat format, Oid owner)
{
	Trial		trial;
	bool		saved = creating_extension;

	trial_begin(&trial);
	PG_TRY();
	{
		create(topic, name, format, owner);
		trial_end(&trial, true);
	}
	PG_CATCH();
	{
		ErrorData  *error = trial_failed(&trial, ERRCODE_DUPLICATE_OBJECT, ERRCODE_DUPLICATE_TABLE);

		creating_extension = saved;
		ereport(LOG,
				(errmsg("pgtopic topic \"%s\" has no relation: %s", name, error->message)));
	}
	PG_END_TRY();
}

/* Whether the name of a topic's relation is free, or could be made so. */
static bool
name_is_free(const char *name, bool must)
{
	Oid			taken = relation_by_name(name);
	int32		other;
	TopicRow	row;

	if (!OidIsValid(taken))
		return true;
	other = relation_topic_id(taken);
	if (other != 0 && !topic_row_by_id(other, &row) && try_drop(taken))
		return true;
	ereport(must ? ERROR : LOG,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 must ? errmsg("relation \"%s\" already exists in schema %s", name, TOPICS_SCHEMA) :
			 errmsg("pgtopic topic \"%s\" has no relation, since schema %s has another one of that name",
					name, TOPICS_SCHEMA)));
	return false;
}

void
relation_make(int32 topic, const char *name, ValueFormat format, Oid owner, bool must)
{
	char	   *root = psprintf("t%d", topic);

	if (relations_exist() && name_is_free(name, must))
	{
		if (must)
			create(topic, name, format, owner);
		else
			try_create(topic, name, format, owner);
		if (OidIsValid(relation_of_topic(topic, name)))
			owner = GetUserId();
	}
	if (relation_owner(extension_relation(root)) != owner)
		extension_execute(SPI_OK_UTILITY, "ALTER TABLE " CATALOG_SCHEMA ".%s OWNER TO %s", root,
						  quote_identifier(GetUserNameFromId(owner, false)));
}

/* The relation of a topic that may have no row any more. */
static Oid
find(int32 topic)
{
	bool		isnull;

	if (!relations_exist())
		return InvalidOid;
	extension_execute(SPI_OK_SELECT,
					  "SELECT c.oid FROM pg_catalog.pg_foreign_table f"
					  " JOIN pg_catalog.pg_class c ON c.oid = f.ftrelid"
					  " JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver"
					  " WHERE s.srvname = '" SERVER_NAME "' AND f.ftoptions = '{" OPTION_TOPIC "=%d}'"
					  " AND c.relnamespace = '" TOPICS_SCHEMA "'::pg_catalog.regnamespace", topic);
	return SPI_processed == 0 ? InvalidOid :
		DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

void
relation_drop(int32 topic)
{
	Oid			relation = find(topic);
	char	   *name = OidIsValid(relation) ? get_rel_name(relation) : NULL;
	TopicRow	row;

	if (name == NULL)
		return;
	extension_execute(SPI_OK_UTILITY, "DROP FOREIGN TABLE %s",
					  quote_qualified_identifier(TOPICS_SCHEMA, name));
	if (topic_row_by_name(name, &row) && row.id != topic)
		relation_make(row.id, name, row.format,
					  relation_owner(extension_relation(psprintf("t%d", row.id))), false);
}

void
relation_check_droppable(int32 topic)
{
	Oid			relation = find(topic);
	ErrorData  *error;

	/* who uses it is waited for when it is dropped */
	if (!OidIsValid(relation) || !ConditionalLockRelationOid(relation, AccessExclusiveLock))
		return;
	error = try_deletion(relation, false);
	UnlockRelationOid(relation, AccessExclusiveLock);
	if (error != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop topic \"%s\" because other objects depend on its relation",
						get_rel_name(relation)),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 errhint("Drop these first.")));
}

void
relation_try_drop(int32 topic)
{
	Oid			relation = find(topic);

	if (OidIsValid(relation))
		(void) try_drop(relation);
}

/* A trigger on the topic's row calls this: only a command of its own sees that row. */
Oid
relation_adopt(int32 topic)
{
	ExtensionOwner saved;
	Oid			relation = InvalidOid;

	if (!relations_exist())
		return InvalidOid;
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT, "SELECT name, value_format FROM pgtopic.topic WHERE id = %d", topic);
	if (SPI_processed == 1)
	{
		char	   *name = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		ValueFormat format = value_format(SPI_getvalue(SPI_tuptable->vals[0],
													   SPI_tuptable->tupdesc, 2));

		if (!OidIsValid(relation_of_topic(topic, name)))
		{
			relation_make(topic, name, format,
						  relation_owner(extension_relation(psprintf("t%d", topic))), false);
			topic_invalidate(topic);
		}
		CommandCounterIncrement();
		relation = relation_of_topic(topic, name);
	}
	SPI_finish();
	extension_owner_end(&saved);
	return relation;
}

static bool
columns_are_right(Relation relation, ValueFormat format)
{
	TupleDesc	desc = RelationGetDescr(relation);
	bool		right = desc->natts == RELATION_COLUMNS;

	for (int i = 1; i <= RELATION_COLUMNS && right; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i - 1);

		right = !attribute->attisdropped &&
			strcmp(NameStr(attribute->attname), relation_column_name(i)) == 0 &&
			attribute->atttypid == relation_column_type(i, format) &&
			attribute->atttypmod == -1 &&
			attribute->attcollation == get_typcollation(attribute->atttypid);
	}
	return right;
}

/* produce() knows nothing of them, so what they say would not be true. */
static bool
has_constraints(Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);
	bool		has = desc->constr != NULL && desc->constr->num_check > 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		has |= attribute->attnotnull || attribute->attidentity != '\0' || attribute->attgenerated != '\0';
	}
	return has;
}

void
relation_check_columns(Relation relation, ValueFormat format)
{
	if (!columns_are_right(relation, format))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the columns of \"%s\" are not those of a topic", RelationGetRelationName(relation)),
				 errdetail("They have been altered while event triggers were off."),
				 errhint("Give it the columns that other topics of the same format have; or drop it, with event triggers off, and restart the server: then pgtopic makes it anew.")));
}

pg_noreturn static void
error_altered(const char *topic)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the relation of topic \"%s\" cannot be renamed, moved, or given other columns, constraints or options",
					topic),
			 errhint("Its owner, its rights, its comment, its defaults and its triggers can be changed.")));
}

/* An error if a topic has lost its relation. */
static void
check_none_missing(void)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT t.name FROM pgtopic.topic t WHERE NOT EXISTS ("
					  "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid"
					  " WHERE c.relname = t.name AND c.relnamespace = pg_catalog.to_regnamespace('" TOPICS_SCHEMA "')"
					  " AND f.ftoptions = ARRAY['" OPTION_TOPIC "=' || t.id]) LIMIT 1");
	if (SPI_processed > 0)
		error_altered(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
}

/*
 * A dump that is being restored alters relations before there are topics.  So one that
 * is of no topic is right if none misses its own.
 */
void
relation_check(Oid relation)
{
	int32		topic = relation_topic_id(relation);
	TopicRow	row;

	if (get_rel_relkind(relation) != RELKIND_FOREIGN_TABLE)
		return;
	if (topic != 0 && topic_row_by_id(topic, &row))
	{
		Relation	opened = table_open(relation, AccessShareLock);
		bool		right = relation_of_topic(topic, row.name) == relation &&
			columns_are_right(opened, row.format) && !has_constraints(opened);

		table_close(opened, AccessShareLock);
		if (!right)
			error_altered(row.name);
	}
	else if (GetForeignTable(relation)->serverid == get_foreign_server_oid(SERVER_NAME, true))
		check_none_missing();
}

void
relation_check_schemas(void)
{
	if (!OidIsValid(get_namespace_oid(TOPICS_SCHEMA, true)) ||
		!OidIsValid(get_namespace_oid(CATALOG_SCHEMA, true)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("schemas %s and %s of extension pgtopic cannot be renamed",
						TOPICS_SCHEMA, CATALOG_SCHEMA)));
}

void
relation_check_server(void)
{
	if (!relations_exist())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("server %s of extension pgtopic cannot be renamed", SERVER_NAME)));
}

void
relation_check_members(void)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT c.relname FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid"
					  " WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e' AND c.relkind = 'f'"
					  " AND c.relnamespace = pg_catalog.to_regnamespace('" TOPICS_SCHEMA "') LIMIT 1");
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the relation of topic \"%s\" cannot be a member of an extension",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errdetail("Dumps would not have it.")));
}
