/*-------------------------------------------------------------------------
 *
 * sequences.h
 *	  What a partition remembers of a producer that numbers its messages, and what
 *	  that says of the next call: is it new, or has it been made before?
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SEQUENCES_H
#define PGTOPIC_SEQUENCES_H

#include "c.h"

/*
 * Calls that are remembered.  More than one, since a transaction whose COMMIT got no
 * answer may have made several, and is repeated as a whole.
 */
#define SEQUENCES_KEPT	16

/*
 * The last calls of a producer in a partition.  They follow one another without a
 * gap: each ends where the next one begins, and the last one at next.
 */
typedef struct Sequences
{
	int			count;			/* 0: nothing is known of the producer */
	int64		next;			/* the sequence that comes next */
	int64		firsts[SEQUENCES_KEPT]; /* the first sequence of each, ascending */
	int64		offsets[SEQUENCES_KEPT];	/* the offset that this one got */
} Sequences;

typedef enum SequenceVerdict
{
	SEQUENCE_NEW,				/* to be produced */
	SEQUENCE_REPEATED,			/* has been: the same first one, as many messages */
	SEQUENCE_GAP,				/* there is something missing before it */
	SEQUENCE_FORGOTTEN,			/* older than all that is remembered */
	SEQUENCE_DIFFERENT			/* partly, or as part of another call */
} SequenceVerdict;

/*
 * Judges a call of count messages that are numbered from sequence on; the sum of
 * the two fits an int64.  Sets *first_offset if it is a repeated one.
 */
extern SequenceVerdict sequences_judge(const Sequences *sequences, int64 sequence, int64 count,
									   int64 *first_offset);

/* The first and the last sequence of the call that one of those remembered belongs to. */
extern void sequences_call(const Sequences *sequences, int64 sequence, int64 *first, int64 *last);

/* Adds a call that is new, for the oldest one if there are enough. */
extern void sequences_add(Sequences *sequences, int64 sequence, int64 count, int64 first_offset);

/* The offset behind the last call's messages. */
extern int64 sequences_end_offset(const Sequences *sequences);

#endif							/* PGTOPIC_SEQUENCES_H */
