/*-------------------------------------------------------------------------
 *
 * epochs.c
 *	  Where the leaders of a partition have begun.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "storage/epochs.h"
#include "storage/partition_state.h"
#include "storage/positions.h"

void
epoch_begin(LogPartition *partition, int32 epoch)
{
	position_store(partition, psprintf(POSITION_EPOCH "%d", epoch), partition_stored_end(partition));
}

typedef struct Search
{
	int32		after;
	int32		newest;
	int64		agreed;
} Search;

static void
look_at_position(void *arg, int32 partition, Datum group, int64 offset, TimestampTz committed_at)
{
	Search	   *search = arg;
	char	   *name = TextDatumGetCString(group);

	if (name[0] == POSITION_EPOCH[0])
	{
		int32		epoch = pg_strtoint32(name + 1);

		search->newest = Max(search->newest, epoch);
		if (epoch > search->after)
			search->agreed = Min(search->agreed, offset);
	}
	pfree(name);
}

static Search
search_epochs(LogPartition *partition, int32 after)
{
	Search		search = {after, 0, PG_INT64_MAX};

	positions_each_reserved(partition, look_at_position, &search);
	return search;
}

int32
epoch_newest(LogPartition *partition)
{
	return search_epochs(partition, 0).newest;
}

int64
epoch_agreed(LogPartition *partition, int32 after)
{
	return search_epochs(partition, after).agreed;
}
