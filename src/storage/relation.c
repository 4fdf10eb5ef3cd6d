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
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/topics.h"
#include "storage/relation.h"

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
		extension_execute(SPI_OK_UTILITY, "ALTER FOREIGN TABLE %s OWNER TO %s", qualified,
						  quote_identifier(GetUserNameFromId(owner, false)));
	creating_extension = saved;
	pfree(columns.data);
}

/* Drops a relation, if nobody uses it. */
static bool
try_drop(Oid relation)
{
	ObjectAddress address;

	if (!ConditionalLockRelationOid(relation, AccessExclusiveLock))
		return false;
	ObjectAddressSet(address, RelationRelationId, relation);
	performDeletion(&address, DROP_RESTRICT, 0);
	return true;
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

	if (relations_exist() &&
		(OidIsValid(relation_of_topic(topic, name)) || name_is_free(name, must)))
	{
		if (!OidIsValid(relation_of_topic(topic, name)))
			create(topic, name, format, owner);
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
			attribute->atttypmod == -1;
	}
	return right;
}

void
relation_check_columns(Relation relation, ValueFormat format)
{
	if (!columns_are_right(relation, format))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the columns of \"%s\" are not those of a topic", RelationGetRelationName(relation)),
				 errdetail("They have been altered while event triggers were off."),
				 errhint("Give it the columns that other topics of the same format have.")));
}

pg_noreturn static void
error_altered(const char *topic)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the relation of topic \"%s\" cannot be renamed, moved, or given other columns or options",
					topic),
			 errhint("Its owner, its rights, its comment and its triggers can be changed.")));
}

/* An error if a topic has lost its relation. */
static void
check_all(void)
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
			columns_are_right(opened, row.format);

		table_close(opened, AccessShareLock);
		if (!right)
			error_altered(row.name);
	}
	else if (GetForeignTable(relation)->serverid == get_foreign_server_oid(SERVER_NAME, true))
		check_all();
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
