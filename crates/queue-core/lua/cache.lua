-- Purpose: gives a lock of the cache back, and keeps the value that was made under it.
-- Keys: 1 the lock   2 the value. Both have one hash tag, which is the key's hash.
-- Arguments: 1 the fence of the caller's lock, 2 '1' where there is a value, 3 the value, 4 for how long, in ms.
-- Returns: 1 where the lock was the caller's, else 0.
-- Invariant: who lost the lock changes nothing.
local function run(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then return 0 end
  redis.call('DEL', keys[1])
  if args[2] == '1' then redis.call('SET', keys[2], args[3], 'PX', tonumber(args[4])) end
  return 1
end
