-- Purpose:   the preflight: a claimed job with its payload, if it may run now.
-- Arguments: 1 id, 2 epoch of the claim, 3 now.
-- Returns:   the columns of job_rows, then payload and fallback chain; no row for a job that moved on, ended or is not due.
-- Invariant: writes nothing.
SELECT r.*, p.body, p.fallback
FROM job_rows r JOIN payloads p ON p.seq = r.seq
WHERE r.id = ?1 AND r.epoch = ?2 AND r.standing = 0 AND r.run_at <= ?3;
