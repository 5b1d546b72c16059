"""Severities of corruptions for tests."""

from typing import Any

from mnist_cnn.settings.robustness import Robustness


def severities(**changes: Any) -> Robustness:  # noqa: ANN401
    """Those of the pipeline, some of them changed."""
    usual: dict[str, Any] = {
        "seed": 0, "rotation_deg": 20.0, "small_shift_px": 2.0, "large_shift_px": 4.0, "scale_down": 0.8,
        "scale_up": 1.25, "thicker_px": 1.0, "thinner_px": 1.0, "blur_px": 1.0, "weak_noise": 0.1,
        "strong_noise": 0.2, "salt_and_pepper_percent": 5.0, "contrast": 0.4,
    }  # fmt: skip
    return Robustness(**usual | changes)
