-- The only way to write the books. Every function runs as the owner with a pinned search_path.
--
-- SQLSTATEs: FF001 fenced (epoch, head or its time moved), FF002 malformed batch, FF003 balances do not continue,
-- FF004 journal not allowed, FF005 below the minimum or beyond 2^53-1. Any of them leaves nothing changed.

-- Locks the head for the rest of the transaction; the app itself has no right to.
CREATE OR REPLACE FUNCTION lock_head()
RETURNS TABLE (epoch int, sequence bigint, head_time timestamptz, hash bytea)
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $$ SELECT h.epoch, h.sequence, h.head_time, h.hash FROM ledger_head h WHERE h.id = 1 FOR UPDATE $$;

-- Writes journals p_from+1, p_from+2, .. with their entries, answers and audit events, all at p_time.
--
-- Each group of arrays is a table by columns: one element a row. Journals are numbered as they come; an entry (e_) names
-- its journal by sequence. Accounts and holds are not given: they follow from what their journals say. What a journal
-- tells is no audit event (a_) as well.
--
-- The plan is pinned to one that suits a batch of any size and a ledger of any age: accounts are looked up one by one,
-- and nothing is joined with an array, which the planner takes for a handful of rows.
CREATE OR REPLACE FUNCTION apply_batch(
    p_epoch int, p_from bigint, p_time timestamptz,
    j_kind text[], j_actor uuid[], j_currency text[], j_amount bigint[], j_refers_to bigint[], j_value_date date[],
    j_description text[], j_category text[], j_reference text[], j_metadata text[], j_detail text[], j_salt bytea[],
    j_hash bytea[], j_ip text[], j_request_id text[],
    e_sequence bigint[], e_leg smallint[], e_account_id bigint[], e_seq bigint[], e_posted_delta bigint[],
    e_held_delta bigint[], e_posted_after bigint[], e_held_after bigint[], e_spent_day bigint[], e_spent_month bigint[],
    k_principal uuid[], k_key text[], k_fingerprint bytea[], k_sequence bigint[], k_outcome text[],
    a_actor uuid[], a_event text[], a_outcome text[], a_subject text[], a_ip text[], a_request_id text[], a_detail text[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET jit = off
AS $$
DECLARE
    v_head ledger_head;
    v_to bigint := p_from + coalesce(cardinality(j_kind), 0);
    v_entries bigint := coalesce(cardinality(e_sequence), 0);
    v_discontinued bigint;
    v_forbidden bigint;
    v_beyond bigint;
BEGIN
    IF (p_time < clock_timestamp() + interval '1 day') IS NOT TRUE THEN
        RAISE EXCEPTION 'batch time is %', p_time USING ERRCODE = 'FF002';
    END IF;
    UPDATE ledger_head SET sequence = v_to, head_time = p_time, hash = coalesce(j_hash[v_to - p_from], hash)
    WHERE id = 1 AND epoch = p_epoch AND sequence = p_from AND head_time < p_time;
    IF NOT FOUND THEN
        SELECT * INTO v_head FROM ledger_head WHERE id = 1;
        RAISE EXCEPTION 'ledger head is %/% of %, not %/% before %', v_head.epoch, v_head.sequence, v_head.head_time,
            p_epoch, p_from, p_time USING ERRCODE = 'FF001';
    END IF;

    INSERT INTO journals (sequence, epoch, kind, booked_at, actor, currency, amount, refers_to, value_date, description,
        category, reference, metadata, detail, salt, hash, ip, request_id)
    SELECT p_from + nth, p_epoch, kind, p_time, actor, currency, amount, refers_to, value_date, description,
        category, reference, metadata::jsonb, detail::json, salt, hash, ip::inet, request_id
    FROM unnest(j_kind, j_actor, j_currency, j_amount, j_refers_to, j_value_date, j_description, j_category,
            j_reference, j_metadata, j_detail, j_salt, j_hash, j_ip, j_request_id)
        WITH ORDINALITY AS j (kind, actor, currency, amount, refers_to, value_date, description, category,
            reference, metadata, detail, salt, hash, ip, request_id, nth);
    IF 'account_opened' = ANY (j_kind) THEN
        PERFORM open_accounts(p_from);
    END IF;

    WITH leg AS (
        SELECT e.*, b.ctid AS place, a.kind, a.currency, a.status = 'active' AND a.id < e.sequence AS is_open,
               lead(e.seq) OVER account IS NULL AS is_last,
               e.seq = lag(e.seq, 1, b.version) OVER account + 1
                   AND e.posted_after = lag(e.posted_after, 1, b.posted) OVER account + e.posted_delta
                   AND e.held_after = lag(e.held_after, 1, b.held) OVER account + e.held_delta AS continues,
               abs(e.posted_after) > 9007199254740991 OR e.held_after < 0
                   OR e.posted_delta < e.held_delta AND e.posted_after - e.held_after < a.minimum_balance AS is_beyond
        FROM unnest(e_sequence, e_leg, e_account_id, e_seq, e_posted_delta, e_held_delta, e_posted_after, e_held_after,
                e_spent_day, e_spent_month)
            AS e (sequence, leg, account_id, seq, posted_delta, held_delta, posted_after, held_after, spent_day,
                spent_month)
        LEFT JOIN account_balances b ON b.account_id = e.account_id
        LEFT JOIN accounts a ON a.id = e.account_id
        WINDOW account AS (PARTITION BY e.account_id ORDER BY e.sequence, e.leg)
    ), entry AS (
        INSERT INTO entries (account_id, seq, sequence, leg, posted_delta, held_delta, posted_after, held_after)
        SELECT account_id, seq, sequence, leg, posted_delta, held_delta, posted_after, held_after FROM leg
    ), moved AS (
        UPDATE account_balances b
        SET posted = l.posted_after, held = l.held_after, version = l.seq, updated_at = p_time,
            spent_day = l.spent_day, spent_month = l.spent_month
        FROM leg l
        -- By its place: the row was just found, and while the head is held nobody moves it.
        WHERE l.is_last AND b.ctid = l.place
    ), part AS ( -- each journal and its legs, as rows of one sequence
        SELECT p_from + j.nth AS sequence, j.kind, j.currency::bpchar AS currency, j.amount,
               NULL::smallint AS leg, NULL::text AS account_kind, NULL::bigint AS account_id, NULL::bool AS is_open,
               NULL::bigint AS posted_delta, NULL::bigint AS held_delta
        FROM unnest(j_kind, j_currency, j_amount) WITH ORDINALITY AS j (kind, currency, amount, nth)
        UNION ALL
        SELECT sequence, NULL, currency, NULL, leg, kind, account_id, is_open, posted_delta, held_delta FROM leg
    ), journal AS (
        SELECT sequence, max(kind) AS kind, max(amount) AS amount,
               count(leg) AS legs,
               bit_or(1::bigint << leg) = (1::bigint << count(leg)::int) - 1 AS is_numbered,
               min(currency) = max(currency) AND count(currency) = count(leg) + 1 AS is_one_currency,
               bool_and(is_open) AS is_open,
               sum(posted_delta) AS net,
               sum(posted_delta) FILTER (WHERE posted_delta > 0) AS moved,
               bool_or(posted_delta = 0) AS is_idle,
               bool_or(held_delta <> 0) AS is_held,
               min(account_id) < max(account_id) AS is_between,
               max(account_kind) FILTER (WHERE leg = 0) AS source,
               max(account_kind) FILTER (WHERE leg = 1) AS destination,
               max(posted_delta) FILTER (WHERE leg = 0) AS source_posted,
               max(held_delta) FILTER (WHERE leg = 0) AS source_held,
               max(held_delta) FILTER (WHERE leg = 1) AS destination_held
        FROM part GROUP BY sequence
    ), verdict AS (
        SELECT CASE
            WHEN kind IN ('account_opened', 'account_changed') THEN amount = 0 AND legs = 0
            WHEN kind IN ('deposit', 'withdrawal', 'transfer') THEN
                amount > 0 AND legs = 2 AND is_numbered AND is_one_currency AND is_open AND is_between
                AND source_posted = -amount AND net = 0 AND NOT is_held
                AND (kind, source, destination) IN (
                    ('deposit', 'settlement', 'customer'),
                    ('withdrawal', 'customer', 'settlement'),
                    ('transfer', 'customer', 'customer'))
            WHEN kind IN ('journal', 'reversal') THEN
                amount > 0 AND legs >= 2 AND is_numbered AND is_one_currency AND is_open AND is_between
                AND moved = amount AND net = 0 AND NOT is_idle AND NOT is_held
            WHEN kind = 'hold_placed' THEN
                amount > 0 AND legs = 1 AND is_numbered AND is_one_currency AND is_open
                AND net = 0 AND source_held = amount AND source = 'customer'
            WHEN kind = 'hold_captured' THEN
                amount > 0 AND legs = 2 AND is_numbered AND is_one_currency AND is_open AND is_between
                AND source_posted = -amount AND net = 0 AND source_held <= -amount AND destination_held = 0
                AND source = 'customer' AND destination IN ('customer', 'settlement')
            WHEN kind IN ('hold_voided', 'hold_expired') THEN
                amount > 0 AND legs = 1 AND is_numbered AND is_one_currency
                AND net = 0 AND source_held = -amount AND source = 'customer'
            ELSE false
            END AS is_allowed
        FROM journal
    )
    SELECT (SELECT count(*) FILTER (WHERE is_allowed IS NOT TRUE) FROM verdict),
           (SELECT count(*) FILTER (WHERE continues IS NOT TRUE AND kind IS NOT NULL) FROM leg),
           (SELECT count(*) FILTER (WHERE is_beyond) FROM leg)
    INTO v_forbidden, v_discontinued, v_beyond;

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
    IF j_kind && ARRAY['hold_placed', 'hold_captured', 'hold_voided', 'hold_expired'] THEN
        PERFORM book_holds(p_from);
    END IF;
    IF 'reversal' = ANY (j_kind) THEN
        PERFORM check_reversals(p_from);
    END IF;
    IF 'account_changed' = ANY (j_kind) THEN
        PERFORM change_accounts(p_from);
    END IF;

    PERFORM keep_outcomes(k_principal, k_key, k_fingerprint, k_sequence, k_outcome, p_time);

    IF cardinality(a_event) > 0 THEN
        INSERT INTO audit_events (at, actor, event, outcome, subject, ip, request_id, detail)
        SELECT p_time, actor, event, outcome, subject, ip::inet, request_id, detail::jsonb
        FROM unnest(a_actor, a_event, a_outcome, a_subject, a_ip, a_request_id, a_detail)
            AS a (actor, event, outcome, subject, ip, request_id, detail);
    END IF;
END
$$;

-- Opens the accounts of the journals after p_from. A journal of an account says its kind, owner and type.
CREATE OR REPLACE FUNCTION open_accounts(p_from bigint)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
BEGIN
    INSERT INTO accounts (id, epoch, owner_id, kind, type, currency, name, status, minimum_balance, metadata, created_at)
    SELECT sequence, epoch, (detail ->> 'owner')::uuid, detail ->> 'kind', detail ->> 'type', currency,
           coalesce(description, ''), 'active', CASE detail ->> 'kind' WHEN 'customer' THEN 0 END, metadata, booked_at
    FROM journals WHERE sequence > p_from AND kind = 'account_opened';
    INSERT INTO account_balances (account_id, posted, held, version, updated_at)
    SELECT sequence, 0, 0, 0, booked_at
    FROM journals WHERE sequence > p_from AND kind = 'account_opened';
END
$$;

-- Changes the account of the one journal after p_from. What its detail does not name stays as it is; a closed account
-- stays closed, and only an empty one is closed.
CREATE OR REPLACE FUNCTION change_accounts(p_from bigint)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
DECLARE
    v_journal journals;
BEGIN
    -- By itself: what comes before or after it in a batch would be judged by the account as it is at one moment.
    IF (SELECT count(*) FROM journals WHERE sequence > p_from) <> 1 THEN
        RAISE EXCEPTION 'an account changes in a batch of its own' USING ERRCODE = 'FF002';
    END IF;
    SELECT * INTO v_journal FROM journals WHERE sequence > p_from;
    UPDATE accounts a
    SET status = coalesce(c.status, a.status),
        name = coalesce(v_journal.description, a.name),
        metadata = CASE WHEN c.clears_metadata THEN NULL ELSE coalesce(v_journal.metadata, a.metadata) END,
        (minimum_balance, per_transaction_limit, daily_limit, monthly_limit) = (
            SELECT CASE WHEN c.limits IS NULL THEN a.minimum_balance ELSE l.minimum_balance END,
                   CASE WHEN c.limits IS NULL THEN a.per_transaction_limit ELSE l.per_transaction END,
                   CASE WHEN c.limits IS NULL THEN a.daily_limit ELSE l.daily END,
                   CASE WHEN c.limits IS NULL THEN a.monthly_limit ELSE l.monthly END
            FROM jsonb_to_record(coalesce(c.limits, '{}'))
                AS l (minimum_balance bigint, per_transaction bigint, daily bigint, monthly bigint))
    FROM json_to_record(v_journal.detail) AS c (account bigint, status text, limits jsonb, clears_metadata bool),
         account_balances b
    WHERE a.id = c.account AND b.account_id = a.id AND a.kind = 'customer' AND a.currency = v_journal.currency
      AND a.status <> 'closed' AND (c.status IS DISTINCT FROM 'closed' OR b.posted = 0 AND b.held = 0);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the account cannot be changed so' USING ERRCODE = 'FF004';
    END IF;
END
$$;

-- Brings holds to what the journals after p_from say.
CREATE OR REPLACE FUNCTION book_holds(p_from bigint)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
DECLARE
    v_settled bigint;
    v_matched bigint;
BEGIN
    INSERT INTO holds (id, epoch, account_id, destination_id, amount, remaining, captured, status, expires_at, created_at)
    SELECT j.sequence, j.epoch, e.account_id, (j.detail ->> 'destination')::bigint, j.amount, j.amount, 0, 'held',
           (j.detail ->> 'expires_at')::timestamptz, j.booked_at
    FROM journals j JOIN entries e ON e.sequence = j.sequence
    WHERE j.sequence > p_from AND j.kind = 'hold_placed';

    WITH settled AS (
        SELECT j.refers_to AS id, e.account_id, j.currency, count(*) AS journals, sum(-e.held_delta) AS released,
               sum(-e.posted_delta) AS captured, (array_agg(j.kind ORDER BY j.sequence DESC))[1] AS kind,
               min(j.sequence) AS first
        FROM journals j JOIN entries e ON e.sequence = j.sequence AND e.leg = 0
        WHERE j.sequence > p_from AND j.kind IN ('hold_captured', 'hold_voided', 'hold_expired')
        GROUP BY j.refers_to, e.account_id, j.currency
    ), matched AS (
        UPDATE holds h
        SET remaining = h.remaining - s.released, captured = h.captured + s.captured,
            status = CASE
                WHEN h.remaining > s.released THEN 'held'
                WHEN h.captured + s.captured > 0 THEN 'captured'
                WHEN s.kind = 'hold_expired' THEN 'expired'
                ELSE 'voided'
            END
        FROM settled s
        WHERE h.id = s.id AND h.account_id = s.account_id AND h.id < s.first AND h.remaining >= s.released
        RETURNING s.journals
    )
    SELECT (SELECT sum(journals) FROM settled), (SELECT sum(journals) FROM matched) INTO v_settled, v_matched;
    IF v_settled IS DISTINCT FROM v_matched THEN
        RAISE EXCEPTION 'a hold is not there, or not enough of it is left' USING ERRCODE = 'FF004';
    END IF;
END
$$;

-- Each reversal after p_from undoes one earlier journal, entry by entry.
CREATE OR REPLACE FUNCTION check_reversals(p_from bigint)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM journals r LEFT JOIN journals o ON o.sequence = r.refers_to AND o.sequence < r.sequence
            AND o.kind IN ('deposit', 'withdrawal', 'transfer', 'journal', 'hold_captured')
            AND o.currency = r.currency AND o.amount = r.amount
        WHERE r.sequence > p_from AND r.kind = 'reversal'
          AND (o.sequence IS NULL OR EXISTS (
              SELECT FROM (SELECT leg, account_id, posted_delta FROM entries WHERE sequence = r.sequence) undone
              FULL JOIN (SELECT leg, account_id, posted_delta FROM entries WHERE sequence = o.sequence) done
                  USING (leg, account_id)
              WHERE undone.posted_delta IS DISTINCT FROM -done.posted_delta))
    ) THEN
        RAISE EXCEPTION 'a reversal does not undo its journal' USING ERRCODE = 'FF004';
    END IF;
END
$$;
