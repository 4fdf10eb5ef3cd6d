/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  The rows of the catalog, as they are now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/comment.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "catalog/extension.h"
#include "catalog/rows.h"

/* Columns of pgtopic.topic, in the order of the extension's script. */
enum TopicColumn
{
	TOPIC_ID = 1,
	TOPIC_NAME,
	TOPIC_PARTITIONS,
	TOPIC_REPLICATION_FACTOR,
	TOPIC_RETENTION,
	TOPIC_RETENTION_BYTES,
	TOPIC_SEGMENT_MESSAGES,
	TOPIC_MAX_MESSAGE_BYTES,
	TOPIC_VALUE_FORMAT,
	TOPIC_MIN_INSYNC_REPLICAS,
	TOPIC_CREATED_AT,
	TOPIC_COLUMNS = TOPIC_CREATED_AT
};

static ValueFormat
format_from_text(const char *text)
{
	if (strcmp(text, "text") == 0)
		return FORMAT_TEXT;
	if (strcmp(text, "json") == 0)
		return FORMAT_JSON;
	if (strcmp(text, "bytes") == 0)
		return FORMAT_BYTES;
	elog(ERROR, "unknown value format \"%s\"", text);
}

/* Reads the row of pgtopic.topic with the given key of an index. */
static bool
read_row(const char *index_name, AttrNumber column, Datum key, RegProcedure equal,
		 TopicRow *row)
{
	Oid			relid = extension_relation("topic");
	Oid			indexid = extension_relation(index_name);
	Relation	relation;
	SysScanDesc scan;
	ScanKeyData scankey;
	HeapTuple	tuple;
	Datum		values[TOPIC_COLUMNS];
	bool		nulls[TOPIC_COLUMNS];
	bool		found;

	if (!OidIsValid(relid) || !OidIsValid(indexid))
		return false;
	relation = table_open(relid, AccessShareLock);
	if (RelationGetDescr(relation)->natts != TOPIC_COLUMNS)
		elog(ERROR, "table %s.topic has %d columns instead of %d", CATALOG_SCHEMA,
			 RelationGetDescr(relation)->natts, TOPIC_COLUMNS);
	ScanKeyInit(&scankey, column, BTEqualStrategyNumber, equal, key);
	scan = systable_beginscan(relation, indexid, true, NULL, 1, &scankey);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		heap_deform_tuple(tuple, RelationGetDescr(relation), values, nulls);
		row->id = DatumGetInt32(values[TOPIC_ID - 1]);
		text_to_cstring_buffer(DatumGetTextPP(values[TOPIC_NAME - 1]), row->name, NAMEDATALEN);
		row->partitions = DatumGetInt32(values[TOPIC_PARTITIONS - 1]);
		row->segment_messages = DatumGetInt64(values[TOPIC_SEGMENT_MESSAGES - 1]);
		row->max_message_bytes = DatumGetInt32(values[TOPIC_MAX_MESSAGE_BYTES - 1]);
		row->format = format_from_text(TextDatumGetCString(values[TOPIC_VALUE_FORMAT - 1]));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

bool
topic_row_by_id(int32 id, TopicRow *row)
{
	return read_row("topic_pkey", TOPIC_ID, Int32GetDatum(id), F_INT4EQ, row);
}

bool
topic_row_by_name(const char *name, TopicRow *row)
{
	return read_row("topic_name_key", TOPIC_NAME, CStringGetTextDatum(name), F_TEXTEQ, row);
}

/* Columns of pgtopic.partition, in the order of the extension's script. */
enum PartitionColumn
{
	PARTITION_TOPIC_ID = 1,
	PARTITION_PARTITION,
	PARTITION_LOG_START_OFFSET,
	PARTITION_HIGH_WATERMARK
};

bool
partition_row_by_number(int32 topic, int32 partition, PartitionRow *row)
{
	Relation	relation;
	SysScanDesc scan;
	ScanKeyData keys[2];
	HeapTuple	tuple;
	bool		found;

	relation = table_open(extension_relation("partition"), AccessShareLock);
	ScanKeyInit(&keys[0], PARTITION_TOPIC_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(topic));
	ScanKeyInit(&keys[1], PARTITION_PARTITION, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(partition));
	scan = systable_beginscan(relation, extension_relation("partition_pkey"), true,
							  NULL, 2, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		bool		isnull;

		row->log_start = DatumGetInt64(heap_getattr(tuple, PARTITION_LOG_START_OFFSET,
													RelationGetDescr(relation), &isnull));
		row->high_watermark = DatumGetInt64(heap_getattr(tuple, PARTITION_HIGH_WATERMARK,
														 RelationGetDescr(relation), &isnull));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/*
 * While a dump is being restored, columns of type topic can be loaded before
 * pgtopic.topic is.  The storage tables are there already, and the comments on
 * them tell the names.
 */
int32
topic_id_by_storage_comment(const char *name)
{
	Relation	relation;
	SysScanDesc scan;
	ScanKeyData scankey;
	HeapTuple	tuple;
	Oid			schema = extension_schema();
	int32		id = 0;
	char	   *wanted = psprintf("storage of topic %s", name);

	relation = table_open(RelationRelationId, AccessShareLock);
	ScanKeyInit(&scankey, Anum_pg_class_relnamespace, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(schema));
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 1, &scankey);
	while (id == 0 && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);
		char	   *comment;
		int			number;
		int			end = 0;

		if (form->relkind != RELKIND_PARTITIONED_TABLE ||
			sscanf(NameStr(form->relname), "t%d%n", &number, &end) != 1 ||
			NameStr(form->relname)[end] != '\0')
			continue;
		comment = GetComment(form->oid, RelationRelationId, 0);
		if (comment && strcmp(comment, wanted) == 0)
			id = number;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return id;
}
