"""A problem in a sweep or in a file that it names, and its place. Checks nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What is wrong, and where, as far as that is known."""

    #: What is wrong and how to fix it, in one line.
    text: str
    #: Line of the file, 1 is the first.
    line: int | None = None
    #: The file or the option, as seen from the sweep's folder; None for the sweep's own file.
    file: str | None = None
    #: Keys and positions that lead to the wrong value, from the value that was checked.
    path: tuple[str | int, ...] = ()

    def in_words(self, filename: str) -> str:
        """Return the problem as one line.

        Args:
            filename: what the sweep's own file is called; "" where there is none.
        """
        name = self.file or filename
        if self.line is not None:
            return f"{name}, line {self.line}: {self.text}"
        return f"{name}: {self.text}" if name else self.text
