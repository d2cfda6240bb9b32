-- What operators may ask in SQL: documented in docs/stores.md, and kept as it is where tables change.
--
-- This may be run again over what it has made.

-- How often it was found for a request; the nodes tell every twenty seconds.
ALTER TABLE baton_objects ADD COLUMN IF NOT EXISTS hits bigint NOT NULL DEFAULT 0;

DROP VIEW IF EXISTS baton_cache_oldest;
DROP VIEW IF EXISTS baton_cache_sites;
DROP VIEW IF EXISTS baton_cache_objects;

-- Responses that count. Octets of a URL that are no ASCII are written \nnn, as `encode` does.
CREATE VIEW baton_cache_objects AS
SELECT url, side, kind, status, length, size, stored, expires, used, hits, tags,
    substring(url FROM '^[^:]*://[^/?]*') AS site
FROM (
    SELECT encode(CASE WHEN is_reverse THEN substring(key FROM 9) ELSE key END, 'escape') AS url,
        CASE WHEN is_reverse THEN 'reverse' ELSE 'forward' END AS side,
        CASE WHEN variant = '' THEN 'object' ELSE 'variant' END AS kind,
        status, length, size, to_timestamp(answered) AS stored, least(expires, to_timestamp(outdated)) AS expires, used, hits, tags
    FROM (SELECT *, substring(key FROM 1 FOR 8) = 'reverse '::bytea AS is_reverse FROM baton_objects) AS sided
    WHERE generation = (SELECT generation FROM baton_counter)
) AS objects;

-- A row a site: scheme and authority.
CREATE VIEW baton_cache_sites AS
SELECT site, count(*) AS objects, sum(length)::bigint AS length, sum(size)::bigint AS size, sum(hits)::bigint AS hits, max(used) AS used
FROM baton_cache_objects GROUP BY site;

-- In the order in which they go where room is needed.
CREATE VIEW baton_cache_oldest AS SELECT * FROM baton_cache_objects ORDER BY used;
