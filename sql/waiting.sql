-- max_wait of fetch_messages() and consume(), wait_for_messages(): what one session can see of them.

SELECT create_topic('waiting.log', partitions => 2);
SELECT create_topic('waiting.bytes', value_format => 'bytes');

-- how long did that take?
\set took 'SELECT CASE WHEN clock_timestamp() - :\'start\' < \'100 ms\' THEN \'not long\' WHEN clock_timestamp() - :\'start\' > \'10 s\' THEN \'too long\' ELSE \'long enough\' END AS took;'

-- no message: as long as was said
SELECT clock_timestamp() AS start \gset
SELECT * FROM fetch_messages('waiting.log', 0, 0, max_wait => '0.11 s');
:took
SELECT clock_timestamp() AS start \gset
SELECT * FROM fetch_messages_bytes('waiting.bytes', 0, 0, max_wait => '0.11 s');
:took
SELECT clock_timestamp() AS start \gset
SELECT * FROM consume('waiting.log', 'g', max_wait => '0.11 s');
:took
SELECT clock_timestamp() AS start \gset
SELECT * FROM consume_bytes('waiting.bytes', 'g', max_wait => '0.11 s');
:took
SELECT clock_timestamp() AS start \gset
CALL wait_for_messages('waiting.log', 'g', '0.11 s');
:took
-- and not at all
SET statement_timeout = '5 s';
SELECT * FROM fetch_messages('waiting.log', 0, 0, max_wait => '0');
SELECT * FROM consume('waiting.log', 'g', max_wait => '0');
CALL wait_for_messages('waiting.log', 'g', '0');
RESET statement_timeout;

-- something is there: no wait, however long it might be
SELECT (produce('waiting.log', 'x', partition => 1)).log_offset;
SET statement_timeout = '5 s';
SELECT log_offset, value FROM fetch_messages('waiting.log', 1, 0, max_wait => '1 year');
CALL wait_for_messages('waiting.log', 'g', '1 year');
CALL wait_for_messages('waiting.log', 'g', '100000000 years');
SELECT log_offset, value FROM consume('waiting.log', 'g', max_wait => '1 year');
-- the group has read it now, others have not
CALL wait_for_messages('waiting.log', 'other', '1 year');
RESET statement_timeout;
SELECT clock_timestamp() AS start \gset
CALL wait_for_messages('waiting.log', 'g', '0.11 s');
:took

-- an offset that only a rolled-back message had, and one of our own that is open
BEGIN;
SELECT (produce('waiting.log', 'rolled back', partition => 1)).log_offset;
SELECT * FROM fetch_messages('waiting.log', 1, 1, max_wait => '10 ms');
SELECT * FROM consume('waiting.log', 'g', max_wait => '10 ms');
ROLLBACK;
SELECT clock_timestamp() AS start \gset
SELECT * FROM fetch_messages('waiting.log', 1, 1, max_wait => '0.11 s');
:took
SELECT clock_timestamp() AS start \gset
SELECT * FROM consume('waiting.log', 'g', max_wait => '0.11 s');
:took

-- a waiting reader can be stopped
SET statement_timeout = '100 ms';
SELECT * FROM fetch_messages('waiting.log', 0, 0, max_wait => '1 day'); \echo :SQLSTATE
SELECT * FROM consume('waiting.log', 'g', max_wait => '1 day'); \echo :SQLSTATE
CALL wait_for_messages('waiting.log', 'g', '1 day'); \echo :SQLSTATE
RESET statement_timeout;
SELECT * FROM fetch_messages('waiting.log', 0, 0);

-- waits that make no sense
SELECT * FROM fetch_messages('waiting.log', 0, 0, max_wait => '-1 ms'); \echo :SQLSTATE
SELECT * FROM fetch_messages_bytes('waiting.log', 0, 0, max_wait => '-1 ms'); \echo :SQLSTATE
SELECT * FROM consume('waiting.log', 'g', max_wait => '1 day -25:00'); \echo :SQLSTATE
SELECT * FROM consume_bytes('waiting.log', 'g', max_wait => '1 mon -31 days'); \echo :SQLSTATE
CALL wait_for_messages('waiting.log', 'g', '-1 ms'); \echo :SQLSTATE
SELECT * FROM consume('waiting.log', 'g', max_wait => NULL); \echo :SQLSTATE
SELECT * FROM fetch_messages('waiting.log', 0, 5, max_wait => '1 day'); \echo :SQLSTATE

-- wait_for_messages() is for itself alone, where it can end its transaction
BEGIN;
CALL wait_for_messages('waiting.log', 'g', '0'); \echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION waiting_function() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CALL wait_for_messages('waiting.log', 'other', '1 s');
END $$;
SELECT waiting_function(); \echo :SQLSTATE
DROP FUNCTION waiting_function();
-- so it is in a procedure's or DO's loop
DO $$
DECLARE
    m message;
    n int := 0;
BEGIN
    FOR i IN 1 .. 3 LOOP
        CALL wait_for_messages('waiting.log', 'loop', '10 ms');
        FOR m IN SELECT * FROM consume('waiting.log', 'loop', 1) LOOP
            n := n + 1;
            RAISE NOTICE 'partition % offset % value %', m.partition, m.log_offset, m.value;
        END LOOP;
        COMMIT;
    END LOOP;
    RAISE NOTICE '% consumed', n;
END $$;
-- where nothing can be written there is something to wait for all the same
SET default_transaction_read_only = on;
SET statement_timeout = '5 s';
CALL wait_for_messages('waiting.log', 'other', '1 day');
RESET statement_timeout;
RESET default_transaction_read_only;
CALL wait_for_messages('waiting.nothing', 'g', '0'); \echo :SQLSTATE
CALL wait_for_messages(NULL, 'g', '0'); \echo :SQLSTATE
CALL wait_for_messages('waiting.log', NULL, '0'); \echo :SQLSTATE
CALL wait_for_messages('waiting.log', '', '0'); \echo :SQLSTATE
CALL wait_for_messages('waiting.log', 'g', NULL); \echo :SQLSTATE
-- waiting leaves no position and no lock behind
SELECT DISTINCT consumer_group COLLATE "C" FROM consumer_group_status WHERE topic IN ('waiting.log', 'waiting.bytes');
SELECT count(*) FROM pg_locks WHERE locktype = 'userlock' AND pid = pg_backend_pid();

SELECT count(*) FROM (SELECT drop_topic(topic) FROM topic_status WHERE topic::text LIKE 'waiting.%') d;
