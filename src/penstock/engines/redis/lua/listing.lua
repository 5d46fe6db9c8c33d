-- The list of all ids in the order of their bytes, in pages.
--
-- A sorted set of all ids would cost as much as all the rest of a waiting job. `pages` holds the least id that belongs
-- to each page, and a page is one text of ids in no order, each with a NUL behind it. A long page is divided.

my.LONGEST_PAGE = 16384
my.IDS_ON_A_PAGE = 200

-- Lua compares texts by the server's locale, so this compares their bytes.
function my.is_before(one, other)
  local shorter = math.min(#one, #other)
  for at = 1, shorter do
    local mine, theirs = byte(one, at), byte(other, at)
    if mine ~= theirs then return mine < theirs end
  end
  return #one < #other
end

function my.page_of(id)
  local found = call('ZREVRANGEBYLEX', P .. 'pages', '[' .. id, '-', 'LIMIT', 0, 1)[1]
  if not found then
    found = ''
    call('ZADD', P .. 'pages', 0, found)
  end
  return found
end

function my.ids_on(page)
  local ids = {}
  for id in (call('GET', P .. 'page:' .. page) or ''):gmatch('([^%z]+)%z') do ids[#ids + 1] = id end
  return ids
end

function my.write_page(page, ids)
  if ids[1] then
    call('SET', P .. 'page:' .. page, table.concat(ids, '\0') .. '\0')
    call('ZADD', P .. 'pages', 0, page)
  else
    call('DEL', P .. 'page:' .. page)
    call('ZREM', P .. 'pages', page)
  end
end

-- Divide a page into short ones; the set sorts as the list is sorted.
function my.divide(page)
  local places = {}
  for _, id in ipairs(my.ids_on(page)) do
    places[#places + 1] = '0'
    places[#places + 1] = id
  end
  my.many('ZADD', 'sorting', places)
  local sorted = call('ZRANGE', P .. 'sorting', 0, -1)
  call('DEL', P .. 'sorting')
  for from = 1, #sorted, my.IDS_ON_A_PAGE do
    local last = math.min(from + my.IDS_ON_A_PAGE - 1, #sorted)
    my.write_page(from == 1 and page or sorted[from], { unpack(sorted, from, last) })
  end
end

function my.list(ids)
  if not ids[1] then return end
  call('HDEL', P .. 'meta', 'greatest')
  local last, additions = call('ZRANGE', P .. 'pages', -1, -1)[1], {}
  for _, id in ipairs(ids) do
    local page = last and not my.is_before(id, last) and last or my.page_of(id)
    local added = additions[page]
    if not added then
      added = {}
      additions[page] = added
    end
    added[#added + 1] = id
  end
  for page, added in pairs(additions) do
    local length = call('APPEND', P .. 'page:' .. page, table.concat(added, '\0') .. '\0')
    if length > my.LONGEST_PAGE then my.divide(page) end
  end
end

function my.unlist(ids)
  local dropped = {}
  for _, id in ipairs(ids) do
    local page = my.page_of(id)
    dropped[page] = dropped[page] or {}
    dropped[page][id] = true
  end
  for page, gone in pairs(dropped) do
    local left = {}
    for _, id in ipairs(my.ids_on(page)) do
      if not gone[id] then left[#left + 1] = id end
    end
    my.write_page(page, left)
  end
end
