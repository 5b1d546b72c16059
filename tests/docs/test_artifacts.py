"""The models that DVC's registry knows: DVC cannot list them by itself."""

import re

import yaml

from mnist_cnn.models import MODELS
from tests.helpers import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())


def test_every_model_of_the_story_is_an_artifact_by_a_name_that_dvc_allows() -> None:
    [exported] = [out for out in PIPELINE["stages"]["export"]["do"]["outs"] if str(out).endswith(".onnx")]
    found = {name: artifact["path"] for name, artifact in PIPELINE["artifacts"].items()}
    # Of a model that a user adds, the user decides.
    story = [model for model in MODELS if re.fullmatch(r"model_[1-7]", model)]
    expected = {model.replace("_", "-"): exported.replace("${key}", model) for model in story}
    assert found.items() >= expected.items()
    assert {path.replace("${key}", model) for model in MODELS for path in [exported]} >= set(found.values())
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name) for name in found)
    assert all(artifact["type"] == "model" and artifact["desc"] for artifact in PIPELINE["artifacts"].values())
