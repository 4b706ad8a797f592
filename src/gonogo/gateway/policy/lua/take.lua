-- Let a request in and count it, or do neither (`counters.Counters.take`; the arithmetic is that of `limits`).
-- KEYS: clock, known request, requests at once, then one window each.
-- ARGV: passed_ms, request id, hold_ms, limit at once (0: none), then per window limit, amount, step_ms, steps,
-- and 1 where it counts tokens.
-- Gives: 1 or 0, then how many at once, then per window used, reset_ms and wait_ms (-2: it fits, -1: it never will).
local KNOWN_MS, KEPT_MS = 86400000, 7 * 86400000 -- Valkey expires by its wall clock: long enough for one that leaps
local now_ms = counted_ms(KEYS[1], wall_now_ms(), tonumber(ARGV[1]))
local most_at_once = tonumber(ARGV[4])

local function gone_ms(step, window)
  return math.max(0, (step + window.steps + 1) * window.step_ms - now_ms)
end

local function steps_of(key)
  local all, found = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    local step = tonumber(all[i])
    if step then found[#found + 1] = {step = step, amount = tonumber(all[i + 1])} end
  end
  table.sort(found, function(one, other) return one.step < other.step end)
  return found
end

-- Forget the steps that count no more; true where some are left. Their sum is kept beside them, as `sum`.
local function forget(window)
  local gone, sum, first, last = {}, 0, nil, nil
  for _, one in ipairs(steps_of(window.key)) do
    if one.step < window.now - window.steps then
      gone[#gone + 1] = one.step
    else
      sum, first, last = sum + one.amount, first or one.step, one.step
    end
  end
  if not first then
    redis.call('DEL', window.key)
    return 0
  end
  if #gone > 0 then redis.call('HDEL', window.key, unpack(gone)) end
  redis.call('HSET', window.key, 'sum', sum, 'first', first)
  return sum, last
end

local function look(window)
  local kept = redis.call('HMGET', window.key, 'sum', 'first', 'last')
  window.used, window.last = tonumber(kept[1] or 0), tonumber(kept[3] or 0)
  if kept[2] and tonumber(kept[2]) < window.now - window.steps then
    window.used = forget(window)
  end
  window.wait_ms = -2
  local too_much = window.used + window.amount - window.limit
  if too_much > 0 then
    window.wait_ms = -1
    for _, one in ipairs(steps_of(window.key)) do
      too_much = too_much - one.amount
      if too_much <= 0 then
        window.wait_ms = gone_ms(one.step, window)
        break
      end
    end
  end
end

local function take(window)
  if window.amount == 0 then return end
  redis.call('HINCRBY', window.key, window.now, window.amount)
  redis.call('HINCRBY', window.key, 'sum', window.amount)
  redis.call('HSETNX', window.key, 'first', window.now)
  if window.last ~= window.now then
    redis.call('HSET', window.key, 'last', window.now)
    redis.call('PEXPIRE', window.key, KEPT_MS)
  end
  window.used, window.last = window.used + window.amount, window.now
end

local windows, fits = {}, true
for i = 4, #KEYS do
  local at = 5 + (i - 4) * 5
  local window = {key = KEYS[i], limit = tonumber(ARGV[at]), amount = tonumber(ARGV[at + 1]),
    step_ms = tonumber(ARGV[at + 2]), steps = tonumber(ARGV[at + 3]), tokens = ARGV[at + 4] == '1'}
  window.now = math.floor(now_ms / window.step_ms)
  look(window)
  fits = fits and window.wait_ms == -2
  windows[#windows + 1] = window
end
local at_once = 0
if most_at_once > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now_ms)
  at_once = redis.call('ZCARD', KEYS[3])
  fits = fits and at_once < most_at_once
end

local known = tonumber(redis.call('HGET', KEYS[2], 'until') or 0) > now_ms
if fits and not known then
  local kept = {'tokens', 0, 'until', now_ms + tonumber(ARGV[3])}
  for _, window in ipairs(windows) do
    take(window)
    if window.tokens then
      kept[2] = window.amount
      kept[#kept + 1] = window.key
      kept[#kept + 1] = window.now .. ':' .. window.step_ms
    end
  end
  if most_at_once > 0 then
    redis.call('ZADD', KEYS[3], now_ms + tonumber(ARGV[3]), ARGV[2])
    redis.call('PEXPIRE', KEYS[3], KNOWN_MS)
    at_once = at_once + 1
    kept[#kept + 1] = 'at_once'
    kept[#kept + 1] = KEYS[3]
  end
  if #kept > 4 then
    redis.call('HSET', KEYS[2], unpack(kept))
    redis.call('PEXPIRE', KEYS[2], KNOWN_MS)
  end
end

local answer = {(fits or known) and 1 or 0, at_once}
for _, window in ipairs(windows) do
  answer[#answer + 1] = window.used
  answer[#answer + 1] = window.used > 0 and gone_ms(window.last, window) or 0
  answer[#answer + 1] = known and -2 or window.wait_ms
end
return answer
