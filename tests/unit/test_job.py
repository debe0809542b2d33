"""The canonical job and its id."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.job import RECIPE_FIELDS, Job, canonical_json, canonical_recipe, job_id, make_job

FIELDS = {
    "prompt": "portrait photo of a man",
    "negative_prompt": "mustache",
    "seed": 7,
    "guidance_scale": 7.5,
    "steps": 25,
    "scheduler": "ddim",
    "width": 512,
    "height": 768,
    "model": "sha:" + "0" * 32,
}

texts = st.text(st.characters(exclude_categories=["Cs"]))


def test_canonical_json_by_hand():
    """The canonical JSON is sorted, without spaces, UTF-8 as it is, and its blake2b-128 is the id."""
    job = make_job(**{**FIELDS, "prompt": 'naïve "猫"\n', "guidance_scale": 5})
    expected = (
        '{"guidance_rule":null,"guidance_scale":5.0,"height":768,"model":"sha:00000000000000000000000000000000",'
        '"negative_prompt":"mustache","prompt":"naïve \\"猫\\"\\n","sampler":"2","scheduler":"ddim",'
        '"seed":7,"steps":25,"width":512}'
    )
    assert expected.encode() == canonical_recipe(job.recipe())
    assert hashlib.blake2b(expected.encode(), digest_size=16).hexdigest() == job.id


def test_ids_stay():
    """An id once given is given for ever: it names files in stores."""
    assert make_job(**FIELDS).id == "ccaa9fd2285d8ff2fba2c621c88781f7"


@given(prompt=texts, negative=st.none() | texts, rule=st.none() | texts, seed=st.integers(0, 2**64 - 1))
def test_recipe_round_trip(prompt, negative, rule, seed):
    """A job made again from its recipe, or from the canonical JSON of it, is the same job."""
    fields = {**FIELDS, "prompt": prompt, "negative_prompt": negative, "seed": seed}
    job = make_job(**fields, guidance_rule=rule)
    assert make_job(**job.recipe()) == job
    assert make_job(**json.loads(canonical_recipe(job.recipe()))) == job


@pytest.mark.parametrize("field", RECIPE_FIELDS)
def test_every_field_counts(field):
    """Another value of any field is another image."""
    job = make_job(**FIELDS, guidance_rule='{"rule":"apg"}')
    other = {**job.recipe(), field: job.recipe()[field] * 2}
    assert job.id != job_id(other)


def test_null_is_not_empty():
    """No negative prompt and an empty one are different images."""
    none, empty = (make_job(**{**FIELDS, "negative_prompt": text}).id for text in (None, ""))
    assert none != empty


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0, 1])
def test_without_guidance_the_negative_prompt_is_unused(scale):
    """At guidance 1 or less jobs that differ in the negative prompt are one image; each says what was asked."""
    made = [
        make_job(**{**FIELDS, "guidance_scale": scale, "negative_prompt": text})
        for text in (None, "", "mustache")
    ]
    assert len({job.id for job in made}) == 1
    assert [job.negative_prompt for job in made] == [None, "", "mustache"]
    assert not any(job.guided for job in made)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
def test_without_guidance_no_rule_is_used(scale):
    """At guidance 1 or less a step is the prompt's prediction alone: one image, and each job says what was asked."""
    rules = (None, '{"rule":"apg"}', '{"interval":[0.0,0.5]}', '{"rule":"cfg_zero_star","zero_init_steps":1}')
    made = [make_job(**{**FIELDS, "guidance_scale": scale}, guidance_rule=rule) for rule in rules]
    assert len({job.id for job in made}) == 1
    assert [job.guidance_rule for job in made] == list(rules)


def test_a_rule_is_null_where_nobody_says():
    """Plain classifier-free guidance is no rule, and a rule is another image."""
    plain, apg = make_job(**FIELDS), make_job(**FIELDS, guidance_rule='{"rule":"apg"}')
    assert plain.guidance_rule is None
    assert plain == make_job(**FIELDS, guidance_rule=None)
    assert plain.id != apg.id


def test_just_above_one_is_guided():
    """A guidance scale above 1, however little, has a negative branch, and the negative prompt and the rule count."""
    scale = math.nextafter(1.0, 2.0)
    made = [
        make_job(**{**FIELDS, "guidance_scale": scale, "negative_prompt": text}, guidance_rule=rule)
        for text in (None, "mustache")
        for rule in (None, '{"rule":"apg"}')
    ]
    assert len({job.id for job in made}) == 4
    assert all(job.guided for job in made)


def test_whole_numbers_of_guidance():
    """5 and 5.0 are one guidance scale."""
    assert make_job(**{**FIELDS, "guidance_scale": 5}) == make_job(**{**FIELDS, "guidance_scale": 5.0})


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_no_number(scale):
    """NaN and infinity have no canonical form: no job has them."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_job(**{**FIELDS, "guidance_scale": scale})


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_lone_surrogates(field):
    """Half a surrogate pair cannot be UTF-8: no job has it."""
    with pytest.raises(UnicodeEncodeError):
        make_job(**{**FIELDS, field: "half \ud83d"})


def test_canonical_json_ignores_insertion_order():
    """Objects of equal content have one spelling."""
    assert (
        canonical_json({"b": 1, "a": [None, "é"]})
        == canonical_json({"a": [None, "é"], "b": 1})
        == '{"a":[null,"é"],"b":1}'.encode()
    )


def test_fields_stand_in_canonical_order():
    """The tuple's fields are the recipe's, sorted, then the id: the plan's decoder relies on it."""
    assert (*sorted(RECIPE_FIELDS), "id") == (*RECIPE_FIELDS, "id") == Job._fields
