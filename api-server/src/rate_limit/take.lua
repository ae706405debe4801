-- Takes what one request asks of its buckets: from all of them, or from none.
--
-- KEYS  a bucket for each ask; asks may share one.
-- ARGV  the time in µs since the epoch, or '' for this server's; then 15 values for each ask: see below.
--       (A given time is for tests. Nothing expires then, as expiry goes by the server's clock.)
-- Says  the time; 1 if admitted; for each ask: 1 if it was refused, tokens leased on top of its cost, the bucket (two
--       numbers: see Gcra and Window below), and the bucket's base.
--
-- A bucket's base is the time when it was last reset from idle. Tokens leased before are not taken back: what they had
-- used up has come back already. Who knows a bucket by another base than it has now, as the bucket may have been lost
-- since, says how full it is at least: the floor. A debt is what was granted without asking, and is charged in any case.
--
-- Numbers are doubles: all of them are integers below 2^53, of which sums, products and remainders are exact.

local ASK = 15

local given = ARGV[1] ~= ''
local now
if given then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- Times finer than µs are pairs: q µs and r/scale µs, with r < scale.
local function add(scale, aq, ar, bq, br)
  local q, r = aq + bq, ar + br
  if r >= scale then return q + 1, r - scale end
  return q, r
end

local function sub(scale, aq, ar, bq, br)
  local q, r = aq - bq, ar - br
  if r < 0 then return q - 1, r + scale end
  return q, r
end

local function later(aq, ar, bq, br)
  return aq > bq or (aq == bq and ar > br)
end

local function times(scale, n, q, r)
  local parts = n * r
  local rest = math.fmod(parts, scale)
  return n * q + (parts - rest) / scale, rest
end

-- Gcra: x, y is the theoretical arrival time.
local Gcra = {}

function Gcra.open(ask, stored)
  local b = { kind = 'g', scale = ask.scale, x = now, y = 0 }
  if stored then
    b.x, b.y, b.base = stored.x, stored.y, stored.base
    if stored.scale ~= ask.scale and b.y > 0 then
      b.x, b.y = b.x + 1, 0
    end
    b.changed = stored.scale ~= ask.scale
  end
  local function idle()
    if not later(b.x, b.y, now, 0) then
      b.x, b.y, b.base = now, 0, nil
    end
  end
  idle()
  if b.base ~= ask.base and later(now + ask.floor, 0, b.x, b.y) then
    b.x, b.y, b.changed = now + ask.floor, 0, true
  end
  if ask.debt > 0 then
    b.x, b.changed = b.x + ask.debt, true
  end
  if ask.back > 0 and b.base and ask.leased >= b.base then
    b.x, b.y = sub(b.scale, b.x, b.y, times(b.scale, ask.back, ask.token, ask.token_part))
    b.changed = true
    idle()
  end
  local most, part = now + ask.room, ask.room_part
  if later(b.x, b.y, most, part) then
    b.x, b.y, b.changed = most, part, true -- or what is cut off here never ends
  end
  return b
end

function Gcra.charge(b, ask, tokens)
  b.x, b.y = add(b.scale, b.x, b.y, times(b.scale, tokens, ask.token, ask.token_part))
  return not later(b.x, b.y, now + ask.room, ask.room_part)
end

function Gcra.left(b, ask, most)
  local q, r = sub(b.scale, now + ask.room, ask.room_part, b.x, b.y)
  local n = math.floor((q + r / b.scale) / (ask.token + ask.token_part / b.scale))
  n = math.max(0, math.min(n, most))
  local function fits(tokens)
    local tq, tr = times(b.scale, tokens, ask.token, ask.token_part)
    return not later(tq, tr, q, r)
  end
  if n > 0 and not fits(n) then return n - 1 end
  if n < most and fits(n + 1) then return n + 1 end
  return n
end

function Gcra.lifetime(b)
  return b.x + 1 - now
end

-- Window: x is when it began, y what was taken since.
local Window = {}

function Window.open(ask, stored)
  local b = { kind = 'w', scale = ask.scale }
  local live = stored and stored.x + stored.scale > now
  local time = live and math.max(now, math.min(stored.x, now + ask.scale)) or now
  b.x, b.y = time - math.fmod(time, ask.scale), 0
  if live and stored.x >= b.x then
    b.y, b.base = stored.y, stored.base
  end
  if b.base ~= ask.base and ask.floor == b.x and ask.floor_count > b.y then
    b.y, b.changed = ask.floor_count, true
  end
  if ask.debt > 0 and ask.floor == b.x then
    b.y, b.changed = b.y + ask.debt, true
  end
  if b.base and ask.back > 0 and ask.leased >= b.base then
    b.y, b.changed = math.max(0, b.y - ask.back), true
  end
  return b
end

function Window.charge(b, ask, tokens)
  b.y = b.y + tokens
  return b.y <= ask.room
end

function Window.left(b, ask, most)
  return math.max(0, math.min(most, ask.room - b.y))
end

function Window.lifetime(b)
  return b.x + b.scale - now
end

local kinds = { g = Gcra, w = Window }

local function open(key, ask)
  local kind, scale, x, y, base = string.match(redis.call('GET', key) or '', '^(%a) (%d+) (%d+) (%d+) (%d+)$')
  local stored
  if kind == ask.kind then
    stored = { scale = tonumber(scale), x = tonumber(x), y = tonumber(y), base = tonumber(base) }
  end
  local b = kinds[ask.kind].open(ask, stored)
  b.base = b.base or now
  b.before_x, b.before_y = b.x, b.y
  return b
end

local asks, buckets, admitted = {}, {}, true
for i, key in ipairs(KEYS) do
  local at = 1 + (i - 1) * ASK
  local function value(n) return tonumber(ARGV[at + n]) end
  local ask = {
    kind = ARGV[at + 1],       -- g or w
    scale = value(2),          -- requests per period, or the window's length in µs
    token = value(3),          -- µs that a token takes to come back; unused by windows
    token_part = value(4),
    room = value(5),           -- µs that may be used up at once, or the window's quota
    room_part = value(6),
    cost = value(7),
    want = value(8),           -- tokens to lease on top
    divisor = value(9),        -- at most this part of what is left is leased
    back = value(10),          -- tokens given back,
    leased = value(11),        -- and when they were leased
    base = value(12),          -- the bucket's, as last heard of; 0: not known
    floor = value(13),         -- µs until all is there again, or when the window began
    floor_count = value(14),   -- what was taken since
    debt = value(15),          -- µs, or a count in the window of the floor
  }
  local bucket = buckets[key]
  if not bucket then
    bucket = open(key, ask)
    buckets[key] = bucket
  end
  ask.bucket, asks[i] = bucket, ask
  if not kinds[ask.kind].charge(bucket, ask, ask.cost) then
    ask.refused, admitted = true, false
  end
end

for _, ask in ipairs(asks) do
  ask.lease = 0
  if admitted and ask.want > 0 then
    local kind = kinds[ask.kind]
    ask.lease = math.min(ask.want, math.floor(kind.left(ask.bucket, ask, ask.want * ask.divisor) / ask.divisor))
    kind.charge(ask.bucket, ask, ask.lease)
  end
end

local said = { now, admitted and 1 or 0 }
for key, b in pairs(buckets) do
  if not admitted then
    b.x, b.y = b.before_x, b.before_y
  end
  if admitted or b.changed then
    local text = string.format('%s %.0f %.0f %.0f %.0f', b.kind, b.scale, b.x, b.y, b.base)
    if given then
      redis.call('SET', key, text)
    else
      local lifetime = math.max(1, math.ceil(kinds[b.kind].lifetime(b) / 1000))
      redis.call('SET', key, text, 'PX', string.format('%.0f', lifetime))
    end
  end
end
for _, ask in ipairs(asks) do
  local b = ask.bucket
  for _, n in ipairs({ ask.refused and 1 or 0, ask.lease, b.x, b.y, b.base }) do
    said[#said + 1] = n
  end
end
return said
