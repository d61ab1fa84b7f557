"""Modbus devices that others wrote (pymodbus), in a process of their own, so that they can be frozen and killed.

One argument, JSON: {"tcp": PORT, "rtu": bool} or {"serial": DEVICE}, and "units": for each id the tables "coil", "discrete",
"holding", "input", each a list of [address, values]. What is in no table does not exist.
"""

import asyncio
import json
import sys

from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

TABLES = ("coil", "discrete", "holding", "input")


def device(unit, tables):
    def blocks(table):
        kind = DataType.BITS if table in TABLES[:2] else DataType.REGISTERS
        given = tables.get(table) or [[60000, [False] * 16 if kind == DataType.BITS else [0]]]
        return [SimData(address, values=values, datatype=kind) for address, values in given]

    return SimDevice(int(unit), simdata=tuple(blocks(table) for table in TABLES))


async def main(spec):
    units = [device(unit, tables) for unit, tables in spec["units"].items()]
    at = 6 if "tcp" in spec and not spec.get("rtu") else 0

    def silent(is_sent, data):
        """pymodbus answers for units that are not there, with an exception; a line does not."""
        return b"" if is_sent and str(data[at]) not in spec["units"] else data

    if "serial" in spec:
        server = ModbusSerialServer(units, port=spec["serial"], baudrate=19200, trace_packet=silent)
    else:
        framer = FramerType.RTU if spec.get("rtu") else FramerType.SOCKET
        server = ModbusTcpServer(units, framer=framer, address=("127.0.0.1", spec["tcp"]), trace_packet=silent)
    await server.serve_forever()


asyncio.run(main(json.loads(sys.argv[1])))
