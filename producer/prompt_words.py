"""Turns a prompt and its options, as a person types them on a command line, into the sweep that they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from producer.language.document import read_inline
from producer.planning.compile import compile_sweep
from producer.preview import preview
from producer.source import SweepSource, read_source
from shared.errors import UsageError
from shared.fingerprint import ResolvedModel

#: Images of a prompt where the caller does not say how many.
_IMAGES = 4

#: A longer name is cut: it names a folder as well.
_NAME_MAX = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptOptions:
    """What goes with a prompt. What is None, or empty, has the default of a sweep."""

    negatives: tuple[str, ...] = ()
    #: Leave out the row without a negative prompt, which is there for comparison.
    no_plain: bool = False
    #: Images of each: seeds 0, 1, 2 ...
    count: int | None = None
    guidance: float | None = None
    #: Each as a sweep file writes it, on one line.
    guidance_rules: tuple[str, ...] = ()
    steps: int | None = None
    model: str | None = None
    format: str | None = None

    def given(self) -> list[str]:
        """Return the names of the options that the caller has set. A number 0 is set; an empty tuple is not."""
        # By identity: 0 is equal to False, and `steps=0` is a value that the sweep has to refuse.
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return [name for name, value in values.items() if value not in (None, ()) and value is not False]


def prompt_source(prompt: str, options: PromptOptions | None = None) -> SweepSource:
    """Return the sweep of one prompt: the same seeds for each negative prompt and each guidance rule.

    Raises: UsageError where options do not go together, SweepError where a value may not be.
    """
    options = options or PromptOptions()
    if options.no_plain and not options.negatives:
        raise UsageError("--no-plain goes with --negative")
    fields = {
        "steps": options.steps,
        "guidance_scale": options.guidance,
        "model": options.model,
        "format": options.format,
    }
    mapping: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9]+", "-", prompt).strip("-").lower()[:_NAME_MAX] or "prompt",
        "prompt": prompt,
        "seed": {"start": 0, "count": _IMAGES if options.count is None else options.count},
        **{name: value for name, value in fields.items() if value is not None},
    }
    if options.negatives:
        # The comparison is the point: the same seeds without a negative prompt.
        mapping["negative_prompt"] = [*([] if options.no_plain else [None]), *options.negatives]
    if options.guidance_rules:
        mapping["guidance_rule"] = [
            read_inline(rule, what="--guidance-rule") for rule in options.guidance_rules
        ]
    return read_source(mapping)


def prompt_warnings(source: SweepSource) -> tuple[str, ...]:
    """Return what `plan` would warn of in a prompt that is rendered without a look at its plan. Knows no models."""
    plan = compile_sweep(
        source.sweep, resolve=lambda name: ResolvedModel(name=name, fingerprint=f"unknown:{name}")
    )
    return tuple(preview(plan, sample=0).warnings)
