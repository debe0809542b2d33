"""Values that stand beside one another are called by what differs, and never the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.sheet.labels import LABEL_CHARACTERS, distinct_labels
from producer.sheet.words import labels_in_words

TERMS = (
    "lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, worst quality"
)
PERSON = "a portrait photo of {} in a house by the sea in the evening light, a long coat, 35mm"
TALE = "a long tale of a knight who rides into the dark forest and meets a dragon there in the winter"


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["a cat", "a dog"], ["a cat", "a dog"]),
        ([TERMS], [f"{TERMS[:71]}…"]),
        (
            ["(no negative)", "(empty)", TERMS, f"{TERMS}, hat", f"beard, {TERMS}"],
            ["(no negative)", "(empty)", "lowres, …", "…, hat", "beard, …"],
        ),
        ([TERMS, TERMS.replace("hands", "feet")], ["…, bad hands, …", "…, bad feet, …"]),
        ([TERMS, TERMS.replace("bad hands, ", "")], ["…, bad hands, …", "lowres, …"]),
        (
            [PERSON.format("a man"), PERSON.format("a very old woman")],
            ["… a man in …", "… a very old woman …"],
        ),
        ([TALE.replace("dark", word) for word in ("dark", "deep")], ["… the dark forest …", "… the deep forest …"]),
        ([f"{TALE} {n}" for n in range(3)], ["… winter 0", "… winter 1", "… winter 2"]),
        (
            [TERMS, f"{TERMS}, hat", "a quiet lake under a grey sky, and above it thousands of birds on their way"],
            [
                "lowres, bad … worst quality",
                "lowres, bad … worst quality, hat",
                "a quiet lake under a grey sky, and above it thousands of birds on their…",
            ],
        ),
    ],
)  # fmt: skip
def test_labels_keep_what_differs(texts, labels):
    """Shared terms, starts and ends of long texts become an ellipsis; short texts stay as they are."""
    assert distinct_labels(texts) == labels


def test_where_there_is_room_nothing_is_cut():
    """Without a limit only what is shared is left out."""
    assert distinct_labels([TALE], limit=None) == [TALE]
    assert distinct_labels([f"one {TALE}", f"two {TALE}"], limit=None) == ["one a …", "two a …"]
    assert distinct_labels([TALE, TERMS], limit=None) == [TALE, TERMS]


PARTS = st.lists(st.sampled_from(["hat", "bad hands", "a man,", "x" * 90, " ", "…", "(2)"]), max_size=40)


@given(st.lists(st.one_of(st.text(max_size=120), PARTS.map(", ".join), PARTS.map(" ".join)), max_size=12))
def test_no_two_labels_are_the_same(texts):
    """Whatever the texts are, labels differ and stay short; equal texts of different values are numbered."""
    labels = distinct_labels(texts)
    assert len(set(labels)) == len(texts)
    assert max(map(len, labels), default=0) <= LABEL_CHARACTERS + len(" (12)")
    assert len(set(distinct_labels(texts, limit=None))) == len(texts)


def test_values_that_read_the_same_are_told_apart():
    """Numbers get all their digits, and models of one name a number, where their labels would be equal."""
    assert list(labels_in_words("guidance_scale", [7.0, 7.1234561, 7.1234562], {}).values()) == [
        "7",
        "7.1234561",
        "7.1234562",
    ]
    names = {"sha:a": "tiny", "sha:b": "tiny"}
    assert labels_in_words("model", ["sha:a", "sha:b"], names) == {"sha:a": "tiny", "sha:b": "tiny (2)"}
    assert labels_in_words("negative_prompt", [None, "", "(empty)"], {})["(empty)"] == "(empty) (2)"
