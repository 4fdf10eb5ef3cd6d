/* pgtopic--0.3.0--0.4.0.sql */

\echo Use "ALTER EXTENSION pgtopic UPDATE TO '0.4.0'" to load this file. \quit


----------------------------------------------------------------------
-- Changes of tables
----------------------------------------------------------------------

CREATE FUNCTION @extschema@.produce_changes() RETURNS trigger
    AS 'MODULE_PATHNAME', 'pgtopic_produce_changes' LANGUAGE C;
COMMENT ON FUNCTION @extschema@.produce_changes() IS 'publishes the changes of a table: a trigger function, with a topic and the columns of the key as arguments';
