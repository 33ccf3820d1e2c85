-- Lines: who waits for a name, in the order of asking. Of thousands any one may give up.
--
-- All lines of a space are one sorted set. A member: kind, name, place (of eight bytes), who.

local lines = {CROWD = "0", PRESENCE = "1", POP = "2", MEET = "3", LOCK = "4", FOLLOW = "5"}

keys.part(function()
  local function line(kind, name)
    return kind .. struct.pack(">I2", #name) .. name
  end

  local function whole(sp, prefix)
    local first, last = space.range(prefix)
    return space.read(sp, "ZRANGEBYLEX", "lines", first, last)
  end

  -- How a call is written down: its number, its seat, its session.
  local function written(w)
    return ("%.0f %.0f %s"):format(w.call, w.seat, w.sid)
  end

  -- And read again: as much of a waiting call as it takes to end it.
  function lines.waiting(who)
    local call, seat, sid = who:match("^(%S+) (%S+) (.*)$")
    return {sid = sid, seat = tonumber(seat), call = tonumber(call)}
  end

  -- Stand at the end. Returns the place.
  function lines.stand(sp, kind, name, who)
    sp.stood = sp.stood + 1
    space.write(sp, "ZADD", "lines", 0, line(kind, name) .. pack.eight(sp.stood) .. who)
    return sp.stood
  end

  -- Stand there no more.
  function lines.leave(sp, kind, name, place, who)
    space.write(sp, "ZREM", "lines", line(kind, name) .. pack.eight(place) .. who)
  end

  -- A call waits at the end: {kind =, sid =, seat =, call =, ...}, see `replies.wait`.
  function lines.wait(sp, kind, name, w)
    w.space, w.place = sp.name, lines.stand(sp, kind, name, written(w))
    replies.wait(w)
  end

  -- It waits there no more.
  function lines.withdraw(sp, kind, name, w)
    lines.leave(sp, kind, name, w.place, written(w))
  end

  function lines.is_empty(sp, kind, name)
    local first, last = space.range(line(kind, name))
    return #space.read(sp, "ZRANGEBYLEX", "lines", first, last, "LIMIT", 0, 1) == 0
  end

  -- Who stood there longest, if anybody; they stand there no more.
  function lines.shift(sp, kind, name)
    local prefix = line(kind, name)
    local first, last = space.range(prefix)
    local member = space.read(sp, "ZRANGEBYLEX", "lines", first, last, "LIMIT", 0, 1)[1]
    if member then
      space.write(sp, "ZREM", "lines", member)
      return member:sub(#prefix + 9)
    end
  end

  -- All of them, in order; they stand there no more.
  function lines.take(sp, kind, name)
    local prefix = line(kind, name)
    local all = whole(sp, prefix)
    if #all > 0 then
      space.write(sp, "ZREMRANGEBYLEX", "lines", space.range(prefix))
    end
    for place, member in ipairs(all) do
      all[place] = member:sub(#prefix + 9)
    end
    return all
  end

  -- The calls among them.
  function lines.take_calls(sp, kind, name)
    local all = lines.take(sp, kind, name)
    for place, who in ipairs(all) do
      all[place] = lines.waiting(who)
    end
    return all
  end

  -- Answer calls with one shared result.
  function lines.answer_all(calls, body)
    local shared = replies.shared(body, #calls)
    for _, w in ipairs(calls) do replies.answer(w, shared) end
  end

  -- All calls that wait in a space: presences first, then pops, meetings, locks, followers.
  function lines.calls(sp)
    local all = {}
    for _, member in ipairs(space.read(sp, "ZRANGE", "lines", 0, -1)) do
      if member:sub(1, 1) ~= lines.CROWD then
        all[#all + 1] = lines.waiting(member:sub(12 + struct.unpack(">I2", member, 2)))
      end
    end
    return all
  end
end)
