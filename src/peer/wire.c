/*-------------------------------------------------------------------------
 *
 * wire.c
 *	  Parameters and results of calls to other brokers, in binary.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "port/pg_bswap.h"
#include "utils/fmgroids.h"

#include "base/compat.h"
#include "peer/wire.h"

static void
add_param(PeerParams *params, const char *value, int length)
{
	Assert(params->count < PEER_PARAMS_MAX);
	params->values[params->count] = value;
	params->lengths[params->count] = length;
	params->count++;
}

void
peer_param_int32(PeerParams *params, int32 value)
{
	uint32		wire = pg_hton32((uint32) value);
	char	   *buffer = params->buffers[params->count];

	memcpy(buffer, &wire, sizeof(wire));
	add_param(params, buffer, sizeof(wire));
}

void
peer_param_int64(PeerParams *params, int64 value)
{
	uint64		wire = pg_hton64((uint64) value);
	char	   *buffer = params->buffers[params->count];

	memcpy(buffer, &wire, sizeof(wire));
	add_param(params, buffer, sizeof(wire));
}

void
peer_param_bool(PeerParams *params, bool value)
{
	char	   *buffer = params->buffers[params->count];

	buffer[0] = value ? 1 : 0;
	add_param(params, buffer, 1);
}

void
peer_param_text(PeerParams *params, const char *value)
{
	add_param(params, value, (int) strlen(value));
}

void
peer_param_array(PeerParams *params, Datum array)
{
	bytea	   *wire;

	if (DatumGetPointer(array) == NULL)
	{
		add_param(params, NULL, 0);
		return;
	}
	wire = OidSendFunctionCall(F_ARRAY_SEND, array);
	add_param(params, VARDATA(wire), VARSIZE(wire) - VARHDRSZ);
}

static void
check_length(const PGresult *result, int row, int column, int expected)
{
	int			length = PQgetlength(result, row, column);

	if (length != expected)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("column %d of a broker's answer has %d bytes instead of %d",
						column + 1, length, expected)));
}

int32
peer_get_int32(const PGresult *result, int row, int column)
{
	uint32		wire;

	check_length(result, row, column, sizeof(wire));
	memcpy(&wire, PQgetvalue(result, row, column), sizeof(wire));
	return (int32) pg_ntoh32(wire);
}

int64
peer_get_int64(const PGresult *result, int row, int column)
{
	uint64		wire;

	check_length(result, row, column, sizeof(wire));
	memcpy(&wire, PQgetvalue(result, row, column), sizeof(wire));
	return (int64) pg_ntoh64(wire);
}

Datum
peer_get_bytes(const PGresult *result, int row, int column, bool *isnull)
{
	int			length = PQgetlength(result, row, column);
	bytea	   *bytes;

	*isnull = PQgetisnull(result, row, column);
	if (*isnull)
		return (Datum) 0;
	bytes = palloc(VARHDRSZ + length);
	SET_VARSIZE(bytes, VARHDRSZ + length);
	memcpy(VARDATA(bytes), PQgetvalue(result, row, column), length);
	return PointerGetDatum(bytes);
}

Datum
peer_get_jsonb(const PGresult *result, int row, int column, bool *isnull)
{
	StringInfoData buffer;

	*isnull = PQgetisnull(result, row, column);
	if (*isnull)
		return (Datum) 0;
	buffer.data = PQgetvalue(result, row, column);
	buffer.len = buffer.maxlen = PQgetlength(result, row, column);
	buffer.cursor = 0;
	return OidReceiveFunctionCall(F_JSONB_RECV, &buffer, InvalidOid, -1);
}
