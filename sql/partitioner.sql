-- A key goes to the partition that Kafka's default partitioner gives it: (murmur2(key) & 0x7fffffff) % partitions.

-- Hashes of the Java client's UtilsTest, librdkafka's unittest_murmur2 and Akka's Murmur2Spec
CREATE TABLE partitioner_vectors (id serial, key text, hash int);
INSERT INTO partitioner_vectors (key, hash) VALUES
    ('21', -973932308),
    ('foobar', -790332482),
    ('a-little-bit-long-string', -985981536),
    ('a-little-bit-longer-string', -1486304829),
    ('lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971),
    ('abc', 479470107),
    ('kafka', x'd067cf64'::int),
    ('giberish123456789', x'8f552b0c'::int),
    ('1234', x'9fc97b14'::int),
    ('234', x'e7c009ca'::int),
    ('34', x'873930da'::int),
    ('4', x'5a4b5ca1'::int),
    ('PreAmbleWillBeRemoved,ThePrePartThatIs', x'78424f1c'::int),
    ('reAmbleWillBeRemoved,ThePrePartThatIs', x'4a62b377'::int),
    ('eAmbleWillBeRemoved,ThePrePartThatIs', x'e0e4e09e'::int),
    ('AmbleWillBeRemoved,ThePrePartThatIs', x'62b8b43f'::int),
    ('', x'106e08d9'::int),
    ('1', -1993445489),
    ('12', 126087238),
    ('123', -267702483),
    ('12345', -1188365604);

SELECT create_topic('partitioner.7', partitions => 7), create_topic('partitioner.50', partitions => 50), create_topic('partitioner.1');
SELECT key, hash, (hash & 2147483647) % 7 AS of_7, a.partition, (hash & 2147483647) % 50 AS of_50, b.partition, c.partition
FROM partitioner_vectors,
    LATERAL produce('partitioner.7', id::text, key) a,
    LATERAL produce('partitioner.50', id::text, key) b,
    LATERAL produce('partitioner.1', id::text, key) c ORDER BY id;

-- as bytes, with jsonb, and in a batch: the same
SELECT count(*) AS keys,
       count(*) FILTER (WHERE a.partition = (hash & 2147483647) % 7) AS bytea, count(*) FILTER (WHERE b.partition = (hash & 2147483647) % 50) AS jsonb
FROM partitioner_vectors,
    LATERAL produce('partitioner.7', convert_to(id::text, 'UTF8'), convert_to(key, 'UTF8')) a,
    LATERAL produce('partitioner.50', to_jsonb(id), key) b;
SELECT create_topic('partitioner.batch', partitions => 50);
SELECT partition, first_offset, last_offset
FROM produce_batch('partitioner.batch', (SELECT array_agg(id::text ORDER BY id) FROM partitioner_vectors), keys => (SELECT array_agg(key ORDER BY id) FROM partitioner_vectors));
SELECT count(*) AS keys, count(*) FILTER (WHERE m.partition = (v.hash & 2147483647) % 50) AS same
FROM generate_series(0, 49) p, LATERAL fetch_messages('partitioner.batch', p, 0) m JOIN partitioner_vectors v USING (key);

-- one partition is that of "21", whatever the alignment and the size of the key's header
CREATE TABLE partitioner_stored (a "char", key text, b "char");
INSERT INTO partitioner_stored VALUES ('x', '21', 'x'), ('x', repeat('21', 2000), 'x');
SELECT bool_and(p.partition = q.partition) AS same
FROM partitioner_stored s, LATERAL produce('partitioner.50', 'x', s.key) p, LATERAL produce('partitioner.50', 'x', s.key || '') q;
SELECT DISTINCT p.partition, (-973932308 & 2147483647) % 50 AS of_50 FROM generate_series(1, 10), LATERAL produce('partitioner.50', 'x', '21') p;

-- after add_partitions keys go where the new number says, and what is there stays
SELECT add_partitions('partitioner.7', 11);
SELECT count(*) AS keys, count(*) FILTER (WHERE a.partition = (hash & 2147483647) % 11) AS same
FROM partitioner_vectors, LATERAL produce('partitioner.7', id::text, key) a;

-- keys spread
SELECT create_topic('partitioner.spread', partitions => 10);
SELECT count(*), min(last_offset - first_offset + 1) > 900 AS not_few, max(last_offset - first_offset + 1) < 1100 AS not_many, sum(last_offset - first_offset + 1)
FROM produce_batch('partitioner.spread', array_fill('x'::text, ARRAY[10000]), keys => ARRAY(SELECT 'key ' || i FROM generate_series(1, 10000) i));

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'partitioner.%') d;
DROP TABLE partitioner_vectors, partitioner_stored;
