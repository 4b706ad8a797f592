-- The time that counts, in ms: that of Valkey, but never back and never in leaps (`limits.tick`). Before every script.
-- `passed_ms`: how long ago the caller's last answered call was sent, by a clock that nobody sets; -1: not known.
local function counted_ms(clock_key, wall_ms, passed_ms)
  local seen = redis.call('HMGET', clock_key, 'wall', 'ahead')
  local ahead_ms = tonumber(seen[2] or 0)
  if seen[1] then
    local moved = wall_ms - tonumber(seen[1])
    if moved < 0 then
      ahead_ms = ahead_ms + moved
    elseif passed_ms >= 0 and moved > passed_ms + 2000 then
      ahead_ms = ahead_ms + moved - passed_ms
    end
  end
  redis.call('HSET', clock_key, 'wall', wall_ms, 'ahead', ahead_ms)
  return wall_ms - ahead_ms
end
