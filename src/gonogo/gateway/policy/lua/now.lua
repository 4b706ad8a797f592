local function wall_now_ms()
  local seen = redis.call('TIME')
  return tonumber(seen[1]) * 1000 + math.floor(tonumber(seen[2]) / 1000)
end
