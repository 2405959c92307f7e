-- Queues may run empty: what waits is run, and nothing new is taken.
ALTER TABLE queues ADD COLUMN draining INTEGER NOT NULL DEFAULT 0 CHECK (draining IN (0, 1));
