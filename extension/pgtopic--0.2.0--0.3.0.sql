/* pgtopic--0.2.0--0.3.0.sql */

\echo Use "ALTER EXTENSION pgtopic UPDATE TO '0.3.0'" to load this file. \quit

----------------------------------------------------------------------
-- Failover
----------------------------------------------------------------------

ALTER TABLE pgtopic.broker ADD COLUMN fenced boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN pgtopic.broker.fenced IS 'the controller counts it as gone: it leads nothing that another one can lead';

ALTER TABLE pgtopic.cluster ADD COLUMN timeline int NOT NULL DEFAULT 0;
COMMENT ON COLUMN pgtopic.cluster.timeline IS 'the WAL timeline that this broker has last written to: another one means that a standby was promoted';

----------------------------------------------------------------------
-- Idempotent producers
----------------------------------------------------------------------

