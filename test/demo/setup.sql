-- What the demo's producers and consumers work on, in the database of each broker.

-- This broker's share of the input as it was read, to compare with at the end.
CREATE TABLE log_line (
	line_no bigint PRIMARY KEY,
	package text,				-- NULL: a line about no package
	line text NOT NULL,
	produced boolean NOT NULL DEFAULT false
);

-- The current state of each package, as far as consumers on this broker have applied it.
CREATE TABLE package_state (
	package text PRIMARY KEY,
	last_line text NOT NULL,
	last_line_no bigint NOT NULL,
	lines bigint NOT NULL
);

-- Every line as it was applied, and when.  No unique constraint: that nothing is
-- applied twice is for the log to see to.
CREATE TABLE applied (
	line_no bigint NOT NULL,
	package text,
	partition int NOT NULL,
	log_offset bigint NOT NULL,
	consumer text NOT NULL,
	applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- For the demo to see how far they are, and to have all begin at once.
CREATE TABLE ready (who text);
CREATE TABLE go ();

CREATE PROCEDURE wait_for_go(who text) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ready VALUES (who);
	COMMIT;
	WHILE NOT EXISTS (SELECT FROM go) LOOP
		COMMIT;
		PERFORM pg_sleep(0.02);
	END LOOP;
END $$;

-- Produces the lines of log_line, so many in a transaction, which also notes that they are produced.
CREATE PROCEDURE produce_all(broker int, topic text, batch int) LANGUAGE plpgsql AS $$
DECLARE
	numbers bigint[];
BEGIN
	CALL wait_for_go('producer');
	LOOP
		numbers := ARRAY(SELECT line_no FROM log_line WHERE NOT produced ORDER BY line_no LIMIT batch);
		EXIT WHEN numbers = '{}';
		PERFORM produce_batch(topic::topic, array_agg(line ORDER BY line_no),
			keys => array_agg(package ORDER BY line_no),
			headers => array_agg(jsonb_build_object('line', line_no, 'produced at broker', broker) ORDER BY line_no))
		FROM log_line WHERE line_no = ANY (numbers);
		UPDATE log_line SET produced = true WHERE line_no = ANY (numbers);
		COMMIT;
	END LOOP;
END $$;

-- One consumer: takes batches and applies them, a transaction each, until the group has everything.  A consumer
-- with pause_after waits with its next batch applied and not committed, once it has committed so many: for
-- the demo to kill it just there.
CREATE PROCEDURE consume_all(consumer text, topic text, batch int, pause_after int = NULL) LANGUAGE plpgsql AS $$
DECLARE
	m message;
	n int;
	first_offset bigint;
	committed int := 0;
BEGIN
	CALL wait_for_go(consumer);
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
			PERFORM pg_sleep(300);
		END IF;
		COMMIT;
		IF n > 0 THEN
			committed := committed + 1;
		ELSE
			EXIT WHEN NOT EXISTS (SELECT FROM consumer_group_status WHERE consumer_group = 'package-state' AND lag > 0);
		END IF;
	END LOOP;
END $$;

-- All messages in this broker's own tables, whoever leads: a look below the calls, which always ask the leader.
CREATE FUNCTION own_copy(topic text)
RETURNS TABLE (partition int, log_offset bigint, key text, value text, headers jsonb, "timestamp" timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
	topic_id int := (SELECT t.id FROM pgtopic.topic t WHERE t.name = own_copy.topic);
BEGIN
	RETURN QUERY EXECUTE format($q$
		SELECT b.partition, b.base_offset + m.n - 1, convert_from(m.k, 'UTF8'), convert_from(m.v, 'UTF8'), m.h,
			coalesce(m.t, b."timestamp")
		FROM pgtopic.t%s b
		CROSS JOIN LATERAL unnest(b.keys, b."values", b.headers, b.timestamps) WITH ORDINALITY m(k, v, h, t, n)
		$q$, topic_id);
END $$;

CREATE VIEW own_copy_checksums AS
	SELECT partition, count(*) AS messages, md5(string_agg(c::text, E'\n' ORDER BY log_offset)) AS checksum
	FROM own_copy('package-history') c GROUP BY partition;
