-- Leases of processes.

function my.process_of(name)
  local record = call('HGET', P .. 'processes', name)
  if not record then return nil end
  local number, worker = record:match('^(%d+) (.*)$')
  return tonumber(number), worker
end

function my.lease_ms_of(worker)
  local raw = call('HGET', P .. 'workers', worker)
  return raw and cmsgpack.unpack(raw)[3] or 30000
end

function my.longest_lease_ms()
  local longest = 0
  for _, raw in ipairs(call('HVALS', P .. 'workers')) do longest = math.max(longest, cmsgpack.unpack(raw)[3]) end
  return longest
end

function my.renew_lease(name, worker)
  call('ZADD', P .. 'leases', my.text(my.steady + my.lease_ms_of(worker)), name)
  if ARGV[1] ~= '' then call('HSET', P .. 'boots', name, my.boot) end
end

function my.has_lapsed(name)
  local over = call('ZSCORE', P .. 'leases', name)
  if not over or tonumber(over) <= my.steady then return true end
  return ARGV[1] ~= '' and call('HGET', P .. 'boots', name) ~= my.boot
end

function my.void_lease(name)
  local record = call('HGET', P .. 'processes', name)
  if not record then return end
  call('HSET', P .. 'void', name, record)
  call('HDEL', P .. 'processes', name)
  call('HDEL', P .. 'beats', name)
  call('HDEL', P .. 'boots', name)
  call('ZREM', P .. 'leases', name)
end

-- Forget void leases that hold nothing any more, and workers without a lease.
function my.drop_empty_leases()
  local present = {}
  local void = call('HGETALL', P .. 'void')
  for at = 1, #void, 2 do
    local number, worker = void[at + 1]:match('^(%d+) (.*)$')
    if call('EXISTS', P .. 'held:' .. number) == 0 then
      call('HDEL', P .. 'void', void[at])
      call('HDEL', P .. 'deaths', void[at])
    else
      present[worker] = true
    end
  end
  for _, record in ipairs(call('HVALS', P .. 'processes')) do present[record:match('^%d+ (.*)$')] = true end
  for _, worker in ipairs(call('HKEYS', P .. 'workers')) do
    if not present[worker] then
      call('HDEL', P .. 'workers', worker)
      call('SREM', P .. 'draining', worker)
    end
  end
end
