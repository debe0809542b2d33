"""How a sweep overrides the reading of a model: its prediction type, and whether its SNR ends at zero.

A reading is the end of a model's name and of its fingerprint: `photo+v_prediction+zero_snr`. So it is part of every
job id it has an effect on, and a job without one has the id it always had. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

#: What a network may be trained to predict, as diffusers' scheduler configs spell it.
Prediction = Literal["epsilon", "v_prediction", "sample"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)

_MARK = "+"
_ZERO_SNR: Mapping[str, bool] = {"zero_snr": True, "no_zero_snr": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a sweep says of a model in place of its files. None: what the files say."""

    prediction_type: Prediction | None = None
    #: Whether the noise schedule is rescaled to end in pure noise (zero terminal SNR).
    zero_snr: bool | None = None

    def __bool__(self) -> bool:
        return self.prediction_type is not None or self.zero_snr is not None

    def __str__(self) -> str:
        """Return what follows a name or a fingerprint: `+v_prediction+zero_snr`, or nothing."""
        words: list[str] = [] if self.prediction_type is None else [self.prediction_type]
        words += [word for word, value in _ZERO_SNR.items() if value is self.zero_snr]
        return "".join(_MARK + word for word in words)

    def overrides(self) -> dict[str, Any]:
        """Return the keys of a diffusers scheduler config that it sets."""
        said = {"prediction_type": self.prediction_type, "rescale_betas_zero_snr": self.zero_snr}
        return {key: value for key, value in said.items() if value is not None}


#: Nothing is said in place of the model's files.
AS_IT_SAYS = Reading()


def split_reading(text: str) -> tuple[str, Reading]:
    """Return a name or fingerprint without the reading at its end, and the reading; any other text as it is."""
    base, prediction, zero_snr = text, None, None
    head, mark, word = base.rpartition(_MARK)
    if mark and head and word in _ZERO_SNR:
        base, zero_snr = head, _ZERO_SNR[word]
    head, mark, word = base.rpartition(_MARK)
    if mark and head and word in PREDICTIONS:
        base, prediction = head, next(known for known in PREDICTIONS if known == word)
    return base, Reading(prediction_type=prediction, zero_snr=zero_snr)
