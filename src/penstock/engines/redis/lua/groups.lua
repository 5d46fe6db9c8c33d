-- Show the groups of buried jobs. Read-only.
--
-- ARGV: clock. Answers for each group {id, how many jobs, when the first and the last of them were buried, one of them}.
-- flags: no-writes
-- include common

local found = {}
for _, group in ipairs(call('SMEMBERS', P .. 'groups')) do
  local name = P .. 'group:' .. group
  local first, last = call('ZRANGE', name, 0, 0, 'WITHSCORES'), call('ZREVRANGE', name, 0, 0, 'WITHSCORES')
  found[#found + 1] = { group, call('ZCARD', name), first[2], last[2], last[1] }
end
return found
