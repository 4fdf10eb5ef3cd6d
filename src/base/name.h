/*-------------------------------------------------------------------------
 *
 * name.h
 *	  What a topic may be called, and the text form of a topic partition.
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_NAME_H
#define PGTOPIC_NAME_H

#include "c.h"

/* A topic's name is the name of a relation too, so NAMEDATALEN - 1 bounds it. */
#define TOPIC_NAME_MAX		63

/*
 * Says what is wrong with a topic name, as a sentence for an error detail, or
 * returns NULL if the name is good.
 */
extern const char *topic_name_problem(const char *name);

/*
 * Splits "orders-3" at its last hyphen.  Returns the length of the name part
 * and sets *partition, or returns -1 if the text has no such form.
 */
extern int	topic_partition_split(const char *text, int32 *partition);

/*
 * Reads "#17", the text form of a topic that does not exist any more.  Returns
 * false if the text is not of that form.  Ids are written without a sign, like
 * OIDs, so that any four bytes can be written and read.
 */
extern bool topic_id_text(const char *text, uint32 *id);

#endif							/* PGTOPIC_NAME_H */
