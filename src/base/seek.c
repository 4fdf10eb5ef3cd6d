/*-------------------------------------------------------------------------
 *
 * seek.c
 *	  Where reset_offsets() and create_consumer_group() are told to go.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/seek.h"

/* Reads digits to the end of the text, clamped; false if there is anything else. */
static bool
parse_digits(const char *text, int64 *result)
{
	int64		value = 0;

	if (*text == '\0')
		return false;
	for (; *text; text++)
	{
		int			digit = *text - '0';

		if (digit < 0 || digit > 9)
			return false;
		if (value > (PG_INT64_MAX - digit) / 10)
			value = PG_INT64_MAX;
		else
			value = value * 10 + digit;
	}
	*result = value;
	return true;
}

Seek
seek_parse(const char *text)
{
	Seek		seek = {SEEK_OTHER, 0};

	if (strcmp(text, "earliest") == 0)
		seek.kind = SEEK_EARLIEST;
	else if (strcmp(text, "latest") == 0)
		seek.kind = SEEK_LATEST;
	else if (text[0] == '+' || text[0] == '-')
	{
		if (parse_digits(text + 1, &seek.number))
		{
			seek.kind = SEEK_RELATIVE;
			if (text[0] == '-')
				seek.number = -seek.number;
		}
	}
	else if (parse_digits(text, &seek.number))
		seek.kind = SEEK_OFFSET;
	return seek;
}

int64
seek_target(Seek seek, int64 current, int64 log_start, int64 log_end)
{
	int64		target = current;

	switch (seek.kind)
	{
		case SEEK_EARLIEST:
			target = log_start;
			break;
		case SEEK_LATEST:
			target = log_end;
			break;
		case SEEK_OFFSET:
			target = seek.number;
			break;
		case SEEK_RELATIVE:
			/* offsets are never negative, so only the sum can overflow */
			if (seek.number > 0 && current > PG_INT64_MAX - seek.number)
				target = PG_INT64_MAX;
			else
				target = current + seek.number;
			break;
		case SEEK_OTHER:
			break;
	}
	return Max(log_start, Min(target, log_end));
}
