"""Files of torch.save before torch 1.6: read where they hold tensors, refused where they lie."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cstar_core.errors import InvalidModel
from cstar_core.files.archives import ArchiveLimits
from cstar_core.files.checkpoints import CheckpointLimits, read_checkpoint
from cstar_core.files.pickle_opcodes import read_opcodes

STATE = {"weight": torch.arange(300.0), "bias": torch.ones(4)}
PARTS = ("magic number", "protocol", "system", "object", "keys")
OBJECT, KEYS, DATA = 3, 4, 5


class Whole(nn.Module):
    """A network that is saved as a whole, class and all."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)


class Malicious:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


class View:
    """A tensor of any offset, shape and strides in a storage of 300 numbers."""

    def __init__(self, *view: Any) -> None:
        self.view = view

    def __reduce__(self) -> tuple[Any, ...]:
        storage, _, _, _, *rest = STATE["weight"].__reduce_ex__(2)[1]  # type: ignore[no-untyped-call]
        return (torch._utils._rebuild_tensor_v2, (storage, *self.view, *rest))


def legacy(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False, **options)
    return buffer.getvalue()


def parts(content: bytes) -> list[bytes]:
    """The five pickles and the data behind them."""
    stream, found = io.BytesIO(content), []
    for _ in PARTS:
        begin = stream.tell()
        read_opcodes(stream)
        found.append(content[begin : stream.tell()])
    return [*found, stream.read()]


def with_part(place: int, change: Callable[[bytes], bytes], value: object = STATE) -> bytes:
    """A legacy file with one of its parts changed."""
    found = parts(legacy(value))
    changed = change(found[place])
    assert changed != found[place]
    return b"".join((*found[:place], changed, *found[place + 1 :]))


def read(path: Path, content: bytes) -> dict[str, Tensor]:
    path.write_bytes(content)
    return read_checkpoint(path)


def refusal(path: Path, content: bytes, limits: CheckpointLimits | None = None) -> InvalidModel:
    path.write_bytes(content)
    with pytest.raises(InvalidModel) as caught:
        read_checkpoint(path, limits=limits)
    return caught.value


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.th"


@pytest.fixture
def torch_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any call of torch.load fails, so nothing can be allocated by a number in the file."""
    monkeypatch.setattr(torch, "load", None)


def test_state_of_a_wrapped_network_is_read(path: Path) -> None:
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    named = OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
    found = read(path, legacy({"state_dict": named, "best_prec1": 91.7, "epoch": 200}))
    assert same(found, dict(state))


def test_parameters_and_their_metadata_are_read(path: Path) -> None:
    layer = nn.Linear(3, 2)
    assert same(read(path, legacy(layer.state_dict(keep_vars=True))), dict(layer.state_dict()))


def test_optimizer_beside_the_weights_is_dropped(path: Path) -> None:
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(300)}
    groups = [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None, "params": [0]}]
    optimizer = {"state": {0: moments}, "param_groups": groups}
    assert same(read(path, legacy({"state_dict": STATE, "optimizer": optimizer})), STATE)


def test_views_of_one_storage_are_read(path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    state = {"a": base, "b": base.T, "c": base[1:, 1], "scalar": base[1, 2], "none": base[:0]}
    assert same(read(path, legacy(state)), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(path: Path, dtype: torch.dtype) -> None:
    found = read(path, legacy({"w": torch.tensor([1.5, -2.0], dtype=dtype)}))["w"]
    assert found.dtype == torch.float32
    assert found.tolist() == [1.5, -2.0]


def test_strings_of_python_2_are_read(path: Path) -> None:
    def as_bytes(pickled: bytes) -> bytes:
        return pickled.replace(b"X\x07\x00\x00\x00storage", b"U\x07storage")

    assert same(read(path, with_part(OBJECT, as_bytes)), STATE)


def test_ordered_dictionary_of_python_2_is_read(path: Path) -> None:
    class Ordered:
        def __reduce__(self) -> tuple[Any, ...]:
            return (OrderedDict, ([[name, tensor] for name, tensor in STATE.items()],))

    assert same(read(path, legacy({"state_dict": Ordered()})), STATE)


# Twice itself in a tuple, a hundred times over: small to write, and never done hashing.
NESTED = b")" + b"q\x00h\x00\x86" * 100
ORDERED = b"ccollections\nOrderedDict\n"


@pytest.mark.usefixtures("torch_stays_out")
@pytest.mark.parametrize(
    "pickled",
    [
        b"}" + NESTED + b"Ns.",
        b"}(" + NESTED + b"Nu.",
        ORDERED + b"]](" + NESTED + b"Nea\x85R.",
        ORDERED + b"(" + NESTED + b"N\x86t\x85R.",
        ORDERED + b"]]" + NESTED + b"aa\x85R.",
    ],
    ids=["item", "items", "list of pairs", "tuple of pairs", "list of one"],
)
def test_key_that_is_never_done_hashing_is_refused(path: Path, pickled: bytes) -> None:
    content = with_part(OBJECT, lambda _: b"\x80\x02" + pickled)
    assert "dictionary" in str(refusal(path, content))


REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nan": ("not_finite", lambda: legacy({"w": torch.tensor([float("nan")])})),
    "integers": ("unsupported_dtype", lambda: legacy({"w": torch.arange(3)})),
    "sparse": ("unsupported_dtype", lambda: legacy({"w": torch.eye(3).to_sparse()})),
    "no tensors": ("no_tensors", lambda: legacy({"lr": 0.1})),
    "bare tensor": ("no_tensors", lambda: legacy(torch.ones(3))),
    "plain pickle": ("unknown_format", lambda: pickle.dumps({"lr": 0.1}, protocol=2)),
    "other protocol": ("damaged_file", lambda: legacy(STATE, pickle_protocol=4)),
    "other version": (
        "unknown_format",
        lambda: with_part(1, lambda _: pickle.dumps(1002, protocol=2)),
    ),
    "trailing garbage": ("damaged_file", lambda: legacy(STATE) + b"x"),
    "storage left out": (
        "damaged_file",
        lambda: with_part(KEYS, lambda _: pickle.dumps([], protocol=2)),
    ),
    "keys are no list": (
        "damaged_file",
        lambda: with_part(KEYS, lambda _: pickle.dumps("01", protocol=2)),
    ),
    "keys are no strings": (
        "damaged_file",
        lambda: with_part(KEYS, lambda _: pickle.dumps([0, 1], protocol=2)),
    ),
    "storage twice": (
        "damaged_file",
        lambda: with_part(KEYS, lambda p: pickle.dumps(pickle.loads(p) * 2, protocol=2)),
    ),
    "no reference": (
        "damaged_file",
        lambda: with_part(OBJECT, lambda p: p.replace(b"storage", b"savings")),
    ),
    "empty stack": ("damaged_file", lambda: with_part(OBJECT, lambda _: b"\x80\x02.")),
    "unknown memo": ("damaged_file", lambda: with_part(OBJECT, lambda _: b"\x80\x02h\x09.")),
    "unknown opcode": ("damaged_file", lambda: with_part(OBJECT, lambda p: b"\x80\x02\xff" + p)),
}


@pytest.mark.parametrize(("code", "make"), REFUSED.values(), ids=REFUSED.keys())
def test_unusable_file_is_refused_with_its_code(
    path: Path, code: str, make: Callable[[], bytes]
) -> None:
    assert refusal(path, make()).code == code


def test_whole_module_is_refused_naming_its_class(path: Path) -> None:
    error = refusal(path, legacy(Whole()))
    assert error.code == "pickled_module"
    assert f"{__name__}.Whole" in str(error)
    assert "torch.save(model.state_dict(), path)" in str(error)


@pytest.mark.parametrize("place", range(5), ids=PARTS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, path: Path, place: int, protocol: int
) -> None:
    marker = tmp_path / "marker"
    hostile = pickle.dumps(Malicious(marker), protocol=protocol)
    # A file is known by its first two bytes; without them nothing would look at the pickle.
    hostile = hostile if hostile.startswith(b"\x80") else b"\x80\x02" + hostile
    error = refusal(path, with_part(place, lambda _: hostile))
    assert error.code == "pickled_module"
    assert f"{os.mkdir.__module__}.mkdir" in str(error)
    assert not marker.exists()


def test_malicious_object_beside_the_weights_is_refused_and_not_run(
    tmp_path: Path, path: Path
) -> None:
    error = refusal(path, legacy({**STATE, "x": Malicious(tmp_path / "marker")}))
    assert error.code == "pickled_module"
    assert not (tmp_path / "marker").exists()


@pytest.mark.usefixtures("torch_stays_out")
@pytest.mark.parametrize("count", [0, 299, 301, 2**40, 2**63 - 1, -1])
def test_storage_of_another_length_than_declared_is_refused(path: Path, count: int) -> None:
    def lie(data: bytes) -> bytes:
        true = (300).to_bytes(8, "little")
        return data.replace(true, count.to_bytes(8, "little", signed=True))

    assert refusal(path, with_part(DATA, lie)).code == "damaged_file"


@pytest.mark.usefixtures("torch_stays_out")
@pytest.mark.parametrize("claim", [301, 2**31 - 1])
def test_pickle_that_claims_another_length_is_refused(path: Path, claim: int) -> None:
    def lie(pickled: bytes) -> bytes:
        return pickled.replace(b"M\x2c\x01", b"J" + claim.to_bytes(4, "little"))

    assert refusal(path, with_part(OBJECT, lie)).code == "damaged_file"


@pytest.mark.usefixtures("torch_stays_out")
def test_huge_length_that_pickle_and_data_agree_on_is_refused(path: Path) -> None:
    huge = 2**40
    content = legacy(STATE).replace((300).to_bytes(8, "little"), huge.to_bytes(8, "little"))
    content = content.replace(b"M\x2c\x01", b"\x8a\x06" + huge.to_bytes(6, "little"))
    assert refusal(path, content).code == "truncated_file"


@pytest.mark.usefixtures("torch_stays_out")
@pytest.mark.parametrize(
    "view",
    [
        (0, (2**40,), (1,)),
        (0, (301,), (1,)),
        (1, (300,), (1,)),
        (300, (), ()),
        (0, (2, 2), (300, 1)),
        (-1, (1,), (1,)),
        (0, (-2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), ()),
        (0, [2], [1]),
        (0, (2.0,), (1,)),
        (False, (2,), (1,)),
    ],
    ids=repr,
)
def test_tensor_that_reaches_past_its_storage_is_refused(path: Path, view: Any) -> None:
    assert refusal(path, legacy({"w": View(*view)})).code == "damaged_file"


@pytest.mark.parametrize("view", [(0, (300,), (1,)), (299, (), ()), (0, (15, 20), (1, 15))])
def test_tensor_that_fills_its_storage_is_read(path: Path, view: Any) -> None:
    found = read(path, legacy({"w": View(*view)}))["w"]
    offset, size, stride = view
    assert torch.equal(found, STATE["weight"].as_strided(size, stride, offset))


@pytest.mark.usefixtures("torch_stays_out")
def test_storage_declared_in_two_ways_is_refused(path: Path) -> None:
    base = torch.zeros(300)

    def lie(pickled: bytes) -> bytes:
        first = pickled.index(b"M\x2c\x01")
        second = pickled.index(b"M\x2c\x01N", first + 3)
        return pickled[:second] + b"M\x2d\x01" + pickled[second + 3 :]

    error = refusal(path, with_part(OBJECT, lie, {"a": base, "b": base[:]}))
    assert "two ways" in str(error)


LIMITS = {
    "bytes": CheckpointLimits(max_bytes=500),
    "tensors": CheckpointLimits(max_tensors=1),
    "elements": CheckpointLimits(max_elements=303),
    "pickles": CheckpointLimits(max_pickle_bytes=300),
    "opcodes": CheckpointLimits(max_opcodes=50),
    "storages": CheckpointLimits(archive=ArchiveLimits(max_entries=1)),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
def test_file_over_a_limit_is_refused(path: Path, limits: CheckpointLimits) -> None:
    assert refusal(path, legacy(STATE), limits).code == "too_large"


def test_tar_is_refused_with_the_way_out(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    error = refusal(path, path.read_bytes())
    assert error.code == "legacy_format"
    assert "torch.save(model.state_dict(), path)" in str(error)


@pytest.mark.usefixtures("torch_stays_out")
def test_legacy_file_that_is_a_tar_archive_as_well_is_refused(path: Path) -> None:
    found = parts(legacy(STATE))
    found[2] = pickle.dumps("\0" * 600, protocol=2)
    content = bytearray(b"".join(found))
    checksum = sum(content[:148]) + 8 * ord(" ") + sum(content[156:512])
    content[148:156] = f"{checksum:06o}\0 ".encode()
    assert refusal(path, bytes(content)).code == "legacy_format"


LEGACY = legacy(STATE)
LEGACY_PARTS = parts(LEGACY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@settings(deadline=None, max_examples=80)
@given(length=st.integers(2, len(LEGACY) - 1))
def test_file_cut_anywhere_is_refused_as_truncated(folder: Path, length: int) -> None:
    assert refusal(folder / "upload", LEGACY[:length]).code == "truncated_file"


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@settings(deadline=None, max_examples=80)
@given(
    part=st.sampled_from((OBJECT, KEYS)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3
    ),
)
def test_any_damage_to_the_pickles_is_either_harmless_or_refused(
    folder: Path, part: int, changes: list[tuple[float, int]]
) -> None:
    pickled = bytearray(LEGACY_PARTS[part])
    for place, value in changes:
        pickled[int(place * len(pickled))] = value
    content = b"".join((*LEGACY_PARTS[:part], bytes(pickled), *LEGACY_PARTS[part + 1 :]))
    try:
        found = read(folder / "upload", content)
    except InvalidModel:
        return
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
