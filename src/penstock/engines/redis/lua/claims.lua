-- Claims and their fences.

-- Process number, beat, place in its answer, fate, fence; and where the attempt begins, as `more` has it.
function my.claim_of(record) return struct.unpack('>I4i8I4BBc0', record) end

-- Number of the claim, since when, process.
function my.attempt_of(record, at) return struct.unpack('>i8i8I2c0', record, at) end

function my.attempt(number, claimed, process)
  return struct.pack('>i8i8I2', number, claimed, #process) .. process
end

function my.has_fence(record, fence)
  local length = #fence
  return byte(record, 18) == length and sub(record, 19, 18 + length) == fence
end

function my.holds(id, fence)
  local record = call('HGET', P .. 'claims', id)
  return record and my.has_fence(record, fence)
end

-- One digest is random enough for two tokens of 64 bits.
my.drawn, my.spare = 0, nil
function my.new_fence(seed, number)
  local token = my.spare
  if token then
    my.spare = nil
  else
    my.drawn = my.drawn + 1
    local digest = redis.sha1hex(seed .. my.drawn)
    token, my.spare = sub(digest, 1, 16), sub(digest, 17, 32)
  end
  return (number == 1 and '1' or my.text(number)) .. '.' .. token
end
