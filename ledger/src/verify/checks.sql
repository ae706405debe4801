-- What the other tables and the entries make of the journals, looked for where it does not hold. One row per finding,
-- at most $1 of them, every check's first findings before any check's second ones; `total` counts them all.
-- Sums are numeric: what somebody wrote past the rules may not fit a bigint.
WITH
steps AS (
    SELECT account_id, seq, sequence, posted_after, held_after,
        lag(seq, 1, 0::bigint) OVER account + 1 AS seq_due,
        lag(posted_after, 1, 0::bigint) OVER account::numeric + posted_delta AS posted_due,
        lag(held_after, 1, 0::bigint) OVER account::numeric + held_delta AS held_due
    FROM entries WINDOW account AS (PARTITION BY account_id ORDER BY seq)
),
finals AS (
    SELECT DISTINCT ON (account_id) account_id, seq, posted_after, held_after
    FROM entries ORDER BY account_id, seq DESC
),
openings AS (
    SELECT sequence, epoch, booked_at, currency, detail ->> 'kind' AS kind, detail ->> 'owner' AS owner,
        detail ->> 'type' AS type
    FROM journals WHERE kind = 'account_opened'
),
-- What changes have made of accounts. Compared as text: what was tampered with may be no number.
changes AS (
    SELECT detail ->> 'account' AS account,
        (array_agg(detail ->> 'status' ORDER BY sequence DESC)
            FILTER (WHERE detail ->> 'status' IS NOT NULL))[1] AS status,
        (array_agg(detail -> 'limits' ORDER BY sequence DESC)
            FILTER (WHERE detail ->> 'limits' IS NOT NULL))[1] AS limits
    FROM journals WHERE kind = 'account_changed' GROUP BY 1
),
-- The last words on each account: those that opened it, or a change's.
words AS (
    SELECT account,
        (array_agg(description ORDER BY sequence DESC) FILTER (WHERE description IS NOT NULL))[1] AS name,
        (array_agg(metadata ORDER BY sequence DESC) FILTER (WHERE metadata IS NOT NULL))[1] AS metadata,
        bool_or(commitment IS NOT NULL) AS is_erased
    FROM (
        SELECT sequence::text AS account, sequence, description, metadata, commitment
        FROM journals WHERE kind = 'account_opened'
        UNION ALL
        SELECT detail ->> 'account', sequence, description,
            CASE WHEN detail ->> 'clears_metadata' = 'true' THEN '{}' ELSE metadata END, commitment
        FROM journals WHERE kind = 'account_changed'
    ) AS said GROUP BY account
),
placed AS (
    SELECT sequence AS id, epoch, account_id, amount, booked_at, detail ->> 'destination' AS destination,
        detail ->> 'expires_at' AS expires_at
    FROM journals LEFT JOIN entries USING (sequence) WHERE kind = 'hold_placed'
),
settled AS (
    SELECT refers_to AS id, min(sequence) AS first, sum(-held_delta) AS freed, sum(-posted_delta) AS took,
        (array_agg(kind ORDER BY sequence DESC))[1] AS kind,
        min(account_id) AS account_id, max(account_id) AS other_account
    FROM journals JOIN entries USING (sequence)
    WHERE kind IN ('hold_captured', 'hold_voided', 'hold_expired') AND leg = 0
    GROUP BY refers_to
),
-- What holds must be: what is there beside what the journals say.
hold_states AS (
    SELECT coalesce(hold.id, due.id, settled.id) AS id,
        coalesce(due.account_id, hold.account_id, settled.account_id) AS account_id,
        due.id IS NULL AS is_unplaced,
        settled.id IS NOT NULL AND (due.id IS NULL OR first < due.id OR freed > due.amount
            OR (settled.account_id, other_account) IS DISTINCT FROM (due.account_id, due.account_id)) AS is_mismatched,
        format('%s of %s of account %s left, %s taken, %s, to %s until %s, of epoch %s at %s', hold.remaining,
            hold.amount, hold.account_id, hold.captured, hold.status, coalesce(hold.destination_id::text, 'nobody'),
            coalesce(rtrim(rtrim(to_char(hold.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '0'), '.')
                || 'Z', 'ever'), hold.epoch, hold.created_at) AS found,
        format('%s of %s of account %s left, %s taken, %s, to %s until %s, of epoch %s at %s', left_over, due.amount,
            due.account_id, taken, CASE
                WHEN left_over > 0 THEN 'held'
                WHEN taken > 0 THEN 'captured'
                WHEN settled.kind = 'hold_expired' THEN 'expired'
                ELSE 'voided'
            END, coalesce(destination, 'nobody'), coalesce(due.expires_at, 'ever'), due.epoch, due.booked_at) AS due
    FROM holds AS hold
    FULL JOIN placed AS due USING (id)
    FULL JOIN settled ON settled.id = coalesce(hold.id, due.id)
    CROSS JOIN LATERAL (SELECT due.amount - coalesce(freed, 0) AS left_over, coalesce(took, 0) AS taken) AS rest
),
now AS (
    SELECT date_trunc('month', head_time AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month FROM ledger_head
),
-- What left accounts in the month of the head: on the day of their last movement, and in that month.
spendings AS (
    SELECT account_id, sum(spent) FILTER (WHERE day = last_day AND (since IS NULL OR since = day)) AS day,
        sum(spent) FILTER (WHERE since IS NULL OR since >= month) AS month
    FROM (
        SELECT entry.account_id, (journal.booked_at AT TIME ZONE 'UTC')::date AS day,
            (month AT TIME ZONE 'UTC')::date AS month,
            (balance.updated_at AT TIME ZONE 'UTC')::date AS last_day,
            CASE journal.kind
                WHEN 'withdrawal' THEN -posted_delta
                WHEN 'transfer' THEN -posted_delta
                WHEN 'hold_placed' THEN held_delta
                WHEN 'hold_captured' THEN held_delta - posted_delta
                WHEN 'hold_voided' THEN held_delta
                WHEN 'hold_expired' THEN held_delta
                ELSE 0
            END AS spent,
            -- What a hold gives back counts only in the day and the month in which it was placed.
            CASE WHEN journal.kind IN ('hold_captured', 'hold_voided', 'hold_expired')
                THEN (placed.booked_at AT TIME ZONE 'UTC')::date END AS since
        FROM now JOIN journals AS journal ON journal.booked_at >= month
        JOIN entries AS entry USING (sequence)
        JOIN account_balances AS balance ON balance.account_id = entry.account_id
        LEFT JOIN placed ON placed.id = journal.refers_to
        WHERE leg = 0
    ) AS movement GROUP BY account_id
),
findings (name, account_id, sequence, detail) AS (
    SELECT 'head', NULL::bigint, NULL::bigint,
        format('the head is at %s of epoch %s with hash %s, the last journal is %s of epoch %s with hash %s',
            coalesce(head.sequence::text, 'no sequence'), head.epoch, encode(head.hash, 'hex'),
            coalesce(last.sequence, 0), last.epoch, encode(last.hash, 'hex'))
    FROM (SELECT 1) AS one LEFT JOIN ledger_head AS head ON true
    LEFT JOIN (SELECT sequence, epoch, hash, booked_at FROM journals ORDER BY sequence DESC LIMIT 1) AS last ON true
    WHERE head.sequence IS DISTINCT FROM coalesce(last.sequence, 0) OR head.epoch <> last.epoch
        OR head.hash IS DISTINCT FROM coalesce(last.hash, decode(repeat('00', 32), 'hex'))
        OR head.head_time < last.booked_at

    UNION ALL
    SELECT 'entry-journal', NULL, sequence, format('%s entries belong to no journal', count(*))
    FROM entries WHERE NOT EXISTS (SELECT FROM journals WHERE journals.sequence = entries.sequence) GROUP BY sequence

    UNION ALL
    SELECT 'journal-text', NULL, sequence, CASE WHEN commitment IS NULL
        THEN 'there is text that nothing commits to' ELSE 'there is text beside the commitment that stands for it' END
    FROM journals
    WHERE (salt IS NULL OR commitment IS NOT NULL)
        AND (description IS NOT NULL OR category IS NOT NULL OR reference IS NOT NULL OR metadata IS NOT NULL)

    UNION ALL
    SELECT 'reversal', NULL, reversal.sequence,
        format('it does not undo journal %s, or is not the only one to', reversal.refers_to)
    FROM (SELECT *, count(*) OVER (PARTITION BY refers_to) AS times FROM journals WHERE kind = 'reversal') AS reversal
    LEFT JOIN journals AS original ON original.sequence = reversal.refers_to AND original.sequence < reversal.sequence
        AND original.kind IN ('deposit', 'withdrawal', 'transfer', 'journal', 'hold_captured')
    WHERE times > 1 OR original.sequence IS NULL OR EXISTS (
        SELECT FROM (SELECT leg, account_id, posted_delta FROM entries WHERE sequence = reversal.sequence) AS undone
        FULL JOIN (SELECT leg, account_id, posted_delta FROM entries WHERE sequence = original.sequence) AS done
            USING (leg, account_id)
        WHERE undone.posted_delta IS DISTINCT FROM -done.posted_delta)

    UNION ALL
    SELECT 'hold', account_id, id, CASE
        WHEN is_unplaced THEN format('no journal placed hold %s', id)
        WHEN is_mismatched THEN format('the journals that settle hold %s do not match it', id)
        ELSE format('the hold is %s; the journals say %s', found, due) END
    FROM hold_states WHERE is_unplaced OR is_mismatched OR found <> due

    UNION ALL
    SELECT 'spent', account_id, NULL, format('%s is counted for the day of the last movement and %s for its month, the '
        'journals say %s and %s', spent_day, spent_month, greatest(day, 0), greatest(spending.month, 0))
    FROM now JOIN account_balances AS balance ON balance.updated_at >= month
    LEFT JOIN spendings AS spending USING (account_id)
    WHERE (spent_day, spent_month) IS DISTINCT FROM (greatest(day, 0), greatest(spending.month, 0))

    UNION ALL
    SELECT 'entry-currency', account_id, sequence,
        format('an entry of a journal in %s on an account in %s', journal.currency, account.currency)
    FROM entries JOIN journals AS journal USING (sequence) JOIN accounts AS account ON account.id = account_id
    WHERE journal.currency <> account.currency

    UNION ALL
    SELECT finding.name, account_id, sequence, finding.detail
    FROM steps
    CROSS JOIN LATERAL (VALUES
        ('entry-order', CASE WHEN seq <> seq_due THEN format('entry %s follows where %s is due', seq, seq_due) END),
        ('entry-running', CASE WHEN (posted_after, held_after) IS DISTINCT FROM (posted_due, held_due)
            THEN format('entry %s leaves %s posted and %s held, its deltas give %s and %s',
                seq, posted_after, held_after, posted_due, held_due) END)
    ) AS finding (name, detail)
    WHERE finding.detail IS NOT NULL

    UNION ALL
    SELECT finding.name, id, NULL, finding.detail
    FROM (
        SELECT accounts.*, format('%s account of %s for %s in %s, %s, opened at %s, limits %s, %s, %s, %s', kind,
            coalesce(owner_id::text, 'the bank'), type, currency, status, created_at, minimum_balance,
            per_transaction_limit, daily_limit, monthly_limit) AS found
        FROM accounts
    ) AS account
    FULL JOIN (SELECT account_id AS id, posted, held, version FROM account_balances) AS balance USING (id)
    FULL JOIN (SELECT account_id AS id, seq, posted_after, held_after FROM finals) AS final USING (id)
    LEFT JOIN openings AS opening ON opening.sequence = id AND opening.epoch = account.epoch
    LEFT JOIN changes AS change ON change.account = id::text
    LEFT JOIN words ON words.account = id::text
    CROSS JOIN LATERAL (
        SELECT format('%s account of %s for %s in %s, %s, opened at %s, limits %s, %s, %s, %s', opening.kind,
            coalesce(opening.owner, 'the bank'), opening.type, opening.currency, coalesce(change.status, 'active'),
            booked_at, coalesce(limits ->> 'minimum_balance', CASE opening.kind WHEN 'customer' THEN '0' END),
            limits ->> 'per_transaction', limits ->> 'daily', limits ->> 'monthly') AS due
    ) AS said
    CROSS JOIN LATERAL (VALUES
        ('account', CASE WHEN account.epoch IS NULL
            THEN format('there are balances or entries of %s, which is no account', id) END),
        ('account-opening', CASE WHEN account.epoch IS NOT NULL AND opening.sequence IS NULL
            THEN format('no journal opens account %s', id) END),
        ('account-state', CASE
            WHEN opening.sequence IS NOT NULL AND found <> due
            THEN format('it is a %s; the journals say a %s', found, due)
            WHEN opening.sequence IS NOT NULL AND NOT is_erased
                AND (account.name, coalesce(account.metadata, '{}'))
                    IS DISTINCT FROM (coalesce(words.name, ''), coalesce(words.metadata, '{}'))
            THEN 'its name or data are not those of its journals' END),
        ('balance', CASE
            WHEN version IS NULL THEN 'the account has no balance'
            WHEN (posted, held, version) IS DISTINCT FROM
                (coalesce(posted_after, 0), coalesce(held_after, 0), coalesce(seq, 0))
            THEN format('the balance is %s posted and %s held at version %s, the entries give %s and %s at %s',
                posted, held, version, coalesce(posted_after, 0), coalesce(held_after, 0), coalesce(seq, 0)) END),
        ('floor', CASE
            WHEN held < 0 THEN format('%s is held', held)
            WHEN posted::numeric - held < minimum_balance
            THEN format('%s is available, the floor is %s', posted::numeric - held, minimum_balance) END)
    ) AS finding (name, detail)
    WHERE finding.detail IS NOT NULL

    UNION ALL
    SELECT 'trial-balance', NULL, NULL, format('all balances in %s add up to %s, not 0', currency, sum(posted))
    FROM accounts JOIN account_balances ON account_id = id
    GROUP BY currency HAVING sum(posted) <> 0
)
SELECT findings.name, findings.account_id, account.epoch AS account_epoch, findings.sequence, findings.detail,
    count(*) OVER () AS total
FROM findings LEFT JOIN accounts AS account ON account.id = findings.account_id
ORDER BY
    row_number() OVER (PARTITION BY findings.name ORDER BY findings.account_id, findings.sequence, findings.detail),
    findings.name
LIMIT $1
