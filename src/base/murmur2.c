/*-------------------------------------------------------------------------
 *
 * murmur2.c
 *	  32-bit MurmurHash2 by Austin Appleby (public domain algorithm), with the
 *	  seed and the little-endian reading of words that Kafka's clients use, so
 *	  that a key goes to the same partition number here as there.
 *
 *-------------------------------------------------------------------------
 */
#include "c.h"

#include "base/murmur2.h"

#define MURMUR2_SEED	0x9747b28cU
#define MURMUR2_M		0x5bd1e995U
#define MURMUR2_R		24

int32
murmur2(const void *data, size_t len)
{
	const unsigned char *p = data;
	uint32		h = MURMUR2_SEED ^ (uint32) len;

	for (; len >= 4; p += 4, len -= 4)
	{
		/* byte by byte, so that the host's byte order does not matter */
		uint32		k = (uint32) p[0] | (uint32) p[1] << 8 |
			(uint32) p[2] << 16 | (uint32) p[3] << 24;

		k *= MURMUR2_M;
		k ^= k >> MURMUR2_R;
		k *= MURMUR2_M;
		h *= MURMUR2_M;
		h ^= k;
	}

	switch (len)
	{
		case 3:
			h ^= (uint32) p[2] << 16;
			/* FALLTHROUGH */
		case 2:
			h ^= (uint32) p[1] << 8;
			/* FALLTHROUGH */
		case 1:
			h ^= (uint32) p[0];
			h *= MURMUR2_M;
			break;
		default:
			break;
	}

	h ^= h >> 13;
	h *= MURMUR2_M;
	h ^= h >> 15;

	return (int32) h;
}

int
murmur2_partition(const void *key, size_t len, int partitions)
{
	return (murmur2(key, len) & 0x7fffffff) % partitions;
}
