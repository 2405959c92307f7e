-- Queues may run empty: what waits is run, and nothing new is taken. A constant default: the table is not written anew.
ALTER TABLE queues ADD COLUMN draining boolean NOT NULL DEFAULT FALSE;
