/*-------------------------------------------------------------------------
 *
 * topic_changes.h
 *	  Making, changing and dropping topics in a cluster: through the controller.
 *
 * Rights and options have been checked by topic_ddl.c.  All take effect at once, on
 * all brokers, are not undone by a rollback, and so refuse to run in a transaction
 * block.  They return when this broker has applied the change.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_TOPIC_CHANGES_H
#define PGTOPIC_TOPIC_CHANGES_H

#include "postgres.h"

#include "log/topic_ddl.h"

extern int32 topic_change_create(const char *name, const TopicOptions *options);

/* column = value, both as SQL; "DEFAULT" resets it. */
extern void topic_change_alter(int32 topic, const char *option, const char *value);
extern void topic_change_add_partitions(int32 topic, int32 total);
extern void topic_change_drop(int32 topic);

#endif							/* PGTOPIC_TOPIC_CHANGES_H */
