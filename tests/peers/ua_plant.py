"""An asyncua server in a process of its own, to be killed, frozen and started again.

    plant = Plant(folder).start(tags=100)
    plant.do("await plant.nodes['Speed'].write_value(5.0)")

Run as a program it is that server: its first argument is JSON (see `main`), each line it reads is Python to await, and it
answers each with a line of JSON.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

URI = "urn:plant"


class Plant:
    def __init__(self, folder: Path, port: int):
        self.folder, self.port = folder, port
        self.url = f"opc.tcp://127.0.0.1:{port}"
        self.log = folder / "plant.log"
        self.process = None

    def start(self, **options) -> "Plant":
        options = {"url": self.url, "folder": str(self.folder), **options}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )
        assert self.hear() == "serving"
        return self

    def hear(self):
        line = self.process.stdout.readline()
        assert line, f"the plant ended: {self.log.read_text()[-3000:]}"
        said = json.loads(line)
        assert not (isinstance(said, dict) and "error" in said), said
        return said

    def do(self, python: str):
        """Runs it inside, with `plant`, `server`, `ua` and `asyncio`; its `return` comes back."""
        self.process.stdin.write(json.dumps(python) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class NodePlant(Plant):
    """The same with node-opcua (node/serve.js); what it is told to do is JavaScript."""

    def start(self, **options) -> "NodePlant":
        options = {"port": self.port, "pki": str(self.folder / "node-pki"), **options}
        here = Path(__file__).resolve().parent
        environment = {**os.environ, "NODE_PATH": str(here.parents[1] / "target/node/node_modules")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["node", here / "node/serve.js", json.dumps(options)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True,
            )
        assert self.hear() == "serving"
        return self


async def main(options):
    import textwrap

    from asyncua import Server, ua
    from asyncua.crypto.cert_gen import setup_self_signed_certificate
    from asyncua.crypto.permission_rules import User, UserRole
    from cryptography.x509.oid import ExtendedKeyUsageOID

    class Users:
        def get_user(self, _iserver, username=None, password=None, certificate=None):
            if username is not None:
                return User(role=UserRole.User) if (username, password) == ("op", "secret") else None
            return User(role=UserRole.User)

    if options.get("users"):
        server = Server(user_manager=Users())
    else:
        server = Server()
    await server.init()
    server.set_endpoint(options["url"])
    policies = [ua.SecurityPolicyType.NoSecurity]
    if options.get("secure"):
        policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt, ua.SecurityPolicyType.Basic256Sha256_Sign]
        key, certificate = (Path(options["folder"]) / name for name in ("key.pem", "cert.der"))
        await server.set_application_uri("urn:plant:server")
        await setup_self_signed_certificate(
            key, certificate, "urn:plant:server", "localhost", [ExtendedKeyUsageOID.SERVER_AUTH], {"commonName": "Plant"}
        )
        await server.load_certificate(str(certificate))
        await server.load_private_key(str(key))
    server.set_security_policy(policies)
    for uri in options.get("before", []):
        await server.register_namespace(uri)
    index = await server.register_namespace(URI)

    class State:
        nodes = {}

    plant = State()
    plant.index = index
    folder = plant.folder = await server.nodes.objects.add_folder(ua.NodeId("Plant", index), f"{index}:Plant")

    async def add(name, value, kind, parent=folder, writable=False):
        node = await parent.add_variable(ua.NodeId(name, index), f"{index}:{name}", value, varianttype=kind)
        if writable:
            await node.set_writable()
        plant.nodes[name] = node
        return node

    plant.add = add
    if not options.get("bare"):
        speed = await add("Speed", 1.5, ua.VariantType.Double, writable=True)
        await speed.add_property(0, "EURange", ua.Range(0, 100), datatype=ua.NodeId(884))
        unit = ua.EUInformation(DisplayName=ua.LocalizedText("rpm"))
        await speed.add_property(0, "EngineeringUnits", unit, datatype=ua.NodeId(887))
        await speed.write_attribute(ua.AttributeIds.Description, ua.DataValue(ua.LocalizedText("How fast it turns")))
        await add("Count", 7, ua.VariantType.UInt32)
        await add("Text", "Füllstand", ua.VariantType.String, writable=True)
        await add("Profile", [1.0, 2.0], ua.VariantType.Double, writable=True)
        loose = await add("Loose", 3, ua.VariantType.Int16)
        await loose.write_attribute(ua.AttributeIds.DataType, ua.DataValue(ua.NodeId(24)))
    temperatures = await folder.add_folder(ua.NodeId("Temperatures", index), f"{index}:Temperatures")
    parent = temperatures
    for number in range(options.get("tags", 0)):
        # Many children of one folder take asyncua long to make.
        if number and number % 500 == 0:
            parent = await temperatures.add_folder(ua.NodeId(f"Block{number}", index), f"{index}:Block{number}")
        await add(f"Temp{number}", float(number), ua.VariantType.Double, parent)

    def say(value):
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    async with server:
        say("serving")
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            names = {"plant": plant, "server": server, "ua": ua, "asyncio": asyncio, "add": add}
            try:
                body = textwrap.indent(textwrap.dedent(json.loads(line)), "    ")
                exec(f"async def script():\n{body}\n", names)
                say(await names["script"]())
            except Exception as error:  # noqa: BLE001 - the test is told
                say({"error": repr(error)})
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
