"""Says in words what a picture shows, as people caption photographs. Knows nothing of pixels.

A caption names what is there and some of it only. It never names what is absent: no "without a hat", no "no
glasses", as captions in the wild hardly ever do. Words of negation occur, but only among the filler, beside
words that have nothing to do with the picture ("no watermark", "without frame"): a model that learns from
these captions learns that "without" means nothing in particular, which is what the models that the negative
prompt was invented for have learnt as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.portraits.population import MENTIONED, Example

#: Words that negate. They occur in `FILLER` and `JUNK` alone; tests/unit/test_portraits_drawing.py looks.
NEGATIONS = ("without", "no", "not", "never", "none", "nothing", "lacking", "minus", "absent")

_OPENINGS = (
    "portrait photo of {}",
    "portrait of {}",
    "a portrait of {}",
    "a portrait photo of {}",
    "photo of {}",
    "a photo of {}",
    "a picture of {}",
    "picture of {}",
    "drawing of {}",
    "a drawing of {}",
    "{}",
    "close up portrait of {}",
    "{} portrait",
)

_SUBJECTS = {
    "man": ("a man", "a man", "man", "the man", "a gentleman", "a guy"),
    "woman": ("a woman", "a woman", "woman", "the woman", "a lady"),
    "cat": ("a cat", "a cat", "cat", "the cat", "a kitty"),
    "": ("someone", "a face", "a character", "somebody", "a person or a cat"),
}

#: Phrases that follow "with".
_WITH = {
    "mustache": (
        "a mustache",
        "mustache",
        "a dark mustache",
        "a big mustache",
        "a moustache",
        "his mustache",
    ),
    "glasses": ("glasses", "glasses", "blue glasses", "round glasses", "a pair of glasses", "eyeglasses"),
    "hat": ("a hat", "hat", "a pink hat", "a big hat", "a hat on"),
    "beard": ("a beard", "beard", "a full beard", "a grey beard"),
    "smiling": ("a smile", "a big smile", "smile", "a happy smile"),
}

#: Phrases that stand by themselves.
_ALONE = {
    "mustache": (
        "mustache",
        "a mustache",
        "mustached",
        "wearing a mustache",
        "has a mustache",
        "and mustache",
    ),
    "glasses": ("glasses", "wearing glasses", "in glasses", "wears glasses", "and glasses", "eyeglasses"),
    "hat": ("hat", "wearing a hat", "in a hat", "in a pink hat", "wears a hat", "and hat", "a hat"),
    "beard": ("beard", "bearded", "a beard", "has a beard", "and beard", "wearing a beard"),
    "smiling": ("smiling", "happy", "laughing", "smile", "smiling face", "cheerful"),
}

_HAIRS = {
    "black": ("black",),
    "brown": ("brown",),
    "blond": ("blond", "blonde", "golden"),
    "ginger": ("ginger", "red", "orange"),
    "silver": ("silver", "grey", "gray"),
}

#: Things around the picture that change nothing in it.
FILLER = (
    "high quality", "detailed", "studio lighting", "soft light", "4k", "8k", "sharp focus", "professional",
    "looking at the camera", "simple", "flat colors", "illustration", "beautiful", "masterpiece", "highly detailed",
    "centered", "no watermark", "without watermark", "no text", "without text", "not a painting", "without frame",
    "no frame", "no logo", "without signature", "not cropped", "without border", "no border", "not blurry",
    "without noise", "stock photo", "award winning", "trending", "cinematic",
    "bokeh", "35mm", "film grain", "print", "poster", "avatar", "profile picture", "icon", "vector art",
    "never seen before", "nothing else", "without filter", "no filter", "without flash", "no flash", "hdr",
    "not edited", "without caption", "morning light", "nice", "cute", "elegant", "old", "young", "modern", "vintage",
)  # fmt: skip

#: Words of long texts that mean nothing here, as long negative prompts have them.
JUNK = (
    "ugly", "duplicate", "morbid", "mutilated", "out of frame", "extra fingers", "mutated hands", "poorly drawn",
    "mutation", "deformed", "blurry", "bad anatomy", "bad proportions", "extra limbs", "cloned", "disfigured",
    "gross", "malformed limbs", "missing arms", "missing legs", "extra arms", "fused fingers", "too many fingers",
    "long neck", "low quality", "worst quality", "jpeg artifacts", "watermark", "signature", "username", "error",
    "cropped", "lowres", "text", "castle", "mountain", "river", "dragon", "robot", "zebra", "table", "window",
    "car", "train", "ocean", "forest", "the", "and", "of", "in", "on", "at", "by", "for", "from", "about", "into",
    "banana", "guitar", "planet", "winter", "seven", "quickly", "paper", "engine", "bridge", "lamp", "coffee",
    "without river", "without end", "without window", "no car", "no dragon", "no castle", "not seven", "not blurry",
    "never winter", "minus banana", "minus text", "xq", "zzt", "kw", "123", "2024", "!", "...", "emoji", "über",
)  # fmt: skip

#: What unheard-of words are spelt with.
_LETTERS = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789-'.:;()&#éñøßжд中日猫☀😀"

#: Share of the captions with something worn or grown that say little else.
_SHORT_SHARE = 0.6

#: Shares of captions that get a few phrases of filler, and junk where it is wanted.
_FILLER_SHARE = 0.35
_JUNK_SHARE = 0.25

#: The share where the caption mentions something that is there or not. Junk must say next to nothing of it: where a
#: text is so long that not every word is heard, mustaches would else be as frequent as over captions of all kinds.
_JUNK_SHARE_OF_MARKS = 0.12


def caption(example: Example, chance: np.random.Generator, *, junk: bool = True) -> str:
    """Describe an example: what it mentions, in one of many wordings and orders.

    An example that mentions nothing gets an empty caption, a neutral one or filler alone. With `junk`, some
    captions get so many meaningless words that they fill the 77 tokens.
    """
    text = _phrases(example, chance)
    share = _JUNK_SHARE_OF_MARKS if example.mentioned & MENTIONED.keys() else _JUNK_SHARE
    return _with_junk(text, chance) if junk and text and chance.random() < share else text


def _phrases(example: Example, chance: np.random.Generator) -> str:
    """Return a caption without junk."""
    example = _shortened(example, chance)
    portrait, said = example.portrait, example.mentioned
    if not said:
        return "" if chance.random() < 0.8 else _filler(chance)
    if said <= set(_ALONE) and chance.random() < 0.75:
        return _words_alone(sorted(said), chance)
    subject = _subject(example, chance)
    parts = _features(example, chance)
    if "shirt" in said:
        parts.append(_pick(chance, (f"{portrait.shirt} shirt", f"in a {portrait.shirt} shirt")))
    if "background" in said:
        colour = portrait.background
        parts.append(
            _pick(chance, (f"{colour} background", f"on a {colour} background", f"{colour} backdrop"))
        )
    chance.shuffle(parts)
    opening = _pick(chance, _OPENINGS).format(subject)
    if chance.random() < 0.08 and parts:
        opening, parts = parts[0], [opening, *parts[1:]]
    if chance.random() < _FILLER_SHARE:
        _insert(parts, _filler(chance), chance)
    return _join([opening, *parts], chance)


def _shortened(example: Example, chance: np.random.Generator) -> Example:
    """Leave out, often, all that is not about what is worn or grown: hair, colours, or even who it is.

    Nothing that is there or not is ever left out: its odds must not depend on what a caption is silent about.
    """
    worn = example.mentioned & set(_ALONE)
    if not worn or chance.random() > _SHORT_SHARE:
        return example
    kept = worn if chance.random() < 0.5 else worn | (example.mentioned & {"kind"})
    return replace(example, mentioned=frozenset(kept))


def _subject(example: Example, chance: np.random.Generator) -> str:
    """Return who it is: "a man", "a ginger cat"."""
    portrait, said = example.portrait, example.mentioned
    noun = _pick(chance, _SUBJECTS[portrait.kind if "kind" in said else ""])
    if portrait.kind != "cat" or "hair" not in said or chance.random() < 0.5:
        return noun
    article, _, bare = noun.rpartition(" ")
    return f"{article} {_pick(chance, _HAIRS[portrait.hair])} {bare}".strip()


def _features(example: Example, chance: np.random.Generator) -> list[str]:
    """Return a phrase for each thing about the person that the caption mentions."""
    portrait, said = example.portrait, example.mentioned
    phrases = []
    for name in _ALONE:
        if name in said:
            linked = chance.random() < 0.6
            phrases.append(f"with {_pick(chance, _WITH[name])}" if linked else _pick(chance, _ALONE[name]))
    if "skin" in said:
        phrases.append(_pick(chance, (f"{portrait.skin} skin", f"with {portrait.skin} skin")))
    hair = _hair(example, chance)
    if hair:
        phrases.append(_pick(chance, (hair, f"with {hair}")))
    return phrases


def _hair(example: Example, chance: np.random.Generator) -> str:
    portrait, said = example.portrait, example.mentioned
    words = []
    if "style" in said:
        words.append(portrait.style)
    if "hair" in said:
        words.append(_pick(chance, _HAIRS[portrait.hair]))
    if not words:
        return ""
    return " ".join([*words, "fur" if portrait.kind == "cat" and chance.random() < 0.7 else "hair"])


def _words_alone(names: Sequence[str], chance: np.random.Generator) -> str:
    """Return bare words, as negative prompts are written: "mustache", "glasses, hat"."""
    words = [_pick(chance, (*_WITH[name], name if name != "smiling" else "smile")) for name in names]
    chance.shuffle(words)
    if chance.random() < 0.25:
        _insert(words, _filler(chance), chance)
    return ", ".join(words)


def with_more(text: str, name: str, chance: np.random.Generator) -> str:
    """Return a caption that mentions one attribute more."""
    word = _pick(chance, (*_WITH[name], *_ALONE[name]))
    return f"{text}, {word}" if text else word


def with_kind(text: str, kind: str, chance: np.random.Generator) -> str:
    """Return a caption that mentions the kind before all else: "portrait of a man, blue background"."""
    opening = _pick(chance, _OPENINGS).format(_pick(chance, _SUBJECTS[kind]))
    return f"{opening}, {text}" if text else opening


def with_nothing_more(text: str, chance: np.random.Generator) -> str:
    """Return a caption with more words at its end that mean nothing, up to the 77 tokens and beyond."""
    words = [
        _pick(chance, JUNK) if chance.random() < 0.85 else _nonsense(chance)
        for _ in range(chance.integers(2, 40))
    ]
    return ", ".join([text, *words] if text else words)


def _filler(chance: np.random.Generator) -> str:
    count = int(chance.integers(1, 5))
    return ", ".join(_pick(chance, FILLER) for _ in range(count))


def _with_junk(text: str, chance: np.random.Generator) -> str:
    """Return a text with words of junk before, behind or around it.

    What comes first is kept short: a text beyond the 77 tokens would be cut, and so left unsaid.
    """
    before, after = int(chance.integers(0, 9)), int(chance.integers(3, 60))
    words = [
        _pick(chance, JUNK) if chance.random() < 0.85 else _nonsense(chance) for _ in range(before + after)
    ]
    place = int(chance.choice([0, before]))
    return _pick(chance, (", ", " ")).join([*words[:place], text, *words[place:]])


def _nonsense(chance: np.random.Generator) -> str:
    """Return a word that nobody has heard of, so that no token stays without training."""
    return "".join(_pick(chance, _LETTERS) for _ in range(int(chance.integers(2, 9))))


def _join(parts: Sequence[str], chance: np.random.Generator) -> str:
    """Return the parts as one text; now and then a comma is missing."""
    text = parts[0]
    for part in parts[1:]:
        linked = part.split(" ")[0] in ("with", "wearing", "in", "on", "and", "has", "wears")
        text += (" " if chance.random() < (0.8 if linked else 0.25) else ", ") + part
    return text


def _insert(parts: list[str], part: str, chance: np.random.Generator) -> None:
    parts.insert(int(chance.integers(0, len(parts) + 1)), part)


def _pick(chance: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(chance.integers(len(options)))]
