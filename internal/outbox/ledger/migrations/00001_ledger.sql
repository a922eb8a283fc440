-- The effect ledger. A lane is a partition of the effects topic, off an offset of it. What follows an
-- effect on its way of success is only ever inserted; the tables that are updated and deleted from
-- are small. @schema stands for the schema's name.

-- +goose Up

-- Who dispatches a lane. Written on takeover and renewal; flushes lock the row shared.
CREATE TABLE @schema.lane (
  lane        int         PRIMARY KEY,
  epoch       bigint      NOT NULL,
  after       bigint      NOT NULL DEFAULT 0,  -- the epoch before
  owner       text        NOT NULL,
  lease_until timestamptz NOT NULL
) WITH (fillfactor = 20, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- How far a lane has been ingested: an append-only chain. The primary key is what lets one of two
-- writers that saw the same end commit, so the table must never be partitioned.
CREATE TABLE @schema.ingest (
  lane     int         NOT NULL,
  base_off bigint      NOT NULL,               -- the seed's is one below its next_off
  next_off bigint      NOT NULL,
  number   bigint      NOT NULL,               -- of the row in its lane; 0 is the seed
  gen      int         NOT NULL,
  n        int         NOT NULL,               -- effects
  topic_id uuid        NOT NULL,               -- of the effects topic
  whole    boolean     NOT NULL,               -- marks has all marks of the lane, not just the raised ones
  marks    bytea       NOT NULL,
  at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (lane, base_off),
  CHECK (next_off > base_off)
);

-- Retention happens by generation: a span of time with a partition of its own in each large table.
CREATE TABLE @schema.gen (
  gen       int         PRIMARY KEY,
  opens_at  timestamptz NOT NULL,
  closes_at timestamptz NOT NULL,
  CHECK (closes_at > opens_at)
);

-- From which offset on a lane's effects are in a generation.
CREATE TABLE @schema.lane_gen (
  lane      int    NOT NULL,
  gen       int    NOT NULL,
  first_off bigint NOT NULL,
  PRIMARY KEY (lane, gen)
);

-- The effects. A row is a segment: effects of one batch, as many as fit into a page. No index on ids, keys, endpoints or
-- times. The view effect shows them one by one.
CREATE TABLE @schema.segment (
  first_off bigint NOT NULL,
  last_off  bigint NOT NULL,
  gen       int    NOT NULL,
  lane      int    NOT NULL,
  n         int    NOT NULL,                    -- effects
  totals    bytea  NOT NULL,                    -- how many of each endpoint, and since when; its first byte is the format
  effects   bytea  NOT NULL,                    -- its first byte is the format
  PRIMARY KEY (lane, last_off, gen)
) PARTITION BY RANGE (gen);
ALTER TABLE @schema.segment ALTER COLUMN effects SET STORAGE EXTERNAL; -- never compressed

-- What became of them: one row for each flush, numbered without gap in each lane.
CREATE TABLE @schema.flush (
  seq     bigint         NOT NULL,
  epoch   bigint         NOT NULL,
  low_off bigint         NOT NULL,              -- every effect below is settled or parked
  lo      bigint         NOT NULL,              -- first and last offset that is settled; 0 and -1 with none
  hi      bigint         NOT NULL,
  at      timestamptz    NOT NULL DEFAULT now(),
  gen     int            NOT NULL,
  lane    int            NOT NULL,
  n       int            NOT NULL,
  done    int8multirange NOT NULL,
  results bytea          NOT NULL,              -- the outcomes; its first byte is the format
  PRIMARY KEY (lane, seq, gen)
) PARTITION BY RANGE (gen);
CREATE INDEX flush_find ON @schema.flush (lane, hi);

-- Failed attempts, and all attempts of what ended otherwise than done at once.
CREATE TABLE @schema.attempt (
  off     bigint      NOT NULL,
  at      timestamptz NOT NULL DEFAULT now(),
  gen     int         NOT NULL,
  lane    int         NOT NULL,
  attempt int         NOT NULL,
  status  int         NOT NULL,
  error   text        NOT NULL
) PARTITION BY RANGE (gen);
CREATE INDEX attempt_find ON @schema.attempt (lane, off);

-- The last flush of a lane whose own row has been dropped, and how far the lane has been relayed.
CREATE TABLE @schema.progress (
  lane     int    PRIMARY KEY,
  told     bigint NOT NULL DEFAULT 0,
  seq      bigint NOT NULL DEFAULT 0,
  epoch    bigint NOT NULL DEFAULT 0,
  low_off  bigint NOT NULL DEFAULT 0,
  last_off bigint NOT NULL DEFAULT -1
) WITH (fillfactor = 20, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- Effects that wait outside the window. next_at is in no index, which keeps updates HOT.
CREATE TABLE @schema.parked (
  lane     int         NOT NULL,
  off      bigint      NOT NULL,
  next_at  timestamptz NOT NULL,
  first_at timestamptz NOT NULL,
  attempts int         NOT NULL,
  status   int         NOT NULL,
  role     smallint    NOT NULL,                -- 1 retry, 2 follower, 3 held
  endpoint text        NOT NULL,
  error    text        NOT NULL,
  PRIMARY KEY (lane, off)
) WITH (fillfactor = 70, vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- At-most-once calls that were begun and are not settled.
CREATE TABLE @schema.sending (
  lane    int    NOT NULL,
  off     bigint NOT NULL,
  attempt int    NOT NULL,
  at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (lane, off)
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);

-- What ended dead, unknown or in conflict, for operators.
CREATE TABLE @schema.dead (
  lane     int         NOT NULL,
  off      bigint      NOT NULL,
  seq      bigint      NOT NULL,                -- of the flush
  at       timestamptz NOT NULL DEFAULT now(),
  attempts int         NOT NULL,
  status   int         NOT NULL,
  fate     text        NOT NULL,
  endpoint text        NOT NULL,
  error    text        NOT NULL,
  PRIMARY KEY (lane, off)
);

-- Keys that wait for an operator, by the dead effect that they wait for.
CREATE TABLE @schema.hold (
  lane     int    NOT NULL,
  off      bigint NOT NULL,
  endpoint text   NOT NULL,
  key      bytea  NOT NULL,
  PRIMARY KEY (lane, off)
);

-- Copies of effects that outlive their generation: all that are dead, and what is still parked when
-- its generation is dropped. settled is the flush after which the copy is needed no more.
CREATE TABLE @schema.kept (
  lane    int    NOT NULL,
  off     bigint NOT NULL,
  settled bigint,
  effect  bytea  NOT NULL,                      -- as effects of a segment
  PRIMARY KEY (lane, off)
);

CREATE TABLE @schema.business_key (
  lane      int         NOT NULL,
  off       bigint      NOT NULL,
  at        timestamptz NOT NULL DEFAULT now(),
  endpoint  text        NOT NULL,
  key       text        NOT NULL,
  body_hash bytea       NOT NULL,               -- SHA-256 of content type, NUL, body
  PRIMARY KEY (endpoint, key)
);
CREATE INDEX business_key_at ON @schema.business_key USING brin (at) WITH (pages_per_range = 32);

-- What operators ordered: only ever inserted, and kept long after it was obeyed.
CREATE TABLE @schema.audit (
  number bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  off    bigint      NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  lane   int         NOT NULL,
  action text        NOT NULL CHECK (action IN ('retry', 'cancel')),
  reason text        NOT NULL,
  actor  text        NOT NULL
);
CREATE INDEX audit_find ON @schema.audit (lane, off);

-- What became of it; owner is who had the lane then. In a table of its own, so that whoever runs the
-- service can write it and change nothing.
CREATE TABLE @schema.audit_end (
  number bigint      PRIMARY KEY REFERENCES @schema.audit ON DELETE CASCADE,
  at     timestamptz NOT NULL DEFAULT now(),
  result text        NOT NULL CHECK (result IN ('obeyed', 'late')),
  owner  text        NOT NULL
);

-- Orders that wait to be obeyed.
CREATE TABLE @schema.operator_order (
  lane   int         NOT NULL,
  number bigint      NOT NULL,                  -- of the audit
  off    bigint      NOT NULL,
  action text        NOT NULL,
  reason text        NOT NULL,
  PRIMARY KEY (lane, number)
);

-- Who does the upkeep.
CREATE TABLE @schema.upkeep (
  single      boolean     PRIMARY KEY DEFAULT true CHECK (single),
  owner       text        NOT NULL,
  lease_until timestamptz NOT NULL
) WITH (fillfactor = 20);

-- read_uvarint reads a number at a place, seven bits a byte, the lowest first, and gives the place behind it.
-- +goose StatementBegin
CREATE FUNCTION @schema.read_uvarint(b bytea, INOUT place int, OUT value bigint)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  byte  int;
  shift int := 0;
BEGIN
  value := 0;
  LOOP
    byte := get_byte(b, place);
    place := place + 1;
    value := value | ((byte & 127)::bigint << shift);
    EXIT WHEN byte < 128;
    shift := shift + 7;
  END LOOP;
END
$$;
-- +goose StatementEnd

-- read_varint is read_uvarint for numbers with a sign, which is the lowest bit.
-- +goose StatementBegin
CREATE FUNCTION @schema.read_varint(b bytea, INOUT place int, OUT value bigint)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  r record;
BEGIN
  r := @schema.read_uvarint(b, place);
  place := r.place;
  value := (r.value >> 1) # -(r.value & 1);
END
$$;
-- +goose StatementEnd

-- read_bytes reads bytes that have their number before them.
-- +goose StatementBegin
CREATE FUNCTION @schema.read_bytes(b bytea, INOUT place int, OUT value bytea)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  r    record;
  size bigint;
BEGIN
  r := @schema.read_uvarint(b, place);
  place := r.place;
  size := r.value;
  value := substring(b FROM place + 1 FOR size::int);
  place := place + size::int;
END
$$;
-- +goose StatementEnd

-- read_segment takes the effects of a segment apart, for people and reports: the service does it by itself. Texts that are
-- not UTF-8, or have a NUL or a leading \x, are shown as \x and hexadecimal digits.
-- +goose StatementBegin
CREATE FUNCTION @schema.read_segment(first_off bigint, effects bytea)
RETURNS TABLE (off bigint, source_off bigint, at timestamptz, source_part int, replay int, index int, class smallint, id uuid,
  topic_id uuid, topic text, endpoint text, content_type text, business_key text, trace text, key bytea, body bytea,
  twin_off bigint, twin_lane int, twin_same boolean)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  r         record;
  place     int := 1;
  flags     int;
  number    bigint;
  step      bigint;
  micros    bigint := 0;
  taken     bytea;
  topic_ids uuid[];
  topics    text[];
  parts     int[];
  replays   int[];
  endpoints text[];
  types     text[];
BEGIN
  effects := effects || ''::bytea; -- in memory: what is stored in pieces would be put together again for each look
  IF get_byte(effects, 0) <> 1 THEN
    RAISE EXCEPTION 'the segment from % has format %, this function knows 1', first_off, get_byte(effects, 0);
  END IF;
  off := first_off;
  source_off := 0;
  WHILE place < length(effects) LOOP
    r := @schema.read_uvarint(effects, place);
    place := r.place;
    off := off + r.value;
    flags := get_byte(effects, place);
    class := 1 + (flags & 1);
    -- The origin: a number, and what it stands for where it comes for the first time.
    r := @schema.read_uvarint(effects, place + 1);
    place := r.place;
    number := r.value + 1;
    IF number > coalesce(cardinality(topics), 0) THEN
      topic_ids[number] := encode(substring(effects FROM place + 1 FOR 16), 'hex')::uuid;
      r := @schema.read_bytes(effects, place + 16);
      place := r.place;
      taken := r.value;
      topics[number] := convert_from(taken, 'UTF8');
      r := @schema.read_varint(effects, place);
      place := r.place;
      step := r.value;
      parts[number] := step;
      r := @schema.read_varint(effects, place);
      place := r.place;
      step := r.value;
      replays[number] := step;
    END IF;
    topic_id := topic_ids[number];
    topic := topics[number];
    source_part := parts[number];
    replay := replays[number];
    -- The route, likewise.
    r := @schema.read_uvarint(effects, place);
    place := r.place;
    number := r.value + 1;
    IF number > coalesce(cardinality(endpoints), 0) THEN
      r := @schema.read_bytes(effects, place);
      place := r.place;
      taken := r.value;
      endpoints[number] := convert_from(taken, 'UTF8');
      r := @schema.read_bytes(effects, place);
      place := r.place;
      taken := r.value;
      types[number] := convert_from(taken, 'UTF8');
    END IF;
    endpoint := endpoints[number];
    content_type := types[number];
    r := @schema.read_varint(effects, place);
    place := r.place;
    source_off := source_off + r.value;
    r := @schema.read_varint(effects, place);
    place := r.place;
    micros := micros + r.value;
    at := timestamptz 'epoch' + micros * interval '1 microsecond';
    r := @schema.read_varint(effects, place);
    place := r.place;
    index := r.value;
    id := encode(substring(effects FROM place + 1 FOR 16), 'hex')::uuid;
    place := place + 16;
    key := NULL;
    IF flags & 2 <> 0 THEN
      r := @schema.read_bytes(effects, place);
      place := r.place;
      key := r.value;
    END IF;
    business_key := '';
    IF flags & 4 <> 0 THEN
      r := @schema.read_bytes(effects, place);
      place := r.place;
      taken := r.value;
      business_key := convert_from(taken, 'UTF8');
    END IF;
    trace := '';
    IF flags & 8 <> 0 THEN
      r := @schema.read_bytes(effects, place);
      place := r.place;
      taken := r.value;
      trace := convert_from(taken, 'UTF8');
    END IF;
    twin_lane := NULL;
    twin_off := NULL;
    twin_same := NULL;
    IF flags & 16 <> 0 THEN
      r := @schema.read_varint(effects, place);
      place := r.place;
      twin_lane := r.value;
      r := @schema.read_varint(effects, place);
      place := r.place;
      twin_off := r.value;
      twin_same := flags & 32 <> 0;
    END IF;
    r := @schema.read_bytes(effects, place);
    place := r.place;
    body := r.value;
    RETURN NEXT;
  END LOOP;
END
$$;
-- +goose StatementEnd

-- The effects one by one. Ask for a lane and a range of last_off too where there are many: off is in no index.
CREATE VIEW @schema.effect AS
SELECT e.off, e.source_off, e.at, s.gen, s.lane, e.source_part, e.replay, e.index, e.class, e.id, e.topic_id, e.topic, e.endpoint,
  e.content_type, e.business_key, e.trace, e.key, e.body, e.twin_off, e.twin_lane, e.twin_same, s.first_off, s.last_off
FROM @schema.segment s, LATERAL @schema.read_segment(s.first_off, s.effects) e;

-- make_generation adds the generation after the newest. It runs with the rights of its owner, so
-- that a role that may not change tables can keep the ledger going; hence it can do nothing else.
-- The partition is attached with its check in place: nothing is scanned, and the lock on the parent
-- lets everybody read and write.
-- +goose StatementBegin
CREATE FUNCTION @schema.make_generation(wanted int, opens timestamptz, closes timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  parent text;
  leaf   text;
BEGIN
  LOCK TABLE @schema.gen IN SHARE ROW EXCLUSIVE MODE;
  IF wanted IS DISTINCT FROM (SELECT coalesce(max(gen), 0) + 1 FROM @schema.gen)
     OR opens < (SELECT max(closes_at) FROM @schema.gen) THEN
    RETURN false; -- somebody else was faster
  END IF;
  IF opens > now() + interval '400 days' THEN
    RAISE EXCEPTION 'generation % would open at %', wanted, opens;
  END IF;
  FOREACH parent IN ARRAY ARRAY['segment', 'flush', 'attempt'] LOOP
    leaf := parent || '_g' || wanted;
    EXECUTE format('CREATE TABLE @schema.%I (LIKE @schema.%I INCLUDING ALL, CHECK (gen = %s))', leaf, parent, wanted);
    EXECUTE format('ALTER TABLE @schema.%I SET (autovacuum_vacuum_insert_threshold = -1, toast_tuple_target = 8160)', leaf);
    EXECUTE format('ALTER TABLE @schema.%I ATTACH PARTITION @schema.%I FOR VALUES FROM (%s) TO (%s)', parent, leaf, wanted, wanted + 1);
  END LOOP;
  INSERT INTO @schema.gen (gen, opens_at, closes_at) VALUES (wanted, opens, closes);
  RETURN true;
END
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION @schema.make_generation(int, timestamptz, timestamptz) FROM PUBLIC;

-- A ledger works from its first moment on, whoever does the upkeep.
SELECT @schema.make_generation(1, date_trunc('hour', now()), date_trunc('hour', now()) + interval '1 day');
SELECT @schema.make_generation(2, max(closes_at), max(closes_at) + interval '1 day') FROM @schema.gen;
SELECT @schema.make_generation(3, max(closes_at), max(closes_at) + interval '1 day') FROM @schema.gen;

-- The service's role may change the small tables; see roles.sql.
-- +goose StatementBegin
DO $$
BEGIN
  IF to_regrole('pawl_app') IS NOT NULL THEN
    GRANT UPDATE, DELETE ON @schema.lane, @schema.progress, @schema.parked, @schema.sending, @schema.dead, @schema.hold,
      @schema.kept, @schema.operator_order, @schema.upkeep TO pawl_app;
    GRANT EXECUTE ON FUNCTION @schema.make_generation(int, timestamptz, timestamptz) TO pawl_app;
  END IF;
END
$$;
-- +goose StatementEnd
