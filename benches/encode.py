"""Our encoder beside libjpeg-turbo's tjbench, on the same picture, in the same run. Run by scripts/bench.

Both compress planes with the accurate DCT at one quality and one subsampling. Ours starts from the packed frame, so it
pulls it apart first, and hands out bytes that are its own; tjbench does neither. They take turns, several times, and the
best of each counts: what is above it is the machine's other work.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "target"
ROUNDS = 5


def ours(case):
    """Milliseconds: of frames as they are, of limited range, and of libjpeg-turbo alone on planes that are ready."""
    options = ["--noplot", "--warm-up-time", "0.3", "--measurement-time", "1", "--sample-size", "20"]
    bench = ["cargo", "bench", "--locked", "--bench", "encode", "--", *options, f"^encode/{case}"]
    subprocess.run(bench, check=True, capture_output=True)
    best = []
    for name in [case, f"{case} limited range", f"{case} planes"]:
        sample = json.loads((TARGET / f"criterion/encode/{name}/new/sample.json").read_text())
        best.append(min(time / count for time, count in zip(sample["times"], sample["iters"])) / 1e6)
    return best


def theirs(tjbench, size, subsampling):
    """Milliseconds, and bytes."""
    options = ["-subsamp", subsampling, "-yuv", "-componly", "-nowrite", "-benchtime", "0.5", "-warmup", "0.2"]
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
        mine, their = [], {peer: [] for peer, path in peers.items() if path}
        for _ in range(ROUNDS):
            mine.append(ours(f"{size} {format}"))
            for peer, times in their.items():
                times.append(theirs(peers[peer], size, subsampling))
        full, limited, planes = (min(times) for times in zip(*mine))
        print(f"{size} {format}: {full:.2f}; from limited range {limited:.2f}; libjpeg-turbo alone on ready planes {planes:.2f}")
        for peer, times in their.items():
            best, size_in_bytes = min(times)
            print(f"    {peer}: {best:.2f} ({size_in_bytes} bytes); ours takes {full / best:.2f} of it, alone {planes / best:.2f}")
        sys.stdout.flush()
