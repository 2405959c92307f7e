-- Purpose:   forgets the secrets of an owner below a version.
-- Arguments: 1 owner, 2 version.
-- Returns:   nothing.
-- Invariant: later ones stay.
DELETE FROM signing_secrets WHERE owner = ?1 AND version < ?2;
