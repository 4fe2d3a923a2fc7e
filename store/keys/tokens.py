"""The text of a key: `cst_`, 30 random characters and their checksum, in base 62.

The checksum is the CRC-32 of the 30 characters in six digits of base 62, most significant first,
as in GitHub's tokens: what is mistyped or cut off is refused without asking the database, and a
scanner for secrets knows a real key from a text that looks like one. 30 characters hold 178 bits.

Keys made before the checksum are `cst_` and 40 hexadecimal digits. They stay good.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib

PREFIX = "cst_"
RANDOM_CHARACTERS = 30
SHOWN_CHARACTERS = len(PREFIX) + 6  # 36 of the 178 bits: enough to tell keys apart
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_CHECKSUM_DIGITS = 6
_CHECKED = re.compile(r"cst_([0-9A-Za-z]{30})([0-9A-Za-z]{6})", re.ASCII)
_BEFORE_CHECKSUMS = re.compile(r"cst_[0-9a-f]{40}", re.ASCII)


def new_key() -> str:
    """Return a new key; it cannot be made again."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return PREFIX + random + checksum(random)


def checksum(random: str) -> str:
    """Return the CRC-32 of the random part in six digits of base 62."""
    number, digits = zlib.crc32(random.encode()), ""
    for _ in range(_CHECKSUM_DIGITS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def is_well_formed(key: str) -> bool:
    """Say whether a text can be a key at all: by its checksum, or by the older form."""
    found = _CHECKED.fullmatch(key)
    if found is None:
        return _BEFORE_CHECKSUMS.fullmatch(key) is not None
    return found[2] == checksum(found[1])


def shown(key: str) -> str:
    """Return the first characters, by which people tell keys apart in a list."""
    return key[:SHOWN_CHARACTERS]


def digest(key: str, secret_key: str) -> str:
    """Return the HMAC-SHA256 under the server's secret, which is all that is kept of a key."""
    return hmac.new(secret_key.encode(), key.encode(), hashlib.sha256).hexdigest()
