-- Undoes 0020_schedules.sql. Jobs that were submitted stay, and are the batches `schedule:…`.
DROP TABLE schedules;
