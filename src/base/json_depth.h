/*-------------------------------------------------------------------------
 *
 * json_depth.h
 *	  How deep JSON is nested.
 *
 * Pure: needs neither a server nor a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_JSON_DEPTH_H
#define PGTOPIC_JSON_DEPTH_H

#include "c.h"

/*
 * The most arrays and objects that are open at any place of a text, in an encoding whose
 * other characters have no byte of ASCII.  As far as the text is JSON, that is as deep as
 * a parser goes.
 */
extern int	json_depth(const char *json, size_t length);

#endif							/* PGTOPIC_JSON_DEPTH_H */
