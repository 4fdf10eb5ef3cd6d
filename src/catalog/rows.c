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
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "utils/array.h"
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

ValueFormat
value_format(const char *name)
{
	if (strcmp(name, "text") == 0)
		return FORMAT_TEXT;
	if (strcmp(name, "json") == 0)
		return FORMAT_JSON;
	if (strcmp(name, "bytes") == 0)
		return FORMAT_BYTES;
	elog(ERROR, "unknown value format \"%s\"", name);
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
		row->replication_factor = DatumGetInt32(values[TOPIC_REPLICATION_FACTOR - 1]);
		row->min_insync_replicas = nulls[TOPIC_MIN_INSYNC_REPLICAS - 1] ? 0 :
			DatumGetInt32(values[TOPIC_MIN_INSYNC_REPLICAS - 1]);
		row->segment_messages = DatumGetInt64(values[TOPIC_SEGMENT_MESSAGES - 1]);
		row->max_message_bytes = DatumGetInt32(values[TOPIC_MAX_MESSAGE_BYTES - 1]);
		row->format = value_format(TextDatumGetCString(values[TOPIC_VALUE_FORMAT - 1]));
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
	PARTITION_HIGH_WATERMARK,
	PARTITION_LEADER,
	PARTITION_LEADER_EPOCH,
	PARTITION_REPLICAS,
	PARTITION_ISR,
	PARTITION_SUCCESSOR,		/* since 0.2.0 */
	PARTITION_PLACEMENTS,
	PARTITION_REVISION,			/* since 0.3.0 */
	PARTITION_UNCLEAN_EPOCH,
	PARTITION_HAS_TABLES,
	PARTITION_COLUMNS = PARTITION_HAS_TABLES
};

/* Takes an array of brokers apart; returns how many there are. */
static int
read_brokers(Datum array, int32 *brokers)
{
	Datum	   *elements;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(array), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &elements, NULL, &count);
	count = Min(count, BROKERS_MAX);
	for (int i = 0; i < count; i++)
		brokers[i] = DatumGetInt32(elements[i]);
	pfree(elements);
	return count;
}

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
		Datum		values[PARTITION_COLUMNS] = {0};
		bool		nulls[PARTITION_COLUMNS];

		if (RelationGetDescr(relation)->natts > PARTITION_COLUMNS)
			elog(ERROR, "table %s.partition has %d columns instead of %d", CATALOG_SCHEMA,
				 RelationGetDescr(relation)->natts, PARTITION_COLUMNS);
		heap_deform_tuple(tuple, RelationGetDescr(relation), values, nulls);
		row->log_start = DatumGetInt64(values[PARTITION_LOG_START_OFFSET - 1]);
		row->high_watermark = DatumGetInt64(values[PARTITION_HIGH_WATERMARK - 1]);
		row->leader = DatumGetInt32(values[PARTITION_LEADER - 1]);
		row->leader_epoch = DatumGetInt32(values[PARTITION_LEADER_EPOCH - 1]);
		row->successor = DatumGetInt32(values[PARTITION_SUCCESSOR - 1]);
		if (RelationGetDescr(relation)->natts >= PARTITION_PLACEMENTS)
			(void) read_brokers(values[PARTITION_PLACEMENTS - 1], row->placements);
		row->revision = DatumGetInt32(values[PARTITION_REVISION - 1]);
		row->has_tables = RelationGetDescr(relation)->natts < PARTITION_HAS_TABLES ||
			DatumGetBool(values[PARTITION_HAS_TABLES - 1]);
		row->replicas_count = read_brokers(values[PARTITION_REPLICAS - 1], row->replicas);
		row->isr_count = read_brokers(values[PARTITION_ISR - 1], row->isr);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

/* Columns of pgtopic.follower, in the order of the extension's script. */
enum FollowerColumn
{
	FOLLOWER_TOPIC_ID = 1,
	FOLLOWER_PARTITION,
	FOLLOWER_FOLLOWER,
	FOLLOWER_PLACEMENT,
	FOLLOWER_STATE
};

static FollowerPhase
phase_from_text(const char *state)
{
	if (strcmp(state, "ready") == 0)
		return FOLLOWER_READY;
	/* what one was is waited for until nobody can count it as in sync any more */
	if (strcmp(state, "joining") == 0 || strcmp(state, "forgotten") == 0)
		return FOLLOWER_JOINING;
	return FOLLOWER_COPYING;
}

int
follower_row_states(int32 topic, int32 partition, FollowerRow rows[BROKERS_MAX])
{
	Oid			relid = extension_relation("follower");
	Relation	relation;
	SysScanDesc scan;
	ScanKeyData keys[2];
	HeapTuple	tuple;
	int			count = 0;

	if (!OidIsValid(relid))
		return 0;
	relation = table_open(relid, AccessShareLock);
	ScanKeyInit(&keys[0], FOLLOWER_TOPIC_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(topic));
	ScanKeyInit(&keys[1], FOLLOWER_PARTITION, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(partition));
	scan = systable_beginscan(relation, extension_relation("follower_pkey"), true,
							  NULL, 2, keys);
	while (count < BROKERS_MAX && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(relation);
		bool		isnull;
		char	   *state = TextDatumGetCString(heap_getattr(tuple, FOLLOWER_STATE, desc, &isnull));

		rows[count].follower = DatumGetInt32(heap_getattr(tuple, FOLLOWER_FOLLOWER, desc, &isnull));
		rows[count].placement = DatumGetInt32(heap_getattr(tuple, FOLLOWER_PLACEMENT, desc, &isnull));
		rows[count].phase = phase_from_text(state);
		count++;
		pfree(state);
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return count;
}

/* Columns of pgtopic.cluster, in the order of the extension's script. */
enum ClusterColumn
{
	CLUSTER_ID = 1,
	CLUSTER_SELF,
	CLUSTER_TERM,
	CLUSTER_VOTED_FOR,
	CLUSTER_IMAGE_TERM,
	CLUSTER_IMAGE_VERSION,
	CLUSTER_COMMITTED_VERSION,
	CLUSTER_APPLIED_VERSION
};

bool
cluster_row_read(ClusterRow *row)
{
	Oid			relid = extension_relation("cluster");
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	/* before version 0.2.0 */
	if (!OidIsValid(relid))
		return false;
	relation = table_open(relid, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		TupleDesc	desc = RelationGetDescr(relation);
		bool		isnull;

		text_to_cstring_buffer(DatumGetTextPP(heap_getattr(tuple, CLUSTER_ID, desc, &isnull)),
							   row->cluster_id, sizeof(row->cluster_id));
		row->self = DatumGetInt32(heap_getattr(tuple, CLUSTER_SELF, desc, &isnull));
		row->applied_version = DatumGetInt64(heap_getattr(tuple, CLUSTER_APPLIED_VERSION,
														  desc, &isnull));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return found;
}

char *
broker_row_conninfo(int32 broker)
{
	Oid			relid = extension_relation("broker");
	Relation	relation;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	char	   *conninfo = NULL;

	if (!OidIsValid(relid))
		return NULL;
	relation = table_open(relid, AccessShareLock);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(broker));
	scan = systable_beginscan(relation, extension_relation("broker_pkey"), true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		conninfo = TextDatumGetCString(heap_getattr(tuple, 2, RelationGetDescr(relation), &isnull));
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return conninfo;
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
