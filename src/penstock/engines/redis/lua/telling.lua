-- How claims are told.

-- Tell claims: ids, fences and bodies in their order.
function my.tell(ids, fences, bodies)
  local told = {}
  local mores, stopped = my.seldom('more', ids), {}
  if my.has_some('cancel') then stopped = my.many_of('SMISMEMBER', 'cancel', ids) end
  for at, id in ipairs(ids) do
    my.show(my.info_of(bodies[at]))
    local from = 5 * (at - 1)
    told[from + 1], told[from + 2], told[from + 3] = id, fences[at], bodies[at]
    told[from + 4], told[from + 5] = mores[at] or false, stopped[at] or 0
  end
  return told
end
