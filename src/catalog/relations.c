/*-------------------------------------------------------------------------
 *
 * relations.c
 *	  The foreign tables that topics are to SQL, and the rights on them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/compat.h"
#include "catalog/extension.h"
#include "catalog/relations.h"

const char *
relation_column_name(int column)
{
	static const char *const names[] = {
		"partition", "log_offset", "timestamp", "key", "value", "headers"
	};

	return names[column - 1];
}

Oid
relation_column_type(int column, ValueFormat format)
{
	switch (column)
	{
		case COLUMN_PARTITION:
			return INT4OID;
		case COLUMN_LOG_OFFSET:
			return INT8OID;
		case COLUMN_TIMESTAMP:
			return TIMESTAMPTZOID;
		case COLUMN_KEY:
			return format == FORMAT_BYTES ? BYTEAOID : TEXTOID;
		case COLUMN_VALUE:
			return format == FORMAT_BYTES ? BYTEAOID : format == FORMAT_JSON ? JSONBOID : TEXTOID;
		default:
			return JSONBOID;
	}
}

bool
relations_exist(void)
{
	return OidIsValid(get_foreign_server_oid(SERVER_NAME, true));
}

Oid
relation_by_name(const char *name)
{
	Oid			schema = get_namespace_oid(TOPICS_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

int32
relation_topic_id(Oid relation)
{
	ForeignTable *table;
	ListCell   *cell;

	if (get_rel_relkind(relation) != RELKIND_FOREIGN_TABLE)
		return 0;
	table = GetForeignTable(relation);
	if (table->serverid != get_foreign_server_oid(SERVER_NAME, true))
		return 0;
	foreach(cell, table->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, OPTION_TOPIC) == 0)
			return pg_strtoint32(defGetString(option));
	}
	return 0;
}

Oid
relation_of_topic(int32 topic, const char *name)
{
	Oid			relation = relation_by_name(name);

	return OidIsValid(relation) && relation_topic_id(relation) == topic ? relation : InvalidOid;
}

Topic *
topic_of_relation(Oid relation, bool lock)
{
	int32		id = relation_topic_id(relation);
	Topic	   *topic = id == 0 ? NULL : topic_find(id);

	if (topic == NULL || topic->relation != relation)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("foreign table \"%s\" is not the relation of a topic",
						get_rel_name(relation)),
				 errhint("Topics are made by create_topic(), which makes their relations.")));
	return lock ? topic_lock(id) : topic;
}

Oid
relation_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

Oid
topic_owner(const Topic *topic)
{
	Oid			owner = relation_owner(OidIsValid(topic->relation) ? topic->relation : topic->root);

	if (!OidIsValid(owner))
		topic_error_unknown(topic->name);
	return owner;
}

static bool
has_right(const Topic *topic, AclMode right)
{
	Oid			user = GetUserId();

	if (!OidIsValid(topic->relation))
		return has_privs_of_role(user, topic_owner(topic));
	return pg_class_aclmask(topic->relation, user, right, ACLMASK_ANY) != 0;
}

static bool
has_schema(void)
{
	return compat_namespace_aclcheck(get_namespace_oid(TOPICS_SCHEMA, false), GetUserId(),
									 ACL_USAGE) == ACLCHECK_OK;
}

static void
check_right(const Topic *topic, AclMode right, const char *hint)
{
	if (!has_right(topic, right))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for topic \"%s\"", topic->name),
				 OidIsValid(topic->relation) ?
				 errhint("%s %s.", hint,
						 quote_qualified_identifier(TOPICS_SCHEMA, topic->name)) : 0));
	if (OidIsValid(topic->relation) && !has_schema())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for topic \"%s\"", topic->name),
				 errhint("This needs the right of USAGE of schema %s.", TOPICS_SCHEMA)));
}

bool
topic_can_consume(const Topic *topic)
{
	return has_right(topic, ACL_SELECT);
}

bool
topic_can_see(const Topic *topic)
{
	return has_right(topic, ACL_SELECT | ACL_INSERT) ||
		has_privs_of_role(GetUserId(), topic_owner(topic));
}

void
topic_check_produce(const Topic *topic)
{
	check_right(topic, ACL_INSERT, "Producing needs the right to INSERT into");
}

void
topic_check_consume(const Topic *topic)
{
	check_right(topic, ACL_SELECT, "Reading needs the right to SELECT from");
}

void
topic_check_see(const Topic *topic)
{
	check_right(topic, ACL_SELECT | ACL_INSERT,
				"This needs the right to SELECT from, or to INSERT into,");
}

void
topic_check_owner(const Topic *topic)
{
	if (!has_privs_of_role(GetUserId(), topic_owner(topic)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of topic \"%s\"", topic->name)));
}
