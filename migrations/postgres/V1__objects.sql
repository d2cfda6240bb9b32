-- What baton keeps in PostgreSQL. Everything is in the schema that the search path names first.
--
-- Tables begin unlogged; baton makes them logged where the setting `postgres.logged` says so. Functions are one round trip
-- and one transaction each: those that change what others may have copies of hold one lock alone, those that only add
-- share it. A function that is volatile sees in each of its statements what was committed before that, so what is looked for
-- behind the lock is what is there under the lock.

-- One row: everything hangs by it. Without it nothing is found and nothing stored.
CREATE UNLOGGED TABLE IF NOT EXISTS baton_counter (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- Chosen at random when the row was made: after a crash that emptied the tables it is another one.
    incarnation bigint NOT NULL,
    -- Of the last change, and of the last one that is not in baton_changes any more.
    number bigint NOT NULL DEFAULT 0,
    pruned bigint NOT NULL DEFAULT 0,
    -- Objects of another generation do not exist: raised by each purge of everything.
    generation bigint NOT NULL DEFAULT 0
);

-- One row a stored response.
CREATE UNLOGGED TABLE IF NOT EXISTS baton_objects (
    id bigint PRIMARY KEY,
    -- The first half of SHA-256 over the key; of what selects it among several, empty where nothing does.
    name bytea NOT NULL,
    variant bytea NOT NULL,
    generation bigint NOT NULL,
    -- Raised by each refresh.
    edition integer NOT NULL DEFAULT 0,
    key bytea NOT NULL,
    -- All that baton knows of it, with checksums of its own: the columns beside it are for people and for sweeping.
    head bytea NOT NULL,
    status integer NOT NULL,
    -- Octets of the body, and of everything.
    length bigint NOT NULL,
    size bigint NOT NULL,
    checksum bigint NOT NULL,
    part boolean NOT NULL,
    -- Seconds since 1970 by the clock of the node: when its request was sent, and when its answer came.
    asked bigint NOT NULL,
    answered bigint NOT NULL,
    stored timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires timestamptz NOT NULL,
    used timestamptz NOT NULL DEFAULT clock_timestamp(),
    etag text,
    last_modified text,
    tags text[] NOT NULL DEFAULT '{}',
    -- 0: the body is here; otherwise so many rows of baton_pieces have it.
    pieces integer NOT NULL,
    body bytea,
    UNIQUE (name, variant)
);
ALTER TABLE baton_objects ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE baton_objects ALTER COLUMN head SET STORAGE MAIN;
CREATE INDEX IF NOT EXISTS baton_objects_used ON baton_objects (used) INCLUDE (size);

-- Bodies that are larger than one piece. They are here before their object is.
CREATE UNLOGGED TABLE IF NOT EXISTS baton_pieces (
    object_id bigint NOT NULL,
    number integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    octets bytea NOT NULL,
    PRIMARY KEY (object_id, number)
);
ALTER TABLE baton_pieces ALTER COLUMN octets SET STORAGE EXTERNAL;

-- Objects that are gone and whose pieces somebody may still be reading.
CREATE UNLOGGED TABLE IF NOT EXISTS baton_orphans (
    object_id bigint PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What nodes must not serve from copies any more, in the order in which it was committed.
CREATE UNLOGGED TABLE IF NOT EXISTS baton_changes (
    number bigint PRIMARY KEY,
    -- NULL: everything.
    name bytea,
    -- Where nodes look for what copies are worth: baton's own hash of the key. NULL: nobody knows, and no copy counts any more.
    hash bigint,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Who is asking an origin server for what, until when at the latest.
CREATE UNLOGGED TABLE IF NOT EXISTS baton_fetches (
    name bytea PRIMARY KEY,
    node bigint NOT NULL,
    until timestamptz NOT NULL
);

-- Whether something with that name has changed since the change `applied`: what was asked for before is outdated then. The lock is held.
CREATE OR REPLACE FUNCTION baton_overtaken(p_name bytea, p_incarnation bigint, p_applied bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    counter baton_counter%ROWTYPE;
BEGIN
    SELECT * INTO counter FROM baton_counter WHERE incarnation = p_incarnation;
    IF NOT FOUND OR p_applied < counter.pruned OR p_applied > counter.number THEN
        RETURN true;
    END IF;
    RETURN p_applied < counter.number AND EXISTS (
        SELECT FROM baton_changes WHERE number > p_applied AND (name = p_name OR name IS NULL));
END $$;

-- Numbers a change, and wakes the nodes. The lock is held alone. 0: there is no counter.
CREATE OR REPLACE FUNCTION baton_changed(p_name bytea, p_hash bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    change bigint;
BEGIN
    UPDATE baton_counter SET number = number + 1 RETURNING number INTO change;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    INSERT INTO baton_changes (number, name, hash) VALUES (change, p_name, p_hash);
    PERFORM pg_notify('baton', change::text);
    RETURN change;
END $$;

-- Puts a response in its place. `change`: its number, where it takes the place of something older; else 0.
CREATE OR REPLACE FUNCTION baton_store(
    p_id bigint, p_name bytea, p_hash bigint, p_variant bytea, p_key bytea, p_head bytea, p_status integer, p_length bigint,
    p_checksum bigint, p_part boolean, p_asked bigint, p_answered bigint, p_expires bigint, p_etag text,
    p_last_modified text, p_pieces integer, p_body bytea,
    p_incarnation bigint, p_applied bigint, p_replaces boolean, p_most integer,
    OUT kept boolean, OUT change bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    replaces boolean := p_replaces OR EXISTS (
        SELECT FROM baton_objects WHERE name = p_name AND variant = p_variant AND answered < p_asked);
BEGIN
    kept := false;
    change := 0;
    IF replaces THEN
        PERFORM set_config('synchronous_commit', 'on', true);
        PERFORM pg_advisory_xact_lock(422541815662);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(422541815662);
        -- One at a time of those with the same name.
        PERFORM pg_advisory_xact_lock(1650553967, hashtext(encode(p_name, 'hex')));
    END IF;
    IF baton_overtaken(p_name, p_incarnation, p_applied) THEN
        RETURN;
    END IF;
    -- A part is less than the whole that is there.
    IF p_part AND EXISTS (SELECT FROM baton_objects o, baton_counter c WHERE o.name = p_name AND o.variant = p_variant
            AND o.generation = c.generation AND NOT o.part AND o.answered >= p_asked) THEN
        RETURN;
    END IF;
    IF p_pieces > 0 AND (SELECT count(*) FROM baton_pieces WHERE object_id = p_id) <> p_pieces THEN
        RETURN;
    END IF;
    PERFORM baton_discard(array_agg(id)) FROM baton_objects WHERE name = p_name AND variant = p_variant;
    INSERT INTO baton_objects (id, name, variant, generation, key, head, status, length, size, checksum, part, asked, answered,
        expires, etag, last_modified, pieces, body)
    SELECT p_id, p_name, p_variant, generation, p_key, p_head, p_status, p_length,
        p_length + octet_length(p_head) + octet_length(p_key) + 256, p_checksum, p_part, p_asked, p_answered,
        to_timestamp(p_expires), p_etag, p_last_modified, p_pieces, p_body FROM baton_counter;
    PERFORM baton_discard(array_agg(id)) FROM (
        SELECT id FROM baton_objects WHERE name = p_name ORDER BY stored DESC OFFSET p_most) AS surplus;
    IF replaces THEN
        change := baton_changed(p_name, p_hash);
    END IF;
    kept := true;
END $$;

-- Removes objects; what somebody may be reading goes later.
CREATE OR REPLACE FUNCTION baton_discard(p_ids bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    removed bigint;
BEGIN
    INSERT INTO baton_orphans (object_id)
        SELECT id FROM baton_objects WHERE id = ANY (p_ids) AND pieces > 0 ON CONFLICT DO NOTHING;
    DELETE FROM baton_objects WHERE id = ANY (p_ids);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- Brings the fields of an object up to date, if it still is the one that was known (`p_id`, `p_edition`), or the same response as
-- another node has stored it. `itself`: whether it was that one.
CREATE OR REPLACE FUNCTION baton_refresh(
    p_id bigint, p_edition integer, p_name bytea, p_hash bigint, p_variant bytea, p_length bigint, p_known_asked bigint, p_known_answered bigint,
    p_known_etag text, p_head bytea, p_asked bigint, p_answered bigint, p_expires bigint, p_etag text, p_last_modified text,
    p_incarnation bigint, p_applied bigint,
    OUT kept boolean, OUT change bigint, OUT itself boolean)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    found_id bigint;
BEGIN
    kept := false;
    change := 0;
    itself := false;
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    IF baton_overtaken(p_name, p_incarnation, p_applied) THEN
        RETURN;
    END IF;
    SELECT id INTO found_id FROM baton_objects WHERE name = p_name AND variant = p_variant AND length = p_length
        AND (id = p_id AND edition = p_edition OR asked = p_known_asked AND answered = p_known_answered
            AND etag IS NOT DISTINCT FROM p_known_etag)
        AND generation = (SELECT generation FROM baton_counter);
    IF FOUND THEN
        UPDATE baton_objects SET head = p_head, edition = edition + 1, asked = p_asked, answered = p_answered,
            expires = to_timestamp(p_expires), etag = p_etag, last_modified = p_last_modified, used = clock_timestamp()
            WHERE id = found_id;
        change := baton_changed(p_name, p_hash);
        kept := true;
        itself := found_id = p_id;
    END IF;
END $$;

-- Forgets everything under these names, for all nodes. `change`: the number of the last; 0: there is no counter.
CREATE OR REPLACE FUNCTION baton_purge(p_names bytea[], p_hashes bigint[], OUT removed bigint, OUT change bigint)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    one integer;
BEGIN
    change := 0;
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    SELECT baton_discard(array_agg(id)) INTO removed FROM baton_objects WHERE name = ANY (p_names);
    FOR one IN 1 .. coalesce(array_length(p_names, 1), 0) LOOP
        change := baton_changed(p_names[one], p_hashes[one]);
    END LOOP;
END $$;

-- Forgets everything at once; the rows go in the background.
CREATE OR REPLACE FUNCTION baton_purge_all() RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    UPDATE baton_counter SET generation = generation + 1;
    RETURN baton_changed(NULL, NULL);
END $$;

-- Forgets changes that are old: a node that has not heard of them by now has to start anew.
CREATE OR REPLACE FUNCTION baton_prune(p_age interval) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    SELECT max(number) INTO last FROM baton_changes WHERE at < clock_timestamp() - p_age;
    IF last IS NOT NULL THEN
        DELETE FROM baton_changes WHERE number <= last;
        UPDATE baton_counter SET pruned = greatest(pruned, last);
    END IF;
END $$;
