"""The Lua of the result cache: what is kept, what is pushed out, and who computes.

The books are a sorted set (what, by its last use), a hash (what → bytes, and their sum) and a sorted set of ends. They
name what is theirs as ``e:<fingerprint>`` and ``b:<digest>:<chunks>``; the keys of that are made here and nowhere else
in Lua, so that no mistake in the books can touch a mailbox, a queue, or anything that is not the cache's.

A Redis that is full refuses whatever may need memory, unless the script has written before: so a script that makes
room removes first and counts after.
"""

from __future__ import annotations

from celerypipe.redis import keys
from celerypipe.redis.script import Script

# KEYS[1..3]: the books. Bytes that Redis needs for a thing besides its content: its key, and its places in the books.
_BOOKS = f"""
local used, sizes, ends = KEYS[1], KEYS[2], KEYS[3]
local life = {keys.CACHE_TTL}
local prefix = string.match(used, '^[^:]*:cache:')
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function names(what)
  local fingerprint = string.match(what, '^e:(.+)$')
  if fingerprint then return {{prefix .. 'entry:' .. fingerprint}} end
  local digest, chunks = string.match(what, '^b:(%x+):(%d%d?%d?)$')
  local found = {{}}
  for chunk = 0, tonumber(chunks or 0) - 1 do found[#found+1] = prefix .. 'blob:' .. digest .. ':' .. chunk end
  return found
end

local function renew()
  for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], life * 2) end
end

-- Bytes of one thing, or of all ('') by the books; what is no number there is not ours, and counts for nothing.
local function bytes_of(what)
  local said = tonumber(redis.call('HGET', sizes, what) or 0)
  return said and said > -2^53 and said < 2^53 and said or 0
end

local function add(size)
  redis.call('HSET', sizes, '', string.format('%.0f', bytes_of('') + size))
  redis.call('PEXPIRE', sizes, life * 2)  -- it may have been the last that was in there, and be new
end

local function enter(what, size)
  local before = bytes_of(what)
  redis.call('HSET', sizes, what, size)
  add(size - before)
  redis.call('ZADD', used, now, what)
end

local function forget(what)
  local gone = names(what)
  if #gone > 0 then redis.call('UNLINK', unpack(gone)) end
  redis.call('ZREM', used, what)
  redis.call('ZREM', ends, what)
  if what == '' then return 0 end  -- the sum has its place there
  local size = bytes_of(what)
  redis.call('HDEL', sizes, what)
  if size > 0 then add(-size) end
  return size
end

-- Push out what is over, then what was used least lately, until so much is there. At most 2000 a time: Redis does
-- nothing else meanwhile.
local function make_room(need, budget)
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 100)) do forget(each) end
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', used, '-inf', now - life, 'LIMIT', 0, 100)) do forget(each) end
  local there, count = bytes_of(''), 0
  if there < 0 then
    redis.call('HDEL', sizes, '')
    there = 0
  end
  while there + need > budget and count < 2000 do
    local oldest = redis.call('ZRANGE', used, 0, 15)
    if #oldest == 0 then
      if there > 0 then redis.call('HDEL', sizes, '') end
      there = 0
      break
    end
    for _, each in ipairs(oldest) do
      if there + need <= budget then break end
      there = there - forget(each)
      count = count + 1
    end
  end
  if count > 0 then
    redis.pcall('HINCRBY', prefix .. 'counts', 'evicted', count)
    redis.call('PEXPIRE', prefix .. 'counts', life)
  end
  return there + need <= budget
end
"""

# Note large bytes that will be stored. ARGV: budget, what, size. 0: there is no room for them.
RESERVE = Script(
    _BOOKS
    + """
local budget, what, size = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
if not redis.call('ZSCORE', used, what) and (size > budget or not make_room(size, budget)) then return 0 end
enter(what, size)
renew()
return 1
"""
)

# Keep an entry, and end the claim on it. KEYS[4]: the entry, KEYS[5]: the claim, KEYS[6]: the newest of its mark.
# ARGV: budget, what, its size, its bytes, ttl (0: as long as it is used), who claimed, fingerprint, what it refers to
# (or nothing), newest kept. 0: there is no room.
KEEP = Script(
    _BOOKS
    + """
local budget, what, size, ttl = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[5])
local function release()
  local owner = redis.call('GET', KEYS[5])
  if owner == ARGV[6] or owner == '?' .. ARGV[6] then redis.call('DEL', KEYS[5]) end
end
local before = bytes_of(what)
if size > budget or not make_room(size - before, budget) then release() return 0 end
redis.call('SET', KEYS[4], ARGV[4], 'PX', ttl > 0 and ttl or life)
enter(what, size)
if ttl > 0 then redis.call('ZADD', ends, now + ttl, what) else redis.call('ZREM', ends, what) end
if ARGV[8] ~= '' then
  for _, each in ipairs(names(ARGV[8])) do redis.call('PEXPIRE', each, life) end
  redis.call('ZADD', used, 'XX', now, ARGV[8])
end
redis.call('ZADD', KEYS[6], now, ARGV[7])
redis.call('ZREMRANGEBYRANK', KEYS[6], 0, -1 - tonumber(ARGV[9]))
redis.call('PEXPIRE', KEYS[6], life)
renew()
release()
return 1
"""
)

# These were used now. ARGV: what. Something that the books do not know, because they were lost, is entered again.
TOUCH = Script(
    _BOOKS
    + """
for _, what in ipairs(ARGV) do
  local known = redis.call('ZSCORE', used, what)
  local size = 0
  for _, name in ipairs(names(what)) do
    if not known then size = size + redis.call('STRLEN', name) end
    if not redis.call('ZSCORE', ends, what) then redis.call('PEXPIRE', name, life) end
  end
  if known then redis.call('ZADD', used, now, what) elseif size > 0 then enter(what, size) end
end
renew()
"""
)

# Make room for other things than the cache's. ARGV: bytes. How many there are afterwards.
SHRINK = Script(
    _BOOKS
    + """
make_room(0, math.max(0, bytes_of('') - tonumber(ARGV[1])))
return bytes_of('')
"""
)

# Remove these. ARGV: what. How many bytes that were.
FORGET = Script(
    _BOOKS
    + """
local bytes = 0
for _, what in ipairs(ARGV) do bytes = bytes + forget(what) end
return bytes
"""
)

# Claims live on, if they are still theirs; one that vanished (an emptied Redis) is taken again. KEYS: claims. ARGV:
# TTL, then whose each is. A claim that begins with "?" is idle: nobody is there who would compute it.
RENEW = Script("""
for i, claim in ipairs(KEYS) do
  local owner = redis.call('GET', claim)
  if not owner or string.gsub(owner, '^%?', '') == string.gsub(ARGV[i + 1], '^%?', '') then
    redis.call('SET', claim, ARGV[i + 1], 'PX', ARGV[1])
  end
end
""")

# Take over a claim that is idle. KEYS[1]: the claim. ARGV: what it says, whose it is to be, TTL.
TAKE_OVER = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
return redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
""")

# Let go of a claim if it is still mine. KEYS[1]: the claim. ARGV[1]: whose.
RELEASE = Script("""
local owner = redis.call('GET', KEYS[1])
if owner == ARGV[1] or owner == '?' .. ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")
