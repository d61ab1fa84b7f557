"""The common client of the benchmarks: one for all servers, and cheap, so that it does not stand in their light.

asyncua connects, opens the secure channel and activates the session. Then its socket is taken over: a request is
encoded once and sent again and again with new numbers (OPC 10000-6, 6.7.2), and of the responses only what is needed is
looked at. Under SecurityPolicy None that is the header of each chunk; else requests are signed and encrypted, and of a
response the first chunk is decrypted if somebody wants to know what it says. Whether the answers are right is for
`call`, which decodes them as a whole; each benchmark looks at one of them.
"""

import asyncio
import logging
import os
import socket
import struct
import threading
from pathlib import Path

from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

HOUR_MS = 3_600_000
HEADERS = 24
# The encoding ids of ServiceFault and PublishResponse (OPC 10000-6, Annex A), as NodeIds of four bytes.
SERVICE_FAULT = struct.pack("<BBH", 1, 0, 397)
PUBLISH_RESPONSE = struct.pack("<BBH", 1, 0, 829)

# asyncua warns that sessions are revised, and that cancelled tasks are.
logging.getLogger("asyncua").setLevel(logging.CRITICAL)

# Runs only while a session is made.
_loop = asyncio.new_event_loop()
_connecting = threading.Lock()


async def _connect(url: str, identity: Path | None):
    client = Client(url, timeout=60)
    client.session_timeout = client.secure_channel_timeout = HOUR_MS
    if identity:
        client.application_uri = "urn:vedette-test:client"
        await client.set_security(SecurityPolicyBasic256Sha256, identity / "cert.der", identity / "key.pem")
    await client.connect()
    client.uaclient.protocol.transport.pause_reading()
    # asyncua looks after its connections; these are not its own any more.
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    return client


class Wire:
    """A session, at its socket. With an `identity` (a folder with cert.der and key.pem) it is signed and encrypted."""

    def __init__(self, url: str, identity: Path | None = None):
        with _connecting:
            self._client = _loop.run_until_complete(_connect(url, identity))
        protocol = self._client.uaclient.protocol
        self._connection = protocol._connection
        self._token = protocol.authentication_token
        self._request_id = protocol._request_id
        theirs = protocol.transport.get_extra_info("socket")
        self._socket = socket.socket(fileno=os.dup(theirs.fileno()))
        self._socket.setblocking(True)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(60)
        self._secure = identity is not None
        self._buffer = bytearray(1 << 20)

    def close(self):
        self._socket.close()

    # Requests

    def encode(self, request) -> bytes:
        request.RequestHeader.AuthenticationToken = self._token
        request.RequestHeader.TimeoutHint = 60_000
        return struct_to_binary(request)

    def send(self, body: bytes):
        self._request_id += 1
        self._socket.sendall(self._connection.message_to_binary(body, request_id=self._request_id))

    def repeated(self, body: bytes):
        """A function that sends this request."""
        if self._secure:
            return lambda: self.send(body)
        connection = self._connection
        message = bytearray(connection.message_to_binary(body, request_id=0))
        assert message[3:4] == b"F", "of one chunk"
        # The number that the encoder has just counted is not sent.
        connection._sequence_number -= 1

        def send():
            connection._sequence_number += 1
            self._request_id += 1
            struct.pack_into("<II", message, 16, connection._sequence_number, self._request_id)
            self._socket.sendall(message)

        return send

    # Responses

    def _fill(self, count: int) -> memoryview:
        if count > len(self._buffer):
            self._buffer = bytearray(count)
        view = memoryview(self._buffer)[:count]
        at = 0
        while at < count:
            got = self._socket.recv_into(view[at:])
            if not got:
                raise ConnectionError("the server has closed the connection")
            at += got
        return view

    def renew(self):
        """Asks for a new token of the secure channel (OPC 10000-4, 5.6.2); whoever receives next takes it. Only without security."""
        assert not self._secure
        request = ua.OpenSecureChannelRequest()
        request.Parameters.RequestType = ua.SecurityTokenRequestType.Renew
        request.Parameters.SecurityMode = ua.MessageSecurityMode.None_
        request.Parameters.ClientNonce = b""
        request.Parameters.RequestedLifetime = HOUR_MS
        self._request_id += 1
        self._socket.sendall(self._connection.message_to_binary(
            struct_to_binary(request), ua.MessageType.SecureOpen, self._request_id))

    def _renewed(self, rest: memoryview):
        body = ua.utils.Buffer(bytes(rest))
        # The channel's id, the policy, two certificates that are not there, two numbers (OPC 10000-6, 6.7.2.3).
        body.read(4)
        for _ in range(3):
            body.read(max(struct.unpack("<i", body.read(4))[0], 0))
        body.read(8)
        response = struct_from_binary(ua.OpenSecureChannelResponse, body)
        response.ResponseHeader.ServiceResult.check()
        self._connection.security_token = response.Parameters.SecurityToken

    def _chunk(self) -> tuple[bytes, memoryview]:
        """(header, rest) of the next chunk."""
        header = bytes(self._fill(8))
        kind, final, size = struct.unpack("<3scI", header)
        rest = self._fill(size - 8)
        if kind == b"OPN":
            self._renewed(rest)
            return self._chunk()
        if kind != b"MSG" or final == b"A":
            raise ConnectionError(f"{header!r} {bytes(rest)!r}")
        return header, rest

    def _plain(self, header: bytes, rest: memoryview) -> bytes:
        """The part of the body that is in this chunk."""
        if not self._secure:
            return bytes(rest[HEADERS - 8:])
        crypto = self._connection.security_policy.symmetric_cryptography
        plain = crypto.decrypt(bytes(rest[8:]))
        plain, signature = plain[:-crypto.vsignature_size()], plain[-crypto.vsignature_size():]
        crypto.verify(header + bytes(rest[:8]) + plain, signature)
        return crypto.remove_padding(plain)[8:]

    def skip(self) -> int:
        """Receives a response and looks only for a fault. Its size in bytes."""
        size, first = 0, True
        while True:
            header, rest = self._chunk()
            size += len(rest)
            if first and not self._secure and bytes(rest[16:20]) == SERVICE_FAULT:
                raise ConnectionError(f"ServiceFault {bytes(rest).hex()}")
            first = False
            if header[3:4] == b"F":
                return size

    def glance(self) -> bytes:
        """Receives a response, and what of it is in its first chunk."""
        header, rest = self._chunk()
        beginning = self._plain(header, rest)
        while header[3:4] != b"F":
            header, rest = self._chunk()
        if beginning[:4] == SERVICE_FAULT:
            raise ConnectionError(f"ServiceFault {beginning.hex()}")
        return beginning

    def call(self, request, response_type):
        """The response, decoded."""
        self.send(self.encode(request))
        body = b""
        while True:
            header, rest = self._chunk()
            body += self._plain(header, rest)
            if header[3:4] == b"F":
                break
        if body[:4] == SERVICE_FAULT:
            struct_from_binary(ua.ServiceFault, ua.utils.Buffer(body)).ResponseHeader.ServiceResult.check()
        response = struct_from_binary(response_type, ua.utils.Buffer(body))
        response.ResponseHeader.ServiceResult.check()
        return response

    # Services

    def read_request(self, nodes: list[str], max_age=0.0) -> bytes:
        request = ua.ReadRequest()
        request.Parameters.MaxAge = max_age
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [
            ua.ReadValueId(ua.NodeId.from_string(node), ua.AttributeIds.Value) for node in nodes
        ]
        return self.encode(request)

    def read(self, nodes: list[str], max_age=0.0) -> list:
        request = ua.ReadRequest()
        request.Parameters.MaxAge = max_age
        request.Parameters.NodesToRead = [
            ua.ReadValueId(ua.NodeId.from_string(node), ua.AttributeIds.Value) for node in nodes
        ]
        return [value.Value.Value for value in self.call(request, ua.ReadResponse).Results]

    def subscribe(self, nodes: list[str], publishing: float, sampling: float, queue_size=1) -> int:
        """A subscription with these items, none of them refused. Its id."""
        request = ua.CreateSubscriptionRequest()
        request.Parameters.RequestedPublishingInterval = publishing
        request.Parameters.RequestedLifetimeCount = 3000
        request.Parameters.RequestedMaxKeepAliveCount = 100
        request.Parameters.PublishingEnabled = True
        subscription = self.call(request, ua.CreateSubscriptionResponse).Parameters.SubscriptionId
        for at in range(0, len(nodes), 1000):
            request = ua.CreateMonitoredItemsRequest()
            request.Parameters.SubscriptionId = subscription
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            for handle, node in enumerate(nodes[at:at + 1000], at):
                item = ua.MonitoredItemCreateRequest()
                item.ItemToMonitor = ua.ReadValueId(ua.NodeId.from_string(node), ua.AttributeIds.Value)
                item.MonitoringMode = ua.MonitoringMode.Reporting
                item.RequestedParameters = ua.MonitoringParameters(handle, sampling, None, queue_size, True)
                request.Parameters.ItemsToCreate.append(item)
            for result in self.call(request, ua.CreateMonitoredItemsResponse).Results:
                result.StatusCode.check()
        return subscription

    def publish(self, acknowledged: list[tuple[int, int]] = ()):
        """Sends a Publish request; the acknowledgements are (subscription, sequence number)."""
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [ua.SubscriptionAcknowledgement(*one) for one in acknowledged]
        self.send(self.encode(request))

    def published(self) -> "Published":
        """Receives a response to one of them."""
        return Published(self.glance())


class Published:
    """The beginning of a PublishResponse (OPC 10000-4, 5.14.5), for one subscription of data changes."""

    def __init__(self, body: bytes):
        if body[:4] != PUBLISH_RESPONSE:
            raise ConnectionError(f"not a PublishResponse: {body[:64].hex()}")
        # Type id, timestamp, request handle, service result, no diagnostics, no strings, no additional header.
        at = 4 + 8 + 4
        (result,) = struct.unpack_from("<I", body, at)
        ua.StatusCode(result).check()
        at += 4 + 1 + 4 + 3
        self.subscription, count = struct.unpack_from("<Ii", body, at)
        # Available sequence numbers, MoreNotifications.
        at += 8 + 4 * max(count, 0) + 1
        self.sequence_number, _, parts = struct.unpack_from("<Iqi", body, at)
        at += 16
        # A keep-alive has no notification.
        self.notifications = 0
        if parts > 0:
            # DataChangeNotification: its type id, an encoding byte, its length, the number of its items.
            type_id, self.notifications = struct.unpack_from("<4s5xi", body, at)
            if type_id != struct.pack("<BBH", 1, 0, 811):
                raise ConnectionError(f"not a DataChangeNotification: {body[at:at + 16].hex()}")
