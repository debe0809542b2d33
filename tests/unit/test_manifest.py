"""Manifests: exact to us, plain tables to everybody else."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args, get_type_hints

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.results.manifest_row import DoneRow, FailedRow
from shared.images.format import parse_format
from shared.job import Job, make_job
from shared.manifest import MANIFEST_SCHEMA, manifest_docs, read_columns, read_manifest, write_manifest
from shared.names import IMAGE_KEY_PATTERN, image_key, shard_key
from shared.result import Done, Failed, Provenance, Result, StoredImage

DOCS = Path(__file__).parents[2] / "docs" / "manifest.md"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
moments = st.integers(0, 2**52).map(lambda us: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us))

jobs: st.SearchStrategy[Job] = st.builds(
    make_job,
    prompt=texts,
    negative_prompt=st.none() | texts,
    seed=uint64,
    guidance_scale=st.floats(allow_nan=False, allow_infinity=False),
    guidance_rule=st.none() | texts,
    steps=uint32,
    scheduler=texts,
    width=uint32,
    height=uint32,
    model=texts,
)
provenances = st.builds(
    Provenance,
    model_name=texts,
    device=texts,
    dtype=texts,
    batch_rows=uint32,
    prompt_tokens=uint32,
    negative_tokens=uint32,
    versions=st.dictionaries(texts, texts, max_size=3),
)
common: dict[str, Any] = {
    "index": uint64,
    "job": jobs,
    "attempt": uint32,
    "worker": texts,
    "finished_at": moments,
}
done = st.builds(
    Done,
    image=st.builds(
        StoredImage,
        key=st.from_regex(f"(?:{IMAGE_KEY_PATTERN})", fullmatch=True),
        size_bytes=uint64,
        sha256=st.from_regex("[0-9a-f]{64}", fullmatch=True),
        provenance=provenances,
        offset=st.none() | uint64,
    ),
    reused=st.booleans(),
    sample_seconds=st.none() | st.floats(allow_nan=False),
    **common,
)
failed = st.builds(Failed, code=texts, reason=texts, **common)


def _job(**fields: Any) -> Job:
    recipe: dict[str, Any] = {
        "prompt": "a cat",
        "negative_prompt": None,
        "seed": 2**64 - 1,
        "guidance_scale": 7.5,
        "steps": 20,
        "scheduler": "euler",
        "width": 512,
        "height": 512,
        "model": "sha:00",
    }
    return make_job(**{**recipe, **fields})


def _rows(count: int = 3) -> list[Result]:
    provenance = Provenance(
        model_name="sd",
        device="cpu",
        dtype="float32",
        batch_rows=4,
        prompt_tokens=2,
        negative_tokens=0,
        versions={"torch": "2.9.1", "printroom": "0.1.0"},
    )
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    rows: list[Result] = [
        Done(
            index=number,
            job=_job(seed=2**64 - 1 - number, negative_prompt=[None, "", "blurry"][number % 3]),
            image=StoredImage(
                key=image_key(f"{number:032x}"), size_bytes=10, sha256="0" * 64, provenance=provenance
            ),
            reused=False,
            sample_seconds=0.25,
            attempt=1,
            worker="one",
            finished_at=moment,
        )
        for number in range(count)
    ]
    job = _job(steps=999)
    failure = Failed(
        index=count,
        job=job,
        code="image_not_finite",
        reason="NaN",
        attempt=2,
        worker="two",
        finished_at=moment,
    )
    return [*rows, failure]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two chunks' manifests."""
    for chunk in range(2):
        data = write_manifest(_rows(), sweep="s1", chunk=chunk)
        (tmp_path / f"{chunk:09d}.parquet").write_bytes(data)
    return tmp_path


@settings(max_examples=60, deadline=None)
@given(st.lists(done | failed, max_size=4))
def test_round_trip(rows: list[Result]) -> None:
    """What is read is what was written, in order: null and "" apart, 64-bit seeds, every text."""
    assert read_manifest(write_manifest(rows, sweep="s", chunk=7)) == rows


def test_same_rows_same_bytes() -> None:
    """A chunk committed twice leaves the same manifest."""
    assert write_manifest(_rows(), sweep="s", chunk=1) == write_manifest(_rows(), sweep="s", chunk=1)


def test_time_of_another_zone_is_the_same_moment() -> None:
    """A worker's local time is stored as the moment it is; one without a zone is refused."""
    (row,) = _rows(0)
    zone = timezone(timedelta(hours=5))
    local = Failed(
        index=row.index,
        job=row.job,
        code="error",
        reason="",
        attempt=1,
        worker="w",
        finished_at=row.finished_at.astimezone(zone),
    )
    (found,) = read_manifest(write_manifest([local], sweep="s", chunk=1))
    assert (found.finished_at, found.finished_at.tzinfo) == (row.finished_at, UTC)
    naive = Failed(
        index=0,
        job=row.job,
        code="",
        reason="",
        attempt=1,
        worker="",
        finished_at=row.finished_at.replace(tzinfo=None),
    )
    with pytest.raises(ValueError, match="timezone"):
        write_manifest([naive], sweep="s", chunk=1)


def test_schema_in_the_file_is_the_schema() -> None:
    """The file holds exactly our columns, types and null rules, each with its description, and the format."""
    found = pq.read_schema(_as_file(write_manifest(_rows(), sweep="s", chunk=1)))
    assert found.equals(MANIFEST_SCHEMA, check_metadata=False)
    assert found.metadata[b"printroom.manifest_format"] == b"3"
    assert all(found.field(column.name).metadata[b"description"] for column in MANIFEST_SCHEMA)


def test_a_file_of_before_a_column_came_is_read() -> None:
    """A manifest without the columns that were added later has null there; its rows are as they were."""
    import pyarrow

    rows = _rows()
    table = pq.read_table(_as_file(write_manifest(rows, sweep="s", chunk=1)))
    sink = pyarrow.BufferOutputStream()
    pq.write_table(table.drop_columns(["digital_source_type", "labels"]), sink)
    older = sink.getvalue().to_pybytes()
    assert [row.job for row in read_manifest(older)] == [row.job for row in rows]
    assert read_columns(older, ["index", "labels"])["labels"].null_count == len(rows)


def _as_file(data: bytes) -> Any:
    import pyarrow

    return pyarrow.BufferReader(data)


def test_every_field_of_the_job_has_its_column() -> None:
    """Nothing of the recipe is left out."""
    assert set(_job().recipe()) <= set(MANIFEST_SCHEMA.names)


def test_read_columns() -> None:
    """Single columns are read without the others, and an unknown one is named."""
    data = write_manifest(_rows(), sweep="s1", chunk=9)
    assert read_columns(data, ["index", "chunk", "status"]).to_pydict() == {
        "index": [0, 1, 2, 3],
        "chunk": [9] * 4,
        "status": ["done"] * 3 + ["failed"],
    }
    with pytest.raises(ValueError, match="manifest column colour"):
        read_columns(data, ["colour"])


def test_damage_is_found() -> None:
    """A manifest cut anywhere, or with bytes changed in its data pages, is refused."""
    data = write_manifest(_rows(), sweep="s", chunk=1)
    for length in (0, 3, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="not a whole manifest"):
            read_manifest(data[:length])
    # Short pages are stored as they are: the text stands in the file, and zstd alone would not notice.
    damaged = bytearray(data)
    damaged[data.index(b"image_not_finite")] ^= 1
    with pytest.raises(ValueError, match="not a whole manifest"):
        read_manifest(bytes(damaged))


def test_other_parquet_files_are_refused() -> None:
    """A Parquet file of another program, or of another format of ours, is no manifest."""
    import pyarrow

    for metadata in (None, {"printroom.manifest_format": "1"}):
        sink = pyarrow.BufferOutputStream()
        pq.write_table(pyarrow.table({"index": [1]}).replace_schema_metadata(metadata), sink)
        with pytest.raises(ValueError, match="manifest format"):
            read_manifest(sink.getvalue().to_pybytes())


def test_a_manifest_of_format_2_is_read() -> None:
    """Manifests from before there were shards give the same rows: their images are objects."""
    import pyarrow

    table = pq.read_table(_as_file(write_manifest(_rows(), sweep="s", chunk=1))).drop_columns(["offset"])
    sink = pyarrow.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"printroom.manifest_format": "2"}), sink)
    old = sink.getvalue().to_pybytes()
    assert read_manifest(old) == _rows()
    assert read_columns(old, ["offset", "index"]).to_pydict() == {"offset": [None] * 4, "index": [0, 1, 2, 3]}
    unnamed = pyarrow.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"printroom.manifest_format": "3"}), unnamed)
    with pytest.raises(ValueError, match="manifest column offset: missing"):
        read_manifest(unnamed.getvalue().to_pybytes())


def test_number_out_of_range_is_refused() -> None:
    """A number that its column cannot hold is an error of ours, not pyarrow's, and nothing is written."""
    for chunk in (-1, 2**32):
        with pytest.raises(ValueError, match="manifest of sweep s"):
            write_manifest(_rows(), sweep="s", chunk=chunk)


def test_duckdb_opens_a_folder(folder: Path) -> None:
    """DuckDB's one line of docs/manifest.md works, and keeps 64-bit seeds and null prompts."""
    line = "SELECT status, count(*) FROM 'manifest/*.parquet' GROUP BY status ORDER BY status"
    assert line in DOCS.read_text()
    line = line.replace("manifest/", f"{folder}/")
    assert duckdb.sql(line).fetchall() == [("done", 6), ("failed", 2)]
    query = f"SELECT seed, negative_prompt, versions['torch'] FROM '{folder}/*.parquet' WHERE chunk = 1 ORDER BY index"
    assert duckdb.sql(query).fetchall()[:2] == [(2**64 - 1, None, "2.9.1"), (2**64 - 2, "", "2.9.1")]


def test_polars_opens_a_folder(folder: Path) -> None:
    """Polars' one line of docs/manifest.md works, and keeps 64-bit seeds, null prompts and moments."""
    line = 'polars.read_parquet("manifest/*.parquet").group_by("status").len().sort("status")'
    assert line in DOCS.read_text()
    table = polars.read_parquet(f"{folder}/*.parquet")
    assert table.group_by("status").len().sort("status").rows() == [("done", 6), ("failed", 2)]
    row = table.filter((polars.col("chunk") == 1) & (polars.col("index") == 1)).to_dicts()[0]
    assert (row["seed"], row["negative_prompt"]) == (2**64 - 2, "")
    assert row["finished_at"] == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_docs_are_current() -> None:
    """docs/manifest.md holds the table that `python -m shared.manifest` prints."""
    text = DOCS.read_text()
    between = text.split("<!-- columns -->\n")[1].split("<!-- /columns -->")[0]
    assert between.strip() == manifest_docs().strip()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("job_id", "../../x"),
        ("job_id", "0" * 31),
        ("job_id", "0" * 32 + "\n"),
        ("key", "images/../../etc/passwd"),
        ("key", "sweeps/" + "0" * 32 + "/sweep.yaml"),
        ("key", "/images/00/" + "0" * 32 + ".png"),
        ("sha256", "abc"),
        ("status", "perhaps"),
    ],
)
def test_a_row_that_names_what_is_not_ours_is_refused(column: str, value: str) -> None:
    """Paths and keys are made of these columns: whoever can write to the store could name any file by them."""
    table = pq.read_table(pa.BufferReader(write_manifest(_rows(), sweep="s", chunk=1)))
    position = table.column_names.index(column)
    values = [value, *table.column(column).to_pylist()[1:]]
    field = table.schema.field(column)
    changed = table.set_column(position, field, pa.array(values, field.type))
    sink = pa.BufferOutputStream()
    pq.write_table(changed, sink)
    with pytest.raises(ValueError, match=f"{column} .* is none of Printroom's"):
        read_columns(sink.getvalue().to_pybytes(), [column])


def test_every_key_of_ours_is_known() -> None:
    """Images and shards of every format have keys that a row may name."""
    for image_format in map(parse_format, ("png", "webp", "jxl", "webp:90", "jpeg:95")):
        for key in (image_key("0" * 32, image_format), shard_key("0" * 32, 7, "f" * 64, image_format)):
            assert re.fullmatch(IMAGE_KEY_PATTERN, key), key


def test_a_manifest_that_opens_to_too_much_is_refused_unread() -> None:
    """A small file can hold a billion equal rows."""
    sink = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(write_manifest(_rows()[:1], sweep="s", chunk=1)))
    pq.write_table(pa.concat_tables([table] * 100_001), sink)
    with pytest.raises(ValueError, match="no chunk has so much"):
        read_columns(sink.getvalue().to_pybytes(), ["job_id"])


def test_the_typed_rows_have_the_columns_of_the_schema() -> None:
    """A column that the schema gains, loses or makes nullable is one that the types of a row have to follow."""
    for row_type in (DoneRow, FailedRow):
        hints = get_type_hints(row_type)
        assert set(hints) - {"url"} == set(MANIFEST_SCHEMA.names)
    done = get_type_hints(DoneRow)
    for column in MANIFEST_SCHEMA:
        if not column.nullable:
            assert type(None) not in get_args(done[column.name])
    kinds = {"string": str, "double": float, "bool": bool, "uint32": int, "uint64": int}
    for column in MANIFEST_SCHEMA:
        hint = done[column.name]
        kind = kinds.get(str(column.type))
        if kind and hint is not type(None) and column.name != "status":
            assert kind in (hint, *get_args(hint))
