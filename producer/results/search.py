"""Searches the manifests of every sweep in a store for rows that meet conditions. Asks no Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from producer.results.manifest_row import ManifestRow
from producer.results.rows import manifest_rows, why_nothing
from producer.results.store_sweeps import stored_ids, stored_plans
from producer.results.where import Where, read_where
from shared.errors import StoreError, StoreUnavailable, UsageError
from shared.store.base import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRow:
    """A row that meets the conditions, and the sweep that it belongs to."""

    sweep: str
    name: str
    row: ManifestRow


def search_rows(
    store: Store, where: Where | Sequence[str] | str, *, on_sweep: Callable[[int], None] = lambda total: None
) -> Iterator[FoundRow]:
    """Yield the rows of all sweeps that meet the conditions, sweep by sweep; a damaged manifest is passed over.

    Args:
        where: fields of rows, and values of the sweeps' own; a sweep without such a value has no row that meets it.
        on_sweep: told after each sweep, with the number of sweeps there are.

    Raises: UsageError for a field that no sweep has; StoreUnavailable.
    """
    ids = stored_ids(store)
    labels: dict[str, None] = {}
    is_known = False
    for sweep, plan in stored_plans(ids, store):
        labels |= dict.fromkeys(plan.label_names)
        try:
            wanted = read_where(where, plan.label_names)
        except UsageError:
            on_sweep(len(ids))
            continue
        is_known = True
        try:
            for row in manifest_rows(sweep, store, where=wanted, plan=plan):
                yield FoundRow(sweep=sweep, name=plan.name, row=row)
        except StoreUnavailable:
            raise
        except StoreError as error:  # one sweep's damage hides no other
            log.warning("sweep_not_searched", extra={"sweep": sweep, "reason": str(error)})
        on_sweep(len(ids))
    if not is_known:
        read_where(where, labels)  # what is wrong with the conditions, whichever sweep they are held against


def why_nothing_found(store: Store, where: Where | Sequence[str] | str) -> list[str]:
    """Say which values there are for conditions that no row meets, in one sweep that has all their fields."""
    for sweep, plan in stored_plans(stored_ids(store), store):
        with suppress(UsageError, StoreError):
            reasons = why_nothing(sweep, store, read_where(where, plan.label_names), plan=plan)
            return [f"in {plan.name}: {reason}" for reason in reasons]
    return []
