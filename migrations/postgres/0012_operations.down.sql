-- Operations that run end with their rows; what they did stays.
DROP INDEX jobs_dead_of_cause;
DROP INDEX jobs_dead_cause;
CREATE INDEX jobs_dead_cause ON jobs (error_signature, error_class, queue) INCLUDE (finished_at, cost_nanousd)
    WHERE standing = 2;
DROP INDEX jobs_dead_tenant;
CREATE INDEX jobs_dead_tenant ON jobs (tenant, error_signature, error_class, queue) INCLUDE (finished_at, cost_nanousd, key_id)
    WHERE standing = 2;
DROP TRIGGER dead_letter_gone ON jobs;
DROP TRIGGER dead_letter_changed ON jobs;
DROP TRIGGER dead_letter_made ON jobs;
DROP FUNCTION note_dead();
DROP TABLE dead_tail;
DROP TABLE dead_causes;
DROP TABLE operations;
