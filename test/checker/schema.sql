-- What the workload needs in each database.  The topics are made with
--	 -v replicas=N	so many of each partition; without it by another broker
\set ON_ERROR_STOP on
\set QUIET on
CREATE EXTENSION IF NOT EXISTS pgtopic;
CREATE SCHEMA checker;

-- Small segments, so that the log goes through many of them.
\if :{?replicas}
SELECT create_topic('checker.events', partitions => 4, replication_factor => :replicas, retention => NULL, segment_messages => 1000) \g /dev/null
SELECT create_topic('checker.derived', partitions => 2, replication_factor => :replicas, retention => NULL, segment_messages => 5000) \g /dev/null
\endif

-- The partitions of a topic that this broker leads, and since when: {"partition": "broker epoch"}.
-- Nothing where that is not known, or this transaction looks at what was before.
CREATE FUNCTION checker.led(t text) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(jsonb_object_agg(led.partition, me.self || ' ' || led.leader_epoch), '{}')
		FROM pgtopic.cluster me JOIN pgtopic.partition led ON led.leader = me.self
		JOIN pgtopic.topic ON topic.id = led.topic_id
		WHERE topic.name = t AND current_setting('transaction_isolation') = 'read committed'
$$;

-- Consumers note it before they consume.
CREATE FUNCTION checker.note_led(t text) RETURNS void LANGUAGE sql VOLATILE AS $$
	SELECT set_config('checker.led', checker.led(t)::text, false)
$$;

-- After that: NULL if it is not the same, or if this session does not hold the lock of a
-- group's position there.  Then, as far as we know, another broker gave the messages.
CREATE FUNCTION checker.led_here(t text, p int) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT now.led
		FROM (SELECT checker.led(t) ->> p::text) AS now (led),
			(SELECT current_setting('checker.led')::jsonb ->> p::text) AS noted (led)
		WHERE now.led = noted.led AND EXISTS (SELECT FROM pg_locks l JOIN pgtopic.topic ON topic.id = l.classid::int
			WHERE topic.name = t AND l.objsubid = p AND l.locktype = 'userlock' AND l.pid = pg_backend_pid()
				AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
$$;

-- What the consumers did, in the transactions in which they consumed.  No
-- unique constraint: finding a duplicate is the checker's job.
CREATE TABLE checker.effects (
	seq bigserial PRIMARY KEY,
	consumer_group text NOT NULL,
	topic text NOT NULL,
	partition int NOT NULL,
	log_offset bigint NOT NULL,
	id text NOT NULL,
	txn text NOT NULL,
	led text
);

-- An insert here makes COMMIT fail.
CREATE TABLE checker.fails_at_commit (n int);
CREATE FUNCTION checker.fail_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM 1 / 0;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON checker.fails_at_commit
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION checker.fail_now();

-- Each message in an exception block of its own; those that are doomed are
-- rolled back after they were produced.
CREATE FUNCTION checker.produce_some(t text, vals text[], ks text[], doomed boolean[],
	OUT n int, OUT partition int, OUT log_offset bigint, OUT kept boolean)
	RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. cardinality(vals) LOOP
		n := i;
		BEGIN
			SELECT p.partition, p.log_offset INTO partition, log_offset
				FROM produce(t::topic, vals[n], key => ks[n]) p;
			IF doomed[n] THEN
				PERFORM 1 / 0;
			END IF;
			kept := true;
		EXCEPTION WHEN division_by_zero THEN
			kept := false;
		END;
		RETURN NEXT;
	END LOOP;
END $$;
