/*-------------------------------------------------------------------------
 *
 * placement.c
 *	  Which brokers get the replicas of a new topic's partitions.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/placement.h"

void
place_replicas(const int32 *brokers, int count, int factor,
			   uint32 start, uint32 shift, int partition, int32 *replicas)
{
	int			first = (start % count + partition % count) % count;
	int			round = partition / count;

	replicas[0] = brokers[first];
	for (int i = 1; i < factor; i++)
	{
		/* distances from 1 on, all different: factor - 1 of count - 1 */
		int			others = count - 1;
		int			distance = 1 + (shift % others + round % others + i - 1) % others;

		replicas[i] = brokers[(first + distance) % count];
	}
}
