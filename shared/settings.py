"""Reads the environment once, into frozen settings. Rooms receive values; none reads the environment itself.

Every field is a variable of the same name with the prefix PRINTROOM_ (docs: `.env.example`); an empty one is as
good as none. Credentials of S3 are the usual AWS variables, which boto3 reads itself. Secrets never show in a repr
or a log.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import SettingsError
from shared.names import REDIS_PREFIX
from shared.redis_url import parse_redis_url
from shared.store.open import check_address

#: A prefix is part of keys, of ACL rules and of kombu's names: nothing that means something there.
_PREFIX = re.compile(r"[A-Za-z0-9._:/@-]{1,100}")

#: Variables of the prefix that are no settings: of the fault tests, and of a container's health check.
_OTHER_VARIABLES = {"PRINTROOM_FAILPOINT", "PRINTROOM_HEALTH_END"}

#: How a UNet is compiled.
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

#: What leaves the GPU while it is not needed: networks as wholes, or layer by layer.
OffloadMode = Literal["none", "model", "sequential"]


class Settings(BaseSettings):
    """Everything that differs between one machine and a fleet."""

    model_config = SettingsConfigDict(
        env_prefix="PRINTROOM_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    #: Redis or Valkey: redis://:password@host:port/db, or rediss:// for TLS.
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    #: Prefix of every key, so that several Printrooms can share a server.
    redis_prefix: str = REDIS_PREFIX
    #: Where results live: s3://bucket/prefix, or a folder.
    store: str = "prints"
    s3_endpoint_url: str | None = None
    s3_region: str | None = None
    #: When boto3 adds checksums: some S3 servers refuse newer ones.
    s3_checksums: Literal["when_required", "when_supported"] = "when_required"
    s3_max_connections: int = Field(default=16, ge=1, le=256)
    #: How long one store operation is retried before it counts as unavailable, seconds.
    store_patience_seconds: float = Field(default=60.0, gt=0)

    #: Folders that hold models: each a diffusers folder or a .safetensors file, named by its file name.
    models: Annotated[tuple[Path, ...], NoDecode] = (Path("models"),)
    #: Hub models a worker may load: org/name or org/name@revision, comma-separated.
    hub_models: Annotated[tuple[str, ...], NoDecode] = ()
    #: What can be found out again is kept here: models' fingerprints, and how many rows fit a GPU.
    cache: Path = Path("~/.cache/printroom")

    #: UNet rows a batch on this worker; 0 lets the worker choose by device.
    batch_rows: int = Field(default=0, ge=0, le=512)
    #: torch.compile's mode for UNets of Stable Diffusion; reduce-overhead captures CUDA graphs.
    compile: CompileMode = "off"
    #: Where the networks of other families wait for their turn: none keeps all on the GPU.
    offload: OffloadMode = "none"
    #: A delivered chunk nobody renews is handed to another worker after this long.
    visibility_timeout_seconds: float = Field(default=20.0, ge=2)
    #: How often workers look for such chunks.
    restore_interval_seconds: float = Field(default=5.0, ge=0.5)
    #: A chunk without any progress for this long loses its lease, though its worker lives.
    stall_seconds: float = Field(default=180.0, ge=5)
    #: The same while a model loads or downloads.
    load_seconds: float = Field(default=1800.0, ge=5)
    #: At most 10: a health check takes a worker for dead after 15 s without a beat.
    heartbeat_seconds: float = Field(default=2.0, ge=0.2, le=10)
    #: How often a worker feeds and reconciles.
    feed_interval_seconds: float = Field(default=1.0, ge=0.1)
    #: A worker leaves its model after this long for chunks of equal priority that wait for another one.
    turn_seconds: float = Field(default=600.0, ge=0)
    #: A fed chunk that is neither queued nor delivered for this long is fed again.
    lost_after_seconds: float = Field(default=10.0, ge=0.5)
    #: Deliveries of one chunk before its unfinished jobs fail with worker_lost.
    max_attempts: int = Field(default=6, ge=1)
    #: Touched at every heartbeat, for a container's health check.
    heartbeat_file: Path | None = None

    #: Whether images say that a trained model made them (IPTC's digital source type, in XMP).
    mark_generated: bool = True

    log_format: Literal["text", "json"] = "text"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("redis_url")
    @classmethod
    def _readable_url(cls, value: SecretStr) -> SecretStr:
        parse_redis_url(value.get_secret_value())
        return value

    @field_validator("redis_prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value):
            raise ValueError("use 1 to 100 letters, digits and . _ : / @ -, such as printroom:")
        return value

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        return _checked(value, endpoint_url=None)

    @field_validator("s3_endpoint_url")
    @classmethod
    def _known_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            _checked("s3://bucket", endpoint_url=value)
        return value

    @field_validator("s3_region")
    @classmethod
    def _plain_region(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[A-Za-z0-9_-]{1,64}", value):
            raise ValueError("use a region's name, such as us-east-1")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        """Refuse values that are right by themselves and wrong together."""
        try:
            _checked(self.store, endpoint_url=self.s3_endpoint_url)
        except ValueError as error:
            raise ValueError(f"PRINTROOM_S3_ENDPOINT_URL: {error}") from None
        if self.restore_interval_seconds > self.visibility_timeout_seconds:
            raise ValueError(
                f"PRINTROOM_RESTORE_INTERVAL_SECONDS={self.restore_interval_seconds:g}: more than"
                f" PRINTROOM_VISIBILITY_TIMEOUT_SECONDS={self.visibility_timeout_seconds:g}: lost chunks"
                " would be looked for too late; use a quarter of it"
            )
        return self

    @field_validator("models", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("hub_models", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value

    @property
    def cache_dir(self) -> Path:
        """The cache folder, with ~ expanded."""
        return self.cache.expanduser()


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Raises: SettingsError listing every wrong variable at once, without the values of secrets.
    """
    unknown = sorted(overrides.keys() - Settings.model_fields.keys())
    if unknown:
        raise SettingsError(f"{', '.join(unknown)}: no setting of this name (.env.example has them all)")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_problem(item) for item in error.errors())) from None


def unknown_variables() -> list[str]:
    """Return the variables of the environment that look like settings and are none: what they say is not used."""
    known = {f"PRINTROOM_{name.upper()}" for name in Settings.model_fields} | _OTHER_VARIABLES
    return sorted(
        name for name in os.environ if name.upper().startswith("PRINTROOM_") and name.upper() not in known
    )


def _checked(store: str, *, endpoint_url: str | None) -> str:
    """Return a store's address once what opens it has read it. Raises: ValueError."""
    try:
        check_address(store, endpoint_url=endpoint_url)
    except SettingsError as error:
        raise ValueError(str(error)) from None
    return store


def _problem(item: Any) -> str:
    if not item["loc"]:  # of several settings together: the text names them
        return f"{item['msg'].removeprefix('Value error, ')} (see .env.example)"
    name = "PRINTROOM_" + str(item["loc"][0]).upper()
    # An @ stands where somebody wrote keys into an address.
    secret = "redis_url" in item["loc"] or "@" in str(item["input"])
    shown = "" if secret else f"={item['input']}"
    return f"{name}{shown}: {item['msg'].removeprefix('Value error, ')} (see .env.example)"
