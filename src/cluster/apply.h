/*-------------------------------------------------------------------------
 *
 * apply.h
 *	  Making this broker's catalog and storage what the committed metadata says.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_APPLY_H
#define PGTOPIC_APPLY_H

#include "postgres.h"

#include "base/image.h"

/*
 * Applies an image, in transactions of its own: whoever calls is in none.  What is
 * there already is left alone, so an error in between does no harm: it is called
 * again.  The replication worker alone does this.
 *
 * Order: a partition's row says who leads before its slot is told, so that a slot
 * that is filled anew is filled right; and this broker stops giving out offsets
 * of what it does not lead any more before it says that it has applied.
 */
extern void apply_image(const Image *image, int32 self, int64 version);

/* What processes tell each other of applied metadata is not known after a restart. */
extern void apply_after_restart(void);

/*
 * The image that this database's catalog is, for create_cluster(): one broker that
 * has everything.  Needs a transaction, as the extension's owner, connected to SPI.
 */
extern Image *image_from_catalog(const char *cluster_id, const char *conninfo);

/*
 * Has the slots of all partitions that this broker leads know their followers and
 * whether they are closed, from the catalog.  Needs a transaction.
 */
extern void apply_to_slots(int32 topic);

/* Drops all topics, in the caller's transaction: this database has left its cluster. */
extern void apply_no_topics(void);

#endif							/* PGTOPIC_APPLY_H */
