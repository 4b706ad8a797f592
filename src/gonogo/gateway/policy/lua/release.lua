-- Forget holds (`ledger.Ledger.release`). KEYS: clock, holds, their expiry. ARGV: passed_ms, then request ids.
local now_ms = counted_ms(KEYS[1], wall_now_ms(), tonumber(ARGV[1]))
forget_expired(KEYS[2], KEYS[3], now_ms)
local count = 0
for i = 2, #ARGV do count = count + forget_hold(KEYS[2], KEYS[3], ARGV[i]) end
return count
