-- Give each process of a worker a lease, or renew the one that it has.
--
-- before: processes known or not, none void -> after: in `processes` and `leases`; `workers` has what is known now.
-- ARGV: clock, worker, what is known of it as JSON, lease_ms, processes. Answers {epoch}, or {epoch, void process}.
-- include common
-- include leases

local worker, info, lease_ms = my.take(), my.take(), tonumber(my.take())
local epoch = call('HGET', P .. 'meta', 'epoch')
for at = 5, #ARGV do
  if call('HEXISTS', P .. 'void', ARGV[at]) == 1 then return { epoch, ARGV[at] } end
end
local raw = call('HGET', P .. 'workers', worker)
local enrolled = raw and cmsgpack.unpack(raw)[2] or now
call('HSET', P .. 'workers', worker, cmsgpack.pack({ info, enrolled, lease_ms }))
for at = 5, #ARGV do
  local name = ARGV[at]
  local number = my.process_of(name) or call('HINCRBY', P .. 'meta', 'process', 1)
  call('HSET', P .. 'processes', name, number .. ' ' .. worker)
  my.renew_lease(name, worker)
end
my.drop_empty_leases()
return { epoch }
