import sys
from pathlib import Path

# The tests import machine.py, which lies beside them and is no package.
sys.path.insert(0, str(Path(__file__).parent))
