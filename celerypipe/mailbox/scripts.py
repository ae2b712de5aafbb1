"""The Lua scripts of the protocol: every safety rule that needs one atomic step.

KEYS and ARGV of each are laid out in :mod:`celerypipe.mailbox.mailbox`, and nobody else asks for them: the others get
commands from there.
"""

from __future__ import annotations

from celerypipe.mailbox.liveness import DEAD
from celerypipe.redis.script import Script

# Append messages; ring the first `wanted` slots that have no bell. Nil: the mailbox is gone, nothing was appended.
SEND = Script("""
local ids, rung = {}, {}
for i = 5, #ARGV do
  local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 'm', ARGV[i])
  if not id then return false end
  ids[#ids+1] = id
end
for slot = 0, tonumber(ARGV[3]) - 1 do
  if redis.call('SET', KEYS[2] .. slot, 'r:' .. ARGV[1], 'NX', 'PX', ARGV[2]) then rung[#rung+1] = slot end
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {ids, rung}
""")

# Ring the first `wanted` slots that have no bell, or that of a process that died, or something that is no bell; with
# `force`, also those rung before and not answered.
RING = Script(
    DEAD
    + """
local rung = {}
for slot = 0, tonumber(ARGV[3]) - 1 do
  local held = redis.pcall('GET', KEYS[1] .. slot)
  local free = type(held) ~= 'string'
  if not free and string.sub(held, 1, 2) == 'r:' then free = ARGV[4] == '1' elseif not free then free = dead(held) end
  if free then
    redis.call('SET', KEYS[1] .. slot, 'r:' .. ARGV[1], 'PX', ARGV[2])
    rung[#rung+1] = slot
  end
end
return rung
"""
)

# A bell that is absent or rung, by whatever token, or held by a process that died, is mine from now on; its value
# before is returned, false if there was none. Nil: another holds it.
_TAKEN = (
    DEAD
    + """
local function taken(bell, owner, ttl)
  local before = redis.call('GET', bell)
  if before and before ~= owner and string.sub(before, 1, 2) ~= 'r:' and not dead(before) then return nil end
  redis.call('SET', bell, owner, 'PX', ttl)
  return before
end
"""
)

# Take the bell: 1; held by another: 0.
TAKE = Script(
    _TAKEN
    + """
if taken(KEYS[1], ARGV[1], ARGV[2]) == nil then return 0 end
return 1
"""
)

# Refresh a held bell and look around. 0: lost to another; 1: go on; 2: the run is over; 3: this message was withdrawn;
# and eight times as much as there are orders to the nodes of the run.
# The bell says who is still at work for a run that was cancelled; once nothing is left of the run it goes, or a thread
# that hangs would keep it for as long as it hangs.
REFRESH = Script(
    _TAKEN
    + """
local state = redis.call('GET', KEYS[2])
if not state then
  if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
  return 2
end
if taken(KEYS[1], ARGV[1], ARGV[2]) == nil then return 0 end
if state ~= 'running' then return 2 end
local orders = redis.pcall('LLEN', KEYS[4])
orders = type(orders) == 'number' and 8 * orders or 0
if ARGV[3] ~= '' and #redis.call('XRANGE', KEYS[3], ARGV[3], ARGV[3]) == 0 then return 3 + orders end
return 1 + orders
"""
)

# Let go of the bell unless there is an entry nobody was given: 1 keep it and go on, 0 released, -1 it was not mine.
RELEASE = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('EXISTS', KEYS[2]) == 1 then
  if ARGV[3] == '0' then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
      local last = group[8]
      for i = 1, #group, 2 do if group[i] == 'last-delivered-id' then last = group[i+1] end end
      if #redis.call('XRANGE', KEYS[2], '(' .. last, '+', 'COUNT', 1) > 0 then return 1 end
    end
  end
  local pending = redis.call('XPENDING', KEYS[2], ARGV[2], '-', '+', 1, ARGV[1])
  if #pending == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[2], ARGV[1]) end
end
redis.call('DEL', KEYS[1])
return 0
""")

# Hand the bell back to the queue: mine → rung again, for the activation whose task is sent with this token.
YIELD = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'r:+' .. ARGV[2], 'PX', ARGV[3])
return 1
""")

# Delete the bell if it is still mine, whatever waits: its activation is gone.
DROP = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

# Take a rung bell back, if it is still the one of this token: who was sent cannot answer it.
UNRING = Script("""
local rung = redis.call('GET', KEYS[1])
if rung == 'r:' .. ARGV[1] or rung == 'r:+' .. ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""")

# Take over what consumers without a lease hold; forget those that hold nothing. An entry comes with the name of who
# died with it; without, where it is only taken over.
_TAKEN_OVER = """
local function taken_over(stream, bells, group, consumer, most)
  local taken = {}
  for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local name, pending = one[2], one[4]
    local slot = string.match(name, '%.(%d+)$') or '0'
    local died = name ~= consumer and dead(name)
    if name ~= consumer and (died or redis.call('GET', bells .. slot) ~= name) then
      if pending == 0 then
        redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
      else
        for _, held in ipairs(redis.call('XPENDING', stream, group, '-', '+', most, name)) do
          local entry = redis.call('XRANGE', stream, held[1], held[1])
          if #entry == 0 then
            redis.call('XACK', stream, group, held[1])
          else
            redis.call('XCLAIM', stream, group, consumer, 0, held[1], 'JUSTID')
            entry[1][3] = died and name or nil
            taken[#taken+1] = entry[1]
          end
        end
      end
    end
  end
  return taken
end
"""

# Take over what the dead left; only for one that has a lease itself.
CLAIM = Script(
    DEAD
    + _TAKEN_OVER
    + """
if redis.call('GET', KEYS[2] .. (string.match(ARGV[2], '%.(%d+)$') or '0')) ~= ARGV[2] then return {} end
return taken_over(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])
"""
)

# Begin: TAKE, and for whoever has the bell then, all that it wants to know: the node's record, the run's state, the
# clock, what the dead left, and if that is nothing, up to ARGV[5] new messages. Who asks once more, since the answer
# was lost on its way, gets what it was given the first time as if a dead one had left it. Nil: the bell is held; or it
# was handed back for another task, so that this one is one too many. It is used up, since whoever goes on would find a
# task waiting, hand back, and so for ever.
BEGIN = Script(
    _TAKEN
    + _TAKEN_OVER
    + """
local rung, token = redis.call('GET', KEYS[1]), string.match(ARGV[2], '%.([^.]*)%-%x+%-%x+%.%d+$') or ''
if rung and string.sub(rung, 1, 3) == 'r:+' and rung ~= 'r:+' .. token then return false end
local before = taken(KEYS[1], ARGV[2], ARGV[4])
if before == nil then return false end
local about, time, old, new = redis.call('MGET', KEYS[4], KEYS[5]), redis.call('TIME'), {}, {}
local function read(from, count)
  local found = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[2], from)
  return found and found[1][2] or {}
end
if about[1] and about[2] == 'running' then
  pcall(function()  -- a mailbox that is gone is noticed by the next read
    if before == ARGV[2] then
      old = read('0', 1000000)  -- what it was given may be of several dead ones, so many of each
    else
      old = taken_over(KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3])
    end
    if #old == 0 and tonumber(ARGV[5]) > 0 then new = read('>', ARGV[5]) end
  end)
end
local orders = redis.pcall('LLEN', KEYS[6])
return {about[1], about[2], time[1], time[2], old, new, type(orders) == 'number' and orders or 0}
"""
)

# Prolong the lease of a run, its place in the list of runs, and its other keys, ARGV[4] of which must be there; forget
# the runs that nobody renewed for long. One that was cancelled stays so. What the lease said before is returned, nil if
# it was gone, and whether all was there.
PROLONG = Script("""
local state, time = redis.call('GET', KEYS[1]), redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if state ~= 'cancelled' then redis.call('SET', KEYS[1], 'running', 'PX', ARGV[2]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
local complete = 1
for place = 3, #KEYS do
  if redis.call('PEXPIRE', KEYS[place], ARGV[3]) == 0 and place - 2 <= tonumber(ARGV[4]) then complete = 0 end
end
return {state, complete}
""")

# Cancel a run unless it ended by itself; what its lease said before is returned, nil if it was gone.
CANCEL = Script("""
local state = redis.call('GET', KEYS[1])
if state ~= 'finished' and state ~= 'failed' then redis.call('SET', KEYS[1], 'cancelled', 'PX', ARGV[1]) end
return state
""")

# Publish results: those of messages still pending with me leave in one reply, then they are acknowledged, then
# deleted - in this order, so that a refused append leaves them pending. Lua hands over at most 8000 arguments, so more
# than a thousand results leave in several replies. Nil: the reply stream is gone, the run is over. Else how many
# replies the runner has not read.
PUBLISH = Script("""
if redis.call('EXISTS', KEYS[2]) == 0 then return false end
local mine, done, reply = {}, {}, {'n', ARGV[3], 'w', ARGV[2]}
local function leave()
  if #done == 0 then return true end
  if not redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', unpack(reply)) then return false end
  redis.call('XACK', KEYS[1], ARGV[1], unpack(done))
  redis.call('XDEL', KEYS[1], unpack(done))
  done, reply = {}, {'n', ARGV[3], 'w', ARGV[2]}
  return true
end
for _, one in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[4], ARGV[#ARGV-1], 1000, ARGV[2])) do
  mine[one[1]] = true
end
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  if mine[id] == nil then mine[id] = #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) == 1 end
  if mine[id] then
    mine[id] = false
    done[#done+1] = id
    reply[#reply+1] = 'r'
    reply[#reply+1] = ARGV[i+1]
  end
  if #done == 1000 and not leave() then return false end
end
if not leave() then return false end
return redis.call('XLEN', KEYS[2])
""")

# Take messages back: nobody starts them, and a result of them is refused. Those that were there are returned: what has
# its answer is there no more.
WITHDRAW = Script("""
local taken = {}
for i = 2, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then taken[#taken+1] = ARGV[i] end
end
return taken
""")

# Tell how far a message is, if it is still pending with me: after its result, or once somebody else has it, the runner
# would take that for news.
NOTING = Script("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[4], ARGV[4], 1, ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 'n', ARGV[3], 'w', ARGV[2], 'r', ARGV[5])
return 1
""")

# Entries of a stream as XRANGE returns them, from the id ARGV[1] on, with the first ARGV[2] bytes of each message or
# result: no body leaves Redis. As many as one look may take; where the next one begins, empty at the end.
HEADS = Script("""
local heads, from, bytes, page = {}, ARGV[1], 0, nil
repeat
  page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 64)
  for _, entry in ipairs(page) do
    local fields = entry[2]
    for i = 2, #fields, 2 do
      bytes = bytes + #fields[i]
      if fields[i-1] == 'm' or fields[i-1] == 'r' then fields[i] = string.sub(fields[i], 1, ARGV[2]) end
    end
    heads[#heads+1] = entry
    from = '(' .. entry[1]
  end
until #page < 64 or bytes > 8388608 or #heads > 8192
return {#page == 64 and from or '', heads}
""")
