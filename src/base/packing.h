/*-------------------------------------------------------------------------
 *
 * packing.h
 *	  How many messages go into one row of storage.
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PACKING_H
#define PGTOPIC_PACKING_H

#include "c.h"

/*
 * The columns of a record batch that some message of the call has.  A column
 * that none has is NULL in every row and costs nothing.
 */
typedef struct PackColumns
{
	bool		keys;
	bool		headers;
	bool		timestamps;
} PackColumns;

/* The payload bytes of one message; -1 where it has none (NULL). */
typedef struct PackSizes
{
	int64		key;
	int64		value;
	int64		headers;
} PackSizes;

/* What is in the row that is being filled. */
typedef struct Packing
{
	PackColumns columns;
	int			messages;
	int64		bytes;			/* array elements, without headers */
} Packing;

/*
 * The largest heap tuple that fits a page of 8 kB and is not toasted, given
 * toast_tuple_target = 8160 (MaxHeapTupleSize in htup_details.h; a unit test
 * with the server's headers compares).
 */
#define PACK_TUPLE_MAX		8160

extern void packing_start(Packing *packing, PackColumns columns);

/*
 * Adds a message to the row and returns true, or returns false if the row has
 * messages already and would no longer fit a page with this one.  A message
 * that is too large for any page gets a row of its own.
 */
extern bool packing_add(Packing *packing, PackSizes sizes);

#endif							/* PGTOPIC_PACKING_H */
