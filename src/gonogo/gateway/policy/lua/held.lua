-- What each replica of a revision holds (`ledger.Ledger.held`). KEYS: clock, holds, their expiry, the revision's.
-- ARGV: passed_ms. Gives the time in ms, then names and numbers in turn, as `tokens REPLICA`, `sequences REPLICA` and
-- `computed REPLICA` (`reserve`).
local now_ms = counted_ms(KEYS[1], wall_now_ms(), tonumber(ARGV[1]))
forget_expired(KEYS[2], KEYS[3], now_ms)
return {now_ms, redis.call('HGETALL', KEYS[4])}
