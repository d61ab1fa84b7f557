"""Pictures upstream, seen by mosquitto and by paho: when they are taken, what is said with them, and what a lost line costs."""

import json
import select
import socket
import sys
import threading
import time

import paho.mqtt.client as paho
import pytest
from conftest import Broker, child, picture, wait_until
from test_ua import image_of

PREFIX = "vedette/Plant/press"
# Grey JPEGs at 25 a second, as bright as the file says, each with its number as comment, padded to some size.
CAMERA = """
import io, itertools, os, sys, time
from PIL import Image

start = time.monotonic()
for number in itertools.count(1):
    file = io.BytesIO()
    level = int(open(sys.argv[1]).read() or 0)
    Image.new("L", (320, 240), level).save(file, "jpeg", comment=str(number).encode())
    data = file.getvalue()
    # Comments of a JPEG, to make it large.
    padding = b"\\xff\\xfe\\xff\\xff" + bytes(65533)
    sys.stdout.buffer.write(data[:2] + padding * int(sys.argv[2]) + data[2:])
    sys.stdout.buffer.flush()
    time.sleep(max(0, start + number / 25 - time.monotonic()))
"""
CONFIG = """
[device]
name = "test"
[ua_server]
listen = "127.0.0.1:{port}"
insecure_on_loopback = true
anonymous = "operator"
[cameras]
discover = false
linger = "500ms"
[[camera]]
name = "csi"
device = "pipe"
command = [COMMAND]
rate = 25.0
[[camera]]
name = "line 1"
device = "test-pattern"
width = 640
height = 480
[[simulator]]
name = "demo"
interval = "100ms"
[mqtt]
broker = "mqtt://127.0.0.1:BROKER"
group = "Plant"
node = "press"
keep_alive = "2s"
publish_interval = "100ms"
"""


class Line:
    """A way to the broker that can be cut, so that those who listen at the broker miss nothing."""

    def __init__(self, port):
        self.broker = port
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.whole = True
        self.pairs = []
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            with self.lock:
                if not self.whole:
                    near.close()
                    continue
                pair = (near, socket.create_connection(("127.0.0.1", self.broker)))
                self.pairs.append(pair)
            threading.Thread(target=self.carry, args=pair, daemon=True).start()

    @staticmethod
    def carry(near, far):
        other = {near: far, far: near}
        try:
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    other[ready].sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            near.close()
            far.close()

    def cut(self):
        with self.lock:
            self.whole = False
            for pair in self.pairs:
                for end in pair:
                    try:
                        end.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            self.pairs.clear()

    def mend(self):
        with self.lock:
            self.whole = True


def number_of(data):
    """Of the frame: the last comment; those before it are padding."""
    at = 2
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        body = data[at + 4 : at + 2 + length]
        if marker == 0xFE and body.strip(b"\0"):
            return int(body)
        at += 2 + length


class Shown:
    """A picture as it came."""

    def __init__(self, message):
        self.topic = message.topic
        self.data = message.payload
        self.retain = message.retain
        self.content_type = getattr(message.properties, "ContentType", None)
        self.said = dict(getattr(message.properties, "UserProperty", []))

    @property
    def number(self):
        return number_of(self.data)


class Viewer:
    """Somebody who listens to all pictures."""

    def __init__(self, port):
        self.shown = []
        self.client = paho.Client("viewer", protocol=paho.MQTTv5)
        self.client.on_message = lambda _client, _data, message: self.shown.append(Shown(message))
        self.subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_connect = lambda client, *_: client.subscribe(f"{PREFIX}/image/#", 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.subscribed.wait(30)

    def wait(self, count):
        return wait_until(f"{count} pictures", lambda: len(self.shown) >= count and list(self.shown))

    def of(self, cause):
        return [shown for shown in list(self.shown) if shown.said.get("cause") == cause]

    def close(self):
        self.client.loop_stop()
        self.client.disconnect()


@pytest.fixture
def viewer(broker):
    viewer = Viewer(broker.port)
    yield viewer
    viewer.close()


@pytest.fixture
def line(broker):
    line = Line(broker.port)
    yield line
    line.socket.close()
    line.cut()


class Scene:
    """What the pipe camera shows."""

    def __init__(self, folder):
        self.file = folder / "level"
        self.script = folder / "camera.py"
        self.script.write_text(CAMERA)
        self.show(0)

    def show(self, level):
        new = self.file.with_suffix(".new")
        new.write_text(str(level))
        new.rename(self.file)


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


@pytest.fixture
def gateway(make, line, scene):
    """Makes the firmware with these `[[mqtt.image]]`; `padding` times 64 KiB are added to each picture of csi."""
    made = []

    def factory(images, padding=0):
        command = ", ".join(f"'{word}'" for word in [sys.executable, scene.script, scene.file, padding])
        made.append(make(CONFIG.replace("COMMAND", command).replace("BROKER", str(line.port)) + images))
        return made[-1].start()

    yield factory
    # Not killed, so that the camera's program ends as well.
    for vedette in made:
        if not vedette.ended():
            vedette.stop()


def tag(client, *path):
    return child(client.nodes.objects, "Tags", *path)


def pictures(vedette):
    """What waits on the disk: the first line of each file."""
    found = []
    for path in sorted((vedette.data / "mqtt" / "pictures").glob("*.picture")):
        try:
            with path.open("rb") as file:
                found.append(json.loads(file.readline()))
        except FileNotFoundError:
            pass
    return found


def test_by_time_with_all_that_is_to_be_said(gateway, viewer):
    gateway('[[mqtt.image]]\ncamera = "line 1"\ninterval = "300ms"')
    shown = viewer.wait(4)
    for one in shown:
        assert (one.topic, one.retain, one.content_type) == (f"{PREFIX}/image/line 1", False, "image/jpeg")
        assert picture(one.data).size == (640, 480)
        captured = one.said.pop("captured")
        assert captured.endswith("Z") and len(captured) == len("2026-11-21T03:42:49.123Z")
        assert one.said == {"camera": "line 1", "cause": "interval", "width": "640", "height": "480"}
    assert len({one.data for one in shown}) == len(shown), "each is a new one"


def test_on_mqtt_3_the_picture_comes_without_words(gateway, viewer):
    gateway('protocol = "3.1.1"\n[[mqtt.image]]\ncamera = "line 1"\ninterval = "300ms"')
    one = viewer.wait(1)[0]
    assert picture(one.data).size == (640, 480)
    assert (one.topic, one.content_type, one.said) == (f"{PREFIX}/image/line 1", None, {})


def test_a_picture_is_made_to_fit(gateway, viewer):
    gateway('[[mqtt.image]]\ncamera = "line 1"\ninterval = "300ms"\nmax_bytes = "6KiB"')
    for one in viewer.wait(2):
        assert len(one.data) <= 6 << 10
        width, height = picture(one.data).size
        assert (one.said["width"], one.said["height"]) == (str(width), str(height))
        assert width > 100, "still one to look at"


def test_on_change_only_what_differs_comes(gateway, viewer, scene):
    gateway('[[mqtt.image]]\ncamera = "csi"\non_change = 20.0\nevery = "100ms"')

    def levels():
        return [picture(one.data).convert("L").getpixel((9, 9)) // 50 for one in list(viewer.shown)]

    for count, level in enumerate([0, 110, 120, 220, 10], 1):
        scene.show(level)
        if level == 120:
            # Nothing is to be seen of it: the next one must be the fourth step's.
            time.sleep(1)
        else:
            wait_until(f"level {level}", lambda: levels() and levels()[-1] == level // 50)
    assert levels() == [0, 2, 4, 0]
    assert {one.said["cause"] for one in viewer.shown} == {"change"}


TRIGGER = """
[[mqtt.image]]
camera = "csi"
[mqtt.image.trigger]
tag = "demo/switch"
before = 2
after = 3
every = "200ms"
"""


def fill_ring(client):
    """The camera started with the ring's lease; after so many frames there are two in it."""
    wait_until("pictures", lambda: number_of(image_of(client, "csi").read_value()) > 30)


def check_event(event):
    assert [(one.said["index"], one.said["of"]) for one in event] == [(str(n), "5") for n in range(1, 6)]
    assert {one.said["trigger"] for one in event} == {"demo/switch"}
    numbers = [one.number for one in event]
    assert numbers == sorted(set(numbers))
    captured = [one.said["captured"] for one in event]
    assert captured == sorted(captured)
    return numbers


def test_two_before_and_three_after_a_tags_edge(gateway, viewer):
    vedette = gateway(TRIGGER)
    with vedette.client() as client:
        switch = tag(client, "demo", "switch")
        fill_ring(client)
        assert not viewer.shown, "nothing before the edge"
        switch.write_value(True)
        first = check_event(viewer.wait(5))
        switch.write_value(True)
        switch.write_value(False)
        switch.write_value(True)
        shown = viewer.wait(10)
        second = check_event(shown[5:])
        assert first[2] < second[2], "a new event"
        assert len(viewer.shown) == 10


def test_a_tag_that_is_so_from_the_start_brings_nothing_about(gateway, viewer):
    vedette = gateway(TRIGGER.replace('tag = "demo/switch"', 'tag = "demo/switch"\nbecomes = false'))
    with vedette.client() as client:
        switch = tag(client, "demo", "switch")
        fill_ring(client)
        switch.write_value(True)
        time.sleep(1)
        assert not viewer.shown
        switch.write_value(False)
        check_event(viewer.wait(5))


def test_what_was_taken_without_a_line_comes_later_also_after_a_kill(gateway, viewer, line):
    vedette = gateway('[[mqtt.image]]\ncamera = "line 1"\ninterval = "200ms"')
    viewer.wait(2)
    line.cut()
    wait_until("pictures are kept", lambda: len(pictures(vedette)) >= 8)
    vedette.process.kill()
    vedette.process.wait()
    kept = [head["captured"] // 10_000 for head in pictures(vedette)]
    # Some picture that a power cut left half.
    (vedette.data / "mqtt" / "pictures" / "picture.new").write_text("{")
    before = len(viewer.shown)
    vedette.start()
    wait_until("more of them", lambda: len(pictures(vedette)) >= len(kept) + 3)
    line.mend()
    shown = viewer.wait(before + len(kept) + 3)[before:]

    def millis(one):
        whole, fraction = one.said["captured"][:-1].split(".")
        moment = time.strptime(whole, "%Y-%m-%dT%H:%M:%S")
        return (time.mktime(moment) - time.timezone) * 1000 + int(fraction)

    assert [millis(one) for one in shown[: len(kept)]] == kept, "all of them, in their order"
    assert all(picture(one.data) for one in shown)
    wait_until("all are sent", lambda: len(pictures(vedette)) <= 1)


def test_more_than_the_budget_costs_the_oldest(gateway, viewer, line):
    # 256 KiB each, so three of them fit.
    vedette = gateway('image_bytes = "1MiB"\n[[mqtt.image]]\ncamera = "csi"\ninterval = "200ms"', padding=4)
    viewer.wait(1)
    line.cut()
    counters = vedette.data / "mqtt" / "pictures" / "counters"
    wait_until("some are dropped", lambda: counters.exists() and json.loads(counters.read_text())["dropped"] >= 3)
    assert len(pictures(vedette)) <= 3
    assert vedette.text().count("the oldest are dropped") == 1
    before = len(viewer.shown)
    with vedette.client() as client:
        dropped = tag(client, "mqtt", "PicturesDropped")
        line.mend()
        viewer.wait(before + 4)
        wait_until("the tag says so", lambda: dropped.read_value() == json.loads(counters.read_text())["dropped"])
    numbers = [one.number for one in viewer.shown]
    assert numbers == sorted(numbers), "in their order; what was on its way at the cut may come twice"
    assert vedette.stop() == 0
    count = json.loads(counters.read_text())["dropped"]
    vedette.start()
    with vedette.client() as client:
        wait_until("still known", lambda: tag(client, "mqtt", "PicturesDropped").read_value() == count)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_picture_that_the_broker_does_not_take_holds_up_nothing(make, scene, tmp_path, protocol):
    folder = tmp_path / "small"
    folder.mkdir()
    broker = Broker(folder)
    # MQTT 5 tells it at CONNACK; with 3.1.1 the connection ends on what is larger.
    broker.config.write_text(broker.config.read_text() + "max_packet_size 100000\n")
    broker.start()
    heard = []
    listener = paho.Client("listener")
    listener.on_message = lambda _client, _data, message: heard.append(message.topic)
    listener.on_connect = lambda client, *_: client.subscribe("#")
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    command = ", ".join(f"'{word}'" for word in [sys.executable, scene.script, scene.file, 3])
    config = CONFIG.replace("COMMAND", command).replace("BROKER", str(broker.port))
    config += f'protocol = "{protocol}"\n[[mqtt.image]]\ncamera = "csi"\ninterval = "500ms"\n'
    config += '[[mqtt.image]]\ncamera = "line 1"\ninterval = "500ms"\n'
    vedette = make(config).start()
    with vedette.client() as client:
        dropped = tag(client, "mqtt", "PicturesDropped")
        wait_until("some are dropped", lambda: dropped.read_value() >= 3, patience=120)
        # From then on all else goes on, also smaller pictures.
        before, connections = len(heard), vedette.text().count("Connected to the MQTT broker.")
        is_small = lambda: any("image/line 1" in topic for topic in heard[before:])
        wait_until("the rest", lambda: len(heard) >= before + 60 and is_small())
        assert vedette.text().count("Connected to the MQTT broker.") == connections
        assert not any("image/csi" in topic for topic in heard)
    assert vedette.text().count("ropped") <= 2, "not a line for each"
    listener.loop_stop()
    vedette.stop()
    broker.kill()


def test_a_camera_that_is_not_there_is_said_with_those_that_are(gateway, viewer):
    vedette = gateway('[[mqtt.image]]\ncamera = "lin 1"\ninterval = "200ms"')
    wait_until("said", lambda: vedette.says('no camera has the name "lin 1"; there are "csi", "line 1"'))
