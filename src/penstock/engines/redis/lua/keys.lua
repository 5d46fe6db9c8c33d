-- Unique keys.

function my.hold_of(key)
  local hold = call('HGET', P .. 'uniques', key)
  if not hold then return nil end
  local until_, over, holder = hold:match('^(%a)(%-?%d+) (.*)$')
  return holder, until_, tonumber(over)
end

function my.holder_of(key)
  local holder, until_, over = my.hold_of(key)
  if not holder or (until_ == 'w' and over <= now) then return nil end
  return holder
end

function my.hold(key, until_, over, id)
  call('HSET', P .. 'uniques', key, until_ .. my.text(over) .. ' ' .. id)
  if until_ == 'w' then
    call('ZADD', P .. 'windows', my.text(over), key)
  else
    call('ZREM', P .. 'windows', key)
  end
end

-- Free the key that a job holds, unless a window does.
function my.free(body, flags, id, at_start)
  local key, kind = my.unique_of(body, flags)
  if not key or (at_start and kind ~= 's') then return end
  local holder, until_ = my.hold_of(key)
  if holder == id and until_ ~= 'w' then call('HDEL', P .. 'uniques', key) end
end
