-- Purpose:   tenants whose credential policy is not the usual one.
-- Arguments: none.
-- Returns:   name, credential_policy.
-- Invariant: writes nothing; cost depends on the number of tenants for whom something is set.
SELECT name, credential_policy FROM tenants WHERE credential_policy <> 'own_then_default'
