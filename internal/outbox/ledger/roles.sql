-- The two roles of the effect ledger, with the least rights that each needs. Run it once as a
-- superuser, or as a role that may create roles, before the first migration, and let pawl_owner migrate.
-- It can be run again, also later.
-- Passwords are yours to set (\password in psql).
--
-- pawl_owner owns the schema: it migrates and does the whole upkeep, which drops old generations.
-- pawl_app   runs the service: it cannot change tables, and cannot change or delete what was
--            ingested, settled or ordered by operators. It makes new generations by the one function that may.

DO $$
BEGIN
  IF to_regrole('pawl_owner') IS NULL THEN CREATE ROLE pawl_owner LOGIN; END IF;
  IF to_regrole('pawl_app') IS NULL THEN CREATE ROLE pawl_app LOGIN; END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS @schema;
ALTER SCHEMA @schema OWNER TO pawl_owner;
GRANT USAGE ON SCHEMA @schema TO pawl_app;

-- Tables, generations included, are made later, by pawl_owner. What was made before is granted too.
ALTER DEFAULT PRIVILEGES FOR ROLE pawl_owner IN SCHEMA @schema GRANT SELECT, INSERT ON TABLES TO pawl_app;
ALTER DEFAULT PRIVILEGES FOR ROLE pawl_owner IN SCHEMA @schema GRANT USAGE ON SEQUENCES TO pawl_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA @schema TO pawl_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA @schema TO pawl_app;

-- The small tables change. The first migration grants this too, where the roles are there before it.
DO $$
BEGIN
  IF to_regclass('@schema.upkeep') IS NOT NULL THEN
    GRANT UPDATE, DELETE ON @schema.lane, @schema.progress, @schema.parked, @schema.sending, @schema.dead, @schema.hold,
      @schema.kept, @schema.operator_order, @schema.upkeep TO pawl_app;
    GRANT EXECUTE ON FUNCTION @schema.make_generation(int, timestamptz, timestamptz) TO pawl_app;
  END IF;
END
$$;

-- Each lookup of the ledger goes by one index; these keep the planner from anything else while
-- statistics are old. They belong to the role, because a setting of a session is lost in a pooler.
ALTER ROLE pawl_app SET enable_seqscan = off;
ALTER ROLE pawl_app SET enable_bitmapscan = off;
ALTER ROLE pawl_app SET enable_hashjoin = off;
ALTER ROLE pawl_app SET enable_mergejoin = off;
ALTER ROLE pawl_app SET jit = off;
ALTER ROLE pawl_app SET lock_timeout = '2s';
ALTER ROLE pawl_app SET statement_timeout = '10s';
ALTER ROLE pawl_app SET idle_in_transaction_session_timeout = '10s';
