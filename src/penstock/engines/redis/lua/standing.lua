-- Give the ids of all jobs in some states, if they are few. Read-only.
--
-- ARGV: clock, digits of states of which none is `ready`, how many are few, a group if only its jobs count (the states
-- are then `buried`). Answers {ids}, or nothing if they are more.
-- flags: no-writes
-- include common

local states, most, group = my.take(), tonumber(my.take()), my.take()
local keys, size = {}, 0

local function add(kind, name, cardinality)
  keys[#keys + 1] = { kind, name }
  size = size + call(cardinality, P .. name)
end

if states:find('3', 1, true) then add('HKEYS', 'claims', 'HLEN') end
if states:find('1', 1, true) then add('ZRANGE', 'scheduled', 'ZCARD') end
if states:find('7', 1, true) then add('ZRANGE', group == '' and 'buried' or 'group:' .. group, 'ZCARD') end
local ended = states:find('[456]')
if ended then
  for _, kept in ipairs(call('HVALS', P .. 'kept')) do size = size + kept end
end
if size > most then return false end
local ids = {}
for _, key in ipairs(keys) do
  local found = key[1] == 'HKEYS' and call('HKEYS', P .. key[2]) or call('ZRANGE', P .. key[2], 0, -1)
  for _, id in ipairs(found) do ids[#ids + 1] = id end
end
for _, place in ipairs(ended and call('ZRANGE', P .. 'forget', 0, -1) or {}) do
  for _, row in ipairs(call('ZRANGE', P .. 'done:' .. place, 0, -1)) do
    for id in row:gmatch('([^%z]+)%z') do ids[#ids + 1] = id end
  end
end
return { ids }
