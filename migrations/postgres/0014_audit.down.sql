-- Undoes 0014_audit.sql. The log is lost with it: export it first.

DROP TABLE audit_heads;
DROP TABLE audit_log;
DROP FUNCTION audit_refuse();
DROP FUNCTION audit_forward();
