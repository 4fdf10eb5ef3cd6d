/*-------------------------------------------------------------------------
 *
 * cluster.c
 *	  What the catalog says of the cluster that this database is a broker of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/inval.h"

#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "catalog/rows.h"

static bool self_valid = false;
static int32 self = 0;
static char id[CLUSTER_ID_LENGTH + 1];
static uint64 invalidations = 0;
static Oid	cluster_relation = InvalidOid;

static void
relcache_callback(Datum arg, Oid relid)
{
	if (OidIsValid(relid) && relid != cluster_relation && OidIsValid(cluster_relation))
		return;
	invalidations++;
	self_valid = false;
}

/* Reads the row of pgtopic.cluster if what is known of it is old. */
static void
refresh(void)
{
	static bool registered = false;
	uint64		before;
	ClusterRow	row;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
		registered = true;
	}
	if (self_valid)
		return;

	/* what changes from here on is not in what we read: look again next time */
	before = invalidations;
	cluster_relation = extension_relation("cluster");
	self = 0;
	id[0] = '\0';
	if (cluster_row_read(&row))
	{
		self = row.self;
		strlcpy(id, row.cluster_id, sizeof(id));
	}
	self_valid = invalidations == before;
}

int32
cluster_self(void)
{
	refresh();
	return self;
}

const char *
cluster_id(void)
{
	refresh();
	return id;
}

void
follower_slot_name(const char *cluster, int32 leader, int32 follower, char *buffer)
{
	snprintf(buffer, NAMEDATALEN, "pgtopic_%s_%d_%d", cluster, leader, follower);
}

bool
partition_is_led_here(const LogPartition *partition)
{
	return partition->leader == 0 || partition->leader == cluster_self();
}

char *
broker_conninfo(int32 broker)
{
	char	   *conninfo = broker_row_conninfo(broker);

	if (conninfo == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("broker %d does not exist", broker)));
	return conninfo;
}

void
cluster_invalidate(void)
{
	Oid			relation = extension_relation("cluster");

	if (OidIsValid(relation))
		CacheInvalidateRelcacheByRelid(relation);
}
