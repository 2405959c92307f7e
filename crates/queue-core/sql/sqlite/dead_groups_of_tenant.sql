-- Purpose:   the dead letters of a tenant by cause, most first.
-- Arguments: 1 queue or NULL, 2 limit, 3 tenant.
-- Returns:   signature, class, count, first and last finished_at, cost_nanousd.
-- Invariant: cost depends on the number of causes, not of letters: sums, and the ends of each cause's part of the index.
WITH causes AS (
    SELECT signature, class, sum(letters) AS letters, sum(cost_nanousd) AS cost_nanousd
    FROM dead_causes
    WHERE letters > 0 AND tenant = ?3 AND (?1 IS NULL OR queue = ?1)
    GROUP BY signature, class
    ORDER BY sum(letters) DESC, signature, class
    LIMIT ?2
)
SELECT c.signature, c.class, c.letters,
       (SELECT min((SELECT finished_at FROM jobs
                    WHERE standing = 2 AND tenant = ?3 AND error_signature = c.signature AND error_class = c.class
                      AND queue = d.queue
                    ORDER BY finished_at LIMIT 1))
        FROM dead_causes AS d
        WHERE d.signature = c.signature AND d.class = c.class AND d.letters > 0 AND d.tenant = ?3
          AND (?1 IS NULL OR d.queue = ?1)),
       (SELECT max((SELECT finished_at FROM jobs
                    WHERE standing = 2 AND tenant = ?3 AND error_signature = c.signature AND error_class = c.class
                      AND queue = d.queue
                    ORDER BY finished_at DESC LIMIT 1))
        FROM dead_causes AS d
        WHERE d.signature = c.signature AND d.class = c.class AND d.letters > 0 AND d.tenant = ?3
          AND (?1 IS NULL OR d.queue = ?1)),
       c.cost_nanousd
FROM causes AS c
ORDER BY c.letters DESC, c.signature, c.class;
