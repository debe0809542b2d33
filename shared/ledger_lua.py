"""The ledger's Lua: what must move together moves in one script. Only `shared.ledger` runs it."""

from __future__ import annotations

_NOW = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
"""

#: Why a job failed is a bit in its code's own bitmap, so that a million failures cost no more than a million bits.
_FORGET_CODE = """
local function forget_code(codes, failures, reasons, index)
  for _, code in ipairs(redis.call('HKEYS', failures)) do
    if redis.call('GETBIT', codes .. ':' .. code, index) == 1 then
      redis.call('SETBIT', codes .. ':' .. code, index, 0)
      if redis.call('HINCRBY', failures, code, -1) <= 0 then
        redis.call('HDEL', failures, code)
        redis.call('HDEL', reasons, code, code .. '#2', code .. '#3')
        redis.call('DEL', codes .. ':' .. code)
      end
    end
  end
end
"""

#: Keys and arguments of each script stand in its first comment, in order.
SCRIPTS = {
    # KEYS meta plan; ARGV plan bytes, then field value ...
    "submit": _NOW
    + """
local present = redis.call('HGET', KEYS[1], 'state')
if present then return {0, present} end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'created_at', tostring(now), 'done', 0, 'failed', 0, 'reused', 0, 'chunks_done', 0,
           unpack(ARGV, 2))
return {1, redis.call('HGET', KEYS[1], 'state')}
""",
    # KEYS meta; ARGV state
    "set_state": """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return '' end
if state == 'done' or (state == 'rebuilding' and ARGV[1] ~= 'active') then return state end
redis.call('HSET', KEYS[1], 'state', ARGV[1])
return ARGV[1]
""",
    # KEYS meta chunks fed again cursors; ARGV block first stop count scan_max
    "feed": _NOW
    + """
if redis.call('HGET', KEYS[1], 'state') ~= 'active' then return {} end
local first, stop, count = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local out = {}
local function take(chunk)
  if redis.call('GETBIT', KEYS[2], chunk) == 0 and not redis.call('ZSCORE', KEYS[3], chunk) then
    redis.call('ZADD', KEYS[3], tostring(now), chunk)
    out[#out + 1] = chunk
  end
end
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], first, '(' .. stop, 'LIMIT', 0, count)) do
  redis.call('ZREM', KEYS[4], chunk)
  take(tonumber(chunk))
end
local cursor = tonumber(redis.call('HGET', KEYS[5], ARGV[1]) or first)
local limit = math.min(stop, cursor + tonumber(ARGV[5]))
while #out < count and cursor < limit do
  take(cursor)
  cursor = cursor + 1
end
redis.call('HSET', KEYS[5], ARGV[1], cursor)
return out
""",
    # KEYS meta chunks fed again attempts running; ARGV chunk
    # What runs is fed, also when a message comes that had been given up for lost. A chunk beyond the plan leaves
    # no trace: the caller, who has the plan, refuses it.
    "begin": _NOW
    + """
local chunk = ARGV[1]
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'unknown', 0} end
if tonumber(chunk) >= tonumber(redis.call('HGET', KEYS[1], 'chunks')) then return {'render', 1} end
if redis.call('GETBIT', KEYS[2], chunk) == 1 then
  redis.call('ZREM', KEYS[3], chunk)
  return {'complete', 0}
end
if state ~= 'active' and state ~= 'done' then
  redis.call('ZREM', KEYS[3], chunk)
  redis.call('SREM', KEYS[6], chunk)
  redis.call('ZADD', KEYS[4], chunk, chunk)
  return {state, 0}
end
redis.call('ZADD', KEYS[3], 'NX', tostring(now), chunk)
redis.call('ZREM', KEYS[4], chunk)
redis.call('SADD', KEYS[6], chunk)
return {'render', redis.call('HINCRBY', KEYS[5], chunk, 1)}
""",
    # KEYS meta done failed chunks fed attempts codes failures reasons rate again running;
    # ARGV outcome chunk slot_seconds slots
    "record": _NOW
    + _FORGET_CODE
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return '' end
local outcome = cjson.decode(ARGV[1])
local done, reused, failed = 0, 0, 0
local function take_failure_back(index)
  if redis.call('GETBIT', KEYS[3], index) == 1 then
    redis.call('SETBIT', KEYS[3], index, 0)
    failed = failed - 1
    forget_code(KEYS[7], KEYS[8], KEYS[9], index)
  end
end
-- Up to three different reasons a code: the field of the code, then that with #2 and #3.
local function keep_reason(code, reason)
  for _, field in ipairs({code, code .. '#2', code .. '#3'}) do
    local known = redis.call('HGET', KEYS[9], field)
    if known == reason then return end
    if not known then
      redis.call('HSET', KEYS[9], field, reason)
      return
    end
  end
end
local was_reused = {}
for _, index in ipairs(outcome.reused) do was_reused[index] = true end
for _, index in ipairs(outcome.done) do
  if redis.call('SETBIT', KEYS[2], index, 1) == 0 then
    done = done + 1
    if was_reused[index] then reused = reused + 1 end
    take_failure_back(index)
  end
end
for index, failure in pairs(outcome.failed) do
  if redis.call('GETBIT', KEYS[2], index) == 0 and redis.call('SETBIT', KEYS[3], index, 1) == 0 then
    failed = failed + 1
    redis.call('SETBIT', KEYS[7] .. ':' .. failure[1], index, 1)
    redis.call('HINCRBY', KEYS[8], failure[1], 1)
    keep_reason(failure[1], failure[2])
  end
end
if done > 0 then
  local slot = math.floor(now / tonumber(ARGV[3]))
  if redis.call('HINCRBY', KEYS[10], slot, done) == done then
    for _, old in ipairs(redis.call('HKEYS', KEYS[10])) do
      if tonumber(old) <= slot - tonumber(ARGV[4]) then redis.call('HDEL', KEYS[10], old) end
    end
  end
end
local all_done = redis.call('HINCRBY', KEYS[1], 'done', done)
local all_failed = redis.call('HINCRBY', KEYS[1], 'failed', failed)
if reused > 0 then redis.call('HINCRBY', KEYS[1], 'reused', reused) end
local chunk = tonumber(ARGV[2])
if chunk >= 0 then
  if redis.call('SETBIT', KEYS[4], chunk, 1) == 0 then redis.call('HINCRBY', KEYS[1], 'chunks_done', 1) end
  redis.call('ZREM', KEYS[5], chunk)
  redis.call('ZREM', KEYS[11], chunk)
  redis.call('HDEL', KEYS[6], chunk)
  redis.call('SREM', KEYS[12], chunk)
end
local facts = redis.call('HMGET', KEYS[1], 'jobs', 'chunks', 'chunks_done')
if all_done + all_failed == tonumber(facts[1]) and tonumber(facts[2]) == tonumber(facts[3]) then
  if state ~= 'done' then redis.call('HSET', KEYS[1], 'state', 'done', 'finished_at', tostring(now)) end
  return 'done'
end
return state
""",
    # KEYS meta failed chunks again codes failures reasons attempts; ARGV [[chunk, [index, ...]], ...] as JSON
    "reopen": _FORGET_CODE
    + """
local reopened = 0
for _, wanted in ipairs(cjson.decode(ARGV[1])) do
  local chunk, found = wanted[1], 0
  if redis.call('GETBIT', KEYS[3], chunk) == 1 then
    for _, index in ipairs(wanted[2]) do
      if redis.call('GETBIT', KEYS[2], index) == 1 then
        redis.call('SETBIT', KEYS[2], index, 0)
        forget_code(KEYS[5], KEYS[6], KEYS[7], index)
        found = found + 1
      end
    end
  end
  if found > 0 then
    redis.call('SETBIT', KEYS[3], chunk, 0)
    redis.call('HINCRBY', KEYS[1], 'chunks_done', -1)
    redis.call('ZADD', KEYS[4], chunk, chunk)
    redis.call('HDEL', KEYS[8], chunk)
    reopened = reopened + found
  end
end
if reopened > 0 then
  redis.call('HINCRBY', KEYS[1], 'failed', -reopened)
  if redis.call('HGET', KEYS[1], 'state') == 'done' then redis.call('HSET', KEYS[1], 'state', 'active') end
  redis.call('HDEL', KEYS[1], 'finished_at')
end
return reopened
""",
    # KEYS fed again attempts chunks running; ARGV chunk count_attempt
    "give_back": """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[5], ARGV[1])
if redis.call('GETBIT', KEYS[4], ARGV[1]) == 1 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[1], ARGV[1])
if ARGV[2] == '0' and redis.call('HINCRBY', KEYS[3], ARGV[1], -1) <= 0 then redis.call('HDEL', KEYS[3], ARGV[1]) end
return 1
""",
    # KEYS fed absent again running; ARGV lost_after_seconds, then absent chunks
    "absent": _NOW
    + """
local lost, still = {}, {}
for position = 2, #ARGV do
  local chunk = ARGV[position]
  if redis.call('ZSCORE', KEYS[1], chunk) then
    local since = tonumber(redis.call('HGET', KEYS[2], chunk) or now)
    if now - since >= tonumber(ARGV[1]) then
      redis.call('ZREM', KEYS[1], chunk)
      redis.call('SREM', KEYS[4], chunk)
      redis.call('ZADD', KEYS[3], chunk, chunk)
      lost[#lost + 1] = tonumber(chunk)
    else
      still[chunk] = tostring(since)
    end
  end
end
redis.call('DEL', KEYS[2])
for chunk, since in pairs(still) do redis.call('HSET', KEYS[2], chunk, since) end
return lost
""",
    # KEYS lock; ARGV token milliseconds
    "lock": """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""",
    # KEYS lock; ARGV token
    "unlock": "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
}
