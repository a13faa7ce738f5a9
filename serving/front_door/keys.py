"""API keys from a mounted file of hashes: who may ask, and how often. The file may change at any time; keys are never stored.

A line of the file is `NAME SHA256 [REQUESTS_PER_SECOND]`; lines that start with # and empty ones are skipped. `slipway key NAME` makes one.
"""

import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from serving.front_door.errors import ApiError

LOOK_S = 1.0
BURST_S = 1.0
LINE = re.compile(r"(?P<name>[\w.-]{1,64})\s+(?P<hash>[0-9a-f]{64})(?:\s+(?P<rate>\d+(?:\.\d+)?))?")
log = logging.getLogger(__name__)


@dataclass
class Key:
    """One caller, and a bucket of the requests it may still send: it fills with `rate` a second up to one second's worth, at least one."""

    name: str
    digest: bytes
    rate: float | None = None
    left: float = field(init=False, compare=False)
    at: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self.left, self.at = self._most, time.monotonic()

    @property
    def _most(self) -> float:
        return max(1.0, (self.rate or 0.0) * BURST_S)

    def take(self, now: float) -> float:
        """0 and one request fewer, or the seconds until there is one again."""
        if self.rate is None:
            return 0.0
        self.left, self.at = min(self._most, self.left + (now - self.at) * self.rate), now
        if self.left < 1:
            return (1 - self.left) / self.rate if self.rate else 3600.0
        self.left -= 1
        return 0.0


class Keys:
    """The keys of a file, read again within a second of a change; a file that became unreadable leaves the last good keys in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._now()
        self._keys = read_keys(path)
        self._looked = time.monotonic()

    def admit(self, authorization: bytes | None, api_key: bytes | None) -> str:
        """The name of the caller whose key came as `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Raises: ApiError 401 NoKey or WrongKey; 429 TooManyRequests with Retry-After.
        """
        self._look()
        given = api_key or (authorization[7:] if authorization and authorization[:7].lower() == b"bearer " else None)
        if not given:
            raise _unauthorised("NoKey", "got no key, wanted the header Authorization: Bearer KEY, or X-API-Key: KEY")
        digest = hashlib.sha256(given.strip()).digest()
        found = None
        for key in self._keys:  # every one of them, so that time does not tell which
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise _unauthorised("WrongKey", "got a key that is not known here: ask whoever runs this server for one")
        if wait_s := found.take(time.monotonic()):
            message = f"got more than {found.rate:g} requests a second of {found.name}: send it again after {wait_s:.2g} s"
            raise ApiError(429, "TooManyRequests", message, headers={"retry-after": str(int(wait_s) + 1)})
        return found.name

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if (stamp := self._now()) == self._stamp:
            return
        try:
            fresh = {key.name: key for key in read_keys(self._path)}
        except (OSError, ValueError) as error:
            log.warning("keys are left as they were: %s", error)
        else:
            same = {key.name: key for key in self._keys if key == fresh.get(key.name)}
            self._keys, self._stamp = [same.get(name, key) for name, key in fresh.items()], stamp
            log.warning("%d keys read from %s", len(self._keys), self._path)

    def _now(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size


def read_keys(path: Path) -> list[Key]:
    """The keys in the file at `path`.

    Raises: ValueError that names the line which is none, and for a file without keys or with a name twice; OSError.
    """
    keys: list[Key] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"{path}, line {number}: wanted NAME SHA256 [REQUESTS_PER_SECOND], as `slipway key NAME` prints it")
        keys.append(Key(match["name"], bytes.fromhex(match["hash"]), float(match["rate"]) if match["rate"] else None))
    if not keys or len({key.name for key in keys}) != len(keys):
        raise ValueError(f"{path}: wanted at least one key and every name once, got {', '.join(key.name for key in keys) or 'none'}")
    return keys


def new_key(name: str, *, rate: float | None = None) -> tuple[str, str]:
    """A fresh key of 256 random bits, and the line that admits it.

    Raises: ValueError for a name that a file of keys cannot hold.
    """
    key = f"sw_{secrets.token_urlsafe(32)}"
    line = f"{name} {hashlib.sha256(key.encode()).hexdigest()}" + (f" {rate:g}" if rate is not None else "")
    if LINE.fullmatch(line) is None:
        raise ValueError(
            f"wanted a NAME of letters, digits, dots and dashes, at most 64, and a rate like 20 or 0.5; got {name!r} and {rate}"
        )
    return key, line


def _unauthorised(kind: str, message: str) -> ApiError:
    return ApiError(401, kind, message, headers={"www-authenticate": 'Bearer realm="slipway"'})
