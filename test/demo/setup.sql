-- What the demo's consumers work on: psql variables topic, batch.

-- The input as it was read, to compare with at the end.
CREATE TABLE log_line (
	line_no bigint PRIMARY KEY,
	package text,				-- NULL: a line about no package
	line text NOT NULL
);

-- The current state of each package: the effect of consuming.
CREATE TABLE package_state (
	package text PRIMARY KEY,
	last_line text NOT NULL,
	last_line_no bigint NOT NULL,
	lines bigint NOT NULL
);
CREATE TABLE package_state_replayed (LIKE package_state INCLUDING ALL);

-- Every line as it was applied, in the order in which that was done.  No unique
-- constraint: that nothing is applied twice is for the log to see to.
CREATE TABLE applied (
	seq bigint GENERATED ALWAYS AS IDENTITY,
	line_no bigint NOT NULL,
	package text,
	partition int NOT NULL,
	log_offset bigint NOT NULL,
	consumer text NOT NULL
);

-- One consumer: takes batches and applies them, a transaction each, until the group has everything.  A consumer
-- with pause_after waits with its next batch applied and not committed, once it has committed so many: for
-- the demo to kill it just there.
CREATE PROCEDURE consume_all(consumer text, topic text, batch int, pause_after int = NULL)
LANGUAGE plpgsql AS $$
DECLARE
	m message;
	n int;
	first_offset bigint;
	committed int := 0;
BEGIN
	-- All start at once: the demo holds this lock until they are all here.
	PERFORM pg_advisory_lock_shared(1);
	COMMIT;
	LOOP
		n := 0;
		FOR m IN SELECT * FROM consume(topic::topic, 'package-state', max_messages => batch, max_wait => '100ms')
		LOOP
			INSERT INTO applied (line_no, package, partition, log_offset, consumer)
				VALUES ((m.headers->>'line')::bigint, m.key, m.partition, m.log_offset, consumer);
			IF m.key IS NOT NULL THEN
				INSERT INTO package_state AS s
					VALUES (m.key, m.value, (m.headers->>'line')::bigint, 1)
					ON CONFLICT (package) DO UPDATE
					SET last_line = excluded.last_line, last_line_no = excluded.last_line_no, lines = s.lines + 1;
			END IF;
			n := n + 1;
			IF n = 1 THEN
				first_offset := m.log_offset;
			END IF;
		END LOOP;
		IF n > 0 AND committed = pause_after THEN
			RAISE NOTICE 'holds % % % %', m.partition, first_offset, m.log_offset, n;
			PERFORM pg_advisory_xact_lock(2);
		END IF;
		COMMIT;
		IF n > 0 THEN
			committed := committed + 1;
		ELSE
			EXIT WHEN NOT EXISTS (SELECT FROM consumer_group_status WHERE consumer_group = 'package-state' AND lag > 0);
		END IF;
	END LOOP;
END $$;
