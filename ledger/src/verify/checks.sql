-- Everything the ledger's rules promise, looked for where it does not hold. One row per finding, at most $1 of them,
-- every check's first findings before any check's second ones; `total` counts them all.
-- Sums are numeric: what somebody wrote past the rules may not fit a bigint.
WITH
gaps AS (
    SELECT lag(sequence, 1, 0::bigint) OVER (ORDER BY sequence) + 1 AS first, sequence - 1 AS last FROM journals
),
sides AS (
    SELECT sequence, count(*) AS entries, sum(posted_delta) AS net,
        sum(posted_delta) FILTER (WHERE posted_delta > 0) AS moved
    FROM entries GROUP BY sequence
),
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
findings (name, account_id, sequence, detail) AS (
    SELECT 'head', NULL::bigint, NULL::bigint, format('the head is at %s, the last journal is %s',
        coalesce(head.sequence::text, 'no sequence'), coalesce(last.sequence, 0))
    FROM (SELECT max(sequence) AS sequence FROM journals) AS last LEFT JOIN ledger_head AS head ON true
    WHERE head.sequence IS DISTINCT FROM coalesce(last.sequence, 0)

    UNION ALL
    SELECT 'journal-order', NULL, first, format('journals %s to %s are missing', first, last) FROM gaps WHERE first <= last

    UNION ALL
    SELECT finding.name, NULL, sequence, finding.detail
    FROM journals FULL JOIN sides USING (sequence)
    CROSS JOIN LATERAL (VALUES
        ('entry-journal', CASE WHEN kind IS NULL THEN format('%s entries belong to no journal', entries) END),
        ('journal-balance', CASE WHEN net <> 0 THEN format('the entries add up to %s, not 0', net) END),
        ('journal-amount', CASE WHEN entries > 0 AND amount <> coalesce(moved, 0)
            THEN format('the entries move %s, the journal says %s', coalesce(moved, 0), amount) END),
        ('journal-entries', CASE
            WHEN kind = 'account_opened' AND entries > 0 THEN format('an opening has %s entries', entries)
            WHEN kind <> 'account_opened' AND coalesce(entries, 0) < 2
            THEN format('a %s has %s entries', kind, coalesce(entries, 0)) END)
    ) AS finding (name, detail)
    WHERE finding.detail IS NOT NULL

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
    FROM (SELECT id, epoch, minimum_balance FROM accounts) AS account
    FULL JOIN (SELECT account_id AS id, posted, held, version FROM account_balances) AS balance USING (id)
    FULL JOIN (SELECT account_id AS id, seq, posted_after, held_after FROM finals) AS final USING (id)
    LEFT JOIN journals AS opening
        ON opening.sequence = id AND opening.epoch = account.epoch AND opening.kind = 'account_opened'
    CROSS JOIN LATERAL (VALUES
        ('account', CASE WHEN account.epoch IS NULL
            THEN format('there are balances or entries of %s, which is no account', id) END),
        ('account-opening', CASE WHEN account.epoch IS NOT NULL AND opening.sequence IS NULL
            THEN format('no journal opens account %s', id) END),
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
