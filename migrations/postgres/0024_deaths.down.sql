-- Takes back 0024_deaths: deaths are counted from anew where it comes again.

DROP INDEX budget_alerts_at;
ALTER TABLE queue_totals DROP COLUMN died;
