-- Meetings: so many are to come, and go on when all are there: `_core/keys/meetings.py`, rule for rule.
--
-- "meetings" has of each how many are to come, and how many have; behind that what those are told who inquire, once
-- somebody has, until another one comes or goes.

local meetings = {}

keys.part(function()
  local HEAD, HEAD_BYTES = ">I4I4", 8

  local function read(sp, key)
    local held = space.read(sp, "HGET", "meetings", key)
    if held then
      return struct.unpack(HEAD, held)
    end
  end

  local function write(sp, key, expected, come)
    if come == 0 then
      space.write(sp, "HDEL", "meetings", key)
    else
      space.write(sp, "HSET", "meetings", key, struct.pack(HEAD, expected, come))
    end
  end

  local function refuse(key, reason, ...)
    raise("KeyOperationError", {op = "barrier", key = key, reason = reason:format(...)})
  end

  -- One has come.
  function meetings.come(sp, sid, cmd)
    local call, seat, many, key = unpack(cmd, 2, 5)
    if many < 1 or many > LIMITS.world_size then
      refuse(key, "world_size must be 1 to %.0f, not %.0f", LIMITS.world_size, many)
    end
    local expected, come = read(sp, key)
    if expected and expected ~= many then
      refuse(key, "others came with world_size %.0f, not %.0f", expected, many)
    end
    come = (come or 0) + 1
    replies.check(sid, call)
    if come == many then
      local calls = lines.take_calls(sp, lines.MEET, key)
      write(sp, key, many, 0)
      lines.answer_all(calls, "")
      replies.answer_now(sid, call, "")
      return
    end
    write(sp, key, many, come)
    lines.wait(sp, lines.MEET, key, {kind = "meet", sid = sid, seat = seat, call = call, key = key})
  end

  local function places(from, to)
    local list = {}
    for place = from, to - 1 do
      list[#list + 1] = place
    end
    return list
  end

  waits.meet = {
    told_facts = function(w)
      local sp = space.open(w.space)
      local held = space.read(sp, "HGET", "meetings", w.key)
      if #held == HEAD_BYTES then
        local expected, come = struct.unpack(HEAD, held)
        held = held .. cmsgpack.pack({places(0, come), places(come, expected)})
        space.write(sp, "HSET", "meetings", w.key, held)
      end
      return held:sub(HEAD_BYTES + 1)
    end,
    withdraw = function(w)
      local sp = space.open(w.space)
      local expected, come = read(sp, w.key)
      lines.withdraw(sp, lines.MEET, w.key, w)
      write(sp, w.key, expected, come - 1)
      return true
    end,
  }
end)
