-- Undoes 0005_costs.sql. Savings, tiers, audio tokens and reasons of waste are lost with it; every call and its cost stay.

DROP VIEW longshore_jobs;
DROP VIEW longshore_calls;
DROP VIEW longshore_costs;
DROP TRIGGER charges_noted ON charges;
DROP TRIGGER waste_noted ON spend;
DROP TRIGGER spend_noted ON spend;
DROP VIEW cost_lines;
DROP TABLE savings;
DROP TABLE cost_tail;
DROP TABLE cost_days;
DROP FUNCTION note_savings();
DROP FUNCTION note_charges();
DROP FUNCTION note_waste();
DROP FUNCTION note_spend();
ALTER TABLE spend
    DROP COLUMN waste,
    DROP COLUMN opens_job,
    DROP COLUMN tier,
    DROP COLUMN tokens_audio_out,
    DROP COLUMN tokens_audio_in,
    DROP COLUMN tokens_cache_write_long;
