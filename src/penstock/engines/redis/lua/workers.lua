-- Show the workers whose lease is not void. Read-only.
--
-- ARGV: clock. Answers for each process {process, worker, MessagePack of what is known, jobs held, lease left, drains}.
-- flags: no-writes
-- include common
-- include leases

local found, processes = {}, call('HGETALL', P .. 'processes')
for at = 1, #processes, 2 do
  local number, worker = processes[at + 1]:match('^(%d+) (.*)$')
  local left = 0
  if not my.has_lapsed(processes[at]) then left = tonumber(call('ZSCORE', P .. 'leases', processes[at])) - my.steady end
  found[#found + 1] = {
    processes[at], worker, call('HGET', P .. 'workers', worker), call('SCARD', P .. 'held:' .. number), my.text(left),
    call('SISMEMBER', P .. 'draining', worker),
  }
end
return found
