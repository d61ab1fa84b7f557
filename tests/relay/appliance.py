"""The appliance and its broker, as the peers' tests start them."""

import importlib.util
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"


def load():
    """Their conftest.py under another name, because there is one here."""
    sys.path.append(str(PEERS))
    spec = importlib.util.spec_from_file_location("peers", PEERS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module
    spec.loader.exec_module(module)
    return module


peers = load()
