"""The ledger's Lua scripts. Values that must change together change in one script. Only `shared.ledger` runs them.

A script declares its keys and arguments by name, and the Lua that binds them is generated: no order is stated twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_NOW = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
"""

#: Why a job failed is a bit in its code's own bitmap, so that a million failures cost no more than a million bits.
_FORGET_CODE = """
local function forget_code(index)
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


#: A committed chunk is fed again, and a sweep that was done goes on.
_OPEN = """
local function open_chunk(chunk)
  redis.call('SETBIT', chunks, chunk, 0)
  redis.call('HINCRBY', meta, 'chunks_done', -1)
  redis.call('ZADD', again, chunk, chunk)
  redis.call('HDEL', attempts, chunk)
end
local function go_on()
  if redis.call('HGET', meta, 'state') == 'done' then redis.call('HSET', meta, 'state', 'active') end
  redis.call('HDEL', meta, 'finished_at')
end
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A script, and the names of what it takes: each is a local of the body."""

    keys: tuple[str, ...]
    arguments: tuple[str, ...]
    #: The name of all further arguments, a table; empty where there are none.
    rest: str = ""
    body: str

    @property
    def text(self) -> str:
        """The whole Lua: the named locals, then the body."""
        lines = [f"local {name} = KEYS[{n}]" for n, name in enumerate(self.keys, 1)]
        lines += [f"local {name} = ARGV[{n}]" for n, name in enumerate(self.arguments, 1)]
        if self.rest:
            first = len(self.arguments) + 1
            # Not by unpack, which takes a few thousand at most.
            lines.append(
                f"local {self.rest} = {{}} for n = {first}, #ARGV do {self.rest}[n - {first - 1}] = ARGV[n] end"
            )
        return "\n".join([*lines, self.body])

    def values(self, arguments: Mapping[str, Any], rest: Iterable[Any] = ()) -> list[Any]:
        """Return arguments in the order of the text. Raises: TypeError where one is missing or unknown."""
        further = list(rest)
        if arguments.keys() != set(self.arguments) or (further and not self.rest):
            raise TypeError(
                f"the script takes {self.arguments} and {self.rest or 'no'} more: {sorted(arguments)}"
            )
        return [*(arguments[name] for name in self.arguments), *further]


#: A key is called by the part of a sweep's keys that it is, a lock by its name.
SCRIPTS = {
    # fields: field value ...
    "submit": Script(
        keys=("meta", "plan"),
        arguments=("plan_bytes",),
        rest="fields",
        body=_NOW
        + """
local present = redis.call('HGET', meta, 'state')
if present then return {0, present} end
redis.call('SET', plan, plan_bytes)
redis.call('HSET', meta, 'created_at', tostring(now), 'done', 0, 'failed', 0, 'reused', 0, 'chunks_done', 0,
           unpack(fields))
return {1, redis.call('HGET', meta, 'state')}
""",
    ),
    "set_state": Script(
        keys=("meta",),
        arguments=("wanted",),
        body="""
local state = redis.call('HGET', meta, 'state')
if not state then return '' end
if state == 'done' or (state == 'rebuilding' and wanted ~= 'active') then return state end
redis.call('HSET', meta, 'state', wanted)
return wanted
""",
    ),
    "feed": Script(
        keys=("meta", "chunks", "fed", "again", "cursors"),
        arguments=("block", "first", "stop", "count", "scan_max"),
        body=_NOW
        + """
if redis.call('HGET', meta, 'state') ~= 'active' then return {} end
local out = {}
local function take(chunk)
  if redis.call('GETBIT', chunks, chunk) == 0 and not redis.call('ZSCORE', fed, chunk) then
    redis.call('ZADD', fed, tostring(now), chunk)
    out[#out + 1] = chunk
  end
end
for _, chunk in ipairs(redis.call('ZRANGEBYSCORE', again, first, '(' .. stop, 'LIMIT', 0, count)) do
  redis.call('ZREM', again, chunk)
  take(tonumber(chunk))
end
local cursor = tonumber(redis.call('HGET', cursors, block) or first)
local limit = math.min(tonumber(stop), cursor + tonumber(scan_max))
while #out < tonumber(count) and cursor < limit do
  take(cursor)
  cursor = cursor + 1
end
redis.call('HSET', cursors, block, cursor)
return out
""",
    ),
    # What runs is fed, also when a message comes that had been given up for lost. A chunk beyond the plan leaves
    # no trace: the caller, who has the plan, refuses it.
    "begin": Script(
        keys=("meta", "chunks", "fed", "again", "attempts", "running"),
        arguments=("chunk",),
        body=_NOW
        + """
local state = redis.call('HGET', meta, 'state')
if not state then return {'unknown', 0} end
if tonumber(chunk) >= tonumber(redis.call('HGET', meta, 'chunks')) then return {'render', 1} end
if redis.call('GETBIT', chunks, chunk) == 1 then
  redis.call('ZREM', fed, chunk)
  return {'complete', 0}
end
if state ~= 'active' and state ~= 'done' then
  redis.call('ZREM', fed, chunk)
  redis.call('SREM', running, chunk)
  redis.call('ZADD', again, chunk, chunk)
  return {state, 0}
end
redis.call('ZADD', fed, 'NX', tostring(now), chunk)
redis.call('ZREM', again, chunk)
redis.call('SADD', running, chunk)
return {'render', redis.call('HINCRBY', attempts, chunk, 1)}
""",
    ),
    # chunk: its number, or -1 where it is not to be committed. Returns the state, and whether the chunk was opened.
    # A failure stands until its chunk is committed again: a late report of an image does not remove it. A second
    # commit changes no bit. Two workers have then written the manifest of the chunk, and where they disagree nobody
    # knows which of the two is in the store: the chunk is fed again, and its images are reused.
    "record": Script(
        keys=(
            "meta",
            "done",
            "failed",
            "chunks",
            "fed",
            "attempts",
            "codes",
            "failures",
            "reasons",
            "rate",
            "again",
            "running",
        ),
        arguments=("outcome_json", "chunk", "slot_seconds", "slots"),
        body=_NOW
        + _FORGET_CODE
        + _OPEN
        + """
local state = redis.call('HGET', meta, 'state')
if not state then return {'', 0} end
local outcome = cjson.decode(outcome_json)
local commits = tonumber(chunk) >= 0
if commits and redis.call('GETBIT', chunks, chunk) == 1 then
  local agrees = true
  for _, index in ipairs(outcome.done) do
    agrees = agrees and redis.call('GETBIT', done, index) == 1
  end
  for index in pairs(outcome.failed) do
    agrees = agrees and redis.call('GETBIT', failed, index) == 1
  end
  if agrees then return {state, 0} end
  open_chunk(chunk)
  go_on()
  return {redis.call('HGET', meta, 'state'), 1}
end
local new_done, new_reused, new_failed = 0, 0, 0
local function take_failure_back(index)
  if redis.call('GETBIT', failed, index) == 1 then
    redis.call('SETBIT', failed, index, 0)
    new_failed = new_failed - 1
    forget_code(index)
  end
end
-- Up to three different reasons a code: the field of the code, then that with #2 and #3.
local function keep_reason(code, reason)
  for _, field in ipairs({code, code .. '#2', code .. '#3'}) do
    local known = redis.call('HGET', reasons, field)
    if known == reason then return end
    if not known then
      redis.call('HSET', reasons, field, reason)
      return
    end
  end
end
local was_reused = {}
for _, index in ipairs(outcome.reused) do was_reused[index] = true end
for _, index in ipairs(outcome.done) do
  local stands = not commits and redis.call('GETBIT', failed, index) == 1
  if not stands and redis.call('SETBIT', done, index, 1) == 0 then
    new_done = new_done + 1
    if was_reused[index] then new_reused = new_reused + 1 end
    take_failure_back(index)
  end
end
for index, failure in pairs(outcome.failed) do
  if redis.call('GETBIT', done, index) == 0 and redis.call('SETBIT', failed, index, 1) == 0 then
    new_failed = new_failed + 1
    redis.call('SETBIT', codes .. ':' .. failure[1], index, 1)
    redis.call('HINCRBY', failures, failure[1], 1)
    keep_reason(failure[1], failure[2])
  end
end
-- What another sweep had made, or what a lost Redis is told anew, is no speed.
local rendered = new_done - new_reused
if rendered > 0 and state ~= 'rebuilding' then
  local slot = math.floor(now / tonumber(slot_seconds))
  if redis.call('HINCRBY', rate, slot, rendered) == rendered then
    for _, old in ipairs(redis.call('HKEYS', rate)) do
      if tonumber(old) <= slot - tonumber(slots) then redis.call('HDEL', rate, old) end
    end
  end
end
local all_done = redis.call('HINCRBY', meta, 'done', new_done)
local all_failed = redis.call('HINCRBY', meta, 'failed', new_failed)
if new_reused > 0 then redis.call('HINCRBY', meta, 'reused', new_reused) end
if commits then
  redis.call('SETBIT', chunks, chunk, 1)
  redis.call('HINCRBY', meta, 'chunks_done', 1)
  redis.call('ZREM', fed, chunk)
  redis.call('ZREM', again, chunk)
  redis.call('HDEL', attempts, chunk)
  redis.call('SREM', running, chunk)
end
local facts = redis.call('HMGET', meta, 'jobs', 'chunks', 'chunks_done')
if all_done + all_failed == tonumber(facts[1]) and tonumber(facts[2]) == tonumber(facts[3]) then
  if state ~= 'done' then redis.call('HSET', meta, 'state', 'done', 'finished_at', tostring(now)) end
  return {'done', 0}
end
return {state, 0}
""",
    ),
    # chunks_json: [[chunk, [index, ...]], ...]
    "reopen": Script(
        keys=("meta", "failed", "chunks", "again", "codes", "failures", "reasons", "attempts"),
        arguments=("chunks_json",),
        body=_FORGET_CODE
        + _OPEN
        + """
local reopened = 0
for _, wanted in ipairs(cjson.decode(chunks_json)) do
  local chunk, found = wanted[1], 0
  if redis.call('GETBIT', chunks, chunk) == 1 then
    for _, index in ipairs(wanted[2]) do
      if redis.call('GETBIT', failed, index) == 1 then
        redis.call('SETBIT', failed, index, 0)
        forget_code(index)
        found = found + 1
      end
    end
  end
  if found > 0 then
    open_chunk(chunk)
    reopened = reopened + found
  end
end
if reopened > 0 then
  redis.call('HINCRBY', meta, 'failed', -reopened)
  go_on()
end
return reopened
""",
    ),
    # chunks_json: [[chunk, [index, ...]], ...]; the jobs of committed chunks that are to be rendered again.
    "render_again": Script(
        keys=("meta", "done", "failed", "chunks", "again", "codes", "failures", "reasons", "attempts"),
        arguments=("chunks_json",),
        body=_FORGET_CODE
        + _OPEN
        + """
local again_done, again_failed = 0, 0
for _, wanted in ipairs(cjson.decode(chunks_json)) do
  local chunk = wanted[1]
  if redis.call('GETBIT', chunks, chunk) == 1 then
    for _, index in ipairs(wanted[2]) do
      if redis.call('GETBIT', done, index) == 1 then
        redis.call('SETBIT', done, index, 0)
        again_done = again_done + 1
      end
      if redis.call('GETBIT', failed, index) == 1 then
        redis.call('SETBIT', failed, index, 0)
        forget_code(index)
        again_failed = again_failed + 1
      end
    end
    open_chunk(chunk)
  end
end
redis.call('HINCRBY', meta, 'done', -again_done)
redis.call('HINCRBY', meta, 'failed', -again_failed)
go_on()
return again_done + again_failed
""",
    ),
    "give_back": Script(
        keys=("fed", "again", "attempts", "chunks", "running"),
        arguments=("chunk", "count_attempt"),
        body="""
redis.call('ZREM', fed, chunk)
redis.call('SREM', running, chunk)
if redis.call('GETBIT', chunks, chunk) == 1 then return 0 end
redis.call('ZADD', again, chunk, chunk)
if count_attempt == '0' and redis.call('HINCRBY', attempts, chunk, -1) <= 0 then redis.call('HDEL', attempts, chunk) end
return 1
""",
    ),
    "absent": Script(
        keys=("fed", "absent", "again", "running"),
        arguments=("lost_after_seconds",),
        rest="absent_chunks",
        body=_NOW
        + """
local lost, still = {}, {}
for _, chunk in ipairs(absent_chunks) do
  if redis.call('ZSCORE', fed, chunk) then
    local since = tonumber(redis.call('HGET', absent, chunk) or now)
    if now - since >= tonumber(lost_after_seconds) then
      redis.call('ZREM', fed, chunk)
      redis.call('SREM', running, chunk)
      redis.call('ZADD', again, chunk, chunk)
      lost[#lost + 1] = tonumber(chunk)
    else
      still[chunk] = tostring(since)
    end
  end
end
redis.call('DEL', absent)
for chunk, since in pairs(still) do redis.call('HSET', absent, chunk, since) end
return lost
""",
    ),
    "lock": Script(
        keys=("lock",),
        arguments=("token", "milliseconds"),
        body="""
local holder = redis.call('GET', lock)
if holder and holder ~= token then return 0 end
redis.call('SET', lock, token, 'PX', milliseconds)
return 1
""",
    ),
    "unlock": Script(
        keys=("lock",),
        arguments=("token",),
        body="if redis.call('GET', lock) == token then return redis.call('DEL', lock) end return 0",
    ),
}
