/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  All that differs between PostgreSQL 15, 16, 17 and 18, written to the
 *	  newest signatures.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_COMPAT_H
#define PGTOPIC_COMPAT_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "commands/vacuum.h"
#include "executor/executor.h"
#include "replication/message.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

/* 16: no longer a part of postgres.h */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 18: what extensions say in EXPLAIN has headers of its own */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

#if PG_VERSION_NUM < 150000
#error "pgtopic needs PostgreSQL 15 or later"
#endif

/* 16: the rights of all kinds of objects are asked for by one function */
#if PG_VERSION_NUM < 160000
#define compat_namespace_aclcheck(oid, role, mode) \
	pg_namespace_aclcheck(oid, role, mode)
#define compat_database_ownercheck(oid, role) \
	pg_database_ownercheck(oid, role)
#else
#define compat_namespace_aclcheck(oid, role, mode) \
	object_aclcheck(NamespaceRelationId, oid, role, mode)
#define compat_database_ownercheck(oid, role) \
	object_ownercheck(DatabaseRelationId, oid, role)
#endif

/* 16: summarizing indexes (BRIN) are told apart */
#if PG_VERSION_NUM < 160000
typedef bool CompatUpdateIndexes;
#define compat_needs_index_update(u)	(u)
#define compat_insert_index_tuples(rri, slot, estate, update, u) \
	ExecInsertIndexTuples(rri, slot, estate, update, false, NULL, NIL)
#else
typedef TU_UpdateIndexes CompatUpdateIndexes;
#define compat_needs_index_update(u)	((u) != TU_None)
#define compat_insert_index_tuples(rri, slot, estate, update, u) \
	ExecInsertIndexTuples(rri, slot, estate, update, false, NULL, NIL, \
						  (update) && (u) == TU_Summarizing)
#endif

/* 18: index scans can be instrumented */
#if PG_VERSION_NUM < 180000
#define compat_index_beginscan(heap, index, snapshot, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, nkeys, norderbys)
#else
#define compat_index_beginscan(heap, index, snapshot, nkeys, norderbys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, norderbys)
#endif

/* 18: generated columns can be virtual, and are not in stored rows then; see rewriteHandler.h */
#if PG_VERSION_NUM < 180000
#define compat_has_virtual_columns(desc)	((void) (desc), false)
#define compat_is_virtual(attribute)		((void) (attribute), false)
#define compat_generation_expression(relation, attnum) \
	build_column_default(relation, attnum)
#else
#define compat_has_virtual_columns(desc) \
	((desc)->constr != NULL && (desc)->constr->has_generated_virtual)
#define compat_is_virtual(attribute) \
	((attribute)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#define compat_generation_expression(relation, attnum) \
	(compat_is_virtual(TupleDescAttr(RelationGetDescr(relation), (attnum) - 1)) ? \
	 build_generation_expression(relation, attnum) : build_column_default(relation, attnum))
#endif

/* 17: extensions can name their wait events */
#if PG_VERSION_NUM < 170000
#define compat_wait_event(name)		((void) (name), PG_WAIT_EXTENSION)
#else
#define compat_wait_event(name)		WaitEventExtensionNew(name)
#endif

/* 17: the virtual transaction id is a struct of its own */
#if PG_VERSION_NUM < 170000
#define compat_local_xid()			(MyProc->lxid)
#else
#define compat_local_xid()			(MyProc->vxid.lxid)
#endif

/* 17: the number of a backend's PGPROC has a variable of its own */
#if PG_VERSION_NUM < 170000
#define compat_proc_number()		(MyProc->pgprocno)
#else
#define compat_proc_number()		(MyProcNumber)
#endif

/* 16: a replication slot tells why it was invalidated */
#if PG_VERSION_NUM < 160000
#define compat_slot_is_invalidated(persistent) \
	(XLogRecPtrIsInvalid((persistent)->restart_lsn) && \
	 !XLogRecPtrIsInvalid((persistent)->invalidated_at))
#else
#define compat_slot_is_invalidated(persistent) \
	((persistent)->invalidated != RS_INVAL_NONE)
#endif

/* 17: a logical slot can be synchronised to standbys */
#if PG_VERSION_NUM < 170000
#define compat_create_logical_slot(name) \
	((void) OidFunctionCall4(F_PG_CREATE_LOGICAL_REPLICATION_SLOT, \
							 DirectFunctionCall1(namein, CStringGetDatum(name)), \
							 DirectFunctionCall1(namein, CStringGetDatum("pgoutput")), \
							 BoolGetDatum(false), BoolGetDatum(false)))
#else
#define compat_create_logical_slot(name) \
	((void) OidFunctionCall5(F_PG_CREATE_LOGICAL_REPLICATION_SLOT, \
							 DirectFunctionCall1(namein, CStringGetDatum(name)), \
							 DirectFunctionCall1(namein, CStringGetDatum("pgoutput")), \
							 BoolGetDatum(false), BoolGetDatum(false), BoolGetDatum(false)))
#endif

/* 17: logical messages can be flushed at once */
#if PG_VERSION_NUM < 170000
#define compat_log_logical_message(prefix)	LogLogicalMessage(prefix, "", 0, false)
#else
#define compat_log_logical_message(prefix)	LogLogicalMessage(prefix, "", 0, false, false)
#endif

/* 17: sets of events belong to a resource owner */
#if PG_VERSION_NUM < 170000
#define compat_create_wait_event_set(count)	CreateWaitEventSet(CurrentMemoryContext, count)
#else
#define compat_create_wait_event_set(count)	CreateWaitEventSet(CurrentResourceOwner, count)
#endif

/* 16: which outer joins make it NULL is in the expression */
#if PG_VERSION_NUM < 160000
#define compat_build_expression_pathkey(root, expr, operator, relids) \
	build_expression_pathkey(root, expr, NULL, operator, relids, false)
#else
#define compat_build_expression_pathkey(root, expr, operator, relids) \
	build_expression_pathkey(root, expr, operator, relids, false)
#endif

/* 17: conditions that a path has pushed down; 18: what costs settings have disabled */
#if PG_VERSION_NUM < 170000
#define compat_create_foreignscan_path(root, rel, rows, startup, total, pathkeys, outer, private) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, pathkeys, outer, NULL, private)
#elif PG_VERSION_NUM < 180000
#define compat_create_foreignscan_path(root, rel, rows, startup, total, pathkeys, outer, private) \
	create_foreignscan_path(root, rel, NULL, rows, startup, total, pathkeys, outer, NULL, NIL, private)
#else
#define compat_create_foreignscan_path(root, rel, rows, startup, total, pathkeys, outer, private) \
	create_foreignscan_path(root, rel, NULL, rows, 0, startup, total, pathkeys, outer, NULL, NIL, private)
#endif

/* 18: the point where VACUUM and ANALYZE are delayed is told which of them it is */
#if PG_VERSION_NUM < 180000
#define compat_analyze_delay_point()	vacuum_delay_point()
#else
#define compat_analyze_delay_point()	vacuum_delay_point(true)
#endif

/*
 * Before 15.13, 16.9 and 17.5, what is written while a publication gets a table may not be
 * replicated, and neither what follows; 15.14, 16.10 and 17.6 keep decoding from running
 * out of memory by the remedy.
 */
#if PG_VERSION_NUM < 160000
#define COMPAT_CLUSTER_VERSION		150014
#elif PG_VERSION_NUM < 170000
#define COMPAT_CLUSTER_VERSION		160010
#elif PG_VERSION_NUM < 180000
#define COMPAT_CLUSTER_VERSION		170006
#else
#define COMPAT_CLUSTER_VERSION		180000
#endif

/* 18: functions that do not return say so in front */
#if PG_VERSION_NUM < 180000
#define pg_noreturn					__attribute__((noreturn))
#endif

#endif							/* PGTOPIC_COMPAT_H */
