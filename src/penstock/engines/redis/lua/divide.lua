-- Divide the last page of the list of ids, if it is long. ARGV: clock. Answers 1.
-- include common
-- include listing

local page = call('ZRANGE', P .. 'pages', -1, -1)[1]
if page and call('STRLEN', P .. 'page:' .. page) > my.LONGEST_PAGE then
  my.divide(page)
  local ids = my.ids_on(call('ZRANGE', P .. 'pages', -1, -1)[1])
  call('HSET', P .. 'meta', 'greatest', ids[#ids])
end
return 1
