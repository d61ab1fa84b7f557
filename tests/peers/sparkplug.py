"""Hosts that are somebody else's: pysparkplug, the authors' own library for Node, and a broker of a few lines that keeps each packet."""

import base64
import json
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

import paho.mqtt.client as paho
from conftest import wait_until
from node_opcua import MODULES
from pysparkplug import DCmd, Message, MessageType, Metric, NCmd, Topic, get_current_timestamp

GROUP, NODE = "Plant", "line1"
MQTT = f"""
[mqtt]
broker = "mqtt://127.0.0.1:{{broker}}"
group = "{GROUP}"
node = "{NODE}"
publish_interval = "100ms"
"""
BIRTHS = (MessageType.NBIRTH, MessageType.DBIRTH)


class Host:
    """Listens to everything and decodes it with pysparkplug; knows nodes and devices apart."""

    def __init__(self, port):
        self.messages = []
        self.raw = []
        self.births = {}
        self.lock = threading.Lock()
        self.client = paho.Client("host")
        self.client.on_message = self.on_message
        self.client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", 1)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def on_message(self, _client, _userdata, message):
        kind, *place = message.topic.split("/")[2:3] + message.topic.split("/")[4:]
        # What hosts say; pysparkplug refuses a command without a time, which is allowed.
        if message.topic.startswith("spBv1.0/STATE/") or kind in ("NCMD", "DCMD"):
            return
        decoded = Message.from_mqtt_message(message, birth=self.births.get(tuple(place)))
        with self.lock:
            if decoded.topic.message_type in BIRTHS:
                self.births[tuple(place)] = decoded.payload
            self.messages.append(decoded)
            self.raw.append((message.topic, message.payload))

    def of(self, kind, device=None):
        with self.lock:
            found = [m for m in self.messages if m.topic.message_type == kind]
        return [m for m in found if device is None or m.topic.device_id == device]

    def born(self, kind=MessageType.NBIRTH, device=None, count=1):
        name = f"{count} {kind.name} of {device or 'the node'}"
        return wait_until(name, lambda: len(self.of(kind, device)) >= count and self.of(kind, device))

    def values(self, kind, name, device=None):
        return [m.value for message in self.of(kind, device) for m in message.payload.metrics if m.name == name]

    def command(self, name, datatype, value, device=None):
        kind, payload = (MessageType.DCMD, DCmd) if device else (MessageType.NCMD, NCmd)
        topic = Topic(message_type=kind, group_id=GROUP, edge_node_id=NODE, device_id=device)
        now = get_current_timestamp()
        metric = Metric(timestamp=now, name=name, datatype=datatype, value=value)
        payload = payload(timestamp=now, metrics=(metric,)).encode(include_dtypes=True)
        self.client.publish(str(topic), payload, 1)

    def close(self):
        self.client.loop_stop()
        self.client.disconnect()


class Tahu:
    """sparkplug-payload, by node/sparkplug.js."""

    def __init__(self):
        environment = {**os.environ, "NODE_PATH": str(MODULES)}
        script = Path(__file__).parent / "node/sparkplug.js"
        self.process = subprocess.Popen(
            ["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def decode(self, payload, types=None):
        return self.ask({"decode": base64.b64encode(payload).decode(), "types": types})

    def encode(self, payload):
        return base64.b64decode(self.ask({"encode": payload}))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Packet:
    def __init__(self, first, body):
        self.kind, self.flags, self.body = first >> 4, first & 15, body

    @property
    def topic(self):
        assert self.kind == PUBLISH
        return self.body[2 : 2 + struct.unpack(">H", self.body[:2])[0]].decode()


CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 10, 11, 12, 13, 14


class Recorder:
    """A broker for one client at a time: says yes to everything, keeps each packet, and can say something itself."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.packets = []
        # Of each connection, when it began and ended: numbers of a clock that all recorders share.
        self.connections = []
        self.socket = None
        self.retained = {}
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                self.socket, _ = self.listener.accept()
            except OSError:
                return
            connection = [time_now(), None]
            self.connections.append(connection)
            try:
                self.converse(self.socket.makefile("rb"))
            except (OSError, struct.error, IndexError):
                pass
            connection[1] = time_now()
            self.socket.close()

    def converse(self, stream):
        version = 5
        while head := stream.read(1):
            length = shift = 0
            while True:
                byte = stream.read(1)[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            packet = Packet(head[0], stream.read(length))
            self.packets.append(packet)
            properties = b"\0" if version == 5 else b""
            if packet.kind == CONNECT:
                version = packet.body[6]
                properties = b"\0" if version == 5 else b""
                self.send(CONNACK, b"\0\0" + properties)
            elif packet.kind == SUBSCRIBE:
                body = packet.body[2 + len(properties) :]
                filters = []
                while body:
                    size = struct.unpack(">H", body[:2])[0]
                    filters.append(body[2 : 2 + size].decode())
                    body = body[3 + size :]
                self.send(SUBACK, packet.body[:2] + properties + b"\1" * len(filters))
                for topic in filters:
                    if topic in self.retained:
                        self.publish(topic, self.retained[topic], version)
            elif packet.kind == UNSUBSCRIBE:
                # One filter; in MQTT 5 with a reason for it.
                self.send(UNSUBACK, packet.body[:2] + (properties + b"\x11" if properties else b""))
            elif packet.kind == PUBLISH and packet.flags & 6:
                at = 2 + len(packet.topic.encode())
                self.send(PUBACK, packet.body[at : at + 2])
            elif packet.kind == PINGREQ:
                self.send(PINGRESP, b"")

    def send(self, kind, body, flags=0):
        assert len(body) < 128
        self.socket.sendall(bytes([kind << 4 | flags, len(body)]) + body)

    def publish(self, topic, payload, version=5):
        name = topic.encode()
        properties = b"\0" if version == 5 else b""
        self.send(PUBLISH, struct.pack(">H", len(name)) + name + properties + payload)

    def of(self, kind):
        return [packet for packet in self.packets if packet.kind == kind]

    def close(self):
        self.listener.close()


def time_now():
    import time

    return time.monotonic()
