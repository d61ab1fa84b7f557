"""What is upstream of the device, on this host: a broker, somebody who listens to it and sends commands, and a server with bundles.

    host.wait_for_birth()                    # by pysparkplug, the work of somebody else
    id = host.send("update", url=server.url("good.raucb"), sha256=..., version=...)
    host.end(id)                             # {"state": "done", ...}

The emulated network shows 127.0.0.1 of this host at 10.0.2.2.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import paho.mqtt.client as paho
from machine import free_port, wait_until
from pysparkplug import Message, MessageType

GROUP, NODE = "Plant", "line1-gateway"


class Broker:
    """mosquitto, which lets in who has the device's password."""

    def __init__(self, folder: Path, password: str):
        self.port = free_port()
        mosquitto = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        passwords = folder / "passwords"
        passwords.touch(0o600)
        for user in (NODE, "host"):
            subprocess.run(["mosquitto_passwd", "-b", passwords, user, password], check=True, capture_output=True)
        config = folder / "mosquitto.conf"
        # Run by root it would become a user who may not read what lies here.
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n")
        self._command = [mosquitto, "-c", config]
        self._process = None
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        self._process.kill()
        self._process.wait()


class Host:
    """Listens to births, sends commands and keeps their answers."""

    def __init__(self, broker: Broker, password: str):
        self._lock = threading.Lock()
        self.births: list[Message] = []
        # Of what hangs on the node, the newest.
        self.devices: dict[str, Message] = {}
        self.answers: list[dict] = []
        self._client = paho.Client("host")
        self._client.username_pw_set("host", password)
        births = [(f"spBv1.0/{GROUP}/NBIRTH/{NODE}", 1), (f"spBv1.0/{GROUP}/DBIRTH/{NODE}/+", 1)]
        topics = [*births, (f"vedette/{GROUP}/{NODE}/answer/#", 1)]
        self._client.on_connect = lambda client, *_: client.subscribe(topics)
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", broker.port)
        self._client.loop_start()

    def _on_message(self, _client, _data, message):
        with self._lock:
            if not message.topic.startswith("spBv1.0/"):
                self.answers.append(json.loads(message.payload))
                return
            birth = Message.from_mqtt_message(message)
            if birth.topic.message_type == MessageType.NBIRTH:
                self.births.append(birth)
            else:
                self.devices[birth.topic.device_id] = birth

    def wait_for_birth(self, timeout: float, more_than: int = 0) -> dict[str, object]:
        """What the node's newest birth says, by name, once there are more than so many."""
        wait_until(lambda: len(self.births) > more_than, timeout, "a birth")
        return values(self.births[-1])

    def wait_for_device(self, name: str, timeout: float) -> dict[str, object]:
        return values(wait_until(lambda: self.devices.get(name), timeout, f"a birth of {name}"))

    def send(self, command: str, id: str | None = None, **args) -> str:
        id = id or str(uuid.uuid4())
        payload = json.dumps({"id": id, "command": command, "args": args})
        self._client.publish(f"vedette/{GROUP}/{NODE}/command/admin", payload, 1).wait_for_publish(60)
        return id

    def of(self, id: str) -> list[dict]:
        with self._lock:
            return [answer for answer in self.answers if answer["id"] == id]

    def said(self, id: str, text: str) -> list[dict]:
        return [answer for answer in self.of(id) if text in answer.get("reason", "")]

    def end(self, id: str, timeout: float) -> dict:
        """The last word about a command."""
        last = lambda: next((answer for answer in self.of(id) if answer["state"] in ("done", "failed")), None)
        try:
            return wait_until(last, timeout, "the command's end")
        except AssertionError as error:
            raise AssertionError(f"{error}; only {self.of(id)}") from None

    def close(self):
        self._client.loop_stop()
        self._client.disconnect()


def values(birth: Message) -> dict[str, object]:
    return {metric.name: metric.value for metric in birth.payload.metrics}


class BundleServer:
    """HTTP with ranges, which can fall silent in the middle of a file."""

    def __init__(self):
        self.files: dict[str, Path] = {}
        # Of the file, for each answer; nothing more comes after it until it is None.
        self.stop_at: int | None = None
        self.ranges: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = outer.files.get(self.path.removeprefix("/"))
                if not path:
                    return self.send_error(404)
                size, start = path.stat().st_size, 0
                if wanted := self.headers.get("Range"):
                    outer.ranges.append(wanted)
                    start = int(wanted.removeprefix("bytes=").split("-")[0])
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(size - start))
                self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                self.end_headers()
                # The other end may be cut off at any moment.
                with contextlib.suppress(OSError):
                    self.send_file(path, start)

            def send_file(self, path: Path, start: int):
                with open(path, "rb") as file:
                    file.seek(start)
                    while block := file.read(1 << 18):
                        while outer.stop_at is not None and file.tell() > outer.stop_at:
                            if outer.closing.wait(0.2):
                                return
                        self.wfile.write(block)

            def log_message(self, *_):
                pass

        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def offer(self, path: Path, version: str) -> dict[str, str]:
        """The command's arguments for it."""
        self.files[path.name] = path
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        url = f"http://10.0.2.2:{self._server.server_address[1]}/{path.name}"
        return {"url": url, "sha256": sha256, "version": version}

    def close(self):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
