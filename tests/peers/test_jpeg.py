"""What the repair of Motion JPEG lets through, Pillow takes: the fixtures, and what damage makes of them.

Pillow reads the header itself, more strictly than libjpeg, and then feeds libjpeg piece by piece.
"""

import os
import random
import struct
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, picture

MEND = Path(os.environ.get("VEDETTE_MEND", ROOT / "target/debug/examples/mend"))
FIXTURES = ROOT / "tests/fixtures/jpeg"


def mend(jpegs: list[bytes]) -> list[bytes]:
    """Empty where one is refused."""
    sent = b"".join(struct.pack(">I", len(data)) + data for data in jpegs)
    rest = subprocess.run([MEND], input=sent, capture_output=True, check=True, timeout=300).stdout
    found = []
    while rest:
        end = 4 + struct.unpack(">I", rest[:4])[0]
        found.append(rest[4:end])
        rest = rest[end:]
    assert len(found) == len(jpegs)
    return found


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((FIXTURES / folder).iterdir())}


def test_whole_and_mended_fixtures_are_pictures_and_the_others_are_refused():
    whole = files("whole")
    assert mend(list(whole.values())) == list(whole.values())
    for data in whole.values():
        picture(data)
    expected = picture(whole["420.jpg"]).tobytes()
    broken = files("mended")
    for name, data in zip(broken, mend(list(broken.values()))):
        assert picture(data).tobytes() == expected, name
    refused = files("refused")
    assert [name for name, data in zip(refused, mend(list(refused.values()))) if data] == []


def damage(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    if chance.random() < 0.7:
        at = min(at, chance.randrange(700))
    to = at + chance.randrange(1, 32)
    match chance.randrange(6):
        case 0:
            return data[:at] + chance.randbytes(1) + data[at + 1 :]
        case 1:
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        case 2:
            return data[:at] + data[to:]
        case 3:
            return data[:at] + chance.randbytes(to - at) + data[at:]
        case 4:
            return data[:at] + data[to:] + data[at:to]
        case _:
            return data[:at] + b"\xff\xd9"


@pytest.mark.parametrize("seed", range(int(os.environ.get("VEDETTE_SEEDS", "4"))))
def test_pillow_takes_what_damage_leaves(seed):
    chance = random.Random(seed)
    seeds = [data for folder in ["whole", "mended"] for data in files(folder).values()]
    damaged = []
    for _ in range(3000):
        data = chance.choice(seeds)
        for _ in range(chance.randrange(1, 4)):
            data = damage(chance, data) if data else data
        damaged.append(data)
    passed = [data for data in mend(damaged) if data]
    assert len(passed) > 300
    for data in passed:
        try:
            picture(data)
        except Exception as error:
            pytest.fail(f"{error!r} for {data.hex()}")
