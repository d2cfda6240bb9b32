-- Purges of many responses at once: by tag, by how URLs begin, by what matches in them; and softly, so that they stay as stale.
--
-- This may be run again over what it has made.

-- Seconds since 1970: purged softly then, and stale since. NULL: not.
ALTER TABLE baton_objects ADD COLUMN IF NOT EXISTS outdated bigint;
-- What has no tags takes no room in it.
CREATE INDEX IF NOT EXISTS baton_objects_tags ON baton_objects USING gin (tags) WHERE tags <> '{}';

DROP FUNCTION IF EXISTS baton_store(bigint, bytea, bigint, bytea, bytea, bytea, integer, bigint, bigint, boolean, bigint, bigint,
    bigint, text, text, integer, bytea, bigint, bigint, boolean, integer);
DROP FUNCTION IF EXISTS baton_refresh(bigint, integer, bytea, bigint, bytea, bigint, bigint, bigint, text, bytea, bigint, bigint,
    bigint, text, text, bigint, bigint);

-- Puts a response in its place. `change`: its number, where it takes the place of something older; else 0.
CREATE OR REPLACE FUNCTION baton_store(
    p_id bigint, p_name bytea, p_hash bigint, p_variant bytea, p_key bytea, p_head bytea, p_status integer, p_length bigint,
    p_checksum bigint, p_part boolean, p_asked bigint, p_answered bigint, p_expires bigint, p_etag text,
    p_last_modified text, p_tags text[], p_pieces integer, p_body bytea,
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
        expires, etag, last_modified, tags, pieces, body)
    SELECT p_id, p_name, p_variant, generation, p_key, p_head, p_status, p_length,
        p_length + octet_length(p_head) + octet_length(p_key) + 256, p_checksum, p_part, p_asked, p_answered,
        to_timestamp(p_expires), p_etag, p_last_modified, p_tags, p_pieces, p_body FROM baton_counter;
    PERFORM baton_discard(array_agg(id)) FROM (
        SELECT id FROM baton_objects WHERE name = p_name ORDER BY stored DESC OFFSET p_most) AS surplus;
    IF replaces THEN
        change := baton_changed(p_name, p_hash);
    END IF;
    kept := true;
END $$;

-- Brings the fields of an object up to date, if it still is the one that was known (`p_id`, `p_edition`), or the same response as
-- another node has stored it. `itself`: whether it was that one. `used` moves on: who purges many finds by that what has come of late.
CREATE OR REPLACE FUNCTION baton_refresh(
    p_id bigint, p_edition integer, p_name bytea, p_hash bigint, p_variant bytea, p_length bigint, p_known_asked bigint, p_known_answered bigint,
    p_known_etag text, p_head bytea, p_asked bigint, p_answered bigint, p_expires bigint, p_etag text, p_last_modified text,
    p_tags text[], p_incarnation bigint, p_applied bigint,
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
            expires = to_timestamp(p_expires), etag = p_etag, last_modified = p_last_modified, tags = p_tags,
            outdated = NULL, used = clock_timestamp()
            WHERE id = found_id;
        change := baton_changed(p_name, p_hash);
        kept := true;
        itself := found_id = p_id;
    END IF;
END $$;

-- Forgets all of these objects at once, for all nodes, or marks them as stale since `p_soft` (seconds since 1970). No copy counts any more
-- anywhere, and nothing that was asked for before is stored. `change` as of baton_purge.
CREATE OR REPLACE FUNCTION baton_purge_set(p_ids bigint[], p_soft bigint, OUT objects bigint, OUT octets bigint, OUT change bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(422541815662);
    SELECT count(*), coalesce(sum(size), 0) INTO objects, octets FROM baton_objects
        WHERE id = ANY (p_ids) AND generation = (SELECT generation FROM baton_counter);
    IF p_soft IS NULL THEN
        PERFORM baton_discard(p_ids);
    ELSE
        UPDATE baton_objects SET outdated = p_soft WHERE id = ANY (p_ids) AND outdated IS NULL;
    END IF;
    change := baton_changed(NULL, NULL);
END $$;
