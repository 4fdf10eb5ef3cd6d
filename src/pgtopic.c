/*-------------------------------------------------------------------------
 *
 * pgtopic.c
 *	  Loading the library.
 *
 * With shared_preload_libraries, everything is set up.  A backend that loads it
 * later, since a function is called on a server that has not preloaded it, gets
 * the functions alone; those that need shared memory say so
 * (extension_require_preload()).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "base/settings.h"
#include "peer/transaction.h"
#include "shmem/applying.h"
#include "shmem/cluster_state.h"
#include "shmem/databases.h"
#include "shmem/followers.h"
#include "shmem/slots.h"
#include "worker/workers.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
shmem_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(slots_shmem_size());
	RequestAddinShmemSpace(followers_shmem_size());
	RequestAddinShmemSpace(databases_shmem_size());
	RequestAddinShmemSpace(cluster_state_shmem_size());
	RequestAddinShmemSpace(applying_shmem_size());
}

static void
shmem_startup(void)
{
	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	slots_shmem_init();
	followers_shmem_init();
	databases_shmem_init();
	cluster_state_shmem_init();
	applying_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	settings_define();
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	/* before those of the slots */
	peer_register_callbacks();
	slots_register_callbacks();
	databases_register_callbacks();
	applying_register_callbacks();
	database_commands_hook_install();
	launcher_register();
}
