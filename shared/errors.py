"""Every error that Printroom raises on purpose, as one tree. Knows nothing of where they are caught.

PrintroomError                      code            meaning
├── UsageError                                      a person can fix it; exit status 2
│   ├── SweepError                  sweep_invalid   a sweep file says something it may not
│   ├── SettingsError               settings_invalid  an environment variable is wrong
│   ├── SweepUnknown                sweep_unknown   no such sweep here
│   ├── ModelUnknown                model_unknown   nobody has this model
│   ├── ModelAmbiguous              model_ambiguous one name, several models
│   ├── StoreMismatch               store_mismatch  workers, sweep and client mean different stores
│   ├── ModelDamaged                model_damaged   its files are cut off, missing or not what they are called
│   └── ConfirmationNeeded          confirmation_needed  a very large sweep, not confirmed
├── StoreError                                      the object store
│   ├── ObjectMissing               object_missing  no object has this key
│   ├── ImageDamaged                image_damaged   an image is not the one that its manifest tells of
│   ├── StoreUnavailable            store_unavailable  after retries; worth another try later
│   ├── StoreDenied                 store_denied    credentials or rights
│   └── StoreFull                   store_full      no space left
├── BrokerError                                     Redis
│   ├── BrokerUnavailable           broker_unavailable
│   └── BrokerFull                  broker_full     out of memory (noeviction)
├── MessageError                                    a message on the queue
│   ├── MessageCorrupt              message_corrupt
│   └── VersionUnsupported          version_unsupported  made by another version
├── RowsMissing                     rows_missing    the store has fewer rows than the ledger counts as done
├── WorkerFailed                    worker_failed   the local worker of `printroom render` ended by itself
└── RenderError                                     one job or one model, on a worker
    ├── ModelLoadFailed             model_load_failed
    ├── ModelUnsupported            model_unsupported  a family or format we do not render
    ├── JobInvalid                  job_invalid     the job asks for what this model cannot do
    ├── OutOfMemory                 out_of_memory   on the device
    ├── ImageNotFinite              image_not_finite  NaN or infinity left the sampler
    ├── JobCrashed                  job_crashed     an unexpected exception while sampling
    └── WorkerLost                  worker_lost     the workers that took it died, time after time

Codes are stable: they stand in manifests, in `printroom status` and in docs/errors.md.
"""

from __future__ import annotations

from typing import ClassVar

#: Codes of failures that the same job has again, whichever worker tries it.
PERMANENT_CODES = frozenset({"job_invalid", "model_unsupported"})


class PrintroomError(Exception):
    """The root. `code` is stable; the message names the value and the fix."""

    code: ClassVar[str] = "error"


class UsageError(PrintroomError):
    """A person can fix it. The command line exits with 2."""

    code = "usage"


class SweepError(UsageError):
    """A sweep says something it may not. Carries every problem found, one a line."""

    code = "sweep_invalid"

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class SettingsError(UsageError):
    """One or more environment variables are wrong. Lists all of them."""

    code = "settings_invalid"


class SweepUnknown(UsageError):
    """Neither Redis nor the store knows this sweep."""

    code = "sweep_unknown"


class ModelUnknown(UsageError):
    """Neither this machine nor any live worker has a model of this name."""

    code = "model_unknown"


class ModelAmbiguous(UsageError):
    """One name, several different models."""

    code = "model_ambiguous"


class StoreMismatch(UsageError):
    """Workers, a sweep and this client mean different stores: what one writes the other never finds."""

    code = "store_mismatch"


class ModelDamaged(UsageError):
    """A model's files cannot be loaded, as their headers show: cut off, missing, a pointer, a web page."""

    code = "model_damaged"


class ConfirmationNeeded(UsageError):
    """The sweep is so large that it wants an explicit yes."""

    code = "confirmation_needed"


class StoreError(PrintroomError):
    """The object store refused or failed."""

    code = "store_error"


class ObjectMissing(StoreError):
    """No object has this key."""

    code = "object_missing"


class RowsMissing(PrintroomError):
    """The store has fewer rows of a sweep than the ledger counts as done."""

    code = "rows_missing"


class ImageDamaged(StoreError):
    """The store's image is not the one that the manifest tells of: its sha256 differs."""

    code = "image_damaged"


class StoreUnavailable(StoreError):
    """The store did not answer properly, after all retries. Later may be better."""

    code = "store_unavailable"


class StoreDenied(StoreError):
    """Wrong credentials, or no right to do this."""

    code = "store_denied"


class StoreFull(StoreError):
    """No space left where results live."""

    code = "store_full"


class BrokerError(PrintroomError):
    """Redis refused or failed."""

    code = "broker_error"


class BrokerUnavailable(BrokerError):
    """Redis cannot be reached."""

    code = "broker_unavailable"


class BrokerFull(BrokerError):
    """Redis is out of memory and refuses writes."""

    code = "broker_full"


class MessageError(PrintroomError):
    """A message on the queue that this worker cannot act on."""

    code = "message_error"


class MessageCorrupt(MessageError):
    """The message is not a Printroom chunk message."""

    code = "message_corrupt"


class VersionUnsupported(MessageError):
    """The message was made by another version of Printroom."""

    code = "version_unsupported"


class PlanUnreadable(PrintroomError, ValueError):
    """A stored plan is damaged, or was written by another version."""

    code = "plan_unreadable"


class WorkerFailed(PrintroomError):
    """The local worker process ended by itself. Carries the end of its log."""

    code = "worker_failed"


class RenderError(PrintroomError):
    """One job failed; its chunk goes on without it."""

    code = "render_error"


class ModelLoadFailed(RenderError):
    """The model's files are here but do not load."""

    code = "model_load_failed"


class ModelUnsupported(RenderError):
    """A family, a format or a pickle that this worker does not render."""

    code = "model_unsupported"


class JobInvalid(RenderError):
    """The job asks for something this model cannot do."""

    code = "job_invalid"


class OutOfMemory(RenderError):
    """The device ran out of memory, even one job at a time."""

    code = "out_of_memory"


class ImageNotFinite(RenderError):
    """NaN or infinity left the sampler; a picture of it would be a lie."""

    code = "image_not_finite"


class JobCrashed(RenderError):
    """An unexpected exception, seen again with the job alone."""

    code = "job_crashed"


class WorkerLost(RenderError):
    """Every worker that took this chunk died with it."""

    code = "worker_lost"


#: Codes that a failed job may have.
FAILURE_CODES = frozenset({RenderError.code, *(kind.code for kind in RenderError.__subclasses__())})
