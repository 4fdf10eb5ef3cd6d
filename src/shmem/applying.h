/*-------------------------------------------------------------------------
 *
 * applying.h
 *	  What apply workers of our subscriptions have committed, and the flush worker
 *	  is to make durable.
 *
 * An apply worker that waits for the disk at each commit applies a few thousand
 * transactions a second, however small.  So its commits are asynchronous, and a
 * worker flushes them, all that have come meanwhile at once, and then wakes it, so
 * that it confirms them to the leader.  PostgreSQL has it confirm nothing that has
 * not been flushed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_APPLYING_H
#define PGTOPIC_APPLYING_H

#include "postgres.h"

extern Size applying_shmem_size(void);
extern void applying_shmem_init(void);

/* Registers the callback by which apply workers tell.  Once a process. */
extern void applying_register_callbacks(void);

/*
 * Flushes all that can be seen now.  For whoever is about to rely on what has been
 * applied but is not confirmed yet.
 */
extern void applying_flush(void);

/* --- for the flush worker --- */

/*
 * Flushes what apply workers of this database have committed, and wakes them.
 * Returns false if there was nothing.
 */
extern bool applying_flush_and_wake(void);

/* The worker (no longer) sleeps until something is committed. */
extern void applying_flush_sleeps(bool sleeps);

#endif							/* PGTOPIC_APPLYING_H */
