-- Incarnations of the room's group: what is known of them.
--
-- An incarnation with number <life> is kept in three records:
--   ":i:" <life>  what it is: world, live, works, ttl, aborted (the error), ns and S<rank> its seats, ng and G<rank>
--                 the ranks that are gone, hist, last and H<k> what happened, watching how many, order (counts up),
--                 mb, msgs and boxes of its mailboxes, rb of its rounds, rounds and owed how many, keys "1" once it
--                 has some, facts as those are told who wait for it to be live, swept, expired_at
--   ":j:" <life>  what is open: B<address> mailboxes, R<round> rounds, X<order> who watches, O<rank>:<tag> mismatches
--                 that a rank is to be told of
--   ":l:" <life>  letters in mailboxes (see 30_mailboxes)
-- Flags are "1" or absent.

local groups, history, lobbies, mailboxes, membership, rounds = {}, {}, {}, {}, {}, {}

local function life_record(life)
  local held = record(":i:" .. life)
  if held.vals.world == nil and not held.blank then
    local found = call(
      "HMGET", held.key, "world", "works", "ng", "mb", "rb", "msgs", "boxes", "rounds", "owed", "keys", "order", "ttl"
    )
    held.vals = {
      world = found[1], works = found[2], ng = found[3], mb = found[4], rb = found[5], msgs = found[6],
      boxes = found[7], rounds = found[8], owed = found[9], keys = found[10], order = found[11], ttl = found[12],
    }
  end
  return held
end

local function open_record(life)
  return record(":j:" .. life)
end

-- Numbers of the living incarnations of the group, oldest first.
local function lives()
  local kept = room:get("lives")
  return kept and cmsgpack.unpack(kept) or {}
end

-- The next number in an order that `under` can put things back into.
local function next_order(life)
  return life_record(life):add("order", 1)
end

local function group_name()
  return room:get("name")
end

local function peer_lost(ranks, reason)
  return fault("PeerLostError", {group = group_name(), ranks = ranks, reason = reason})
end

-- Why a rank will not do its part in a live group any more, as an error; nil if it may.
function groups.absent(life, rank)
  local held = life_record(life):load("S" .. rank, "G" .. rank)
  if held:get("S" .. rank) then return nil end
  if held:get("G" .. rank) then return peer_lost({rank}, held:get("G" .. rank)) end
  local world = held:num("world")
  if rank >= 0 and rank < world then return nil end -- its joiner withdrew; whoever joins in its place will do it
  return fault("UsageError", {
    message = string.format("group %s has ranks 0 to %d, not %.0f", text.quoted(group_name()), world - 1, rank),
  })
end

-- Bytes that a space is counted with: its keys, and for a life what waits in it too.
local function bytes_of(life)
  local held = life_record(life)
  return held:num("mb") + held:num("rb") + (held:get("keys") and keys.bytes(tostring(life)) or 0)
end

-- Raises StoreFullError if so many more bytes are too many for a life.
function groups.check_bytes(life, more)
  if bytes_of(life) + more > LIMITS.group_bytes then
    store_full("group_bytes", "group " .. text.quoted(group_name()))
  end
end

-- Raises StoreFullError if so many more bytes are too many for a space.
function groups.check_room(space, more)
  if more <= 0 then return end
  if space == "" then
    if keys.bytes("") + more > LIMITS.store_bytes then store_full("store_bytes", "the store's own keys") end
  else
    groups.check_bytes(tonumber(space), more)
  end
end
