import sys
from pathlib import Path

# How config/device is read stands beside the quick image's tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "image"))
