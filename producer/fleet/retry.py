"""Chooses which failed jobs of a sweep are rendered again, and reports which are left out."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from producer.results.rows import manifest_rows
from shared.errors import FAILURE_CODES, PERMANENT_CODES, UsageError
from shared.ledger import Ledger
from shared.plan import Plan
from shared.store.base import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Retried:
    """What a retry took, and what it left."""

    #: Jobs that will be rendered again; with `dry_run`, that would be.
    jobs: int
    #: Error code -> failed jobs that stay as they are.
    left: Mapping[str, int]
    dry_run: bool = False

    @property
    def hopeless(self) -> int:
        """Failed jobs that were left since the same job fails again whoever tries it."""
        return sum(count for code, count in self.left.items() if code in PERMANENT_CODES)


def retry_failed(
    sweep: str,
    plan: Plan,
    *,
    store: Store,
    ledger: Ledger,
    codes: Collection[str] = (),
    where: Mapping[str, Any] | None = None,
    everything: bool = False,
    dry_run: bool = False,
) -> Retried:
    """Take failures back, so that those jobs are rendered again.

    Args:
        codes: only failures with these error codes; none named means all but those that fail again for sure.
        where: only rows of the manifests that meet it.
        everything: also those that fail again for sure.
        dry_run: count, and change nothing.

    Raises: UsageError for an unknown field or code; StoreError; BrokerError.
    """
    _check_codes(codes)
    chosen: list[int] = []
    left: Counter[str] = Counter()
    wanted = {
        row["index"]
        for row in manifest_rows(sweep, store, where={**(where or {}), "status": "failed"}, plan=plan)
    }
    for row in manifest_rows(sweep, store, where={"status": "failed"}):
        assert row["status"] == "failed"  # only those were asked for
        code = row["error_code"]
        takes = code in codes if codes else everything or code not in PERMANENT_CODES
        if takes and row["index"] in wanted:
            chosen.append(row["index"])
        else:
            left[code] += 1
    jobs = len(chosen) if dry_run else ledger.reopen_failed(sweep, plan, only=chosen)
    return Retried(jobs=jobs, left=dict(left), dry_run=dry_run)


def _check_codes(codes: Collection[str]) -> None:
    """Refuse a code that no failure can have: it would choose nothing, in silence."""
    for code in codes:
        if code not in FAILURE_CODES:
            near = difflib.get_close_matches(code, FAILURE_CODES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(FAILURE_CODES))}"
            raise UsageError(f"error code {code!r} is not known: {hint}")
