"""Speaks with a worker of the relay through its pipes, as src/relay/protocol.rs has it.

Messages are postcard (a public format: varints, zigzag, enums by number). Values are Python's: ("R8", 1.5), ("Array", [2, 3], "I4", [...]).
"""

import os
import queue
import struct
import subprocess
import threading
import time
from pathlib import Path

PATIENCE = 60.0

SCALARS = ["Empty", "Null", "Bool", "I1", "U1", "I2", "U2", "I4", "U4", "I8", "U8", "R4", "R8", "Cy", "Date", "Text", "Error",
           "Decimal", "Array", "Unsupported"]
ELEMENTS = ["Bool", "I1", "U1", "I2", "U2", "I4", "U4", "I8", "U8", "R4", "R8", "Cy", "Date", "Text", "Error", "Variant"]
SIGNED = {"I2", "I4", "I8", "Cy", "Error"}
UNSIGNED = {"U2", "U4", "U8", "Unsupported"}
FLOATS = {"R4": "<f", "R8": "<d", "Date": "<d", "Decimal": "<d"}
REPLIES = ["Failed", "Done", "Status", "Entries", "Properties", "Values", "Written", "Group", "Added"]
EVENTS = ["Started", "NotStarted", "Data", "Shutdown", "Said"]
REQUESTS = ["Status", "Browse", "Properties", "Read", "Write", "AddGroup", "SetGroup", "RemoveGroup", "AddItems", "RemoveItems",
            "Refresh", "PollGroup"]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    return varint(number * 2 if number >= 0 else -number * 2 - 1)


def text(value: str) -> bytes:
    raw = value.encode()
    return varint(len(raw)) + raw


def listed(values, each) -> bytes:
    return varint(len(values)) + b"".join(each(value) for value in values)


def option(value, each) -> bytes:
    return b"\0" if value is None else b"\1" + each(value)


def plain(kind: str, value) -> bytes:
    if kind == "Bool":
        return bytes([value])
    if kind in ("I1", "U1"):
        return bytes([value & 0xFF])
    if kind in SIGNED:
        return zigzag(value)
    if kind in UNSIGNED:
        return varint(value)
    if kind in FLOATS:
        return struct.pack(FLOATS[kind], value)
    return text(value) if kind == "Text" else b""


def da_value(value) -> bytes:
    kind = value[0]
    head = varint(SCALARS.index(kind))
    if kind != "Array":
        return head + plain(kind, value[1] if len(value) > 1 else None)
    _, dimensions, element, values = value
    each = da_value if element == "Variant" else lambda one: plain(element, one)
    return head + listed(dimensions, varint) + varint(ELEMENTS.index(element)) + listed(values, each)


class Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def raw(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        assert len(piece) == count, "the message is too short"
        self.at += count
        return piece

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.raw(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def zigzag(self) -> int:
        number = self.varint()
        return number >> 1 if number % 2 == 0 else -(number + 1 >> 1)

    def text(self) -> str:
        return self.raw(self.varint()).decode()

    def listed(self, each) -> list:
        return [each() for _ in range(self.varint())]

    def option(self, each):
        return each() if self.raw(1)[0] else None

    def flag(self) -> bool:
        return self.raw(1)[0] != 0

    def result(self, each):
        """A value, or an HRESULT as an Error."""
        return each() if self.varint() == 0 else Error(self.zigzag())

    def plain(self, kind: str):
        if kind == "Bool":
            return self.flag()
        if kind == "I1":
            return struct.unpack("<b", self.raw(1))[0]
        if kind == "U1":
            return self.raw(1)[0]
        if kind in SIGNED:
            return self.zigzag()
        if kind in UNSIGNED:
            return self.varint()
        if kind in FLOATS:
            return struct.unpack(FLOATS[kind], self.raw(4 if kind == "R4" else 8))[0]
        return self.text()

    def da_value(self):
        kind = SCALARS[self.varint()]
        if kind in ("Empty", "Null"):
            return (kind,)
        if kind != "Array":
            return (kind, self.plain(kind))
        dimensions = self.listed(self.varint)
        element = ELEMENTS[self.varint()]
        each = self.da_value if element == "Variant" else lambda: self.plain(element)
        return ("Array", dimensions, element, self.listed(each))

    def reading(self):
        return {"value": self.da_value(), "quality": self.varint(), "time": self.varint()}

    def failure(self):
        return {"call": self.text(), "hresult": self.zigzag() & 0xFFFFFFFF}

    def entry(self):
        return {"name": self.text(), "item_id": self.option(self.text), "is_branch": self.flag(), "is_item": self.flag()}

    def property(self):
        return {"id": self.varint(), "description": self.text(), "data_type": self.varint(), "value": self.result(self.da_value)}

    def status(self):
        names = ["start", "current", "last_update", "state", "groups", "bandwidth", "major", "minor", "build"]
        status = {name: self.varint() for name in names}
        return status | {"vendor": self.text()}

    def reply(self):
        kind = REPLIES[self.varint()]
        match kind:
            case "Failed":
                return kind, self.failure()
            case "Done":
                return kind, None
            case "Status":
                return kind, self.status()
            case "Entries":
                return kind, {"entries": self.listed(self.entry), "more": self.flag()}
            case "Properties":
                return kind, self.listed(lambda: self.result(lambda: self.listed(self.property)))
            case "Values":
                return kind, self.listed(lambda: self.result(self.reading))
            case "Written":
                return kind, [number & 0xFFFFFFFF for number in self.listed(self.zigzag)]
            case "Group":
                return kind, {"revised_rate": self.varint(), "result": self.zigzag()}
            case "Added":
                added = lambda: {"canonical_type": self.varint(), "access_rights": self.varint()}
                return kind, self.listed(lambda: self.result(added))

    def event(self):
        kind = EVENTS[self.varint()]
        match kind:
            case "Started":
                can = {"clsid": self.text(), "prog_id": self.text()}
                names = ["browse3", "browse2", "properties", "item_io", "wide"]
                return kind, can | {name: self.flag() for name in names}
            case "NotStarted":
                return kind, self.failure()
            case "Data":
                value = lambda: (self.varint(), self.result(self.reading))
                return kind, {"group": self.varint(), "values": self.listed(value)}
            case _:
                return kind, self.text()

    def message(self):
        if self.varint() == 0:
            return ("reply", self.varint(), *self.reply())
        return ("event", None, *self.event())


class Error(int):
    """An HRESULT in the place of a value."""

    def __new__(cls, number: int):
        return super().__new__(cls, number & 0xFFFFFFFF)

    def __repr__(self):
        return f"Error(0x{self:08X})"


def words_of(pid) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def program(process: subprocess.Popen) -> int:
    """The process of this machine that runs the program. One of 32 bits is nobody's child: what was started is a start.exe that waits
    for it. Of several with the same arguments it is the newest."""
    if b"start.exe" not in words_of(process.pid)[0]:
        return process.pid
    # The first two are Wine and the program, and start.exe does not show all of them.
    arguments = [os.fsencode(word) for word in process.args[2:]]
    began = lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    others = [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if words_of(folder.name)[1 : 1 + len(arguments)] == arguments
    ]
    assert others, f"nobody runs {arguments}"
    return max(others, key=began)


class Worker:
    """The process, and what it said."""

    def __init__(self, command, log):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.events = queue.Queue()
        self.replies = {}
        self.changed = threading.Condition()
        self.ended = False
        self.last = 0
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        pipe = self.process.stdout
        while len(head := pipe.read(4)) == 4:
            (kind, number, what, body) = Reader(pipe.read(*struct.unpack("<I", head))).message()
            with self.changed:
                if kind == "event":
                    self.events.put((what, body))
                else:
                    self.replies.setdefault(number, []).append((time.monotonic(), what, body))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def send(self, request: str, body: bytes = b"") -> int:
        self.last += 1
        message = varint(self.last) + varint(REQUESTS.index(request)) + body
        self.process.stdin.write(struct.pack("<I", len(message)) + message)
        self.process.stdin.flush()
        return self.last

    def wait(self, number: int, patience: float = PATIENCE):
        """All replies up to the last one; None if it never comes."""
        is_last = lambda reply: reply[1] != "Entries" or not reply[2]["more"]
        there = lambda: any(is_last(reply) for reply in self.replies.get(number, []))
        with self.changed:
            self.changed.wait_for(lambda: there() or self.ended, patience)
            return self.replies[number] if there() else None

    def ask(self, request: str, body: bytes = b"", expect: str | None = None):
        replies = self.wait(self.send(request, body))
        assert replies, f"{request}: no answer"
        what, body = replies[-1][1:]
        assert what == (expect or what), (what, body)
        return body

    # What can be asked.

    def status(self):
        return self.ask("Status", expect="Status")

    def browse_body(self, *names, item_id=None) -> bytes:
        return listed(names, text) + option(item_id, text)

    def browse(self, *names, item_id=None) -> list:
        replies = self.wait(self.send("Browse", self.browse_body(*names, item_id=item_id)))
        assert replies and replies[-1][1] == "Entries", replies
        return [entry for _, _, body in replies for entry in body["entries"]]

    def properties(self, items, ids=None):
        body = listed(items, text) + option(ids, lambda ids: listed(ids, varint))
        return self.ask("Properties", body, "Properties")

    def read(self, *items, cache=False):
        return self.ask("Read", listed(items, text) + varint(0 if cache else 1), "Values")

    def write(self, *pairs):
        return self.ask("Write", listed(pairs, lambda pair: text(pair[0]) + da_value(pair[1])), "Written")

    def command(self, words: str):
        return self.write(("Control", ("Text", words)))

    def group(self, request: str, number: int, rate=100, deadband=0.0, active=True):
        settings = varint(rate) + struct.pack("<f", deadband) + bytes([active])
        return self.ask(request, varint(number) + settings, "Group")

    def add_items(self, group: int, items: dict):
        each = lambda item: varint(item[0]) + text(item[1])
        return self.ask("AddItems", varint(group) + listed(list(items.items()), each), "Added")

    def remove_items(self, group: int, handles):
        return self.ask("RemoveItems", varint(group) + listed(handles, varint), "Done")

    def next(self, wanted: str, patience: float = PATIENCE):
        """The next event of this kind; others are passed over."""
        deadline = time.monotonic() + patience
        while True:
            try:
                what, body = self.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if what == wanted:
                return body

    def values_until(self, condition, patience: float = PATIENCE) -> dict:
        """(group, handle) to its newest value, once that fulfils the condition."""
        seen, deadline = {}, time.monotonic() + patience
        while not condition(seen):
            data = self.next("Data", max(0.0, deadline - time.monotonic()))
            assert data is not None, f"never; so far {seen}"
            seen |= {(data["group"], handle): value for handle, value in data["values"]}
        return seen

    def silent_for(self, seconds: float) -> bool:
        """Whether no value comes, after what was on its way."""
        time.sleep(1.0)
        while not self.events.empty():
            self.events.get()
        data = self.next("Data", seconds)
        return data is None

    def memory(self) -> int:
        """Bytes that belong to this process alone."""
        with open(f"/proc/{program(self.process)}/smaps_rollup") as rollup:
            lines = {line.split(":")[0]: line.split()[1] for line in list(rollup)[1:]}
        return 1024 * (int(lines["Private_Dirty"]) + int(lines["Private_Clean"]))

    def cpu(self) -> float:
        fields = open(f"/proc/{program(self.process)}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def close(self, patience: float = PATIENCE) -> int:
        """Its input ends, so it should."""
        self.process.stdin.close()
        return self.process.wait(patience)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
