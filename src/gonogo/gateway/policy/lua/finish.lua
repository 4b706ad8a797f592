-- Free places and set tokens right (`counters.Counters.finish`; the arithmetic is that of `limits.settled`).
-- KEYS: clock, then each known request. ARGV: passed_ms, then per request its tokens (-1: not known), 1 where its answer
-- has ended, 1 where nothing more will be heard. Requests that nobody knows (any more) are passed over. Gives how many
-- were known.
local KEPT_MS = 7 * 86400000
local now_ms = counted_ms(KEYS[1], wall_now_ms(), tonumber(ARGV[1]))

-- The newest step that still holds something: the last one may have been given back whole.
local function find_last(key)
  local all, last = redis.call('HGETALL', key), nil
  for i = 1, #all, 2 do
    local step = tonumber(all[i])
    if step and (not last or step > last) then last = step end
  end
  if last then redis.call('HSET', key, 'last', last) end
end

local function settle(key, taken, estimate, real)
  local step, step_ms = string.match(taken, '^(%d+):(%d+)$')
  if real > estimate then
    local now = math.floor(now_ms / tonumber(step_ms))
    redis.call('HINCRBY', key, now, real - estimate)
    redis.call('HINCRBY', key, 'sum', real - estimate)
    redis.call('HSETNX', key, 'first', now)
    redis.call('HSET', key, 'last', now)
    redis.call('PEXPIRE', key, KEPT_MS)
    return
  end
  local there = tonumber(redis.call('HGET', key, step))
  if not there then return end
  local back = math.min(there, estimate - real)
  redis.call('HINCRBY', key, 'sum', -back)
  if back < there then
    redis.call('HINCRBY', key, step, -back)
  else
    redis.call('HDEL', key, step)
    find_last(key)
  end
end

local count = 0
for i = 2, #KEYS do
  local tokens, over, final = tonumber(ARGV[i * 3 - 4]), ARGV[i * 3 - 3] == '1', ARGV[i * 3 - 2] == '1'
  local kept = redis.call('HGETALL', KEYS[i])
  local estimate, known_until = 0, 0
  for j = 1, #kept, 2 do
    if kept[j] == 'tokens' then estimate = tonumber(kept[j + 1]) end
    if kept[j] == 'until' then known_until = tonumber(kept[j + 1]) end
  end
  if known_until > now_ms then
    count = count + 1
    local request_id = string.sub(KEYS[i], #'known:' + 1)
    for j = 1, #kept, 2 do
      local name, value = kept[j], kept[j + 1]
      if name == 'at_once' then
        if over or final then redis.call('ZREM', value, request_id) end
      elseif name ~= 'tokens' and name ~= 'until' and tokens >= 0 then
        settle(name, value, estimate, tokens)
        redis.call('HDEL', KEYS[i], name)
      end
    end
    if final then redis.call('DEL', KEYS[i]) end
  end
end
return count
