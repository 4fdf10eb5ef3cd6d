/*-------------------------------------------------------------------------
 *
 * epochs.h
 *	  Where the leaders of a partition have begun: the offset that the first message
 *	  of each leader epoch could get.
 *
 * What replicas have below a stored watermark is the same, with one exception: offsets
 * that were handed out and rolled back at the old leader count as settled there, and
 * its followers need not know of them.  A new leader may give these to messages of its
 * own.  So a copy is right only below where each leader since then has begun.
 *
 * An epoch's start is a reserved position of the partition, and so goes where the
 * positions go.  A leader stores it before it is one, that is before anybody can write
 * there or copy from it; so where it is missing, nobody has done anything in that epoch.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_EPOCHS_H
#define PGTOPIC_EPOCHS_H

#include "postgres.h"

#include "catalog/topics.h"

/*
 * Stores that an epoch begins behind all that this broker has.  In a transaction, with
 * a snapshot; before the catalog says that it leads, and when nothing arrives any more.
 */
extern void epoch_begin(LogPartition *partition, int32 epoch);

/* The newest epoch that this broker's copy is of, as far as it is known; 0 if not. */
extern int32 epoch_newest(LogPartition *partition);

/* The least start of the epochs after this one; PG_INT64_MAX if there is none. */
extern int64 epoch_agreed(LogPartition *partition, int32 after);

#endif							/* PGTOPIC_EPOCHS_H */
