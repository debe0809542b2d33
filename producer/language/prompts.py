"""Turns a sweep's texts into templates: holes for vars, search and replace, choices. Knows nothing of axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from producer.language.templates import WORD_PREFIX, TemplateParser, WordReplacer, parse_literal
from producer.language.wildcards import Wildcard
from shared.texts import TextTemplate, template_of


class TextMaker:
    """Makes a sweep's templates, each text's once."""

    def __init__(
        self,
        *,
        holes: frozenset[str],
        words: Sequence[str],
        expand: bool,
        wildcards: Mapping[str, Sequence[str]],
    ) -> None:
        """Take what a sweep says of all its texts.

        Args:
            holes: names of vars: `{name}` is a hole.
            words: that are searched for: each becomes a hole.
            expand: whether texts may have choices and wildcards.
            wildcards: name -> lines.
        """
        #: Whether every text is what it says.
        self.is_idle = not holes and not words and not expand
        self._holes = holes
        self._made: dict[str, TextTemplate] = {}
        self._replacer = WordReplacer(words) if words else None
        known = {
            name: Wildcard(lines=tuple(lines), numbers=(0,) * len(lines), file=f"wildcard {name}")
            for name, lines in wildcards.items()
        }
        self._parser = TemplateParser(wildcards=known, slots=holes) if expand else None

    def template(self, text: str) -> TextTemplate:
        """Return the template of a text. Raises: TemplateInvalid."""
        if text not in self._made:
            self._made[text] = self._make(text)
        return self._made[text]

    def word_slot(self, word: str) -> str:
        """Return the hole that stands where a word was."""
        return WORD_PREFIX + word

    def _make(self, text: str) -> TextTemplate:
        if self._parser is not None:
            template = self._parser.parse(text)
        else:
            template = template_of(parse_literal(text, slots=self._holes))
        return self._replacer.template(template) if self._replacer else template
