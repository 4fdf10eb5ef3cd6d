/* links: base/murmur2.c */
/*
 * test_murmur2.c
 *		Keys must go to the partitions to which Kafka's clients send them, so
 *		what is compared with is published by them, and never computed here.
 */
#include "c.h"

#include "base/murmur2.h"
#include "unit.h"

typedef struct Vector
{
	const char *key;
	int32		hash;
} Vector;

/* org.apache.kafka.common.utils.UtilsTest.testMurmur2() */
static const Vector kafka[] = {
	{"21", -973932308},
	{"foobar", -790332482},
	{"a-little-bit-long-string", -985981536},
	{"a-little-bit-longer-string", -1486304829},
	{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
	{"abc", 479470107},
};

/* unittest_murmur2() of librdkafka's rdmurmur2.c ("java_murmur2_results") */
static const Vector librdkafka[] = {
	{"kafka", (int32) 0xd067cf64},
	{"giberish123456789", (int32) 0x8f552b0c},
	{"1234", (int32) 0x9fc97b14},
	{"234", (int32) 0xe7c009ca},
	{"34", (int32) 0x873930da},
	{"4", 0x5a4b5ca1},
	{"PreAmbleWillBeRemoved,ThePrePartThatIs", 0x78424f1c},
	{"reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62b377},
	{"eAmbleWillBeRemoved,ThePrePartThatIs", (int32) 0xe0e4e09e},
	{"AmbleWillBeRemoved,ThePrePartThatIs", 0x62b8b43f},
	{"", 0x106e08d9},
};

/* KafkaJS, made with Kafka's Java client (src/producer/partitioners) */
static const Vector kafkajs[] = {
	{"0", 971027396},
	{"1", -1993445489},
	{"128", -326012175},
	{"2187", -1508407203},
	{"16384", -325739742},
	{"78125", -1654490814},
	{"279936", 1462227128},
	{"823543", -2014198330},
	{"2097152", 607668903},
	{"4782969", -1182699775},
	{"10000000", -1830336757},
	{"19487171", -1603849305},
	{"35831808", -857013643},
	{"62748517", -1167431028},
	{"105413504", -381294639},
	{"170859375", -1658323481},
	{"100:48069", 1009543857},
};

static void
check_vectors(const Vector *vectors, int count)
{
	for (int i = 0; i < count; i++)
	{
		const char *key = vectors[i].key;

		if (!CHECK_INT(murmur2(key, strlen(key)), vectors[i].hash))
			fprintf(stderr, "# key \"%s\"\n", key);
	}
}

int
main(void)
{
	static const char bytes[] = "PreAmbleWillBeRemoved,ThePrePartThatIs";
	char		buffer[64];
	int			bad;

	check_vectors(kafka, lengthof(kafka));
	check_vectors(librdkafka, lengthof(librdkafka));
	check_vectors(kafkajs, lengthof(kafkajs));

	/* bytes beyond 127, as recorded from Kafka's Java client */
	CHECK_INT(murmur2("\xc3\xa9t\xc3\xa9", 5), -2101193575);

	/* the length alone says where a key ends */
	CHECK_INT(murmur2("foobarbaz", 6), -790332482);
	CHECK_INT(murmur2("", 0), 275646681);
	CHECK_INT(murmur2(NULL, 0), 275646681);
	CHECK(murmur2("a\0b", 3) != murmur2("a\0c", 3));
	CHECK(murmur2("a\0", 2) != murmur2("a", 1));

	/* wherever it lies in memory */
	bad = 0;
	for (int offset = 0; offset < 8; offset++)
	{
		memcpy(buffer + offset, bytes, sizeof(bytes));
		bad += murmur2(buffer + offset, strlen(bytes)) != 0x78424f1c;
	}
	CHECK_INT(bad, 0);

	/* the partition: the sign bit is dropped, not the absolute value taken */
	CHECK_INT(murmur2_partition("21", 2, 5), (-973932308 & 0x7fffffff) % 5);
	CHECK_INT(murmur2_partition("21", 2, 5), 0);
	CHECK_INT(murmur2_partition("kafka", 5, 6), 4);
	CHECK_INT(murmur2_partition("kafka", 5, 3), 1);
	CHECK_INT(murmur2_partition("kafka", 5, 10), 0);
	CHECK_INT(murmur2_partition("4", 1, 6), 1);
	CHECK_INT(murmur2_partition("", 0, 10), 1);
	CHECK_INT(murmur2_partition("abc", 3, 1), 0);
	CHECK_INT(murmur2_partition("abc", 3, 10000), 107);

	/* the hash whose absolute value is negative still */
	CHECK_INT(murmur2("3490358332", 10), PG_INT32_MIN);
	CHECK_INT(murmur2_partition("3490358332", 10, 7), 0);

	bad = 0;
	for (int i = 0; i < 20000; i++)
	{
		int			partitions = i % 10000 + 1;
		int			len = snprintf(buffer, sizeof(buffer), "key-%d", i);
		int			partition = murmur2_partition(buffer, len, partitions);

		bad += partition < 0 || partition >= partitions ||
			partition != (int) (((uint32) murmur2(buffer, len) << 1 >> 1) % partitions);
	}
	CHECK_INT(bad, 0);

	return unit_done();
}
