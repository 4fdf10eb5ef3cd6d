/*-------------------------------------------------------------------------
 *
 * relation.h
 *	  Making and dropping the foreign tables that topics are to SQL.
 *
 * All but the last run SQL; the caller is connected to SPI and acts as the extension's
 * owner (extension_owner_begin()).
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_RELATION_H
#define PGTOPIC_RELATION_H

#include "postgres.h"

#include "utils/relcache.h"

#include "catalog/rows.h"

/*
 * Makes the relation of a topic, for an owner, if it is not there.  What takes its name
 * may be the relation of a topic that was dropped, which goes if nobody is using it.  If
 * the name is taken otherwise, or it is there, that is an error with must, and is logged without: a
 * change of the metadata, or a dump that is being restored, must not fail by it.
 *
 * Where there cannot be one, the owner is noted at the topic's root table; where there
 * is, that is the extension's.
 */
extern void relation_make(int32 topic, const char *name, ValueFormat format, Oid owner,
						  bool must);

/*
 * Drops the relation of a topic, if it is there; and makes that of another topic, if it
 * was in its way.  An error if other objects depend on it, which relation_check_droppable()
 * raises without dropping anything.  relation_try_drop() drops it only if nobody uses it and
 * nothing depends on it; what stays is a foreign table that is no topic's.
 */
extern void relation_drop(int32 topic);
extern void relation_check_droppable(int32 topic);
extern void relation_try_drop(int32 topic);

/*
 * Makes the relation of a topic of a dump, or a database, of before version 0.4.0, where
 * the root table was its owner's; does nothing if it is there.  Returns it, or InvalidOid.
 * Unlike the others it sees to SPI and the extension's owner itself.
 */
extern Oid	relation_adopt(int32 topic);

/*
 * What an event trigger calls after a relation was altered: an error if it is that of a
 * topic, and no longer as that needs it.
 */
extern void relation_check(Oid relation);

/* The same of schemas, of the server, and of an extension that were altered. */
extern void relation_check_schemas(void);
extern void relation_check_server(void);
extern void relation_check_members(void);

/*
 * An error if a topic's relation has other columns, as it can have where event triggers
 * are turned off.  Who reads or writes its rows calls it first.
 */
extern void relation_check_columns(Relation relation, ValueFormat format);

#endif							/* PGTOPIC_RELATION_H */
