-- Queues that were to run empty take jobs again.
ALTER TABLE queues DROP COLUMN draining;
