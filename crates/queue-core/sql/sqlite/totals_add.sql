-- Purpose:   adds what a transaction did to a queue's numbers.
-- Arguments: 1 queue, 2 accepted, 3 succeeded, 4 cancelled, 5 dead, 6 died, 7 live.
-- Returns:   nothing.
-- Invariant: once for each queue of a transaction; numbers never become negative (CHECK).
UPDATE queue_totals
SET accepted = accepted + ?2, succeeded = succeeded + ?3, cancelled = cancelled + ?4, dead = dead + ?5, died = died + ?6,
    live = live + ?7
WHERE queue = ?1;
