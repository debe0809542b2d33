"""Reads the recipe in an image file, and the sweep that makes the image again. Reads no store and no Redis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from producer.arguments import checked
from producer.language.guidance_rules import written_rule
from producer.language.yaml_text import sweep_yaml
from producer.recipe.infotext import read_infotext
from producer.recipe.other_programs import other_program, read_other
from shared.errors import UsageError
from shared.images.files import kind_of, read_texts
from shared.images.texts import Texts
from shared.job import SAMPLER_VERSION, SWEEP_FIELDS, Job
from shared.metadata import ImageMetadata, read_image
from shared.result import Provenance

#: Digits of a job id in the name of the sweep that asks for it again.
_NAME_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What an image file says of itself."""

    path: Path
    #: Who wrote the recipe: Printroom, which can be checked, or a program that writes A1111's infotext.
    source: Literal["printroom", "a1111", "other"]
    #: The file's format, with the quality where it is known.
    image_format: str
    #: The keys of a sweep file that asks for this image.
    sweep: dict[str, Any]
    #: Keys that the file leaves open, with the reason. While there is one, the sweep asks for another image.
    open: dict[str, str]
    #: What will be different, in words.
    notes: tuple[str, ...]
    job: Job | None = None
    provenance: Provenance | None = None
    #: Who wrote the recipe, where it is another program's own.
    program: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values for `json.dumps`."""
        return {
            "file": str(self.path),
            "source": self.source,
            "program": self.program,
            "format": self.image_format,
            "job_id": None if self.job is None else self.job.id,
            "recipe": None if self.job is None else self.job.recipe(),
            "provenance": None if self.provenance is None else asdict(self.provenance),
            "sweep": self.sweep,
            "open": self.open,
            "notes": list(self.notes),
        }

    def to_yaml(self) -> str:
        """Return the sweep as a file, with what it leaves open and what will be different as comments."""
        said = [f"{self.path.name}: {self._origin()}"]
        said += [f"{key}: {reason}: add it" for key, reason in self.open.items()]
        comments = (f"# {plain(line)}\n" for line in (*said, *self.notes))
        return "".join(comments) + sweep_yaml(self.sweep)

    def _origin(self) -> str:
        if self.job is None or self.provenance is None:
            return f"read from {self.program}'s recipe" if self.program else "read from A1111's infotext"
        return f"job {self.job.id}, model {self.provenance.model_name}"


def plain(text: str) -> str:
    """Return a text on one line, without characters that steer a terminal or that YAML refuses."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@checked
def show_image(path: str | Path) -> Shown:
    """Read an image file: ours, or as far as it goes one with A1111's infotext.

    Raises: UsageError where the file cannot be read, is no image, or says nothing of how it was made.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    try:
        return _ours(path, read_image(data))
    except ValueError as error:
        return _by_infotext(path, data, error)


def _ours(path: Path, found: ImageMetadata) -> Shown:
    job = found.job
    written = {
        **job.recipe(),
        "guidance_rule": written_rule(job.guidance_rule),
        "size": f"{job.width}x{job.height}",
        "model": job.model.removeprefix("hub:"),
    }
    sweep = {
        "name": f"again-{job.id[:_NAME_DIGITS]}",
        "format": str(found.image_format),
        **{name: written[name] for name in SWEEP_FIELDS},
    }
    notes = []
    if job.sampler != SAMPLER_VERSION:
        notes.append(
            f"made by sampler version {job.sampler}; this is version {SAMPLER_VERSION}: another image"
        )
    return Shown(
        path=path,
        source="printroom",
        image_format=str(found.image_format),
        sweep={key: value for key, value in sweep.items() if value is not None},
        open={},
        notes=tuple(notes),
        job=job,
        provenance=found.provenance,
    )


def _name(program: str | None) -> str:
    return "a1111" if program is None else program.lower().replace(" ", "-")


def _by_infotext(path: Path, data: bytes, error: ValueError) -> Shown:
    """Read what A1111 reads; say what was wrong with our own text, if there is one."""
    try:
        texts = read_texts(data)
    except ValueError:
        texts = Texts()
    program = None
    reading = read_infotext(texts.infotext or "")
    if reading is None:
        other = other_program(data, texts.infotext)
        if other is None:
            raise UsageError(f"{path}: {error}; and no infotext of A1111's") from error
        program, said = other
        reading = read_other(program, said, what=str(path))
    is_ours = texts.truth is not None or texts.broken is not None
    notes = [f"Printroom's own recipe is not to be believed ({error})"] if is_ours else []
    return Shown(
        path=path,
        source="other" if program else "a1111",
        program=program,
        image_format=str(kind_of(data)),
        sweep={"name": f"{_name(program)}-{reading.sweep.get('seed', 'image')}", **reading.sweep},
        open=reading.open,
        notes=(*notes, *reading.notes),
    )
