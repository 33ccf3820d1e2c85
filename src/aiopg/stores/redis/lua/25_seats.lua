-- Seats: which session holds which, as every command asks.
--
-- A seat is a table {sid, seat, life, rank, ttl, used, call, holder, order}; its session keeps it as M<seat>, and its
-- incarnation as S<rank>: {order, sid, seat, holder, call, since when}. Each order is of taking, in the session or in
-- the incarnation. F<seat> of a session is the error of a seat that was taken over. ns and nf: how many there are of
-- both.

local SEAT = ">dddddB" -- order, life, rank, ttl, call, used; its holder's name behind them
local SEAT_BYTES = 41

-- Keep what a session knows of its seat.
local function keep_seat(seat)
  session(seat.sid):set("M" .. seat.seat, struct.pack(
    SEAT, seat.order, seat.life, seat.rank, seat.ttl, seat.call, seat.used and 1 or 0
  ) .. seat.holder)
end

-- Whether a session was not heard of for so long that it may come back, or be lost.
local function is_away(sid)
  local held = session(sid)
  return held and clock - held:num("seen") > held:num("grace") / 2
end

local function read_seat(sid, number, kept)
  local order, life, rank, ttl, number_of_call, used = struct.unpack(SEAT, kept)
  return {
    sid = sid, seat = number, life = life, rank = rank, ttl = ttl, used = used == 1, call = number_of_call,
    holder = string.sub(kept, SEAT_BYTES + 1), order = order,
  }
end

-- The seat of that number. Raises FencedError or GroupClosedError if the session has none.
function membership.seat(sid, number)
  local held = session(sid)
  local kept = held:get("M" .. number)
  if kept then return read_seat(sid, number, kept) end
  local fenced = held:num("nf") > 0 and held:get("F" .. number)
  if fenced then throw(fenced) end
  raise("GroupClosedError", {message = string.format("seat %.0f is not taken", number)})
end

-- The seat, if its group can work; raises what every call on it fails with otherwise.
function membership.working_seat(sid, number, tag)
  local seat = membership.seat(sid, number)
  local held = life_record(seat.life)
  if not held:get("works") then
    if held:get("aborted") then throw(held:get("aborted")) end
    raise("ProtocolError", {reason = "the group is not formed yet"})
  end
  if type(tag) == "string" and #tag > LIMITS.tag_bytes then
    usage("a tag has at most %d bytes, not %s", LIMITS.tag_bytes, text.quoted(tag))
  end
  if not seat.used then
    seat.used = true
    keep_seat(seat)
  end
  return seat
end

-- The space of the keys that a seat names. Raises as `working_seat`.
function membership.space(sid, number)
  if not room:get("keyed") then room:set("keyed", "1") end
  if number == -1 then
    if not room:get("keys") then room:set("keys", "1") end
    return ""
  end
  local life = membership.working_seat(sid, number).life
  local held = life_record(life)
  if not held:get("keys") then held:set("keys", "1") end
  return tostring(life)
end
