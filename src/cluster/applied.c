/*-------------------------------------------------------------------------
 *
 * applied.c
 *	  What a follower does with each batch that replication brings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "catalog/topics.h"
#include "cluster/applied.h"
#include "storage/batches.h"
#include "storage/partition_state.h"
#include "storage/positions.h"

static TriggerData *
check_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger before each row")));
	return trigger;
}

/* The partition by the name of one of its tables; NULL if it is not there. */
static LogPartition *
partition_by_table(const char *name)
{
	int32		topic_id;
	int			number;
	Topic	   *topic;

	if (sscanf(name, "t%d_p%d_", &topic_id, &number) != 2)
		return NULL;
	topic = topic_find(topic_id);
	return topic != NULL && number < topic->partitions_count ? &topic->partitions[number] : NULL;
}

Datum
applied_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = check_trigger(fcinfo);
	LogPartition *partition = partition_by_table(RelationGetRelationName(trigger->tg_relation));
	bool		isnull;

	if (partition != NULL)
		partition_ensure_segments(partition,
								  DatumGetInt64(heap_getattr(trigger->tg_trigtuple, BATCH_LAST_OFFSET,
															 RelationGetDescr(trigger->tg_relation), &isnull)));
	return PointerGetDatum(trigger->tg_trigtuple);
}

Datum
applied_position_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = check_trigger(fcinfo);
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	HeapTuple	tuple = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	bool		isnull;
	Datum		group = heap_getattr(tuple, POSITION_GROUP, desc, &isnull);

	if (VARSIZE_ANY_EXHDR(DatumGetPointer(group)) == strlen(POSITION_SEGMENTS_END) &&
		memcmp(VARDATA_ANY(DatumGetPointer(group)), POSITION_SEGMENTS_END, strlen(POSITION_SEGMENTS_END)) == 0)
	{
		LogPartition *partition = partition_by_table(RelationGetRelationName(trigger->tg_relation));
		int64		end = DatumGetInt64(heap_getattr(tuple, POSITION_OFFSET, desc, &isnull));

		if (partition != NULL)
			partition_ensure_segments(partition, end - partition->topic->segment_messages);
	}
	return PointerGetDatum(tuple);
}
