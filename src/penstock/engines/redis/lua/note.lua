-- Store progress and log text of running jobs; changes nothing for a stale fence.
--
-- before: job in `claims` under the fence -> after: `progress`, `log:ID`. ARGV: clock, bytes kept of an attempt,
-- attempts kept, then for each note id, fence, progress or empty, text or empty, attempt. Answers refused ids.
-- include common
-- include claims

local bytes, attempts, refused = tonumber(my.take()), tonumber(my.take()), {}

-- The end of a text that is kept, in whole characters of UTF-8.
local function kept_end(whole)
  if #whole <= bytes then return whole end
  return (whole:sub(-bytes):gsub('^[\128-\191]+', ''))
end

for _ = 1, (#ARGV - 3) / 5 do
  local id, fence, progress, written, attempt = my.take(), my.take(), my.take(), my.take(), tonumber(my.take())
  if not my.holds(id, fence) then
    refused[#refused + 1] = id
  else
    if progress ~= '' then call('HSET', P .. 'progress', id, progress) end
    if written ~= '' then
      local log = P .. 'log:' .. id
      call('HSET', log, attempt, kept_end((call('HGET', log, attempt) or '') .. written))
      for _, one in ipairs(call('HKEYS', log)) do
        if tonumber(one) <= attempt - attempts then call('HDEL', log, one) end
      end
    end
  end
end
return refused
