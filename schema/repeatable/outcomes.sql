-- Idempotency keys live for a day. A live key is never replaced: a second use raises unique_violation (23505).

CREATE OR REPLACE FUNCTION keep_outcomes(
    p_principals uuid[], p_keys text[], p_fingerprints bytea[], p_sequences bigint[], p_outcomes text[], p_time timestamptz)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
DECLARE
    v_kept bigint;
BEGIN
    INSERT INTO idempotency_keys AS stored (principal, key, fingerprint, sequence, outcome, created_at, expires_at)
    SELECT principal, key, fingerprint, sequence, outcome::json, p_time, p_time + interval '24 hours'
    FROM unnest(p_principals, p_keys, p_fingerprints, p_sequences, p_outcomes)
        AS kept (principal, key, fingerprint, sequence, outcome)
    ON CONFLICT (principal, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, sequence = excluded.sequence, outcome = excluded.outcome,
        created_at = excluded.created_at, expires_at = excluded.expires_at
    WHERE stored.expires_at <= excluded.created_at;
    GET DIAGNOSTICS v_kept = ROW_COUNT;
    IF v_kept <> coalesce(cardinality(p_keys), 0) THEN
        RAISE EXCEPTION 'idempotency key already used' USING ERRCODE = 'unique_violation';
    END IF;
END
$$;

-- The outcome of a command that is not the engine's (registration). Refused for a user's own id (FF006): only
-- apply_batch may say what became of a user's money command.
CREATE OR REPLACE FUNCTION remember_outcome(p_principal uuid, p_key text, p_fingerprint bytea, p_outcome jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    IF EXISTS (SELECT FROM users WHERE id = p_principal) THEN
        RAISE EXCEPTION 'outcomes of a user''s commands are written by the ledger' USING ERRCODE = 'FF006';
    END IF;
    PERFORM keep_outcomes(
        ARRAY[p_principal], ARRAY[p_key], ARRAY[p_fingerprint], ARRAY[NULL::bigint], ARRAY[p_outcome::text], now());
END
$$;

-- Deletes at most p_limit expired rows from each expiring table; returns how many went.
CREATE OR REPLACE FUNCTION expire(p_limit int)
RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    WITH keys AS (
        DELETE FROM idempotency_keys WHERE (principal, key) IN (
            SELECT principal, key FROM idempotency_keys WHERE expires_at <= now()
            LIMIT p_limit FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), ended AS (
        DELETE FROM sessions WHERE id IN (
            SELECT id FROM sessions WHERE absolute_expires_at <= now()
            LIMIT p_limit FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), tokens AS (
        DELETE FROM refresh_tokens WHERE hash IN (
            SELECT hash FROM refresh_tokens WHERE expires_at <= now()
            LIMIT p_limit FOR UPDATE SKIP LOCKED)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM keys) + (SELECT count(*) FROM ended) + (SELECT count(*) FROM tokens)
$$;
