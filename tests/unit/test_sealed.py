"""Files that carry a digest of their content: whatever bit is changed, they are refused."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnist_cnn.common.errors import InputError
from mnist_cnn.common.sealed import read_sealed, write_sealed
from mnist_cnn.data.tensors import load_tensors, save_tensors

CONTENT = {"b": [1, 2.5, None], "a": {"x": "ä"}}
TENSORS = {
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5),
    "strided": torch.arange(12.0).view(3, 4).t(),
    "bytes": torch.arange(200, dtype=torch.uint8),
}
BITS = 300
CASES = 200


def sealed(file: Path) -> None:
    write_sealed(file, CONTENT)


def tensors(file: Path) -> None:
    save_tensors(file, TENSORS)


def load(file: Path) -> object:
    read = load_tensors(file, restored_by="'make'")
    return {name: (tensor.dtype, tensor.tolist()) for name, tensor in read.items()}


KINDS = pytest.mark.parametrize(
    ("write", "read", "content"),
    [
        (sealed, lambda file: read_sealed(file, "'make'"), CONTENT),
        (tensors, load, {name: (tensor.dtype, tensor.tolist()) for name, tensor in TENSORS.items()}),
    ],
    ids=["JSON", "tensors"],
)


@KINDS
def test_content_comes_back_and_equal_content_gives_equal_bytes(
    tmp_path: Path, write: Callable[[Path], None], read: Callable[[Path], object], content: object
) -> None:
    write(tmp_path / "new folder/a")
    write(tmp_path / "b")
    assert read(tmp_path / "b") == content
    assert (tmp_path / "new folder/a").read_bytes() == (tmp_path / "b").read_bytes()


@KINDS
def test_any_flipped_bit_and_any_missing_end_is_refused_in_a_line_or_changes_nothing(
    tmp_path: Path, write: Callable[[Path], None], read: Callable[[Path], Any], content: object
) -> None:
    file, draw = tmp_path / "file", random.Random(1)
    write(file)
    whole = file.read_bytes()
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(30)]
    for _ in range(BITS):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    refused = 0
    for bad in damaged:
        file.write_bytes(bad)
        try:
            # White space in a header, for instance.
            assert read(file) == content
        except InputError as error:
            assert str(error).startswith(f"{file}: ") and "'make'" in str(error)
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert refused > 0.9 * len(damaged)


@pytest.mark.parametrize("content", [None, "", "[]", "null", "[" * 100_000, '{"a": 1}', '{"a": 1, "sha256": "0"}'])
def test_what_was_never_sealed_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "file").write_text(content)
    with pytest.raises(InputError, match="^.*/file: .*'make' restores it$"):
        read_sealed(tmp_path / "file", "'make'")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=CASES)
@given(content=st.dictionaries(st.text().filter(lambda key: key != "sha256"), VALUES, max_size=4), data=st.data())
def test_any_record_comes_back_and_is_refused_where_it_was_written_over(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    write_sealed(file, content)
    assert read_sealed(file, "'make'") == content
    whole = file.read_bytes()
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(begin + 9, len(whole))))
    file.write_bytes(whole[:begin] + data.draw(st.binary(max_size=9)) + whole[end:])
    try:
        assert read_sealed(file, "'make'") == content
    except InputError as error:
        assert str(error).startswith(f"{file}: ") and len(str(error).splitlines()) == 1
