"""Finds links of Markdown pages that lead nowhere: files and headings. Knows nothing of the network.

Run as a script from anywhere: it checks every page of the repository and exits 1 if a link is broken.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent

#: Folders that hold other people's pages or rendered results.
_SKIPPED = {"prints", "models", "build", "dist", "node_modules"}

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_CODE = re.compile(r"(`+)(?:.+?)\1")
_INLINE = re.compile(r"\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)")
_DEFINITION = re.compile(r"^ {0,3}\[[^\]^][^\]]*\]:\s+<?([^\s>]+)>?")
_HTML = re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\"", re.IGNORECASE)
_HTML_ANCHOR = re.compile(r"<[a-z]+\b[^>]*?\b(?:id|name)=\"([^\"]+)\"", re.IGNORECASE)
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)


def broken_links(root: Path) -> list[str]:
    """Return a line for each broken link under `root`: `page:line: target: what is wrong`."""
    return [problem for page in pages(root) for problem in _problems(root, page)]


def pages(root: Path) -> Iterator[Path]:
    """Yield every Markdown page under `root`, but for hidden and skipped folders."""
    for path in sorted(root.rglob("*.md")):
        folders = path.relative_to(root).parts[:-1]
        if not any(part.startswith(".") or part in _SKIPPED for part in folders):
            yield path


def anchors(text: str) -> set[str]:
    """Return the anchors of a page, as GitHub makes them from headings, and those written in HTML."""
    found: set[str] = set()
    for _, line in _prose(text):
        found.update(_HTML_ANCHOR.findall(line))
        if heading := _HEADING.match(line):
            slug = _slug(heading[1])
            count = 0
            while (name := f"{slug}-{count}" if count else slug) in found:
                count += 1
            found.add(name)
    return found


def _problems(root: Path, page: Path) -> Iterator[str]:
    for number, target in _targets(page.read_text(encoding="utf-8")):
        if reason := _reason(root, page, target):
            yield f"{page.relative_to(root)}:{number}: {target}: {reason}"


def _reason(root: Path, page: Path, target: str) -> str | None:
    """Say why a target is broken, or None where it is right or leads to another site."""
    if _ELSEWHERE.match(target):
        return None
    path, _, anchor = unquote(target).partition("#")
    if path.startswith("/"):
        return "starts with /; write it relative to the page"
    goal = (page.parent / path).resolve() if path else page
    if not goal.is_relative_to(root.resolve()):
        return "leads out of the repository"
    if not goal.exists():
        return "no such file"
    if anchor and goal.suffix == ".md" and anchor not in anchors(goal.read_text(encoding="utf-8")):
        return f"no heading '#{anchor}' there"
    return None


def _targets(text: str) -> Iterator[tuple[int, str]]:
    for number, line in _prose(text):
        bare = _CODE.sub("", line)
        for pattern in (_INLINE, _DEFINITION, _HTML):
            for target in pattern.findall(bare):
                yield number, target


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a page that are not inside a fenced block of code."""
    fence: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        mark = _FENCE.match(line)
        if fence is None and mark is None:
            yield number, line
        elif fence is None and mark is not None:
            fence = mark[1]
        elif fence and mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
            fence = None


def _slug(heading: str) -> str:
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def main() -> int:
    """Check the repository and print what is broken."""
    problems = broken_links(ROOT)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{sum(1 for _ in pages(ROOT))} pages, {len(problems)} broken links")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
