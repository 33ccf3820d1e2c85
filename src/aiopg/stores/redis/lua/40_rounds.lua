-- Rounds: the collectives of one incarnation, that is who is answered when. The rules are those of `_core.rounds`.

state.part(function()
  -- Open rounds of a life, oldest first.
  function rounds.open_rounds(life)
    local found = {}
    if life_record(life):num("rounds") == 0 then return found end
    for _, item in ipairs(open_record(life):under("R", function(_, order) return tonumber(order) end)) do
      found[#found + 1] = rounds.at(life, item[1])
    end
    return found
  end

  local function is_open(round)
    return open_record(round.life):get("R" .. round.id)
  end

  function rounds.free(round)
    local held = life_record(round.life)
    open_record(round.life):set("R" .. round.id, false)
    held:add("rounds", -1)
    held:add("rb", -round:num("bytes"))
    round:drop()
  end

  -- Whether a rank that can still come was not told. Who was told or is gone stays so: what was passed over once need
  -- not be looked at again.
  local function is_awaited(round, held, world)
    local rank, fields = round:num("settled"), round:all()
    local gone = held:all()
    while rank < world and (fields["T" .. rank] or gone["G" .. rank]) do rank = rank + 1 end
    round:set("settled", rank)
    return rank < world
  end

  function rounds.free_if_done(round)
    if not is_open(round) then return end
    local held = life_record(round.life)
    local world, told = held:num("world"), round:num("told")
    if told < world and (told + held:num("ng") < world or is_awaited(round, held, world)) then return end
    rounds.free(round)
  end

  local function answer(round, arrival, body)
    rounds.set_told(round, arrival.rank)
    replies.answer(arrival, body)
  end

  function rounds.fail(round, arrivals, err)
    local body = replies.shared(err, #arrivals)
    for _, arrival in ipairs(arrivals) do
      rounds.set_told(round, arrival.rank)
      replies.fail(arrival, body)
    end
  end

  local function hand_out_body(round, needers, body, receipt)
    if #body > LIMITS.payload_bytes + 4 * LIMITS.world_size then
      rounds.fail(round, needers, fault("PayloadTooLargeError", {
        size = #body, limit = LIMITS.payload_bytes + 4 * LIMITS.world_size,
      }))
      return
    end
    local shared = replies.shared(body, #needers)
    for _, needer in ipairs(needers) do
      rounds.set_told(round, needer.rank)
      if receipt then
        round:set("U" .. needer.rank, "1")
        round:add("nu", 1)
      end
      replies.answer(needer, shared, receipt and {
        kind = "arrive", life = round.life, round = round.id, rank = needer.rank, call = needer.call,
      } or nil)
    end
  end

  -- Answer needers of all. Where no rank gave a part per rank, they share one body.
  local function hand_out(round, needers, receipt)
    if #needers == 0 then return end
    local arrivals, given, many, taken = rounds.arrivals_of(round), false, false, {}
    for _, arrival in ipairs(arrivals) do
      if round:get("P" .. arrival.rank) then
        given = true
        many = many or arrival.pieces > 1
      end
    end
    if not given then
      hand_out_body(round, needers, "", receipt)
      return
    end
    for _, needer in ipairs(many and needers or {needers[1]}) do
      local parts = {}
      for i, arrival in ipairs(arrivals) do parts[i] = rounds.part_for(round, arrival, needer.rank, taken) end
      hand_out_body(round, many and {needer} or needers, pack.parts(parts), receipt)
    end
  end

  function rounds.release_last(round)
    for rank = 0, round:num("nu") > 0 and life_record(round.life):num("world") - 1 or -1 do
      round:set("U" .. rank, false)
    end
    round:set("nu", false)
    hand_out(round, rounds.waiting_in(round), false)
    rounds.free_if_done(round)
  end

  -- Every rank is there: answer all who need all.
  function rounds.complete(round)
    local needers = rounds.waiting_in(round)
    if round:get("expired") then
      rounds.fail(round, needers, round:get("expired"))
      return
    end
    local first, leaves_last = {}, false
    for _, arrival in ipairs(needers) do
      if arrival.needs == NEEDS_ALL then first[#first + 1] = arrival end
      leaves_last = leaves_last or arrival.needs == NEEDS_ALL_TOLD
    end
    if not leaves_last then
      hand_out(round, needers, false)
      return
    end
    -- Somebody leaves last: the others' answers ask for an acknowledgement (barrier, phase 3).
    hand_out(round, first, true)
    if round:num("nu") == 0 then rounds.release_last(round) end
  end

  -- A rank has its answer in hand, or never will.
  function rounds.confirm(round, rank)
    if not round:get("U" .. rank) then return end
    round:set("U" .. rank, false)
    rounds.forget_facts(round)
    if round:add("nu", -1) == 0 then rounds.release_last(round) end
  end

  -- Fail an arrival whose needs cannot be met: what it needs has expired, or ranks are `lost` that it needs.
  local function fail_needer(round, arrival, lost)
    if round:get("expired") then
      rounds.fail(round, {arrival}, round:get("expired"))
    elseif #lost > 0 then
      rounds.fail(round, {arrival}, peer_lost(lost, life_record(round.life):get("G" .. lost[1])))
    end
  end

  -- Answer a needer of the root's part if it is there, fail it if it can no longer come.
  local function settle_needer(round, arrival, root, taken)
    local source = rounds.arrival_of(round, root)
    if round:get("expired") or not source then
      fail_needer(round, arrival, life_record(round.life):get("G" .. root) and {root} or {})
      return
    end
    answer(round, arrival, rounds.part_for(round, source, arrival.rank, taken))
  end

  local function lost_ranks(round)
    local held, lost = life_record(round.life), {}
    if held:num("ng") == 0 then return lost end
    for _, item in ipairs(held:under("G")) do
      if not round:get("A" .. item[1]) then lost[#lost + 1] = tonumber(item[1]) end
    end
    return lost
  end

  -- Answer everybody whom an arrival completes, itself included.
  function rounds.settle(round, arrival)
    local root, taken = round:num("root"), {}
    if arrival.needs == NEEDS_NOTHING then
      answer(round, arrival, "")
    elseif arrival.needs == NEEDS_ROOT and arrival.rank ~= root then
      settle_needer(round, arrival, root, taken)
    end
    if arrival.rank == root then
      for _, other in ipairs(rounds.waiting_in(round)) do
        if other.needs == NEEDS_ROOT then settle_needer(round, other, root, taken) end
      end
    end
    local held = life_record(round.life)
    if round:num("n") == held:num("world") then
      rounds.complete(round)
    elseif arrival.needs >= NEEDS_ALL and (held:num("ng") > 0 or round:get("expired")) then
      fail_needer(round, arrival, lost_ranks(round))
    end
  end

  -- Decide that a round fails, for those in it and those who come to it. Nobody will read its parts.
  function rounds.fail_round(round, err)
    round:set("error", err)
    rounds.fail(round, rounds.waiting_in(round), err)
    for _, arrival in ipairs(rounds.arrivals_of(round)) do rounds.drop_parts(round, arrival) end
  end

  local function round_where_waiting(life, tag, rank)
    for _, round in ipairs(rounds.open_rounds(life)) do
      if rounds.of_id(round.id) == tag and round:get("A" .. rank) and not round:get("T" .. rank) then return round end
    end
    return nil
  end

  function rounds.mismatch(round, rank, signature)
    local tag, number = rounds.of_id(round.id)
    local arrivals, own, calls = rounds.arrivals_of(round), cmsgpack.pack(rounds.own_signature(round)), {}
    for _, arrival in ipairs(arrivals) do
      calls[#calls + 1] = cmsgpack.pack(arrival.rank)
      calls[#calls + 1] = arrival.rank == rank and cmsgpack.pack(signature) or own
    end
    local packed = cmsgpack.pack
    local err = "\146" .. packed("CollectiveMismatchError") .. pack.map({
      packed("group"), packed(group_name()), packed("tag"), tags.pack(tag), packed("seq"), packed(number),
      packed("calls"), pack.map(calls),
    })
    local held, answered = life_record(round.life), {}
    for _, arrival in ipairs(arrivals) do
      if round:get("T" .. arrival.rank) and not held:get("G" .. arrival.rank) then
        answered[#answered + 1] = arrival.rank
      end
    end
    rounds.fail_round(round, err)
    for _, early in ipairs(answered) do
      local waits_in = round_where_waiting(round.life, tag, early)
      if waits_in then
        rounds.fail_round(waits_in, err)
        rounds.free_if_done(waits_in)
      else
        local field = "O" .. early .. ":" .. tag
        if not open_record(round.life):get(field) then held:add("owed", 1) end
        open_record(round.life):set(field, err)
      end
    end
  end

  -- Drop the parts of givers who do not wait and whose time is over; how many.
  function rounds.expire_round(round)
    local old, oldest, count = {}, math.huge, 0
    for _, arrival in ipairs(rounds.arrivals_of(round)) do
      if round:get("P" .. arrival.rank) then
        if round:get("T" .. arrival.rank) and arrival.expires <= now then
          old[#old + 1] = arrival
        elseif arrival.expires < oldest then
          oldest = arrival.expires
        end
      end
    end
    if #old == 0 then return 0 end
    local tag, number = rounds.of_id(round.id)
    round:set("expired", fault("DataExpiredError", {
      group = group_name(),
      what = string.format("%s number %d, tag %s,", rounds.own_signature(round), number, tags.text(tag)),
    }))
    for _, arrival in ipairs(old) do rounds.drop_parts(round, arrival) end
    round:set("oldest", oldest)
    rounds.fail(round, rounds.waiting_in(round), round:get("expired"))
    rounds.free_if_done(round)
    return #old
  end
end)
