-- Write down that a side effect is about to happen.
--
-- before: no live entry -> after: one in `ledger`, and in `ledger_until` or `ledger_of`. ARGV: clock, id, fence, entry,
-- keep_ms or, for as long as the job is kept, empty.
-- Answers nothing for a stale fence, {1} to the first (also when it asks again), {0, by, value}: `1` and bytes, or empty.
-- include common
-- include claims

local id, fence, entry, keep = my.take(), my.take(), my.take(), tonumber(my.take())
if not my.holds(id, fence) then return false end
local raw = call('HGET', P .. 'ledger', entry)
local known = raw and cmsgpack.unpack(raw)
if not known or (known[3] ~= '' and known[3] <= now) then
  call('HSET', P .. 'ledger', entry, cmsgpack.pack({ id, fence, keep and now + keep or '', '' }))
  if keep then
    call('ZADD', P .. 'ledger_until', my.text(now + keep), entry)
  else
    call('ZREM', P .. 'ledger_until', entry)
    call('SADD', P .. 'ledger_of:' .. id, entry)
  end
  return { 1 }
end
if known[4] == '' and known[1] == id and known[2] == fence then return { 1 } end
return { 0, known[1], known[4] }
