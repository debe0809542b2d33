"""Files of a sheet or a fetch are written whole or not at all, and what stands in the way is said with the fix."""

import errno
from pathlib import Path

import pytest
from PIL import Image

from producer.export.files import make_folder, write_whole
from shared.command_exit import EXIT_USAGE, explain
from shared.errors import StoreError
from shared.whole_file import whole_file, write_png


@pytest.mark.parametrize("before", [None, b"the sheet of yesterday"])
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    """Neither half a picture nor an empty one stands where there was none; the error names the file and the fix."""
    path = tmp_path / "sheet.png"
    if before:
        path.write_bytes(before)

    def write() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        write()
    assert explain(caught.value).text.startswith(f"{path}: no space left on device: free some space")
    assert [one.name for one in tmp_path.iterdir()] == (["sheet.png"] if before else [])
    assert not before or path.read_bytes() == before


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """A link into another folder stays one."""
    (tmp_path / "web").mkdir()
    link = tmp_path / "sheet.png"
    link.symlink_to(tmp_path / "web" / "sheet.png")
    write_png(Image.new("RGB", (4, 4)), link)
    assert link.is_symlink()
    with Image.open(tmp_path / "web" / "sheet.png") as image:
        assert (image.format, image.size) == ("PNG", (4, 4))


def test_a_place_that_cannot_be_written_comes_with_the_fix(tmp_path: Path) -> None:
    """A file where a folder should be: a sheet and a fetch say the same of it."""
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "images"
    with pytest.raises(OSError, match="file") as caught:
        write_png(Image.new("RGB", (4, 4)), path / "a.png")
    assert explain(caught.value).status == EXIT_USAGE
    for act in (lambda: write_whole(path / "a.png", b""), lambda: make_folder(path)):
        with pytest.raises(StoreError, match=r"file/images.*: name (a folder|another place)"):
            act()
