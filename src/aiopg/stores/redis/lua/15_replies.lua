-- Replies: sessions, the calls of theirs that wait, and the events that end those.
--
-- A session is one record, ":s:" and its id:
--   last      number of the last command that was applied       event   number of the last event
--   freed     events up to this one were acknowledged           mark    that of the last one acknowledged
--   grace     seconds for which it lives unheard                seen    when it was last heard of (`clock`)
--   nw        calls that wait
--   nx        events that have something attached               holder  who it is, for people
--   W<call>   a call that waits: a table with its `kind`, its `seat` and what that kind needs
--   E<number> an event: {call, what, body, mark, attached}
--   M<seat>, F<seat>, ns, nf   see 76_membership
--
-- An event's body that many get is kept once, in the record ":b:" and a number: b its bytes, n how many have it. Each
-- of their events says which it is, and holds what is before it for this one alone.
--
-- An event's mark is the time of its call. It tells the event from another one of the same number that a server brings
-- forth which lost the first.

local ANSWER, FAILED, WITHDRAWN = 0, 1, 2
local SHARED_OVER = 256          -- a smaller body is written to each who gets it
local PUBLISHED_MOST = 16 * 1024 -- of a larger one its session is told that it is here
local replies = {}
local posted -- by session: {{number, call, what, receipt, own body, shared body or nil}, ...} of this call, in order

function replies.begin()
  posted = {}
end

-- The record of a session, or nil where there is none.
local function session(sid)
  local held = record(":s:" .. sid)
  if held.vals.event == nil and not held.blank then
    local found = call("HMGET", held.key, "last", "event", "freed", "mark", "seen", "grace", "nw", "nx", "ns", "nf")
    held.vals = {
      last = found[1], event = found[2], freed = found[3], mark = found[4], seen = found[5], grace = found[6],
      nw = found[7], nx = found[8], ns = found[9], nf = found[10],
    }
  end
  return held:get("event") and held or nil
end

-- ------------------------------------------------------------------------------------------------------- events

-- One body for `count` sessions; give what this returns to `replies.answer` and the like as the body. `before`: bytes
-- that stand before it for one of them.
function replies.shared(body, count)
  if count < 2 or #body <= SHARED_OVER then return {body = body} end
  local id = string.format("%.0f", room:add("bodies", 1))
  local kept = record(":b:" .. id):create()
  kept:set("b", body)
  kept:set("n", 0)
  return {id = id, body = body}
end

local function post(sid, number_of_call, what, body, receipt, before)
  local held = session(sid)
  if not held then return end
  local number, own, common, attached = held:add("event", 1), body, nil, nil
  if type(body) == "table" then
    if body.id then
      own, common, attached = before or "", body.body, {body = body.id}
      record(":b:" .. body.id):add("n", 1)
    else
      own = (before or "") .. body.body
    end
  end
  if receipt then
    attached = attached or {}
    attached.receipt = receipt
  end
  if attached then held:add("nx", 1) end
  held:set("E" .. number, cmsgpack.pack({number_of_call, what, own, stamp, attached}))
  local events = posted[sid]
  if not events then
    events = {}
    posted[sid] = events
  end
  events[#events + 1] = {number, number_of_call, what, receipt and 1 or 0, own, common}
end

-- Answer a call that never waited. `receipt`: see `answer`.
function replies.answer_now(sid, number, body, receipt)
  post(sid, number, ANSWER, body or "", receipt)
end

-- Fail a call that never waited; the error is encoded (`fault`).
function replies.fail_now(sid, number, err)
  post(sid, number, FAILED, err)
end

-- End a call of which nothing came here but that it was given up.
function replies.withdrawn_now(sid, number)
  post(sid, number, WITHDRAWN, "\146\192\192")
end

-- ------------------------------------------------------------------------------------------------ waiting calls

-- Whether a call may wait: to be asked before anything is changed for it. Raises.
function replies.check(sid, number)
  local held = session(sid)
  if held:num("nw") == 0 then return end
  if held:get("W" .. number) then
    raise("ProtocolError", {reason = string.format("call %.0f was made again while it waits", number)})
  end
  if held:num("nw") >= LIMITS.waiting_calls then store_full("waiting_calls", "this session") end
end

-- Remember a call that cannot be answered yet: {sid =, seat =, call =, kind =, ...}, the rest plain values. Raises as
-- `check`, and then remembers nothing. What is changed in it later is kept by `rewait`.
function replies.wait(w)
  replies.check(w.sid, w.call)
  session(w.sid):add("nw", 1)
  replies.rewait(w)
end

function replies.rewait(w)
  local sid = w.sid
  w.sid = nil -- the record is the session's
  session(sid):set("W" .. w.call, cmsgpack.pack(w))
  w.sid = sid
end

local function unpacked(sid, kept)
  local w = cmsgpack.unpack(kept)
  w.sid = sid
  return w
end

-- The waiting call of that number, or nil.
function replies.waiting(sid, number)
  local held = session(sid)
  local kept = held and held:get("W" .. number)
  return kept and unpacked(sid, kept) or nil
end

-- The waiting calls of a session, or of one of its seats, in the order of their numbers.
function replies.waiting_of(sid, seat)
  local held, found = session(sid), {}
  if not held or held:num("nw") == 0 then return found end
  for _, item in ipairs(held:under("W")) do
    local w = unpacked(sid, item[2])
    if seat == nil or w.seat == seat then found[#found + 1] = w end
  end
  return found
end

-- It waits no more, and has no event: it goes on as another one of the same number.
function replies.let_go(w)
  local held = session(w.sid)
  if held then
    held:set("W" .. w.call, false)
    held:add("nw", -1)
  end
end

-- End a waiting call with its result. `receipt`: somebody waits to know that the session has this; a table with a
-- `kind`, for `confirmed` or `unconfirmed` of `waits[kind]`. `before`: see `shared`.
function replies.answer(w, body, receipt, before)
  replies.let_go(w)
  post(w.sid, w.call, ANSWER, body or "", receipt, before)
end

-- End a waiting call with an error.
function replies.fail(w, err)
  replies.let_go(w)
  post(w.sid, w.call, FAILED, err)
end

-- The facts of a waiting call, encoded: who arrived and who is missing.
function replies.facts(w)
  local kind = waits[w.kind]
  if kind.told_facts then return kind.told_facts(w) end
  local arrived, missing = kind.facts(w)
  return cmsgpack.pack({arrived, missing})
end

-- End a waiting call that was taken back; `facts` as `replies.facts` gave them before that.
function replies.withdrawn(w, facts)
  replies.let_go(w)
  post(w.sid, w.call, WITHDRAWN, facts)
end

-- --------------------------------------------------------------------------------------- acknowledged, and lost

local function release_body(id)
  local kept = record(":b:" .. id)
  if kept:add("n", -1) == 0 then kept:drop() end
end

-- The mark of an event of a session that it has acknowledged last, or not yet; nil if it is none of those.
function replies.mark(sid, number)
  local held = session(sid)
  if number == held:num("freed") then return held:num("mark") end
  local event = number > held:num("freed") and held:get("E" .. number)
  return event and cmsgpack.unpack(event)[4] or nil
end

-- A session has all events up to this one: they are forgotten, and who waits to know that it has them is told.
function replies.free(sid, received, mark)
  local held, confirmed = session(sid), {}
  local first = held:num("freed") + 1
  if received < first then return end
  for number = first, received do
    local field = "E" .. number
    if held:num("nx") > 0 then
      local attached = cmsgpack.unpack(held:get(field))[5]
      if attached then
        held:add("nx", -1)
        if attached.body then release_body(attached.body) end
        confirmed[#confirmed + 1] = attached.receipt
      end
    end
    held:set(field, false)
  end
  held:set("freed", received)
  held:set("mark", mark)
  for _, receipt in ipairs(confirmed) do waits[receipt.kind].confirmed(receipt) end
end

-- The events of a session that it has not acknowledged, in order: {{number, call, what, receipt, body, mark}, ...}.
function replies.unheard(sid)
  local held, found = session(sid), {}
  local mine = posted[sid] or {}
  local first_new = #mine > 0 and mine[1][1] or held:num("event") + 1
  for number = held:num("freed") + 1, first_new - 1 do
    local event = cmsgpack.unpack(held:get("E" .. number))
    local body, attached = event[3], event[5]
    if attached and attached.body then body = body .. record(":b:" .. attached.body):get("b") end
    found[#found + 1] = {number, event[1], event[2], attached and attached.receipt and 1 or 0, body, event[4]}
  end
  for _, event in ipairs(mine) do
    found[#found + 1] = {event[1], event[2], event[3], event[4], event[5] .. (event[6] or ""), stamp}
  end
  return found
end

-- Tell the other sessions what came for them in this call, which ends.
function replies.publish(to_all_but)
  for sid, events in pairs(posted) do
    if sid ~= to_all_but then
      for _, event in ipairs(events) do
        local common = event[6] or ""
        local told = {event[1]}
        if #event[5] + #common <= PUBLISHED_MOST then
          told = {event[1], event[2], event[3], event[4], event[5] .. common, stamp}
        end
        call("PUBLISH", P .. ":in:" .. sid, cmsgpack.pack(told))
      end
    end
  end
  posted = nil
end

-- A session is over: it gets no event any more.
function replies.end_session(sid)
  local held, unconfirmed = session(sid), {}
  if held:num("nx") > 0 then
    for _, item in ipairs(held:under("E")) do
      local attached = cmsgpack.unpack(item[2])[5]
      if attached then
        if attached.body then release_body(attached.body) end
        unconfirmed[#unconfirmed + 1] = attached.receipt
      end
    end
  end
  held:drop()
  posted[sid] = nil
  for _, receipt in ipairs(unconfirmed) do waits[receipt.kind].unconfirmed(receipt) end
end
