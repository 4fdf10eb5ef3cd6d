/*-------------------------------------------------------------------------
 *
 * seek.h
 *	  Where reset_offsets() and create_consumer_group() are told to go.
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_SEEK_H
#define PGTOPIC_SEEK_H

#include "c.h"

typedef enum SeekKind
{
	SEEK_EARLIEST,
	SEEK_LATEST,
	SEEK_OFFSET,				/* "42" */
	SEEK_RELATIVE,				/* "+10", "-10" */
	SEEK_OTHER					/* nothing of these: perhaps a timestamp */
} SeekKind;

typedef struct Seek
{
	SeekKind	kind;
	int64		number;			/* of SEEK_OFFSET and SEEK_RELATIVE */
} Seek;

/* Reads a position; numbers beyond int64 are clamped to its bounds. */
extern Seek seek_parse(const char *text);

/*
 * The offset that a seek of any kind but SEEK_OTHER leads to, from the current
 * position, within [log_start, log_end].
 */
extern int64 seek_target(Seek seek, int64 current, int64 log_start, int64 log_end);

#endif							/* PGTOPIC_SEEK_H */
