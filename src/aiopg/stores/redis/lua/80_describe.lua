-- The room's state for people.

rare.part(function()
  local ROUNDS_SHOWN, RANKS_SHOWN = 64, 1024 -- more is of no use to people
  local NO_KEYS = {keys = 0, queues = 0, bytes = 0}

  local function first_of(list, most)
    local found = {}
    for i = 1, math.min(#list, most) do found[i] = list[i] end
    return found
  end

  local function describe_round(round)
    local tag, number = rounds.of_id(round.id)
    local arrived, fields, missing = {}, round:all(), {}
    for rank = 0, life_record(round.life):num("world") - 1 do
      local list = fields["A" .. rank] and arrived or missing
      list[#list + 1] = rank
    end
    local packed = cmsgpack.pack
    return pack.map({
      packed("tag"), tags.pack(tag), packed("number"), packed(number),
      packed("call"), packed(rounds.own_signature(round)),
      packed("arrived"), packed(first_of(arrived, RANKS_SHOWN)),
      packed("missing"), packed(first_of(missing, RANKS_SHOWN)), packed("bytes"), packed(round:num("bytes")),
      packed("since"), packed(now - round:num("since")),
    })
  end

  local function describe_life(life)
    local held, packed = life_record(life), cmsgpack.pack
    local members, away, since, gone, left, shown = {}, {}, {}, {}, {}, {}
    for _, item in ipairs(held:under("S")) do
      local rank, it = tonumber(item[1]), cmsgpack.unpack(item[2])
      members[#members + 1] = packed(rank)
      members[#members + 1] = packed(it[4])
      since[#since + 1] = packed(rank)
      since[#since + 1] = packed(now - it[6])
      if is_away(it[2]) then away[#away + 1] = rank end
    end
    for _, item in ipairs(held:under("G")) do
      gone[#gone + 1] = packed(tonumber(item[1]))
      gone[#gone + 1] = packed(item[2])
    end
    for _, item in ipairs(held:under("H")) do
      local what, rank = unpack(cmsgpack.unpack(item[2]))
      if what == "left" and held:get("G" .. rank) then left[#left + 1] = rank end
    end
    table.sort(left)
    for i, round in ipairs(first_of(rounds.open_rounds(life), ROUNDS_SHOWN)) do shown[i] = describe_round(round) end
    return pack.map({
      packed("name"), packed(group_name()), packed("incarnation"), packed(life), packed("world_size"),
      packed(held:num("world")), packed("state"),
      packed(held:get("aborted") and "aborted" or held:get("live") and "live" or "forming"),
      packed("members"), pack.map(members), packed("gone"), pack.map(gone), packed("rounds"), pack.array(shown),
      packed("left"), packed(left), packed("away"), packed(away), packed("since"), pack.map(since),
      packed("mailboxes"), packed(held:num("boxes")), packed("messages"), packed(held:num("msgs")),
      packed("keys"), held:get("keys") and keys.describe(tostring(life)) or packed(NO_KEYS),
      packed("bytes"), packed(bytes_of(life)),
    })
  end

  function state.describe()
    local shown, count, bytes, members, packed = {}, 0, 0, 0, cmsgpack.pack
    for i, life in ipairs(lives()) do
      local held = life_record(life)
      shown[i] = describe_life(life)
      count, bytes, members = count + held:num("rounds"), bytes + bytes_of(life), members + held:num("ns")
    end
    local common = packed(NO_KEYS)
    if room:get("keys") then
      common, bytes = keys.describe(""), bytes + keys.bytes("")
    end
    return pack.map({
      packed("groups"), pack.array(shown), packed("rounds"), packed(count), packed("bytes"), packed(bytes),
      packed("members"), packed(members), packed("lobbies"), lobbies.describe(), packed("keys"), common,
    })
  end

  handlers[43] = function(sid, c) -- Status
    replies.answer_now(sid, c[2], state.describe())
  end
end)
