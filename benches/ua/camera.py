"""A camera for `device = "pipe"`: writes the pictures of a file in turn, so many a second; 0: one, and no more."""

import struct
import sys
import time
from pathlib import Path

data, frames = Path(sys.argv[1]).read_bytes(), []
while data:
    (size,) = struct.unpack_from("<I", data)
    frames.append(data[4:4 + size])
    data = data[4 + size:]
rate = float(sys.argv[2])
begin, count = time.monotonic(), 0
while True:
    sys.stdout.buffer.write(frames[count % len(frames)])
    sys.stdout.buffer.flush()
    count += 1
    time.sleep(max(0, begin + count / rate - time.monotonic()) if rate else 3600)
