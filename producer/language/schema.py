"""Writes the JSON Schema of sweep files, with which editors complete and check them.

`python -m producer.language.schema --write` puts it into docs/. One row of a table a key. It says what a key may look
like; what values mean to each other only `producer.language.sweep` checks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from producer.language.fields import (
    GUIDANCE_MAX,
    MODEL_NAME_MAX,
    NAME_MAX,
    SEED_STOP,
    SIZE_MAX_PX,
    SIZE_STEP_PX,
    STEPS_MAX,
)
from producer.language.negatives import PRESETS
from shared.guidance import NEGATIVES_MAX, WEIGHT_MAX, GuidanceRule, RuleName
from shared.model_reading import PREDICTIONS
from shared.names import DEFAULT_MODEL
from shared.plan import SWEEP_JOBS_MAX
from shared.schedulers import DEFAULT_SCHEDULER, SCHEDULERS

Schema = dict[str, Any]

#: Where the schema is kept, as seen from the repository's root.
SCHEMA_PATH = Path("docs/sweep.schema.json")

_DRAFT = "https://json-schema.org/draft/2020-12/schema"

#: Names of vars: what stands between the braces of `{animal}`.
_VAR_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"


# Building blocks.


def _of(kind: str, **words: Any) -> Schema:
    return {"type": kind, **words}


def _mapping(properties: Mapping[str, Schema], *, required: tuple[str, ...] = (), **words: Any) -> Schema:
    """Return a mapping that has these keys and no others."""
    named = {"required": list(required)} if required else {}
    return _of("object", properties=dict(properties), additionalProperties=False, **named, **words)


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _list(items: Schema, **words: Any) -> Schema:
    return _of("array", items=items, **{"minItems": 1, **words})


def _axis(item: Schema, *more: Schema) -> Schema:
    """Return an axis: one value, a list, or a file of them; list items may be files too."""
    return _any(item, _list(_any(item, _ref("values_of_file"))), _ref("values_of_file"), *more)


def _named_lists(names: Schema | None = None) -> Schema:
    named = {"propertyNames": names} if names else {}
    return _of("object", additionalProperties=_ref("texts"), minProperties=1, **named)


def _whole(low: int, high: int | None = None) -> Schema:
    return _of("integer", minimum=low, **({} if high is None else {"maximum": high}))


def _number(low: float, high: float) -> Schema:
    return _of("number", minimum=low, maximum=high)


_TEXT = _of("string")
_NULL = _of("null")
_SEED = _whole(0, SEED_STOP - 1)
#: Letters and digits of any script, spaces and . _ -: a pattern of JSON Schema knows no letters but ASCII's, so this
#: one excludes what is none.
_NAME_PATTERN = r"^[^\s!-/:-@\[-`{-~][^\t-\r!-,/:-@\[-^`{-~]*$"
_SIZE_PATTERN = r"^\s*[0-9]{1,9}\s*[xX×]\s*[0-9]{1,9}\s*$"

#: Names of ours, which editors offer; what has capitals, spaces or a plus is another program's spelling of one.
_SCHEDULER = _any({"enum": list(SCHEDULERS)}, _of("string", pattern="[A-Z +]"))

_FORMAT = _any(
    {"enum": ["png", "webp", "jpeg", "jxl"]},
    _of("string", pattern="^([Ww][Ee][Bb][Pp]|[Jj][Pp][Ee]?[Gg]):([1-9][0-9]?|100)$"),
)

_FILE_OPTIONS: Mapping[str, Schema] = {
    "file": {
        **_TEXT,
        "description": "A .txt, .csv, .tsv, .jsonl, .json or .parquet file, as seen from the sweep file; also packed"
        " (.gz, .bz2, .xz, .zst), in a home folder (~/prompts.txt), or several (part-*.csv).",
    },
    "folder": {**_TEXT, "description": "A folder with metadata.csv, metadata.jsonl or metadata.parquet."},
    "delimiter": {
        "anyOf": [
            _of("string", minLength=1, maxLength=1),
            {"enum": ["tab", "comma", "semicolon", "pipe", "bar", "space", "none", "\\t"]},
        ],
        "description": "What separates the cells of a line; found out if left out. none: one column.",
    },
    "labels": {
        **_any(_TEXT, _list(_TEXT)),
        "description": "Columns that are labels of the rows; all that are no fields of a job if left out. none: none.",
    },
    "encoding": {
        **_of("string", minLength=1),
        "description": "How a text file is encoded, such as cp1252; UTF-8 if left out, or UTF-16 with its mark.",
    },
    "quoting": {
        "enum": ["none", "csv"],
        "description": "Whether a quote is a quote (none) or holds a cell (csv).",
    },
    "limit": {**_whole(1), "description": "The most rows to take."},
    "offset": {**_whole(0), "description": "Rows to leave out at the beginning.", "default": 0},
}


def _file(**more: Schema) -> Schema:
    """Return a mapping that names a file or a folder."""
    return {
        **_mapping({**_FILE_OPTIONS, **more}),
        "oneOf": [{"required": ["file"]}, {"required": ["folder"]}],
    }


# Guidance rules, a row a field.

_INTERVAL = _list(_number(0, 1), minItems=2, maxItems=2)
_WEIGHT = _number(-WEIGHT_MAX, WEIGHT_MAX)
_NEGATIVES = _any(
    _of("object", additionalProperties=_WEIGHT, maxProperties=NEGATIVES_MAX),
    _of(
        "array",
        maxItems=NEGATIVES_MAX,
        items=_any(
            _TEXT,
            _of("array", prefixItems=[_TEXT, _WEIGHT], minItems=2, maxItems=2),
            _mapping({"text": _TEXT, "weight": _WEIGHT}, required=("text",)),
        ),
    ),
)

#: Field -> what one value of it may be, and what it says.
_RULE_FIELDS: Mapping[str, tuple[Schema, str]] = {
    "rule": ({"enum": list(get_args(RuleName))}, "Which rule."),
    "rescale": (_number(0, 1), "How far the contrast is pulled back to that of the prompt alone."),
    "interval": (_INTERVAL, "The part of the steps that is guided, from 0 to 1."),
    "negative_interval": (_INTERVAL, "The part of the steps that uses the negatives, from 0 to 1."),
    "negative_weight": (
        _any(_WEIGHT, _NULL),
        "decoupled, perp_neg: how strongly the negative prompt pushes.",
    ),
    "negatives": (_NEGATIVES, "decoupled, perp_neg: further negatives, each with a weight."),
    "eta": (_number(0, 1), "apg: how much of the part along the prompt's prediction is kept."),
    "norm_threshold": (_number(0, 1e6), "apg: the longest difference; 0 is no limit."),
    "momentum": (_number(-1, 1), "apg: how much of the steps before is added."),
    "zero_init_steps": (_whole(0, 1000), "cfg_zero_star: first steps that predict nothing."),
}


def _rule(*, lists: bool) -> Schema:
    """Return a guidance rule; with lists in it, which are axes."""
    defaults = {field.name: _plain(field.default) for field in fields(GuidanceRule)}
    rows = {
        name: _described(
            _any(schema, _list(schema)) if lists and name != "negatives" else schema, said, defaults[name]
        )
        for name, (schema, said) in _RULE_FIELDS.items()
    }
    return _any({"enum": list(get_args(RuleName))}, _mapping(rows, minProperties=1), _NULL)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _described(schema: Schema, description: str, default: Any) -> Schema:
    return {"description": description, "default": default, **schema}


# What several keys share.

_NEGATED = _any(_TEXT, _mapping({"preset": {"enum": list(PRESETS)}}, required=("preset",)))
_NEGATIVE = _any(
    _TEXT,
    _NULL,
    *(
        _mapping({name: {**schema, "description": said}}, required=(name,))
        for name, schema, said in (
            ("preset", {"enum": list(PRESETS)}, "A negative prompt by name."),
            ("leave_one_out", _NEGATED, "The whole text, and the text without each of its terms in turn."),
            ("one_at_a_time", _NEGATED, "Each term of a text alone."),
            ("placebo", _NEGATED, "As many words that name nothing to be seen."),
        )
    ),
)
_PER = _any(_TEXT, _list(_TEXT))
_SEEDS = _mapping(
    {
        "start": _described(_SEED, "The first seed.", 0),
        "count": {**_whole(1, SEED_STOP), "description": "How many."},
        "stop": {**_SEED, "description": "The last seed."},
        "step": {**_of("integer"), "description": "From one seed to the next."},
        "per": {
            **_PER,
            "description": "What shares seeds: job for seeds of its own each, or fields such as prompt.",
        },
    },
    anyOf=[{"required": [name]} for name in ("count", "stop", "per")],
)
_SCALE, _STEPS = _number(0, GUIDANCE_MAX), _whole(1, STEPS_MAX)
_SIZE = _any(
    _of("integer", minimum=SIZE_STEP_PX, maximum=SIZE_MAX_PX, multipleOf=SIZE_STEP_PX),
    _of("string", pattern=_SIZE_PATTERN),
)
_MODEL_NAME = _of("string", minLength=1, maxLength=MODEL_NAME_MAX)
_MODEL = _any(
    _MODEL_NAME,
    _mapping(
        {
            "name": _MODEL_NAME,
            "prediction_type": {
                **_any({"enum": list(PREDICTIONS)}, _NULL),
                "description": "What it was trained to predict, where its files do not say or say it wrongly.",
            },
            "zero_snr": {
                **_any(_of("boolean"), _NULL),
                "description": "Whether its noise schedule ends in pure noise (zero terminal SNR).",
            },
        },
        required=("name",),
    ),
)
_LABEL = _any(_TEXT, _NULL, _of("number"), _of("boolean"))
_LABELS = _any(_TEXT, _list(_LABEL), _mapping({"texts": _TEXT, "rows": _TEXT}, required=("texts", "rows")))
_CONDITIONS = _any(_TEXT, _list(_TEXT, maxItems=100))

#: Field of a job -> what one value of it may be: what a case holds.
_ONE: Mapping[str, Schema] = {
    "prompt": _TEXT,
    "negative_prompt": _any(_TEXT, _NULL),
    "seed": _SEED,
    "guidance_scale": _SCALE,
    "guidance_rule": _ref("rule"),
    "steps": _STEPS,
    "scheduler": _ref("scheduler"),
    "size": _SIZE,
    "model": _MODEL,
}

_ZIP_GROUP = _any(
    _file(columns=_any(_of("object", additionalProperties=_TEXT, minProperties=1), _list(_TEXT))),
    _of(
        "object",
        minProperties=1,
        properties={
            name: _any(_list(one), _ref("values_of_file"), _ref("range")) for name, one in _ONE.items()
        },
        additionalProperties=_ref("texts"),
        propertyNames={"pattern": _VAR_NAME, "not": {"enum": ["file", "folder"]}},
    ),
)

_DEFINITIONS: Mapping[str, Schema] = {
    "values_of_file": _file(
        column={
            **_TEXT,
            "description": "Which column; the one named like the field, or the only one, if left out.",
        },
        comments={
            **_of("boolean"),
            "description": "Whether lines of a .txt that begin with # are left out.",
            "default": False,
        },
        options={
            "enum": ["a1111", "kohya", "none"],
            "description": "Whose options lines of a .txt carry, as --seed 1; found out if left out. none: text.",
        },
    ),
    "range": _mapping(
        {
            "start": {**_of("number"), "description": "The first value."},
            "stop": {**_of("number"), "description": "The last value, where a step falls on it."},
            "step": _described(_of("number"), "From one value to the next.", 1),
            "count": {**_whole(1), "description": "How many values, in place of stop."},
        },
        required=("start",),
        oneOf=[{"required": ["stop"]}, {"required": ["count"]}],
    ),
    "texts": _axis(_any(_TEXT, _of("number")), _ref("range")),
    "scheduler": _SCHEDULER,
    "rule": _rule(lists=False),
    "rules": _rule(lists=True),
}

# The table: a key, what it may be, what it says, what it is if left out.

#: Key -> (what it may look like, what it says, what stands there when nobody says).
_KEYS: Mapping[str, tuple[Schema, str, Any]] = {
    "prompt": (
        _axis(_TEXT),
        "What to draw: text, a list of texts, or {file: prompts.txt}. Needed, unless cases or zip bring it.",
        [],
    ),
    "negative_prompt": (
        _axis(_NEGATIVE),
        "What to step away from; null is none, which is not ''. {preset}, {leave_one_out}, {one_at_a_time} and"
        " {placebo} stand for negatives to compare.",
        None,
    ),
    "seed": (
        _axis(_SEED, _SEEDS),
        "Seed of the image's own random generator: one, a list, {start, count}, or {start, stop, step}. All jobs share"
        " the seeds, so that comparisons are paired; `per` gives some seeds of their own.",
        0,
    ),
    "guidance_scale": (
        _axis(_SCALE, _ref("range")),
        "How far to step towards the prompt and away from the negative; at 1 or less there is no negative.",
        7.5,
    ),
    "guidance_rule": (
        _axis(_ref("rules")),
        "How the predictions for prompt and negatives become one: a name, or a mapping of what is not the default."
        " Lists inside a rule are axes. null is classifier-free guidance.",
        None,
    ),
    "steps": (_axis(_STEPS, _ref("range")), "Sampling steps.", 25),
    "scheduler": (_axis(_ref("scheduler")), "Which sampler walks the steps.", DEFAULT_SCHEDULER),
    "size": (
        _axis(_SIZE),
        "Pixels, multiples of 8: a side (512) or WIDTHxHEIGHT (512x768). 512x512 if left out, or the model's own.",
        "512x512",
    ),
    "model": (
        _axis(_MODEL),
        "Which model draws: a name that `printroom models` lists, or a path. A mapping also says how to read it:"
        " {name: photo, prediction_type: v_prediction, zero_snr: true}.",
        DEFAULT_MODEL,
    ),
    "cases": (
        _list(_mapping(_ONE, minProperties=1)),
        "Hand-picked combinations: each a mapping of single values, crossed with the lists of the sweep.",
        [],
    ),
    "zip": (
        _any(_ZIP_GROUP, _list(_ZIP_GROUP)),
        "Fields and vars that move together: a mapping of equally long lists, or a file with columns; or a list of such"
        " groups. A group is one axis.",
        [],
    ),
    "vars": (
        _named_lists({"pattern": _VAR_NAME}),
        "Names and the texts that fill them in: {animal} in a prompt or a negative. Each is an axis.",
        {},
    ),
    "replace": (
        _named_lists({"minLength": 1}),
        "Words of prompts and negatives, and what stands in their place: all at once, each an axis.",
        {},
    ),
    "expand": (
        _any(
            {"const": "all"},
            _NULL,
            _mapping(
                {
                    "count": {**_whole(1, 10_000_000), "description": "Random draws of each template."},
                    "seed": _described(_SEED, "What they are drawn by.", 0),
                },
                required=("count",),
            ),
        ),
        "Reads texts as templates with {a|b}, {2$$a|b|c}, {0.3::a|b} and __wildcard__: all combinations of the prompt's"
        " choices, or {count, seed} for random draws. null: texts are literal.",
        None,
    ),
    "wildcards": (
        _any(_TEXT, _of("object", additionalProperties=_any(_TEXT, _list(_TEXT)))),
        "What __name__ chooses from: a folder of files, or a mapping of names to lists.",
        {},
    ),
    "styles": (
        _any(
            _TEXT,
            _of(
                "object",
                additionalProperties=_any(
                    _TEXT, _mapping({"prompt": _any(_TEXT, _NULL), "negative_prompt": _any(_TEXT, _NULL)})
                ),
            ),
        ),
        "Styles: a file, a folder, or a mapping of names to {prompt: '... {prompt} ...', negative_prompt: '...'}.",
        {},
    ),
    "style": (_axis(_any(_TEXT, _NULL)), "Which of the styles to draw in; null is none.", None),
    "labels": (
        _of("object", additionalProperties=_of("object", additionalProperties=_LABELS)),
        "What people call the values of an axis, beside it: {prompt: {category: [animal, food]}}, a list as long as the"
        " axis or a text with a line for each. No part of a job. Prompt files bring their columns.",
        {},
    ),
    "where": (
        _CONDITIONS,
        "Expressions that every job meets, such as 'steps < 30 or guidance_scale > 5'.",
        [],
    ),
    "skip": (_CONDITIONS, "Expressions that no job meets.", []),
    "sample": (
        _any(
            _whole(1, SWEEP_JOBS_MAX),
            _mapping(
                {
                    "count": {**_whole(1, SWEEP_JOBS_MAX), "description": "How many jobs."},
                    "seed": _described(_SEED, "What they are chosen by.", 0),
                    "method": _described(
                        {"enum": ["uniform", "latin"]},
                        "uniform: any job, none twice. latin: every axis evenly, as a Latin hypercube.",
                        "uniform",
                    ),
                },
                required=("count",),
            ),
            _NULL,
        ),
        "Takes some jobs of the product, without going through it.",
        None,
    ),
    "repeat": (
        _whole(1, SWEEP_JOBS_MAX),
        "How many seeds of its own each job gets, from the sweep's one seed on.",
        1,
    ),
    "format": (_FORMAT, "What every image becomes: png, webp, webp:90, jpeg:95 or jxl.", "png"),
    "layout": (
        {"enum": ["images", "webdataset"]},
        "Whether each image is an object of its own in the store, or each chunk one WebDataset shard.",
        "images",
    ),
    "name": (
        _of("string", minLength=1, maxLength=NAME_MAX, pattern=_NAME_PATTERN),
        "What people call the sweep; the file's name if left out.",
        None,
    ),
    "include": (
        _any(_TEXT, _list(_TEXT)),
        "Sweep files whose keys are taken over, as seen from this one; what this one says wins.",
        [],
    ),
}


def sweep_schema() -> Schema:
    """Return the JSON Schema of sweep files, draft 2020-12."""
    return {
        "$schema": _DRAFT,
        "title": "Printroom sweep",
        "description": "What to render: a product of axes. `printroom plan FILE` says what a file would do.",
        "type": "object",
        "properties": {
            key: _described(schema, said, default) for key, (schema, said, default) in _KEYS.items()
        },
        "additionalProperties": False,
        "$defs": dict(_DEFINITIONS),
    }


def schema_text() -> str:
    """Return the schema as the text that is kept."""
    return json.dumps(sweep_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
    else:
        sys.stdout.write(schema_text())
