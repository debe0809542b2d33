"""Datasets out of a store: what each layout holds, that it is read by the libraries it is for, that it is resumable.

Images and manifests are made by hand, as a worker would have made them.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import re
import shlex
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.cli import cli
from producer.export.base import ManifestRow, Tally, bring
from producer.export.card import CardFacts, write_card
from producer.export.fetch import SHARD_BYTES_MIN, FetchOptions, fetch, parse_size
from producer.export.files import replacing
from producer.export.hf import ImageFolderLayout
from producer.export.state import as_runs
from producer.results.rows import manifest_rows
from shared import names
from shared.errors import StoreError, StoreUnavailable, UsageError
from shared.images.format import PNG, parse_format
from shared.job import make_job
from shared.manifest import MANIFEST_SCHEMA, write_manifest
from shared.metadata import image_bytes, read_image
from shared.result import Done, Failed, Provenance, StoredImage
from shared.store.folder import FolderStore

SWEEP = "ab" * 16

MADE_BY = Provenance(
    model_name="tiny|`model`",
    device="cpu",
    dtype="float32",
    batch_rows=4,
    prompt_tokens=2,
    negative_tokens=0,
    versions={"printroom": "0", "torch": "2"},
)

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"

#: The largest seed, and a prompt and a negative with all that a text file or a table may trip over.
SEED_MAX = 2**64 - 1
PROMPTS = ["a face", 'naïve 猫, "quoted"\r\nand a line\n', "  edge\u2028spaces ", "0"]


def grey(job_id: str) -> int:
    """Return the one colour of a job's image."""
    return int(job_id[:2], 16)


class Press:
    """A store, and a worker that is faster than any."""

    def __init__(self, folder: Path, image_format: str = "png") -> None:
        self.store = FolderStore(folder)
        self.image_format = parse_format(image_format)
        self.store.put(names.source_key(SWEEP), b"prompt: a face\n", content_type="application/yaml")

    def work(self, chunk: int, *jobs: dict, failed: tuple[int, ...] = ()) -> None:
        """Do a chunk of four jobs at most; `failed` are positions in it."""
        rows = [
            (self._fail if position in failed else self._make)(
                4 * chunk + position, make_job(**RECIPE | fields)
            )
            for position, fields in enumerate(jobs)
        ]
        manifest = write_manifest(rows, sweep=SWEEP, chunk=chunk)
        self.store.put(names.manifest_key(SWEEP, chunk), manifest, content_type="x")

    def work_all(self, chunks: int = 4, seed: int = 0, **more) -> None:
        """Do chunks of four prompts each, every chunk with its seed."""
        for chunk in range(chunks):
            self.work(chunk, *({"prompt": prompt, "seed": seed + chunk} for prompt in PROMPTS), **more)

    def fetch(self, folder: Path, where=None, on_image=lambda total: None, jobs=None, **options):
        """Fetch with these options."""
        chosen = FetchOptions(**options)
        return fetch(
            SWEEP, self.store, folder, where=where, options=chosen, name="faces", jobs=jobs, on_image=on_image
        )

    def rows(self, **where) -> list[ManifestRow]:
        """Return the rows that have an image."""
        return list(manifest_rows(SWEEP, self.store, where={"status": "done", **where}))

    def _make(self, index, job) -> Done:
        pixels = np.full((job.height, job.width, 3), grey(job.id), dtype=np.uint8)
        data = image_bytes(job, pixels, MADE_BY, self.image_format)
        key = names.image_key(job.id, self.image_format)
        self.store.put(key, data, content_type="image/png")
        digest = hashlib.sha256(data).hexdigest()
        image = StoredImage(key=key, size_bytes=len(data), sha256=digest, provenance=MADE_BY)
        return Done(
            index=index, job=job, image=image, reused=False, sample_seconds=0.1, attempt=1, worker="hand",
            finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    def _fail(self, index, job) -> Failed:
        return Failed(
            index=index, job=job, code="job_crashed", reason="by hand", attempt=1, worker="hand",
            finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip


RECIPE = {
    "prompt": "a face",
    "negative_prompt": None,
    "seed": 0,
    "guidance_scale": 5.0,
    "guidance_rule": None,
    "steps": 4,
    "scheduler": "ddim",
    "width": 16,
    "height": 8,
    "model": "sha:00",
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Nothing here may ask the Hugging Face Hub for anything."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def press(tmp_path):
    """A store of its own with a sweep's file and nothing else."""
    return Press(tmp_path / "store")


@pytest.fixture
def home(tmp_path):
    """Where datasets go: not there yet."""
    return tmp_path / "home"


def files(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder that a listing shows, with their content."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = ((str(path.relative_to(folder)), path) for path in found)
    return {name: path.read_bytes() for name, path in named if not name.startswith(".printroom/")}


def stamps(folder: Path) -> dict[str, int]:
    """Return when each file was written."""
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


def tar_members(path: Path) -> dict[str, bytes]:
    """Return a shard's files."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def json_lines(path: Path) -> list[dict]:
    """Return the values of a JSON lines file: lines end with a line feed and with nothing else."""
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]


def header_of(card: Path) -> dict:
    """Return the YAML of a dataset card."""
    return yaml.safe_load(card.read_text().split("---\n")[1])


class TestFolder:
    """A file an image, a line a job."""

    def test_sidecars(self, press, home):
        """Each image has its prompt and its row beside it, exactly; a second fetch writes none of them again."""
        press.work_all(1)
        press.fetch(home, sidecars=True)
        before = stamps(home / "images")
        assert len(before) == 12
        for row, line in zip(press.rows(), json_lines(home / "metadata.jsonl"), strict=True):
            image = home / line["file_name"]
            assert row["prompt"].encode() == image.with_suffix(".txt").read_bytes()
            assert row == json.loads(image.with_suffix(".json").read_text())
            assert read_image(image.read_bytes()).job.id == row["job_id"]
        assert press.fetch(home, sidecars=True).skipped == 4
        assert before == stamps(home / "images")

    def test_what_is_lost_has_no_file_name(self, press, home):
        """metadata.jsonl names no file that did not come: an image that is lost is as one that failed."""
        press.work(0, {}, {"seed": 1}, {"seed": 2}, failed=(2,))
        press.store.delete(press.rows()[0]["key"])
        done = press.fetch(home)
        assert (done.fetched, done.failed, len(done.broken)) == (1, 1, 1)
        names_ = [line["file_name"] for line in json_lines(home / "metadata.jsonl")]
        assert [None, True, None] == [name and (home / name).is_file() for name in names_]

    @pytest.mark.parametrize(("status", "expected"), [("all", [0, 1, 2]), ("ok", [0, 2]), ("failed", [1])])
    def test_status(self, press, home, status, expected):
        """Jobs may be chosen by what became of them; the failed ones are counted in any case, with their codes."""
        press.work(0, {}, {"seed": 1}, {"seed": 2}, failed=(1,))
        done = press.fetch(home, status=status)
        assert expected == [line["index"] for line in json_lines(home / "metadata.jsonl")]
        assert (done.rows, done.failed, done.failures) == (len(expected), 1, {"job_crashed": 1})


class TestAll:
    """What holds in every layout."""

    @pytest.mark.parametrize("layout", ["folder", "webdataset", "parquet", "hf", "jsonl"])
    def test_failed_on_request(self, press, home, layout):
        """failed.jsonl has the failed jobs with their reasons, where it is asked for and only there."""
        press.work(0, {}, {"seed": 1}, failed=(1,))
        assert press.fetch(home, layout=layout).failures == {"job_crashed": 1}
        assert not (home / "failed.jsonl").exists()
        press.fetch(home, layout=layout, with_failed=True)
        (line,) = json_lines(home / "failed.jsonl")
        assert (line["index"], line["error_code"], line["error"]) == (1, "job_crashed", "by hand")

    @pytest.mark.parametrize("layout", ["folder", "webdataset", "parquet", "hf"])
    def test_only_new_images_are_read(self, press, home, layout):
        """The second fetch of a running sweep reads what is new from the store and nothing else."""
        press.work_all(2)
        assert press.fetch(home, layout=layout).fetched == 8
        press.work_all(3)
        read = []
        get = press.store.get
        press.store.get = lambda key: read.append(key) or get(key)
        done = press.fetch(home, layout=layout)
        assert (done.fetched, done.skipped) == (4, 8)
        assert sorted(key for key in read if key.startswith("images/")) == sorted(
            row["key"] for row in press.rows() if row["index"] >= 8
        )

    @pytest.mark.parametrize("layout", ["folder", "webdataset", "parquet", "hf"])
    def test_a_store_that_fails(self, press, home, layout):
        """A store that goes away ends the fetch with its error; no half file is left, and the next fetch ends well."""
        press.work_all(20)
        get, left = press.store.get, [40]

        def failing(key: str) -> bytes:
            left[0] -= key.startswith("images/")
            if left[0] < 0:
                raise StoreUnavailable("down")
            return get(key)

        press.store.get = failing
        with pytest.raises(StoreUnavailable):
            press.fetch(home, layout=layout, **shard_option(layout, 2000))
        assert list(home.rglob(".*.part")) == []
        press.store.get = get
        done = press.fetch(home, layout=layout, **shard_option(layout, 2000))
        assert done.fetched + done.skipped == 80
        assert done.skipped > 0

    @pytest.mark.parametrize("layout", ["webdataset", "parquet", "hf"])
    def test_interrupted(self, press, home, layout):
        """Ctrl-C leaves whole files only, and lets go of the folder; what was whole is not read again."""
        press.work_all(20)
        count = iter(range(100))

        def interrupt(_: int | None) -> None:
            if next(count) == 60:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            press.fetch(home, layout=layout, on_image=interrupt, **shard_option(layout, 2000))
        assert list(home.rglob(".*.part")) == []
        done = press.fetch(home, layout=layout, **shard_option(layout, 2000))
        assert (done.fetched + done.skipped, done.skipped > 0) == (80, True)

    @pytest.mark.parametrize("layout", ["folder", "webdataset", "parquet", "hf", "jsonl"])
    def test_an_empty_sweep(self, press, home, layout):
        """A sweep of which nothing is done yet is no error."""
        done = press.fetch(home, layout=layout)
        assert (done.fetched, done.rows, done.shards) == (0, 0, 0)

    @pytest.mark.parametrize("layout", ["webdataset", "parquet", "hf"])
    def test_a_folder_is_one_dataset(self, press, home, layout):
        """A folder that holds other jobs, another layout or another sweep is refused before anything is written."""
        press.work_all(1)
        press.fetch(home, where={"seed": 0}, layout=layout)
        before = files(home)
        with pytest.raises(UsageError, match="it holds the jobs with seed=0: choose another folder"):
            press.fetch(home, layout=layout)
        other = "hf" if layout != "hf" else "parquet"
        with pytest.raises(UsageError, match=f"it holds this sweep as {layout}"):
            press.fetch(home, where={"seed": 0}, layout=other)
        with pytest.raises(UsageError, match="it holds sweep abababababab"):
            fetch("cd" * 16, press.store, home, options=FetchOptions(layout=layout))
        assert before == files(home)

    def test_one_fetch_at_a_time(self, press, home):
        """While a folder is being written, a second fetch into it is refused; afterwards it is not."""
        press.work_all(1)

        def again(_: int | None) -> None:
            with pytest.raises(UsageError, match="another fetch is writing it"):
                press.fetch(home, layout="parquet")

        press.fetch(home, layout="parquet", on_image=again)
        assert press.fetch(home, layout="parquet").skipped == 4

    def test_a_record_that_is_damaged(self, press, home):
        """A record nobody can read is an error that names it, never a fresh start over somebody's shards."""
        press.work_all(1)
        press.fetch(home, layout="parquet")
        (home / ".printroom" / "fetch.json").write_text('{"format": 1, "shards": [{}]}')
        with pytest.raises(StoreError, match=r"fetch\.json: cannot be read"):
            press.fetch(home, layout="parquet")

    @pytest.mark.parametrize("layout", ["webdataset", "parquet", "hf"])
    def test_what_the_store_has_lost(self, press, home, layout):
        """Images that are gone or damaged are named and left out; when they are back, the next fetch has them."""
        press.work_all(1)
        first, second = press.rows()[:2]
        whole = press.store.get(first["key"]), press.store.get(second["key"])
        press.store.delete(first["key"])
        press.store.put(second["key"], b"another", content_type="x")
        done = press.fetch(home, layout=layout)
        assert (done.fetched, len(done.broken)) == (2, 2)
        assert f"{first['key']}: gone from {press.store.url}" in done.broken
        assert "lost or damaged in the store | 2 |" in (home / "README.md").read_text()
        for row, data in zip((first, second), whole, strict=True):
            press.store.put(row["key"], data, content_type="x")
        done = press.fetch(home, layout=layout)
        assert (done.fetched, done.skipped, done.broken) == (2, 2, ())


def shard_option(layout: str, size: int) -> dict[str, int]:
    """Return the option that makes small shards, where there are shards."""
    return {"shard_bytes": size} if layout in ("webdataset", "parquet") else {}


class TestWebdataset:
    """Tar shards as img2dataset lays them out."""

    def test_what_a_shard_holds(self, press, home):
        """Image, caption and row of each job, in plan order; a table and figures of the same name beside it."""
        press.work(0, {}, {"prompt": PROMPTS[1]}, {"seed": 9}, failed=(2,))
        press.fetch(home, layout="webdataset")
        assert sorted(files(home)) == [
            "README.md", "sweep-000000.parquet", "sweep-000000.tar", "sweep-000000_stats.json", "sweep.yaml",
        ]  # fmt: skip
        members = tar_members(home / "sweep-000000.tar")
        rows = press.rows()
        keys = [f"{row['index']:08d}-{row['job_id'][:8]}" for row in rows]
        assert [f"{key}.{kind}" for key in keys for kind in ("png", "txt", "json")] == list(members)
        for key, row in zip(keys, rows, strict=True):
            assert members[f"{key}.png"] == press.store.get(row["key"])
            assert members[f"{key}.txt"] == row["prompt"].encode()
            assert json.loads(members[f"{key}.json"]) == row
        table = pq.read_table(home / "sweep-000000.parquet")
        assert table["file_name"].to_pylist() == [f"{key}.png" for key in keys]
        assert table.column_names == ["file_name", *MANIFEST_SCHEMA.names]
        stats = json.loads((home / "sweep-000000_stats.json").read_text())
        assert stats == {"count": 2, "successes": 2, "image_bytes": sum(row["size_bytes"] for row in rows)}

    def test_headers_tell_nothing_of_this_machine(self, press, home, tmp_path):
        """Two fetches of the same rows give the same bytes; the headers hold no clock and no owner."""
        press.work_all(2)
        press.fetch(home, layout="webdataset")
        press.fetch(tmp_path / "other", layout="webdataset")
        assert files(home) == files(tmp_path / "other")
        with tarfile.open(home / "sweep-000000.tar") as tar:
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {
                (0, 0, 0, "", "", 0o644)
            }

    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    def test_the_webdataset_package_reads_it(self, press, home):
        """`webdataset` gives each job once, with its pixels, its prompt and its whole row, over several shards."""
        import webdataset

        press.work_all(4)
        done = press.fetch(home, layout="webdataset", shard_bytes=20_000)
        assert done.shards > 1
        urls = str(home / f"sweep-{{000000..{done.shards - 1:06d}}}.tar")
        dataset = (
            webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png", "txt", "json")
        )
        samples = list(dataset)
        gc.collect()  # the package leaves its files to the collector: let it complain here and nowhere else
        assert [row for *_, row in samples] == press.rows()
        assert [text for _, text, _ in samples] == 4 * PROMPTS
        assert [(8, 16, 3, grey(row["job_id"])) for row in press.rows()] == [
            (*pixels.shape, pixels[0, 0, 0]) for pixels, *_ in samples
        ]

    def test_datasets_reads_it_by_its_card(self, press, home, tmp_path):
        """`datasets` finds the shards by the card, and has the right types where the first samples have nulls only."""
        press.work(0, *({"seed": n} for n in range(4)))
        press.work(1, *({"negative_prompt": text} for text in ("hat", "", None)))
        press.fetch(home, layout="webdataset", shard_bytes=10_000)
        loaded = load(home, tmp_path)
        assert list(loaded["json"]) == press.rows()
        assert (loaded[5]["png"].size, loaded[5]["txt"]) == ((16, 8), "a face")


class TestShards:
    """Shards are added, never changed."""

    @pytest.mark.parametrize(("layout", "pattern"), [("webdataset", "*.tar"), ("parquet", "data/*.parquet")])
    def test_a_running_sweep(self, press, home, layout, pattern):
        """Each fetch adds shards with what is new; those that are whole are not touched, and no job is in two."""
        seen: dict[str, int] = {}
        for chunks in (2, 3, 3, 4):
            press.work_all(chunks)
            done = press.fetch(home, layout=layout, shard_bytes=20_000)
            shards = {str(path.relative_to(home)): path.stat().st_mtime_ns for path in home.glob(pattern)}
            assert seen.items() <= shards.items()
            seen = shards
        assert (done.fetched, done.skipped, done.shards) == (4, 12, len(seen))
        assert sorted(indices_of(home, layout)) == list(range(16))

    def test_a_job_that_failed_at_first(self, press, home):
        """A job that was rendered after a retry is added at the end: shards are in plan order each, not together."""
        press.work(0, {}, {"seed": 1}, {"seed": 2}, failed=(1,))
        press.fetch(home, layout="parquet")
        press.work(0, {}, {"seed": 1}, {"seed": 2})
        assert press.fetch(home, layout="parquet").fetched == 1
        assert indices_of(home, "parquet") == [0, 2, 1]

    @pytest.mark.parametrize("layout", ["webdataset", "parquet"])
    def test_a_damaged_shard_is_made_again(self, press, home, layout):
        """A shard that is cut short, changed or gone is fetched again under its own name; the others stay."""
        press.work_all(16)
        done = press.fetch(home, layout=layout, shard_bytes=10_000)
        assert done.shards >= 4
        before = {name: data for name, data in files(home).items() if name.endswith((".tar", ".parquet"))}
        shards = [name for name in before if name.endswith(".tar") or layout == "parquet"]
        (home / shards[0]).write_bytes(before[shards[0]][:-1])
        (home / shards[1]).write_bytes(before[shards[1]][:-1] + b"x")
        (home / shards[2]).unlink()
        again = press.fetch(home, layout=layout, shard_bytes=10_000)
        assert (again.shards, again.fetched + again.skipped) == (done.shards, 64)
        assert 0 < again.fetched < 64
        assert before == {name: files(home)[name] for name in before}

    def test_a_damaged_shard_that_cannot_be_made_again(self, press, home):
        """What is left of a damaged shard is taken away, also where the store has lost the images: nobody reads it."""
        press.work_all(1)
        press.fetch(home, layout="webdataset")
        (home / "sweep-000000.tar").write_bytes(b"half")
        for row in press.rows():
            press.store.delete(row["key"])
        assert len(press.fetch(home, layout="webdataset").broken) == 4
        assert list(home.glob("sweep-*")) == []

    def test_size(self, press, home):
        """Every shard but the last has the size asked for, and less than a sample more."""
        press.work_all(8)
        press.fetch(home, layout="webdataset", shard_bytes=20_000)
        *full, last = [path.stat().st_size for path in sorted(home.glob("*.tar"))]
        # The end of a tar is two empty blocks, filled up to a record of 10,240 bytes.
        assert {20_000 <= size < 20_000 + 6 * 1024 + 10_240 for size in full} == {True}
        assert last > 0

    def test_the_same_image_twice(self, press, home):
        """Jobs that ask for the same image are a sample each, as they are a job each."""
        press.work(0, {}, {}, {})
        press.fetch(home, layout="webdataset")
        assert len(tar_members(home / "sweep-000000.tar")) == 9

    @given(st.lists(st.integers(0, 200), unique=True).map(sorted))
    def test_runs_are_the_indices(self, indices):
        """Runs hold exactly the indices they were made of, in their order."""
        assert [index for run in as_runs(indices) for index in run] == indices

    def test_a_stride_is_one_run(self):
        """What a filter leaves of a plan takes one run, however long it is."""
        assert as_runs(range(3, 3000, 7)) == (range(3, 2999 + 1, 7),)


def indices_of(home: Path, layout: str) -> list[int]:
    """Return the plan indices in shards, in order."""
    pattern = "sweep-*.parquet" if layout == "webdataset" else "data/*.parquet"
    return [
        index
        for path in sorted(home.glob(pattern))
        for index in pq.read_table(path, columns=["index"])["index"].to_pylist()
    ]


def load(home: Path, tmp_path: Path, *arguments: str, **options):
    """Load a dataset's `train` with `datasets`, its cache kept in the test's own folder."""
    import datasets

    datasets.disable_progress_bars()
    words = arguments or (str(home),)
    return datasets.load_dataset(*words, split="train", cache_dir=str(tmp_path / "cache"), **options)


def plain(row: ManifestRow) -> ManifestRow:
    """Return a manifest's row as a table has it."""
    return {
        **row,
        "versions": json.dumps(row["versions"]),
        "finished_at": datetime.fromisoformat(row["finished_at"]),
    }


class TestParquet:
    """Shards with the images in them."""

    @pytest.mark.parametrize("by", ["card", "files"])
    def test_datasets_reads_it(self, press, home, tmp_path, by):
        """`load_dataset` decodes the images and has every column with its type, with the card and without it."""
        press.work_all(2, seed=SEED_MAX - 1)
        press.work(2, {"negative_prompt": "hat"}, {"negative_prompt": ""})
        press.fetch(home, layout="parquet", card=by == "card")
        if by == "card":
            loaded = load(home, tmp_path)
        else:
            loaded = load(home, tmp_path, "parquet", data_files=str(home / "data" / "*.parquet"))
        assert (home / "README.md").exists() == (by == "card")
        assert [plain(row) for row in press.rows()] == loaded.remove_columns("image").to_list()
        assert [grey(row["job_id"]) for row in press.rows()] == [
            image.getpixel((0, 0))[0] for image in loaded["image"]
        ]
        assert loaded.features["seed"].dtype == "uint64"

    def test_the_files_are_exact(self, press, home):
        """The bytes in the table are the image's file, and the path says what it is called."""
        press.work_all(1)
        press.fetch(home, layout="parquet")
        table = pq.read_table(home / "data" / "train-00000.parquet")
        assert [press.store.get(row["key"]) for row in press.rows()] == [
            image["bytes"] for image in table["image"].to_pylist()
        ]
        assert table["image"][0].as_py()["path"] == f"00000000-{press.rows()[0]['job_id'][:8]}.png"

    def test_row_groups_are_small(self, press, home):
        """One image is read without hundreds of others."""
        press.work_all(60)
        press.fetch(home, layout="parquet")
        file = pq.ParquetFile(home / "data" / "train-00000.parquet")
        assert [100, 100, 40] == [
            file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)
        ]


class TestHf:
    """An image folder with its table."""

    @pytest.mark.parametrize("by", ["card", "imagefolder"])
    def test_datasets_reads_it(self, press, home, tmp_path, by):
        """`load_dataset` finds every image by the table, in plan order, with exact columns."""
        press.work_all(2)
        press.work(2, {"negative_prompt": "hat"}, {"seed": 1}, {"seed": 2}, failed=(2,))
        press.fetch(home, layout="hf", card=by == "card")
        loaded = (
            load(home, tmp_path) if by == "card" else load(home, tmp_path, "imagefolder", data_dir=str(home))
        )
        assert [plain(row) for row in press.rows()] == loaded.remove_columns("image").to_list()
        assert [grey(row["job_id"]) for row in press.rows()] == [
            image.getpixel((0, 0))[0] for image in loaded["image"]
        ]

    def test_the_same_image_many_times(self, press, home, tmp_path):
        """Jobs that ask for the same image share its file, and have a line each."""
        for chunk in range(16):
            press.work(chunk, *[{}] * 4)
        done = press.fetch(home, layout="hf")
        assert (done.rows, done.broken) == (64, ())
        assert [path.suffix for path in (home / "train").rglob("*") if path.is_file()].count(".png") == 1
        assert len(load(home, tmp_path)) == 64

    def test_two_jobs_write_the_same_image_at_once(self, press, home, monkeypatch):
        """Another job's thread that writes the same file in the middle of this one's does no harm."""
        press.work(0, {}, {})
        first, second = press.rows()
        data = press.store.get(first["key"])
        layout, replace = ImageFolderLayout(home), Path.replace

        def meanwhile(path, target):
            monkeypatch.setattr(Path, "replace", replace)
            layout.place(second, data)
            return path.replace(target)

        monkeypatch.setattr(Path, "replace", meanwhile)
        layout.place(first, data)
        assert [data] == [path.read_bytes() for path in home.rglob("*.*")]

    def test_the_largest_seeds(self, press, home):
        """A seed that `datasets` cannot read from an image folder is refused, with the layout that can hold it."""
        press.work(0, {"seed": 2**63 - 1})
        assert press.fetch(home, layout="hf").fetched == 1
        press.work(0, {"seed": 2**63})
        with pytest.raises(UsageError, match=r"seed=9223372036854775808: .* use --format parquet"):
            press.fetch(home, layout="hf")

    @pytest.mark.parametrize("image_format", ["webp", "webp:90", "jpeg:95"])
    def test_other_formats(self, home, tmp_path, image_format):
        """Images of other formats are loaded as well."""
        press = Press(tmp_path / "store", image_format)
        press.work_all(1)
        press.fetch(home, layout="hf")
        loaded = load(home, tmp_path)
        assert [image.size for image in loaded["image"]] == [(16, 8)] * 4


class TestJsonl:
    """Rows and no images."""

    def test_rows(self, press, home):
        """Every row so far, as `printroom results --json` prints it; no image is read."""
        press.work(0, {}, {"prompt": PROMPTS[2]}, {"seed": 2}, failed=(2,))
        rows = list(manifest_rows(SWEEP, press.store))
        read = []
        get = press.store.get
        press.store.get = lambda key: read.append(key) or get(key)
        done = press.fetch(home, layout="jsonl")
        assert rows == json_lines(home / "results.jsonl")
        assert (done.rows, done.fetched, done.failed) == (3, 0, 1)
        assert [key for key in read if key.startswith("images/")] == []

    def test_urls(self, press, home):
        """On request each line with an image has a URL that reads it."""
        press.work(0, {}, {"seed": 1}, failed=(1,))
        press.fetch(home, layout="jsonl", url_seconds=60)
        first, second = json_lines(home / "results.jsonl")
        assert Path(first["url"].removeprefix("file://")).read_bytes() == press.store.get(first["key"])
        assert second["url"] is None


class TestCard:
    """README.md of a dataset."""

    def test_what_it_tells(self, press, home):
        """Counts, failures, recipe, models, versions, columns, and what loads it."""
        press.work_all(2, failed=(1,))
        press.fetch(home, layout="parquet", jobs=16)
        text = (home / "README.md").read_text()
        size = sum(row["size_bytes"] for row in press.rows())
        for said in (
            "# faces",
            f"| sweep | `{SWEEP}` |",
            "| jobs of the sweep | 16 |",
            f"| images | 6, {size:,} bytes |",
            "| failed: `job_crashed` | 2 |",
            "```yaml\nprompt: a face\n```",
            "`tiny¦'model'` (`sha:00`)",
            "- torch: 2",
            "- sizes, pixels: 16 x 8",
            "| `negative_prompt` | ",
        ):
            assert said in text
        header = header_of(home / "README.md")
        assert header["dataset_info"]["splits"] == [{"name": "train", "num_bytes": size, "num_examples": 6}]
        assert header["size_categories"] == ["n<1K"]
        assert "license" not in header

    def test_what_a_person_wrote_stays(self, press, home):
        """A later fetch brings counts up to date and leaves the licence and the owner's words as they are."""
        press.work_all(1)
        press.fetch(home, layout="parquet")
        card = home / "README.md"
        text = card.read_text()
        text = text.replace("---\n", "---\nlicense: cc0-1.0\n", 1).replace(
            "# faces", "# My faces\n\nwith words"
        )
        card.write_text(text + "\nThe end.\n")
        press.work_all(2)
        press.fetch(home, layout="parquet")
        text, header = card.read_text(), header_of(card)
        assert (header["license"], header["dataset_info"]["splits"][0]["num_examples"]) == ("cc0-1.0", 8)
        assert "# My faces\n\nwith words" in text
        assert text.endswith("\nThe end.\n")
        assert text.count("## Recipe") == 1

    def test_a_second_fetch_changes_nothing(self, press, home):
        """Where nothing is new, the card stays as it is, byte for byte."""
        press.work_all(1)
        press.fetch(home, layout="hf")
        before = stamps(home)["README.md"]
        press.fetch(home, layout="hf")
        assert before == stamps(home)["README.md"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (("<!-- /printroom -->", ""), "its marks .* are gone"),
            (("---\n", "---\n- {\n"), "its header is not YAML"),
        ],
    )
    def test_a_card_that_cannot_be_mended(self, press, home, change, said):
        """A card without marks or with a broken header is left alone, with an error; --no-card goes on."""
        press.work_all(1)
        press.fetch(home, layout="parquet")
        card = home / "README.md"
        card.write_text(card.read_text().replace(*change))
        before = card.read_bytes()
        with pytest.raises(UsageError, match=said):
            press.fetch(home, layout="parquet")
        assert press.fetch(home, layout="parquet", card=False).skipped == 4
        assert before == card.read_bytes()

    def test_a_recipe_with_fences_and_marks(self, press, home):
        """A sweep's file that holds a fence, or our own mark, neither ends the block nor the part that is ours."""
        source = "prompt: '```` <!-- /printroom --> ---'\n"
        press.store.put(names.source_key(SWEEP), source.encode(), content_type="x")
        press.work_all(1)
        for _ in range(2):
            press.fetch(home, layout="parquet")
        text = (home / "README.md").read_text()
        assert f"`````yaml\n{source}`````" in text
        assert text.count("## Columns") == 1

    def test_a_long_recipe_is_not_repeated(self, press, home):
        """A sweep file of a hundred thousand prompts stands beside the card, not in it."""
        press.store.put(names.source_key(SWEEP), b"prompt: " + b"a" * 30_000, content_type="x")
        press.work_all(1)
        press.fetch(home, layout="parquet")
        assert "The sweep's file is `sweep.yaml`, beside this card." in (home / "README.md").read_text()
        assert len((home / "sweep.yaml").read_bytes()) == 30_008


class TestOptions:
    """What cannot be done is refused with what can."""

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"layout": "zip"}, "'zip': use folder, webdataset, parquet, hf, jsonl"),
            ({"status": "done"}, "'done': use all, ok, failed"),
            ({"layout": "hf", "sidecars": True}, "--sidecars goes with --format folder"),
            ({"layout": "hf", "shard_bytes": 1}, "--shard-size goes with --format webdataset or parquet"),
            ({"url_seconds": 1}, "--urls goes with --format jsonl"),
            ({"url_seconds": "1h", "layout": "jsonl"}, "url_seconds='1h': use a whole number, or None"),
            ({"shard_bytes": 1e9, "layout": "parquet"}, "shard_bytes=1000000000.0: use a whole number"),
            ({"url_seconds": 0, "layout": "jsonl"}, "url_seconds=0: use a whole number, 1 to 604800"),
            ({"url_seconds": 604_801, "layout": "jsonl"}, "url_seconds=604801: use"),
            ({"layout": "parquet", "status": "failed"}, "no image to put into parquet"),
        ],
    )
    def test_refused(self, options, said):
        """An option that a layout would ignore is an error."""
        with pytest.raises(UsageError, match=said):
            FetchOptions(**options)

    @pytest.mark.parametrize(
        ("text", "size"),
        [("1GB", 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("2000000", 2_000_000)],
    )
    def test_sizes(self, text, size):
        """A size has a unit or is in bytes."""
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "GB", "1 TB", "-1GB", "1e9", str(SHARD_BYTES_MIN - 1), "1"])
    def test_wrong_sizes(self, text):
        """What is no size, or too small to be meant, is an error with examples."""
        with pytest.raises(UsageError, match="such as 500MB, 1GB or 256MiB"):
            parse_size(text)


#: Prompts as people write them and as nobody does; NUL and lone surrogates no job may have.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
jobs = st.fixed_dictionaries(
    {"prompt": texts, "negative_prompt": st.none() | texts, "seed": st.integers(0, SEED_MAX)}
)


@settings(max_examples=15, deadline=None)
@given(st.lists(jobs, min_size=1, max_size=4, unique_by=lambda job: json.dumps(job)))
def test_any_text_comes_home(wanted):
    """Whatever a prompt or a negative holds, each layout gives it back exactly, null apart from empty."""
    with tempfile.TemporaryDirectory() as folder:
        press = Press(Path(folder) / "store")
        press.work(0, *wanted)
        rows = press.rows()
        assert [job["prompt"] for job in wanted] == [row["prompt"] for row in rows]
        for layout in ("folder", "webdataset", "parquet", "jsonl"):
            assert press.fetch(Path(folder) / layout, layout=layout).broken == ()
        lines = json_lines(Path(folder) / "folder" / "metadata.jsonl")
        assert rows == [{name: line[name] for name in line if name != "file_name"} for line in lines]
        assert rows == json_lines(Path(folder) / "jsonl" / "results.jsonl")
        members = tar_members(Path(folder) / "webdataset" / "sweep-000000.tar")
        assert rows == [json.loads(data) for name, data in members.items() if name.endswith(".json")]
        assert [row["prompt"].encode() for row in rows] == [
            data for name, data in members.items() if name.endswith(".txt")
        ]
        table = pq.read_table(Path(folder) / "parquet" / "data" / "train-00000.parquet")
        assert [plain(row) for row in rows] == table.drop_columns(["image"]).to_pylist()


@settings(max_examples=50, deadline=None)
@given(name=texts, source=texts, owner=texts, model=texts)
def test_any_text_stands_in_a_card(name, source, owner, model):
    """Whatever the sweep, the model and the owner say, a card is read again, keeps the owner's words and settles."""
    facts = CardFacts(sweep=SWEEP, name=name, layout="parquet", where=(), jobs=1, source=source)
    tally = Tally(models={(model, "sha:00")}, versions={"torch": {model}})
    with tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / "README.md"
        write_card(card, facts, tally)
        assert header_of(card)["pretty_name"] == name
        card.write_bytes(card.read_bytes() + owner.encode())
        for _ in range(2):
            write_card(card, facts, tally)
            assert card.read_bytes().decode().count("## Columns") == 1 + source.count("## Columns")
            assert card.read_bytes().endswith(f"<!-- /printroom -->\n{owner}".encode())


def test_few_images_are_in_memory(press):
    """However slowly a layout writes, no more than a few rows are read ahead of it."""
    press.work_all(40)
    read = []
    get = press.store.get
    press.store.get = lambda key: read.append(key) or get(key)

    class Slow:
        def has(self, row):
            return False

        def place(self, row, data):
            pass

    brought = bring(iter(press.rows()), Slow(), press.store, Tally(), lambda: None)
    assert next(brought).row["index"] == 0
    brought.close()
    assert len([key for key in read if key.startswith("images/")]) <= 40


def test_a_file_is_whole_or_not_there(tmp_path):
    """An error midway leaves what was there; a full disk or a folder in the way is an error that names the file."""
    path = tmp_path / "a" / "file"
    with replacing(path) as file:
        file.write(b"old")
    with contextlib.suppress(RuntimeError), replacing(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"
    with pytest.raises(StoreError, match="a: "), replacing(tmp_path / "a"):
        pass


def test_formats_and_types_match_arrow(press, home):
    """The features in the schema are those `datasets` itself would write."""
    import datasets

    press.work_all(1)
    press.fetch(home, layout="parquet")
    schema = pq.read_schema(home / "data" / "train-00000.parquet")
    marked = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    features = datasets.Features.from_dict(marked)
    assert features.arrow_schema.names == schema.names
    for field in features.arrow_schema:
        assert field.type == schema.field(field.name).type or pa.types.is_struct(field.type)
    assert PNG.kind == "png"


def test_the_record_says_which_jobs_are_where(press, home):
    """.printroom/fetch.json has each shard with its size, its sha256 and its jobs."""
    press.work_all(2)
    press.fetch(home, layout="webdataset")
    (shard,) = json.loads((home / ".printroom" / "fetch.json").read_text())["shards"]
    data = (home / "sweep-000000.tar").read_bytes()
    assert (shard["size_bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert (shard["runs"], shard["file_name"]) == ([[0, 8, 1]], "sweep-000000.tar")


class FakeClient:
    """What the verb needs of the client: a store with one sweep in it."""

    def __init__(self, press: Press) -> None:
        self._press = press

    def fetch(self, sweep, folder, *, where, options, on_image):
        """Fetch the one sweep."""
        return fetch(
            SWEEP, self._press.store, folder, where=where, options=options, jobs=16, on_image=on_image
        )


@pytest.fixture
def printroom(press, monkeypatch, tmp_path):
    """A function that runs a verb in an empty folder, on the store of the test; returns its exit status."""
    monkeypatch.setattr("producer.cli._client", lambda: FakeClient(press))
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.main(list(words), standalone_mode=False)


class TestVerb:
    """`printroom fetch`."""

    def test_what_it_says(self, press, printroom, capsys):
        """The folder on stdout, figures and reasons on stderr; exit status 1 where the store has lost an image."""
        press.work_all(2, failed=(1,))
        assert printroom("fetch", "faces", "home", "--format", "parquet") == 0
        said = capsys.readouterr()
        assert said.out == "home\n"
        assert said.err == (
            "8 jobs: 6 images fetched, 0 there already, 2 failed\n1 shard\nfailed job_crashed: 2\n"
        )
        press.store.delete(press.rows()[0]["key"])
        assert printroom("fetch", "faces", "other", "--format", "hf") == 1
        assert f"{press.rows()[0]['key']}: gone from" in capsys.readouterr().err

    def test_json(self, press, printroom, capsys):
        """--json prints the figures as one document."""
        press.work_all(2, failed=(1,))
        assert printroom("fetch", "faces", "home", "--format", "webdataset", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {
            "folder": "home", "fetched": 6, "skipped": 0, "failed": 2, "failures": {"job_crashed": 2},
            "broken": [], "rows": 8, "shards": 1,
        }  # fmt: skip

    def test_a_wrong_format(self, printroom):
        """A format there is none of names those there are, before anything is asked of the store."""
        with pytest.raises(UsageError, match="'zip': use folder, webdataset"):
            printroom("fetch", "faces", "home", "--format", "zip")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_is_so(press, printroom, monkeypatch, tmp_path, capsys):
    """Every fetch that docs/datasets.md shows works, and so do its Python blocks on what they brought home."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    pairs = [{"negative_prompt": negative} for negative in (None, "glasses")]
    for seed in range(4):
        press.work(seed, *({"prompt": text, "seed": seed, **pair} for text in PROMPTS[:2] for pair in pairs))
    text = PAGE.read_text()
    lines = re.findall(r"^printroom (fetch .+)$", text, re.MULTILINE)
    assert len(lines) == 10
    for line in lines:
        assert printroom(*shlex.split(line)) == 0
    capsys.readouterr()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    said = []
    for block in blocks:
        exec(compile(block, "docs/datasets.md", "exec"), {})
        said.append(capsys.readouterr().out.splitlines())
    gc.collect()
    pairs_, batches, samples = said
    assert pairs_ == ["8 (0, 1, 'a face', 'glasses')"]
    assert [line.partition(")")[0] for line in batches] == ["torch.Size([4, 3, 8, 16]"] * 4
    assert sum("torch.Size([3, 8, 16])" in line for line in samples) == 16
