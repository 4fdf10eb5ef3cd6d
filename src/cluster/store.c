/*-------------------------------------------------------------------------
 *
 * store.c
 *	  What a broker has promised to the others: the row of pgtopic.cluster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/settings.h"
#include "catalog/cluster.h"
#include "catalog/extension.h"
#include "cluster/store.h"
#include "shmem/cluster_state.h"

/* How many session timeouts an election takes at most. */
#define FORGOTTEN_VOTE_TIMEOUTS	3

static int64
get_int64(int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									   column, &isnull));
}

static char *
get_text(int column, MemoryContext context)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

static bool
read_store(ClusterStore *store, bool lock)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	bool		found;

	memset(store, 0, sizeof(ClusterStore));
	if (!OidIsValid(extension_relation("cluster")))
		return false;
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT,
					  "SELECT cluster_id, self::pg_catalog.int8, term, voted_for::pg_catalog.int8,"
					  " image_term, image_version, committed_version, applied_version, image"
					  " FROM pgtopic.cluster%s", lock ? " FOR UPDATE" : "");
	found = SPI_processed == 1;
	if (found)
	{
		char	   *id = get_text(1, CurrentMemoryContext);

		strlcpy(store->cluster_id, id, sizeof(store->cluster_id));
		store->self = (int32) get_int64(2);
		store->durable.term = get_int64(3);
		store->durable.voted_for = (int32) get_int64(4);
		store->durable.image_term = get_int64(5);
		store->durable.image_version = get_int64(6);
		store->durable.committed_version = get_int64(7);
		store->applied_version = get_int64(8);
		store->image = get_text(9, context);
	}
	SPI_finish();
	extension_owner_end(&saved);
	return found;
}

bool
store_read(ClusterStore *store)
{
	return read_store(store, false);
}

bool
store_lock(ClusterStore *store)
{
	return read_store(store, true);
}

char *
store_committed_image(int64 *version)
{
	MemoryContext context = CurrentMemoryContext;
	ExtensionOwner saved;
	char	   *image = NULL;

	*version = 0;
	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT, "SELECT committed_image_version, committed_image FROM pgtopic.cluster");
	if (SPI_processed == 1)
	{
		*version = get_int64(1);
		image = get_text(2, context);
	}
	SPI_finish();
	extension_owner_end(&saved);
	return image;
}

void
store_write(const ClusterStore *store, const char *image)
{
	const QuorumDurable *durable = &store->durable;
	bool		committed = durable->committed_version == durable->image_version;
	StringInfoData sql;
	ExtensionOwner saved;

	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE pgtopic.cluster SET self = %d, term = " INT64_FORMAT ", voted_for = %d,"
					 " image_term = " INT64_FORMAT ", image_version = " INT64_FORMAT
					 ", committed_version = " INT64_FORMAT,
					 store->self, durable->term, durable->voted_for, durable->image_term,
					 durable->image_version, durable->committed_version);
	/* it has the conninfo of brokers in it */
	if (image)
		appendStringInfoString(&sql, ", image = $1");
	if (committed)
		appendStringInfo(&sql, ", committed_image = %s, committed_image_version = " INT64_FORMAT,
						 image ? "$1" : "image", durable->image_version);

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute_params(SPI_OK_UPDATE, sql.data, image ? 1 : 0, &image);
	SPI_finish();
	extension_owner_end(&saved);
}

void
store_create(const ClusterStore *store)
{
	const QuorumDurable *durable = &store->durable;
	ExtensionOwner saved;
	ClusterStore old;
	const char *params[2];

	if (read_store(&old, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is a broker of a cluster already"),
				 errhint("Use leave_cluster() first.")));
	extension_owner_begin(&saved);
	SPI_connect();
	params[0] = store->cluster_id;
	params[1] = store->image;
	extension_execute_params(SPI_OK_INSERT,
							 psprintf("INSERT INTO pgtopic.cluster (cluster_id, self, term, voted_for, image_term,"
									  " image_version, committed_version, applied_version, image, committed_image,"
									  " committed_image_version)"
									  " VALUES ($1, %d, " INT64_FORMAT ", %d, " INT64_FORMAT ", " INT64_FORMAT
									  ", " INT64_FORMAT ", " INT64_FORMAT ", $2, $2, " INT64_FORMAT ")",
									  store->self, durable->term, durable->voted_for, durable->image_term,
									  durable->image_version, durable->committed_version,
									  store->applied_version, durable->committed_version),
							 2, params);
	SPI_finish();
	extension_owner_end(&saved);
	cluster_invalidate();
}

void
store_set_applied(int64 version)
{
	ExtensionOwner saved;

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.cluster SET applied_version = " INT64_FORMAT, version);
	SPI_finish();
	extension_owner_end(&saved);
}

void
store_make_durable(void)
{
	/* of this server alone: it answers for itself */
	if (synchronous_commit != SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		(void) set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
}

/* A column that is an int of the row; 0 if there is none. */
static int32
read_number(const char *column)
{
	ExtensionOwner saved;
	bool		isnull;
	int32		number = 0;

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_SELECT, "SELECT %s FROM pgtopic.cluster", column);
	if (SPI_processed == 1)
		number = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	extension_owner_end(&saved);
	return number;
}

static void
write_number(const char *column, int32 number)
{
	ExtensionOwner saved;

	extension_owner_begin(&saved);
	SPI_connect();
	extension_execute(SPI_OK_UPDATE, "UPDATE pgtopic.cluster SET %s = %d", column, number);
	SPI_finish();
	extension_owner_end(&saved);
}

int32
store_first_number(void)
{
	return read_number("first_number");
}

void
store_set_first_number(int32 number)
{
	write_number("first_number", number);
}

int32
store_timeline(void)
{
	return read_number("timeline");
}

bool
store_may_forget_vote(void)
{
	ClusterState state;
	int32		timeline = store_timeline();

	if (timeline == 0 || timeline == (int32) GetWALInsertionTimeLine())
		return false;
	cluster_state_get(&state);
	return state.started_ms == 0 ||
		cluster_clock_ms() - state.started_ms < FORGOTTEN_VOTE_TIMEOUTS * (int64) pgtopic_broker_session_timeout;
}

void
store_set_timeline(int32 timeline)
{
	write_number("timeline", timeline);
}
