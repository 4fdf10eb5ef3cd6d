/*-------------------------------------------------------------------------
 *
 * json_depth.c
 *	  How deep JSON is nested.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/json_depth.h"

/* The quote that ends a string, or the end of the text. */
static const char *
end_of_string(const char *begin, const char *end)
{
	const char *quote = begin;

	/* most bytes of large values are in strings, and memchr() is fast */
	while ((quote = memchr(quote, '"', end - quote)) != NULL)
	{
		const char *escape = quote;

		while (escape > begin && escape[-1] == '\\')
			escape--;
		if ((quote - escape) % 2 == 0)
			return quote;
		quote++;
	}
	return end;
}

int
json_depth(const char *json, size_t length)
{
	const char *end = json + length;
	int			depth = 0;
	int			deepest = 0;

	for (const char *p = json; p < end; p++)
	{
		switch (*p)
		{
			case '[':
			case '{':
				depth++;
				deepest = Max(deepest, depth);
				break;
			case ']':
			case '}':
				depth--;
				break;
			case '"':
				p = end_of_string(p + 1, end);
				break;
			default:
				break;
		}
	}
	return deepest;
}
