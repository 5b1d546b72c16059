"""How severely copies of the test images are corrupted, to measure robustness."""

from typing import Annotated

from pydantic import Field, model_validator

from mnist_cnn.common.mnist import IMAGE_SIDE
from mnist_cnn.settings.validation import Section

_Pixels = Annotated[float, Field(ge=0, le=IMAGE_SIDE / 2)]
_Noise = Annotated[float, Field(ge=0, le=1)]
# Of the width of a stroke; on each side of it, half as much: a quarter of a pixel, or several.
_Stroke = Annotated[float, Field(ge=0, le=4, multiple_of=0.5)]


class Robustness(Section):
    """The severity of each corruption of ``evaluation.corruptions``, and the seed of those that draw.

    0 leaves images as they are; of factors, which scales and contrast are, 1 does. Inversion has no severity.
    """

    seed: Annotated[int, Field(ge=0, lt=1 << 32)]
    rotation_deg: Annotated[float, Field(ge=0, le=180)]
    small_shift_px: _Pixels
    large_shift_px: _Pixels
    scale_down: Annotated[float, Field(ge=0.1, le=1)]
    scale_up: Annotated[float, Field(ge=1, le=10)]
    blur_px: Annotated[float, Field(ge=0, le=IMAGE_SIDE / 4)]
    weak_noise: _Noise
    strong_noise: _Noise
    salt_and_pepper_percent: Annotated[float, Field(ge=0, le=100)]
    contrast: Annotated[float, Field(ge=0, le=1)]
    thicker_px: _Stroke
    thinner_px: _Stroke

    @model_validator(mode="after")
    def _in_order(self) -> "Robustness":
        for less, more in (("small_shift_px", "large_shift_px"), ("weak_noise", "strong_noise")):
            lower, upper = getattr(self, less), getattr(self, more)
            if lower >= upper:
                raise ValueError(f"{less}: {lower:g} is not allowed: should be less than {more}, {upper:g}")
        return self
