"""JPEGs for a camera to send, whole, and broken in the ways that cameras break them (ITU-T T.81)."""

import io
import random

from PIL import Image

SIZE = (320, 240)


def whole(seed: int, size: tuple[int, int] = SIZE, **options) -> bytes:
    """A picture with something in every block, another for each seed; `options` are those of Pillow's JPEG writer."""
    mode = options.pop("mode", "RGB")
    coarse = Image.new(mode, (size[0] // 16, size[1] // 16))
    noise = random.Random(seed)
    bands = len(coarse.getbands())
    levels = [tuple(noise.randrange(256) for _ in range(bands)) for _ in range(coarse.width * coarse.height)]
    coarse.putdata(levels if bands > 1 else [level[0] for level in levels])
    file = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", **{"quality": 80, **options})
    return file.getvalue()


def segments(jpeg: bytes) -> list[tuple[int, bytes]]:
    """What stands before the scan's data: markers, each with its whole segment; at last SOS with all that follows."""
    found, at = [], 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((jpeg[at + 1], jpeg[at:end]))
        at = end
    return [*found, (0xDA, jpeg[at:])]


def without_tables(jpeg: bytes) -> bytes:
    """As AVI has it: no Huffman tables, for everybody knows them."""
    return jpeg[:2] + b"".join(segment for marker, segment in segments(jpeg) if marker != 0xC4)


def with_thumbnail(jpeg: bytes) -> bytes:
    """With a whole small JPEG, from SOI to EOI, in an APP1 segment, as Exif has it."""
    inner = b"Exif\0\0" + whole(0, (32, 32))
    return jpeg[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + jpeg[2:]


def with_fill_bytes(jpeg: bytes) -> bytes:
    """FF bytes before each marker, which T.81 (B.1.1.2) allows."""
    return jpeg[:2] + b"".join(b"\xff\xff" + segment for _, segment in segments(jpeg))


def cut(jpeg: bytes, part: float) -> bytes:
    return jpeg[: int(len(jpeg) * part)]


def without_start(jpeg: bytes) -> bytes:
    return jpeg[2:]


def ended_early(jpeg: bytes) -> bytes:
    """The last third of the scan is missing, but somebody has put an EOI there."""
    return cut(jpeg, 2 / 3) + b"\xff\xd9"


def with_wild_length(jpeg: bytes) -> bytes:
    """The first segment claims to go on far behind the end."""
    return jpeg[:4] + b"\xff\xfe" + jpeg[6:]


def with_marker_in_scan(jpeg: bytes) -> bytes:
    """A marker that is none in the middle of the scan: Pillow refuses it."""
    middle = len(jpeg) // 2
    return jpeg[:middle] + b"\xff\xc0" + jpeg[middle:]


def with_noise(jpeg: bytes, seed: int) -> bytes:
    """Some of the scan's bytes are others, as by a bad cable; Pillow refuses about one in ten of these."""
    noise = random.Random(seed + len(jpeg))
    damaged = bytearray(jpeg)
    scan = len(jpeg) - len(segments(jpeg)[-1][1]) + 20
    for _ in range(20):
        damaged[noise.randrange(scan, len(jpeg) - 2)] = noise.randrange(256)
    return bytes(damaged)
