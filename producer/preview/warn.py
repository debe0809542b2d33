"""Warns of choices in a plan that people regret after rendering. Knows nothing of bytes or seconds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from producer.preview.count import BlockCount
from producer.preview.texts import ModelTexts
from shared.guidance import rule_label
from shared.job import GUIDED_FIELDS
from shared.plan import Axis, Block, ListAxis, Plan

#: Examples shown of one kind of warning.
_EXAMPLES = 3

#: What messages call the fields that only guidance reads.
_NAMED = {"negative_prompt": "the negative prompt", "guidance_rule": "the guidance rule"}

#: "without a mustache" -> "mustache": up to three words, to the next stop or conjunction.
_NEGATION = re.compile(
    r"\b(?P<word>without|no|not|never)\s+(?:(?:any|a|an|the)\s+)?"
    r"(?P<what>(?!(?:and|or|but|with|in|on|at)\b)[^\W\d_][\w'-]*"
    r"(?:\s+(?!(?:and|or|but|with|in|on|at|of|that|which|who|is|are|has)\b)[^\W\d_][\w'-]*){0,2})",
    re.IGNORECASE,
)


#: What a template would choose from, or a var would fill: `{a|b}`, `__animals/cats__`, `{name}`.
_TEMPLATE = re.compile(r"\{[^{}]*\|[^{}]*\}|__[^_{}|\s](?:[^{}|]*?[^_{}|\s])?__|\{[A-Za-z_][A-Za-z0-9_]*\}")


#: An option of another program: Midjourney's `--ar 16:9` (a word processor makes a dash of `--`), A1111's and kohya's,
#: and `-s50 -C7.5` of InvokeAI's first years.
_OPTION = re.compile(
    r"(?:^|\s)(?:--[A-Za-z][\w-]*|[\u2013\u2014](?:ar|v|q|s|c|no|niji|style|stylize|chaos|iw|seed|tile|w|weird)(?=\s))"
    r"(?:\s+[^\s-]\S*)?"
    r"|(?:^|\s)-[nsSWHCA][0-9]+(?:\.[0-9]+)?(?=\s|$)"
)

#: What other programs read in a prompt and Printroom takes to the letter.
_OTHER_SYNTAX: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("A1111's weights", re.compile(r"(?<!\\)\([^()]*:\s*[0-9]{0,6}\.?[0-9]{1,6}\s*(?<!\\)\)")),
    ("A1111's emphasis", re.compile(r"(?<!\\)\(\([^()]+\)\)|(?<!\\)\[[^\[\]|:]+(?<!\\)\]")),
    ("A1111's prompt editing", re.compile(r"(?<!\\)\[[^\[\]]*[:|][^\[\]]*\]")),
    ("A1111's extra networks", re.compile(r"<(?:lora|lyco|hypernet)\w*:[^<>]+>", re.IGNORECASE)),
    ("A1111's BREAK", re.compile(r"\bBREAK\b")),
    ("A1111's AND", re.compile(r"(?<=\s)AND(?=\s)")),
    ("ComfyUI's embeddings", re.compile(r"\bembedding:\w[\w./-]*")),
    (
        "Compel's weights",
        re.compile(r"\)(?:\++|-+|[0-9]{0,6}\.[0-9]{1,6})(?=[\s,.]|$)|(?<=\w\w\w)\+\+(?=[\s,.]|$)"),
    ),
    ("Midjourney's weights", re.compile(r"(?<=\S)::-?[0-9]*\.?[0-9]*(?=\s|$)")),
)


def warnings_of(plan: Plan, counts: Sequence[BlockCount], texts: Sequence[ModelTexts]) -> Iterator[str]:
    """Yield what may be a slip, a line each."""
    if encoder := plan.image_format.encoder:
        yield f"format {plan.image_format} waits for workers that have it: pip install 'printroom[{encoder}]' there"
    yield from _unguided(plan)
    yield from _repeated_values(plan)
    prompts = _in_order(plan, "prompt", [found.prompts for found in counts])
    negatives = _in_order(plan, "negative_prompt", [found.negatives for found in counts])
    yield from _unexpanded(prompts + negatives)
    yield from _options(prompts + negatives)
    yield from _other_syntax(prompts + negatives)
    yield from _negations(prompts)
    yield from _long_texts(texts)
    yield from _edge_spaces(prompts + negatives)


def used_axes(plan: Plan) -> list[Axis]:
    """Return the axes that some block uses, in the plan's order."""
    positions = dict.fromkeys(position for block in plan.blocks for position in block.axes)
    return [plan.axes[position] for position in positions]


def _in_order(plan: Plan, field: str, found: Iterable[frozenset[str]]) -> list[str]:
    """Return texts in the order of the sweep as far as its lists say it, then the others in that of the alphabet."""
    left: set[str] = set().union(*found)
    listed = [text for text in _values(plan, field) if text in left]
    return list(dict.fromkeys([*listed, *sorted(left.difference(listed))]))


def _values(plan: Plan, field: str) -> Iterator[Any]:
    for axis in used_axes(plan):
        if isinstance(axis, ListAxis) and field in axis.fields:
            position = axis.fields.index(field)
            yield from (value[position] for value in axis.values)


def _unguided(plan: Plan) -> Iterator[str]:
    unused = [
        field for field in GUIDED_FIELDS if any(_is_unused(plan, block, field) for block in plan.blocks)
    ]
    if unused:
        what = " or ".join(_NAMED[field] for field in unused)
        them = "it" if len(unused) == 1 else "them"
        yield f"guidance_scale 1 or less never uses {what}: jobs that differ only in {them} are one image"


def _is_unused(plan: Plan, block: Block, field: str) -> bool:
    """Return whether some job has the field and no guidance that would read it."""
    axes = [axis for axis in (plan.axes[position] for position in block.axes) if isinstance(axis, ListAxis)]
    scales = next((axis for axis in axes if "guidance_scale" in axis.fields), None)
    if scales is None:
        return False
    position = scales.fields.index("guidance_scale")
    unguided = [value for value in scales.values if value[position] <= 1.0]
    if field in scales.fields:
        return any(value[scales.fields.index(field)] is not None for value in unguided)
    axis = next((axis for axis in axes if field in axis.fields), None)
    if not unguided or axis is None:
        return False
    return any(value[axis.fields.index(field)] is not None for value in axis.values)


def _repeated_values(plan: Plan) -> Iterator[str]:
    for axis in used_axes(plan):
        if not isinstance(axis, ListAxis) or len(set(axis.values)) == len(axis.values):
            continue
        repeated = {value: count for value, count in Counter(axis.values).items() if count > 1}
        shown = (f"{_value_text(axis, value)} stands {count} times" for value, count in repeated.items())
        yield f"{_examples(shown, len(repeated))}: the same images, rendered once"


def _value_text(axis: ListAxis, value: tuple[Any, ...]) -> str:
    if not axis.fields:
        return "the same case"
    pairs = zip(axis.fields, value, strict=True)
    return ", ".join(
        f"{field} {rule_label(part) if field == 'guidance_rule' else _quoted(part)}" for field, part in pairs
    )


def _unexpanded(texts: list[str]) -> Iterator[str]:
    """Warn of templates that are drawn with their braces: nobody said that they are templates."""
    found = [match[0] for match in map(_TEMPLATE.search, texts) if match]
    if found:
        shown = _examples(map(_quoted, dict.fromkeys(found)), len(dict.fromkeys(found)))
        yield f"{shown} is text as it stands: for a template write expand: all, for a hole give it vars"


def _options(texts: list[str]) -> Iterator[str]:
    """Warn of options in prompts: a file of nothing else has been read as such already."""
    found = [
        (text, match[0].strip())
        for text, match in zip(texts, map(_OPTION.search, texts), strict=True)
        if match
    ]
    if found:
        many = f"{len(found):,} texts hold" if len(found) > 1 else "a text holds"
        text, option = found[0]
        yield (
            f"{many} options of another program, such as '{_short(option)}' in {_quoted(text)}: taken to the letter;"
            " say it by keys of the sweep (size, seed, negative_prompt), and remove it from the text"
        )


def _other_syntax(texts: list[str]) -> Iterator[str]:
    """Warn of other programs' syntax: here a bracket is a bracket."""
    for name, pattern in _OTHER_SYNTAX:
        found = [match[0] for match in map(pattern.search, texts) if match]
        if found:
            many = f"{len(found):,} texts have" if len(found) > 1 else "a text has"
            shown = _examples(map(_quoted, dict.fromkeys(found)), len(dict.fromkeys(found)))
            yield f"{many} {name} ({shown}): taken to the letter, each sign is part of the text"


def _negations(prompts: list[str]) -> Iterator[str]:
    found = [match for match in map(_NEGATION.search, prompts) if match]
    phrases = list(dict.fromkeys((_one_line(match[0]), _one_line(match["what"])) for match in found))
    for phrase, what in phrases[:_EXAMPLES]:
        yield f"a prompt that says '{phrase}' tends to draw it: say '{what}' in negative_prompt instead"
    if len(phrases) > _EXAMPLES:
        yield f"... in all {len(found):,} prompts say without, no, not or never"


def _long_texts(models: Sequence[ModelTexts]) -> Iterator[str]:
    """Yield one line for the prompts and one for the negatives, by the model to which most are long."""
    for negative, kind in ((False, "prompt"), (True, "negative prompt")):
        most = max(models, key=lambda m: m.long_negatives if negative else m.long_prompts, default=None)
        count = 0 if most is None else most.long_negatives if negative else most.long_prompts
        if most is None or not count:
            continue
        longest = [long for long in most.longest if long.negative == negative]
        least = "at least " if most.basis == "at least" else ""
        shown = "".join(f" ({_quoted(long.text)} has {least}{long.tokens:,})" for long in longest[:1])
        plural = f"{count:,} {kind}s take" if count > 1 else f"a {kind} takes"
        more = " or more" if least else ""
        yield (
            f"{plural} more than {most.chunk_tokens} tokens with begin and end{shown}:"
            f" encoded in several chunks{more}, nothing is cut off"
        )


def _edge_spaces(texts: list[str]) -> Iterator[str]:
    spaced = [text for text in texts if text != text.strip()]
    if spaced:
        shown = _examples(map(_quoted, spaced), len(spaced))
        yield f"spaces at the edge of {shown}: kept, and part of the image's identity"


def _examples(shown: Iterable[str], count: int) -> str:
    few = [text for text, _ in zip(shown, range(_EXAMPLES), strict=False)]
    more = f" and {count - _EXAMPLES:,} more" if count > _EXAMPLES else ""
    return ", ".join(few) + more


def _quoted(value: Any) -> str:
    return f"'{_short(value)}'" if isinstance(value, str) else "null" if value is None else f"{value}"


def _one_line(text: str) -> str:
    return _short(" ".join(text.split()))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
