/*-------------------------------------------------------------------------
 *
 * applied.c
 *	  What a follower does with each batch that replication brings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "access/htup_details.h"
#include "utils/rel.h"

#include "catalog/topics.h"
#include "cluster/applied.h"
#include "storage/batches.h"
#include "storage/partition_state.h"

Datum
applied_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Relation	segment;
	TupleDesc	desc;
	bool		isnull;
	int64		last_offset;
	int			number;
	int32		topic_id;
	int64		first;
	Topic	   *topic;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("applied() can only be called as a trigger")));

	/* the row has been routed to its segment: t7_p3_s1000000 */
	segment = trigger->tg_relation;
	desc = RelationGetDescr(segment);
	if (sscanf(RelationGetRelationName(segment), "t%d_p%d_s" INT64_FORMAT, &topic_id, &number, &first) == 3 &&
		(topic = topic_find(topic_id)) != NULL && number < topic->partitions_count)
	{
		last_offset = DatumGetInt64(heap_getattr(trigger->tg_trigtuple, BATCH_LAST_OFFSET, desc, &isnull));
		partition_ensure_segments(&topic->partitions[number], last_offset);
	}
	return PointerGetDatum(trigger->tg_trigtuple);
}
