"""A stage's stand-in, for tests of which stages run: it writes what the stage would write, made from what it reads.

Equal inputs give equal outputs and others give others, as of the stages themselves; nothing is computed, so it takes a
tenth of a second. Copied to ``stages/stub.py`` of a test's project, whose stages then call it.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml

# The options that name what a stage writes, and the settings that it follows.
WRITES = {
    "download": ["raw"],
    "split": ["splits"],
    "train": ["weights", "history"],
    "evaluate": ["metrics", "confusion", "recalls", "record"],
    "test": ["metrics", "record"],
    "export": ["exported", "facts"],
    "report": [
        "comparison",
        "results",
        "numbers",
        "selected",
        "robust-table",
        "robust-numbers",
        "looks-table",
        "cards",
        "curve",
        "confusion",
        "pictures",
        "vectors",
    ],
}
SECTIONS = {
    "split": ["split"],
    "train": ["train"],
    "evaluate": ["evaluate"],
    "test": ["evaluate", "train", "split"],
    "export": ["evaluate", "train", "split"],
    "report": ["model", "models"],
}
FILES = {
    "raw": ["MNIST/raw/file"],
    "splits": ["train.safetensors", "val.safetensors", "test.safetensors", "statistics.json"],
    "pictures": ["accuracy.png"],
    "vectors": ["accuracy.svg"],
    "cards": ["card.md"],
}
# The keys of the figures that each of the two stages records.
TESTED = ("test_accuracy", "test_loss", "meets_accuracy_target", "meets_epochs_target", "meets_parameters_target")
EVALUATED = (
    "parameters", "epochs", "train_accuracy", "val_accuracy", "val_loss", "calibration_error", "worst_class_recall",
    "engine",
)  # fmt: skip
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)


def main() -> None:
    """Read the options and files of the stage that is called, and write its files."""
    stage = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser()
    names = [word[2:] for word in sys.argv[1:] if word.startswith("--")]
    for name in names:
        parser.add_argument(f"--{name}", dest=name)
    options = vars(parser.parse_args())
    params = yaml.safe_load(Path(options["params"]).read_text()) if "params" in options else {}
    sections = SECTIONS.get(stage, [])
    followed: list[Any] = [params[name][params["data"]] if name == "split" else params[name] for name in sections]
    if "model" in options:
        recipe = params["models"][options["model"]]
        followed.append(recipe if stage != "evaluate" else [recipe["epochs"], recipe["deskew"], recipe["tta"]])
    digest = hashlib.sha256(json.dumps([stage, options.get("model"), followed]).encode())
    for name, value in options.items():
        if name not in (*WRITES[stage], "params", "model"):
            for file in sorted(f for f in [Path(value), *Path(value).rglob("*")] if f.is_file()):
                digest.update(file.read_bytes())
    for name in WRITES[stage]:
        paths = [Path(options[name]) / file for file in FILES[name]] if name in FILES else [Path(options[name])]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(name, digest.hexdigest(), options, params))


def content(name: str, digest: str, options: dict[str, str], params: dict[str, Any]) -> bytes:
    """What a file holds: in the form that DVC and the tools read, with figures made from the digest."""
    model = options.get("model") or params.get("model")
    match name:
        case "history":
            columns = "epoch,learning_rate,train_loss,train_accuracy,val_loss,val_accuracy"
            return f"{columns}\n1,0.1,0.5,90.0,0.4,{figures(digest)['val_accuracy']}\n".encode()
        case "curve":
            return b"epoch,learning_rate,train_loss,val_loss,val_accuracy,model\n1,0.1,0.5,0.4,90.0,model_1\n"
        case "confusion":
            return b"actual,predicted,count\n0,0,1\n"
        case "recalls":
            return b"class,images,recall\n0,1,100.0\n"
        case "metrics" | "record":
            chosen = TESTED if Path(sys.argv[0]).stem == "test" else EVALUATED
            return json.dumps({key: figures(digest)[key] for key in chosen}).encode()
        case "selected":
            return json.dumps({"model": model} | measured(options, model)).encode()
        case "numbers":
            rows = {name: measured(options, name) for name in params["models"]}
            extra = {
                "test_accuracy_low": 89.0,
                "test_accuracy_high": 99.9,
                "receptive_field_px": 20,
                "reference_test_accuracy": 99.0,
            }
            header = ["model", *next(iter(rows.values())), *extra]
            lines = [[key, *row.values(), *extra.values()] for key, row in rows.items()]
            return "".join(",".join(map(str, line)) + "\n" for line in [header, *lines]).encode()
        case "comparison" | "results" | "looks-table" | "robust-table":
            return "".join(f"| **{key}** | {digest} |\n" for key in params["models"]).encode()
        case "pictures":
            return PNG
    return digest.encode()


def measured(options: dict[str, str], model: str | None) -> dict[str, Any]:
    """What ``evaluate`` and ``test`` have recorded of a model."""
    found: dict[str, Any] = {}
    for folder in ("evaluations", "tests"):
        found |= json.loads((Path(options[folder]) / f"{model}.json").read_text())
    return found


def figures(digest: str) -> dict[str, Any]:
    """A model's metrics."""
    accuracy = 90 + int(digest[:4], 16) % 900 / 100
    return {
        "parameters": 7000, "epochs": 1, "train_accuracy": 99.0, "val_accuracy": accuracy, "val_loss": 0.1,
        "calibration_error": 0.1, "worst_class_recall": 90.0, "engine": "native",
        "test_accuracy": accuracy, "test_loss": 0.1,
        "meets_accuracy_target": False, "meets_epochs_target": True, "meets_parameters_target": True,
    }  # fmt: skip
