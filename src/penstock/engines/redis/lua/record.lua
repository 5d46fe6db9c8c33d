-- Write down what a side effect gave; kept as long as `begin` said, else as long as the job.
--
-- before: claim under the fence -> after: entry in `ledger`. ARGV: clock, id, fence, entry, value.
-- Answers nothing for a stale fence.
-- include common
-- include claims

local id, fence, entry, value = my.take(), my.take(), my.take(), my.take()
if not my.holds(id, fence) then return false end
local raw = call('HGET', P .. 'ledger', entry)
local until_ = raw and cmsgpack.unpack(raw)[3] or ''
call('HSET', P .. 'ledger', entry, cmsgpack.pack({ id, fence, until_, '1' .. value }))
if until_ == '' then call('SADD', P .. 'ledger_of:' .. id, entry) end
return 1
