/*-------------------------------------------------------------------------
 *
 * membership.h
 *	  How a database becomes a broker of a cluster, and ceases to be one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_MEMBERSHIP_H
#define PGTOPIC_MEMBERSHIP_H

#include "postgres.h"

/* This database becomes broker 1 of a new cluster, with its topics. */
extern void membership_create(const char *own_conninfo);

/*
 * This database joins a cluster; returns its number.  With replaces it takes the place
 * of a broker that is gone: if that fails, it has joined all the same.
 */
extern int32 membership_join(const char *bootstrap_conninfo, const char *own_conninfo, int32 replaces);

/*
 * This database leaves its cluster, when the others have what it has.  With force, it
 * only forgets the cluster, and the others are not asked.
 */
extern void membership_leave(bool force);

/*
 * Takes a broker that does not answer out of the cluster.  Its place is taken by
 * another one, unless replacement is 0.
 */
extern void membership_remove(int32 broker, int32 replacement);

/* Whether the metadata that this broker has applied still names a broker. */
extern bool membership_has_broker(int32 broker);

/* Whether a role may start replication here. */
extern bool membership_may_replicate(Oid role);

/*
 * On the broker that is asked to let a database join: passes it on to the
 * controller, or as the controller invites it.  Returns the cluster's id.
 */
extern char *membership_invite(const char *conninfo);

/* On the database that is invited; it will not get a number less than first_number. */
extern void membership_accept_invitation(const char *cluster_id, const char *encoding, int32 first_number);

#endif							/* PGTOPIC_MEMBERSHIP_H */
