-- Mailboxes: point-to-point messages of one incarnation. The rules are those of `_core.mailboxes`.
--
-- An address is "src:dst:tag" (`tags.key`). The mailbox of one is a field B<address> of what is open in its life,
-- either
--   {order, head, tail, count}      letters wait: those of the indexes from head to tail - 1 that are still there, or
--   {order, {{sid, call}, ...}}     takes wait
-- and its letters are fields of the record ":l:" <life>:
--   <address>:<index>     whether it still has its body, when it expires, the number of its put, and its body
--   <address>:p<put>      its index

state.part(function()
  local LETTER = ">Bdd"
  local LETTER_BYTES = 17

  local function letters(life)
    return record(":l:" .. life)
  end

  function mailboxes.address_of(src, dst, tag)
    return string.format("%.0f:%.0f:%s", src, dst, tag)
  end

  local function parts_of(address)
    local src, dst, tag = string.match(address, "^(.-):(.-):(.*)$")
    return tonumber(src), tonumber(dst), tag
  end

  local function expired_letter(address)
    local src, _, tag = parts_of(address)
    return fault("DataExpiredError", {
      group = group_name(), what = string.format("the message from rank %d, tag %s,", src, tags.text(tag)),
    })
  end

  local function box_at(life, address)
    local kept = open_record(life):get("B" .. address)
    return kept and cmsgpack.unpack(kept) or nil
  end

  -- Keep a mailbox as it is now, or drop it where nothing is in it.
  local function keep_box(life, address, box)
    local empty = type(box[2]) == "table" and #box[2] == 0 or box[4] == 0
    open_record(life):set("B" .. address, not empty and cmsgpack.pack(box))
    if empty then life_record(life):add("boxes", -1) end
  end

  local function new_box(life, ...)
    life_record(life):add("boxes", 1)
    return {next_order(life), ...}
  end

  -- Remove a letter. Returns its body (nil where it has expired), and when it expires or did.
  local function remove_letter(life, address, box, index)
    local held, field = letters(life), address .. ":" .. index
    local kept = held:get(field)
    local alive, expires, put = struct.unpack(LETTER, kept)
    held:set(field, false)
    held:set(string.format("%s:p%.0f", address, put), false)
    box[4] = box[4] - 1
    local of_life = life_record(life)
    of_life:add("msgs", -1)
    if alive == 0 then return nil, expires end
    of_life:add("mb", LETTER_BYTES - #kept)
    return string.sub(kept, LETTER_BYTES + 1), expires
  end

  -- The first index of a mailbox at which a letter is.
  local function first_letter(life, address, box)
    local held = letters(life)
    while not held:get(address .. ":" .. box[2]) do box[2] = box[2] + 1 end
    return box[2]
  end

  -- Append a message, or hand it to the take that waits for it. Raises StoreFullError.
  function mailboxes.put(life, address, body, put, expires)
    local box = box_at(life, address)
    if box and type(box[2]) == "table" then
      local take = table.remove(box[2], 1)
      replies.answer({sid = take[1], call = take[2]}, body)
      keep_box(life, address, box)
      return
    end
    if box and box[4] >= LIMITS.mailbox_messages then
      local src, dst, tag = parts_of(address)
      store_full("mailbox_messages", string.format(
        "messages from rank %d to rank %d, tag %s, of group %s", src, dst, tags.text(tag), text.quoted(group_name())
      ))
    end
    local held = life_record(life)
    if held:num("msgs") >= LIMITS.group_messages then
      store_full("group_messages", "group " .. text.quoted(group_name()))
    end
    box = box or new_box(life, 0, 0, 0)
    local of_life, index = letters(life), box[3]
    of_life:set(address .. ":" .. index, struct.pack(LETTER, 1, expires, put) .. body)
    of_life:set(string.format("%s:p%.0f", address, put), index)
    box[3], box[4] = index + 1, box[4] + 1
    held:add("msgs", 1)
    held:add("mb", #body)
    keep_box(life, address, box)
  end

  -- Remove what call `put` of the mailbox's source put; false if it is not there any more.
  function mailboxes.take_back(life, address, put)
    local box = box_at(life, address)
    local index = box and letters(life):get(string.format("%s:p%.0f", address, put))
    if not index then return false end
    remove_letter(life, address, box, index)
    keep_box(life, address, box)
    return true
  end

  -- Take the head, or wait for one. `gone`: why nothing more will come from the source. Raises what `replies.check`
  -- does.
  function mailboxes.take(seat, number, address, gone)
    local life, sid = seat.life, seat.sid
    local box = box_at(life, address)
    if box and box[4] then
      local index = first_letter(life, address, box)
      local body, expires = remove_letter(life, address, box, index)
      box[2] = index + 1
      keep_box(life, address, box)
      if not body or expires <= now then
        replies.fail_now(sid, number, expired_letter(address))
      else
        replies.answer_now(sid, number, body)
      end
      return
    end
    if gone then
      replies.fail_now(sid, number, gone)
      return
    end
    replies.wait({sid = sid, seat = seat.seat, call = number, kind = "take", life = life, address = address})
    box = box or new_box(life, {})
    table.insert(box[2], {sid, number})
    keep_box(life, address, box)
  end

  -- All mailboxes of a life: {{address, mailbox}, ...}.
  local function boxes_of(life)
    local held = open_record(life)
    if life_record(life):num("boxes") == 0 then return {} end
    local found = held:under("B", function(_, kept) return cmsgpack.unpack(kept)[1] end)
    for _, item in ipairs(found) do item[2] = cmsgpack.unpack(item[2]) end
    return found
  end

  local function fail_takes(box, err)
    for _, take in ipairs(box[2]) do replies.fail({sid = take[1], call = take[2]}, err) end
    box[2] = {}
  end

  -- A rank is gone.
  function mailboxes.lose(life, rank, err)
    for _, item in ipairs(boxes_of(life)) do
      local address, box = item[1], item[2]
      local src, dst = parts_of(address)
      local waits_there = type(box[2]) == "table"
      if waits_there and src == rank then
        fail_takes(box, err)
        keep_box(life, address, box)
      elseif not waits_there and dst == rank then
        while box[4] > 0 do
          remove_letter(life, address, box, first_letter(life, address, box))
        end
        keep_box(life, address, box)
      end
    end
  end

  -- Fail every take and drop every message.
  function mailboxes.abort(life, err)
    for _, item in ipairs(boxes_of(life)) do
      local address, box = item[1], item[2]
      if type(box[2]) == "table" then fail_takes(box, err) end
      open_record(life):set("B" .. address, false)
    end
    local held = life_record(life)
    held:set("boxes", false)
    held:set("msgs", false)
    held:set("mb", false)
    letters(life):drop()
    letters(life):create():set("life", life)
  end

  -- Turn messages past their time into tombstones; how many.
  function mailboxes.expire(life)
    local held, of_life, count = letters(life), life_record(life), 0
    if of_life:num("mb") == 0 and of_life:num("msgs") == 0 then return 0 end
    for _, item in ipairs(boxes_of(life)) do
      local address, box = item[1], item[2]
      local index = type(box[2]) ~= "table" and first_letter(life, address, box) or nil
      while index and index < box[3] do
        local kept = held:get(address .. ":" .. index)
        if kept then
          local alive, expires, put = struct.unpack(LETTER, kept)
          if expires > now then break end -- one sender, one ttl: the first one goes first
          if alive == 1 then
            held:set(address .. ":" .. index, struct.pack(LETTER, 0, expires, put))
            of_life:add("mb", LETTER_BYTES - #kept)
            count = count + 1
          end
        end
        index = index + 1
      end
    end
    return count
  end

  waits.take = {
    facts = function(w)
      return {}, {(parts_of(w.address))}
    end,
    withdraw = function(w)
      local box, left = box_at(w.life, w.address), {}
      for _, take in ipairs(box[2]) do
        if take[1] ~= w.sid or take[2] ~= w.call then left[#left + 1] = take end
      end
      box[2] = left
      keep_box(w.life, w.address, box)
      return true
    end,
  }
end)
