"""A workshop to look at: an asyncua server in a process of its own, so that it can be killed and started again.

    python workshop.py PORT [--identity DIR] [--many N]

With --identity it offers Basic256Sha256 with that certificate and one user, "operator" with the password "secret"; without,
SecurityPolicy None. It prints "ready", and then each subscription that a client has it make or delete.
"""

import argparse
import asyncio
import math
import sys
from datetime import datetime, timezone
from pathlib import Path

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_session import InternalSession


class Users:
    def get_user(self, iserver, username=None, password=None, certificate=None):
        is_known = (username, password) == ("operator", "secret") or username is None
        return User(role=UserRole.User, name=username) if is_known else None


def tell(*what):
    print(*what, flush=True)


def tell_of_subscriptions():
    create, delete, close = InternalSession.create_subscription, InternalSession.delete_subscriptions, InternalSession.close_session

    async def told_create(self, *arguments, **options):
        result = await create(self, *arguments, **options)
        tell("created", result.SubscriptionId)
        return result

    async def told_delete(self, ids):
        tell("deleted", *ids)
        return await delete(self, ids)

    async def told_close(self, *arguments, **options):
        tell("closed")
        return await close(self, *arguments, **options)

    InternalSession.create_subscription, InternalSession.delete_subscriptions = told_create, told_delete
    InternalSession.close_session = told_close


async def property_of(node, name, value):
    await node.add_property(ua.NodeId(f"{node.nodeid.Identifier}.{name}", node.nodeid.NamespaceIndex), f"0:{name}", value)


async def fill(server, index, many):
    plant = await server.nodes.objects.add_object(ua.NodeId("Plant", index), f"{index}:Plant")
    line = await plant.add_object(ua.NodeId("Line 1", index), f"{index}:Line 1")

    async def add(name, value, **options):
        node = await line.add_variable(ua.NodeId(name, index), f"{index}:{name}", value, **options)
        if name not in ("Speed", "Fixed", "Running"):
            await node.set_writable()
        return node

    speed = await add("Speed", 1500.0)
    await property_of(speed, "EURange", ua.Range(Low=0.0, High=2000.0))
    await property_of(speed, "EngineeringUnits", ua.EUInformation(UnitId=5394509, DisplayName=ua.LocalizedText("rpm")))
    running = await add("Running", True)
    await add("Fixed", 1.5)
    await add("Setpoint", 20.5)
    await add("Count", 7, datatype=ua.NodeId(ua.ObjectIds.Int32), varianttype=ua.VariantType.Int32)
    await add("Small", 8, varianttype=ua.VariantType.Byte)
    await add("Name", "pump \x1b[31mred")
    await add("Numbers", [1, 2, 3], varianttype=ua.VariantType.Int32)
    await add("Start", datetime(2026, 11, 21, 14, 30, tzinfo=timezone.utc))
    await add("Picture", bytes.fromhex("ffd8ffe000046162ffc0000b0801e00280010111000102"))
    await add("Long", "x" * 5000)
    kind = await server.nodes.enum_data_type.add_data_type(ua.NodeId("States", index), f"{index}:States")
    await kind.add_property(ua.NodeId("States.EnumStrings", index), "0:EnumStrings", [ua.LocalizedText(t) for t in ("Stopped", "Running", "Broken")])
    await add("State", 1, varianttype=ua.VariantType.Int32, datatype=kind.nodeid)
    bad = await add("Bad", 3.0)
    await bad.write_value(ua.DataValue(ua.Variant(3.0, ua.VariantType.Double), ua.StatusCode(ua.StatusCodes.BadSensorFailure)))
    for side in ("Left", "Right"):
        part = await line.add_object(ua.NodeId(f"Motor {side}", index), f"{index}:Motor {side}")
        await part.add_variable(ua.NodeId(f"Motor {side}.Temperature", index), f"{index}:Temperature", 40.0)
    if many:
        folder = await server.nodes.objects.add_folder(ua.NodeId("Many", index), f"{index}:Many")
        for number in range(many):
            # asyncua looks at all children for each one that is added.
            if number % 100 == 0:
                part = await folder.add_folder(ua.NodeId(f"Part.{number}", index), f"{index}:Part {number}")
            await part.add_variable(ua.NodeId(f"Many.{number}", index), f"{index}:Tag {number}", float(number))
    return speed, running


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--identity", type=Path)
    parser.add_argument("--many", type=int, default=0)
    arguments = parser.parse_args()
    server = Server(user_manager=Users())
    await server.init()
    await server.set_application_uri("urn:vedette-test:plant")
    server.set_endpoint(f"opc.tcp://127.0.0.1:{arguments.port}/plant")
    server.set_server_name("Plant")
    if arguments.identity:
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        await server.load_certificate(arguments.identity / "cert.der")
        await server.load_private_key(arguments.identity / "key.pem")
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:plant")
    speed, running = await fill(server, index, arguments.many)
    tell_of_subscriptions()
    async with server:
        tell("ready")
        step = 0
        while True:
            await asyncio.sleep(0.1)
            step += 1
            await speed.write_value(1500.0 + 100.0 * math.sin(step / 10))
            if step % 10 == 0:
                await running.write_value(step % 20 == 0)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
