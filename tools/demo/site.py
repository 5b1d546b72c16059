"""What the page's server hands out: the page, the models, and the runtime that runs them in a browser."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from mnist_cnn.common.errors import InputError

PAGE = Path(__file__).with_name("page")
# Of the npm package: the part that needs no other file, and the WebAssembly.
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}


class Content(NamedTuple):
    """What is at an address: its MIME type, and what it is or the file that it is in."""

    kind: str
    body: bytes | Path

    def read(self) -> bytes:
        """The content as it is now."""
        return self.body if isinstance(self.body, bytes) else self.body.read_bytes()


def site(models: Mapping[str, Path], first: str, runtime: Path) -> dict[str, Content]:
    """All that there is, by its path.

    Args:
        models: exported files by the model's name, in order; those that are missing are left out.
        first: the model that the page begins with; where it is missing, the first that there is.
        runtime: the folder ``dist`` of the npm package onnxruntime-web.

    Raises:
        InputError: there is no model, a file is none, or the runtime is not there.
    """
    there = {name: file for name, file in models.items() if file.exists()}
    if not there:
        raise InputError(f"{next(iter(models.values())).parent}: has no exported model; 'make repro' makes them all")
    if missing := [name for name in RUNTIME if not (runtime / name).is_file()]:
        raise InputError(f"{runtime / missing[0]}: is not there; 'make demo' gets it, where npm is installed")
    listed = {
        "chosen": first if first in there else next(iter(there)),
        "models": [_described(name, file) for name, file in there.items()],
    }
    files = {
        **{file.name: file for file in sorted(PAGE.iterdir())},
        **{f"models/{name}.onnx": file for name, file in there.items()},
        **{f"runtime/{name}": runtime / name for name in RUNTIME},
    }
    contents = {f"/{path}": Content(_KINDS[file.suffix], file) for path, file in files.items()}
    contents["/"] = contents["/index.html"]
    contents["/models.json"] = Content(_KINDS[".json"], json.dumps(listed).encode())
    return contents


def _described(name: str, file: Path) -> dict[str, Any]:
    """What the page says of a model, from what the file says of itself."""
    try:
        facts = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        parameters, accuracy = f"{int(facts['parameters']):,}", facts["validation_accuracy"]
        classes, images = json.loads(facts["classes"]), facts["images"]
    except (OSError, DecodeError, KeyError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise InputError(f"{file}: is no exported model ({fault}); 'make repro' restores it") from None
    return {
        "name": name,
        "file": f"models/{name}.onnx",
        "parameters": parameters,
        "accuracy": accuracy,
        "classes": classes,
        "images": images,
    }
