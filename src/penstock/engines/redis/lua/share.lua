-- Change a shared value if it is still what the caller has seen.
--
-- before: the value in `shared:KIND` is as the caller says -> after: it is the new one, or gone. ARGV: clock, kind, key, the new
-- value, the one before; `1` and bytes, or empty for none. Answers 1, or nothing where the value is another.
-- include common

local kind, key, value, was = my.take(), my.take(), my.take(), my.take()
local values = P .. 'shared:' .. kind
local known = call('HGET', values, key)
if (known and '1' .. known or '') ~= was then return false end
if value == '' then
  call('HDEL', values, key)
else
  call('HSET', values, key, sub(value, 2))
end
return 1
