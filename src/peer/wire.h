/*-------------------------------------------------------------------------
 *
 * wire.h
 *	  Parameters and results of calls to other brokers, in binary.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PGTOPIC_PEER_WIRE_H
#define PGTOPIC_PEER_WIRE_H

#include "postgres.h"

#include "libpq-fe.h"

#define PEER_PARAMS_MAX		9

/* Parameters in the order of the statement's; what they point to is the caller's. */
typedef struct PeerParams
{
	int			count;
	const char *values[PEER_PARAMS_MAX];
	int			lengths[PEER_PARAMS_MAX];
	char		buffers[PEER_PARAMS_MAX][sizeof(int64)];
} PeerParams;

extern void peer_param_int32(PeerParams *params, int32 value);
extern void peer_param_int64(PeerParams *params, int64 value);
extern void peer_param_bool(PeerParams *params, bool value);
extern void peer_param_text(PeerParams *params, const char *value);
/* An array, in the caller's memory; (Datum) 0 is NULL. */
extern void peer_param_array(PeerParams *params, Datum array);

/* A value of a result; an error if it cannot be one of these. */
extern int32 peer_get_int32(const PGresult *result, int row, int column);
extern int64 peer_get_int64(const PGresult *result, int row, int column);

/* bytea, or text, in the caller's memory; jsonb likewise. */
extern Datum peer_get_bytes(const PGresult *result, int row, int column, bool *isnull);
extern Datum peer_get_jsonb(const PGresult *result, int row, int column, bool *isnull);

#endif							/* PGTOPIC_PEER_WIRE_H */
