-- One round: a collective call, from its first arrival until every rank was told its outcome.
--
-- A round is the record ":r:" <life> ":" <id>; its id is the tag (`tags.key`), ":" and the number.
--   op, root, detail   its signature          n, told     how many have arrived, and were told
--   since              when it was opened
--   error, expired     why those who come fail; why parts are no longer here
--   bytes, oldest      of its parts; no part expires before this time
--   settled            the ranks below this one were told or are gone
--   nu, nv             how many ranks are unconfirmed (see 45_rounds), and have arrived and given up
--   A<rank>            an arrival (`ARRIVAL`)
--   P<rank>            its parts, as they came         T<rank>   it was told
--   U<rank>, V<rank>   unconfirmed, given up           K<needs>  {n, facts} as they were told when n had arrived

local NEEDS_NOTHING, NEEDS_ROOT, NEEDS_ALL, NEEDS_ALL_TOLD = 0, 1, 2, 3

state.part(function()
  local SIGNATURE_TEXT = 128 -- as many bytes of a signature are told to people

  function rounds.at(life, id)
    local held = record(":r:" .. life .. ":" .. id)
    held.life, held.id = life, id
    return held
  end

  function rounds.id(tag, number)
    return string.format("%s:%.0f", tag, number)
  end

  -- The tag and the number that an id is made of.
  function rounds.of_id(id)
    local tag, number = string.match(id, "^(.*):(%d+)$")
    return tag, tonumber(number)
  end

  function rounds.signature_text(op, root, detail)
    local said = {}
    if root >= 0 then said[1] = string.format("root=%.0f", root) end
    if detail ~= "" then said[#said + 1] = "op=" .. detail end
    return text.cut(string.format("%s(%s)", op, table.concat(said, ", ")), SIGNATURE_TEXT)
  end

  function rounds.own_signature(round)
    return rounds.signature_text(round:get("op"), round:num("root"), round:get("detail"))
  end

  local ARRIVAL = ">dddBI2" -- seat, call, when its parts expire, needs, how many parts; its session behind them
  local ARRIVAL_BYTES = 27

  -- Keep the arrival of a rank.
  function rounds.keep_arrival(round, it)
    round:set("A" .. it.rank, struct.pack(ARRIVAL, it.seat, it.call, it.expires, it.needs, it.pieces) .. it.sid)
  end

  -- The arrival of a rank: {sid, seat, call, needs, pieces, expires, rank}; nil if it has not arrived.
  function rounds.arrival_of(round, rank)
    local kept = round:get("A" .. rank)
    if not kept then return nil end
    local seat, number, expires, needs, pieces = struct.unpack(ARRIVAL, kept)
    return {
      sid = string.sub(kept, ARRIVAL_BYTES + 1), seat = seat, call = number, needs = needs, pieces = pieces,
      expires = expires, rank = rank,
    }
  end

  -- All arrivals, in the order of their ranks.
  function rounds.arrivals_of(round)
    local found = {}
    for _, item in ipairs(round:under("A")) do found[#found + 1] = rounds.arrival_of(round, tonumber(item[1])) end
    return found
  end

  -- Those that were not told.
  function rounds.waiting_in(round)
    local found = {}
    for _, arrival in ipairs(rounds.arrivals_of(round)) do
      if not round:get("T" .. arrival.rank) then found[#found + 1] = arrival end
    end
    return found
  end

  -- What an arrival gave for one rank. `taken`: a table that keeps what was taken apart.
  function rounds.part_for(round, arrival, rank, taken)
    local given = round:get("P" .. arrival.rank)
    if not given then return "" end
    if arrival.pieces == 1 then return given end
    taken[arrival.rank] = taken[arrival.rank] or split_parts(given, arrival.pieces)
    return taken[arrival.rank][rank + 1]
  end

  function rounds.size_of(arrival, given)
    return arrival.pieces == 1 and #given or #given - 4 * arrival.pieces
  end

  -- Forget what an arrival gave.
  function rounds.drop_parts(round, arrival)
    local given = round:get("P" .. arrival.rank)
    if not given then return end
    local size = rounds.size_of(arrival, given)
    round:set("P" .. arrival.rank, false)
    round:add("bytes", -size)
    life_record(round.life):add("rb", -size)
  end

  function rounds.set_told(round, rank)
    if not round:get("T" .. rank) then
      round:set("T" .. rank, "1")
      round:add("told", 1)
    end
  end

  function rounds.forget_facts(round)
    for needs = NEEDS_NOTHING, NEEDS_ALL_TOLD do round:set("K" .. needs, false) end
  end

  -- Who has arrived and who is awaited by an arrival.
  function rounds.facts(round, needs)
    local fields, world = round:all(), life_record(round.life):num("world")
    local arrived, missing, never_came, unconfirmed = {}, {}, {}, {}
    for rank = 0, world - 1 do
      if fields["A" .. rank] then
        arrived[#arrived + 1] = rank
      else
        missing[#missing + 1] = rank
        if not fields["V" .. rank] then never_came[#never_came + 1] = rank end
      end
      if fields["U" .. rank] then unconfirmed[#unconfirmed + 1] = rank end
    end
    if needs == NEEDS_ROOT then
      local root = round:num("root")
      missing = fields["A" .. root] and {} or {root}
    elseif #never_came > 0 then
      -- Ranks with one deadline give up together: each is to be told who never came, not who gave up before it.
      missing = never_came
    end
    return arrived, #missing > 0 and missing or unconfirmed
  end

  -- The same encoded: thousands may ask when one rank is late.
  function rounds.told_facts(round, needs)
    local kept, count = round:get("K" .. needs), round:num("n")
    if kept then
      local known = cmsgpack.unpack(kept)
      if known[1] == count then return known[2] end
    end
    local facts = cmsgpack.pack({rounds.facts(round, needs)})
    round:set("K" .. needs, cmsgpack.pack({count, facts}))
    return facts
  end
end)
