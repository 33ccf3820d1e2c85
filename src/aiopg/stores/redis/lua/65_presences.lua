-- Who waits for keys to be there: `_core/keys/waits.py`, rule for rule.
--
-- Calls that wait for the same names in the same way are a crowd. It stands in the line of one name that is not there;
-- when that comes, the crowd goes on to the next one that is not, however many calls it is, and is answered when none
-- is missing. "crowds" has what a crowd waits for, "stands" where it stands: [name, its place among the names, place in
-- line, calls].

local presences = {NAME_COSTS = 64}

keys.part(function()
  -- Whether this is a key or, unless it is wanted as one, a queue that holds something.
  local function is_there(sp, name, as_value)
    if as_value then
      return values.is_there(sp, name)
    end
    return space.read(sp, "ZSCORE", "names", name) and true
  end

  -- Whether all these are.
  function presences.are_there(sp, names)
    for _, name in ipairs(names) do
      if not is_there(sp, name, false) then
        return false
      end
    end
    return true
  end

  -- How many bytes the values of these keys are; nil unless all are there.
  local function size_of(sp, names)
    local size = 0
    for _, name in ipairs(names) do
      local own = values.size(sp, name)
      if not own then
        return nil
      end
      size = size + own
    end
    return size
  end

  -- What these keys hold, as parts; nil unless all are there. Or the error with which that ends.
  function presences.values_of(sp, names)
    if #names * LIMITS.value_bytes > LIMITS.payload_bytes then
      local size = size_of(sp, names)
      if not size then
        return nil
      elseif size > LIMITS.payload_bytes then
        return nil, fault("PayloadTooLargeError", {size = size, limit = LIMITS.payload_bytes})
      end
    end
    local held = space.read(sp, "HMGET", "values", unpack(names))
    for place = 1, #names do
      if not held[place] then return nil end
    end
    return pack.parts(held)
  end

  -- How many bytes it is to wait for these.
  function presences.cost(names)
    local size = presences.NAME_COSTS * #names
    for _, name in ipairs(names) do
      size = size + text.length(name)
    end
    return size
  end

  -- Have a crowd wait for the next of its names that is not there, from the one at `from` on; false if all are.
  local function stand_in_line(sp, id, crowd, from, calls)
    local names, many = crowd.names, #crowd.names
    for step = 0, many - 1 do
      local place = (from - 1 + step) % many + 1
      local name = names[place]
      if not is_there(sp, name, crowd.as_values) then
        local spot = lines.stand(sp, lines.CROWD, name, id)
        space.write(sp, "HSET", "stands", id, cmsgpack.pack({name, place, spot, calls}))
        return true
      end
    end
    return false
  end

  local function stand_of(sp, id)
    return cmsgpack.unpack(space.read(sp, "HGET", "stands", id))
  end

  local function crowd_of(sp, id)
    return cmsgpack.unpack(space.read(sp, "HGET", "crowds", id))
  end

  local function disperse(sp, id)
    space.write(sp, "HDEL", "crowds", id)
    space.write(sp, "HDEL", "stands", id)
    sp.crowds = sp.crowds - 1
  end

  -- Wait until all these are there; they are not now.
  function presences.add(sp, sid, cmd, names, as_values, cost)
    local call, seat = cmd[2], cmd[3]
    local crowd = cmsgpack.pack({names = names, as_values = as_values, cost = cost})
    local id = redis.sha1hex(crowd)
    local stand = space.read(sp, "HGET", "stands", id)
    if stand then
      stand = cmsgpack.unpack(stand)
      stand[4] = stand[4] + 1
      space.write(sp, "HSET", "stands", id, cmsgpack.pack(stand))
    else
      space.write(sp, "HSET", "crowds", id, crowd)
      sp.crowds = sp.crowds + 1
      stand_in_line(sp, id, {names = names, as_values = as_values}, 1, 1)
    end
    sp.waits_bytes = sp.waits_bytes + cost
    lines.wait(sp, lines.PRESENCE, id, {kind = "presence", sid = sid, seat = seat, call = call, id = id})
  end

  -- A key or an item of a queue has come: who waited for just that is answered.
  function presences.came(sp, name)
    if sp.crowds == 0 then
      return
    end
    for _, id in ipairs(lines.take(sp, lines.CROWD, name)) do
      local crowd, stand = crowd_of(sp, id), stand_of(sp, id)
      if not stand_in_line(sp, id, crowd, stand[2], stand[4]) then
        local calls = lines.take_calls(sp, lines.PRESENCE, id)
        disperse(sp, id)
        sp.waits_bytes = sp.waits_bytes - crowd.cost * #calls
        local body, err = "", nil
        if crowd.as_values then
          body, err = presences.values_of(sp, crowd.names)
        end
        if err then
          for _, w in ipairs(calls) do
            replies.fail(w, err)
          end
        else
          lines.answer_all(calls, body)
        end
      end
    end
  end

  waits.presence = {
    facts = function(w)
      local sp = space.open(w.space)
      local crowd, there, missing = crowd_of(sp, w.id), {}, {}
      for place, name in ipairs(crowd.names) do
        local side = is_there(sp, name, crowd.as_values) and there or missing
        side[#side + 1] = place - 1
      end
      return there, missing
    end,
    withdraw = function(w)
      local sp = space.open(w.space)
      local crowd, stand = crowd_of(sp, w.id), stand_of(sp, w.id)
      lines.withdraw(sp, lines.PRESENCE, w.id, w)
      sp.waits_bytes = sp.waits_bytes - crowd.cost
      if stand[4] > 1 then
        stand[4] = stand[4] - 1
        space.write(sp, "HSET", "stands", w.id, cmsgpack.pack(stand))
      else
        lines.leave(sp, lines.CROWD, stand[1], stand[3], w.id)
        disperse(sp, w.id)
      end
      return true
    end,
  }
end)
