-- Rounds: what comes to them. A rank arrives, gives up, has its answer, is gone; a life is aborted, data expires.

state.part(function()
  -- A rank comes to a round. `c`: the command (kind, call, seat, tag, number, op, root, detail, needs, pieces). Raises
  -- UsageError, ProtocolError or StoreFullError for an arrival that cannot be; it was not counted.
  function rounds.arrive(seat, c, tag, body)
    local number, op, root, detail, needs, pieces = c[5], c[6], c[7], c[8], c[9], c[10]
    local life, rank, id = seat.life, seat.rank, rounds.id(tag, number)
    local held, round = life_record(life), rounds.at(life, id)
    local world = held:num("world")
    if pieces ~= 0 and pieces ~= 1 then
      if pieces ~= world then
        raise("ProtocolError", {reason = string.format("%.0f parts for %d ranks", pieces, world)})
      end
      split_parts(body, pieces)
    end
    if round.count == 0 and not round.blank and not round.whole then
      local found = call(
        "HMGET", round.key, "op", "root", "detail", "n", "told", "error", "expired", "oldest", "bytes", "nv",
        "A" .. rank
      )
      round.vals = {
        op = found[1], root = found[2], detail = found[3], n = found[4], told = found[5], error = found[6],
        expired = found[7], oldest = found[8], bytes = found[9], nv = found[10], ["A" .. rank] = found[11],
      }
    end
    local is_new = not round:get("op")
    if is_new then
      if held:num("rounds") + held:num("owed") >= LIMITS.open_rounds then
        store_full("open_rounds", "group " .. text.quoted(group_name()))
      end
    elseif round:get("A" .. rank) then
      usage("rank %d has already arrived at %s number %.0f", rank, op, number)
    end
    replies.check(seat.sid, c[2])
    -- From here on nothing is refused: the arrival counts.
    if is_new then
      round:create()
      round:set("op", op)
      round:set("since", now)
      round:set("root", root)
      round:set("detail", detail)
      open_record(life):set("R" .. id, next_order(life))
      held:add("rounds", 1)
    elseif round:num("oldest", math.huge) <= now then
      rounds.expire_round(round)
    end
    local expires = now + seat.ttl
    replies.wait({
      sid = seat.sid, seat = seat.seat, call = c[2], kind = "arrive", life = life, round = id, rank = rank,
      needs = needs,
    })
    local arrival = {
      sid = seat.sid, seat = seat.seat, call = c[2], needs = needs, pieces = pieces, expires = expires, rank = rank,
    }
    rounds.keep_arrival(round, arrival)
    local count = round:add("n", 1)
    if round:num("nv") > 0 and round:get("V" .. rank) then
      round:set("V" .. rank, false)
      round:add("nv", -1)
      rounds.forget_facts(round)
    end
    if pieces > 0 then
      local size = rounds.size_of(arrival, body)
      round:set("P" .. rank, body)
      round:add("bytes", size)
      held:add("rb", size)
      if expires < round:num("oldest", math.huge) then round:set("oldest", expires) end
    end
    local owed = held:num("owed") > 0 and open_record(life):get("O" .. rank .. ":" .. tag)
    if owed then
      open_record(life):set("O" .. rank .. ":" .. tag, false)
      held:add("owed", -1)
      rounds.fail_round(round, owed)
    elseif round:get("error") then
      rounds.fail(round, {arrival}, round:get("error"))
      rounds.drop_parts(round, arrival)
    elseif round:get("op") ~= op or round:num("root") ~= root or round:get("detail") ~= detail then
      rounds.mismatch(round, rank, rounds.signature_text(op, root, detail))
    elseif needs < NEEDS_ALL or rank == root or held:num("ng") > 0 or round:get("expired") then
      rounds.settle(round, arrival)
    elseif count == world then
      rounds.complete(round)
    end
    if round:num("told") + held:num("ng") >= world then rounds.free_if_done(round) end
  end

  -- A rank is gone, and its waiting arrivals were withdrawn: fail what needs it and where it had not arrived.
  function rounds.lose(life, rank, err)
    local held = life_record(life)
    if held:num("owed") > 0 then
      local ranks = "^" .. rank .. ":"
      for _, item in ipairs(open_record(life):under("O", function(name) return name end)) do
        if string.find(item[1], ranks) then
          open_record(life):set("O" .. item[1], false)
          held:add("owed", -1)
        end
      end
    end
    for _, round in ipairs(rounds.open_rounds(life)) do
      round:load("n", "told", "root", "A" .. rank, "U" .. rank)
      -- Those that all were told are many when thousands leave, and nobody waits in them.
      if not round:get("A" .. rank) and round:num("told") < round:num("n") then
        local needers = {}
        for _, one in ipairs(rounds.waiting_in(round)) do
          local needs = one.needs
          local rooted = needs == NEEDS_ROOT and round:num("root") == rank
          if needs >= NEEDS_ALL or rooted then needers[#needers + 1] = one end
        end
        rounds.fail(round, needers, err)
      end
      rounds.confirm(round, rank)
      rounds.free_if_done(round)
    end
  end

  -- Forget all rounds of a life that is no more.
  function rounds.drop(life)
    for _, round in ipairs(rounds.open_rounds(life)) do round:drop() end
  end

  -- Fail every waiting arrival and drop every round.
  function rounds.abort(life, err)
    local held, things = life_record(life), open_record(life)
    for _, round in ipairs(rounds.open_rounds(life)) do
      rounds.fail(round, rounds.waiting_in(round), err)
      things:set("R" .. round.id, false)
      round:drop()
    end
    if held:num("owed") > 0 then
      for _, item in ipairs(things:under("O", function(name) return name end)) do things:set("O" .. item[1], false) end
    end
    held:set("rounds", false)
    held:set("owed", false)
    held:set("rb", false)
  end

  -- Drop what is past its time; how many parts.
  function rounds.expire(life)
    local count = 0
    for _, round in ipairs(rounds.open_rounds(life)) do
      if round:num("oldest", math.huge) <= now then count = count + rounds.expire_round(round) end
    end
    return count
  end

  waits.arrive = {
    facts = function(w)
      return rounds.facts(rounds.at(w.life, w.round), w.needs)
    end,
    told_facts = function(w)
      return rounds.told_facts(rounds.at(w.life, w.round), w.needs)
    end,
    -- Uncount an arrival that was not answered. False if its round is complete: then it is answered.
    withdraw = function(w)
      local round = rounds.at(w.life, w.round)
      local arrival = rounds.arrival_of(round, w.rank)
      if not arrival or arrival.sid ~= w.sid or arrival.call ~= w.call then
        return false -- answered with another seat of its session, which was withdrawn just before
      end
      if round:num("n") == life_record(w.life):num("world") then
        rounds.release_last(round)
        return false
      end
      rounds.drop_parts(round, arrival)
      round:set("A" .. w.rank, false)
      rounds.forget_facts(round)
      round:set("V" .. w.rank, "1")
      round:add("nv", 1)
      if round:add("n", -1) == 0 then rounds.free(round) end
      return true
    end,
    -- A session has acknowledged its answer, and somebody waits for that to leave last.
    confirmed = function(receipt)
      local round = rounds.at(receipt.life, receipt.round)
      local arrival = rounds.arrival_of(round, receipt.rank)
      if arrival and arrival.call == receipt.call then rounds.confirm(round, receipt.rank) end
    end,
    unconfirmed = function() end, -- its rank is lost, which counts as much
  }
end)
