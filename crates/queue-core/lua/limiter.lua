-- Purpose: the limiter in Redis: buckets, tickets and blocks of one target, and the doubt about its credential. What
--   src/limiter/book.rs says in Rust; the two are compared by the conformance suite and by random operations. A library of
--   its own: the dispatcher's scripts know nothing of it.
-- Keys: 1 the book of the target   2 the doubt about its credential   3 the tickets of the target, call -> '>dd' tokens, due
--   All three have one hash tag, which is provider and credential.
-- Arguments: now in ms or '' for the server's clock, requests/s, tokens/s (0: no bucket), recovery of a cut rate per s, and
--   then any number of operations, each one packed text that begins with its letter (see `verbs`).
-- Returns: one reply for each operation, in order.
-- Invariant: a batch is read once and written once; nothing is waited for, and nothing is kept about a call but its ticket.
--   The Rust side prepends the constants in capitals.

-- Set by `run`: a library that is being loaded does not have them.
local call, unpack_text, pack_text
-- Whether there are levels, the levels, when they were that, factor, when it was cut, blocked until, told rates, told until,
-- mean tokens, mean ms, number of tickets, when the last block was lifted; then the reason of the block.
local BOOK = '>ddddddddddddddd'
local BOOK_BYTES = 15 * 8
-- Until when nobody asks (0: no doubt), until when one call tries, when the last doubt was lifted; then the reason.
local DOUBT = '>ddd'
local DOUBT_BYTES = 3 * 8

local B, D, lifted_doubt, tickets, now, dirty, doubt_dirty, KEY_BOOK, KEY_DOUBT, KEY_TICKETS

local function load_book(text)
  if not text then
    B = { level = {}, at = 0, factor = 1, cut_at = 0, blocked = 0, told = { 0, 0 }, told_until = 0, tokens_mean = 0,
      ms_mean = 1000, n = 0, lifted = 0, reason = '' }
    return
  end
  local has_q, q, has_t, t, at, factor, cut_at, blocked, told_q, told_t, told_until, tokens_mean, ms_mean, n,
    lifted = unpack_text(BOOK, text)
  B = { level = { has_q == 1 and q or nil, has_t == 1 and t or nil }, at = at, factor = factor, cut_at = cut_at,
    blocked = blocked, told = { told_q, told_t }, told_until = told_until, tokens_mean = tokens_mean, ms_mean = ms_mean,
    n = n, lifted = lifted, reason = text:sub(BOOK_BYTES + 1) }
end

local function load_doubt(text)
  D, lifted_doubt = nil, 0
  if not text then return end
  local till, trial, lifted = unpack_text(DOUBT, text)
  lifted_doubt = lifted
  if till > 0 then D = { till = till, trial = trial, reason = text:sub(DOUBT_BYTES + 1) } end
end

-- The tickets, read once a batch and only where there are some.
local function load_tickets()
  if tickets then return tickets end
  tickets = {}
  if B.n > 0 then
    local found = call('HGETALL', KEY_TICKETS)
    for at = 1, #found, 2 do
      local tokens, due = unpack_text('>dd', found[at + 1])
      tickets[found[at]] = { tokens = tokens, due = due }
    end
  end
  return tickets
end

local function drop_ticket(id)
  load_tickets()[id] = nil
  call('HDEL', KEY_TICKETS, id)
  B.n = B.n - 1
end

local function add(requests, tokens)
  local level = B.level
  if level[1] then level[1] = level[1] + requests end
  if level[2] then level[2] = level[2] + tokens end
end

local rates, caps, configured, factor, recovery = { 0, 0 }, { 0, 0 }, { 0, 0 }, 1, 0

-- Lets time pass, and says what flows.
local function pass_time()
  local recovered = math.max(now - B.cut_at, 0) / 1000 * recovery
  factor = math.min(B.factor + recovered, 1)
  if B.n > 0 then
    for id, ticket in pairs(load_tickets()) do
      if now > math.max(ticket.due, B.blocked) + TICKET_GRACE_MS then
        drop_ticket(id)
        add(1, ticket.tokens)
      end
    end
  end
  local passed = math.max(now - B.at, 0) / 1000
  local believed = B.told_until > now
  for at = 1, 2 do
    local rate = configured[at]
    if believed and B.told[at] > 0 then rate = math.min(rate, B.told[at]) end
    rate = rate * factor
    local cap = rate * BURST_MS / 1000
    rates[at], caps[at] = rate, cap
    if rate <= 0 then
      B.level[at] = nil
    elseif B.level[at] then
      B.level[at] = math.min(B.level[at] + passed * rate, cap)
    else
      B.level[at] = cap
    end
  end
  B.at = math.max(B.at, now)
  dirty = true
end

-- Whole milliseconds, upwards.
local function whole(ms) return math.max(math.ceil(ms - 1e-6), 0) end

-- -1: nothing to say.
local function pace()
  if D then return 1 end
  local per_s
  if rates[1] > 0 then per_s = rates[1] end
  if rates[2] > 0 then
    local of_tokens = rates[2] / B.tokens_mean
    if not per_s or of_tokens < per_s then per_s = of_tokens end
  end
  if not per_s then return -1 end
  return math.min(math.max(math.ceil((B.ms_mean + PACE_WAIT_MS) / 1000 * per_s), 1), PACE_MAX)
end

local REQUESTS, TOKENS, BLOCKED, TRIAL = 1, 2, 3, 4

local function go(wait) return { 1, whole(wait), pace() } end

-- in_place: how long the call may wait in place.
local function later(wait, cause, ticket, reason, in_place)
  local open = wait
  if cause == REQUESTS or cause == TOKENS then
    -- Who is due within the lead has been claimed already, or the target was open for it.
    local first = now + wait
    for _, held in pairs(load_tickets()) do
      if held.due > now + TICKET_LEAD_MS then first = math.min(first, held.due) end
    end
    first = first - now - TICKET_LEAD_MS
    -- Not before this one may wait in place, or it would be turned away again; but the first must not be late.
    open = math.max(first, math.min(wait - (in_place or WAIT_MAX_MS), first + TICKET_LATE_MS))
  end
  return { 0, whole(wait), pace(), whole(open), cause, ticket and 1 or 0, reason or '' }
end

local function redeem(id, tokens, ticket, held, in_place)
  local wait = math.max(ticket.due - now, held, 0)
  if wait <= in_place then
    drop_ticket(id)
    -- Others may travel with it now, or none of those that did.
    add(0, ticket.tokens - tokens)
    return go(wait)
  end
  if held >= wait then return later(wait, BLOCKED, true, B.reason) end
  return later(wait, TOKENS, true, nil, in_place)
end

local function take(id, tokens, held, in_place, keeps_place)
  local wait, cause = 0, REQUESTS
  for at = 1, 2 do
    local level = B.level[at]
    if level then
      -- What is larger than the bucket goes when that is full, and leaves a debt.
      local of_this = (math.min(at == 1 and 1 or tokens, caps[at]) - level) / rates[at] * 1000
      if of_this > wait then wait, cause = of_this, at end
    end
  end
  if held > in_place then return later(held, BLOCKED, false, B.reason) end
  wait = math.max(wait, held)
  if wait <= in_place then
    add(-1, -tokens)
    return go(wait)
  end
  if not keeps_place or wait > TICKET_AHEAD_MAX_MS or B.n >= TICKETS_MAX then
    return later(wait, cause, false, nil, in_place)
  end
  add(-1, -tokens)
  load_tickets()[id] = { tokens = tokens, due = now + wait }
  B.n = B.n + 1
  call('HSET', KEY_TICKETS, id, pack_text('>dd', tokens, now + wait))
  return later(wait, cause, true, nil, in_place)
end

-- A longer block stands. -> how long it is now
local function block(penalty, wait, reason)
  local till = now + wait
  if penalty == 0 then
    -- What was used up fills again while nobody asks.
    pass_time()
    if till > B.blocked then B.blocked, B.reason = till, reason end
    return whole(B.blocked - now)
  end
  if not D then D = { till = 0, trial = 0, reason = '' } end
  if till > D.till then D.till, D.reason = till, reason end
  doubt_dirty = true
  return whole(D.till - now)
end

local verbs = {}

-- R call, tokens, longest wait in place, keeps its place (0, 1) -> 1, wait, pace | 0, wait, pace, open, cause, ticket, reason
function verbs.R(text)
  local id, tokens, in_place, keeps = unpack_text('>c16ddd', text, 2)
  pass_time()
  if B.tokens_mean == 0 then B.tokens_mean = math.max(tokens, 1) end
  if D then
    if D.till > now then return later(D.till - now, BLOCKED, false, D.reason) end
    if D.trial > now then return later(math.min(D.trial - now, TRIAL_WAIT_MS), TRIAL, false, D.reason) end
  end
  local held = math.max(B.blocked - now, 0)
  local ticket = B.n > 0 and load_tickets()[id]
  local reply
  if ticket then
    reply = redeem(id, tokens, ticket, held, in_place)
  else
    reply = take(id, tokens, held, in_place, keeps == 1)
  end
  if D and reply[1] == 1 then D.trial, doubt_dirty = now + TRIAL_MS, true end
  return reply
end

-- C -> how long it is blocked (0: not), reason
function verbs.C()
  if D and D.till > now then return { whole(D.till - now), D.reason } end
  if B.blocked > now then return { whole(B.blocked - now), B.reason } end
  return { 0, '' }
end

-- S reserved, used, sent, took (-1: says nothing), answered -> 1
function verbs.S(text)
  local reserved, used, sent, took, answered = unpack_text('>ddddd', text, 2)
  pass_time()
  local level = B.level
  if level[1] then level[1] = math.min(level[1] + 1 - sent, caps[1]) end
  if level[2] then level[2] = math.min(level[2] + reserved - used, caps[2]) end
  if took >= 0 then
    B.ms_mean = B.ms_mean + (took - B.ms_mean) * PACE_WEIGHT
    B.tokens_mean = B.tokens_mean + (math.max(used, 1) - B.tokens_mean) * PACE_WEIGHT
  end
  -- A call that began before the block says nothing about what comes after it.
  if answered == 1 and D and D.till <= now then D, doubt_dirty = nil, true end
  return 1
end

-- P penalty (0 rate, 1 quota), wait, reason -> how long it is blocked now
function verbs.P(text)
  local penalty, wait = unpack_text('>dd', text, 2)
  pass_time()
  if penalty == 0 then
    local level = B.level
    for at = 1, 2 do if level[at] then level[at] = math.min(level[at], 0) end end
    if now - B.cut_at >= CUT_EVERY_MS then B.factor, B.cut_at = math.max(factor * CUT, CUT_FLOOR), now end
  elseif D then
    D.trial = 0
  end
  return block(penalty, wait, text:sub(18))
end

-- B penalty, wait, for how long that is known, reason -> how long it is blocked now
function verbs.B(text)
  local penalty, wait, age = unpack_text('>ddd', text, 2)
  if now - age <= (penalty == 0 and B.lifted or lifted_doubt) then
    return whole((penalty == 0 and B.blocked or D and D.till or 0) - now)
  end
  return block(penalty, wait, text:sub(26))
end

-- L blocks too (0, 1) -> 1 if the credential was in doubt
function verbs.L(text)
  pass_time()
  for id, ticket in pairs(load_tickets()) do
    drop_ticket(id)
    add(1, ticket.tokens)
  end
  if unpack_text('>d', text, 2) == 0 then return 0 end
  local doubted = D and 1 or 0
  B.blocked, B.reason, B.lifted = 0, '', now
  D, lifted_doubt, doubt_dirty = nil, now, true
  return doubted
end

-- O limits and what is left of requests and of tokens; -1: not told -> 1
function verbs.O(text)
  local limit_q, left_q, limit_t, left_t = unpack_text('>dddd', text, 2)
  pass_time()
  if B.told_until <= now then B.told = { 0, 0 } end
  for at, limit in ipairs({ limit_q / 60, limit_t / 60 }) do
    if limit > 0 and limit >= configured[at] * TOLD_LEAST then B.told[at], B.told_until = limit, now + TOLD_MS end
  end
  for at, left in ipairs({ left_q, left_t }) do
    if B.level[at] and left >= 0 then B.level[at] = math.min(B.level[at], left) end
  end
  return 1
end

-- G -> levels ('' without a bucket), rates, factor, blocked for, its reason, tickets, pace
function verbs.G()
  -- Who only looks leaves no book behind.
  local was, n = dirty, B.n
  pass_time()
  if B.n == n then dirty = was end
  local blocked = verbs.C()
  local number = function(value) return value and string.format('%.17g', value) or '' end
  return { number(B.level[1]), number(B.level[2]), number(rates[1]), number(rates[2]), number(factor), blocked[1],
    blocked[2], B.n, B.tokens_mean > 0 and pace() or -1 }
end

-- How long the book says more than an absent one: until every debt is paid, every cut recovered and no told limit believed.
local function lifetime()
  local longest = math.max(B.blocked - now, 0)
  for at = 1, 2 do
    if B.level[at] and B.level[at] < 0 then longest = math.max(longest, -B.level[at] / rates[at] * 1000) end
  end
  return math.ceil(math.min(longest, LIFETIME_MAX_MS) + LIFETIME_MS)
end

local function save()
  if dirty then
    local q, t = B.level[1], B.level[2]
    local life = lifetime()
    call('SET', KEY_BOOK, pack_text(BOOK, q and 1 or 0, q or 0, t and 1 or 0, t or 0, B.at, B.factor, B.cut_at, B.blocked,
      B.told[1], B.told[2], B.told_until, B.tokens_mean, B.ms_mean, B.n, B.lifted) .. B.reason, 'PX', life)
    if tickets and B.n > 0 then call('PEXPIRE', KEY_TICKETS, life) end
  end
  if doubt_dirty then
    local till = D and D.till or 0
    if till > 0 or lifted_doubt > 0 then
      local life = math.ceil(math.min(math.max(till - now, 0), LIFETIME_MAX_MS) + LIFETIME_MS)
      local text = pack_text(DOUBT, till, D and D.trial or 0, lifted_doubt) .. (D and D.reason or '')
      call('SET', KEY_DOUBT, text, 'PX', life)
    else
      call('DEL', KEY_DOUBT)
    end
  end
end

local function run(keys, args)
  call, unpack_text, pack_text = redis.call, struct.unpack, struct.pack
  KEY_BOOK, KEY_DOUBT, KEY_TICKETS = keys[1], keys[2], keys[3]
  if args[1] == '' then
    local time = call('TIME')
    now = time[1] * 1000 + time[2] / 1000
  else
    now = tonumber(args[1])
  end
  configured = { tonumber(args[2]), tonumber(args[3]) }
  recovery = tonumber(args[4])
  tickets, dirty, doubt_dirty = nil, false, false
  load_book(call('GET', KEY_BOOK))
  load_doubt(call('GET', KEY_DOUBT))
  local replies = {}
  for at = 5, #args do replies[at - 4] = verbs[args[at]:sub(1, 1)](args[at]) end
  save()
  return replies
end
