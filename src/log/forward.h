/*-------------------------------------------------------------------------
 *
 * forward.h
 *	  Calls that another broker, the leader of a partition, answers.
 *
 * The caller has checked rights.  What the peers' functions promise is said in
 * sql/peer_calls.c, and what their transactions do in peer/transaction.h.
 *
 * Leaders change.  A peer that does not lead a partition (any more, or yet) says so
 * (57P03); the catalog is then looked at again, for a while.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_FORWARD_H
#define PGTOPIC_FORWARD_H

#include "postgres.h"

#include "base/offsets.h"
#include "base/seek.h"
#include "catalog/topics.h"
#include "log/consume.h"
#include "log/leaders.h"
#include "log/producers.h"
#include "log/read.h"
#include "log/waiting.h"
#include "peer/conversation.h"

/* What is tried again while leaders change; zero at first. */
typedef struct Attempt
{
	TimestampTz since;			/* of the first failure */
} Attempt;

/* --- produce --- */

/*
 * Sends messages for one partition to its leader.  The caller has opened a
 * transaction there (peer_begin(), and what that returned is opened), and ends what
 * it has sent with peer_sync().  forward_produced() receives the answer to what was
 * sent first: false if all that was sent to this peer is to be sent again, perhaps
 * elsewhere, since nothing of it has been done.
 */
typedef struct ProduceArrays
{
	Datum		values;			/* bytea[] */
	Datum		keys;			/* bytea[] or 0 */
	Datum		headers;		/* jsonb[] or 0 */
	Datum		timestamps;		/* timestamptz[] or 0 */
	TimestampTz timestamp;
	const Producer *producer;	/* or NULL */
} ProduceArrays;

/*
 * The connection to a leader.  NULL if it cannot be had now, after a pause: then it, or
 * another leader, is to be tried again; an error (08001) when that has gone on for
 * leader_wait_ms().
 */
extern Peer *forward_open(int32 broker, Attempt *attempt);

extern void forward_produce(Peer *peer, int32 topic, int32 partition, const ProduceArrays *arrays);
extern bool forward_produced(Peer *peer, bool opened, int64 *first_offset, Attempt *attempt);

/* --- read --- */

/*
 * fetch_messages() at the leader, which waits for a while at most: 0 if nothing has
 * come in that time.  -1 if it is to be asked for again, perhaps elsewhere.
 */
extern int64 forward_fetch(int32 broker, int32 topic, int32 partition, int64 from, int64 max,
						   const Deadline *deadline, MessageSink sink, void *arg,
						   Attempt *attempt);

/*
 * A piece of a partition, as a query reads it (log/select.h): how many messages, 0 if
 * there are none left.  -1 if it is to be asked for again, perhaps elsewhere.
 */
extern int64 forward_select(int32 broker, int32 topic, int32 partition, OffsetRange range,
							TimestampTz since, bool backward, int64 max,
							MessageSink sink, void *arg, Attempt *attempt);

/*
 * consume() from the partitions that a broker leads.  If it cannot be
 * reached, returns 0 and fills failure.
 */
extern int64 forward_consume(int32 broker, int32 topic, const char *group, int64 max, bool last,
							 MessageSink sink, void *arg, PeerFailure *failure);

/*
 * Has a broker wait until a group may have something to consume there, for some
 * milliseconds; NULL, and failure is filled, if it cannot be reached.  When
 * peer_wait_is_over(), forward_waited() tells whether there is something, or that the
 * connection is lost.
 */
extern Peer *forward_wait(int32 broker, int32 topic, const char *group, int64 milliseconds,
						  PeerFailure *failure);
extern bool forward_waited(Peer *peer, bool *lost);

/*
 * Fills offsets (of all partitions of the topic) of those in the place; false if they
 * are to be asked for again, perhaps elsewhere.
 */
extern bool forward_offsets_at(const Place *place, int32 topic, TimestampTz timestamp,
							   int64 *offsets, Attempt *attempt);

/* --- groups, and the rest; see consume.h and topic_ddl.h --- */

/*
 * These return false if the broker is not the leader, nothing has been done there,
 * and another attempt is to be made.  may_retry: nothing has been done anywhere.
 */
extern bool forward_group_create(const Place *place, int32 topic, const char *group, Seek seek,
								 TimestampTz timestamp, bool may_retry, Attempt *attempt);
extern bool forward_group_reset(const Place *place, int32 topic, const char *group, Seek seek,
								TimestampTz timestamp, bool dry_run, ResetOffset *results,
								bool may_retry, Attempt *attempt);
extern bool forward_group_drop(const Place *place, int32 topic, const char *group, bool *found,
							   bool may_retry, Attempt *attempt);
extern bool forward_group_commit(int32 broker, int32 topic, int32 partition, const char *group,
								 int64 offset, Attempt *attempt);
extern bool forward_delete_messages(int32 broker, int32 topic, int32 partition,
									int64 before_offset, int64 *start, Attempt *attempt);

#endif							/* PGTOPIC_FORWARD_H */
