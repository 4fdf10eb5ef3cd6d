/*-------------------------------------------------------------------------
 *
 * restored.c
 *	  A dump of a broker, restored as a database of its own.
 *
 * A dump has pgtopic.topic and pgtopic.partition, and not pgtopic.cluster.  So what it
 * brings is what the metadata said of all partitions, and the tables of those that the
 * broker had a replica of: pgtopic.partition.has_tables tells which, since in a database
 * of its own tables that are missing have been dropped by somebody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "catalog/extension.h"
#include "catalog/rows.h"
#include "catalog/topics.h"
#include "cluster/replica.h"
#include "cluster/restored.h"
#include "storage/segments.h"

/* How long the end of a dump is waited for at most, and when that is another dump. */
#define RESTORE_WAIT_MS		60000
#define RESTORE_FORGET_MS	600000

/* What a topic has in a database of its own, as conditions on its rows. */
#define TOPIC_IS_ALONE \
	"t.replication_factor = 1 AND COALESCE(t.min_insync_replicas, 1) <= 1"
#define PARTITION_IS_ALONE \
	"p.has_tables AND (p.leader, p.successor, p.replicas, p.placements, p.isr) = (1, 0, '{1}', '{1}', '{1}')"

static int64
get_int64(int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull));
}

/* Whether anything is to be done; sets *complete if all the rows of the topic are there. */
static bool
is_of_cluster(int32 topic, bool *complete)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT (NOT (" TOPIC_IS_ALONE ") OR pg_catalog.count(*) FILTER (WHERE NOT (" PARTITION_IS_ALONE ")) > 0)"
					  "::pg_catalog.int4::pg_catalog.int8,"
					  " (pg_catalog.count(p.topic_id) = t.partitions)::pg_catalog.int4::pg_catalog.int8"
					  " FROM pgtopic.topic t LEFT JOIN pgtopic.partition p ON p.topic_id = t.id"
					  " WHERE t.id = %d GROUP BY t.id", topic);
	if (SPI_processed == 0)
		return false;
	*complete = get_int64(2) != 0;
	return get_int64(1) != 0;
}

void
restored_forget_leaders(int32 topic)
{
	if (!OidIsValid(extension_relation(psprintf("t%d_offsets", topic))))
		return;
	/* what a follower has been told is newer than what it has stored */
	replica_take_checkpoints(topic, "true");
	extension_execute(SPI_OK_DELETE,
					  "DELETE FROM pgtopic.t%d_offsets WHERE consumer_group IN ('', E'\\001', E'\\002')"
					  " OR pg_catalog.starts_with(consumer_group, E'\\004')", topic);
}

/* Makes the tables of partitions that the broker had no replica of. */
static void
make_tables(int32 topic)
{
	TopicRow	row;
	int			count;
	int32	   *partitions;

	if (!topic_row_by_id(topic, &row))
		return;
	extension_execute(SPI_OK_SELECT, "SELECT partition FROM pgtopic.partition WHERE topic_id = %d AND NOT has_tables", topic);
	count = (int) SPI_processed;
	partitions = palloc((count + 1) * sizeof(int32));
	for (int i = 0; i < count; i++)
	{
		bool		isnull;

		partitions[i] = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	}
	for (int i = 0; i < count; i++)
	{
		/* it may have had one until a moment before */
		if (OidIsValid(extension_relation(psprintf("t%d_p%d", topic, partitions[i]))))
			continue;
		storage_create_partition(topic, partitions[i], row.segment_messages);
		extension_execute(SPI_OK_UPDATE,
						  "UPDATE pgtopic.partition SET log_start_offset = 0, high_watermark = 0"
						  " WHERE topic_id = %d AND partition = %d", topic, partitions[i]);
		ereport(LOG,
				(errmsg("pgtopic partition %d of topic \"%s\" begins with nothing", partitions[i], row.name),
				 errdetail("The dump that was restored is one of a broker that had no replica of it.")));
	}
}

/*
 * Whether a session may be restoring a dump still.  The last that a dump has is rights on
 * tables, and GRANT takes no lock: it would fail ("tuple concurrently updated") if the
 * table got a partition in that moment.  So this waits until nobody has changed definitions
 * for a second, but not for ever, in a database where somebody always does.
 */
static bool
somebody_restores(void)
{
	static TimestampTz since = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (since == 0 || TimestampDifferenceExceeds(since, now, RESTORE_FORGET_MS))
		since = now;
	if (TimestampDifferenceExceeds(since, now, RESTORE_WAIT_MS))
		return false;
	extension_execute(SPI_OK_SELECT,
					  "SELECT FROM pg_catalog.pg_stat_activity"
					  " WHERE datname = pg_catalog.current_database() AND backend_type = 'client backend'"
					  " AND pid <> pg_catalog.pg_backend_pid()"
					  " AND (state = 'active' OR state_change > pg_catalog.clock_timestamp() - '1 s'::pg_catalog.interval)"
					  " AND query ~* '^(\\s|--[^\\n]*\\n)*(alter|comment|copy|create|grant|revoke)\\M'");
	return SPI_processed > 0;
}

static bool
settle(int32 topic)
{
	bool		complete = true;

	if (!is_of_cluster(topic, &complete))
		return true;
	/* keys come last in a dump: they would not know of tables that are made before */
	if (!complete || !storage_root_is_complete(topic) || somebody_restores())
		return false;
	make_tables(topic);
	restored_forget_leaders(topic);
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.partition SET has_tables = true, leader = 1, successor = 0,"
					  " replicas = '{1}', placements = '{1}', isr = '{1}' WHERE topic_id = %d", topic);
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.topic SET replication_factor = 1, min_insync_replicas ="
					  " CASE WHEN min_insync_replicas <= 1 THEN min_insync_replicas END WHERE id = %d", topic);
	storage_adopt(topic);
	topic_invalidate(topic);
	return true;
}

bool
restored_settle(int32 topic)
{
	ExtensionOwner saved;
	ClusterRow	row;
	Oid			partitions = extension_relation("partition");
	bool		settled;

	/* has_tables is there since 0.3.0 */
	if (!OidIsValid(partitions) || get_attnum(partitions, "has_tables") == InvalidAttrNumber ||
		cluster_row_read(&row))
		return true;
	extension_owner_begin(&saved);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	settled = settle(topic);
	PopActiveSnapshot();
	SPI_finish();
	extension_owner_end(&saved);
	return settled;
}
