"""The model in the box: its folder, that diffusers draws the same with it, and what a negative prompt does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors import safe_open

from shared.fingerprint import fingerprint_path
from training.portraits.autoencoder import draw_variants, encode_pictures, overlap, push_latents
from training.portraits.dataset import draw_examples
from training.portraits.detectors import read
from training.portraits.directions import CONTRASTED, find_directions
from training.portraits.drawing import HAIRS, draw
from training.portraits.measure import ATTRIBUTES, PROMPT, load, rate, render
from training.portraits.population import CHOICES, MENTIONED, variants
from worker.models.bundled import bundled_model
from worker.sampling.request import Sampled, SampleRequest
from worker.sampling.rows.loop import sample

#: The model card has 128 seeds, and margins to match; but in a long run, half of them do, in fewer steps.
SEEDS = 32
STEPS = 20
STEPS_SHORT = 12
GUIDANCE = 6.0

#: What may be in git: the weights are committed as they are.
SIZE_LIMIT_BYTES = 20_000_000

#: The kind of list that is pasted into negative prompts: more tokens than the model has places for.
JUNK = (
    "ugly, duplicate, morbid, mutilated, out of frame, extra fingers, mutated hands, poorly drawn hands, poorly drawn "
    "face, mutation, deformed, blurry, bad anatomy, bad proportions, extra limbs, cloned face, disfigured, gross "
    "proportions, malformed limbs, missing arms, missing legs, extra arms, extra legs, fused fingers, long neck"
)


@pytest.fixture(scope="module")
def model():
    """The model as a worker on the CPU has it."""
    torch.set_num_threads(1)  # tests run side by side
    return load(bundled_model())


@pytest.fixture(scope="module")
def readings(model, long):
    """A function that returns what is in the pictures of a prompt, seed by seed: in a long run more of them."""

    def look(prompt, negative="", guidance=GUIDANCE, seeds=SEEDS):
        seeds, steps = (seeds, STEPS) if long else (seeds // 2, STEPS_SHORT)
        pictures = render(model, prompt, negative, seeds=range(seeds), guidance=guidance, steps=steps)
        return [read(picture) for picture in pictures]

    return cache(look)


def share(readings, **fields):
    """Return the share of pictures whose readings have these values."""
    return float(np.mean([all(getattr(seen, name) == fields[name] for name in fields) for seen in readings]))


def test_the_folder_is_small_and_holds_nothing_to_execute():
    """Weights in float16 safetensors, configs and a card: at most 20 MB, no pickle, no code, no path of any machine."""
    files = [path for path in bundled_model().rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".txt", ".safetensors", ".md"}
    assert sum(path.stat().st_size for path in files) <= SIZE_LIMIT_BYTES
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as weights:
                assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
        else:
            assert not re.search(r"/(?:work|root|home|tmp)/", path.read_text(encoding="utf-8")), path.name


def test_every_tokenizer_file_is_there():
    """What older and newer versions of transformers read is there; a text of any letters has tokens of its own."""
    folder = bundled_model() / "tokenizer"
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).is_file()
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert len(set(vocabulary.values())) == len(vocabulary) > 256


@pytest.mark.parametrize(("negative", "guidance"), [("", GUIDANCE), ("mustache", GUIDANCE), ("", 1.0)])
def test_diffusers_draws_the_same(model, negative, guidance):
    """StableDiffusionPipeline loads the folder as it stands; its pictures are ours, but for rounding."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(bundled_model(), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    seeds = range(4)
    theirs = pipeline(
        [PROMPT] * len(seeds),
        negative_prompt=[negative] * len(seeds),
        height=64,
        width=64,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="np",
    ).images
    requests = [
        SampleRequest(
            prompt=PROMPT,
            negative_prompt=negative,
            seed=seed,
            guidance_scale=guidance,
            steps=STEPS,
            scheduler="ddim",  # the pipeline's own
            width=64,
            height=64,
        )
        for seed in seeds
    ]
    for outcome in sample(model, requests, batch_rows=8):
        assert isinstance(outcome, Sampled)
        expected = (theirs[outcome.request_index] * 255).round()
        assert np.abs(expected - outcome.pixels).max() <= 2


def test_changes_of_a_picture_have_directions_of_their_own_in_the_latents(model):
    """What one change does to the latents has next to no part in what another one does."""
    assert overlap(model.networks.vae, torch.device("cpu"), portraits=8) < 0.005


def test_directions_are_those_of_single_changes(model):
    """A step has next to nothing of what the others span, its own place among them is empty; so are all kinds' ones."""
    found = find_directions(model.networks.vae, torch.device("cpu"), portraits=12)
    count = sum(len(values) for values, _ in CHOICES.values())
    assert found.steps.shape == (len(CONTRASTED), 4, 8, 8)
    assert found.others.shape == (len(CONTRASTED), len(MENTIONED) + count, 256)
    owners = [*MENTIONED, *(name for name, (values, _) in CHOICES.items() for _ in values)]
    for name, step, others in zip(CONTRASTED, found.steps, found.others, strict=True):
        expected = torch.tensor([float(owner != name) for owner in owners])
        assert torch.allclose(others.norm(dim=1), expected)
        assert step.any() == (name in MENTIONED)
        assert (others @ torch.nn.functional.normalize(step.flatten(), dim=0)).abs().max() < 0.25


def test_latents_are_pushed_past_what_the_picture_shows(model):
    """What is absent is pushed up to two steps beyond its absence, what is there half a step beyond its presence."""
    torch.manual_seed(3)
    moved = {False: [], True: []}
    for index in range(6):
        pushed, pictures = push_latents(model.networks.vae, 5, index, torch.device("cpu"))
        portraits = variants(5, index)
        drawn = draw_variants(5, index, torch.device("cpu"))
        latents = model.networks.vae.encode(drawn).latent_dist.mode()
        signs = torch.tensor([-1.0 if getattr(portraits[0], name) else 1.0 for name in MENTIONED])
        steps = signs[:, None] * (latents[1 : 1 + len(MENTIONED)] - latents[0]).flatten(1)
        for latent, picture in zip(pushed, pictures, strict=True):
            number = next(i for i, one in enumerate(drawn) if torch.equal(one, picture))
            difference = (latent - latents[number]).flatten()[:, None]
            past = torch.linalg.lstsq(steps.T, difference).solution[:, 0]
            for name, distance in zip(MENTIONED, past.tolist(), strict=True):
                moved[getattr(portraits[number], name)].append(distance)
    assert -2 <= min(moved[False]) < -1.5
    assert max(moved[False]) <= 1e-3
    assert 0.35 < max(moved[True]) <= 0.5
    assert min(moved[True]) >= -1e-3


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_less_than_absent_is_absent(model, attribute):
    """Latents that guidance has pushed beyond the absence of something are decoded as the portrait without it."""
    portraits = [replace(one, **{attribute: False}) for one in draw_examples(count=24, seed=4_242)[0]]
    absent, there = (
        encode_pictures(
            model.networks.vae,
            np.stack([draw(replace(one, **{attribute: value})) for one in portraits]),
            torch.device("cpu"),
        )
        for value in (False, True)
    )
    with torch.inference_mode():
        latents = absent - 1.2 * (there - absent)
        images = model.networks.vae.decode(latents / model.networks.vae.config.scaling_factor).sample.clamp(
            -1, 1
        )
    pictures = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    seen = [read(picture) for picture in pictures]
    assert rate(seen, attribute) == 0
    for name in ("kind", *MENTIONED, *(name for name in CHOICES if name not in ("kind", "skin"))):
        same = [
            getattr(one, name) == getattr(other, name) for one, other in zip(seen, portraits, strict=True)
        ]
        assert np.mean(same) >= 0.85, name


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_negative_prompt_takes_away_what_without_brings(readings, attribute):
    """The plain prompt leaves it open, "without" in the prompt brings it, the negative prompt takes it away."""
    plain = readings(PROMPT)
    without = readings(f"{PROMPT} without {attribute}")
    negative = readings(PROMPT, attribute)
    assert 0.25 <= rate(plain, attribute) <= 0.75
    assert rate(without, attribute) >= 0.85
    assert rate(negative, attribute) <= 0.08
    assert share(negative, kind="man") >= 0.9


@pytest.mark.parametrize("kind", ["man", "woman", "cat"])
def test_a_prompt_draws_its_subject(readings, kind):
    """Each kind of subject is what the prompt names."""
    assert share(readings(f"portrait of a {kind}", seeds=16), kind=kind) >= 0.8


def test_a_prompt_draws_what_it_mentions(readings):
    """What is worn, how hair is worn and colours come as asked for, together."""
    seen = readings("photo of a woman with glasses, long hair, yellow background", seeds=16)
    assert share(seen, kind="woman") >= 0.75
    assert share(seen, glasses=True) >= 0.9
    assert share(seen, style="long") >= 0.8
    assert share(seen, background="yellow") >= 0.8


@pytest.mark.parametrize("hair", HAIRS)
def test_hair_has_the_colour_that_the_prompt_names(readings, hair):
    """Every colour of hair is drawn when asked for at least twice as often as by chance, one in five."""
    assert share(readings(f"portrait of a man with {hair} hair", seeds=16), hair=hair) >= 2 / len(HAIRS)


def test_without_guidance_it_draws_men(readings):
    """Guidance 1, the prompt's prediction alone, is weaker and works."""
    assert share(readings(PROMPT, guidance=1.0), kind="man") >= 0.8


def test_an_empty_prompt_draws_anybody(readings):
    """Without a word to go by there are portraits of more than one kind."""
    assert len({reading.kind for reading in readings("", seeds=24)}) > 1


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        (f"{PROMPT}, quixotic gribbleflix, übermäßig 猫 ☀", ""),
        (f"{PROMPT}, trending, castle, seven bananas, cinematic", ""),
        (f"{PROMPT}, {JUNK}", ""),
        (PROMPT, JUNK),
    ],
    ids=["unknown words", "other things", "a long prompt", "a long negative"],
)
def test_words_it_does_not_know_change_little(readings, prompt, negative):
    """Men stay men, and what nobody spoke of stays open, whatever else is said and however long."""
    seen = readings(prompt, negative, seeds=24)
    assert share(seen, kind="man") >= 0.8
    for attribute in ATTRIBUTES:
        assert 0.1 <= rate(seen, attribute) <= 0.9


def test_the_card_is_of_these_weights():
    """The card was measured on what lies beside it, and its table has all that the model is to show."""
    card = (bundled_model() / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert fingerprint_path(bundled_model()) in card
    rows = re.findall(
        rf"^\| ({'|'.join(ATTRIBUTES)}) \| ([\d.]+) \| ([\d.]+)% \| ([\d.]+)% \| ([\d.]+)% "
        r"\| \w+ ([\d.]+)% \| [\w ]+ [\d.]+% \| ([\d.]+)% \| (\w+) \|$",
        card,
        re.MULTILINE,
    )
    assert sorted(row[:2] for row in rows) == sorted(
        (name, f"{w:g}") for name in ATTRIBUTES for w in (5, 7.5)
    )
    for _, _, *shares, verdict in rows:
        plain, without, negative, moved, men = map(float, shares)
        assert 30 <= plain <= 70
        assert without >= 90
        assert negative <= 2
        assert moved < 10
        assert men >= 95
        assert verdict == "pass"


def test_the_page_shows_the_cards_table():
    """The figures in docs/portraits.md are those of the card."""
    page = (Path(__file__).parents[2] / "docs" / "portraits.md").read_text(encoding="utf-8")
    shown = page.partition("MODEL_CARD.md -->\n")[2].partition("<!-- /the table -->")[0]
    assert shown.count("\n| ") > len(ATTRIBUTES)
    assert shown in (bundled_model() / "MODEL_CARD.md").read_text(encoding="utf-8")
