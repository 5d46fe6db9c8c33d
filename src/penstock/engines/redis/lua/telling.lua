-- How claims are told.

-- Tell claims, given by ids, fences and bodies in their order: each as id, fence, body, and what there seldom is: false,
-- or `more` or false and whether it was asked to stop.
function my.tell(ids, fences, bodies)
  local told, infos, size = {}, my.infos, 0
  local mores, stopped = my.seldom('more', ids), {}
  if my.has_some('cancel') then stopped = my.many_of('SMISMEMBER', 'cancel', ids) end
  for at, id in ipairs(ids) do
    local body = bodies[at]
    local info = infos[sub(body, 17, 25)] or my.info_of(body)
    if not info.is_shown then my.show(info) end
    local more = mores[at] or false
    told[size + 1], told[size + 2], told[size + 3] = id, fences[at], body
    told[size + 4] = (more or stopped[at] == 1) and { more, stopped[at] or 0 }
    size = size + 4
  end
  return told
end
