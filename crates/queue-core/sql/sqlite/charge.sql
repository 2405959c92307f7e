-- Purpose:   what a succeeded job is charged.
-- Arguments: 1 job_id, 2 tenant, 3 queue, 4 kind, 5 operation, 6 charge_nanousd, 7 at.
-- Returns:   nothing.
-- Invariant: one charge a job; fenced like the settle that writes it.
INSERT INTO charges (job_id, tenant, queue, kind, operation, charge_nanousd, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);
