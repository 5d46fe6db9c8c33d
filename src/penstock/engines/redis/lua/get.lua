-- Show jobs by id. ARGV: clock, ids. Answers {now, lanes, policies, jobs} (see seeing.lua).
-- flags: no-writes
-- include common
-- include seeing

local ids = {}
for at = 2, #ARGV do ids[at - 1] = ARGV[at] end
local seen = my.see(ids)
return { now, my.shown.lanes, my.shown.policies, seen }
