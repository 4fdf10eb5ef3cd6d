/*-------------------------------------------------------------------------
 *
 * producers.c
 *	  Producers that number their messages.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "log/producers.h"
#include "shmem/slots.h"
#include "storage/partition_state.h"
#include "storage/positions.h"

/* How many producers are forgotten in one transaction: each takes a lock. */
#define EXPIRE_AT_ONCE	64

void
producer_check(const Producer *producer)
{
	if (producer->name[0] == '\0' || strlen(producer->name) > PRODUCER_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a producer: \"%s\"", producer->name),
				 errdetail("It has 1 to %d bytes.", PRODUCER_NAME_MAX)));
	if (position_is_reserved(producer->name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a producer: \"%s\"", producer->name),
				 errdetail("It does not begin with a control character.")));
	if (producer->sequence < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sequence must not be negative: " INT64_FORMAT, producer->sequence)));
}

/*
 * A call that is neither new nor repeated.  These are errors of class 22, a wrong
 * argument, since trying again does not help: it is what a loop has to stop at that
 * tries again on 08..., 40..., 53... and 57....
 */
pg_noreturn static void
error_sequence(const LogPartition *partition, const Producer *producer, int64 count,
			   const Sequences *sequences, SequenceVerdict verdict)
{
	int64		first;
	int64		last;

	if (verdict == SEQUENCE_GAP)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("sequence " INT64_FORMAT " of producer \"%s\" leaves a gap in partition %d of topic \"%s\"",
						producer->sequence, producer->name, partition->number, partition->topic->name),
				 errdetail("The next sequence is " INT64_FORMAT ".", sequences->next),
				 errhint("What comes before it was not produced, or rolled back, or produced to another partition.")));
	if (verdict == SEQUENCE_FORGOTTEN)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("sequence " INT64_FORMAT " of producer \"%s\" is too old for partition %d of topic \"%s\"",
						producer->sequence, producer->name, partition->number, partition->topic->name),
				 errdetail("The next sequence is " INT64_FORMAT ". What is remembered begins with sequence " INT64_FORMAT ".",
						   sequences->next, sequences->firsts[0]),
				 errhint("Only the last %d calls are remembered: repeat a transaction before you go on. Producers that work at the same time need different names.",
						 SEQUENCES_KEPT)));
	sequences_call(sequences, producer->sequence, &first, &last);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("sequence " INT64_FORMAT " of producer \"%s\" does not repeat a call in partition %d of topic \"%s\"",
					producer->sequence, producer->name, partition->number, partition->topic->name),
			 errdetail("This call has the sequences " INT64_FORMAT " to " INT64_FORMAT "; " INT64_FORMAT " to " INT64_FORMAT " were produced by one call. The next sequence is " INT64_FORMAT ".",
					   producer->sequence, producer->sequence + count - 1, first, last, sequences->next),
			 errhint("A transaction that is repeated has to make the same calls, with as many messages each.")));
}

bool
producer_begin(LogPartition *partition, const Producer *producer, int64 count,
			   Sequences *sequences, int64 *first_offset)
{
	SequenceVerdict verdict;
	int			wanted;

	if (producer->sequence > PG_INT64_MAX - count)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("sequence " INT64_FORMAT " of producer \"%s\" is too large",
						producer->sequence, producer->name),
				 errdetail("The last one of the call must be less than " INT64_FORMAT ".", PG_INT64_MAX)));

	/*
	 * Who made the call first has it to the end of his transaction.  Then his row is
	 * there, or rolled back together with his messages.
	 */
	producer_lock(partition, producer->name);
	if (!producer_read(partition, producer->name, sequences))
		sequences->count = 0;
	verdict = sequences_judge(sequences, producer->sequence, count, first_offset);
	if (verdict == SEQUENCE_NEW)
		return false;
	/* the next leader may know more of this producer than we do */
	partition_check_not_cut_off(partition);
	if (verdict != SEQUENCE_REPEATED)
		error_sequence(partition, producer, count, sequences, verdict);

	/*
	 * The first call may have committed just now, and wait for in-sync replicas: its
	 * locks are gone then, so we see it.  To be told that it has happened must not be
	 * easier than to make it happen.  So a repeated call writes too, if only when it
	 * was made: its commit comes after the first one's in WAL, and waits until the
	 * replicas have confirmed that far, and so both.  It keeps the row from expiring
	 * besides.
	 */
	wanted = partition_check_insync(partition);
	producer_write(partition, producer->name, sequences);
	if (wanted > 0)
		slot_await_insync(&partition->slot, wanted);
	slots_forbid_prepare("produce()");
	return true;
}

void
producer_end(LogPartition *partition, const Producer *producer, int64 count,
			 Sequences *sequences, int64 first_offset)
{
	sequences_add(sequences, producer->sequence, count, first_offset);
	producer_write(partition, producer->name, sequences);
}

/* What is found to have expired, before anything is locked. */
typedef struct Expired
{
	TimestampTz before;
	char	   *names[EXPIRE_AT_ONCE];
	int			count;
	bool		more;
} Expired;

static void
sink_expired(void *arg, const char *name, const Sequences *sequences, TimestampTz at)
{
	Expired    *expired = arg;

	if (at >= expired->before)
		return;
	if (expired->count < EXPIRE_AT_ONCE)
		expired->names[expired->count++] = pstrdup(name);
	else
		expired->more = true;
}

bool
producers_expire(LogPartition *partition, TimestampTz before)
{
	Expired		expired = {before, {NULL}, 0, false};
	int			forgotten = 0;

	producers_each(partition, sink_expired, &expired);
	for (int i = 0; i < expired.count; i++)
		forgotten += producer_forget(partition, expired.names[i], before);
	/* those that are in use would be found again and again */
	return expired.more && forgotten > 0;
}
