-- The types topic and topic_partition.

SELECT create_topic('types.orders', partitions => 4);
SELECT create_topic('types.Orders');
SELECT create_topic('types-2024-01', partitions => 2);
SELECT create_topic('types_a');
SELECT create_topic('7');

-- What they are: sizes, passed by value, their input and output only stable
SELECT typname, typlen, typbyval, typalign, typstorage, typcategory
FROM pg_type WHERE typname IN ('topic', 'topic_partition') AND typtype = 'b' ORDER BY 1;
SELECT p.proname, p.provolatile
FROM pg_type t, LATERAL (VALUES (typinput), (typoutput), (typreceive), (typsend)) f (oid), pg_proc p
WHERE t.typname IN ('topic', 'topic_partition') AND t.typtype = 'b' AND p.oid = f.oid ORDER BY 1;

--
-- topic: input and output
--
SELECT 'types.orders'::topic, topic 'types.Orders', CAST('types-2024-01' AS topic), topic('types_a'), '7'::topic;
-- names are taken as they stand, upper case and all
SELECT 'types.ORDERS'::topic; \echo :SQLSTATE
SELECT 'no.such.topic'::topic; \echo :SQLSTATE
SELECT ''::topic; \echo :SQLSTATE
SELECT ' types.orders'::topic; \echo :SQLSTATE
SELECT '"types.orders"'::topic; \echo :SQLSTATE
SELECT 'types.orders'' OR 1=1'::topic; \echo :SQLSTATE
SELECT repeat('x', 64)::topic; \echo :SQLSTATE
SELECT NULL::topic IS NULL AS is_null, NULL::text::topic IS NULL AS from_text;
-- digits are a name, not an id
SELECT '7'::topic, '7'::topic::text, '7'::topic::int::topic;
SELECT '8'::topic; \echo :SQLSTATE

-- casts: from text and varchar implicitly, to text explicitly and by assignment
SELECT 'types.orders'::text::topic, 'types.orders'::varchar::topic, 'types.orders'::varchar(40)::topic;
SELECT 'types.orders'::topic::text, 'types.orders'::topic::varchar, 'x ' || 'types.orders'::topic AS concatenated;
SELECT castsource::regtype, casttarget::regtype, castcontext, castmethod
FROM pg_cast WHERE 'topic'::regtype IN (castsource, casttarget) ORDER BY castsource::regtype::text COLLATE "C", casttarget::regtype::text COLLATE "C";
SELECT 'types.orders'::topic::int::topic, 'types.orders'::topic::int = 'types.Orders'::topic::int AS same;

-- columns of type text and varchar name topics in calls
CREATE TEMP TABLE types_names (t text, v varchar, w varchar(30));
INSERT INTO types_names VALUES ('types.orders', 'types_a', 'types-2024-01');
SELECT (produce(t, 'by text', partition => 0)).log_offset AS t, (produce(v, 'by varchar')).log_offset AS v,
       (produce(w, 'by varchar(30)', partition => 0)).log_offset AS w
FROM types_names;
SELECT value FROM types_names, fetch_messages(t, 0, 0)
UNION ALL SELECT value FROM types_names, fetch_messages(v, 0, 0)
UNION ALL SELECT value FROM types_names, fetch_messages(w, 0, 0);

-- a domain, an array
CREATE DOMAIN types_domain AS topic CHECK (VALUE <> 'types_a'::topic);
SELECT 'types.orders'::types_domain, '{types.orders,types_a}'::topic[];
SELECT 'types_a'::types_domain; \echo :SQLSTATE
DROP DOMAIN types_domain;

-- as a column, with literals checked at input
CREATE TABLE types_column (id int PRIMARY KEY, t topic NOT NULL, note text);
INSERT INTO types_column VALUES (1, 'types.orders', 'one'), (2, 'types_a', 'two'), (3, '7', 'three');
INSERT INTO types_column VALUES (4, 'types.nothing'); \echo :SQLSTATE
INSERT INTO types_column SELECT 5, t FROM types_names;
UPDATE types_column SET t = 'types.Orders' WHERE id = 3;
SELECT id, t, note FROM types_column WHERE t = 'types.orders' ORDER BY id;
SELECT id FROM types_column WHERE t = 'no.such.topic'; \echo :SQLSTATE
SELECT id FROM types_column WHERE t IN ('types_a', 'types.Orders') ORDER BY id;
-- a text column too: the text becomes a topic
SELECT id FROM types_column, types_names WHERE types_column.t = types_names.v ORDER BY id;

-- a topic that comes out of its column again is good to produce to
SELECT c.id, p.partition, p.log_offset
FROM types_column c, LATERAL produce(c.t, c.note, partition => 0) p WHERE id < 3 ORDER BY c.id;

--
-- topic: operators, operator classes
--
SELECT o.oprname, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprcanmerge, o.oprcanhash
FROM pg_operator o WHERE 'topic'::regtype = o.oprleft ORDER BY o.oprname COLLATE "C";
-- topics sort in the order in which they were made
SELECT a, b, a = b AS eq, a <> b AS ne, a < b AS lt, a <= b AS le, a > b AS gt, a >= b AS ge
FROM (VALUES ('types.orders'::topic, 'types.Orders'::topic), ('types.Orders', 'types.orders'), ('types_a', 'types_a')) v (a, b);
SELECT t FROM unnest('{7,types_a,types.Orders,types-2024-01,types.orders}'::topic[]) t ORDER BY t;
SELECT t FROM unnest('{7,types_a,types.Orders,types-2024-01,types.orders}'::topic[]) t ORDER BY t DESC;
SELECT '{types_a,7}'::topic[] || 'types.orders'::topic AS appended, ARRAY['7', 'types_a']::topic[] @> ARRAY['types_a']::topic[] AS contains;
SELECT opcname, amname, opcdefault, amvalidate(pg_opclass.oid) FROM pg_opclass JOIN pg_am ON pg_am.oid = opcmethod
WHERE opcintype IN ('topic'::regtype, 'topic_partition'::regtype) ORDER BY 1, 2;
-- indexes: btree (with deduplication), hash, unique
CREATE INDEX types_btree ON types_column (t);
CREATE INDEX types_hash ON types_column USING hash (t);
INSERT INTO types_column SELECT i, 'types_a' FROM generate_series(10, 500) i;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT count(*) FROM types_column WHERE t = 'types_a';
SELECT count(*) FROM types_column WHERE t > 'types.orders';
SELECT id, t FROM types_column WHERE t < 'types_a' ORDER BY t, id;
DROP INDEX types_btree;
SELECT count(*) FROM types_column WHERE t = 'types_a';
SELECT id FROM types_column WHERE t = 'types.Orders';
RESET enable_seqscan;
RESET enable_bitmapscan;
CREATE UNIQUE INDEX types_unique ON types_column (t) WHERE id < 4;
INSERT INTO types_column VALUES (0, 'types.orders'); \echo :SQLSTATE

-- joins and grouping, each way
CREATE TEMP TABLE types_other (t topic, remark text);
INSERT INTO types_other VALUES ('types.orders', 'o'), ('types_a', 'a'), ('types-2024-01', 'd');
SET enable_nestloop = off;
SET enable_mergejoin = off;
SELECT c.id, o.remark FROM types_column c JOIN types_other o USING (t) WHERE c.id < 10 ORDER BY id;
SET enable_hashjoin = off;
SET enable_mergejoin = on;
SELECT c.id, o.remark FROM types_column c FULL JOIN types_other o USING (t) WHERE c.id < 10 OR c.id IS NULL ORDER BY id, remark;
RESET enable_nestloop;
RESET enable_mergejoin;
RESET enable_hashjoin;
SET enable_hashagg = on;
SELECT t, count(*) FROM types_column GROUP BY t ORDER BY t;
SELECT count(DISTINCT t) FROM types_column;
SELECT t FROM types_column UNION SELECT t FROM types_other ORDER BY t;
-- hash partitioning needs the extended hash function
CREATE TABLE types_hashed (t topic, n int) PARTITION BY HASH (t);
CREATE TABLE types_hashed_0 PARTITION OF types_hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE types_hashed_1 PARTITION OF types_hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO types_hashed SELECT t, id FROM types_column;
SELECT count(*), count(DISTINCT t) FROM types_hashed WHERE t IN ('types.orders', 'types_a');
DROP TABLE types_hashed;

--
-- topic_partition
--
SELECT 'types.orders-3'::topic_partition, topic_partition('types.orders', 0), topic_partition('types-2024-01', 1);
-- split at the last hyphen
SELECT tp, topic(tp), partition(tp)
FROM unnest(ARRAY['types-2024-01-1', 'types.orders-3', 'types_a-0', '7-0', 'types.Orders-0']::topic_partition[]) tp;
SELECT 'types-2024-01'::topic_partition; \echo :SQLSTATE
-- it need not exist (yet), as a partition
SELECT 'types.orders-2147483647'::topic_partition, topic_partition('types_a', 12);
SELECT 'types.orders-2147483648'::topic_partition; \echo :SQLSTATE
SELECT 'types.orders-007'::topic_partition, 'types.orders-007'::topic_partition = 'types.orders-7'::topic_partition AS same;
SELECT 'types.orders'::topic_partition; \echo :SQLSTATE
SELECT 'types.orders-'::topic_partition; \echo :SQLSTATE
SELECT 'types.orders-x'::topic_partition; \echo :SQLSTATE
SELECT 'types.orders--1'::topic_partition; \echo :SQLSTATE
SELECT 'types.orders- 1'::topic_partition; \echo :SQLSTATE
SELECT '-1'::topic_partition; \echo :SQLSTATE
SELECT ''::topic_partition; \echo :SQLSTATE
SELECT topic_partition('types.orders', -1); \echo :SQLSTATE
SELECT topic_partition('types.nothing', 1); \echo :SQLSTATE
SELECT topic_partition('types.orders', NULL) IS NULL AS null_partition, topic(NULL::topic_partition) IS NULL AS null_topic;

-- order: by topic, then by number, not by the text
SELECT tp FROM unnest(ARRAY['types.Orders-0', 'types.orders-10', 'types.orders-2', 'types.orders-2147483647', 'types.orders-0']::topic_partition[]) tp ORDER BY tp;
SELECT a, b, a = b AS eq, a <> b AS ne, a < b AS lt, a <= b AS le, a > b AS gt, a >= b AS ge
FROM (VALUES ('types.orders-2'::topic_partition, 'types.orders-10'::topic_partition),
             ('types.Orders-0', 'types.orders-10'), ('types_a-1', 'types_a-1')) v (a, b);
SELECT o.oprname, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprcanmerge, o.oprcanhash
FROM pg_operator o WHERE 'topic_partition'::regtype = o.oprleft ORDER BY o.oprname COLLATE "C";

CREATE TABLE types_done (tp topic_partition PRIMARY KEY, log_offset bigint);
INSERT INTO types_done SELECT topic_partition('types.orders', p), p * 100 FROM generate_series(0, 3) p;
INSERT INTO types_done VALUES ('types.orders-2', 1) ON CONFLICT (tp) DO UPDATE SET log_offset = excluded.log_offset;
INSERT INTO types_done VALUES ('types-2024-01-0', 7), ('types.orders-0', 8); \echo :SQLSTATE
INSERT INTO types_done VALUES ('types-2024-01-0', 7);
SET enable_seqscan = off;
SELECT * FROM types_done WHERE tp >= 'types.orders-2' ORDER BY tp;
CREATE INDEX types_done_hash ON types_done USING hash (tp);
ALTER TABLE types_done DROP CONSTRAINT types_done_pkey;
SELECT * FROM types_done WHERE tp = topic_partition('types.orders', 2);
RESET enable_seqscan;
SET enable_nestloop = off;
SET enable_mergejoin = off;
SELECT d.tp, s.partition FROM types_done d
JOIN partition_status s ON d.tp = topic_partition(s.topic, s.partition) ORDER BY 1;
RESET enable_nestloop;
RESET enable_mergejoin;
CREATE TABLE types_hashed (tp topic_partition) PARTITION BY HASH (tp);
CREATE TABLE types_hashed_0 PARTITION OF types_hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE types_hashed_1 PARTITION OF types_hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO types_hashed SELECT tp FROM types_done;
SELECT count(*) FROM types_hashed WHERE tp = 'types.orders-1';
DROP TABLE types_hashed;

--
-- A topic that is no more, as "#" and a number, which no topic can be called
--
SELECT drop_topic('types.Orders');
SELECT id, regexp_replace(t::text, '^#[1-9][0-9]*$', '#number') AS t FROM types_column WHERE id IN (1, 3) ORDER BY id;
SELECT '#2147483647'::topic, '#2147483647'::topic::text, '#2147483647'::text::topic, '#2147483647-3'::topic_partition;
SELECT t::text::topic = t AS same FROM types_column WHERE id = 3;
SELECT 2147483647::topic;
-- every value comes in again as it went out
SELECT n, n::topic::text::topic = n::topic AS same FROM unnest(ARRAY[0, 2147483647, -1]) n;
SELECT '#4294967296'::topic; \echo :SQLSTATE
SELECT '#'::topic; \echo :SQLSTATE
SELECT '#1x'::topic; \echo :SQLSTATE
SELECT produce('#2147483647', 'x'); \echo :SQLSTATE
SELECT * FROM consume('#2147483647', 'g'); \echo :SQLSTATE
SELECT create_topic('#7'); \echo :SQLSTATE
-- made again, it is another topic
SELECT create_topic('types.Orders');
SELECT t = 'types.Orders' AS same FROM types_column WHERE id = 3;

--
-- COPY, in text and in binary
--
CREATE TABLE types_copied (LIKE types_column);
ALTER TABLE types_copied ADD tp topic_partition;
\getenv abs_builddir PG_ABS_BUILDDIR
\set file :abs_builddir '/results/types.copy'
COPY (SELECT id, t, note, topic_partition(t, id) FROM types_column WHERE id < 10) TO :'file';
COPY types_copied FROM :'file';
COPY (SELECT id, t, note, topic_partition(t, id) FROM types_column WHERE id < 10) TO :'file' (FORMAT binary);
COPY types_copied FROM :'file' (FORMAT binary);
SELECT c.id, count(*), bool_and(c.t = o.t) AS same_topic, bool_and(c.tp = topic_partition(o.t, o.id)) AS same_partition
FROM types_copied c JOIN types_column o USING (id) GROUP BY 1 ORDER BY 1;
-- in binary too it is the name that travels
SELECT topic_send('types.orders'), topic_partition_send('types.orders-3');
SELECT encode(topic_send('types.orders'), 'escape'), encode(topic_partition_send('types.orders-3'), 'escape');
-- a name that is not there, on the way in
COPY (SELECT 1, convert_to('types.nothing', 'UTF8')) TO :'file' (FORMAT binary);
COPY types_copied (id, t) FROM :'file' (FORMAT binary); \echo :SQLSTATE
COPY (SELECT 1, convert_to('types.orders', 'UTF8')) TO :'file' (FORMAT binary);
COPY types_copied (id, tp) FROM :'file' (FORMAT binary); \echo :SQLSTATE

DROP TABLE types_column, types_done, types_copied;
SELECT drop_topic(t) FROM unnest('{types.orders,types.Orders,types-2024-01,types_a,7}'::text[]) t;
