-- How many jobs of a queue became dead letters since it exists: what an error rate is reckoned from. `dead` is what is left of them now.
-- And the newest alerts of budgets without reading all.

ALTER TABLE queue_totals ADD COLUMN died INTEGER NOT NULL DEFAULT 0 CHECK (died >= 0);
-- Those of before are not known; these at least.
UPDATE queue_totals SET died = dead;

CREATE INDEX budget_alerts_at ON budget_alerts (at);
