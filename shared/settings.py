"""Reads the environment once, into frozen settings. Rooms receive values; none reads the environment itself.

Every field is a variable of the same name with the prefix PRINTROOM_ (docs: `.env.example`); an empty one is as
good as none. Credentials of S3 are the usual AWS variables, which boto3 reads itself. Secrets never show in a repr
or a log.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import SettingsError
from shared.names import REDIS_PREFIX

_REDIS_SCHEMES = ("redis://", "rediss://")


#: How a UNet is compiled.
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

#: What leaves the GPU while it is not needed: networks as wholes, or layer by layer.
OffloadMode = Literal["none", "model", "sequential"]


class Settings(BaseSettings):
    """Everything that differs between one machine and a fleet."""

    model_config = SettingsConfigDict(
        env_prefix="PRINTROOM_", env_ignore_empty=True, frozen=True, extra="ignore"
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
    visibility_timeout_seconds: float = Field(default=30.0, ge=2)
    #: How often workers look for such chunks.
    restore_interval_seconds: float = Field(default=5.0, ge=0.5)
    #: A chunk without any progress for this long loses its lease, though its worker lives.
    stall_seconds: float = Field(default=180.0, ge=5)
    #: The same while a model loads or downloads.
    load_seconds: float = Field(default=1800.0, ge=5)
    heartbeat_seconds: float = Field(default=2.0, ge=0.2)
    #: How often a worker feeds and reconciles.
    feed_interval_seconds: float = Field(default=1.0, ge=0.1)
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
    def _known_scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(_REDIS_SCHEMES):
            raise ValueError("use redis://[:password@]host:port/db, or rediss:// for TLS")
        try:
            urlsplit(value.get_secret_value()).port  # noqa: B018 - parsing is the check
        except ValueError:
            # Its own text quotes what stands before a stray slash: part of the password.
            raise ValueError(
                "the port is no number; in a password, write / ? # @ as %2F %3F %23 %40"
            ) from None
        return value

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
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("\n".join(_problem(item) for item in error.errors())) from None


def _problem(item: Any) -> str:
    name = "PRINTROOM_" + str(item["loc"][0]).upper()
    shown = "" if "redis_url" in item["loc"] else f"={item['input']}"
    return f"{name}{shown}: {item['msg'].removeprefix('Value error, ')} (see .env.example)"
