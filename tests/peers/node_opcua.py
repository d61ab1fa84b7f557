"""node-opcua as a client: runs pieces of JavaScript in tests/peers/node/run.js.

    def test_x(vedette, node):
        assert node(vedette).run("return (await session.read({nodeId: args.id})).value.value", id="ns=2;s=Tags/x") == 5

`node` is a fixture. A script that talks with its test meanwhile (say, hear) is begun with `start` and ended with `result`.
"""

import json
import os
import subprocess
from pathlib import Path

from identities import URI

HERE = Path(__file__).resolve().parent
MODULES = HERE.parents[1] / "target/node/node_modules"
# Of a script as a whole. Loading node-opcua takes a second or two; a busy machine is no fault of the program.
PATIENCE = 90.0


class Failed(AssertionError):
    """What the script threw, in node-opcua's words."""


class Node:
    """Options as run.js takes them: policy, mode, identity, user, ..."""

    def __init__(self, url: str, folder: Path, **options):
        self.options = {"url": url, "pki": str(folder / "node-pki"), "uri": URI, **options}
        self.log = folder / "node.log"
        self.process = None

    def start(self, script: str, **args) -> "Node":
        assert MODULES.is_dir(), "node-opcua is missing: scripts/test peers installs it"
        options = {"patience": PATIENCE, **self.options, "script": script, "args": args}
        environment = {**os.environ, "NODE_PATH": str(MODULES)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["node", HERE / "node/run.js", json.dumps(options, default=str)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True,
            )
        return self

    def hear(self):
        """The next thing that the script says."""
        line = self.process.stdout.readline()
        assert line, f"the script ended without a word: {self.log.read_text()}"
        said = json.loads(line)
        if isinstance(said, dict) and "error" in said:
            raise Failed(said.get("stack") or said["error"])
        return said

    def say(self, value):
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def result(self):
        """What the script returned; what it says before is passed over."""
        while True:
            said = self.hear()
            if isinstance(said, dict) and "done" in said:
                self.process.wait(PATIENCE)
                return said["done"]

    def run(self, script: str, **args):
        return self.start(script, **args).result()

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
