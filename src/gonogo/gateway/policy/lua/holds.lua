-- Before the scripts of the ledger.
local function forget_hold(holds_key, expiry_key, request_id)
  local hold = redis.call('HGET', holds_key, request_id)
  if not hold then return 0 end
  local tokens, held_key, replica = string.match(hold, '^(%d+) (%S+) (%S+)$')
  redis.call('HDEL', holds_key, request_id)
  redis.call('ZREM', expiry_key, request_id)
  if redis.call('HINCRBY', held_key, 'sequences ' .. replica, -1) <= 0 then
    redis.call('HDEL', held_key, 'sequences ' .. replica, 'tokens ' .. replica, 'computed ' .. replica)
  else
    redis.call('HINCRBY', held_key, 'tokens ' .. replica, -tonumber(tokens))
  end
  return 1
end

-- At most 100 at once: the rest goes with the next calls.
local function forget_expired(holds_key, expiry_key, now_ms)
  for _, request_id in ipairs(redis.call('ZRANGEBYSCORE', expiry_key, '-inf', now_ms, 'LIMIT', 0, 100)) do
    forget_hold(holds_key, expiry_key, request_id)
  end
end
