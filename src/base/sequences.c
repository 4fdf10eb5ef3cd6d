/*-------------------------------------------------------------------------
 *
 * sequences.c
 *	  What a partition remembers of a producer that numbers its messages.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/sequences.h"

/* Where a call that is remembered ends. */
static int64
end_of(const Sequences *sequences, int i)
{
	return i + 1 < sequences->count ? sequences->firsts[i + 1] : sequences->next;
}

SequenceVerdict
sequences_judge(const Sequences *sequences, int64 sequence, int64 count, int64 *first_offset)
{
	if (sequences->count == 0 || sequence == sequences->next)
		return SEQUENCE_NEW;
	if (sequence > sequences->next)
		return SEQUENCE_GAP;
	if (sequence < sequences->firsts[0])
		return SEQUENCE_FORGOTTEN;
	for (int i = 0; i < sequences->count; i++)
	{
		if (sequence == sequences->firsts[i] && sequence + count == end_of(sequences, i))
		{
			*first_offset = sequences->offsets[i];
			return SEQUENCE_REPEATED;
		}
	}
	return SEQUENCE_DIFFERENT;
}

void
sequences_call(const Sequences *sequences, int64 sequence, int64 *first, int64 *last)
{
	int			i = sequences->count - 1;

	while (i > 0 && sequences->firsts[i] > sequence)
		i--;
	*first = sequences->firsts[i];
	*last = end_of(sequences, i) - 1;
}

void
sequences_add(Sequences *sequences, int64 sequence, int64 count, int64 first_offset)
{
	if (sequences->count == SEQUENCES_KEPT)
	{
		memmove(sequences->firsts, sequences->firsts + 1, (SEQUENCES_KEPT - 1) * sizeof(int64));
		memmove(sequences->offsets, sequences->offsets + 1, (SEQUENCES_KEPT - 1) * sizeof(int64));
		sequences->count--;
	}
	sequences->firsts[sequences->count] = sequence;
	sequences->offsets[sequences->count] = first_offset;
	sequences->next = sequence + count;
	sequences->count++;
}

int64
sequences_end_offset(const Sequences *sequences)
{
	int			last = sequences->count - 1;

	return sequences->offsets[last] + (sequences->next - sequences->firsts[last]);
}
