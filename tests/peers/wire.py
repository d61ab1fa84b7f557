"""UA binary over a bare socket, so that a test can say what no client library would.

Messages are made by asyncua's encoder; what is around them is made here (OPC 10000-6, 6.7.2 and 7.1.2).
"""

import socket
import struct

from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

NONE = b"http://opcfoundation.org/UA/SecurityPolicy#None"
HEL, ACK, ERR, OPN, MSG, CLO = b"HEL", b"ACK", b"ERR", b"OPN", b"MSG", b"CLO"


def string(data: bytes | None) -> bytes:
    return struct.pack("<i", -1) if data is None else struct.pack("<i", len(data)) + data


def frame(kind: bytes, body: bytes, chunk: bytes = b"F", size: int | None = None) -> bytes:
    return kind + chunk + struct.pack("<I", 8 + len(body) if size is None else size) + body


def hello(port: int, url: bytes | None = None, buffers=(65535, 65535), limits=(0, 0), version=0) -> bytes:
    url = b"opc.tcp://127.0.0.1:%d/" % port if url is None else url
    return frame(HEL, struct.pack("<5I", version, *buffers, *limits) + string(url))


def open_request(request_type=0, lifetime=60_000) -> bytes:
    request = ua.OpenSecureChannelRequest()
    request.Parameters.RequestType = ua.SecurityTokenRequestType(request_type)
    request.Parameters.SecurityMode = ua.MessageSecurityMode.None_
    request.Parameters.RequestedLifetime = lifetime
    request.Parameters.ClientNonce = b""
    return struct_to_binary(request)


def open_channel(body: bytes, channel=0, sequence=1, policy=NONE, certificate=None, thumbprint=None) -> bytes:
    header = struct.pack("<I", channel) + string(policy) + string(certificate) + string(thumbprint)
    return frame(OPN, header + struct.pack("<II", sequence, 1) + body)


class Closed(Exception):
    """The server closed the connection."""


class Refused(Exception):
    """The server said why: an Error message."""

    def __init__(self, body: bytes):
        code, length = struct.unpack_from("<Ii", body)
        self.reason = body[8 : 8 + max(length, 0)].decode()
        self.name = ua.status_codes.get_name_and_doc(code)[0]
        super().__init__(f"{self.name}: {self.reason}")


class Fault(Exception):
    """A ServiceFault."""

    def __init__(self, code: int):
        self.name = ua.status_codes.get_name_and_doc(code)[0]
        super().__init__(self.name)


class Wire:
    """A connection; `session` makes one that can be used."""

    def __init__(self, port: int, patience: float = 10.0):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.channel = self.token = 0
        self.sequence = 0
        self.authentication = ua.NodeId()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data: bytes):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionResetError as error:
                raise Closed from error
            if not part:
                raise Closed
            data += part
        return data

    def receive(self) -> tuple[bytes, bytes, bytes]:
        """Kind, chunk, and what follows the header."""
        header = self.exactly(8)
        body = self.exactly(struct.unpack_from("<I", header, 4)[0] - 8)
        if header[:3] == ERR:
            raise Refused(body)
        return header[:3], header[3:4], body

    def greet(self, **fields) -> bytes:
        self.send(hello(self.port, **fields))
        kind, _, body = self.receive()
        assert kind == ACK
        return body

    def open(self) -> "Wire":
        self.greet()
        self.sequence += 1
        self.send(open_channel(open_request(), sequence=self.sequence))
        kind, _, body = self.receive()
        assert kind == OPN
        # The token follows policy, two nulls, the sequence header, the type and a ResponseHeader.
        at = 4 + 4 + len(NONE) + 4 + 4 + 8 + 4 + 24 + 4
        self.channel, self.token = struct.unpack_from("<II", body, at)
        assert self.channel == struct.unpack_from("<I", body)[0]
        return self

    def message(self, body: bytes, kind=MSG, chunk=b"F", size=None, request_id=1, **wrong) -> bytes:
        self.sequence += 1
        channel, token = wrong.get("channel", self.channel), wrong.get("token", self.token)
        sequence = wrong.get("sequence", self.sequence)
        return frame(kind, struct.pack("<4I", channel, token, sequence, request_id) + body, chunk, size)

    def response(self) -> tuple[int, bytes]:
        """Type and rest of a message, all its chunks together."""
        whole = b""
        while True:
            kind, chunk, body = self.receive()
            assert kind == MSG
            whole += body[16:]
            if chunk != b"C":
                break
        assert whole[0] == 1
        service = struct.unpack_from("<H", whole, 2)[0]
        if service == ua.ObjectIds.ServiceFault_Encoding_DefaultBinary:
            raise Fault(struct.unpack_from("<I", whole, 4 + 8 + 4)[0])
        return service, whole[4:]

    def encode(self, request) -> bytes:
        request.RequestHeader.AuthenticationToken = self.authentication
        request.RequestHeader.TimeoutHint = 10_000
        return struct_to_binary(request)

    def ask(self, request) -> bytes:
        self.send(self.message(self.encode(request)))
        return self.response()[1]

    def create(self) -> "Wire":
        request = ua.CreateSessionRequest()
        request.Parameters.EndpointUrl = f"opc.tcp://127.0.0.1:{self.port}/"
        request.Parameters.SessionName = "wire"
        request.Parameters.RequestedSessionTimeout = 3_600_000.0
        request.Parameters.ClientDescription.ApplicationUri = "urn:wire"
        answer = self.ask(request)
        # ResponseHeader is 24 bytes, then SessionId (four bytes) and AuthenticationToken (a ByteString of 32).
        token = answer.index(b"\x05\x00\x00\x20\x00\x00\x00", 24) + 7
        self.authentication = ua.NodeId(answer[token : token + 32], 0, ua.NodeIdType.ByteString)
        return self

    def activate(self) -> "Wire":
        request = ua.ActivateSessionRequest()
        token = ua.AnonymousIdentityToken()
        token.PolicyId = "anonymous"
        request.Parameters.UserIdentityToken = token
        self.ask(request)
        return self

    def session(self) -> "Wire":
        return self.open().create().activate()


def read_request(*nodes, attribute=ua.AttributeIds.Value):
    request = ua.ReadRequest()
    request.Parameters.NodesToRead = [ua.ReadValueId(node, attribute) for node in nodes]
    return request
