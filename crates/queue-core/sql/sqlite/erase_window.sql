-- Purpose:   a step of the walk: what the large tables have of erased tenants among their rows with these numbers, and a
--            bounded part of their keys of requests.
-- Arguments: none; a script of several statements. `erase_hold` says which numbers.
-- Returns:   nothing.
-- Invariant: live jobs stay, and are counted as found: they have to be cancelled first. What hangs on a job goes before the job, what
--            hangs on a row of money before that row.
UPDATE erasures SET found = found + met.n, erased = erased + met.n - met.live
FROM (
    SELECT tenant, sum(n) AS n, sum(live) AS live FROM (
        SELECT tenant, 1 AS n, standing = 0 AS live FROM erasure_walk CROSS JOIN jobs WHERE seq > passed AND seq <= upto
        UNION ALL SELECT tenant, 1, 0 FROM erasure_walk CROSS JOIN spend WHERE spend.rowid > passed AND spend.rowid <= upto
        UNION ALL SELECT tenant, 1, 0 FROM erasure_walk CROSS JOIN charges WHERE charges.rowid > passed AND charges.rowid <= upto
        UNION ALL SELECT tenant, 1, 0 FROM erasure_walk CROSS JOIN savings WHERE savings.rowid > passed AND savings.rowid <= upto
        UNION ALL SELECT tenant, 1, 0 FROM erasure_walk CROSS JOIN webhook_deliveries WHERE seq > passed AND seq <= upto
    ) JOIN erasures USING (tenant) GROUP BY tenant
) AS met
WHERE met.tenant = erasures.tenant;
UPDATE queue_totals SET dead = dead - gone.letters
FROM (
    SELECT queue, count(*) AS letters FROM erasure_walk CROSS JOIN jobs
    WHERE seq > passed AND seq <= upto AND standing = 2 AND tenant IN (SELECT tenant FROM erasures)
    GROUP BY queue
) AS gone
WHERE gone.queue = queue_totals.queue;
DELETE FROM payloads WHERE seq IN (
    SELECT seq FROM erasure_walk CROSS JOIN jobs
    WHERE seq > passed AND seq <= upto AND standing > 0 AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM results WHERE seq IN (
    SELECT seq FROM erasure_walk CROSS JOIN jobs
    WHERE seq > passed AND seq <= upto AND standing > 0 AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM attempts WHERE seq IN (
    SELECT seq FROM erasure_walk CROSS JOIN jobs
    WHERE seq > passed AND seq <= upto AND standing > 0 AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM memos WHERE job_id IN (
    SELECT id FROM erasure_walk CROSS JOIN jobs
    WHERE seq > passed AND seq <= upto AND standing > 0 AND tenant IN (SELECT tenant FROM erasures)
    UNION ALL
    SELECT job_id FROM erasure_walk CROSS JOIN spend
    WHERE spend.rowid > passed AND spend.rowid <= upto AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM jobs WHERE seq IN (
    SELECT seq FROM erasure_walk CROSS JOIN jobs
    WHERE seq > passed AND seq <= upto AND standing > 0 AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM spend WHERE rowid IN (
    SELECT spend.rowid FROM erasure_walk CROSS JOIN spend
    WHERE spend.rowid > passed AND spend.rowid <= upto AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM charges WHERE rowid IN (
    SELECT charges.rowid FROM erasure_walk CROSS JOIN charges
    WHERE charges.rowid > passed AND charges.rowid <= upto AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM savings WHERE rowid IN (
    SELECT savings.rowid FROM erasure_walk CROSS JOIN savings
    WHERE savings.rowid > passed AND savings.rowid <= upto AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM webhook_attempts WHERE delivery IN (
    SELECT seq FROM erasure_walk CROSS JOIN webhook_deliveries
    WHERE seq > passed AND seq <= upto AND tenant IN (SELECT tenant FROM erasures));
DELETE FROM webhook_deliveries WHERE seq IN (
    SELECT seq FROM erasure_walk CROSS JOIN webhook_deliveries
    WHERE seq > passed AND seq <= upto AND tenant IN (SELECT tenant FROM erasures));
UPDATE erasures SET found = found
    + (SELECT count(*) FROM (SELECT 1 FROM idempotency_keys k WHERE k.tenant = erasures.tenant LIMIT 5000))
    + (SELECT count(*) FROM (SELECT 1 FROM idempotency_keys k
                             WHERE k.tenant > erasures.tenant || char(31) AND k.tenant < erasures.tenant || char(32) LIMIT 5000))
    + (SELECT count(*) FROM (SELECT 1 FROM unique_keys k WHERE k.tenant = erasures.tenant LIMIT 5000));
DELETE FROM idempotency_keys WHERE (tenant, key, item) IN (
    SELECT k.tenant, k.key, k.item FROM erasures e CROSS JOIN idempotency_keys k ON k.tenant = e.tenant LIMIT 5000);
DELETE FROM idempotency_keys WHERE (tenant, key, item) IN (
    SELECT k.tenant, k.key, k.item
    FROM erasures e CROSS JOIN idempotency_keys k ON k.tenant > e.tenant || char(31) AND k.tenant < e.tenant || char(32)
    LIMIT 5000);
DELETE FROM unique_keys WHERE (tenant, key) IN (
    SELECT k.tenant, k.key FROM erasures e CROSS JOIN unique_keys k ON k.tenant = e.tenant LIMIT 5000);
