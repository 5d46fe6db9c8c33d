-- Say whether one of these jobs has ended or is unknown, and how far each kind of news has come. Read-only.
--
-- ARGV: clock, ids. Answers {`1` or `0`, seq, ended, scheduled, steered}.
-- flags: no-writes
-- include common

local ids, over = {}, 0
for at = 2, #ARGV do ids[at - 1] = ARGV[at] end
local bodies, ended = {}, my.seldom('ended', ids)
if #ids > 0 then bodies = my.many_of('HMGET', 'jobs', ids) end
for at in ipairs(ids) do
  if not bodies[at] or ended[at] then over = 1 end
end
local numbers = call('HMGET', P .. 'meta', 'seq', 'ended', 'scheduled', 'steered')
return { over, numbers[1] or '0', numbers[2] or '0', numbers[3] or '0', numbers[4] or '0' }
