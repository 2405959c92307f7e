-- Undoes 0007_budgets.sql. Budgets, alerts, what keys have spent and what tenants may ask for are lost with it, and so
-- are rights that were given on the view.

DROP TRIGGER spend_of_keys_noted ON spend;
DROP FUNCTION note_spend_of_keys;
DROP TABLE key_tail;
DROP TABLE key_days;
DROP TABLE budget_alerts;
DROP TABLE budgets;
DROP VIEW job_rows;
DROP INDEX jobs_over_budget;
ALTER TABLE tenants DROP COLUMN rules;
ALTER TABLE spend DROP COLUMN key_id;
ALTER TABLE settled_jobs DROP COLUMN max_cost_nanousd;
ALTER TABLE settled_jobs DROP COLUMN key_id;
ALTER TABLE jobs DROP COLUMN max_cost_nanousd;
ALTER TABLE jobs DROP COLUMN key_id;

CREATE VIEW job_rows AS
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, NULL::text AS cancel_reason, error_class, error_signature,
       concurrency_key
FROM jobs
UNION ALL
SELECT id, tenant, queue, kind, target, priority, standing, epoch, attempts, max_attempts, recoveries, releases,
       redrives, run_at, start_by, deadline, timeout_ms, accepted_at, finished_at, unique_key, operation, batch_id,
       tags, request_id, traceparent, error, served_by, tokens_in, tokens_out, tokens_cached, tokens_cache_write,
       tokens_reasoning, cost_nanousd, cost_unknown, cancel_reason, error_class, error_signature,
       concurrency_key
FROM settled_jobs;
