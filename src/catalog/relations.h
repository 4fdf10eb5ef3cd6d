/*-------------------------------------------------------------------------
 *
 * relations.h
 *	  The foreign tables that topics are to SQL, and the rights on them.
 *
 * The relation of a topic is the foreign table topics.<name> of server pgtopic with
 * the option topic_id.  It need not be there: the extension may not be updated yet, or
 * a broker of a cluster could not make it.  Then the owner of the topic's root table is
 * its owner, and nobody else has rights.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_RELATIONS_H
#define PGTOPIC_RELATIONS_H

#include "postgres.h"

#include "catalog/topics.h"

#define FDW_NAME		"pgtopic"
#define SERVER_NAME		"pgtopic"
#define OPTION_TOPIC	"topic_id"

/* Columns of a topic's relation. */
enum RelationColumn
{
	COLUMN_PARTITION = 1,
	COLUMN_LOG_OFFSET,
	COLUMN_TIMESTAMP,
	COLUMN_KEY,
	COLUMN_VALUE,
	COLUMN_HEADERS,
	RELATION_COLUMNS = COLUMN_HEADERS
};

/* Name and type of a column in a topic with that format. */
extern const char *relation_column_name(int column);
extern Oid	relation_column_type(int column, ValueFormat format);

/* The relation of a topic; InvalidOid if it is not there. */
extern Oid	relation_of_topic(int32 topic, const char *name);

/* The owner of any relation; InvalidOid if it is not there. */
extern Oid	relation_owner(Oid relation);

/* What is called topics.<name>, whatever it is; InvalidOid if nothing is. */
extern Oid	relation_by_name(const char *name);

/* The option topic_id of a foreign table of ours; 0 if it is none, or has none. */
extern int32 relation_topic_id(Oid relation);

/* Whether the server, and so the version of the extension that has relations, is there. */
extern bool relations_exist(void);

/*
 * The topic of a relation, locked as topic_lock() does if lock is set; an error if it
 * is none.
 */
extern Topic *topic_of_relation(Oid relation, bool lock);

/*
 * Rights.  Who may INSERT into the relation may produce; who may SELECT from it may
 * consume, fetch, and move positions onwards; its owner, and members of that role, may
 * change the topic.  For the former two, USAGE of schema topics is needed too.
 */
extern Oid	topic_owner(const Topic *topic);
extern bool topic_can_consume(const Topic *topic);
extern bool topic_can_see(const Topic *topic);	/* has any of these rights */
extern void topic_check_produce(const Topic *topic);
extern void topic_check_consume(const Topic *topic);
extern void topic_check_see(const Topic *topic);
extern void topic_check_owner(const Topic *topic);

#endif							/* PGTOPIC_RELATIONS_H */
