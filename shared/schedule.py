"""Decides which worker serves which model: highest priority first, with as few model loads as that allows.

A pure function: the feeder gives it what waits and who is there, and publishes the answer. A worker then listens only
to the queues of its turn. Loading a model takes seconds to minutes, so a worker stays with its model while chunks of
it wait, unless something of a higher priority waits, or something equal has waited for a whole turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

#: Chunks that a worker has in hand at once: one samples while the other uploads.
CHUNKS_IN_HAND = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """Chunks of one model and one priority that no worker has begun."""

    model: str
    priority: int
    #: Where they wait, or will be sent to.
    queues: frozenset[str]
    chunks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A live worker, as its heartbeat describes it."""

    name: str
    #: The queues it is able to serve.
    serves: frozenset[str]
    #: The model it has loaded; empty where it has none.
    model: str = ""
    #: How many chunks it has in hand.
    chunks: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerTurn:
    """What one worker listens to, and since when (Unix seconds) it has been with this model.

    Without queues nothing waits that needs this worker; the model is then the one that it has loaded.
    """

    model: str
    queues: frozenset[str]
    since: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {"model": self.model, "queues": sorted(self.queues), "since": self.since}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WorkerTurn:
        """Read a turn. Raises: KeyError, TypeError, ValueError for what is none."""
        return cls(
            model=str(document["model"]),
            queues=frozenset(map(str, document["queues"])),
            since=float(document["since"]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What the feeder publishes: every worker's turn, and the queues in which nothing waits.

    A queue that it does not name has just come: whose turn it is will stand in the next schedule.
    """

    turns: Mapping[str, WorkerTurn]
    idle: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as plain JSON values."""
        turns = {name: turn.to_json() for name, turn in self.turns.items()}
        return {"turns": turns, "idle": sorted(self.idle)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schedule:
        """Read a schedule. Raises: AttributeError, KeyError, TypeError, ValueError for what is none."""
        turns = {str(name): WorkerTurn.from_json(turn) for name, turn in document["turns"].items()}
        return cls(turns=turns, idle=frozenset(map(str, document["idle"])))


def assign(
    demands: Iterable[Demand],
    workers: Iterable[Candidate],
    before: Mapping[str, WorkerTurn],
    *,
    queues: Iterable[str],
    now: float,
    turn_seconds: float,
) -> Schedule:
    """Decide which worker listens to which queues.

    Args:
        demands: what waits; one entry for each model and priority.
        before: the turns until now.
        queues: every queue that there is.
        now: Unix seconds.
        turn_seconds: how long a worker stays with one model while chunks of equal priority, which no worker serves,
            wait for another one.
    """
    waiting = [demand for demand in demands if demand.chunks > 0]
    everyone = {w.name: _with_turn(w, before) for w in sorted(workers, key=lambda w: w.name)}
    chosen: dict[str, Demand] = {}
    for priority in sorted({demand.priority for demand in waiting}, reverse=True):
        free = {name: worker for name, worker in everyone.items() if name not in chosen}
        level = _Level([d for d in waiting if d.priority == priority], free, before)
        level.share(before_that=now - turn_seconds)
        chosen |= level.chosen
    chosen |= _helpers(waiting, everyone, chosen)
    return Schedule(
        turns={
            name: _turn(worker, chosen.get(name), before.get(name), now) for name, worker in everyone.items()
        },
        idle=frozenset(queues).difference(*(demand.queues for demand in waiting)),
    )


def listened(serves: Collection[str], schedule: Schedule | None, name: str) -> frozenset[str]:
    """Return the queues that a worker listens to: those of its turn, or else those in which nothing waits.

    Without a schedule (no feeder publishes one) a worker listens to all that it serves.
    """
    if schedule is None:
        return frozenset(serves)
    turn = schedule.turns.get(name)
    if turn is not None and turn.queues:
        return turn.queues & frozenset(serves)
    return schedule.idle & frozenset(serves)


class _Level:
    """The demands of one priority, and the workers that are left for them."""

    def __init__(
        self, demands: Sequence[Demand], workers: Mapping[str, Candidate], before: Mapping[str, WorkerTurn]
    ) -> None:
        self._workers = {
            name: worker
            for name, worker in workers.items()
            if any(_serves(worker, demand) for demand in demands)
        }
        # Who has the fewest workers to choose from chooses first.
        self._demands = sorted(demands, key=lambda d: (len(self._able(d)), -d.chunks, d.model))
        # A worker without a turn so far begins one now.
        self._since = {
            name: before[name].since if name in before and before[name].queues else math.inf
            for name in self._workers
        }
        self.chosen: dict[str, Demand] = {}

    def share(self, *, before_that: float) -> None:
        """Choose: who stays, who is free for what nobody serves, who leaves a crowd, whose turn is over."""
        for demand in self._demands:
            staying = [name for name in self._able(demand) if self._workers[name].model == demand.model]
            for name in sorted(staying, key=self._since.__getitem__)[: demand.chunks]:
                self.chosen[name] = demand
        self._serve_from(self._free)
        self._join()
        self._serve_from(self._crowded)
        self._take_turns(before_that)

    def _able(self, demand: Demand) -> list[str]:
        return [name for name, worker in self._workers.items() if _serves(worker, demand)]

    def _serving(self, demand: Demand) -> list[str]:
        return [name for name, chosen in self.chosen.items() if chosen is demand]

    def _serve_from(self, candidates: Callable[[Demand], list[str]]) -> None:
        """Give each demand that nobody serves the first of its candidates."""
        for demand in self._demands:
            if not self._serving(demand) and (names := candidates(demand)):
                self.chosen[names[0]] = demand

    def _free(self, demand: Demand) -> list[str]:
        """Workers without a choice yet: the least busy first, then those that can do little else."""
        return sorted(
            (name for name in self._able(demand) if name not in self.chosen),
            key=lambda name: (self._workers[name].chunks, len(self._workers[name].serves), name),
        )

    def _join(self) -> None:
        """Let those that are left help where most chunks wait for each worker."""
        for name, worker in self._workers.items():
            if name in self.chosen:
                continue
            open_to = [
                demand
                for demand in self._demands
                if _serves(worker, demand) and demand.chunks > len(self._serving(demand)) > 0
            ]
            if open_to:
                self.chosen[name] = max(
                    open_to, key=lambda d: (d.chunks / (len(self._serving(d)) + 1), d.model)
                )

    def _crowded(self, demand: Demand) -> list[str]:
        """Workers that others can do without, of the largest crowd, the newest there first."""
        crowds = {name: len(self._serving(self.chosen[name])) for name in self._able(demand)}
        return sorted(
            (name for name, size in crowds.items() if size > 1),
            key=lambda name: (-crowds[name], -self._since[name], name),
        )

    def _take_turns(self, before_that: float) -> None:
        """Let workers whose turn is over go on to what nobody serves: in the order of the models, round and round."""
        over = [name for name, demand in self.chosen.items() if self._since[name] <= before_that]
        for name in sorted(over, key=lambda name: (self._since[name], name)):
            worker, now_at = self._workers[name], self.chosen[name].model
            waiting = [d for d in self._demands if _serves(worker, d) and not self._serving(d)]
            if now_at == worker.model and waiting:
                self.chosen[name] = min(waiting, key=lambda d: (d.model < now_at, d.model))


def _helpers(
    waiting: Sequence[Demand], workers: Mapping[str, Candidate], chosen: Mapping[str, Demand]
) -> dict[str, Demand]:
    """Return what idle workers do: they help where the demand's own workers have no hand free for all that waits."""
    found: dict[str, Demand] = {}
    for name in workers.keys() - chosen.keys():
        for demand in sorted(waiting, key=lambda d: (-d.priority, -d.chunks, d.model)):
            ready = [
                other
                for other, taken in {**chosen, **found}.items()
                if taken is demand and workers[other].chunks < CHUNKS_IN_HAND
            ]
            if workers[name].chunks == 0 and _serves(workers[name], demand) and len(ready) < demand.chunks:
                found[name] = demand
                break
    return found


def _serves(worker: Candidate, demand: Demand) -> bool:
    return not demand.queues.isdisjoint(worker.serves)


def _with_turn(worker: Candidate, before: Mapping[str, WorkerTurn]) -> Candidate:
    """Return a worker with the model of its turn so far, which it may be loading still."""
    turn = before.get(worker.name)
    return replace(worker, model=turn.model) if turn is not None and turn.queues else worker


def _turn(worker: Candidate, demand: Demand | None, before: WorkerTurn | None, now: float) -> WorkerTurn:
    if demand is None:
        return WorkerTurn(model=worker.model, queues=frozenset(), since=now)
    goes_on = before is not None and before.model == demand.model and before.queues
    return WorkerTurn(
        model=demand.model,
        queues=demand.queues & worker.serves,
        since=before.since if before and goes_on else now,
    )
