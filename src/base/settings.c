/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings (GUCs) of pgtopic.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "base/settings.h"

static const struct config_enum_entry acks_options[] = {
	{"all", ACKS_ALL, false},
	{"leader", ACKS_LEADER, false},
	{NULL, 0, false}
};

int			pgtopic_acks = ACKS_ALL;
int			pgtopic_max_partitions;
int			pgtopic_max_open_appends;
int			pgtopic_max_databases;
int			pgtopic_retention_check_interval;
int			pgtopic_producer_expiration;
int			pgtopic_checkpoint_interval;
int			pgtopic_segment_wait_timeout;
int			pgtopic_broker_session_timeout;
int			pgtopic_replica_lag_time_max;
int			pgtopic_handover_timeout;
int			pgtopic_leader_rebalance_interval;
int			pgtopic_follower_wal_keep_size;

void
settings_define(void)
{
	DefineCustomIntVariable("pgtopic.max_partitions",
							"Sets how many partitions of all databases can be in use at once.",
							"Each takes a slot of shared memory (about 200 bytes). The slot of a partition "
							"that no open transaction has written to is reused when slots run out, "
							"as soon as its watermark is stored (pgtopic.checkpoint_interval).",
							&pgtopic_max_partitions,
							16384, 8, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.max_open_appends",
							"Sets how many partitions all open transactions together can have written to.",
							"A transaction counts once for each partition that it has produced to, "
							"and does so after its commit until the in-sync replicas have confirmed it.",
							&pgtopic_max_open_appends,
							16384, 8, 10000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.max_databases",
							"Sets how many databases of this server can have a pgtopic maintenance worker.",
							"Each worker also needs one of max_worker_processes.",
							&pgtopic_max_databases,
							64, 1, 10000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.retention_check_interval",
							"Sets how often expired messages are looked for.",
							NULL,
							&pgtopic_retention_check_interval,
							60 * 1000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.producer_expiration",
							"Sets how long a partition remembers a producer that numbers its messages.",
							"It counts from the last message or retry, and is looked at with the retention "
							"of messages. -1 remembers for ever.",
							&pgtopic_producer_expiration,
							7 * 24 * 60 * 60, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.checkpoint_interval",
							"Sets how often the high watermarks of partitions are stored.",
							"Readers on a standby see a message that comes after a gap in the offsets "
							"only when this has passed.",
							&pgtopic_checkpoint_interval,
							1000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.segment_wait_timeout",
							"Sets how long a producer waits for the maintenance worker to make a segment.",
							"The time starts anew whenever the worker has made one.",
							&pgtopic_segment_wait_timeout,
							30 * 1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomEnumVariable("pgtopic.acks",
							 "Sets which replicas a commit of what was produced or consumed waits for.",
							 "With \"all\", all in-sync replicas of the partitions, where there are others than "
							 "the leader. With \"leader\", the leader alone.",
							 &pgtopic_acks,
							 ACKS_ALL, acks_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.broker_session_timeout",
							"Sets how long a broker may be silent before the others count it as gone.",
							"Then other in-sync replicas lead what it led. A broker that hears from no "
							"controller for half of this long begins to elect another one, and for all of it "
							"takes no messages for partitions with replicas. Set the same on all brokers.",
							&pgtopic_broker_session_timeout,
							5000, 200, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.replica_lag_time_max",
							"Sets how long a follower may be behind before it is not in sync any more.",
							"Until then producers that ask for all acknowledgements wait for it.",
							&pgtopic_replica_lag_time_max,
							10 * 1000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.handover_timeout",
							"Sets how long a leader that is to hand over waits for open transactions.",
							"If they have not ended by then, it goes on leading.",
							&pgtopic_handover_timeout,
							10 * 1000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.leader_rebalance_interval",
							"Sets how often partitions are given back to their preferred leaders.",
							"The controller has other leaders hand over to preferred ones that are in sync. "
							"-1: only elect_leader() does.",
							&pgtopic_leader_rebalance_interval,
							5 * 60 * 1000, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomIntVariable("pgtopic.follower_wal_keep_size",
							"Sets how much WAL is kept for a follower that is not in sync.",
							"When it needs more, its replication slot is dropped, and it copies what it "
							"misses when it is back. -1 keeps without limit.",
							&pgtopic_follower_wal_keep_size,
							4096, -1, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);

	MarkGUCPrefixReserved("pgtopic");
}

int
settings_election_timeout(void)
{
	return pgtopic_broker_session_timeout / 2;
}
