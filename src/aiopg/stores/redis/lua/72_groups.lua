-- Groups: who sits where, in which life of the room's group. The rules are those of `_core.groups`.

rare.part(function()
  function groups.seat_in(life, rank)
    local kept = life_record(life):get("S" .. rank)
    if not kept then return nil end
    local it = cmsgpack.unpack(kept)
    return {sid = it[2], seat = it[3], holder = it[4], call = it[5], life = life, rank = rank}
  end

  -- Seats taken in a life, in the order of taking: {{rank, packed}, ...}.
  local function seats_of(life)
    return life_record(life):under("S", function(_, kept) return cmsgpack.unpack(kept)[1] end)
  end

  -- Ranks of a life that are taken and that are not, in order.
  local function ranks_of(life)
    local held = life_record(life)
    local fields, taken, free = held:all(), {}, {}
    for rank = 0, held:num("world") - 1 do
      local list = fields["S" .. rank] and taken or free
      list[#list + 1] = rank
    end
    return taken, free
  end

  local function drop(life)
    local held, left = life_record(life), {}
    for _, one in ipairs(lives()) do
      if one ~= life then left[#left + 1] = one end
    end
    room:set("lives", #left > 0 and cmsgpack.pack(left))
    local due = #left == 0 and record(":lobby"):get("due") -- it waited for this (see 74_lobbies)
    if due then state.due_at(tonumber(due)) end
    rounds.drop(life)
    if held:get("keys") then keys.drop(tostring(life)) end
    record(":l:" .. life):drop()
    open_record(life):drop()
    held:drop()
  end

  -- A new life of the group. Raises StoreFullError.
  local function open(world)
    local all = lives()
    if #all >= LIMITS.groups then store_full("groups") end
    local life = room:add("number", 1)
    all[#all + 1] = life
    room:set("lives", cmsgpack.pack(all))
    record(":i:" .. life):create():set("world", world)
    open_record(life):create():set("life", life)
    record(":l:" .. life):create():set("life", life)
    return life
  end

  local function sit(seat)
    local held = life_record(seat.life)
    held:set("S" .. seat.rank, cmsgpack.pack({
      next_order(seat.life), seat.sid, seat.seat, seat.holder, seat.call, now,
    }))
    held:add("ns", 1)
    if not held:get("ttl") or seat.ttl < held:num("ttl") then held:set("ttl", seat.ttl) end
    held:set("facts", false)
  end

  -- The life whose seat of this rank a joiner would take, and who holds that. Raises WorldSizeMismatchError.
  function groups.holder(rank, world)
    local all = lives()
    for _, life in ipairs(all) do
      local expected = life_record(life):num("world")
      if expected ~= world then
        raise("WorldSizeMismatchError", {group = group_name(), world_size = world, expected = expected})
      end
    end
    for _, life in ipairs(all) do
      local held = life_record(life)
      if not held:get("G" .. rank) and not held:get("aborted") then return life, groups.seat_in(life, rank) end
    end
    return nil, nil
  end

  -- Raises what would keep the joiner from a seat though the holder were put out: RankConflictError if it would come to
  -- a later life and somebody waits there with that rank, or StoreFullError.
  function groups.check_succession(holder)
    local held, all = life_record(holder.life), lives()
    local stays = held:num("ns") > 1
    if stays and not held:get("live") then return end -- the seat is free again
    for _, life in ipairs(all) do
      local other = life_record(life)
      if life ~= holder.life and not other:get("G" .. holder.rank) and not other:get("aborted") then
        local rival = groups.seat_in(life, holder.rank)
        if rival then
          raise("RankConflictError", {group = group_name(), rank = holder.rank, holder = rival.holder})
        end
        return
      end
    end
    if stays and #all >= LIMITS.groups then store_full("groups") end
  end

  -- Seat a rank; when it is the last one, answer all. Raises RankConflictError or StoreFullError.
  function groups.join(seat, world)
    local life, holder = groups.holder(seat.rank, world)
    if holder then
      raise("RankConflictError", {group = group_name(), rank = seat.rank, holder = holder.holder})
    end
    if life and life_record(life):num("hist") > 4 * world + 100 then
      usage("ranks of group %s were taken and given back too often: close it", text.quoted(group_name()))
    end
    seat.life = life or open(world)
    local held = life_record(seat.life)
    local w = {sid = seat.sid, seat = seat.seat, call = seat.call, kind = "join", life = seat.life, rank = seat.rank}
    replies.wait(w)
    sit(seat)
    if not held:get("live") and held:num("ns") < world then return end
    local told = {{seat.rank, cmsgpack.pack({0, seat.sid, seat.seat, seat.holder, seat.call})}}
    if not held:get("live") then told = seats_of(seat.life) end
    held:set("live", "1")
    if not held:get("aborted") then held:set("works", "1") end
    for _, item in ipairs(told) do
      history.add(seat.life, "joined", tonumber(item[1]), cmsgpack.unpack(item[2])[4])
    end
    local body = cmsgpack.pack(seat.life)
    for _, item in ipairs(told) do
      local it = cmsgpack.unpack(item[2])
      replies.answer({sid = it[2], call = it[5]}, body)
    end
  end

  -- A new life, complete from its first moment, of these seats, whose ranks are given. Raises StoreFullError.
  function groups.open_with(seats)
    local life = open(#seats)
    local held = life_record(life)
    for _, seat in ipairs(seats) do
      seat.life = life
      sit(seat)
      history.add(life, "joined", seat.rank, seat.holder)
    end
    held:set("live", "1")
    held:set("works", "1")
  end

  -- A joiner withdraws: its seat is as if never taken, also where the incarnation has become live meanwhile.
  function groups.unseat(seat)
    local held = life_record(seat.life)
    held:set("S" .. seat.rank, false)
    held:set("facts", false)
    local count = held:add("ns", -1)
    if held:get("live") then history.add(seat.life, "left", seat.rank, "it took its join back") end
    if count == 0 then drop(seat.life) end
  end

  -- A member is gone: it "left", or was "lost".
  function groups.lose(seat, reason, what)
    local life, held = seat.life, life_record(seat.life)
    if not held:get("live") then
      groups.unseat(seat)
      return
    end
    held:set("S" .. seat.rank, false)
    held:set("facts", false)
    held:set("G" .. seat.rank, reason)
    held:add("ng", 1)
    local count = held:add("ns", -1)
    local err = peer_lost({seat.rank}, reason)
    mailboxes.lose(life, seat.rank, err)
    rounds.lose(life, seat.rank, err)
    if held:get("keys") then keys.end_owner(tostring(life), seat.sid .. ":" .. seat.seat) end
    history.add(life, what or "lost", seat.rank, reason)
    if count == 0 then drop(life) end
  end

  -- Fail everything, now and later. The first abort is the one that is told.
  function groups.abort(seat, reason)
    local life, held = seat.life, life_record(seat.life)
    if held:get("aborted") then return end
    local err = fault("GroupAbortedError", {group = group_name(), origin = seat.rank, reason = reason})
    held:set("aborted", err)
    held:set("works", false)
    history.add(life, "aborted", seat.rank, reason)
    mailboxes.abort(life, err)
    rounds.abort(life, err)
    if held:get("keys") then
      keys.fail(tostring(life), err)
      held:set("keys", false)
    end
  end

  waits.join = {
    facts = function(w) return ranks_of(w.life) end,
    told_facts = function(w) -- as thousands ask when one rank is late: made once, until it changes
      local held = life_record(w.life)
      local kept = held:get("facts")
      if not kept then
        local taken, free = ranks_of(w.life)
        kept = cmsgpack.pack({taken, free})
        held:set("facts", kept)
      end
      return kept
    end,
    withdraw = function(w)
      groups.unseat(groups.seat_in(w.life, w.rank))
      return true
    end,
  }
end)
