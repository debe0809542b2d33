"""One odd entry of a collection is a warning; an error only where it is used, and then one error."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.language.complete import read_sweep_file
from producer.language.sweep import sweep_of
from producer.planning.compile import compile_sweep
from shared.errors import SweepError
from shared.fingerprint import ResolvedModel

WILDCARDS = Path(__file__).parents[3] / "shared" / "data" / "wildcards"
STYLES = Path(__file__).parents[3] / "shared" / "data" / "sdxl-styles-twri"


def problems_of(path: Path) -> list[str]:
    """Return what is wrong with a sweep, the folder of the test shown as FOLDER."""
    try:
        sweep_of(read_sweep_file(path))
    except SweepError as error:
        return [text.replace(path.parent.as_posix(), "FOLDER") for text in error.problems]
    return []


def sweep(folder: Path, text: str) -> Path:
    """Write a sweep, and return where."""
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Return a folder with wildcards of which some are odd."""
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "hair.txt").write_text("red\nblack\n")
    (folder / "hair.api_info.json").write_text('{"title": null, "version": 3')
    (folder / "stars.yaml").write_text("stars:\n  - *x*\n")
    (folder / "old.txt").write_bytes(b"caf\xe9\n")
    (folder / "a.txt").write_text("x\n")
    (folder / "b.yaml").write_text("a: [y]\nb: [z, null]\nc: [fine]\n")
    (folder / "loop.txt").write_text("__loop__ x\n")
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    return tmp_path


def test_what_is_not_used_is_a_warning(collection: Path) -> None:
    """A sweep that needs one good wildcard is planned, and each odd entry is named once."""
    file = read_sweep_file(sweep(collection, "prompt: a __hair__ cat\nexpand: all\nwildcards: cards\n"))
    assert {"hair": ("red", "black")} == sweep_of(file).wildcards
    said = "\n".join(file.notes)
    for name in (
        "hair.api_info.json: not JSON",
        "stars.yaml, line 2: not YAML",
        "old.txt, line 1: byte 0xe9",
    ):
        assert name in said
    assert "'a' is in" in said
    assert "left out, an error only where it is used" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "old",
            "sweep.yaml, line 3: wildcards: FOLDER/cards/old.txt, line 1: byte 0xe9 at offset 3 is not UTF-8",
        ),
        (
            "a",
            "sweep.yaml, line 3: wildcards: 'a' is in FOLDER/cards/a.txt and FOLDER/cards/b.yaml: remove one",
        ),
        (
            "b",
            "sweep.yaml, line 3: wildcards: FOLDER/cards/b.yaml, line 2: b: null: write text in quotes",
        ),
        (
            "stars",
            "sweep.yaml, line 3: wildcards: no file that can be read has __stars__, and this one cannot, nor",
        ),
        ("loop", "sweep.yaml, line 1: prompt: FOLDER/cards/loop.txt, line 1: '__loop__ x'"),
        (
            "empty",
            "sweep.yaml, line 3: wildcards: 'empty' is empty: write a line into FOLDER/cards/empty.txt",
        ),
    ],
)
def test_what_is_used_is_one_error(collection: Path, name: str, said: str) -> None:
    """The reason is said at the place to look at, and no false second error follows."""
    found = problems_of(sweep(collection, f"prompt: __{name}__\nexpand: all\nwildcards: cards\n"))
    assert 1 == len(found), found
    assert found[0].startswith(said)


def test_a_pattern_passes_over_what_is_empty(tmp_path: Path) -> None:
    """`__cats/*__` means the files that have lines; one that is empty hides none of them."""
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/one.txt").write_text("x\n")
    (tmp_path / "cards/none.txt").write_text("\n")
    file = read_sweep_file(sweep(tmp_path, "prompt: __*n*__\nexpand: all\nwildcards: cards\n"))
    assert {"one": ("x",)} == sweep_of(file).wildcards


def test_a_broken_wildcard_in_a_text_that_is_no_template_is_one_error(collection: Path) -> None:
    """What nothing expands needs no lines: the missing key is what to fix."""
    (problem,) = problems_of(sweep(collection, "prompt: __old__\nwildcards: cards\n"))
    assert "a prompt has __old__, and only templates read wildcards: write expand: all" in problem


def test_a_folder_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    """Where no wildcard could be read, it is not said of each that nobody knows it."""
    found = problems_of(sweep(tmp_path, "prompt: __a__ __b__\nexpand: all\nwildcards: nowhere\n"))
    assert ["sweep.yaml, line 3: wildcards: FOLDER/nowhere: there is no such folder"] == found


def test_a_wildcard_of_the_sweep_itself_that_is_wrong_is_one_error(tmp_path: Path) -> None:
    """What the sweep lists itself is its own to fix, and named once."""
    found = problems_of(sweep(tmp_path, "prompt: __a__\nexpand: all\nwildcards: {a: [x, null]}\n"))
    text = "wildcards: a: null: write text in quotes, or {text: ..., weight: 2}"
    assert [f"sweep.yaml, line 3: {text}"] == found


def test_a_broken_style_is_an_error_only_where_it_is_chosen(tmp_path: Path) -> None:
    """Of a styles.csv with a row too long and a name twice the other styles are used; these two are named."""
    (tmp_path / "styles.csv").write_text(
        "name,prompt,negative_prompt\nfilm,35mm,grey\nlong,a,b,c\ntwice,a,\ntwice,b,\n"
    )
    file = read_sweep_file(sweep(tmp_path, "prompt: a cat\nstyle: [null, film]\nstyles: styles.csv\n"))
    assert ["film"] == list(sweep_of(file).styles)
    assert 2 == len(file.notes)
    found = problems_of(sweep(tmp_path, "prompt: a cat\nstyle: [film, long]\nstyles: styles.csv\n"))
    text = "styles: styles.csv, line 3: 4 cells under 3 columns: quote text that holds the delimiter"
    assert [f"sweep.yaml, line 3: {text}"] == found
    found = problems_of(sweep(tmp_path, "zip: {prompt: [a], style: [twice]}\nstyles: styles.csv\n"))
    text = "styles: styles.csv, line 5: 'twice' stands here twice and differs: rename one"
    assert [f"sweep.yaml, line 2: {text}"] == found


def test_a_styles_hole_for_the_negative_is_filled(tmp_path: Path) -> None:
    """A row of A1111's with {prompt} in its negative column: the job's negative stands there, conditions included."""
    (tmp_path / "styles.csv").write_text(
        'name,prompt,negative_prompt\nfilm,"{prompt}, 35mm","grey, {prompt}, dull"\n'
    )
    text = "prompt: a cat\nnegative_prompt: [null, wet, dry]\nstyle: film\nstyles: styles.csv\n"
    path = sweep(tmp_path, f"{text}skip: negative_prompt == 'grey, dry, dull'\n")
    plan = compile_sweep(
        sweep_of(read_sweep_file(path)), resolve=lambda name: ResolvedModel(name=name, fingerprint=name)
    )
    found = [(job.prompt, job.negative_prompt) for _, job in plan.jobs()]
    assert [("a cat, 35mm", "grey, , dull"), ("a cat, 35mm", "grey, wet, dull")] == found


def test_styles_that_cannot_be_read_are_one_error(tmp_path: Path) -> None:
    """The style that is chosen is not missed as well."""
    (tmp_path / "styles.json").write_text("{")
    found = problems_of(sweep(tmp_path, "prompt: a cat\nstyle: film\nstyles: styles.json\n"))
    assert 1 == len(found)
    assert found[0].startswith("sweep.yaml, line 3: styles: styles.json: not JSON: ")


@pytest.mark.skipif(not (WILDCARDS / "nsp").is_dir(), reason="the collection of wildcards is not here")
def test_a_real_collection_with_a_foreign_file_is_used(tmp_path: Path) -> None:
    """The folder that people download, with one file beside it that is none: planned, and the file named."""
    folder = tmp_path / "cards"
    folder.mkdir()
    for child in WILDCARDS.iterdir():
        (folder / child.name).symlink_to(child)
    (folder / "hair.api_info.json").write_text("{")
    name = (
        sorted((WILDCARDS / "nsp/nsp").glob("*.txt"))[0].stem if (WILDCARDS / "nsp/nsp").is_dir() else "nsp"
    )
    text = f"prompt: a __nsp/nsp/{name}__\nexpand: {{count: 3}}\nwildcards: cards\n"
    file = read_sweep_file(sweep(tmp_path, text))
    assert [f"nsp/nsp/{name}"] == [known for known in sweep_of(file).wildcards if known.endswith(name)]
    assert any("hair.api_info.json" in note for note in file.notes)


@pytest.mark.skipif(not (WILDCARDS / "jumbo").is_dir(), reason="the collection of wildcards is not here")
def test_a_pattern_over_a_real_collection(tmp_path: Path) -> None:
    """A folder of creatures, one file of which is empty, is drawn from."""
    (tmp_path / "cards").symlink_to(WILDCARDS)
    text = "prompt: a __jumbo/creatures/*__\nexpand: {count: 3}\nwildcards: cards\n"
    known = sweep_of(read_sweep_file(sweep(tmp_path, text))).wildcards
    assert "jumbo/creatures/empty_misc" not in known
    assert 5 < len(known)


@pytest.mark.skipif(not STYLES.is_dir(), reason="the collection of styles is not here")
def test_a_folder_of_real_styles_is_read(tmp_path: Path) -> None:
    """Three files of styles in a folder are one collection; the files beside them are no styles and no matter."""
    (tmp_path / "styles").symlink_to(STYLES)
    file = read_sweep_file(sweep(tmp_path, "prompt: a cat\nstyle: sai-anime\nstyles: styles\n"))
    assert 100 < len(sweep_of(file).styles)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hiar", "'hiar': did you mean 'hair'?"),
        ("HAIR", "'HAIR': did you mean 'hair'?"),
        ("sky/*", "'sky/*': use caf\u00e9, hair"),
    ],
)
def test_a_name_that_no_wildcard_has_is_told_of_those_in_the_folder(
    tmp_path: Path, name: str, said: str
) -> None:
    """The names that are offered are those of the folder, not those that the sweep uses already."""
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "hair.txt").write_text("red\n")
    (folder / "caf\u00e9.txt").write_text("noir\n")
    path = sweep(tmp_path, f"prompt: a __{name}__ cat\nexpand: all\nwildcards: cards\n")
    assert [f"sweep.yaml, line 1: prompt: 'a __{name}__ cat': no wildcard is called {said}"] == problems_of(
        path
    )


def test_a_name_is_found_however_unicode_writes_its_letters(tmp_path: Path) -> None:
    """A file of macOS has its name in pieces, and a keyboard writes the same letters whole."""
    folder = tmp_path / "cards" / "drinks"
    folder.mkdir(parents=True)
    (folder / "cafe\u0301.txt").write_text("noir\n")
    path = sweep(tmp_path, "prompt: a __caf\u00e9__\nexpand: all\nwildcards: cards\n")
    assert [] == problems_of(path)


def test_a_line_of_a_wildcard_that_is_wrong_is_named_by_its_file(tmp_path: Path) -> None:
    """Comments and blank lines count, as an editor counts them."""
    folder = tmp_path / "cards"
    folder.mkdir()
    (folder / "hair.txt").write_text("# colours\n\nred\n{oops\n")
    path = sweep(tmp_path, "prompt: a __hair__ cat\nexpand: all\nwildcards: cards\n")
    (said,) = problems_of(path)
    assert said.startswith(
        "sweep.yaml, line 1: prompt: FOLDER/cards/hair.txt, line 4: '{oops', character 1: {"
    )
    path = sweep(tmp_path, "prompt: a __hair__ cat\nexpand: all\nwildcards:\n  hair: [red,\n    '{oops']\n")
    (said,) = problems_of(path)
    assert "prompt: wildcards, line 5: '{oops'" in said
