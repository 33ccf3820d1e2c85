-- What happened to the members of an incarnation, and who waits to hear of it.

rare.part(function()
  -- What happened after the first `after` happenings, encoded; nil if nothing did.
  local function unheard(life, after)
    local held = life_record(life)
    local count, packed = held:num("hist"), {}
    for first = math.max(after, 0) + 1, count, CHUNK do
      local fields = {}
      for k = first, math.min(first + CHUNK - 1, count) do fields[#fields + 1] = "H" .. k end
      held:load(unpack(fields))
      for _, field in ipairs(fields) do packed[#packed + 1] = held:get(field) end
    end
    return #packed > 0 and pack.array(packed) or nil
  end

  local function tell(life, w)
    local news = unheard(life, w.after)
    if news then
      replies.answer(w, news)
      return
    end
    w.order = next_order(life)
    open_record(life):set("X" .. w.order, cmsgpack.pack({w.sid, w.call}))
    life_record(life):add("watching", 1)
    replies.rewait(w)
  end

  local function take_off(w)
    open_record(w.life):set("X" .. w.order, false)
    life_record(w.life):add("watching", -1)
  end

  -- Something happened; who waits is told.
  function history.add(life, what, rank, said)
    local held = life_record(life)
    local count = held:add("hist", 1)
    held:set("H" .. count, cmsgpack.pack({what, rank, said}))
    held:set("last", what)
    if held:num("watching") == 0 then return end
    for _, item in ipairs(open_record(life):under("X")) do
      local one = cmsgpack.unpack(item[2])
      local w = replies.waiting(one[1], one[2])
      take_off(w)
      tell(life, w)
    end
  end

  -- Tell a member what it has not heard of, now or when there is something. Raises as `replies.wait`.
  function history.watch(seat, number, after)
    local w = {sid = seat.sid, seat = seat.seat, call = number, kind = "watch", life = seat.life, after = after}
    replies.wait(w)
    tell(seat.life, w)
  end

  waits.watch = {
    facts = function() return {}, {} end,
    withdraw = function(w)
      take_off(w)
      return true
    end,
  }
end)
