"""Stand-ins for shared libraries that OpenCV's module names but that our three calls into it (resize, filter, warp) never reach.

`cv2.abi3.so` is linked against FFmpeg, OpenBLAS, libavif and libpng, 83 MB with what they need in turn; the loader wants each of them
to exist and to define the functions that are named. A stand-in defines just these, and each of them ends the process with a message.
"""

import re
import subprocess
from pathlib import Path

MODULE = "cv2/cv2.abi3.so"
LIBRARIES = "opencv_python_headless.libs"
SOURCE = """#include <stdlib.h>
#include <unistd.h>
static void left_out(void) {
    static const char text[] = "slipway: OpenCV called into %s, which this image leaves out\\n";
    if (write(2, text, sizeof text - 1) < 0) _exit(1);
    abort();
}
"""


def write_stand_ins(site: Path) -> int:
    """Bytes saved below `site` by putting a stand-in for each library that the module names, and nothing for what those need.

    Raises: ValueError when the module wants data of one of them, not only functions; CalledProcessError.
    """
    folder, module = site / LIBRARIES, site / MODULE
    before = _size(folder)
    named = re.findall(r"NEEDED.*\[(.+)\]", _output("readelf", "-d", module))
    wanted = {name for name, _ in _symbols(_output("nm", "-D", "--undefined-only", module))}
    for library in sorted(folder.iterdir()):
        if library.name in named:
            _replace(library, wanted)
        else:
            library.unlink()
    return before - _size(folder)


def _replace(library: Path, wanted: set[str]) -> None:
    """Put a library in `library`'s place that defines what is `wanted` of it, under the same versions."""
    defined = {name: kind for name, kind in _symbols(_output("nm", "-D", "--defined-only", library)) if name in wanted}
    if data := sorted(name for name, kind in defined.items() if kind not in "TWi"):
        raise ValueError(f"OpenCV uses data of {library.name}, not only functions: {', '.join(data)}: no stand-in can do that")
    versions: dict[str, list[str]] = {}
    for symbol in defined:
        name, _, version = symbol.replace("@@", "@").partition("@")
        versions.setdefault(version, []).append(name)
    source, script = library.with_suffix(".c"), library.with_suffix(".map")
    functions = [f'void {name}(void) __attribute__((alias("left_out")));' for names in versions.values() for name in names]
    source.write_text(SOURCE % library.name + "\n".join(functions) + "\n")
    script.write_text("".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in versions.items() if version))
    options = [f"-Wl,-soname,{library.name}", *([f"-Wl,--version-script={script}"] if any(versions) else [])]
    subprocess.run(["gcc", "-shared", "-fPIC", "-Os", "-s", "-fno-builtin", "-w", *options, "-o", library, source], check=True)
    source.unlink()
    script.unlink()


def _symbols(listing: str) -> list[tuple[str, str]]:
    """Name with version, and kind, of each symbol that nm lists; of a default version as well as of a wanted one with one @."""
    found = [line.split()[-2:] for line in listing.splitlines() if len(line.split()) >= 2]
    return [(name.replace("@@", "@"), kind) for kind, name in found]


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
