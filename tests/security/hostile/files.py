"""The table of hostile files: what each is, and the code with which it must be refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Hostile:
    """A file that `build` makes; code in it would make the canary's folder.

    `at_upload` says that the first bytes give it away; everything else takes a runner.
    """

    code: str
    build: Callable[[Path], bytes]
    filename: str = "weights.pt"
    at_upload: bool = False

    @property
    def purpose(self) -> str:
        """What it is uploaded as."""
        return "dataset" if self.filename.endswith((".npz", ".zip")) else "checkpoint"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def weights(**more: Any) -> dict[str, Any]:
    return {"weight": torch.ones(3, 3), **more}


def zipped(entries: Iterable[tuple[str | zipfile.ZipInfo, bytes]], *, method: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content, compress_type=method)
    return buffer.getvalue()


def repacked(content: bytes, more: Iterable[tuple[Any, bytes]] = (), *, method: int = 0) -> bytes:
    """Write an archive again, with other compression or more entries."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    return zipped([*entries, *more], method=method)


def patched(content: bytes, entry: int, *, offset: int, layout: str, value: int) -> bytes:
    """Overwrite a field of one entry's record in the central directory (APPNOTE 4.3.12)."""
    changed, at = bytearray(content), -1
    for _ in range(entry + 1):
        at = changed.index(b"PK\x01\x02", at + 1)
    struct.pack_into(layout, changed, at + offset, value)
    return bytes(changed)


def legacy_tar(canary: Path) -> bytes:
    """What torch.save wrote before 0.1.10, with a pickle that runs code."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Evil(canary), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def torchscript(_: Path) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), buffer)
    return buffer.getvalue()


def exported(_: Path) -> bytes:
    """Write the entries by which a `.pt2` is known; exporting one takes seconds."""
    names = ("archive_format", "archive_version", "models/model.json", "data/weights/model.pt")
    return zipped([(f"model/{name}", b"pt2") for name in names])


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry, target.encode()


def tensors_file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def tiny_tensors(count: int) -> bytes:
    """Return a safetensors file of so many tensors of one number."""
    each = '"{0}":{{"dtype":"F32","shape":[1],"data_offsets":[{1},{2}]}}'
    entries = (each.format(n, 4 * n, 4 * n + 4) for n in range(count))
    return tensors_file(f"{{{','.join(entries)}}}".encode(), bytes(4 * count))


def million_entries(_: Path) -> bytes:
    """A state dict of a million numbers."""
    with zipfile.ZipFile(io.BytesIO(saved(weights()))) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    pairs = (b"(X\x07\x00\x00\x00%07dK\x01u" % number for number in range(1_000_000))
    entries[name] = b"\x80\x02}" + b"".join(pairs) + b"."
    return zipped(entries.items())


def savez(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def images(count: int = 6) -> Any:
    return np.zeros((count, 4, 4, 3), dtype=np.uint8)


def labels(count: int = 6) -> Any:
    return np.arange(count) % 2


def npy(shape: tuple[int, ...], dtype: str, data: bytes) -> bytes:
    """An array whose header says what it likes."""
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + data


def npz_bomb(_: Path) -> bytes:
    """64 KiB that unpack to 64 MiB, and claim to be 12 GB of images."""
    array = npy((1_000_000, 64, 64, 3), "|u1", bytes(64 * MEBIBYTE))
    content = [("images.npy", array), ("labels.npy", npy((6,), "<i8", labels().tobytes()))]
    return zipped(content, method=zipfile.ZIP_DEFLATED)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def png_bomb(_: Path) -> bytes:
    """Images of 50000 x 50000 pixels, of which a few megabytes of zeros are there."""
    huge = png(50_000, 50_000, zlib.compress(bytes(8 * MEBIBYTE)))
    return folders(("cat/1.png", huge), ("dog/1.png", huge))


def png_text_bomb(_: Path) -> bytes:
    """A small image with a compressed note of 256 MiB."""
    note = b"note\0\0" + zlib.compress(bytes(256 * MEBIBYTE), 1)
    small = png(4, 4, zlib.compress(bytes(4 * 13)))
    loaded = small[:33] + chunk(b"zTXt", note) + small[33:]
    return folders(("cat/1.png", loaded), ("dog/1.png", loaded))


def jpeg_bomb(_: Path) -> bytes:
    """Headers of images of 65500 x 65500 pixels."""
    frame = struct.pack(">BHHB", 8, 65_500, 65_500, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    header = b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"
    return folders(("cat/1.jpg", header), ("dog/1.jpg", header))


def folders(*entries: tuple[Any, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    return zipped(entries, method=method)


def picture() -> bytes:
    return png(4, 4, zlib.compress(bytes(4 * 13)))


def good_folders(*more: tuple[Any, bytes]) -> bytes:
    return folders(("cat/1.png", picture()), ("dog/1.png", picture()), *more)


def nested_bomb(_: Path) -> bytes:
    """A zip of zips of zeros, as 42.zip is."""
    inner = zipped([("zeros", bytes(16 * MEBIBYTE))], method=zipfile.ZIP_DEFLATED)
    for _layer in range(3):
        inner = zipped([(f"{n}.zip", inner) for n in range(4)], method=zipfile.ZIP_DEFLATED)
    return good_folders(("cat/more.zip", inner))


def lying_size(_: Path) -> bytes:
    """An entry that declares 100 bytes and unpacks to 64 MiB."""
    entries = [("images.npy", npy((6, 4, 4, 3), "|u1", bytes(64 * MEBIBYTE)))]
    content = zipped([*entries, ("labels.npy", npy((6,), "<i8", labels().tobytes()))], method=8)
    return patched(content, 0, offset=24, layout="<L", value=100)


ONE = tensor([1], 0, 4)
NPZ, ZIP, SAFE = "images.npz", "images.zip", "weights.safetensors"

HOSTILE: dict[str, Hostile] = {
    "pickle that runs code": Hostile("pickled_module", lambda c: saved(Evil(c))),
    "pickle that runs code, beside weights": Hostile(
        "pickled_module", lambda c: saved(weights(extra=Evil(c)))
    ),
    "pickle that runs code, nested": Hostile(
        "pickled_module", lambda c: saved({"state_dict": weights(), "deep": [{"er": (Evil(c),)}]})
    ),
    "pickle that runs code, protocol 4": Hostile(
        "pickled_module", lambda c: saved(weights(extra=Evil(c)), pickle_protocol=4)
    ),
    "pickle that runs code, before torch 1.6": Hostile(
        "pickled_module",
        lambda c: saved(weights(extra=Evil(c)), _use_new_zipfile_serialization=False),
        "weights.pth",
    ),
    "pickle that runs code, in a tar": Hostile(
        "unknown_format", legacy_tar, "weights.pth", at_upload=True
    ),
    "pickle that runs code, plain": Hostile(
        "unknown_format", lambda c: pickle.dumps(Evil(c)), at_upload=True
    ),
    "pickle that runs code, as labels": Hostile(
        "unsafe_array", lambda c: savez(images=images(), labels=np.array([Evil(c)] * 6)), NPZ
    ),
    "TorchScript": Hostile("torchscript", torchscript),
    "exported program": Hostile("exported_program", exported, "weights.pt2"),
    "whole module": Hostile("pickled_module", lambda _: saved(nn.Linear(2, 2))),
    "flat bomb as weights": Hostile(
        "unsafe_archive",
        lambda _: repacked(saved({"w": torch.zeros(16 * MEBIBYTE)}), method=zipfile.ZIP_DEFLATED),
    ),
    "flat bomb as arrays": Hostile("too_large", npz_bomb, NPZ),
    "bomb that lies about its size": Hostile("damaged_file", lying_size, NPZ),
    "nested bomb": Hostile("unsupported_image", nested_bomb, ZIP),
    "overlapping entries": Hostile(
        "unsafe_archive",
        lambda _: patched(
            zipped([("cat/1.png", picture()), ("dog/1.png", picture())]),
            1,
            offset=42,
            layout="<L",
            value=0,
        ),
        ZIP,
    ),
    "names that climb": Hostile(
        "unsafe_archive", lambda c: good_folders((f"../{c.name}/1.png", picture())), ZIP
    ),
    "names from the root": Hostile(
        "unsafe_archive", lambda c: good_folders((f"{c}/1.png", picture())), ZIP
    ),
    "names that climb, in weights": Hostile(
        "unsafe_archive", lambda _: repacked(saved(weights()), [("../../x", b"x")])
    ),
    "symbolic link": Hostile(
        "unsafe_archive", lambda _: good_folders(link("cat/2.png", "/etc/passwd")), ZIP
    ),
    "symbolic link in weights": Hostile(
        "unsafe_archive", lambda _: repacked(saved(weights()), [link("archive/x", "/etc/passwd")])
    ),
    "header past the end": Hostile(
        "truncated_file", lambda _: (1000).to_bytes(8, "little") + b"{}", SAFE
    ),
    "header of a gigabyte": Hostile(
        "unknown_format", lambda _: (1 << 30).to_bytes(8, "little") + b"{}", SAFE, at_upload=True
    ),
    "header with a shape that is not its bytes": Hostile(
        "invalid_header", lambda _: tensors_file({"w": tensor([9], 0, 4)}, bytes(4)), SAFE
    ),
    "header with tensors that overlap": Hostile(
        "invalid_header",
        lambda _: tensors_file({"a": ONE, "b": tensor([1], 2, 6)}, bytes(6)),
        SAFE,
    ),
    "header with negative shapes": Hostile(
        "invalid_header", lambda _: tensors_file({"w": tensor([-1, -1], 0, 4)}, bytes(4)), SAFE
    ),
    "header without an end": Hostile(
        "invalid_header", lambda _: tensors_file(b'{"a":' + b"[" * 500_000), SAFE
    ),
    "a million tensors": Hostile("invalid_header", lambda _: tiny_tensors(1_000_000), SAFE),
    "as many tensors as a header holds": Hostile(
        "too_large", lambda _: tiny_tensors(200_000), SAFE
    ),
    "a million entries in a pickle": Hostile("too_large", million_entries),
    "not a number": Hostile("not_finite", lambda _: saved({"w": torch.full((3,), torch.nan)})),
    "infinity": Hostile(
        "not_finite",
        lambda _: tensors_file({"w": ONE}, struct.pack("<f", float("inf"))),
        SAFE,
    ),
    "gigantic shape in a header": Hostile(
        "invalid_header",
        lambda _: tensors_file({"w": tensor([1 << 40, 1 << 40], 0, 4)}, bytes(4)),
        SAFE,
    ),
    "gigantic shape of one number": Hostile(
        "too_large", lambda _: saved({"w": torch.ones(1).expand(1 << 40)})
    ),
    "gigantic array": Hostile(
        "too_large",
        lambda _: zipped(
            [
                ("images.npy", npy((1 << 40, 4, 4, 3), "|u1", b"")),
                ("labels.npy", npy((1 << 40,), "<i8", b"")),
            ]
        ),
        NPZ,
    ),
    "PNG that bombs": Hostile("damaged_image", png_bomb, ZIP),
    "PNG with a note that bombs": Hostile("damaged_image", png_text_bomb, ZIP),
    "JPEG that bombs": Hostile("damaged_image", jpeg_bomb, ZIP),
    "object images": Hostile(
        "unsafe_array", lambda _: savez(images=np.array([{}] * 6), labels=labels()), NPZ
    ),
    "labels of text": Hostile(
        "wrong_dtype", lambda _: savez(images=images(), labels=np.array(["cat"] * 6)), NPZ
    ),
    "labels of fractions": Hostile(
        "wrong_dtype", lambda _: savez(images=images(), labels=labels() / 2), NPZ
    ),
    "negative labels": Hostile(
        "negative_labels", lambda _: savez(images=images(), labels=labels() - 1), NPZ
    ),
    "truncated weights": Hostile("truncated_file", lambda _: saved(weights())[:-100]),
    "truncated header": Hostile(
        "truncated_file", lambda _: tensors_file({"w": tensor([2], 0, 8)}, bytes(4)), SAFE
    ),
    "truncated arrays": Hostile(
        "truncated_file", lambda _: savez(images=images(), labels=labels())[:-50], NPZ
    ),
    "truncated images": Hostile("truncated_file", lambda _: good_folders()[:-30], ZIP),
    "empty weights": Hostile("empty_file", lambda _: b"", at_upload=True),
    "empty data set": Hostile("empty_file", lambda _: b"", NPZ, at_upload=True),
    "text as weights": Hostile("unknown_format", lambda _: b"hello, world" * 9, at_upload=True),
    "text as safetensors": Hostile(
        "unknown_format", lambda _: b"hello, world" * 9, SAFE, at_upload=True
    ),
    "program as arrays": Hostile(
        "unknown_format", lambda _: b"\x7fELF" + bytes(99), NPZ, at_upload=True
    ),
    "image as a zip": Hostile("unknown_format", lambda _: picture(), ZIP, at_upload=True),
    "weights as a data set": Hostile("unsupported_image", lambda _: saved(weights()), ZIP),
    "data set as weights": Hostile(
        "unknown_format", lambda _: savez(images=images(), labels=labels())
    ),
}
