-- Purpose: worker sessions, and how they are told that there is work (sessions.rs of the memory dispatcher says why no
--   wake-up is lost). A message is the kind in one letter, the session and, for a cancel, the job.
-- Invariant: a session that does not listen has a `Work` on its way, or will step again by itself.

-- A session that has not joined this generation is unknown: what it held before has to be told first.
local function session_of(id)
  local found = call('HMGET', S.P .. 's:' .. id, 'inbox', 'queues', 'told', 'seen', 'dead', 'until', 'gen',
    'tracks')
  if not found[1] or found[7] ~= S.generation then return nil end
  return {
    id = id, inbox = found[1], queues = found[2] or '', told = tonumber(found[3]), seen = tonumber(found[4]),
    dead = found[5] == '1', till = tonumber(found[6]) or 0, tracks = tonumber(found[8]) or ALL_TRACKS,
  }
end

-- Unlinks what is kept of a session in one generation.
local function unlink_leases(D, id) call('UNLINK', D .. 'l:' .. id, D .. 'is:' .. id, D .. 'st:' .. id) end

local function is_alive(session) return not session.dead and session.till > S.now end

-- The tracks that a session may claim now.
local function tracks_of(session)
  return may_claim_isolated(session.id) and session.tracks or bit.band(session.tracks, PLAIN_TRACKS)
end

local function serves(session, queue)
  return session.queues == '' or string.find(NUL .. session.queues .. NUL, NUL .. queue .. NUL, 1, true) ~= nil
end

local function split(text)
  local names = {}
  for name in text:gmatch('[^%z]+') do names[#names + 1] = name end
  return names
end

-- A word of the session. One that was found dead comes back only when it means to: an ack in its name may come from
-- the reaper. What else is to be written of it goes with it.
local function hear(session, revive, ...)
  local key = S.P .. 's:' .. session.id
  if not (revive or is_alive(session)) then
    if ... then call('HSET', key, ...) end
    return
  end
  if session.dead then call('ZREM', S.P .. 'sd', session.id) end
  session.dead, session.till = false, S.now + SESSION_MS
  call('HSET', key, 'seen', S.now, 'until', session.till, 'dead', '0', ...)
  call('ZADD', S.P .. 'ss', session.till, session.id)
end

-- Whether nobody listens to a channel. Who may not ask sees nobody go: the session's end stands in.
local function is_unheard(channel)
  local listeners = redis.pcall('PUBSUB', 'NUMSUB', channel)
  return not listeners.err and listeners[2] == 0
end

local function listen(id) call('SADD', S.P .. 'w', id) end

-- Tells a session that listens; it listens no more.
local function tell(session)
  if call('SREM', S.P .. 'w', session.id) == 1 then call('PUBLISH', session.inbox, 'W' .. session.id) end
end

-- Whether something of these queues (none: of all) and tracks can be claimed. To be called on a settled state.
local function any_open(queues, tracks)
  if queues == '' then
    for _, track in ipairs(tracks_in(bit.band(tracks, meta().tracks))) do
      if call('EXISTS', S.D .. 'O' .. track) == 1 then return true end
    end
    return false
  end
  for _, name in ipairs(split(queues)) do
    if bit.band(queue_of(name).listed, tracks) ~= 0 then return true end
  end
  return false
end

-- Sessions that had to wait for an isolated job of theirs to end may claim the next one now.
local function tell_freed(but)
  for id in pairs(S.freed) do
    local session = id ~= but and session_of(id)
    if session and any_open(session.queues, tracks_of(session)) then tell(session) end
  end
  S.freed = {}
end

-- Whether something became claimable for a session in this call.
local function is_stirred(session)
  local tracks = tracks_of(session)
  for name in pairs(S.stirred) do
    if serves(session, name) and bit.band(queue_of(name).listed, tracks) ~= 0 then return true end
  end
  return false
end

-- Whether something becomes claimable by itself sooner than the session was told.
local function is_sooner(session)
  local at = next_at()
  return at and (not session.told or at < session.told)
end

-- Ends a verb: settles, and tells who has to hear of what became claimable in it. `but` has just looked itself.
local function wake(but)
  settle()
  tell_freed(but)
  if not next(S.stirred) and not S.sooner then return end
  for _, id in ipairs(call('SMEMBERS', S.P .. 'w')) do
    if id ~= but then
      local session = session_of(id)
      if not session then
        call('SREM', S.P .. 'w', id)
      elseif is_stirred(session) or is_sooner(session) then
        tell(session)
      end
    end
  end
end
