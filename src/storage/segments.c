/*-------------------------------------------------------------------------
 *
 * segments.c
 *	  The tables of a topic: root, partitions, segments, positions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_index.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "base/packing.h"
#include "catalog/extension.h"
#include "storage/relation.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"

/*
 * Compression of what is too large for a page.  The SQL default, pglz, takes
 * most of the time of producing a large message.
 */
#ifdef USE_LZ4
#define COMPRESSION_CLAUSE	"COMPRESSION lz4"
#else
#define COMPRESSION_CLAUSE	""
#endif

static Oid
get_toast_relid(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			toast;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	toast = ((Form_pg_class) GETSTRUCT(tuple))->reltoastrelid;
	ReleaseSysCache(tuple);
	return toast;
}

void
segments_load(LogPartition *partition)
{
	Relation	relation;
	PartitionDesc desc;
	uint64		before;
	int			count = 0;

	if (partition->segments_valid)
		return;

	relation = try_table_open(partition->relation, AccessShareLock);
	if (relation == NULL)
	{
		/* dropped; the topic will be found to be gone */
		partition->segments_count = 0;
		return;
	}

	/*
	 * The descriptor of partitions is read from catalogs, and an invalidation that
	 * comes in while it is does not reach it: RelationBuildPartitionDesc() puts
	 * what it has read into the entry all the same, where it would stay.  A writer
	 * would not find a segment that has been made, and a reader would pass over
	 * one.  So the entry is built anew until nothing comes in meanwhile.
	 */
	do
	{
		before = topics_invalidations();
		RelationCacheInvalidateEntry(partition->relation);
		desc = RelationGetPartitionDesc(relation, true);
		CHECK_FOR_INTERRUPTS();
	} while (topics_invalidations() != before);

	/* an invalidation that comes in from here on is for the next time */
	partition->segments_valid = true;
	if (partition->segments != NULL)
		pfree(partition->segments);
	partition->segments = MemoryContextAlloc(partition->topic->context,
											 Max(desc->nparts, 1) * sizeof(Segment));

	/*
	 * The bounds of a range-partitioned table are ascending; indexes[i] is the
	 * partition that ends at bound i, or -1 where there is a hole
	 * (PartitionBoundInfoData in partbounds.h).  Ours are all plain numbers.
	 */
	for (int i = 1; desc->nparts > 0 && i < desc->boundinfo->ndatums; i++)
	{
		PartitionBoundInfo bounds = desc->boundinfo;
		Segment    *segment = &partition->segments[count];

		if (bounds->indexes[i] < 0)
			continue;
		segment->from = DatumGetInt64(bounds->datums[i - 1][0]);
		segment->to = DatumGetInt64(bounds->datums[i][0]);
		segment->relid = desc->oids[bounds->indexes[i]];
		count++;
	}
	partition->segments_count = count;
	table_close(relation, AccessShareLock);
}

/*
 * A segment never changes its bounds.  So once it is locked and there, it is the
 * right one, whatever happened before the lock was got.
 */
Relation
segment_open_for(LogPartition *partition, int64 last_offset, LOCKMODE mode, int *segment)
{
	for (int tries = 0; tries < 2; tries++)
	{
		Relation	relation;
		int			number;

		segments_load(partition);
		number = segmap_seek(partition->segments, partition->segments_count, last_offset);
		if (number < partition->segments_count &&
			partition->segments[number].from <= last_offset)
		{
			relation = try_table_open(partition->segments[number].relid, mode);
			if (relation != NULL)
			{
				*segment = number;
				return relation;
			}
		}
		/* dropped, or not known yet */
		partition->segments_valid = false;
	}
	return NULL;
}

int64
segments_end(LogPartition *partition)
{
	segments_load(partition);
	if (partition->segments_count == 0)
		return 0;
	return partition->segments[partition->segments_count - 1].to;
}

void
storage_create_topic(int32 topic, const char *name)
{
	extension_execute(SPI_OK_UTILITY,
					  "CREATE TABLE pgtopic.t%d ("
					  "partition int NOT NULL, leader_epoch int NOT NULL, "
					  "base_offset bigint NOT NULL, last_offset bigint NOT NULL, "
					  "\"timestamp\" timestamptz NOT NULL, "
					  "keys bytea[] " COMPRESSION_CLAUSE ", "
					  "\"values\" bytea[] " COMPRESSION_CLAUSE " NOT NULL, "
					  "headers jsonb[] " COMPRESSION_CLAUSE ", "
					  "timestamps timestamptz[] " COMPRESSION_CLAUSE
					  ") PARTITION BY LIST (partition)", topic);
	extension_execute(SPI_OK_UTILITY,
					  "CREATE TABLE pgtopic.t%d_offsets ("
					  "consumer_group text COLLATE \"C\" NOT NULL, partition int NOT NULL, "
					  "committed_offset bigint NOT NULL, committed_at timestamptz NOT NULL, "
					  "next_sequence bigint, sequences bigint[], offsets bigint[], "
					  "PRIMARY KEY (consumer_group, partition)"
					  ") PARTITION BY LIST (partition)", topic);
	/* topics.c reads this while a dump is being restored */
	extension_execute(SPI_OK_UTILITY,
					  "COMMENT ON TABLE pgtopic.t%d IS %s", topic,
					  quote_literal_cstr(psprintf("storage of topic %s", name)));
}

void
storage_create_partition(int32 topic, int32 partition, int64 segment_messages)
{
	/*
	 * ATTACH, since CREATE TABLE … PARTITION OF would keep everybody away from
	 * the parent (ACCESS EXCLUSIVE against SHARE UPDATE EXCLUSIVE).
	 */
	extension_execute(SPI_OK_UTILITY,
					  "CREATE TABLE pgtopic.t%d_p%d (LIKE pgtopic.t%d INCLUDING COMPRESSION, "
					  "PRIMARY KEY (last_offset)) PARTITION BY RANGE (last_offset)",
					  topic, partition, topic);
	extension_execute(SPI_OK_UTILITY,
					  "ALTER TABLE pgtopic.t%d ATTACH PARTITION pgtopic.t%d_p%d FOR VALUES IN (%d)",
					  topic, topic, partition, partition);
	/* few rows that are updated all the time: leave room for HOT updates */
	extension_execute(SPI_OK_UTILITY,
					  "CREATE TABLE pgtopic.t%d_p%d_offsets (LIKE pgtopic.t%d_offsets, "
					  "PRIMARY KEY (consumer_group, partition)) WITH (fillfactor = 40)",
					  topic, partition, topic);
	extension_execute(SPI_OK_UTILITY,
					  "ALTER TABLE pgtopic.t%d_offsets ATTACH PARTITION pgtopic.t%d_p%d_offsets FOR VALUES IN (%d)",
					  topic, topic, partition, partition);

	for (int i = 0; i < SEGMENTS_AHEAD; i++)
		storage_create_segment(topic, partition,
							   i * segment_messages, (i + 1) * segment_messages);
}

void
storage_create_segment(int32 topic, int32 partition, int64 from, int64 to)
{
	StaticAssertStmt(PACK_TUPLE_MAX <= MaxHeapTupleSize,
					 "rows are packed to fit a page of 8 kB");

	/* a row that fits a page stays in it: see packing.c */
	extension_execute(SPI_OK_UTILITY,
					  "CREATE TABLE pgtopic.t%d_p%d_s" INT64_FORMAT
					  " (LIKE pgtopic.t%d INCLUDING COMPRESSION, PRIMARY KEY (last_offset))"
					  " WITH (toast_tuple_target = 8160)",
					  topic, partition, from, topic);
	extension_execute(SPI_OK_UTILITY,
					  "ALTER TABLE pgtopic.t%d_p%d ATTACH PARTITION pgtopic.t%d_p%d_s" INT64_FORMAT
					  " FOR VALUES FROM (" INT64_FORMAT ") TO (" INT64_FORMAT ")",
					  topic, partition, topic, partition, from, from, to);
}

void
storage_drop_topic(int32 topic, bool must)
{
	static const char *const tables[] = {"t%d", "t%d_offsets"};

	if (must)
		relation_drop(topic);
	else
		relation_try_drop(topic);
	for (size_t i = 0; i < lengthof(tables); i++)
	{
		const char *table = psprintf(tables[i], topic);

		/* not IF EXISTS, which gives a notice */
		if (OidIsValid(extension_relation(table)))
			extension_execute(SPI_OK_UTILITY, "DROP TABLE " CATALOG_SCHEMA ".%s", table);
	}
	segment_statistics_delete_topic(topic);
}

void
storage_drop_partition(int32 topic, int32 partition)
{
	extension_execute(SPI_OK_UTILITY, "DROP TABLE IF EXISTS pgtopic.t%d_p%d, pgtopic.t%d_p%d_offsets",
					  topic, partition, topic, partition);
	segment_statistics_delete_beyond(topic, partition, 0);
}

static bool
index_is_valid(const char *name)
{
	Oid			index = extension_relation(name);
	HeapTuple	tuple;
	bool		valid;

	if (!OidIsValid(index))
		return false;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		return false;
	valid = ((Form_pg_index) GETSTRUCT(tuple))->indisvalid;
	ReleaseSysCache(tuple);
	return valid;
}

/* The key of a partition is valid once all its segments have theirs. */
bool
storage_is_complete(const LogPartition *partition)
{
	return index_is_valid(psprintf("t%d_p%d_pkey", partition->topic->id, partition->number)) &&
		index_is_valid(psprintf("t%d_p%d_offsets_pkey", partition->topic->id, partition->number));
}

bool
storage_root_is_complete(int32 topic)
{
	return OidIsValid(extension_relation(psprintf("t%d", topic))) &&
		index_is_valid(psprintf("t%d_offsets_pkey", topic));
}

bool
storage_try_drop_segment(LogPartition *partition, const Segment *segment)
{
	ObjectAddress address;
	Oid			toast;

	if (!ConditionalLockRelationOid(partition->relation, AccessExclusiveLock) ||
		!ConditionalLockRelationOid(segment->relid, AccessExclusiveLock))
		return false;
	/* autovacuum may be at the TOAST table alone */
	toast = get_toast_relid(segment->relid);
	if (OidIsValid(toast) && !ConditionalLockRelationOid(toast, AccessExclusiveLock))
		return false;

	ObjectAddressSet(address, RelationRelationId, segment->relid);
	performDeletion(&address, DROP_RESTRICT, 0);
	return true;
}

void
storage_drop_segment(Oid segment)
{
	ObjectAddress address;

	LockRelationOid(segment, AccessExclusiveLock);
	ObjectAddressSet(address, RelationRelationId, segment);
	performDeletion(&address, DROP_RESTRICT, 0);
}

/* Makes one object go with another one, unless it does already. */
static void
depend_on(const ObjectAddress *object, const ObjectAddress *owner)
{
	Relation	relation = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object->classId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(object->objectId));
	scan = systable_beginscan(relation, DependDependerIndexId, true, NULL, 2, keys);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		found = form->refclassid == owner->classId && form->refobjid == owner->objectId &&
			form->deptype == DEPENDENCY_AUTO;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);

	if (!found)
		recordDependencyOn(object, owner, DEPENDENCY_AUTO);
}

void
storage_adopt(int32 topic)
{
	Oid			root = extension_relation(psprintf("t%d", topic));
	Oid			positions = extension_relation(psprintf("t%d_offsets", topic));
	ObjectAddress extension_address;
	ObjectAddress root_address;
	ObjectAddress positions_address;
	ObjectAddress relation_address;
	Oid			relation;

	if (!OidIsValid(root) || !OidIsValid(positions))
		return;
	/* nobody drops them from here on; perhaps somebody has */
	LockRelationOid(root, AccessShareLock);
	LockRelationOid(positions, AccessShareLock);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(root)) ||
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(positions)))
		return;
	ObjectAddressSet(extension_address, ExtensionRelationId,
					 get_extension_oid("pgtopic", false));
	ObjectAddressSet(root_address, RelationRelationId, root);
	ObjectAddressSet(positions_address, RelationRelationId, positions);
	depend_on(&root_address, &extension_address);
	depend_on(&positions_address, &root_address);

	relation = relation_adopt(topic);
	if (OidIsValid(relation))
	{
		ObjectAddressSet(relation_address, RelationRelationId, relation);
		depend_on(&relation_address, &extension_address);
	}
}

void
storage_add_columns(int32 topic)
{
	Oid			positions = extension_relation(psprintf("t%d_offsets", topic));
	ExtensionOwner saved;

	if (!OidIsValid(positions) || get_attnum(positions, "next_sequence") != InvalidAttrNumber)
		return;
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "SELECT FROM pg_catalog.pg_extension WHERE extname = 'pgtopic' AND extversion IN ('0.1.0', '0.2.0')");
	if (SPI_processed == 0)
		extension_execute(SPI_OK_UTILITY,
						  "ALTER TABLE pgtopic.t%d_offsets ADD COLUMN next_sequence bigint,"
						  " ADD COLUMN sequences bigint[], ADD COLUMN offsets bigint[]", topic);
	SPI_finish();
	extension_owner_end(&saved);
}
