/*
 * shim.h
 *		What a server's shim reads from the file that PGT_SHIM names: see shim.c.
 */
#ifndef SHIM_H
#define SHIM_H

#include <stdint.h>

typedef struct ShimControl
{
	int64_t		sync_delay;		/* µs that each flush to the disk takes */
	int64_t		clock_offset;	/* µs by which the clock is ahead */
} ShimControl;

#endif							/* SHIM_H */
