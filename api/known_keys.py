"""Keys that were found good a moment ago, so that a client that polls is not looked up each time.

Measured: the lookup took a third of a status poll, most of it the way through another thread.
The price: a key that is revoked through another process opens this one for up to `TRUSTED_S` more.
One that is revoked through this process, or that expires, is refused at once.
"""

from __future__ import annotations

import hashlib
import threading
import time

from api.principal import Principal

TRUSTED_S = 5.0
MOST = 4096


class KnownKeys:
    """Principals by the digest of their keys; only good keys are kept, and none for long."""

    def __init__(self) -> None:
        self._principals: dict[bytes, tuple[Principal, float]] = {}
        self._lock = threading.Lock()  # of the threads that look up and forget
        self.generation = 0  # rises with every `forget`

    def principal_of(self, key: str) -> Principal | None:
        """Return whose key that is, if it was good within `TRUSTED_S` and has not expired since."""
        found = self._principals.get(_digest(key))
        return found[0] if found is not None and time.monotonic() < found[1] else None

    def was_good(self, key: str) -> bool:
        """Say whether a key has been good here, however long ago."""
        return _digest(key) in self._principals

    def trust(
        self, key: str, principal: Principal, *, generation: int, good_for_s: float = TRUSTED_S
    ) -> None:
        """Keep a key that was found good by a look-up begun in `generation`.

        A look-up that some key was forgotten during may have seen that key as it was before.
        """
        with self._lock:
            if generation != self.generation:
                return
            if len(self._principals) >= MOST:
                self._principals.clear()
            until = time.monotonic() + min(TRUSTED_S, good_for_s)
            self._principals[_digest(key)] = (principal, until)

    def forget(self, key_id: str) -> None:
        """Look a key up again when it comes next: it was revoked or ends earlier."""
        with self._lock:
            self.generation += 1
            known = self._principals.items()
            stale = [digest for digest, (found, _) in known if found.key_id == key_id]
            for digest in stale:
                del self._principals[digest]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
