"""Read the zip format of `torch.save` with `weights_only=True`, and nothing less strict.

Before torch sees the file: the archive is harmless to read, it holds a state dictionary rather than
TorchScript or an exported program, and its pickle does nothing but build tensors.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO

from cstar_core.errors import InvalidModel
from cstar_core.files.archives import ArchiveLimits, check_archive
from cstar_core.files.listing import listing
from cstar_core.files.pickle_opcodes import Opcode, read_opcodes
from cstar_core.files.weights_pickle import SAVE_STATE, check_pickle, damaged, load_weights


def load_archive(
    path: Path, *, limits: ArchiveLimits, max_pickle_bytes: int, max_opcodes: int
) -> object:
    """Whatever a `torch.save` archive holds, its tensors on the CPU.

    Raises `InvalidModel`: `truncated_file`, `damaged_file`, `unknown_format`, `pickled_module`,
    `torchscript`, `exported_program`, `unsafe_archive`, `too_large`, `unsupported_dtype`.
    """
    entries = check_archive(path, limits=limits, error=InvalidModel)
    _check_kind([entry.filename for entry in entries])
    pickled = _pickle_entry(entries)
    if pickled.file_size > max_pickle_bytes:
        raise InvalidModel(
            f"data.pkl has {pickled.file_size} bytes; at most {max_pickle_bytes} are read. "
            f"{SAVE_STATE}",
            code="too_large",
        )
    with path.open("rb") as stream:
        check_pickle(_opcodes(stream, pickled, limit=max_opcodes))
        return load_weights(stream)


def _opcodes(stream: IO[bytes], entry: zipfile.ZipInfo, *, limit: int) -> tuple[Opcode, ...]:
    try:
        with zipfile.ZipFile(stream) as archive:
            content = archive.read(entry)
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as failure:
        raise damaged(failure) from failure
    return read_opcodes(io.BytesIO(content), limit=limit)


def _check_kind(names: list[str]) -> None:
    """Refuse archives that torch writes for programs; their names are inside one folder."""
    inner = {name.partition("/")[2] for name in names}
    if inner & {"archive_format", "models/model.json"} or {
        "serialized_exported_program.json",
        "serialized_state_dict.pt",
    } & set(names):
        raise InvalidModel(
            f"This is an exported program (.pt2), which is never loaded. {SAVE_STATE}",
            code="exported_program",
        )
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise InvalidModel(
            f"This is a TorchScript archive, which is not read. {SAVE_STATE}", code="torchscript"
        )


def _pickle_entry(entries: tuple[zipfile.ZipInfo, ...]) -> zipfile.ZipInfo:
    """The one data.pkl of an archive laid out as torch.save does.

    One folder, nothing compressed, and no two names alike but for case: torch's zip reader would
    take them for one, and then the pickle that was checked is not the one that is loaded.
    """
    pickles = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]
    if not pickles:
        names = listing(entry.filename for entry in entries)
        raise InvalidModel(
            f"The zip archive is no torch.save file (entries: {names}). {SAVE_STATE}",
            code="unknown_format",
        )
    folders = {entry.filename.partition("/")[0] for entry in entries}
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    alike = len({entry.filename.lower() for entry in entries}) != len(entries)
    expected = [f"{folder}/data.pkl" for folder in folders]
    if compressed or alike or [entry.filename for entry in pickles] != expected:
        raise InvalidModel(
            f"The archive is not laid out as torch.save writes it. {SAVE_STATE}",
            code="unsafe_archive",
        )
    return pickles[0]
