"""The obvious is refused at once; the rest is decided by the validation, in the sandbox."""

from __future__ import annotations

from api.errors import UnknownFormat

_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before torch 1.6
_MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit

_ACCEPTED = {
    "checkpoint": "a checkpoint is a safetensors file or a state dict written by torch.save",
    "dataset": "a data set is an .npz file or a .zip of class folders of PNG or JPEG images",
}


def check_format(purpose: str, head: bytes) -> None:
    """Check the first bytes of a file (at least 16, if it has as many); raises UnknownFormat."""
    known = head.startswith(_ZIP)
    if purpose == "checkpoint":
        known = known or head.startswith(_TORCH_LEGACY) or _looks_like_safetensors(head)
    if not known:
        raise UnknownFormat(
            f"The file begins with {head[:8].hex(' ')}, which is none of the formats read: "
            f"{_ACCEPTED[purpose]}."
        )


def _looks_like_safetensors(head: bytes) -> bool:
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= _MAX_HEADER_BYTES and head[8:9] == b"{"
