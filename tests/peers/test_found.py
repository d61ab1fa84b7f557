"""How clients find the server, and how it finds clients: mDNS, a discovery server, reverse connect."""

import asyncio
import socket
import struct
import threading
from pathlib import Path

import pytest
from asyncua import Client, Server, ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography.x509.oid import ExtendedKeyUsageOID
from conftest import DEMO, PATIENCE, free_port, line_of, wait_until
from zeroconf import IPVersion, ServiceBrowser, ServiceListener, Zeroconf

SERVICE = "_opcua-tcp._tcp.local."
NAME = f"vedette-test on {socket.gethostname().split('.')[0]}.{SERVICE}"


def with_keys(keys):
    """What comes last in [ua_server]."""
    return DEMO.replace("[cameras]", keys + "[cameras]")


class Found(ServiceListener):
    def __init__(self, zeroconf):
        self.services, self.gone = {}, []
        self.browser = ServiceBrowser(zeroconf, SERVICE, self)

    def add_service(self, zeroconf, kind, name):
        self.services[name] = zeroconf.get_service_info(kind, name, 5000)

    update_service = add_service

    def remove_service(self, _zeroconf, _kind, name):
        self.gone.append(name)


@pytest.fixture
def network():
    zeroconf = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    yield Found(zeroconf)
    zeroconf.close()


def test_it_is_announced_where_it_is_wanted_and_says_goodbye(make, network):
    vedette = make(with_keys('mdns = ["lo"]\n')).start()
    found = wait_until("announced", lambda: network.services.get(NAME))
    assert found.port == vedette.port
    assert found.parsed_addresses() == ["127.0.0.1"]
    assert found.properties == {b"path": b"/", b"caps": b"DA,AC"}
    assert vedette.stop() == 0
    wait_until("good-bye", lambda: NAME in network.gone)


def test_history_is_a_capability_if_there_is_one(make, network):
    make(with_keys('mdns = ["lo"]\n') + '[history]\ntags = ["demo/*"]\n').start()
    found = wait_until("announced", lambda: network.services.get(NAME))
    assert found.properties[b"caps"] == b"DA,AC,HD"


def test_two_of_one_name_are_told_apart(make, network):
    first = make(with_keys('mdns = ["lo"]\n')).start()
    wait_until("announced", lambda: network.services.get(NAME))
    second = make(with_keys('mdns = ["lo"]\n')).start()
    wait_until("both", lambda: {found.port for found in network.services.values() if found} >= {first.port, second.port})
    assert second.says("The name was taken")


def test_loopback_is_not_announced_by_default(vedette):
    assert not vedette.says("mDNS")
    assert "mDNS_daemon" not in threads(vedette)


def threads(vedette):
    return [p.read_text().strip() for p in Path(f"/proc/{vedette.process.pid}/task").glob("*/comm")]


def test_an_interface_that_is_not_there_is_no_end(make):
    vedette = make(with_keys('mdns = ["nowhere0"]\n')).start()
    with vedette.client() as client:
        assert client.nodes.server_state.read_value() == 0


def test_mistakes_are_refused_by_line(make):
    keys = 'mdns = []\ndiscovery_server = "http://x"\n[[ua_server.reverse]]\nclient = "opc.tcp://:1"\n'
    text = with_keys(keys)
    vedette = make(text).start(wait=False)
    assert vedette.process.wait(PATIENCE) == 2
    for key in ("mdns", "discovery_server"):
        assert f".toml:{line_of(text, key)}: [ua_server] {key}: " in vedette.text(), vedette.text()
    assert "[ua_server] client: " in vedette.text()


class Background:
    """An asyncio loop in a thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def background():
    background = Background()
    yield background
    background.close()


async def discovery_server(folder, port):
    """asyncua's, which takes registrations; with one secure endpoint only."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
    uri = "urn:test:lds"
    await server.set_application_uri(uri)
    certificate, key = folder / "lds.der", folder / "lds.pem"
    await setup_self_signed_certificate(
        key, certificate, uri, "127.0.0.1", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], {}
    )
    await server.load_certificate(str(certificate))
    await server.load_private_key(str(key))
    await server.start()
    return server


def test_it_registers_with_a_discovery_server_that_is_trusted_and_says_goodbye(make, background, tmp_path):
    port = free_port()
    lds = background.run(discovery_server(tmp_path, port))
    try:
        url = f"opc.tcp://127.0.0.1:{port}"

        async def servers():
            client = Client(url, timeout=30)
            return await client.connect_and_find_servers()

        def registered():
            found = background.run(servers())
            return [server for server in found if ":vedette:" in server.ApplicationUri]

        vedette = make(with_keys(f'discovery_server = "{url}"\n')).start()
        wait_until("not trusted", lambda: vedette.says("its certificate is not good enough"))
        assert registered() == []
        rejected = list((vedette.data / "pki/rejected").iterdir())
        assert len(rejected) == 1
        vedette.stop()

        # As a client's certificate would be.
        rejected[0].rename(vedette.data / "pki/trusted" / rejected[0].name)
        vedette.start()
        wait_until("registered", lambda: vedette.says("Registered with the discovery server."))
        [server] = registered()
        assert server.ApplicationUri.endswith(":vedette:vedette-test")
        assert server.ApplicationName.Text == "vedette-test"
        assert server.DiscoveryUrls == [f"opc.tcp://localhost:{vedette.port}/"]
        assert vedette.stop() == 0
        assert vedette.says("Said goodbye to the discovery server.")
    finally:
        background.run(lds.stop())


def test_a_discovery_server_that_is_not_there_is_said_once(make):
    vedette = make(with_keys(f'discovery_server = "opc.tcp://127.0.0.1:{free_port()}"\n')).start()
    wait_until("said", lambda: vedette.says("Cannot register with the discovery server"))
    with vedette.client() as client:
        assert client.nodes.server_state.read_value() == 0


class Waiting:
    """A client that waits for servers: takes reverse connections and gives them to asyncua through a port of its own."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", port))
        self.listener.settimeout(PATIENCE)
        self.hellos = []

    def accept(self):
        stream, _ = self.listener.accept()
        stream.settimeout(PATIENCE)
        kind, size = struct.unpack("<4sI", self.read(stream, 8))
        body = self.read(stream, size - 8)
        texts = []
        while body:
            (length,) = struct.unpack_from("<i", body)
            texts.append(body[4 : 4 + length].decode())
            body = body[4 + length :]
        self.hellos.append((kind, texts))
        return stream

    @staticmethod
    def read(stream, size):
        data = b""
        while len(data) < size:
            more = stream.recv(size - len(data))
            assert more, "closed"
            data += more
        return data

    def joined(self):
        """A port where an ordinary client finds the next reverse connection, and each one after it."""
        door = socket.create_server(("127.0.0.1", 0))

        def pump(source, sink):
            try:
                while data := source.recv(65536):
                    sink.sendall(data)
                sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        def serve():
            while True:
                try:
                    client, _ = door.accept()
                    server = self.accept()
                except OSError:
                    return
                server.settimeout(None)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        return door

    def close(self):
        self.listener.close()


def test_it_connects_to_a_client_that_waits_and_again_after_that_was_away(make, background):
    port = free_port()
    vedette = make(with_keys(f'[[ua_server.reverse]]\nclient = "opc.tcp://localhost:{port}"\n')).start()
    wait_until("away", lambda: vedette.says("Cannot reach a client by reverse connect"))
    client = Waiting(port)
    door = client.joined()
    url = f"opc.tcp://127.0.0.1:{door.getsockname()[1]}"

    async def work():
        # Two at once, and a secure one, for which endpoints are asked first.
        async with Client(url, timeout=30) as one, Client(url, timeout=30) as two:
            for each in (one, two):
                index = await each.get_namespace_index("urn:vedette:nodes")
                node = each.get_node(ua.NodeId("Cameras/line1/Camera Image", index))
                assert (await node.read_value())[:2] == b"\xff\xd8"

    background.run(work())
    kind, (uri, endpoint) = client.hellos[0]
    assert kind == b"RHEF" and uri.endswith(":vedette:vedette-test")
    assert endpoint == f"opc.tcp://localhost:{vedette.port}/"
    assert vedette.says("Reached a client by reverse connect.")

    # It goes away and comes back; nothing spins meanwhile.
    client.close()
    door.close()
    before = vedette.cpu_seconds()
    wait_until("away", lambda: vedette.text().count("Cannot reach a client") >= 2, 90)
    again = Waiting(port)
    wait_until("back", lambda: again.accept(), 90)
    assert vedette.cpu_seconds() - before < 2.0
    again.close()


def test_a_client_that_wants_nothing_is_not_bothered(make):
    port = free_port()
    client = Waiting(port)
    vedette = make(with_keys(f'[[ua_server.reverse]]\nclient = "opc.tcp://127.0.0.1:{port}"\n')).start()
    idle = client.accept()
    idle.settimeout(7)
    with pytest.raises(TimeoutError):
        idle.recv(1)
    # Refused by closing: tried again, but with growing waits.
    idle.close()
    client.listener.settimeout(4)
    taken = 0
    try:
        while taken < 10:
            client.accept().close()
            taken += 1
    except TimeoutError:
        pass
    assert 1 <= taken < 6
    assert vedette.stop() == 0
