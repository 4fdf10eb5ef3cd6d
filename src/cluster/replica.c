/*-------------------------------------------------------------------------
 *
 * replica.c
 *	  This broker's copies of partitions that others lead.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog/extension.h"
#include "catalog/topics.h"
#include "cluster/replica.h"
#include "storage/epochs.h"
#include "storage/partition_locks.h"
#include "storage/partition_state.h"
#include "storage/positions.h"
#include "storage/segment_statistics.h"
#include "storage/segments.h"

static int64
get_int64(int row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

Replica *
replicas_read(int *count)
{
	MemoryContext context = CurrentMemoryContext;
	Replica    *replicas;

	extension_execute(SPI_OK_SELECT,
					  "SELECT p.topic_id::pg_catalog.int8, p.partition::pg_catalog.int8, p.leader::pg_catalog.int8,"
					  " p.leader_epoch::pg_catalog.int8, COALESCE(r.from_offset, 0),"
					  " CASE WHEN r.leader = p.leader AND r.leader_epoch = p.leader_epoch"
					  " AND r.placement = p.placements[pg_catalog.array_position(p.replicas, c.self)] THEN r.state"
					  " ELSE '" REPLICA_NEW "' END,"
					  " p.placements[pg_catalog.array_position(p.replicas, c.self)]::pg_catalog.int8, r.attempt"
					  " FROM pgtopic.partition p JOIN pgtopic.cluster c ON c.self = ANY (p.replicas) AND p.leader <> c.self"
					  " LEFT JOIN pgtopic.replica r ON r.topic_id = p.topic_id AND r.partition = p.partition"
					  " ORDER BY p.leader, p.topic_id, p.partition");
	*count = (int) SPI_processed;
	replicas = MemoryContextAlloc(context, (*count + 1) * sizeof(Replica));
	for (int i = 0; i < *count; i++)
	{
		Replica    *replica = &replicas[i];

		replica->topic = (int32) get_int64(i, 1);
		replica->partition = (int32) get_int64(i, 2);
		replica->leader = (int32) get_int64(i, 3);
		replica->leader_epoch = (int32) get_int64(i, 4);
		replica->from_offset = get_int64(i, 5);
		replica->placement = (int32) get_int64(i, 7);
		replica->attempt = get_int64(i, 8);
		replica->state = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 6));
	}
	return replicas;
}

static LogPartition *
local_partition(const Replica *replica)
{
	Topic	   *topic = topic_get(replica->topic);
	LogPartition *partition = topic_partition_get(topic, replica->partition);

	if (!OidIsValid(partition->relation))
		elog(ERROR, "partition %d of topic \"%s\" has no tables here", replica->partition, topic->name);
	return partition;
}

/*
 * Where what we have is the same as everywhere ends: said by the checkpoint of the
 * last leader if our copy was complete, or if we were the leader; else by where
 * the copy began.
 */
int64
replica_agreed(const Replica *replica, int32 *newest_epoch)
{
	int64		agreed = 0;
	int64		from = 0;
	bool		complete = true;

	*newest_epoch = epoch_newest(local_partition(replica));

	/*
	 * A leader that was elected without having everything (unclean_epoch) agrees with
	 * nobody who was there before, this broker included unless it has followed it since.
	 */
	extension_execute(SPI_OK_SELECT,
					  "SELECT COALESCE(r.from_offset, 0),"
					  " COALESCE(r.state = '" REPLICA_READY "', true)::pg_catalog.int4::pg_catalog.int8,"
					  " (COALESCE(r.leader_epoch, 0) < p.unclean_epoch)::pg_catalog.int4::pg_catalog.int8"
					  " FROM pgtopic.partition p LEFT JOIN pgtopic.replica r"
					  " ON r.topic_id = p.topic_id AND r.partition = p.partition"
					  " WHERE p.topic_id = %d AND p.partition = %d",
					  replica->topic, replica->partition);
	if (SPI_processed > 0)
	{
		if (get_int64(0, 3) != 0)
			return 0;
		from = get_int64(0, 1);
		complete = get_int64(0, 2) != 0;
	}
	if (!complete || !position_read(local_partition(replica), POSITION_HIGH_WATERMARK, &agreed))
		return from;
	return Max(agreed, from);
}

void
replica_begin_attempt(Replica *replica)
{
	replica->attempt = Max(replica->attempt + 1, GetCurrentTimestamp());
	extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.replica SET attempt = " INT64_FORMAT
					  " WHERE topic_id = %d AND partition = %d",
					  replica->attempt, replica->topic, replica->partition);
}

int64
replicas_next_attempt(void)
{
	extension_execute(SPI_OK_SELECT, "SELECT pg_catalog.max(attempt) FROM pgtopic.replica");
	return Max(get_int64(0, 1) + 1, GetCurrentTimestamp());
}

void
replica_set_state(const Replica *replica, const char *state)
{
	extension_execute(SPI_OK_INSERT,
					  "INSERT INTO pgtopic.replica (topic_id, partition, leader, leader_epoch, placement, state, from_offset, attempt, since)"
					  " VALUES (%d, %d, %d, %d, %d, %s, " INT64_FORMAT ", " INT64_FORMAT ", pg_catalog.clock_timestamp())"
					  " ON CONFLICT (topic_id, partition) DO UPDATE SET leader = excluded.leader,"
					  " leader_epoch = excluded.leader_epoch, placement = excluded.placement, state = excluded.state,"
					  " from_offset = excluded.from_offset, attempt = excluded.attempt, since = excluded.since",
					  replica->topic, replica->partition, replica->leader, replica->leader_epoch,
					  replica->placement, quote_literal_cstr(state), replica->from_offset, replica->attempt);
}

/*
 * The triggers make the apply worker wait for segments: a row that finds no segment
 * would be an error there, and a pause of seconds, again and again.  One waits after
 * each batch for segments for what follows it; the other one when the leader says
 * that it has made a segment, since there may be a gap in the offsets that is
 * longer than ours reach.  They fire for replication alone.
 */
static void
make_trigger(const char *name, const char *table, const char *event, const char *function)
{
	extension_execute(SPI_OK_SELECT,
					  "SELECT FROM pg_catalog.pg_trigger WHERE tgname = '%s'"
					  " AND tgrelid = 'pgtopic.%s'::pg_catalog.regclass", name, table);
	if (SPI_processed > 0)
		return;
	extension_execute(SPI_OK_UTILITY,
					  "CREATE TRIGGER %s BEFORE %s ON pgtopic.%s FOR EACH ROW EXECUTE FUNCTION pgtopic.%s()",
					  name, event, table, function);
	extension_execute(SPI_OK_UTILITY, "ALTER TABLE pgtopic.%s ENABLE REPLICA TRIGGER %s", table, name);
}

static void
make_triggers(const Replica *replica)
{
	make_trigger("pgtopic_applied", psprintf("t%d_p%d", replica->topic, replica->partition),
				 "INSERT", "applied");
	make_trigger("pgtopic_applied_position", psprintf("t%d_p%d_offsets", replica->topic, replica->partition),
				 "INSERT OR UPDATE", "applied_position");
}

/* Drops all segments, and makes those where a log that begins at an offset begins. */
static void
begin_anew(const Replica *replica, int64 log_start)
{
	LogPartition *partition = local_partition(replica);
	int64		size = partition->topic->segment_messages;
	int64		from = log_start / size * size;
	int			count;
	Oid		   *segments;

	segments_load(partition);
	count = partition->segments_count;
	segments = palloc((count + 1) * sizeof(Oid));
	for (int i = 0; i < count; i++)
		segments[i] = partition->segments[i].relid;
	for (int i = 0; i < count; i++)
		storage_drop_segment(segments[i]);
	for (int i = 0; i < SEGMENTS_AHEAD; i++)
		storage_create_segment(replica->topic, replica->partition, from + i * size, from + (i + 1) * size);
}

bool
replica_is_quiet(const Replica *replica)
{
	return partition_update_slot(local_partition(replica));
}

void
replica_cut(Replica *replica, int64 log_start)
{
	LogPartition *partition;

	/* statistics are of what was there, and deleted below; or of what is left */
	partition_lock_statistics(replica->topic, replica->partition);
	partition = local_partition(replica);
	make_triggers(replica);
	if (replica->from_offset <= log_start || segments_end(partition) <= log_start)
	{
		/* nothing of what we have is of use */
		replica->from_offset = log_start;
		begin_anew(replica, log_start);
		segment_statistics_delete_beyond(replica->topic, replica->partition, 0);
	}
	else
	{
		extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.t%d_p%d WHERE last_offset >= " INT64_FORMAT,
						  replica->topic, replica->partition, replica->from_offset);
		segment_statistics_delete_beyond(replica->topic, replica->partition, replica->from_offset);
	}
	extension_execute(SPI_OK_DELETE, "DELETE FROM pgtopic.t%d_p%d_offsets", replica->topic, replica->partition);
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.partition SET log_start_offset = GREATEST(log_start_offset, " INT64_FORMAT "),"
					  " high_watermark = " INT64_FORMAT " WHERE topic_id = %d AND partition = %d",
					  log_start, replica->from_offset, replica->topic, replica->partition);
}

bool
replica_make_segment(const Replica *replica, int64 log_end)
{
	LogPartition *partition = local_partition(replica);
	int64		size = partition->topic->segment_messages;
	int64		end;

	partition_lock_segments(partition);
	end = segments_end(partition);
	if (end >= log_end + SEGMENTS_AHEAD * size)
		return false;
	storage_create_segment(replica->topic, replica->partition, end, end + size);
	return true;
}

void
replicas_distrust(void)
{
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.replica r SET leader = 0, state = '" REPLICA_NEW "',"
					  " from_offset = CASE WHEN r.state = '" REPLICA_READY "'"
					  " THEN GREATEST(r.from_offset, p.high_watermark) ELSE r.from_offset END"
					  " FROM pgtopic.partition p"
					  " WHERE p.topic_id = r.topic_id AND p.partition = r.partition");
}

/* Whether both tables of a replica r are in the subscription to a leader. */
static char *
is_subscribed(int32 leader)
{
	return psprintf("(SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription_rel x"
					" JOIN pg_catalog.pg_subscription s ON s.oid = x.srsubid"
					" JOIN pg_catalog.pg_class c ON c.oid = x.srrelid"
					" WHERE s.subname = 'pgtopic_from_%d' AND s.subdbid ="
					" (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
					" AND c.relnamespace = 'pgtopic'::pg_catalog.regnamespace"
					" AND c.relname IN (pg_catalog.format('t%%s_p%%s', r.topic_id, r.partition),"
					" pg_catalog.format('t%%s_p%%s_offsets', r.topic_id, r.partition))) = 2", leader);
}

/* Topics with complete copies, of this leader's partitions or (0) of anybody's; those that have tables. */
static int32 *
ready_topics(int32 leader, int *count)
{
	MemoryContext context = CurrentMemoryContext;
	int32	   *topics;
	int			found;

	extension_execute(SPI_OK_SELECT,
					  "SELECT DISTINCT topic_id::pg_catalog.int8 FROM pgtopic.replica"
					  " WHERE state = '" REPLICA_READY "' AND %d IN (0, leader)", leader);
	found = (int) SPI_processed;
	topics = MemoryContextAlloc(context, (found + 1) * sizeof(int32));
	*count = 0;
	for (int i = 0; i < found; i++)
	{
		topics[*count] = (int32) get_int64(i, 1);
		if (OidIsValid(extension_relation(psprintf("t%d_offsets", topics[*count]))))
			(*count)++;
	}
	return topics;
}

void
replicas_note_agreed(int32 leader)
{
	char	   *subscribed = is_subscribed(leader);
	int			count;
	int32	   *topics = ready_topics(leader, &count);

	for (int i = 0; i < count; i++)
		extension_execute(SPI_OK_UPDATE,
						  "UPDATE pgtopic.replica r SET from_offset = o.committed_offset FROM pgtopic.t%d_offsets o"
						  " WHERE r.topic_id = %d AND r.leader = %d AND r.state = '" REPLICA_READY "'"
						  " AND o.partition = r.partition AND o.consumer_group = ''"
						  " AND o.committed_offset > r.from_offset AND %s",
						  topics[i], topics[i], leader, subscribed);
}

void
replicas_look_detached(int32 leader)
{
	/* what this broker has written itself is right */
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.replica r SET leader = 0 FROM pgtopic.partition p, pgtopic.cluster l"
					  " WHERE r.leader = %d AND p.topic_id = r.topic_id AND p.partition = r.partition"
					  " AND p.leader = l.self", leader);
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.replica r SET state = '" REPLICA_NEW "' WHERE r.leader = %d"
					  " AND r.state = '" REPLICA_READY "' AND NOT %s", leader, is_subscribed(leader));
}

void
replica_take_checkpoints(int32 topic, const char *condition)
{
	extension_execute(SPI_OK_UPDATE,
					  "UPDATE pgtopic.partition p SET high_watermark = GREATEST(p.high_watermark, o.high_watermark),"
					  " log_start_offset = GREATEST(p.log_start_offset, o.log_start)"
					  " FROM (SELECT partition,"
					  " pg_catalog.max(committed_offset) FILTER (WHERE consumer_group = '') AS high_watermark,"
					  " pg_catalog.max(committed_offset) FILTER (WHERE consumer_group = E'\\001') AS log_start"
					  " FROM pgtopic.t%d_offsets WHERE consumer_group IN ('', E'\\001') GROUP BY partition) o"
					  " WHERE p.topic_id = %d AND p.partition = o.partition"
					  " AND (p.high_watermark < o.high_watermark OR p.log_start_offset < o.log_start) AND %s",
					  topic, topic, condition);
}

void
replicas_take_checkpoints(void)
{
	int			count;
	int32	   *topics = ready_topics(0, &count);

	for (int i = 0; i < count; i++)
		replica_take_checkpoints(topics[i], "EXISTS (SELECT FROM pgtopic.replica r WHERE r.topic_id = p.topic_id"
								 " AND r.partition = p.partition AND r.state = '" REPLICA_READY "')");
}
