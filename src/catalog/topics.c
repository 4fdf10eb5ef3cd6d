/*-------------------------------------------------------------------------
 *
 * topics.c
 *	  Topics as the catalog describes them, kept in a cache of the backend.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/name.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/relations.h"
#include "catalog/rows.h"
#include "catalog/topics.h"
#include "shmem/databases.h"

typedef struct NameEntry
{
	char		name[NAMEDATALEN];	/* hash key, must be first */
	int32		id;
} NameEntry;

/* What a table is to a cached topic. */
typedef struct RelationEntry
{
	Oid			relation;		/* hash key, must be first */
	int32		topic;
	int32		partition;		/* -1: the root, or the relation */
} RelationEntry;

static HTAB *topics_by_id = NULL;
static HTAB *topics_by_name = NULL;
static HTAB *topic_relations = NULL;

/* Grows with each invalidation, of whatever relation. */
static uint64 invalidations = 0;

/*
 * Called for every relation whose relcache entry changes, so it only marks.
 * Segments that a partition's table got or lost do not change the topic.
 */
static void
relcache_callback(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	Topic	   *topic;

	invalidations++;
	if (OidIsValid(relid))
	{
		RelationEntry *entry = hash_search(topic_relations, &relid, HASH_FIND, NULL);

		if (entry == NULL)
			return;
		topic = hash_search(topics_by_id, &entry->topic, HASH_FIND, NULL);
		if (topic == NULL)
			return;
		if (entry->partition < 0)
			topic->valid = false;
		else if (entry->partition < topic->partitions_count)
			topic->partitions[entry->partition].segments_valid = false;
		return;
	}

	hash_seq_init(&status, topics_by_id);
	while ((topic = hash_seq_search(&status)) != NULL)
	{
		topic->valid = false;
		for (int i = 0; i < topic->partitions_count; i++)
			topic->partitions[i].segments_valid = false;
	}
}

static void
cache_init(void)
{
	HASHCTL		info;

	info.keysize = sizeof(int32);
	info.entrysize = sizeof(Topic);
	info.hcxt = CacheMemoryContext;
	topics_by_id = hash_create("pgtopic topics", 64, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	info.keysize = NAMEDATALEN;
	info.entrysize = sizeof(NameEntry);
	topics_by_name = hash_create("pgtopic topic names", 64, &info,
								 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(RelationEntry);
	topic_relations = hash_create("pgtopic topic relations", 256, &info,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

/* Notes what a table is to a topic, for relcache_callback(). */
static void
note_relation(Oid relation, int32 topic, int32 partition)
{
	RelationEntry *entry;

	if (!OidIsValid(relation))
		return;
	entry = hash_search(topic_relations, &relation, HASH_ENTER, NULL);
	entry->topic = topic;
	entry->partition = partition;
}

static void
forget_relations(Topic *topic)
{
	hash_search(topic_relations, &topic->root, HASH_REMOVE, NULL);
	hash_search(topic_relations, &topic->relation, HASH_REMOVE, NULL);
	for (int i = 0; i < topic->partitions_count; i++)
		hash_search(topic_relations, &topic->partitions[i].relation, HASH_REMOVE, NULL);
}

/*
 * What a topic consisted of stays readable to the end of the transaction: a
 * caller up the stack may still hold pointers to it.
 */
static void
release_context(MemoryContext context)
{
	MemoryContextSetParent(context, TopTransactionContext);
}

/* In a cluster, partitions are led, and have their tables, here or elsewhere. */
static void
fill_leader(LogPartition *partition, int32 topic, int32 self)
{
	PartitionRow row;

	if (!partition_row_by_number(topic, partition->number, &row))
		return;
	partition->leader = row.leader;
	partition->leader_epoch = row.leader_epoch;
	partition->successor = row.successor;
	partition->replicas_count = row.replicas_count;
	for (int i = 0; i < row.replicas_count; i++)
	{
		if (row.replicas[i] == self &&
			(!OidIsValid(partition->relation) || !OidIsValid(partition->positions)))
			partition->topic->damaged = true;
	}
}

/* Fills a topic from its catalog row. */
static void
topic_fill(Topic *topic, const TopicRow *row)
{
	MemoryContext context;
	LogPartition *partitions;
	int			count = row->partitions;
	int32		self = cluster_self();
	char		name[NAMEDATALEN];
	Oid			root;
	Oid			relation = relation_of_topic(topic->id, row->name);

	snprintf(name, sizeof(name), "t%d", topic->id);
	root = extension_relation(name);
	topic->damaged = !OidIsValid(root);

	context = AllocSetContextCreate(CacheMemoryContext, "pgtopic topic",
									ALLOCSET_SMALL_SIZES);
	partitions = MemoryContextAllocZero(context, count * sizeof(LogPartition));
	for (int i = 0; i < count; i++)
	{
		partitions[i].topic = topic;
		partitions[i].number = i;
		snprintf(name, sizeof(name), "t%d_p%d", topic->id, i);
		partitions[i].relation = extension_relation(name);
		snprintf(name, sizeof(name), "t%d_p%d_offsets", topic->id, i);
		partitions[i].positions = extension_relation(name);
		if (self == 0)
			topic->damaged |= !OidIsValid(partitions[i].relation) || !OidIsValid(partitions[i].positions);
		else
			fill_leader(&partitions[i], topic->id, self);
		partitions[i].slot.key.database = MyDatabaseId;
		partitions[i].slot.key.relation = partitions[i].relation;
		partitions[i].slot.slot = -1;
	}

	if (topic->context)
	{
		forget_relations(topic);
		release_context(topic->context);
	}
	note_relation(root, topic->id, -1);
	note_relation(relation, topic->id, -1);
	for (int i = 0; i < count; i++)
		note_relation(partitions[i].relation, topic->id, i);
	topic->context = context;
	topic->partitions = partitions;
	topic->partitions_count = count;
	topic->root = root;
	topic->relation = relation;
	strlcpy(topic->name, row->name, NAMEDATALEN);
	topic->replication_factor = row->replication_factor;
	topic->min_insync_replicas = row->min_insync_replicas > 0 ? row->min_insync_replicas :
		(row->replication_factor + 1) / 2;
	topic->segment_messages = row->segment_messages;
	topic->max_message_bytes = row->max_message_bytes;
	topic->format = row->format;
}

static void
topic_forget(Topic *topic)
{
	NameEntry  *entry = hash_search(topics_by_name, topic->name, HASH_FIND, NULL);

	if (entry != NULL && entry->id == topic->id)
		hash_search(topics_by_name, topic->name, HASH_REMOVE, NULL);
	if (topic->context)
	{
		forget_relations(topic);
		release_context(topic->context);
	}
	hash_search(topics_by_id, &topic->id, HASH_REMOVE, NULL);
}

/* Forgets topics that have been dropped and that nobody has asked for since. */
static void
forget_dropped(void)
{
	HASH_SEQ_STATUS status;
	Topic	   *topic;

	hash_seq_init(&status, topics_by_id);
	while ((topic = hash_seq_search(&status)) != NULL)
	{
		if (!topic->valid && !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(topic->root)))
			topic_forget(topic);
	}
}

Topic *
topic_find_any(int32 id)
{
	Topic	   *topic;
	uint64		before;
	TopicRow	row;
	bool		found;

	extension_require_preload();
	if (topics_by_id == NULL)
		cache_init();

	AcceptInvalidationMessages();
	topic = hash_search(topics_by_id, &id, HASH_FIND, NULL);
	if (topic != NULL && topic->valid)
		return topic;

	/* what changes from here on is not in what we read: look again next time */
	before = invalidations;
	if (!topic_row_by_id(id, &row))
	{
		if (topic != NULL)
			topic_forget(topic);
		return NULL;
	}

	if (topic == NULL)
		forget_dropped();
	topic = hash_search(topics_by_id, &id, HASH_ENTER, &found);
	if (!found)
		/* all but the key, which hash_search() has set */
		memset((char *) topic + sizeof(int32), 0, sizeof(Topic) - sizeof(int32));
	topic_fill(topic, &row);
	topic->valid = invalidations == before && !topic->damaged;
	return topic;
}

/* See cluster/restored.h: what is missing may be about to be made. */
static void
check_restored(const Topic *topic, const TopicRow *row)
{
	for (int p = 0; p < row->partitions && cluster_self() == 0; p++)
	{
		PartitionRow partition;

		if (!partition_row_by_number(topic->id, p, &partition) || partition.has_tables)
			continue;
		if (!RecoveryInProgress())
			database_wake_worker(MyDatabaseId, true);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("topic \"%s\" is not ready yet", row->name),
				 errdetail("It comes from the dump of a broker that had no replica of partition %d. The maintenance worker makes its tables when the dump has been restored.", p),
				 errhint("If a dump is being restored, wait until that is done. Then try again.")));
	}
}

Topic *
topic_find(int32 id)
{
	Topic	   *topic = topic_find_any(id);
	TopicRow	row;

	/* if it was dropped while we looked, it is not damaged but gone */
	if (topic != NULL && topic->damaged && topic_row_by_id(id, &row))
	{
		check_restored(topic, &row);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("storage of topic \"%s\" is damaged", topic->name),
				 errdetail("Some of the tables %s.t%d, t%d_p* and t%d_p*_offsets do not exist.",
						   CATALOG_SCHEMA, id, id, id),
				 errhint("Somebody has dropped them by hand. Use drop_topic() to drop the rest.")));
	}
	return topic != NULL && topic->damaged ? NULL : topic;
}

Topic *
topic_get(int32 id)
{
	Topic	   *topic;
	char		name[NAMEDATALEN] = "";

	/* what it was called, if it turns out to have been dropped */
	if (topics_by_id != NULL)
	{
		topic = hash_search(topics_by_id, &id, HASH_FIND, NULL);
		if (topic != NULL)
			strlcpy(name, topic->name, NAMEDATALEN);
	}

	topic = topic_find(id);
	if (topic == NULL && name[0] != '\0')
		topic_error_unknown(name);
	if (topic == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("topic with id %d does not exist", id),
				 errdetail("It has been dropped.")));
	return topic;
}

Topic *
topic_lock(int32 id)
{
	for (;;)
	{
		Topic	   *topic = topic_get(id);
		Oid			root = topic->root;

		LockRelationOid(root, AccessShareLock);
		/* if it was dropped while we waited, topic_get() says so */
		if (topic->valid && topic->root == root)
			return topic;
		topic = topic_get(id);
		if (topic->root == root)
			return topic;
	}
}

int32
topic_id_by_name(const char *name)
{
	NameEntry  *entry = NULL;
	TopicRow	row;

	if (topic_name_problem(name) != NULL)
		return 0;
	if (topics_by_id == NULL)
		cache_init();

	AcceptInvalidationMessages();
	entry = hash_search(topics_by_name, name, HASH_FIND, NULL);
	if (entry != NULL)
	{
		Topic	   *topic = hash_search(topics_by_id, &entry->id, HASH_FIND, NULL);

		if (topic != NULL && topic->valid)
			return entry->id;
	}

	if (!topic_row_by_name(name, &row))
	{
		if (entry != NULL)
			hash_search(topics_by_name, name, HASH_REMOVE, NULL);
		return topic_id_by_storage_comment(name);
	}
	entry = hash_search(topics_by_name, name, HASH_ENTER, NULL);
	entry->id = row.id;
	return row.id;
}

char *
topic_name_by_id(int32 id)
{
	TopicRow	row;
	Topic	   *topic;

	if (topics_by_id == NULL)
		cache_init();
	topic = hash_search(topics_by_id, &id, HASH_FIND, NULL);
	if (topic != NULL && topic->valid)
		return pstrdup(topic->name);
	if (!topic_row_by_id(id, &row))
		return NULL;
	return pstrdup(row.name);
}

void
topic_error_unknown(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("topic \"%s\" does not exist", name)));
}

uint64
topics_invalidations(void)
{
	return invalidations;
}

LogPartition *
topic_partition_get(Topic *topic, int32 number)
{
	if (number < 0 || number >= topic->partitions_count)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("partition %d of topic \"%s\" does not exist", number, topic->name),
				 topic->partitions_count == 1 ?
				 errdetail("The topic has one partition, 0.") :
				 errdetail("The topic has partitions 0 to %d.", topic->partitions_count - 1)));
	return &topic->partitions[number];
}

bool
partition_row_read(const LogPartition *partition, PartitionRow *row)
{
	return partition_row_by_number(partition->topic->id, partition->number, row);
}

int64
partition_log_start(const LogPartition *partition)
{
	PartitionRow row;

	if (!partition_row_read(partition, &row))
		topic_error_unknown(partition->topic->name);
	return row.log_start;
}

void
topic_invalidate(int32 id)
{
	char		name[NAMEDATALEN];
	Oid			root;
	TopicRow	row;

	snprintf(name, sizeof(name), "t%d", id);
	root = extension_relation(name);
	if (OidIsValid(root))
		CacheInvalidateRelcacheByRelid(root);
	if (topic_row_by_id(id, &row))
	{
		/* statements that use it were planned for the partitions that it had */
		Oid			relation = relation_of_topic(id, row.name);

		if (OidIsValid(relation))
			CacheInvalidateRelcacheByRelid(relation);
	}
}

/*
 * The plan cache drops everything when a row of pg_namespace changes
 * (InitPlanCache() in plancache.c), so we say that ours did.
 */
void
topic_invalidate_plans(void)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID, ObjectIdGetDatum(extension_schema()));
	Relation	relation;

	if (!HeapTupleIsValid(tuple))
		return;
	relation = table_open(NamespaceRelationId, AccessShareLock);
	CacheInvalidateHeapTuple(relation, tuple, NULL);
	table_close(relation, AccessShareLock);
	ReleaseSysCache(tuple);
}
