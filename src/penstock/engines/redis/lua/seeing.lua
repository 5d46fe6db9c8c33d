-- How jobs are shown whole. Read-only.
--
-- For each id: id, body, claim, due, ended, more, history, progress, whether it was asked to stop; false where there is
-- none of it.
function my.see(ids)
  local seen = {}
  local bodies, claims, ended = my.seldom('jobs', ids), my.seldom('claims', ids), my.seldom('ended', ids)
  local mores, histories, progress = my.seldom('more', ids), my.seldom('history', ids), my.seldom('progress', ids)
  local due, stopped = {}, {}
  if call('EXISTS', P .. 'scheduled') == 1 then due = my.many_of('ZMSCORE', 'scheduled', ids) end
  if call('EXISTS', P .. 'cancel') == 1 then stopped = my.many_of('SMISMEMBER', 'cancel', ids) end
  for at, id in ipairs(ids) do
    local body, from = bodies[at], 9 * (at - 1)
    if body then
      my.show(my.info_of(body))
    end
    seen[from + 1], seen[from + 2], seen[from + 3] = id, body or false, claims[at] or false
    seen[from + 4], seen[from + 5], seen[from + 6] = due[at] or false, ended[at] or false, mores[at] or false
    seen[from + 7], seen[from + 8], seen[from + 9] = histories[at] or false, progress[at] or false, stopped[at] or 0
  end
  return seen
end
