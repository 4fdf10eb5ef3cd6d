/*-------------------------------------------------------------------------
 *
 * change.h
 *	  Changing the metadata of the cluster: from any broker, through the
 *	  controller, done when a majority has it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_CHANGE_H
#define PGTOPIC_CHANGE_H

#include "postgres.h"

/* How long a session waits for the cluster before it gives up. */
#define CLUSTER_WAIT_MS		15000

/*
 * What can be changed.  The arguments are those of the function of image.h, as
 * text; see change.c.
 */
#define CHANGE_ADD_BROKER		"add_broker"
#define CHANGE_REMOVE_BROKER	"remove_broker"
#define CHANGE_ADD_TOPIC		"add_topic"
#define CHANGE_ALTER_TOPIC		"alter_topic"
#define CHANGE_ADD_PARTITIONS	"add_partitions"
#define CHANGE_DROP_TOPIC		"drop_topic"
#define CHANGE_MOVE_PARTITION	"move_partition"
#define CHANGE_ELECT_LEADER		"elect_leader"
#define CHANGE_ELECT_UNCLEAN	"elect_unclean"
#define CHANGE_PREFER_LEADERS	"prefer_leaders"
#define CHANGE_FENCE			"fence_broker"
#define CHANGE_UNFENCE			"unfence_broker"
#define CHANGE_ISR				"change_isr"
#define CHANGE_HAND_OVER		"hand_over"
#define CHANGE_ADVANCE			"advance"

/* What a proposal has become. */
typedef struct ChangeResult
{
	int64		term;			/* of the controller that made it */
	int64		version;		/* of the image that has it; 0: nothing was to be done */
	int32		id;				/* of what was added, or 0 */
} ChangeResult;

/*
 * Makes a change, and waits until it is committed.  Takes effect at once and is
 * not undone by a rollback of the caller's transaction.  Needs a transaction;
 * calls other brokers, this one too.  Errors: what is wrong with the change, by
 * the words of image.h's functions; 57P03 if there is no controller, or no
 * majority, for timeout_ms (people wait for CLUSTER_WAIT_MS); then the change may still
 * come.
 */
extern ChangeResult cluster_change(const char *operation, const char *const *args, int nargs,
								   int timeout_ms);

/* Waits, interruptibly, until this broker has applied a version; false: not in time. */
extern bool cluster_wait_applied(int64 version, int timeout_ms);

/*
 * The controller's part: makes the next image and stores it, in the caller's
 * transaction, which must commit at once; the quorum worker does the rest.  57P03 if
 * this broker is not the controller, or the last image is not committed yet.
 */
extern ChangeResult change_propose(const char *operation, char **args, int nargs);

/* Whether a committed image has moves that image_advance() would bring forward. */
extern bool change_can_advance(const char *image);

/*
 * Waits until the version is committed; false if the time is over.  An error
 * (57P03) if this broker is no longer the controller of that term.
 */
extern bool change_wait_committed(int64 term, int64 version, int timeout_ms);

#endif							/* PGTOPIC_CHANGE_H */
