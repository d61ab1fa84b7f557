"""What collecting by Modbus TCP costs: UNITS units with REGISTERS registers each, every second, from a server of its own.

    benches/modbus.py VEDETTE [UNITS [REGISTERS [SECONDS]]]        default: 100 100 20

Prints the CPU time of the program's process as percent of one core, and how many answers a second it came to. The server is
made here, of sockets only, so that the core it shares with nobody is not its own: it answers from memory.
"""

import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CONFIG = """
[device]
log = "warn"
[ua_server]
listen = "127.0.0.1:{port}"
mdns = false
[cameras]
discover = false
[[modbus]]
name = "plc"
url = "tcp://127.0.0.1:{plc}"
[[modbus.unit]]
ids = "1-{units}"
tag = [
{tags}
]
"""


class Plc(threading.Thread):
    """Registers that count the requests."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answers = 0

    def run(self):
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self.listener:
                    peer = self.listener.accept()[0]
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(peer, selectors.EVENT_READ)
                    continue
                question = key.fileobj.recv(260)
                if len(question) < 12:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    continue
                transaction, unit, function, _, count = struct.unpack(">HxxxxBBHH", question[:12])
                self.answers += 1
                values = struct.pack(">H", self.answers & 0xFFFF) * count
                key.fileobj.sendall(struct.pack(">HHHBBB", transaction, 0, 3 + len(values), unit, function, len(values)) + values)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    binary, units, registers, seconds = sys.argv[1], *[int(n) for n in (sys.argv[2:] + [100, 100, 20][len(sys.argv) - 2 :])]
    plc = Plc()
    plc.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tags = ",\n".join(f'{{ name = "r{n}", address = {n} }}' for n in range(registers))
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "vedette.toml"
        config.write_text(CONFIG.format(port=port, plc=plc.listener.getsockname()[1], units=units, tags=tags))
        process = subprocess.Popen([binary, "run", "--config", config, "--data-dir", Path(folder) / "data"])
        try:
            while plc.answers < 2 * units:
                assert process.poll() is None, "it ended"
                time.sleep(0.1)
            time.sleep(2)
            cpu, answers, began = cpu_seconds(process.pid), plc.answers, time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            cpu, answers = cpu_seconds(process.pid) - cpu, plc.answers - answers
            memory = resident(process.pid)
        finally:
            process.terminate()
            process.wait(20)
    print(f"{units} units x {registers} registers each second: {100 * cpu / took:.2f} % of a core")
    print(f"{answers / took:.1f} answers a second, {1e6 * cpu / max(answers, 1):.0f} us of CPU each; {memory / 2**20:.1f} MiB resident")


main()
