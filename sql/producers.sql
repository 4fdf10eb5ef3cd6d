-- Producers that number their messages: what is new, what is a repeat, what is refused.

SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT create_topic('producers', partitions => 5);

--
-- New, and repeated
--
SELECT * FROM produce('producers', 'a', producer => 'p', sequence => 0);
SELECT * FROM produce('producers', 'a', producer => 'p', sequence => 0);
SELECT * FROM produce('producers', 'b', producer => 'p', sequence => 1);
SELECT * FROM produce_batch('producers', '{c,d,e}'::text[], producer => 'p', sequence => 2);
-- all that is remembered can be repeated, in any order; the values are not compared
SELECT * FROM produce_batch('producers', '{x,y,z}'::text[], producer => 'p', sequence => 2);
SELECT * FROM produce('producers', 'x', producer => 'p', sequence => 0);
SELECT * FROM produce('producers', 'b', producer => 'p', sequence => 1);
SELECT * FROM produce('producers', 'f', producer => 'p', sequence => 5);
SELECT log_offset, value FROM fetch_messages('producers', partition_for_key('producers', 'p'), 0);
-- of all types
SELECT * FROM produce('producers', 'g'::bytea, producer => 'p', sequence => 6);
SELECT * FROM produce('producers', 'g'::bytea, producer => 'p', sequence => 6);
SELECT * FROM produce('producers', '7'::jsonb, producer => 'p', sequence => 7);
SELECT * FROM produce('producers', '7'::jsonb, producer => 'p', sequence => 7);
SELECT * FROM produce_batch('producers', '{h,i}'::bytea[], producer => 'p', sequence => 8);
SELECT * FROM produce_batch('producers', '{h,i}'::bytea[], producer => 'p', sequence => 8);
SELECT * FROM produce_batch('producers', '{10,11}'::jsonb[], producer => 'p', sequence => 10);
SELECT * FROM produce_batch('producers', '{10,11}'::jsonb[], producer => 'p', sequence => 10);
SELECT count(*), count(DISTINCT value) FROM fetch_messages('producers', partition_for_key('producers', 'p'), 0);
SELECT topic, partition, producer, last_sequence, last_offset, last_produced_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS now FROM producer_status;
-- an empty batch is nothing
SELECT * FROM produce_batch('producers', '{}'::text[], producer => 'p', sequence => 100);

--
-- Errors
--
SELECT produce('producers', 'x', producer => 'p', sequence => 13); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => 'p', sequence => 3); \echo :SQLSTATE
SELECT produce_batch('producers', '{c,d}'::text[], producer => 'p', sequence => 2); \echo :SQLSTATE
SELECT produce_batch('producers', '{c,d,e,f}'::text[], producer => 'p', sequence => 2); \echo :SQLSTATE
SELECT produce_batch('producers', '{c,d,e,f}'::text[], producer => 'p', sequence => 11); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => 'p'); \echo :SQLSTATE
SELECT produce('producers', 'x', sequence => 1); \echo :SQLSTATE
SELECT produce_batch('producers', '{x}'::text[], producer => 'p'); \echo :SQLSTATE
SELECT produce_batch('producers', '{x}'::text[], sequence => 1); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => 'p', sequence => -1); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => 'max', sequence => 9223372036854775807); \echo :SQLSTATE
SELECT produce_batch('producers', '{x,y}'::text[], producer => 'max', sequence => 9223372036854775806); \echo :SQLSTATE
SELECT log_offset FROM produce('producers', 'x', producer => 'max', sequence => 9223372036854775806);
SELECT log_offset FROM produce('producers', 'x', producer => 'max', sequence => 9223372036854775806);
SELECT produce('producers', 'x', producer => '', sequence => 0); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => E'\003p', sequence => 0); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => E'\n', sequence => 0); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => repeat('ä', 128), sequence => 0); \echo :SQLSTATE
SELECT log_offset FROM produce('producers', 'x', producer => repeat('ä', 127) || 'a', sequence => 0, partition => 0);
SELECT log_offset FROM produce('producers', 'x', producer => repeat('ä', 127) || 'a', sequence => 0, partition => 0);
-- what is refused leaves nothing
SELECT last_sequence, last_offset FROM producer_status WHERE producer = 'p';
SELECT log_offset FROM produce('producers', 'j', producer => 'p', sequence => 12);

--
-- How much is remembered: 16 calls
--
SELECT min(log_offset), max(log_offset) FROM generate_series(13, 27) s, LATERAL produce('producers', s::text, producer => 'p', sequence => s);
SELECT log_offset FROM produce('producers', 'j', producer => 'p', sequence => 12);
SELECT produce_batch('producers', '{10,11}'::jsonb[], producer => 'p', sequence => 10); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => 'p', sequence => 0); \echo :SQLSTATE

--
-- Partitions: sequences are of each, a call has one
--
SELECT partition, partition = partition_for_key('producers', 'q') AS by_name FROM produce('producers', 'x', producer => 'q', sequence => 3);
SELECT partition FROM produce('producers', 'x', producer => 'q', sequence => 0, partition => 3);
SELECT partition FROM produce('producers', 'x', producer => 'q', sequence => 0, partition => 0);
SELECT partition, partition = partition_for_key('producers', 'k1') AS by_key FROM produce('producers', 'x', 'k1', producer => 'q', sequence => 7);
SELECT partition, first_offset, last_offset FROM produce_batch('producers', '{x,y}'::text[], '{k1,k1}'::text[], producer => 'q', sequence => 8);
SELECT produce_batch('producers', '{x,y,z}'::text[], '{k1,k1,k2}'::text[], producer => 'q', sequence => 10); \echo :SQLSTATE
SELECT produce_batch('producers', '{x,y}'::text[], '{k1,NULL}'::text[], producer => 'q', sequence => 10); \echo :SQLSTATE
SELECT partition FROM produce_batch('producers', '{x,y,z}'::text[], '{k1,k1,k2}'::text[], producer => 'q', sequence => 10, partition => partition_for_key('producers', 'k1'));
SELECT partition, last_sequence FROM producer_status WHERE producer = 'q' ORDER BY 1;
-- which partition a key has
SELECT (murmur.hash & 2147483647) % 5 AS expected, partition_for_key('producers', murmur.key), partition_for_key('producers', murmur.key::bytea)
FROM (VALUES ('21', -973932308), ('foobar', -790332482), ('abc', 479470107)) murmur (key, hash);
SELECT partition_for_key('producers', NULL); \echo :SQLSTATE
SELECT partition_for_key('producers.nothing', 'k'); \echo :SQLSTATE
-- after add_partitions() the partition may be another one, so it has to be said
\set VERBOSITY terse
SELECT add_partitions('producers', 11);
\set VERBOSITY default
SELECT partition_for_key('producers', 'p') AS partition, partition FROM produce('producers', 'again', producer => 'p', sequence => 27);
SELECT partition, log_offset FROM produce('producers', '27', producer => 'p', sequence => 27, partition => 1);

--
-- Transactions
--
SELECT create_topic('producers.one');
BEGIN;
SELECT log_offset FROM produce('producers.one', 'rolled back', producer => 'p', sequence => 0);
ROLLBACK;
SELECT count(*) FROM producer_status WHERE topic = 'producers.one';
BEGIN;
SELECT log_offset FROM produce('producers.one', 'a', producer => 'p', sequence => 0);
SELECT log_offset FROM produce('producers.one', 'a', producer => 'p', sequence => 0);
SAVEPOINT s;
SELECT log_offset FROM produce('producers.one', 'rolled back', producer => 'p', sequence => 1);
ROLLBACK TO s;
SELECT log_offset FROM produce('producers.one', 'b', producer => 'p', sequence => 1);
RELEASE s;
COMMIT;
SELECT log_offset, value FROM fetch_messages('producers.one', 0, 0);
SELECT last_sequence, last_offset FROM producer_status WHERE topic = 'producers.one';
-- as part of one statement
SELECT max(log_offset) FROM generate_series(2, 9) s, LATERAL produce('producers.one', s::text, producer => 'p', sequence => s);
SELECT max(log_offset) FROM generate_series(2, 9) s, LATERAL produce('producers.one', s::text, producer => 'p', sequence => s);
-- a repeat cannot be prepared either; nor in a read-only transaction
BEGIN;
SELECT log_offset FROM produce('producers.one', '9', producer => 'p', sequence => 9);
PREPARE TRANSACTION 'x'; \echo :SQLSTATE
BEGIN READ ONLY;
SELECT produce('producers.one', '9', producer => 'p', sequence => 9); \echo :SQLSTATE
ROLLBACK;
-- messages that have been deleted are remembered all the same
SELECT delete_messages('producers.one', 0, 5);
SELECT log_offset FROM produce('producers.one', 'b', producer => 'p', sequence => 1);
-- in a transaction that has made the topic
BEGIN;
SELECT create_topic('producers.new');
SELECT log_offset FROM produce('producers.new', 'a', producer => 'p', sequence => 0);
SELECT log_offset FROM produce('producers.new', 'a', producer => 'p', sequence => 0);
COMMIT;
SELECT log_offset FROM produce('producers.new', 'a', producer => 'p', sequence => 0);

--
-- A producer is no group
--
SELECT count(*) FROM consumer_group_status WHERE topic::text LIKE 'producers%';
SELECT drop_consumer_group(E'\003p', 'producers.one'); \echo :SQLSTATE
SELECT reset_offsets(E'\003p', 'producers.one', 'earliest'); \echo :SQLSTATE
SELECT count(*) FROM consume('producers.one', 'p', 3);
SELECT producer, last_sequence FROM producer_status WHERE topic = 'producers.one';
SELECT consumer_group, committed_offset FROM consumer_group_status WHERE topic = 'producers.one';
SELECT drop_consumer_group('p', 'producers.one');
SELECT log_offset FROM produce('producers.one', '9', producer => 'p', sequence => 9);

--
-- Rights
--
CREATE ROLE regress_producers_nobody;
SET ROLE regress_producers_nobody;
SELECT count(*) FROM producer_status;
SELECT partition_for_key('producers', 'k'); \echo :SQLSTATE
SELECT produce('producers', 'x', producer => 'p', sequence => 28); \echo :SQLSTATE
RESET ROLE;
DROP ROLE regress_producers_nobody;

SELECT drop_topic('producers'), drop_topic('producers.one'), drop_topic('producers.new');
SELECT count(*) FROM producer_status;
