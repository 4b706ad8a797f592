-- Hold tokens and one sequence of the first replica that has room (`ledger.Ledger.reserve`).
-- KEYS: clock, holds, their expiry, what each replica of the revision holds, and what is there while somebody asked
-- lately.
-- ARGV: passed_ms, request id, tokens, lifetime_ms, tokens and sequences that a replica may hold, prompt_ms, for
-- how many ms it is remembered that somebody asked (0: nobody did), then the replicas. `computed REPLICA`: when its prompts should be, by the clock that counts.
-- A hold is `tokens SPACE key of its revision SPACE replica`. Gives the replica, or nothing.
local now_ms = counted_ms(KEYS[1], wall_now_ms(), tonumber(ARGV[1]))
forget_expired(KEYS[2], KEYS[3], now_ms)
forget_hold(KEYS[2], KEYS[3], ARGV[2])
local tokens, most_tokens, most_sequences = tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6])
for i = 9, #ARGV do
  local held = redis.call('HMGET', KEYS[4], 'tokens ' .. ARGV[i], 'sequences ' .. ARGV[i])
  if tonumber(held[1] or 0) + tokens <= most_tokens and tonumber(held[2] or 0) < most_sequences then
    redis.call('HINCRBY', KEYS[4], 'tokens ' .. ARGV[i], tokens)
    redis.call('HINCRBY', KEYS[4], 'sequences ' .. ARGV[i], 1)
    local computed_ms = tonumber(redis.call('HGET', KEYS[4], 'computed ' .. ARGV[i]) or 0)
    redis.call('HSET', KEYS[4], 'computed ' .. ARGV[i], math.max(now_ms, computed_ms) + tonumber(ARGV[7]))
    if tonumber(ARGV[8]) > 0 then redis.call('SET', KEYS[5], 1, 'PX', ARGV[8]) end
    redis.call('HSET', KEYS[2], ARGV[2], tokens .. ' ' .. KEYS[4] .. ' ' .. ARGV[i])
    redis.call('ZADD', KEYS[3], now_ms + tonumber(ARGV[4]), ARGV[2])
    return ARGV[i]
  end
end
return false
