"""One sweep in every image format, by a real worker: rendered, kept apart, used again, fetched, drawn and shown."""

from __future__ import annotations

import json

import numpy as np
import pytest

from shared import names
from shared.images.files import open_image
from shared.images.format import parse_format
from shared.metadata import read_image

SMALL = {"name": "small", "prompt": "a cat", "seed": {"start": 0, "count": 3}, "steps": 2}

#: Format -> the extension of a fetched file, and the mean difference from the PNG, in levels.
FORMATS = {"png": (".png", 0), "webp": (".webp", 0), "jxl": (".jxl", 0), "webp:80": (".webp", 12)}
FORMATS |= {"jpeg:95": (".jpg", 6), "jpeg:60": (".jpg", 16)}

WITHOUT_JXL = "import sys; sys.modules['imagecodecs'] = None"


def fetched(fleet, sweep, folder):
    """Return the images of a sweep, fetched, in plan order."""
    done = fleet.client.fetch(sweep, folder)
    assert (done.fetched, done.broken) == (3, ())
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    return [folder / line["file_name"] for line in lines]


def test_every_format_from_sweep_to_sheet(fleet, tmp_path):
    """The same jobs in six formats are six objects each, all right, and a second sweep uses only its own again."""
    fleet.start()
    fleet.wait_up()
    pngs = []
    for text, (extension, most) in FORMATS.items():
        sweep = fleet.client.submit({**SMALL, "format": text}).sweep
        fleet.wait_done(sweep)
        status = fleet.client.ledger.status(sweep)
        assert (text, status.done, status.failed, status.reused) == (text, 3, 0, 0)
        paths = fetched(fleet, sweep, tmp_path / text.replace(":", "-"))
        images = [np.asarray(open_image(path.read_bytes()).convert("RGB")).astype(int) for path in paths]
        pngs = pngs or images
        for path, image, png, (_, job) in zip(
            paths, images, pngs, fleet.client.plan(sweep).jobs(), strict=True
        ):
            found = read_image(path.read_bytes())
            assert (path.suffix, found.job, str(found.image_format)) == (extension, job, text)
            assert set(found.provenance.versions) & {"png", "webp", "jpeg", "jxl"} == {
                found.image_format.kind
            }
            assert np.abs(image - png).mean() <= most
            assert fleet.client.store.head(names.image_key(job.id, found.image_format)) is not None
        assert fleet.client.sheet(sweep).width > 100
    assert len(list(fleet.client.store.list("images/"))) == 3 * len(FORMATS)
    for text in ("webp", "jpeg:60"):
        again = fleet.client.submit({**SMALL, "name": "again", "format": text}).sweep
        fleet.wait_done(again)
        assert fleet.client.ledger.status(again).reused == 3
    assert len(list(fleet.client.store.list("images/"))) == 3 * len(FORMATS)


def test_a_file_of_another_format_is_not_taken(fleet, tmp_path):
    """A file that lies under another format's name is rendered anew, not believed."""
    fleet.start()
    fleet.wait_up()
    jpeg, other = parse_format("jpeg:95"), parse_format("jpeg:90")
    made = fleet.client.submit({**SMALL, "format": str(jpeg)}).sweep
    fleet.wait_done(made)
    for _, job in fleet.client.plan(made).jobs():
        data = fleet.client.store.get(names.image_key(job.id, jpeg))
        fleet.client.store.put(names.image_key(job.id, other), data, content_type=other.media_type)
    sweep = fleet.client.submit({**SMALL, "format": str(other)}).sweep
    fleet.wait_done(sweep)
    assert fleet.client.ledger.status(sweep).reused == 0
    for path in fetched(fleet, sweep, tmp_path):
        assert read_image(path.read_bytes()).image_format == other


def test_jxl_waits_for_a_worker_that_has_it(fleet):
    """A worker without imagecodecs leaves such a sweep alone, at no attempt's cost; the next one renders it."""
    pytest.importorskip("imagecodecs")
    lacks = fleet.start(patch=WITHOUT_JXL)
    fleet.wait_up()
    waiting = fleet.client.submit({**SMALL, "format": "jxl"}).sweep
    plain = fleet.client.submit({**SMALL, "format": "png"}).sweep
    fleet.wait_done(plain)
    seen = fleet.client.status(waiting)
    assert any("no live worker can write jxl" in line for line in seen.obstacles)
    assert (seen.status.done, seen.status.chunks_running, lacks.poll()) == (0, 0, None)
    fleet.start()
    fleet.wait_up(2)
    fleet.wait_done(waiting)
    rows = list(fleet.client.results(waiting))
    assert [(row["status"], row["attempt"]) for row in rows] == [("done", 1)] * 3
    assert fleet.client.status(waiting).obstacles == []
