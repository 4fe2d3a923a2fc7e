"""Every file that is no plain checkpoint is refused with its own code, and runs no code."""

from __future__ import annotations

import codecs
import io
import json
import os
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cstar_core.errors import InvalidModel
from cstar_core.files.archives import ArchiveLimits
from cstar_core.files.checkpoints import CheckpointLimits, read_checkpoint
from cstar_core.files.pickle_globals import UNRESOLVED, pickle_globals
from cstar_core.files.pickle_opcodes import read_opcodes

Zipped = Callable[..., Path]
STATE = {"weight": torch.arange(300.0), "bias": torch.ones(4)}


class Whole(nn.Module):
    """A network that is saved as a whole, class and all."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def refusal(path: Path, limits: CheckpointLimits | None = None) -> InvalidModel:
    with pytest.raises(InvalidModel) as caught:
        read_checkpoint(path, limits=limits)
    return caught.value


def saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def repacked(
    content: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None], *, method: int = 0
) -> bytes:
    """The archive with every entry's name and content changed, or dropped for None."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(buffer, "w", method) as target,
    ):
        for entry in source.infolist():
            changed = change(entry.filename, source.read(entry))
            if changed:
                target.writestr(*changed)
    return buffer.getvalue()


def keep(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content


def tar_file() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return buffer.getvalue()


def old_tar_file() -> bytes:
    """The same without the magic number of POSIX, and the checksum mended."""
    content = bytearray(tar_file())
    content[257:265] = bytes(8)
    checksum = sum(content[:148]) + 8 * ord(" ") + sum(content[156:512])
    content[148:156] = f"{checksum:06o}\0 ".encode()
    return bytes(content)


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("empty_file", lambda: b""),
    "text": ("unknown_format", lambda: b"these are no weights"),
    "one byte": ("unknown_format", lambda: b"P"),
    "numpy": ("unknown_format", lambda: b"\x93NUMPY\x01\x00"),
    "empty zip": ("unknown_format", lambda: b"PK\x05\x06" + bytes(18)),
    "truncated archive": ("truncated_file", lambda: saved(STATE)[:-100]),
    "half archive": ("truncated_file", lambda: saved(STATE)[:700]),
    "tar": ("legacy_format", tar_file),
    "tar before POSIX": ("legacy_format", old_tar_file),
    "bare tensor": ("no_tensors", lambda: saved(torch.ones(3))),
    "list": ("no_tensors", lambda: saved([torch.ones(3)])),
    "settings only": ("no_tensors", lambda: saved({"lr": 0.1, "state_dict": {"epoch": 3}})),
    "numbered tensors": ("no_tensors", lambda: saved({0: torch.ones(3)})),
    "whole module": ("pickled_module", lambda: saved(Whole())),
    "whole module inside": ("pickled_module", lambda: saved({"model": Whole(), **STATE})),
    "numpy array": ("pickled_module", lambda: saved({**STATE, "matrix": np.ones(3)})),
    "protocol 4 module": ("pickled_module", lambda: saved(Whole(), pickle_protocol=4)),
    "protocol 4 state": ("damaged_file", lambda: saved(STATE, pickle_protocol=4)),
    "nan": ("not_finite", lambda: saved({"w": torch.tensor([1.0, float("nan")])})),
    "infinity": ("not_finite", lambda: saved({"w": torch.tensor([float("-inf")])})),
    "too large for float32": (
        "not_finite",
        lambda: saved({"w": torch.tensor([1e300], dtype=torch.float64)}),
    ),
    "integers": ("unsupported_dtype", lambda: saved({"w": torch.arange(3)})),
    "booleans": ("unsupported_dtype", lambda: saved({"w": torch.tensor([True])})),
    "float counter": ("unsupported_dtype", lambda: saved({"num_batches_tracked": torch.ones(1)})),
    "complex": ("unsupported_dtype", lambda: saved({"w": torch.ones(2, dtype=torch.complex64)})),
    "float8": (
        "unsupported_dtype",
        lambda: saved({"w": torch.ones(2).to(torch.float8_e4m3fn)}),
    ),
    "quantised": ("unsupported_dtype", lambda: saved({"w": quantised()})),
    "sparse": ("unsupported_dtype", lambda: saved({"w": torch.eye(3).to_sparse()})),
    "compressed archive": (
        "unsafe_archive",
        lambda: repacked(saved(STATE), keep, method=zipfile.ZIP_DEFLATED),
    ),
    "two folders": (
        "unsafe_archive",
        lambda: repacked(saved(STATE), lambda n, c: (n.replace("archive/data/", "b/data/"), c)),
    ),
    "names alike": (
        "unsafe_archive",
        lambda: repacked(
            saved(STATE), lambda n, c: ("archive/DATA.PKL" if n.endswith("byteorder") else n, c)
        ),
    ),
    "traversal": (
        "unsafe_archive",
        lambda: repacked(saved(STATE), lambda n, c: (f"{n}/../../x" if "version" in n else n, c)),
    ),
    "no pickle": (
        "unknown_format",
        lambda: repacked(saved(STATE), lambda n, c: None if n.endswith(".pkl") else (n, c)),
    ),
    "missing storage": (
        "damaged_file",
        lambda: repacked(saved(STATE), lambda n, c: None if n.endswith("data/0") else (n, c)),
    ),
    "short storage": (
        "damaged_file",
        lambda: repacked(saved(STATE), lambda n, c: (n, c[:100] if n.endswith("data/0") else c)),
    ),
    "broken pickle": (
        "damaged_file",
        lambda: repacked(saved(STATE), lambda n, c: (n, c[:-40] if n.endswith(".pkl") else c)),
    ),
}


@pytest.mark.filterwarnings("ignore:.*[qQ]uantiz.*", "ignore:Detected pickle protocol")
@pytest.mark.parametrize(("code", "make"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_file_is_refused_with_its_code(
    tmp_path: Path, code: str, make: Callable[[], bytes]
) -> None:
    path = tmp_path / "upload"
    path.write_bytes(make())
    assert refusal(path).code == code


def test_whole_module_is_refused_naming_what_it_would_import(tmp_path: Path) -> None:
    torch.save(Whole(), tmp_path / "model.pt")
    error = refusal(tmp_path / "model.pt")
    assert f"{__name__}.Whole" in str(error)
    assert "torch.nn.modules.linear.Linear" in str(error)
    assert "torch.save(model.state_dict(), path)" in str(error)


@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    torch.save({**STATE, "x": Malicious(marker)}, tmp_path / "m.pt", pickle_protocol=protocol)
    error = refusal(tmp_path / "m.pt")
    assert error.code == "pickled_module"
    assert f"{os.mkdir.__module__}.mkdir" in str(error)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt").code == "torchscript"


def test_exported_program_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    assert refusal(tmp_path / "m.pt2").code == "exported_program"


def test_exported_program_of_earlier_versions_is_refused(zipped: Zipped) -> None:
    path = zipped({"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": b""})
    assert refusal(path).code == "exported_program"


LIMITS = {
    "bytes": CheckpointLimits(max_bytes=500),
    "tensors": CheckpointLimits(max_tensors=1),
    "elements": CheckpointLimits(max_elements=303),
    "pickle": CheckpointLimits(max_pickle_bytes=50),
    "opcodes": CheckpointLimits(max_opcodes=50),
    "unpacked": CheckpointLimits(archive=ArchiveLimits(max_total_bytes=500)),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
def test_torch_archive_over_a_limit_is_refused(tmp_path: Path, limits: CheckpointLimits) -> None:
    torch.save(STATE, tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt", limits).code == "too_large"


@pytest.mark.parametrize("limit", ["bytes", "tensors", "elements"])
def test_safetensors_over_a_limit_is_refused(tmp_path: Path, limit: str) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "m")
    assert refusal(tmp_path / "m", LIMITS[limit]).code == "too_large"


def test_one_number_expanded_to_a_huge_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(2**40)}, tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt").code == "too_large"


def test_pickle_that_claims_more_than_its_storage_holds_is_refused(tmp_path: Path) -> None:
    claim = {b"M" + (300).to_bytes(2, "little"): b"J" + (200_000).to_bytes(4, "little")}

    def lie(name: str, content: bytes) -> tuple[str, bytes]:
        for true, false in claim.items():
            content = content.replace(true, false) if name.endswith(".pkl") else content
        return name, content

    (tmp_path / "m.pt").write_bytes(repacked(saved(STATE), lie))
    assert refusal(tmp_path / "m.pt").code == "damaged_file"


class Encoded:
    """Bytes as a pickle of protocol 2 builds them, but with a codec that imports or expands."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (codecs.encode, ("text", "utf-32"))


def test_codec_other_than_that_of_bytes_is_refused(tmp_path: Path) -> None:
    torch.save({**STATE, "x": Encoded()}, tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt").code == "damaged_file"


class TensorState:
    """A tensor whose storage, offset, shape and strides are set once more behind its back."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, arguments = self.tensor.__reduce_ex__(2)  # type: ignore[no-untyped-call]
        return (rebuild, arguments, (arguments[0], 0, (2**40,), (0,)))


def test_state_of_a_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({**STATE, "x": TensorState(torch.ones(2))}, tmp_path / "m.pt")
    assert "changes the state" in str(refusal(tmp_path / "m.pt"))


def test_attributes_on_the_dictionary_are_not_trusted(tmp_path: Path) -> None:
    state = OrderedDict(STATE)
    vars(state).update(itemz="no method", gex="no method")

    def rename(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(b"itemz", b"items").replace(b"gex", b"get")

    (tmp_path / "m.pt").write_bytes(repacked(saved(state), rename))
    assert read_checkpoint(tmp_path / "m.pt").keys() == STATE.keys()


def tensors_file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[Any], begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LYING: dict[str, tuple[str, bytes]] = {
    "length past the end": ("truncated_file", (1000).to_bytes(8, "little") + b"{}"),
    "absurd length": ("invalid_header", (2**60).to_bytes(8, "little") + b"{}"),
    "no JSON": ("invalid_header", tensors_file(b"{'a': 1}")),
    "not UTF-8": ("invalid_header", tensors_file(b'{"\xff": 1}')),
    "deep JSON": ("invalid_header", tensors_file(b'{"a":' + b"[" * 100_000)),
    "same name twice": (
        "invalid_header",
        tensors_file(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
    ),
    "entry is no object": ("invalid_header", tensors_file({"a": 3})),
    "negative shape": ("invalid_header", tensors_file({"a": entry([-1, -1], 0, 4)}, bytes(4))),
    "boolean shape": ("invalid_header", tensors_file({"a": entry([True], 0, 4)}, bytes(4))),
    "fractional shape": ("invalid_header", tensors_file({"a": entry([1.0], 0, 4)}, bytes(4))),
    "shape larger than offsets": (
        "invalid_header",
        tensors_file({"a": entry([9], 0, 4)}, bytes(4)),
    ),
    "offsets backwards": ("invalid_header", tensors_file({"a": entry([1], 4, 0)}, bytes(4))),
    "overlap": (
        "invalid_header",
        tensors_file({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    ),
    "hole": (
        "invalid_header",
        tensors_file({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    ),
    "late start": ("invalid_header", tensors_file({"a": entry([1], 4, 8)}, bytes(8))),
    "bytes at the end": ("invalid_header", tensors_file({"a": entry([1], 0, 4)}, bytes(8))),
    "data missing": ("truncated_file", tensors_file({"a": entry([2], 0, 8)}, bytes(4))),
    "unknown dtype": ("unsupported_dtype", tensors_file({"a": entry([4], 0, 4, "F8")}, bytes(4))),
    "integers": ("unsupported_dtype", tensors_file({"a": entry([1], 0, 4, "I32")}, bytes(4))),
    "nothing": ("no_tensors", tensors_file({"__metadata__": {"format": "pt"}})),
}


@pytest.mark.parametrize(("code", "content"), LYING.values(), ids=LYING.keys())
def test_lying_safetensors_header_is_refused(tmp_path: Path, code: str, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    assert refusal(tmp_path / "m.safetensors").code == code


def test_metadata_of_another_kind_is_refused(tmp_path: Path) -> None:
    content = tensors_file({"__metadata__": {"a": 3}, "w": entry([1], 0, 4)}, bytes(4))
    (tmp_path / "m").write_bytes(content)
    assert refusal(tmp_path / "m").code == "damaged_file"


def found_globals(pickled: bytes) -> frozenset[str]:
    return pickle_globals(read_opcodes(io.BytesIO(pickled)))


def test_globals_are_named_without_importing_them() -> None:
    assert found_globals(b"cnot_a_module\nthing\n.") == {"not_a_module.thing"}
    assert found_globals(b"(inot_a_module\nthing\n.") == {"not_a_module.thing"}


@pytest.mark.parametrize(
    ("pickled", "found"),
    [
        (b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93.", "os.mkdir"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x05mkdir\x94h\x00h\x01\x93.", "os.mkdir"),
        (b"\x80\x04\x8c\x02os\x8c\x05mkdir\x8c\x01x0\x93.", UNRESOLVED),
        (b"\x80\x02\x82\x01.", UNRESOLVED),
    ],
    ids=["plain", "memo", "dropped", "extension"],
)
def test_computed_globals_are_found(pickled: bytes, found: str) -> None:
    assert found_globals(pickled) == {found}


ORIGINALS = [
    saved(STATE),
    saved(STATE, _use_new_zipfile_serialization=False),
    safetensors.torch.save(STATE),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def read_or_refuse(path: Path) -> list[torch.Tensor]:
    """The tensors read, or none where the file was refused; any other error fails the test."""
    try:
        return list(read_checkpoint(path).values())
    except InvalidModel:
        return []


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(deadline=None, max_examples=80)
@given(
    original=st.sampled_from(ORIGINALS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    keep_share=st.just(1.0) | st.floats(0, 1),
)
def test_any_damage_is_either_harmless_or_refused(
    folder: Path, original: bytes, changes: list[tuple[float, int]], keep_share: float
) -> None:
    content = bytearray(original)
    for place, value in changes:
        content[int(place * len(content))] = value
    (folder / "upload").write_bytes(content[: int(keep_share * len(content))])
    assert all(bool(tensor.isfinite().all()) for tensor in read_or_refuse(folder / "upload"))


PICKLE = zipfile.ZipFile(io.BytesIO(saved(STATE))).read("archive/data.pkl")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(deadline=None, max_examples=80)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(PICKLE) - 1), st.integers(0, 255)), min_size=1, max_size=3
    )
)
def test_any_damage_to_the_pickle_is_either_harmless_or_refused(
    folder: Path, changes: list[tuple[int, int]]
) -> None:
    pickled = bytearray(PICKLE)
    for place, value in changes:
        pickled[place] = value

    def damage(name: str, content: bytes) -> tuple[str, bytes]:
        return name, bytes(pickled) if name.endswith(".pkl") else content

    (folder / "upload").write_bytes(repacked(saved(STATE), damage))
    assert all(bool(tensor.isfinite().all()) for tensor in read_or_refuse(folder / "upload"))
