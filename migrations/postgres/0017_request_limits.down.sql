-- Keys and tenants are limited as configured again.
ALTER TABLE tenants DROP COLUMN llm_submits_per_minute;
ALTER TABLE tenants DROP COLUMN requests_per_minute;
ALTER TABLE api_keys DROP COLUMN llm_submits_per_minute;
ALTER TABLE api_keys DROP COLUMN requests_per_minute;
