"""Read an untrusted checkpoint, write a trusted one.

Accepted: safetensors, and both formats of `torch.save` (zip, and that of torch before 1.6) read
with `weights_only=True`. Nothing falls back to an unrestricted unpickler. Everything else is
refused with a stable code and the next step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from cstar_core.errors import InvalidModel
from cstar_core.files.archives import ZIP_MAGIC, ArchiveLimits
from cstar_core.files.listing import shown
from cstar_core.files.safetensors_header import check_header, looks_like_safetensors
from cstar_core.files.state_dicts import find_state, strip_prefixes, to_float32
from cstar_core.files.torch_archive import load_archive
from cstar_core.files.torch_legacy import is_tar, load_legacy, looks_pickled, tar_refusal
from cstar_core.files.weights_pickle import SAVE_STATE


@dataclass(frozen=True, kw_only=True)
class CheckpointLimits:
    """How large an uploaded checkpoint may be: bytes, and numbers over all of its tensors.

    `archive.max_entries` holds for the storages of a file without an archive, too.
    """

    max_bytes: int = 4 * 2**30
    max_tensors: int = 10_000
    max_elements: int = 500_000_000
    max_pickle_bytes: int = 4 * 2**20
    max_opcodes: int = 1_000_000
    max_header_bytes: int = 16 * 2**20
    archive: ArchiveLimits = field(default_factory=ArchiveLimits)


def read_checkpoint(
    path: Path | str, *, limits: CheckpointLimits | None = None
) -> dict[str, Tensor]:
    """The weights in an untrusted file: contiguous float32 tensors on the CPU, by name.

    Nested dictionaries are entered, and prefixes such as `module.` dropped
    (`cstar_core.files.state_dicts`). Raises `InvalidModel` with one of the codes `empty_file`,
    `unknown_format`, `truncated_file`, `damaged_file`, `invalid_header`, `legacy_format`,
    `pickled_module`, `torchscript`, `exported_program`, `unsafe_archive`, `too_large`,
    `no_tensors`, `unsupported_dtype`, `not_finite`.
    """
    limits = limits or CheckpointLimits()
    state = find_state(_load(Path(path), limits=limits))
    if len(state) > limits.max_tensors:
        raise InvalidModel(
            f"The file holds {len(state)} tensors; at most {limits.max_tensors} are read.",
            code="too_large",
        )
    return to_float32(strip_prefixes(state), max_elements=limits.max_elements)


def write_weights(
    state: Mapping[str, Tensor], path: Path | str, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, on the CPU and contiguous; equal input gives equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    serialized = safetensors.torch.save(tensors, metadata=dict(metadata or {}))
    length = int.from_bytes(serialized[:8], "little")
    header = json.loads(serialized[8 : 8 + length])
    # The library writes the metadata in no fixed order, which would change the file's digest.
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.write(memoryview(serialized)[8 + length :])


def _load(path: Path, *, limits: CheckpointLimits) -> object:
    size = path.stat().st_size
    if size == 0:
        raise InvalidModel("The file is empty; upload it again.", code="empty_file")
    if size > limits.max_bytes:
        raise InvalidModel(
            f"The file has {size} bytes; at most {limits.max_bytes} are read. {SAVE_STATE}",
            code="too_large",
        )
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith(ZIP_MAGIC):
        return load_archive(
            path,
            limits=limits.archive,
            max_pickle_bytes=limits.max_pickle_bytes,
            max_opcodes=limits.max_opcodes,
        )
    if looks_like_safetensors(head):
        return _load_safetensors(path, limits=limits)
    if is_tar(head):
        raise tar_refusal()
    if looks_pickled(head):
        return load_legacy(
            path,
            max_pickle_bytes=limits.max_pickle_bytes,
            max_opcodes=limits.max_opcodes,
            max_storages=limits.archive.max_entries,
        )
    raise InvalidModel(
        f"The file is neither safetensors nor written by torch.save. {SAVE_STATE}",
        code="unknown_format",
    )


def _load_safetensors(path: Path, *, limits: CheckpointLimits) -> dict[str, Tensor]:
    check_header(path, max_header_bytes=limits.max_header_bytes, max_tensors=limits.max_tensors)
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, ValueError, RuntimeError) as failure:
        raise InvalidModel(
            f"The safetensors file is damaged ({shown(str(failure))}); save the weights again.",
            code="damaged_file",
        ) from failure
