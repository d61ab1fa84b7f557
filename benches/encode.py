"""Our encoder beside libjpeg-turbo's tjbench, on the same picture, in the same run. Run by scripts/bench.

Both compress planes with the accurate DCT at one quality and one subsampling. Ours starts from the packed frame, so it
pulls it apart first, and hands out bytes that are its own; tjbench does neither. They take turns, several times, and the
best of each counts: the others are the machine's other work.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "target"
ROUNDS = 3


def ours(name):
    """Milliseconds."""
    subprocess.run(
        ["cargo", "bench", "--locked", "--bench", "encode", "--", "--noplot", "--measurement-time", "4", f"^encode/{name}$"],
        check=True, capture_output=True,
    )
    return json.loads((TARGET / f"criterion/encode/{name}/new/estimates.json").read_text())["median"]["point_estimate"] / 1e6


def theirs(tjbench, size, subsampling):
    """Milliseconds, and bytes."""
    options = ["-subsamp", subsampling, "-yuv", "-componly", "-nowrite", "-benchtime", "4", "-warmup", "1"]
    # The accurate DCT is the default since 3.0, where this option has another name.
    for accurate in [["-accuratedct"], ["-dct", "int"]]:
        done = subprocess.run([tjbench, TARGET / f"tmp/bench-{size}.ppm", "80", *options, *accurate], capture_output=True, text=True)
        if done.returncode == 0 and "Comp from YUV" in done.stdout:
            break
    result = done.stdout[done.stdout.index("Comp from YUV") :]
    rate = re.search(r"Frame rate:\s+([\d.]+) fps", result)[1]
    return 1000 / float(rate), int(re.search(r"image size:\s+(\d+) bytes", result)[1])


# The bundled one is built by our own build script with the same options as what we link.
bundled = max(TARGET.glob("release/build/turbojpeg-sys-*/out/bin/tjbench"), key=lambda path: path.stat().st_mtime, default=None)
peers = {"Debian's tjbench": "tjbench", "tjbench of the linked version": bundled}
print(f"Milliseconds a frame, best of {ROUNDS} rounds in turn.")
for size in ["720p", "1080p"]:
    for format, subsampling in [("YUYV", "422"), ("NV12", "420")]:
        names = [f"{size} {format}", f"{size} {format} limited range", f"{size} {format} planes"]
        rounds = [
            ([ours(name) for name in names], {peer: theirs(path, size, subsampling) for peer, path in peers.items() if path})
            for _ in range(ROUNDS)
        ]
        full, limited, planes = (min(mine[index] for mine, _ in rounds) for index in range(3))
        print(f"{size} {format}: {full:.2f}; from limited range {limited:.2f}; libjpeg-turbo alone on ready planes {planes:.2f}")
        for peer in rounds[0][1]:
            best, size_in_bytes = min(their[peer] for _, their in rounds)
            print(f"    {peer}: {best:.2f} ({size_in_bytes} bytes); ours takes {full / best:.3f} of it")
        sys.stdout.flush()
