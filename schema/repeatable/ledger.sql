-- The only way to write the books. Every function runs as the owner with a pinned search_path.
--
-- SQLSTATEs: FF001 fenced (epoch or head moved), FF002 malformed batch, FF003 balances do not continue,
-- FF004 journal not allowed, FF005 below the minimum or beyond 2^53-1. Any of them leaves nothing changed.

-- Locks the head for the rest of the transaction; the app itself has no right to.
CREATE OR REPLACE FUNCTION lock_head()
RETURNS TABLE (epoch int, sequence bigint, head_time timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $$ SELECT h.epoch, h.sequence, h.head_time FROM ledger_head h WHERE h.id = 1 FOR UPDATE $$;

-- Writes journals p_from+1 .. p_to with their accounts, entries and idempotency keys, all booked at p_time.
-- p_batch: {"journals": [..], "accounts": [..], "entries": [..], "idempotency": [..]}, rows keyed by column name.
-- What follows from the arguments (epoch, times, status, minimum_balance) is not read from the rows.
CREATE OR REPLACE FUNCTION apply_batch(p_epoch int, p_from bigint, p_to bigint, p_time timestamptz, p_batch jsonb)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
DECLARE
    v_head ledger_head;
    v_opened bigint;
    v_dense bool;
    v_discontinued bigint;
    v_forbidden bigint;
    v_beyond bigint;
    v_entries bigint;
BEGIN
    SELECT * INTO v_head FROM ledger_head WHERE id = 1 FOR UPDATE;
    IF (v_head.epoch, v_head.sequence) IS DISTINCT FROM (p_epoch, p_from) THEN
        RAISE EXCEPTION 'ledger head is %/%, not %/%', v_head.epoch, v_head.sequence, p_epoch, p_from
            USING ERRCODE = 'FF001';
    END IF;
    IF (p_time > v_head.head_time AND p_time < clock_timestamp() + interval '1 day') IS NOT TRUE THEN
        RAISE EXCEPTION 'batch time is %, after %', p_time, v_head.head_time
            USING ERRCODE = 'FF002';
    END IF;
    UPDATE ledger_head SET sequence = p_to, head_time = p_time WHERE id = 1;

    INSERT INTO accounts (id, epoch, owner_id, kind, type, currency, name, status, minimum_balance, created_at)
    SELECT a.id, p_epoch, a.owner_id, a.kind, a.type, a.currency, a.name, 'active',
           CASE a.kind WHEN 'customer' THEN 0 END, p_time
    FROM jsonb_to_recordset(p_batch -> 'accounts')
             AS a (id bigint, owner_id uuid, kind text, type text, currency char(3), name text)
    WHERE CASE a.kind
        WHEN 'customer' THEN a.owner_id IS NOT NULL AND a.type <> 'settlement'
        WHEN 'settlement' THEN a.owner_id IS NULL AND a.type = 'settlement'
    END;
    GET DIAGNOSTICS v_opened = ROW_COUNT;
    IF v_opened <> coalesce(jsonb_array_length(p_batch -> 'accounts'), 0) THEN
        RAISE EXCEPTION 'an account is neither a customer''s nor a settlement account' USING ERRCODE = 'FF004';
    END IF;
    INSERT INTO account_balances (account_id, posted, held, version, updated_at)
    SELECT a.id, 0, 0, 0, p_time
    FROM jsonb_to_recordset(p_batch -> 'accounts') AS a (id bigint);

    WITH journal AS (
        INSERT INTO journals (sequence, epoch, kind, booked_at, actor, currency, amount, description, category, reference)
        SELECT j.sequence, p_epoch, j.kind, p_time, j.actor, j.currency, j.amount, j.description, j.category, j.reference
        FROM jsonb_to_recordset(p_batch -> 'journals')
                 AS j (sequence bigint, kind text, actor uuid, currency char(3), amount bigint,
                       description text, category text, reference text)
        RETURNING sequence, kind, currency, amount
    ), entry AS (
        INSERT INTO entries (account_id, seq, sequence, leg, posted_delta, held_delta, posted_after, held_after)
        SELECT e.account_id, e.seq, e.sequence, e.leg, e.posted_delta, e.held_delta, e.posted_after, e.held_after
        FROM jsonb_to_recordset(p_batch -> 'entries')
                 AS e (account_id bigint, seq bigint, sequence bigint, leg smallint, posted_delta bigint,
                       held_delta bigint, posted_after bigint, held_after bigint)
        RETURNING account_id, seq, sequence, leg, posted_delta, held_delta, posted_after, held_after
    ), running AS (
        SELECT e.*,
               row_number() OVER account AS nth,
               sum(e.posted_delta) OVER account AS posted_sum,
               sum(e.held_delta) OVER account AS held_sum,
               lead(e.seq) OVER account IS NULL AS is_last
        FROM entry e
        WINDOW account AS (PARTITION BY e.account_id ORDER BY e.sequence, e.leg ROWS UNBOUNDED PRECEDING)
    ), leg AS (
        SELECT r.*, a.kind, a.currency,
               a.status = 'active' AND a.id < r.sequence AS is_open,
               r.seq = b.version + r.nth
                   AND r.posted_after = b.posted + r.posted_sum
                   AND r.held_after = b.held + r.held_sum AS continues,
               abs(r.posted_after) > 9007199254740991
                   OR r.posted_delta < r.held_delta AND r.posted_after - r.held_after < a.minimum_balance AS is_beyond
        FROM running r
        LEFT JOIN account_balances b ON b.account_id = r.account_id
        LEFT JOIN accounts a ON a.id = r.account_id
    ), verdict AS (
        SELECT CASE j.kind
            WHEN 'account_opened' THEN
                j.amount = 0 AND source.sequence IS NULL AND destination.sequence IS NULL
                AND EXISTS (SELECT FROM accounts a WHERE a.id = j.sequence AND a.currency = j.currency)
            ELSE
                j.amount > 0
                AND source.posted_delta = -j.amount AND destination.posted_delta = j.amount
                AND source.held_delta = 0 AND destination.held_delta = 0
                AND source.currency = j.currency AND destination.currency = j.currency
                AND source.is_open AND destination.is_open
                AND source.account_id <> destination.account_id
                AND (j.kind, source.kind, destination.kind) IN (
                    ('deposit', 'settlement', 'customer'),
                    ('withdrawal', 'customer', 'settlement'),
                    ('transfer', 'customer', 'customer'))
            END AS is_allowed,
            j.kind = 'account_opened' AS opens
        FROM journal j
        LEFT JOIN leg source ON source.sequence = j.sequence AND source.leg = 0
        LEFT JOIN leg destination ON destination.sequence = j.sequence AND destination.leg = 1
    ), moved AS (
        UPDATE account_balances b
        SET posted = r.posted_after, held = r.held_after, version = r.seq, updated_at = p_time
        FROM running r
        WHERE r.is_last AND b.account_id = r.account_id
    )
    SELECT (SELECT count(*) = p_to - p_from
                   AND coalesce(min(sequence) = p_from + 1 AND max(sequence) = p_to, true)
            FROM journal),
           (SELECT count(*) FROM entry),
           (SELECT count(*) FILTER (WHERE is_allowed IS NOT TRUE)
                   -- every journal has exactly its two legs, every account its opening journal, and nothing is left over
                   + abs((SELECT count(*) FROM entry) - 2 * count(*) FILTER (WHERE NOT opens))
                   + abs(v_opened - count(*) FILTER (WHERE opens))
            FROM verdict),
           (SELECT count(*) FROM leg WHERE continues IS NOT TRUE AND kind IS NOT NULL),
           (SELECT count(*) FROM leg WHERE is_beyond)
    INTO v_dense, v_entries, v_forbidden, v_discontinued, v_beyond;

    IF NOT v_dense THEN
        RAISE EXCEPTION 'journals are not dense from % to %', p_from + 1, p_to USING ERRCODE = 'FF002';
    END IF;
    IF v_discontinued > 0 THEN
        RAISE EXCEPTION '% of % entries do not continue their account', v_discontinued, v_entries
            USING ERRCODE = 'FF003';
    END IF;
    IF v_forbidden > 0 THEN
        RAISE EXCEPTION 'journals, legs and accounts do not match' USING ERRCODE = 'FF004';
    END IF;
    IF v_beyond > 0 THEN
        RAISE EXCEPTION '% entries leave their account outside its limits', v_beyond USING ERRCODE = 'FF005';
    END IF;

    PERFORM keep_outcomes(p_batch -> 'idempotency', p_time);
END
$$;
