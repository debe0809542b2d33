"""The client: every verb of the command line, from Python (docs/python.md). Connects when it first needs to."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from producer.arguments import Between, checked_methods
from producer.export import fetch as fetching
from producer.fleet.doctor import Check, examine
from producer.fleet.lineage import Edition, choose, editions
from producer.fleet.models import KnownModel, bundled_fingerprints, known_models, model_card, resolve_model
from producer.fleet.retry import Retried, retry_failed
from producer.fleet.status import NO_WORKER, Overview, overview
from producer.fleet.store_match import committed_chunks, require_rows
from producer.fleet.submit import Submission, rebuild, submit_plan
from producer.json_answers import to_json
from producer.language.wording import near
from producer.planning.compile import compile_sweep
from producer.preview import SAMPLE_JOBS, UNMEASURED, PlanDifference, Preview, compare_plans, preview
from producer.preview.environment import find_facts, find_rates, find_tokenizers, model_folders
from producer.preview.failures import CertainFailure, certain_failures, refuse_certain_failures
from producer.results import rows as reading
from producer.results.manifest_row import ManifestRow
from producer.results.search import FoundRow, search_rows, why_nothing_found
from producer.results.store_sweeps import StoredSweep, find_stored, stored_ids, stored_sweeps
from producer.results.time_limit import answer_within
from producer.results.where import read_where
from producer.source import SweepLike, read_source
from shared import names
from shared.broker import make_app, send_chunk
from shared.errors import BrokerError, ModelUnknown, SweepUnknown, UsageError
from shared.feeder import Feeder
from shared.fingerprint import ResolvedModel, is_model
from shared.ledger import Ledger, SweepState, SweepStatus
from shared.model_reading import split_reading
from shared.plan import Plan
from shared.queues import BrokerView
from shared.redis_client import connect
from shared.settings import Settings, load_settings
from shared.store.base import PRESIGN_SECONDS_MAX, Store
from shared.store.identity import StoreIdentity, identity_of
from shared.store.open import open_store

if TYPE_CHECKING:
    from PIL.Image import Image

    from producer.results.verify import Report
    from producer.sheet.sweep_sheet import Written

_log = logging.getLogger(__name__)


#: How long an optional question to the store may take: the call goes on without its answer.
_QUICK_ANSWER_SECONDS = 3.0

#: Conditions on rows: field -> value, or texts as `--where` reads them.
WhereSource = Mapping[str, Any] | Sequence[str] | str


#: How long a list of sweeps waits for the store's part of it.
_STORE_LIST_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSweep:
    """A sweep that Redis knows, and which of the sweeps of its name it is."""

    status: SweepStatus
    edition: Edition

    def to_json(self) -> dict[str, Any]:
        """Return its figures, its number and whether its name alone means it."""
        return {
            **to_json(self.status),
            "number": self.edition.number,
            "newest": self.edition.is_newest,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepList:
    """All sweeps, as far as Redis and the store answer."""

    #: Oldest first.
    sweeps: tuple[ListedSweep, ...]
    #: Sweeps that the store has and Redis has not; None where the store did not answer in time.
    only_in_store: tuple[StoredSweep, ...] | None
    #: Why `sweeps` is empty, where Redis does not answer.
    redis_error: BrokerError | None = None

    def to_json(self) -> list[dict[str, Any]]:
        """Return all sweeps in one list; those of the store have fewer keys."""
        stored = (to_json(one) | {"state": "only_in_store"} for one in self.only_in_store or ())
        return [*(one.to_json() for one in self.sweeps), *stored]


@checked_methods
class Printroom:
    """A Printroom fleet, seen from a producer."""

    def __init__(
        self, settings: Settings | None = None, *, on_note: Callable[[str], None] = _log.info
    ) -> None:
        """Connect to nothing yet.

        Args:
            on_note: gets what a person should know of a call that goes on, such as which sweep a name meant.
        """
        self.settings = settings or load_settings()
        self._on_note = on_note
        #: Fingerprint -> where it is, of models that a sweep named by their path.
        self._named_folders: dict[str, Path] = {}

    # --- before anything runs -------------------------------------------------------------------------------

    def compile(self, source: SweepLike, *, unknown: list[str] | None = None) -> Plan:
        """Return the plan of a sweep: a YAML file, a mapping of the same keys, or a Sweep.

        Args:
            unknown: collects what is wrong with models nobody here knows, for a look ahead; the plan then has
                another id than the one to be submitted. Without it such a model is an error.

        Raises: SweepError, ModelUnknown, ModelAmbiguous.
        """
        sweep, known = read_source(source).sweep, self.models()

        def resolve(name: str) -> ResolvedModel:
            try:
                model = resolve_model(name, known, cache_dir=self.settings.cache_dir)
            except ModelUnknown as error:
                if unknown is None:
                    raise
                unknown.append(str(error))
                return ResolvedModel(name=name, fingerprint=f"unknown:{name}")
            path = Path(os.path.expanduser(split_reading(name)[0]))  # noqa: PTH111 - Path.expanduser raises for ~nobody
            if all(name != one.name for one in known) and is_model(path):
                self._named_folders[split_reading(model.fingerprint)[0]] = path
            return model

        return compile_sweep(sweep, resolve=resolve)

    def preview(
        self,
        plan: Plan,
        *,
        sample: Annotated[int, Between(0)] = SAMPLE_JOBS,
        first: bool = False,
        source: SweepLike | None = None,
    ) -> Preview:
        """Look a plan over: what it comes to, what it costs, what may be a slip. Renders nothing.

        Args:
            sample: how many of its jobs to show: evenly spread ones, or with `first` the first ones.
            source: the sweep that the plan is of, to say how the files it names were read.
        """
        read = None if source is None else read_source(source)
        folders = model_folders(self.models(), self._named_folders)
        try:
            sweeps, workers = self.ledger.sweeps()[::-1], self.ledger.workers()
        except BrokerError:
            sweeps, workers = [], []
        known = find_rates(plan, self._store(patience_seconds=_QUICK_ANSWER_SECONDS), sweeps)
        facts = find_facts(plan, folders, workers)
        return preview(
            plan,
            sample=sample,
            first=first,
            tokenizers=find_tokenizers(plan, folders),
            rates=known.rates,
            workers=workers,
            facts=facts,
            time_unknown=known.trouble or UNMEASURED,
            files=read.files if read else (),
            notes=read.notes if read else (),
        )

    def paths_of_models(self, source: SweepLike) -> list[Path]:
        """Return the folders and files that a sweep names as its models by their paths. Raises: SweepError."""
        self.compile(source, unknown=[])
        return [path.absolute() for path in self._named_folders.values()]

    def compare(self, plan: Plan, old: SweepLike) -> PlanDifference:
        """Return what a plan adds to, keeps and drops of another: a sweep file, or a submitted sweep's id or name.

        Raises: SweepUnknown, UsageError where there is too much to compare one by one; what `compile` raises.
        """
        if isinstance(old, str) and not Path(old).is_file():
            try:
                before = self.plan(self.find(old, in_store=True))
            except ValueError as error:
                raise UsageError(f"{old} cannot be compared: {error}") from error
            return compare_plans(before, plan)
        return compare_plans(self.compile(old, unknown=[]), plan)

    def certain_failures(self, plan: Plan) -> tuple[CertainFailure, ...]:
        """Return which jobs of a plan are certain to fail, as far as its models' files or live workers tell."""
        try:
            workers = self.ledger.workers()
        except BrokerError:
            workers = []
        folders = model_folders(self.models(), self._named_folders)
        return certain_failures(plan, find_facts(plan, folders, workers))

    def models(self) -> list[KnownModel]:
        """Return the models of this machine and of live workers; without Redis, those of this machine."""
        try:
            workers = self.ledger.workers()
        except BrokerError:
            workers = []
        return known_models(self.settings.models, workers, cache_dir=self.settings.cache_dir)

    def model_card(self, name: str) -> str:
        """Return the card of a model on this machine. Raises: ModelUnknown."""
        return model_card(name, self.models())

    # --- a sweep's life -------------------------------------------------------------------------------------

    def submit(
        self,
        source: SweepLike,
        *,
        priority: int = 0,
        confirmed: bool = False,
        allow_failing: bool = False,
    ) -> Submission:
        """Submit a sweep. The same sweep again changes nothing; an extended one renders what is new.

        Args:
            priority: higher goes first.
            confirmed: agree to a very large sweep.
            allow_failing: submit a sweep of which some jobs are certain to fail.

        Raises:
            SweepError: the sweep says what it may not, or some of its jobs are certain to fail.
            ModelUnknown, ModelAmbiguous, ConfirmationNeeded, StoreMismatch, StoreError, BrokerError.
        """
        read = read_source(source)  # once: what is kept is what was compiled
        plan = self.compile(read)
        is_known = self.ledger.state(plan.id) is not None
        if not allow_failing and not is_known:
            refuse_certain_failures(plan, self.certain_failures(plan))
        _ = self._app  # what the feeder sends by is made before anything is written
        submission = submit_plan(
            plan,
            read.text.encode(),
            store=self.store,
            identity=self.identity,
            ledger=self.ledger,
            priority=priority,
            confirmed=confirmed,
        )
        self.feed()
        return replace(submission, advice=tuple(self._advice(plan)))

    def _advice(self, plan: Plan) -> Iterator[str]:
        """Say what the sweep waits for: a worker, or a model that no live worker holds, and how one gets it."""
        workers = self.ledger.workers()
        held = {fingerprint for worker in workers for fingerprint in worker.models}
        if not workers:
            yield NO_WORKER
            held = bundled_fingerprints(self.settings.cache_dir)  # whatever worker starts brings it along
        for model, name in plan.models.items():
            fingerprint, _ = split_reading(model)
            if fingerprint in held:
                continue
            path = self._named_folders.get(fingerprint)
            if fingerprint.startswith("hub:"):
                how = f"start a worker with PRINTROOM_HUB_MODELS={fingerprint.removeprefix('hub:')}"
            elif path is not None:
                how = f"copy {path.absolute()} into a folder of PRINTROOM_MODELS on a worker, and restart that worker"
            else:
                how = "put it into a folder of PRINTROOM_MODELS on a worker, and restart that worker"
            yield f"no live worker has model {name} ({fingerprint}): {how}"

    def status(self, sweep: str) -> Overview:
        """Return how a sweep is doing. Raises: SweepUnknown, BrokerError."""
        return overview(self.find(sweep), self.ledger, self.identity)

    def statuses(self) -> list[SweepStatus]:
        """Return every sweep Redis knows, oldest first."""
        return [self.ledger.status(sweep) for sweep in self.ledger.sweeps()]

    def list_sweeps(self, *, store_seconds: Annotated[float, Between(0)] = _STORE_LIST_SECONDS) -> SweepList:
        """Return all sweeps that Redis knows, and those that only the store has.

        Args:
            store_seconds: how long to wait for the store's part.
        """
        try:
            statuses, error = self.statuses(), None
        except BrokerError as found:
            statuses, error = [], found
        lost = answer_within(self.lost_sweeps, seconds=store_seconds)
        return sweep_list(statuses, only_in_store=lost, redis_error=error)

    def lost_sweeps(self) -> list[StoredSweep]:
        """Return the sweeps that the store has and Redis has not; all of the store's where Redis is away.

        Raises: StoreError.
        """
        known = {one.sweep for one in self._editions(in_store=True)}
        return list(stored_sweeps((one for one in stored_ids(self.store) if one not in known), self.store))

    def wait(
        self,
        sweep: str,
        *,
        timeout_seconds: Annotated[float, Between(0)] | None = None,
        poll_seconds: Annotated[float, Between(0)] = 0.5,
        on_status: Callable[[Overview], None] = lambda seen: None,
    ) -> SweepStatus:
        """Wait until a sweep is done or cancelled.

        Raises: TimeoutError, SweepUnknown, BrokerError.
        """
        sweep = self.find(sweep)
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            seen = overview(sweep, self.ledger, self.identity)
            on_status(seen)
            if seen.status.state in ("done", "cancelled"):
                return seen.status
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{sweep}: {seen.status.remaining} jobs to go after {timeout_seconds:g} s")
            time.sleep(poll_seconds)

    def wait_all(
        self,
        *,
        poll_seconds: Annotated[float, Between(0)] = 1.0,
        on_statuses: Callable[[list[SweepStatus]], None] = lambda seen: None,
    ) -> list[SweepStatus]:
        """Wait until no sweep is active or being rebuilt; sweeps that are submitted meanwhile count.

        Raises: BrokerError.
        """
        while True:
            seen = self.statuses()
            on_statuses(seen)
            if all(status.state not in ("active", "rebuilding") for status in seen):
                return seen
            time.sleep(poll_seconds)

    def pause(self, sweep: str) -> SweepState:
        """Feed no more of a sweep; what is being sampled is finished."""
        return self.ledger.set_state(self.find(sweep), "paused")

    def cancel(self, sweep: str) -> SweepState:
        """Stop a sweep: workers leave it at their next batch. Its images stay; `resume` goes on."""
        return self.ledger.set_state(self.find(sweep), "cancelled")

    def prioritise(self, sweep: str, priority: int) -> None:
        """Change a sweep's priority; higher goes first, among what is not yet in the queue."""
        self.ledger.set_priority(self.find(sweep), priority)

    def resume(self, sweep: str) -> SweepState:
        """Go on with a paused, cancelled or (in Redis) lost sweep. Only what is missing is rendered."""
        sweep = self.find(sweep, in_store=True)
        if self.ledger.state(sweep) in (None, "rebuilding"):
            rebuild(sweep, store=self.store, identity=self.identity, ledger=self.ledger)
        state = self.ledger.set_state(sweep, "active")
        self.feed()
        return state

    def retry(
        self,
        sweep: str,
        *,
        codes: Collection[str] = (),
        where: WhereSource | None = None,
        everything: bool = False,
        dry_run: bool = False,
    ) -> Retried:
        """Render failed jobs of a sweep again; those that would fail again for sure are left, unless asked for.

        Args:
            codes: only failures with these error codes, or this one.
            where: only rows of the manifests that meet it, as for `results`.
            everything: also those that fail again for sure.
            dry_run: count, and change nothing.
        """
        sweep = self.find(sweep)
        self._completeness(sweep)()  # what failed is read from rows: of another store there are none
        retried = retry_failed(
            sweep,
            self.plan(sweep),
            store=self.store,
            ledger=self.ledger,
            codes=[codes] if isinstance(codes, str) else codes,
            where=self._where(sweep, where),
            everything=everything,
            dry_run=dry_run,
        )
        if not dry_run:
            self.feed()
        return retried

    # --- what came of it ------------------------------------------------------------------------------------

    def results(
        self,
        sweep: str,
        *,
        where: WhereSource | None = None,
        urls: bool = False,
        expires_seconds: Annotated[int, Between(1, PRESIGN_SECONDS_MAX)] = 3600,
    ) -> Iterator[ManifestRow]:
        """Return the manifest's rows so far, in plan order (docs/manifest.md has the columns).

        Args:
            where: field -> value, None being null; or conditions as `--where` reads them: ["seed>=3", "style=sunny"].
            urls: add `url`, which reads the image for `expires_seconds`.
        """
        sweep = self.find(sweep, in_store=True)
        check = self._completeness(sweep)
        plan = self.plan(sweep)
        wanted = read_where(where or {}, plan.label_names)
        rows = _then(reading.manifest_rows(sweep, self.store, where=wanted, plan=plan), check)
        return reading.with_urls(rows, self.store, expires_seconds=expires_seconds) if urls else rows

    def search(
        self, where: WhereSource, *, on_sweep: Callable[[int], None] = lambda total: None
    ) -> Iterator[FoundRow]:
        """Return the rows of every sweep in the store that meet the conditions; needs no Redis.

        Args:
            where: as for `results`.
            on_sweep: told after each sweep, with the number of sweeps there are.
        """
        return search_rows(self.store, where, on_sweep=on_sweep)

    def why_nothing_found(self, where: WhereSource) -> list[str]:
        """Say which values there are, in one of the sweeps, for conditions that no row of the store meets."""
        return why_nothing_found(self.store, where)

    def why_nothing(self, sweep: str, where: WhereSource) -> list[str]:
        """Say which values there are, for each field of a filter that no row of a sweep meets."""
        sweep = self.find(sweep, in_store=True)
        plan = self.plan(sweep)
        return reading.why_nothing(sweep, self.store, read_where(where, plan.label_names), plan=plan)

    def fetch(
        self,
        sweep: str,
        folder: str | Path,
        *,
        where: WhereSource | None = None,
        options: fetching.FetchOptions | None = None,
        on_image: Callable[[int | None], None] = lambda total: None,
    ) -> fetching.Fetched:
        """Bring images and metadata home; what is there already is checked and kept."""
        sweep = self.find(sweep, in_store=True)
        plan, check = self.plan(sweep), self._completeness(sweep)
        fetched = fetching.fetch(
            sweep,
            self.store,
            Path(folder),
            where=self._where(sweep, where),
            options=options,
            name=plan.name,
            jobs=len(plan),
            plan=plan,
            on_image=on_image,
        )
        check()
        return fetched

    def verify(
        self,
        sweep: str,
        *,
        deep: bool = False,
        repair: bool = False,
        on_job: Callable[[int], None] = lambda total: None,
    ) -> Report:
        """Compare a sweep's plan, rows, images and figures.

        Args:
            deep: read every image, and check its sha256, its recipe and its pixels.
            repair: have what is missing or wrong rendered again.
        """
        from producer.results.verify import repair_sweep, verify_sweep

        sweep = self.find(sweep, in_store=True)
        report = verify_sweep(sweep, self.plan(sweep), self.store, self.ledger, deep=deep, on_job=on_job)
        if repair and not report.agrees:
            repair_sweep(report, self.store, self.ledger)
            if report.ledger:
                self.feed()
        return report

    def sheet(
        self,
        sweep: str,
        *,
        where: WhereSource | None = None,
        rows: str | Sequence[str] | None = None,
        columns: str | Sequence[str] | None = None,
        diff: WhereSource | None = None,
        thumb_px: Annotated[int, Between(16, 4096)] | None = None,
    ) -> Image:
        """Draw a labelled contact sheet as one picture, whose thumbnails shrink until it fits.

        Args:
            rows, columns: a field of a job, or two of which the first is outer; chosen where not given.
            diff: one field and its value: every image is compared with the one that has it.
            thumb_px: longest side of the largest image.
        """
        from producer.sheet.sweep_sheet import look, sweep_sheet

        sweep = self.find(sweep, in_store=True)
        plan, live, check = self.plan(sweep), look(sweep, self.ledger), self._completeness(sweep)
        sheet = sweep_sheet(
            sweep,
            plan,
            self.store,
            rows=rows,
            columns=columns,
            where=self._where(sweep, where),
            diff=_conditions(diff),
            thumb_px=thumb_px,
            live=live,
        )
        check()
        return sheet

    def write_sheet(
        self,
        sweep: str,
        out: str | Path,
        *,
        where: WhereSource | None = None,
        rows: str | Sequence[str] | None = None,
        columns: str | Sequence[str] | None = None,
        diff: WhereSource | None = None,
        thumb_px: Annotated[int, Between(16, 4096)] | None = None,
        max_pixels: Annotated[int, Between(100_000)] | None = None,
        on_part: Callable[[int | None], None] = lambda total: None,
    ) -> Written:
        """Draw a labelled contact sheet into a PNG, an HTML page, or as many tiles as it takes.

        Args:
            out: `FILE.png`, `FILE.html` or a folder.
            rows, columns, diff, thumb_px: as for `sheet`.
            max_pixels: pixels of one PNG; a larger sheet becomes tiles.
            on_part: gets the number of tiles, or of images of a page, at each one written.
        """
        from producer.sheet import MAX_PIXELS
        from producer.sheet.sweep_sheet import look, write_sheet

        sweep = self.find(sweep, in_store=True)
        plan, live, check = self.plan(sweep), look(sweep, self.ledger), self._completeness(sweep)
        written = write_sheet(
            sweep,
            plan,
            self.store,
            Path(out),
            rows=rows,
            columns=columns,
            where=self._where(sweep, where),
            diff=_conditions(diff),
            thumb_px=thumb_px,
            max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
            live=live,
            on_part=on_part,
        )
        check()
        return written

    # --- looking after it -----------------------------------------------------------------------------------

    def examine(self) -> Iterator[Check]:
        """Check broker, store, workers, models, device and versions."""
        return examine(self.ledger, lambda: self.store, self.settings)

    def create_bucket(self) -> None:
        """Make the S3 bucket of the store, unless it is there. Raises: UsageError for a folder; StoreError."""
        ensure = getattr(self.store, "ensure_bucket", None)
        if ensure is None:
            raise UsageError(f"--create-bucket: {self.store.url} is a folder, not a bucket")
        ensure()

    def find(self, text: str, *, in_store: bool = False) -> str:
        """Return the id that an id, the start of one, a sweep's name or `NAME@2` means.

        Of several sweeps of a name the newest is meant, and `on_note` is told.

        Args:
            in_store: look in the store where Redis does not know it.

        Raises: SweepUnknown, UsageError where it means several.
        """
        known = self._editions(in_store)
        choice = choose(text, known)
        if choice is not None:
            if choice.note:
                self._on_note(choice.note)
            return choice.sweep
        if in_store and (found := self._stored(text, [one.sweep for one in known])):
            return found
        raise SweepUnknown(self._unknown(text, in_store))

    def plan(self, sweep: str) -> Plan:
        """Return a submitted sweep's plan, from Redis or from the store."""
        try:
            data = self.ledger.plan_bytes(sweep)
        except BrokerError:
            data = None
        return Plan.from_bytes(data or self.store.get(names.plan_key(sweep)))

    def _completeness(self, sweep: str) -> Callable[[], None]:
        """Return a check, to be made once the rows of a sweep are read: RowsMissing if there were too few."""
        before = committed_chunks(sweep, self.ledger)
        return lambda: require_rows(
            sweep, self.plan(sweep), chunks_done=before, ledger=self.ledger, store=self.store
        )

    def feed(self) -> int | None:
        """Run the feeder once, so that a submit is felt at once; workers do it all the time."""
        feeder = Feeder(
            self.ledger,
            BrokerView(self._redis, prefix=self.settings.redis_prefix),
            partial(send_chunk, self._app),
            lost_after_seconds=self.settings.lost_after_seconds,
            turn_seconds=self.settings.turn_seconds,
        )
        try:
            return feeder.round()
        finally:
            feeder.release()

    @cached_property
    def ledger(self) -> Ledger:
        """The live state."""
        return Ledger(self._redis, prefix=self.settings.redis_prefix)

    @cached_property
    def store(self) -> Store:
        """Where results live."""
        return self._store(patience_seconds=self.settings.store_patience_seconds)

    @cached_property
    def identity(self) -> StoreIdentity:
        """Which store that is."""
        return identity_of(self.store)

    def _store(self, *, patience_seconds: float) -> Store:
        return open_store(
            self.settings.store,
            endpoint_url=self.settings.s3_endpoint_url,
            region=self.settings.s3_region,
            checksums=self.settings.s3_checksums,
            max_connections=self.settings.s3_max_connections,
            patience_seconds=patience_seconds,
        )

    @cached_property
    def _redis(self) -> Any:
        return connect(self.settings)

    @cached_property
    def _app(self) -> Any:
        return make_app(self.settings)

    def _editions(self, in_store: bool) -> list[Edition]:
        try:
            return editions(self.ledger.sweep_names().items())
        except BrokerError:
            if in_store:
                return []
            raise

    def _where(self, sweep: str, where: WhereSource | None) -> dict[str, Any]:
        """Return conditions on the rows of a sweep, its labels among them. Raises: UsageError."""
        return read_where(where, self.plan(sweep).label_names) if where else {}

    def _stored(self, text: str, known: Sequence[str]) -> str | None:
        """Return the id of the store's sweep that a text means. Raises: UsageError where it means several."""
        found = find_stored(text, self.store, known=known)
        if len(found) > 1:
            listed = ", ".join(sweep[:12] for sweep in found)
            raise UsageError(
                f"{text!r} means {len(found)} sweeps of the store: {listed}; say more: one of these ids"
            )
        return found[0] if found else None

    def _unknown(self, text: str, in_store: bool) -> str:
        editions = self._editions(in_store=True)
        known = [one.sweep for one in editions]
        ask = partial(find_stored, text, self.store, known=known)
        if not in_store and (found := answer_within(ask, seconds=_QUICK_ANSWER_SECONDS)):
            if len(found) > 1:
                listed = ", ".join(sweep[:12] for sweep in found)
                fix = f"`printroom resume {found[0][:12]}` brings one back"
                return f"{text}: Redis has lost it, the store has {len(found)} sweeps of this name: {listed}; {fix}"
            fix = f"`printroom resume {found[0]}` brings it back"
            return f"{text}: Redis has lost this sweep, the store has it: {fix}"
        hint = near(text, {one.name for one in editions}, otherwise="`printroom status` lists them")
        return f"{text}: no such sweep; {hint}"


def sweep_list(
    statuses: Sequence[SweepStatus],
    *,
    only_in_store: Sequence[StoredSweep] | None = (),
    redis_error: BrokerError | None = None,
) -> SweepList:
    """Return a list of sweeps, each with its number among those of its name.

    Args:
        statuses: oldest first.
    """
    numbered = zip(statuses, editions((s.sweep, s.name) for s in statuses), strict=True)
    return SweepList(
        sweeps=tuple(ListedSweep(status=status, edition=edition) for status, edition in numbered),
        only_in_store=None if only_in_store is None else tuple(only_in_store),
        redis_error=redis_error,
    )


def _conditions(given: WhereSource | None) -> Mapping[str, Any] | Sequence[str] | None:
    """Return conditions as a mapping or as a list of texts: one text alone is a list of one."""
    return [given] if isinstance(given, str) else given


def _then(rows: Iterator[ManifestRow], check: Callable[[], None]) -> Iterator[ManifestRow]:
    yield from rows
    check()
