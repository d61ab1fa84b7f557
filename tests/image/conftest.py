import sys
from pathlib import Path

# The tests import what lies beside them, and what the emulated machine of tests/vm has for UA clients.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "vm")]
from device import bundles, device  # noqa: E402, F401 fixtures
