/*-------------------------------------------------------------------------
 *
 * extension.h
 *	  The extension's own objects in this database, and acting as their owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_EXTENSION_H
#define PGTOPIC_EXTENSION_H

#include "postgres.h"

/* The schema of the catalog and of the storage; that of the topics' relations. */
#define CATALOG_SCHEMA	"pgtopic"
#define TOPICS_SCHEMA	"topics"

/* Raises an error if the library was not loaded by shared_preload_libraries. */
extern void extension_require_preload(void);

/*
 * Raises an error where a call that writes is not possible: in a read-only
 * transaction, during recovery, in a parallel operation.
 */
extern void extension_require_writable(const char *call);

/* Whether this database has the extension.  Needs a transaction. */
extern bool extension_exists(void);

/* Schema pgtopic; raises an error if the extension is not there. */
extern Oid	extension_schema(void);

/* A relation of schema pgtopic by name; InvalidOid if there is none. */
extern Oid	extension_relation(const char *name);

/*
 * Between the two, this backend acts as the owner of the extension, with
 * search_path = pg_catalog, pg_temp and the server's defaults for new tables.  An error in between undoes it, as the
 * abort of the (sub)transaction restores both.  Use it for SQL on the catalog
 * and the storage alone, never around anything a user has written.
 */
typedef struct ExtensionOwner
{
	Oid			user;
	int			context;
	int			guc_level;
} ExtensionOwner;

extern void extension_owner_begin(ExtensionOwner *saved);
extern void extension_owner_end(ExtensionOwner *saved);

/*
 * Runs one SQL command within SPI_connect()ed code and checks that it did what
 * was expected of it: an SPI_OK_ code.  Everything in the command is qualified.
 * It sees the catalog as it is now, in every isolation level: the maintenance
 * worker's changes must not make a user's transaction fail.
 */
extern void extension_execute(int expected, const char *format,...) pg_attribute_printf(2, 3);

/*
 * The same with parameters, all of type text, NULL for NULL.  For what may hold
 * secrets: the text of a command shows in an error's context, parameters do not.
 */
extern void extension_execute_params(int expected, const char *sql, int nparams,
									 const char *const *params);

/*
 * Runs one SQL command in a script of the extension as if it came from outside of it: a
 * right that it grants is not taken for one that the extension comes with
 * (pg_init_privs), so dumps have it, and it goes with the role.
 */
extern void extension_execute_outside(const char *command);

#endif							/* PGTOPIC_EXTENSION_H */
