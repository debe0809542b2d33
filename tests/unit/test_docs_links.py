"""The checker of the documentation's links finds what is broken, and the documentation has nothing of it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    """The script, imported: docs is no package."""
    spec = importlib.util.spec_from_file_location("check_links", _ROOT / "docs/check_links.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_links"] = module
    spec.loader.exec_module(module)
    return module


def test_no_page_has_a_broken_link(checker):
    """Every relative link and heading in the repository's pages leads somewhere."""
    assert checker.broken_links(_ROOT) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[a](missing.md)", "no such file"),
        ("![a](missing.png 'a title')", "no such file"),
        ("[a]: missing.md", "no such file"),
        ('<img src="missing.png">', "no such file"),
        ("[a](#nowhere)", "no heading '#nowhere' there"),
        ("[a](other.md#nowhere)", "no heading '#nowhere' there"),
        ("[a](/other.md)", "starts with /; write it relative to the page"),
        ("[a](../../other.md)", "leads out of the repository"),
    ],
)
def test_a_broken_link_is_found(checker, tmp_path, text, reason):
    """Each way to break a link is reported with the page, the line and the reason."""
    (tmp_path / "other.md").write_text("# Other\n")
    (tmp_path / "page.md").write_text(f"# Page\n\n{text}\n")
    (problem,) = checker.broken_links(tmp_path)
    assert problem.startswith("page.md:3: ")
    assert problem.endswith(reason)


@pytest.mark.parametrize(
    "text",
    [
        "[a](other.md), [b](other.md#set-it-up-in-2-steps), [c](other.md#twice-1), [d](folder), [e](#page)",
        "[a](https://example.org/missing.md) and [b](mailto:a@example.org)",
        "`[a](missing.md)`",
        "```\n[a](missing.md)\n```",
        "[a](with%20space.md)",
        "[a](other.md#by-hand)",
    ],
)
def test_a_right_link_is_not_reported(checker, tmp_path, text):
    """Files, folders, headings, other sites and code are left in peace."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "with space.md").write_text("")
    (tmp_path / "other.md").write_text(
        '# Other\n## Set it `up` in 2 steps!\n## Twice\n## Twice\n<a id="by-hand"></a>\n'
    )
    (tmp_path / "page.md").write_text(f"# Page\n\n{text}\n")
    assert checker.broken_links(tmp_path) == []
