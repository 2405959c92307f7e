-- Purpose: the budgets of a fleet: what is spent, reserved and whose lanes sleep. What src/budget/book.rs says in Rust; the two
--   are compared by the conformance suite and by random operations. A library of its own: it knows nothing of jobs.
-- Keys: 1 the prefix P, which holds the hash tag. The Rust side prepends the constants in capitals.
--     P:life        when this life began
--     P:a:<scope>   a budget: v version, 1 to 4 its limits, d and m when its day and month began, s1 to s4 spent, k '1' once that
--                   is known, f who reads the ledger, e1 to e4 committed since then, r1 and r2 reserved. Numbers 1 to 4 are
--                   money of the day and of the month, tokens of the day and of the month; r1 is money, r2 tokens
--     P:all         scopes by their last use
--     P:calls       call -> money, tokens, scopes (NUL between)      P:exp  calls by when their reservation expires
--     P:asleep      tenant -> scope, money, tokens, until, reason (NUL between)
-- Arguments: 1 verb, 2 the time in milliseconds, which only tests set ('': Redis' own); then the verb's own.
-- Invariant: a reservation is in all of its budgets or in none, and is taken back exactly once: by its commit or by its expiry.

local DAY_MS, NUL = 86400000, '\0'
-- Set by `run`, never left over from another call.
local call, P, now, day_now, month_now, accounts

local function number(n) return string.format('%.0f', n) end

-- When the UTC day and month of a moment began.
local function span_of(at)
  local floor = math.floor
  local days = floor(at / DAY_MS)
  local shifted = days + 719468
  local era = floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153)
  return days * DAY_MS, (days - of_year + floor((153 * month + 2) / 5)) * DAY_MS
end

local function end_of(account, at)
  if at % 2 == 1 then return account.d + DAY_MS end
  local _, month = span_of(account.m + 31 * DAY_MS)
  return month
end

local function kind_of(at) return at <= 2 and 1 or 2 end

-- Begins the periods that have begun; never goes back.
local function pass_time(account)
  local passed = { day_now > account.d, month_now > account.m }
  for at = 1, 4 do
    if passed[(at - 1) % 2 + 1] then account.s[at], account.e[at] = 0, 0 end
  end
  account.d, account.m = math.max(account.d, day_now), math.max(account.m, month_now)
end

local FIELDS = { 'v', '1', '2', '3', '4', 'd', 'm', 's1', 's2', 's3', 's4', 'k', 'f', 'e1', 'e2', 'e3', 'e4', 'r1', 'r2' }

-- The budget, its time passed; false where there is none and none is to be made.
local function account_of(scope, make)
  local account = accounts[scope]
  if account or account == false and not make then return account end
  local found = call('HMGET', P .. ':a:' .. scope, unpack(FIELDS))
  if not found[1] and not make then
    accounts[scope] = false
    return false
  end
  local function n(at) return tonumber(found[at] or '') or 0 end
  account = {
    v = n(1), limits = { tonumber(found[2] or ''), tonumber(found[3] or ''), tonumber(found[4] or ''), tonumber(found[5] or '') },
    d = n(6), m = n(7), s = { n(8), n(9), n(10), n(11) }, known = found[12] == '1', f = n(13),
    e = { n(14), n(15), n(16), n(17) }, r = { n(18), n(19) },
  }
  accounts[scope] = account
  pass_time(account)
  return account
end

local function touch(account) account.dirty = true end

local function save()
  for scope, account in pairs(accounts) do
    if account and account.dirty then
      local values = { 'v', number(account.v), 'd', number(account.d), 'm', number(account.m), 'k', account.known and '1' or '0',
        'f', number(account.f), 'r1', number(account.r[1]), 'r2', number(account.r[2]) }
      for at = 1, 4 do
        local limit = account.limits[at]
        for _, part in ipairs({ tostring(at), limit and number(limit) or '', 's' .. at, number(account.s[at]), 'e' .. at,
          number(account.e[at]) }) do
          values[#values + 1] = part
        end
      end
      local key = P .. ':a:' .. scope
      call('HSET', key, unpack(values))
      call('PEXPIRE', key, IDLE_MS)
      call('ZADD', P .. ':all', number(now), scope)
    end
  end
end

local function decode(text)
  local usd, tokens, rest = text:match('^([^%z]*)%z([^%z]*)%z(.*)$')
  local scopes = {}
  for scope in rest:gmatch('[^%z]+') do scopes[#scopes + 1] = scope end
  return { amount = { tonumber(usd), tonumber(tokens) }, scopes = scopes }
end

local function take_back(id)
  local text = call('HGET', P .. ':calls', id)
  if not text then return nil end
  call('HDEL', P .. ':calls', id)
  call('ZREM', P .. ':exp', id)
  local held = decode(text)
  for _, scope in ipairs(held.scopes) do
    local account = account_of(scope, false)
    if account then
      for kind = 1, 2 do account.r[kind] = account.r[kind] - held.amount[kind] end
      touch(account)
    end
  end
  return held
end

local function give(id, usd, tokens, scopes)
  for _, scope in ipairs(scopes) do
    local account = account_of(scope, true)
    account.r[1], account.r[2] = account.r[1] + usd, account.r[2] + tokens
    touch(account)
  end
  call('HSET', P .. ':calls', id, number(usd) .. NUL .. number(tokens) .. NUL .. table.concat(scopes, NUL))
  call('ZADD', P .. ':exp', number(now + RESERVED_MS), id)
end

local function sweep()
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. ':exp', '-inf', number(now), 'LIMIT', 0, SWEEP_MAX)) do take_back(id) end
end

local function is_passing(refusal) return refusal.spent + refusal.asked <= refusal.limit end

-- Whether a refusal is told rather than another: what will not fit before the end of its period, and the later end.
local function before(a, b)
  local pa, pb = is_passing(a), is_passing(b)
  if pa ~= pb then return not pa end
  return a.till > b.till
end

local function refusal_of(account, scope, asked, best)
  for at = 1, 4 do
    local limit, kind = account.limits[at], kind_of(at)
    if limit and account.s[at] + account.r[kind] + asked[kind] > limit then
      local next = { scope = scope, at = at, limit = limit, spent = account.s[at], reserved = account.r[kind],
        asked = asked[kind], till = end_of(account, at) }
      if not best or before(next, best) then best = next end
    end
  end
  return best
end

-- Takes limits that are not older from args: version, four limits.
local function set_limits(account, args, at)
  local version = tonumber(args[at])
  if version >= account.v then
    account.v = version
    for n = 1, 4 do account.limits[n] = tonumber(args[at + n]) end
  end
  touch(account)
end

local verbs = {}

-- call, money, tokens, then scope, version and four limits of each budget -> 'granted' | 'forgotten' | 'closed', ms |
-- 'unknown', scopes ... | 'refused', scope, line, limit, spent, reserved, asked, until
function verbs.reserve(id, usd, tokens, ...)
  local life = tonumber(call('GET', P .. ':life') or '')
  if not life then return { 'forgotten' } end
  if now < life + LIFE_GRACE_MS then return { 'closed', number(life + LIFE_GRACE_MS - now) } end
  sweep()
  if call('HEXISTS', P .. ':calls', id) == 1 then
    call('ZADD', P .. ':exp', number(now + RESERVED_MS), id)
    return { 'granted' }
  end
  local args, asked, scopes, unknown, best = { ... }, { tonumber(usd), tonumber(tokens) }, {}, { 'unknown' }, nil
  for at = 1, #args, 6 do
    local scope = args[at]
    local account = account_of(scope, true)
    set_limits(account, args, at + 1)
    if not account.known then unknown[#unknown + 1] = scope end
    best = refusal_of(account, scope, asked, best)
    scopes[#scopes + 1] = scope
  end
  if #unknown > 1 then return unknown end
  if best then
    return { 'refused', best.scope, best.at, number(best.limit), number(best.spent), number(best.reserved),
      number(best.asked), number(best.till) }
  end
  give(id, asked[1], asked[2], scopes)
  return { 'granted' }
end

-- call, money, tokens, when it ended -> 1 if it was reserved
function verbs.commit(id, usd, tokens, at)
  local held = take_back(id)
  if not held then return 0 end
  local took, day, month = { tonumber(usd), tonumber(tokens) }, span_of(tonumber(at))
  for _, scope in ipairs(held.scopes) do
    local account = account_of(scope, true)
    -- Yesterday's is yesterday's; what a clock that is ahead calls tomorrow's counts now.
    local counts = { day >= account.d, month >= account.m }
    for n = 1, 4 do
      if counts[(n - 1) % 2 + 1] then
        local more = took[kind_of(n)]
        account.s[n], account.e[n] = account.s[n] + more, account.e[n] + more
      end
    end
    touch(account)
  end
  return 1
end

-- call, money, tokens -> 1
function verbs.adjust(id, usd, tokens)
  local held = take_back(id)
  if held then give(id, tonumber(usd), tonumber(tokens), held.scopes) end
  return 1
end

-- call, money, tokens and scopes (NUL between) of each -> when this life began, or ''
function verbs.renew(...)
  local args = { ... }
  for at = 1, #args, 4 do
    if call('HEXISTS', P .. ':calls', args[at]) == 1 then
      call('ZADD', P .. ':exp', number(now + RESERVED_MS), args[at])
    else
      local scopes = decode(NUL .. NUL .. args[at + 3]).scopes
      give(args[at], tonumber(args[at + 1]), tonumber(args[at + 2]), scopes)
    end
  end
  return call('GET', P .. ':life') or ''
end

-- -> 1
function verbs.begin()
  call('SET', P .. ':life', number(now), 'NX')
  return 1
end

-- scope -> who reads the ledger now
function verbs.begin_fill(scope)
  local account = account_of(scope, true)
  account.f, account.e = account.f + 1, { 0, 0, 0, 0 }
  touch(account)
  return number(account.f)
end

-- scope, who, day, month, four sums -> 1
function verbs.end_fill(scope, fill, day, month, ...)
  local account, sums = account_of(scope, true), { ... }
  if account.f ~= tonumber(fill) then return 1 end
  local same = { account.d == tonumber(day), account.m == tonumber(month) }
  for at = 1, 4 do
    if same[(at - 1) % 2 + 1] then account.s[at] = tonumber(sums[at]) + account.e[at] end
  end
  account.known = true
  touch(account)
  return 1
end

-- scope, version, four limits -> 1
function verbs.tell(scope, ...)
  set_limits(account_of(scope, true), { ... }, 1)
  return 1
end

-- scope -> '' or known, four spent, two reserved
function verbs.standing(scope)
  sweep()
  local account = account_of(scope, false)
  if not account then return '' end
  local reply = { account.known and 1 or 0 }
  for at = 1, 4 do reply[at + 1] = number(account.s[at]) end
  reply[6], reply[7] = number(account.r[1]), number(account.r[2])
  return reply
end

-- tenant, scope, money, tokens, until, reason -> 1
function verbs.park(tenant, ...)
  call('HSET', P .. ':asleep', tenant, table.concat({ ... }, NUL))
  return 1
end

local function is_ready(account, asked)
  for at = 1, 4 do
    local limit, kind = account.limits[at], kind_of(at)
    if limit then
      local unspent = limit - account.s[at]
      local free = unspent - account.r[kind]
      local half = unspent / 2
      if free < asked[kind] or free < (half < 0 and math.ceil(half) or math.floor(half)) then return false end
    end
  end
  return true
end

-- -> tenant, scope, reason, until, ready of each
function verbs.parked()
  sweep()
  local found, reply = call('HGETALL', P .. ':asleep'), {}
  for at = 1, #found, 2 do
    local scope, usd, tokens, till, reason = found[at + 1]:match('^([^%z]*)%z([^%z]*)%z([^%z]*)%z([^%z]*)%z(.*)$')
    local account = account_of(scope, false)
    local ready = tonumber(till) <= now or not account or is_ready(account, { tonumber(usd), tonumber(tokens) })
    reply[#reply + 1] = { found[at], scope, reason, till, ready and 1 or 0 }
  end
  return reply
end

-- tenant -> 1
function verbs.unpark(tenant)
  call('HDEL', P .. ':asleep', tenant)
  return 1
end

-- -> scopes
function verbs.scopes()
  call('ZREMRANGEBYSCORE', P .. ':all', '-inf', number(now - IDLE_MS))
  return call('ZRANGE', P .. ':all', 0, -1)
end

local function run(keys, args)
  call, P, now, accounts = redis.call, keys[1], tonumber(args[2]), {}
  if not now then
    local time = call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  day_now, month_now = span_of(now)
  local reply = verbs[args[1]](unpack(args, 3))
  save()
  return reply
end
