-- Write down that a side effect happened and what it gave, or that it did not.
--
-- before: claim under the fence -> after: entry in `ledger`, kept as long as `begin` said, else as long as the job; without a
-- value, what the job began and did not finish is gone. With an empty id a person corrects a live entry: it has the value,
-- or is gone. ARGV: clock, id, fence, entry, and the value if there is one.
-- Answers nothing for a stale fence, or where there is nothing to correct.
-- include common
-- include claims

local id, fence, entry, value = my.take(), my.take(), my.take(), my.take()
if id ~= '' and not my.holds(id, fence) then return false end
local raw = call('HGET', P .. 'ledger', entry)
local known = raw and cmsgpack.unpack(raw)

local function drop()
  call('HDEL', P .. 'ledger', entry)
  call('ZREM', P .. 'ledger_until', entry)
  call('SREM', P .. 'ledger_of:' .. known[1], entry)
end

if id == '' then
  if not known or (known[3] ~= '' and known[3] <= now) then return false end
  if value then
    call('HSET', P .. 'ledger', entry, cmsgpack.pack({ known[1], known[2], known[3], '1' .. value }))
  else
    drop()
  end
  return 1
end
if not value then
  if known and known[1] == id and known[4] == '' then drop() end
  return 1
end
local until_ = known and known[3] or ''
call('HSET', P .. 'ledger', entry, cmsgpack.pack({ id, fence, until_, '1' .. value }))
if until_ == '' then call('SADD', P .. 'ledger_of:' .. id, entry) end
return 1
