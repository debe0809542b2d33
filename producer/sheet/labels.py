"""Makes short labels for texts that stand side by side: keeps where they differ, shortens what they share.

Knows nothing of fields and sheets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, groupby, pairwise

#: A label of so many characters still stands on two or three lines beside an image, and whole in a title.
LABEL_CHARACTERS = 72

#: A shared end is worth its room up to so many characters.
_END_CHARACTERS = 12

_ELLIPSIS = "…"
_COMMA = re.compile(r",\s*")


def distinct_labels(texts: Sequence[str], limit: int | None = LABEL_CHARACTERS) -> list[str]:
    """Return a label for each text, no two of them the same.

    Texts of up to LABEL_CHARACTERS stay as they are. Of the longer ones the terms between commas that all of them
    have are left out, then the words that they share before they part and at their end. What is still equal is
    numbered.

    Args:
        limit: labels of more characters end in an ellipsis; none is cut where it is None.
    """
    long = [text for text in dict.fromkeys(texts) if len(text) > LABEL_CHARACTERS]
    short = dict(zip(long, _shorten(long), strict=True))
    return _number([_cut(short.get(text, text), limit) for text in texts])


def _shorten(texts: Sequence[str]) -> Sequence[str]:
    without = _without_shared_terms(texts)
    if all(len(text) <= LABEL_CHARACTERS for text in without):
        return without
    ordered = sorted(without, key=str.split)
    told = dict(zip(ordered, _tell_apart([text.split() for text in ordered]), strict=True))
    return [told[text] for text in without]


def _cut(label: str, limit: int | None) -> str:
    return label if limit is None or len(label) <= limit else label[: limit - 1].rstrip() + _ELLIPSIS


def _without_shared_terms(texts: Sequence[str]) -> Sequence[str]:
    """Leave out the terms that all texts have, unless that makes two of them equal."""
    terms = [_COMMA.split(text) for text in texts]
    shared = set(terms[0]).intersection(*terms[1:]) if len(terms) > 1 else set()
    told = [_elided(((term, term not in shared) for term in one), ", ") for one in terms]
    told = [
        label if label != _ELLIPSIS else f"{one[0]}, {label}" for label, one in zip(told, terms, strict=True)
    ]
    return told if len(set(told)) == len(texts) else texts


def _tell_apart(texts: Sequence[Sequence[str]]) -> list[str]:
    """Return the words of each text from where it parts from the others. The texts are sorted and all different."""
    if len(texts) < 2:
        return [" ".join(words) for words in texts]
    end = _shared_end(texts)
    return [_parting(words, places, end) for words, places in zip(texts, _partings(texts), strict=True)]


def _parting(words: Sequence[str], places: set[int], end: int) -> str:
    """Return the words where a text parts from others with a word before and after, and all behind the last."""
    last = max(places)
    near = {place + more for place in places for more in (-1, 0, 1)}
    label = _chosen(words, near | set(range(last, len(words) - end)))
    # Of many partings the last says most.
    return label if len(label) <= LABEL_CHARACTERS else _chosen(words, set(range(last - 1, len(words) - end)))


def _chosen(words: Sequence[str], kept: set[int]) -> str:
    return _elided(((word, number in kept) for number, word in enumerate(words)), " ") or _ELLIPSIS


def _partings(texts: Sequence[Sequence[str]]) -> list[set[int]]:
    """Return at which words each text parts from any other: neighbours in order share most."""
    found: list[set[int]] = [set() for _ in texts]
    for order in (range(len(texts)), range(len(texts) - 1, -1, -1)):
        nested: list[int] = []
        for before, at in pairwise(order):
            shared = _shared_start(texts[before], texts[at])
            while nested and nested[-1] >= shared:
                nested.pop()
            nested.append(shared)
            found[at].update(nested)
    return found


def _shared_start(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _shared_end(texts: Sequence[Sequence[str]]) -> int:
    """Return how many words all texts end in, where they take more room than an ellipsis is worth."""
    if len(texts) < 2:
        return 0
    first = texts[0][::-1]
    shared = min(_shared_start(first, other[::-1]) for other in texts[1:])
    return shared if len(" ".join(first[:shared])) > _END_CHARACTERS else 0


def _elided(parts: Iterable[tuple[str, bool]], joint: str) -> str:
    """Join parts, with an ellipsis for each run of those that are not kept."""

    def runs() -> Iterator[str]:
        for kept, run in groupby(parts, key=lambda part: part[1]):
            yield joint.join(text for text, _ in run) if kept else _ELLIPSIS

    return joint.join(runs())


def _number(labels: Sequence[str]) -> list[str]:
    """Number all but the first of equal labels."""
    taken, numbers = set(labels), {label: count(2) for label, times in Counter(labels).items() if times > 1}
    found: list[str] = []
    seen: set[str] = set()
    for label in labels:
        if label in seen:
            label = next(said for n in numbers[label] if (said := f"{label} ({n})") not in taken)
            taken.add(label)
        seen.add(label)
        found.append(label)
    return found
