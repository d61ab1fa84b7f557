"""The asyncua server of the benchmarks: the same nodes as the others'. Arguments: port, identity, pictures, rate."""

import asyncio
import struct
import sys
from pathlib import Path

from asyncua import Server, ua

NODES = 1000


def pictures(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack_from("<I", data)
        found.append(data[4:4 + size])
        data = data[4 + size:]
    return found


async def main(port, identity, path, rate):
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    policies = [ua.SecurityPolicyType.NoSecurity]
    if identity != "-":
        await server.set_application_uri("urn:vedette-test:client")
        await server.load_certificate(f"{identity}/cert.der")
        await server.load_private_key(f"{identity}/key.pem")
        policies.append(ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt)
    server.set_security_policy(policies)
    assert await server.register_namespace("urn:vedette:nodes") == 2

    async def variable(node, value, kind):
        return await server.nodes.objects.add_variable(ua.NodeId(node, 2), node, ua.Variant(value, kind))

    await variable("Tags/load/set_point", 50.0, ua.VariantType.Double)
    for wave in range(1, NODES + 1):
        await variable(f"Tags/load/waves/{wave}", wave / NODES, ua.VariantType.Double)
    frames = pictures(Path(path))
    image = await variable("Cameras/noise/Camera Image", frames[0], ua.VariantType.ByteString)
    async with server:
        print("ready", flush=True)
        count = 0
        while rate:
            await asyncio.sleep(1 / rate)
            count += 1
            await image.write_value(ua.Variant(frames[count % len(frames)], ua.VariantType.ByteString))
        await asyncio.Event().wait()


asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])))
