"""Who comes in, and what each may do where."""

import datetime
import hashlib
import os
import stat
import subprocess
import threading
import time

import pytest
from asyncua import ua
from asyncua.crypto.security_policies import (
    SecurityPolicyAes128Sha256RsaOaep,
    SecurityPolicyAes256Sha256RsaPss,
    SecurityPolicyBasic256Sha256,
)
from conftest import BINARY, child, wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from test_security import identity, secure_client  # noqa: F401 (a fixture)

POLICIES = [SecurityPolicyBasic256Sha256, SecurityPolicyAes128Sha256RsaOaep, SecurityPolicyAes256Sha256RsaPss]
ENCRYPT, SIGN = ua.MessageSecurityMode.SignAndEncrypt, ua.MessageSecurityMode.Sign
PASSWORD = "correct horse battery"

PLANT = """
[ua_server]
listen = "127.0.0.1:{port}"
anonymous = "ANONYMOUS"
[cameras]
discover = false
linger = "500ms"
[[camera]]
name = "line1"
device = "test-pattern"
width = 320
height = 240
[[simulator]]
name = "demo"
interval = "100ms"
[[simulator]]
name = "secret"
interval = "100ms"
[[simulator]]
name = "dark"
interval = "100ms"
"""

RULES = """
[[ua_server.access]]
path = "Tags/secret"
browse = "admin"
[[ua_server.access]]
path = "Tags/dark"
read = "operator"
write = "admin"
[[ua_server.access]]
path = "Cameras/line1/Snapshot"
call = "operator"
[[ua_server.access]]
path = "Cameras/line1/Camera Image"
read = "operator"
[[ua_server.access]]
path = "Tags/nowhere"
read = "admin"
"""


def user(vedette, *arguments, password=None):
    command = [BINARY, "user", *map(str, arguments), "--data-dir", vedette.data]
    given = None if password is None else password + "\n"
    if given:
        command.append("--password-stdin")
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)


def good(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def plant(make, identity):  # noqa: F811
    """A server that trusts the client's application, with a user of each role."""

    def start(anonymous="viewer", rules=RULES, users=("viewer", "operator", "admin")):
        vedette = make(PLANT.replace("ANONYMOUS", anonymous) + rules)
        for role in users:
            good(user(vedette, "add", f"the {role}", "--role", role, password=PASSWORD))
        trusted = vedette.data / "pki/trusted"
        trusted.mkdir(parents=True)
        der = (identity / "cert.der").read_bytes()
        (trusted / f"CN=tester [{hashlib.sha1(der).hexdigest()}].der").write_bytes(der)
        vedette.start()
        vedette.identity = identity
        return vedette

    return start


def come(vedette, name=None, password=PASSWORD, policy=SecurityPolicyBasic256Sha256, mode=ENCRYPT):
    client = secure_client(vedette, vedette.identity, policy, mode)
    # It would hang up once ServerStatus is denied.
    client.aio_obj._watchdog_intervall = 600
    if name:
        client.set_user(name)
        client.set_password(password)
    client.connect()
    return client


def node(client, path):
    return client.get_node(f"ns=2;s={path}")


def double(value):
    return ua.DataValue(ua.Variant(value, ua.VariantType.Double))


def refused(status, action, *arguments):
    with pytest.raises(ua.UaStatusCodeError) as caught:
        action(*arguments)
    assert caught.value.code == getattr(ua.StatusCodes, status), caught.value


def names(client, path):
    return {c.read_browse_name().Name for c in node(client, path).get_children()}


class Values:
    def __init__(self):
        self.seen = []

    def datachange_notification(self, item, value, data):
        data = data.monitored_item.Value
        # Without the info bits, which say more than one value was due.
        denied = data.StatusCode.value & 0xFFFF0000 == ua.StatusCodes.BadUserAccessDenied
        self.seen.append("denied" if denied else data.Value.Value)


def test_the_endpoints_say_who_may_come_in(plant):
    for anonymous, tokens in [("none", {"UserName", "Certificate"}), ("viewer", {"Anonymous", "UserName", "Certificate"})]:
        vedette = plant(anonymous, users=())
        for endpoint in vedette.client().connect_and_get_server_endpoints():
            assert {token.TokenType.name.rstrip("_") for token in endpoint.UserIdentityTokens} == tokens
            policies = {t.SecurityPolicyUri for t in endpoint.UserIdentityTokens if t.TokenType.name != "Anonymous"}
            assert policies == {endpoint.SecurityPolicyUri}, "no password in clear, no certificate by a weak policy"


def test_without_security_there_is_nobody_but_anonymous(vedette):
    endpoints = vedette.client().connect_and_get_server_endpoints()
    (insecure,) = [e for e in endpoints if e.SecurityMode == ua.MessageSecurityMode.None_]
    assert [token.TokenType.name for token in insecure.UserIdentityTokens] == ["Anonymous"]
    good(user(vedette, "add", "anna", "--role", "admin", password=PASSWORD))
    client = vedette.client()
    client.set_user("anna")
    client.set_password(PASSWORD)
    with pytest.raises(Exception):
        client.connect()


@pytest.mark.parametrize("mode", [ENCRYPT, SIGN])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_user_comes_in_with_the_password_and_nobody_else_does(plant, policy, mode):
    vedette = plant("none")
    with pytest.raises(Exception):
        come(vedette, policy=policy, mode=mode)
    refused("BadUserAccessDenied", come, vedette, "the operator", "wrong", policy, mode)
    refused("BadUserAccessDenied", come, vedette, "nobody", PASSWORD, policy, mode)
    client = come(vedette, "the operator", PASSWORD, policy, mode)
    node(client, "Tags/demo/set_point").write_value(double(3.5))
    client.disconnect()
    wait_until("said", lambda: vedette.says("Refused a login."))
    assert "wrong" not in vedette.text().replace("wrong password", "") and PASSWORD not in vedette.text()


def make_user_certificate(folder, days=(-1, 30)):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anna")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now + datetime.timedelta(days=days[0]))
    certificate = builder.not_valid_after(now + datetime.timedelta(days=days[1])).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "user.key.pem").write_bytes(pem)
    (folder / "user.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "user.pem", folder / "user.key.pem", certificate.fingerprint(hashes.SHA1()).hex()


def come_with_certificate(vedette, certificate, key, policy=SecurityPolicyBasic256Sha256):
    client = secure_client(vedette, vedette.identity, policy, ENCRYPT)
    client.load_client_certificate(str(certificate))
    client.load_private_key(str(key))
    client.connect()
    return client


@pytest.mark.parametrize("policy", POLICIES)
def test_a_user_comes_in_with_a_certificate(plant, tmp_path, policy):
    vedette = plant("none")
    certificate, key, thumbprint = make_user_certificate(tmp_path)
    refused("BadIdentityTokenRejected", come_with_certificate, vedette, certificate, key, policy)
    good(user(vedette, "add", "anna", "--role", "operator", "--certificate", certificate))
    assert f"certificate {thumbprint} until" in good(user(vedette, "list"))
    client = come_with_certificate(vedette, certificate, key, policy)
    set_point = node(client, "Tags/demo/set_point")
    set_point.write_value(double(1.5))
    good(user(vedette, "set", "anna", "--remove-certificate", thumbprint))
    time.sleep(0.1)
    refused("BadUserAccessDenied", set_point.read_value)


def test_a_certificate_of_another_time_or_key_does_not_help(plant, tmp_path):
    vedette = plant("none", users=())
    certificate, key, _ = make_user_certificate(tmp_path, days=(-10, -1))
    good(user(vedette, "add", "anna", "--role", "viewer", "--certificate", certificate))
    refused("BadIdentityTokenRejected", come_with_certificate, vedette, certificate, key)
    certificate, _, _ = make_user_certificate(tmp_path)
    good(user(vedette, "set", "anna", "--add-certificate", certificate))
    other = tmp_path / "other"
    other.mkdir()
    _, key, _ = make_user_certificate(other)
    with pytest.raises(Exception):
        come_with_certificate(vedette, certificate, key)


def test_each_role_may_do_what_it_should(plant):
    vedette = plant()
    everybody = {None: 0, "the viewer": 0, "the operator": 1, "the admin": 2}
    for name, rank in everybody.items():
        client = come(vedette, name)
        read, write = ua.AccessLevel.CurrentRead.mask, ua.AccessLevel.CurrentWrite.mask

        def level(path, attribute=ua.AttributeIds.UserAccessLevel):
            return node(client, path).read_attribute(attribute).Value.Value

        # By default: read from viewer on, write from operator on.
        set_point = node(client, "Tags/demo/set_point")
        assert set_point.read_value() is not None
        assert level("Tags/demo/set_point", ua.AttributeIds.AccessLevel) & (read | write) == read | write
        assert level("Tags/demo/set_point") & (read | write) == (read | write if rank >= 1 else read)
        if rank >= 1:
            set_point.write_value(double(2.0))
        else:
            refused("BadUserAccessDenied", set_point.write_value, double(2.0))
        refused("BadNotWritable", node(client, "Tags/demo/sine").write_value, double(2.0))

        # Read from operator on, write from admin on: shown to all.
        dark = node(client, "Tags/dark/set_point")
        assert "set_point" in names(client, "Tags/dark")
        assert dark.read_display_name().Text == "set_point"
        assert level("Tags/dark/set_point") & (read | write) == [0, read, read | write][rank]
        if rank >= 1:
            dark.read_value()
        else:
            refused("BadUserAccessDenied", dark.read_value)
            refused("BadUserAccessDenied", node(client, "Cameras/line1/Camera Image").read_value)
        if rank >= 2:
            dark.write_value(double(2.0))
        else:
            refused("BadUserAccessDenied", dark.write_value, double(2.0))

        # A method.
        camera, snapshot = node(client, "Cameras/line1"), node(client, "Cameras/line1/Snapshot")
        assert snapshot.read_attribute(ua.AttributeIds.Executable).Value.Value is True
        assert snapshot.read_attribute(ua.AttributeIds.UserExecutable).Value.Value is (rank >= 1)
        if rank >= 1:
            assert camera.call_method(snapshot)[:2] == b"\xff\xd8"
        else:
            refused("BadUserAccessDenied", camera.call_method, snapshot)
        client.disconnect()


def test_what_somebody_may_not_browse_is_not_there(plant):
    vedette = plant()
    admin = come(vedette, "the admin")
    path = ua.RelativePath([
        ua.RelativePathElement(ua.NodeId(ua.ObjectIds.HierarchicalReferences), False, True, ua.QualifiedName(name, 2))
        for name in ["Tags", "secret", "set_point"]
    ])
    browse_path = ua.BrowsePath(ua.NodeId(ua.ObjectIds.ObjectsFolder), path)

    def translated(client):
        (result,) = client.tloop.post(client.aio_obj.uaclient.translate_browsepaths_to_nodeids([browse_path]))
        return result.StatusCode.name, [target.TargetId for target in result.Targets or []]

    def browsed(unknown):
        description = ua.BrowseDescription(unknown.nodeid, ua.BrowseDirection.Both, ua.NodeId(), True, 0, 63)
        parameters = ua.BrowseParameters(ua.ViewDescription(Timestamp=ua.get_win_epoch()), 0, [description])
        (result,) = client.tloop.post(client.aio_obj.uaclient.browse(parameters))
        assert not result.References or result.StatusCode.is_good()
        return result.StatusCode.name

    assert translated(admin) == ("Good", [ua.NodeId("Tags/secret/set_point", 2)])
    assert "secret" in names(admin, "Tags")
    node(admin, "Tags/secret/set_point").write_value(double(4.0))

    client = come(vedette, "the operator")
    assert names(client, "Tags") == {"demo", "dark", "device"}
    assert translated(client) == ("BadNoMatch", [])
    set_point, nothing = node(client, "Tags/secret/set_point"), node(client, "Tags/secret/nothing")
    folder = node(client, "Tags/secret")
    for unknown in [set_point, nothing]:
        refused("BadNodeIdUnknown", unknown.read_value)
        refused("BadNodeIdUnknown", unknown.read_browse_name)
        refused("BadNodeIdUnknown", unknown.write_value, double(1.0))
        assert browsed(unknown) == "BadNodeIdUnknown"
        refused("BadNodeIdUnknown", unknown.get_child, ["2:x"])
        refused("BadNodeIdUnknown", unknown.call_method, node(client, "Cameras/line1/Snapshot"))
        subscription = client.create_subscription(100, Values())
        refused("BadNodeIdUnknown", subscription.subscribe_data_change, unknown)
        history = unknown.read_raw_history
        with pytest.raises(ua.UaStatusCodeError, match="BadNodeIdUnknown|BadHistoryOperationUnsupported"):
            history(datetime.datetime(2020, 1, 1), datetime.datetime(2021, 1, 1))
    assert browsed(folder) == "BadNodeIdUnknown" and browsed(node(client, "Tags")) == "Good"
    # Nor backwards, from what is there.
    inverse = node(client, "Tags").get_references(direction=ua.BrowseDirection.Both)
    assert not [r for r in inverse if "secret" in str(r.NodeId.Identifier)]
    assert vedette.says('Tags/nowhere')


def test_browse_goes_on_where_it_ended_also_through_what_is_hidden(plant):
    vedette = plant()
    for name, expected in [("the operator", {"demo", "dark", "device"}), ("the admin", {"demo", "dark", "device", "secret"})]:
        client = come(vedette, name)
        description = ua.BrowseDescription(
            ua.NodeId("Tags", 2), ua.BrowseDirection.Forward, ua.NodeId(ua.ObjectIds.HierarchicalReferences), True, 0, 63
        )
        view = ua.ViewDescription(Timestamp=ua.get_win_epoch())
        parameters = ua.BrowseParameters(view, 1, [description])
        (result,) = client.tloop.post(client.aio_obj.uaclient.browse(parameters))
        found = [reference.BrowseName.Name for reference in result.References]
        while result.ContinuationPoint:
            more = ua.BrowseNextParameters(False, [result.ContinuationPoint])
            (result,) = client.tloop.post(client.aio_obj.uaclient.browse_next(more))
            found += [reference.BrowseName.Name for reference in result.References or []]
        assert set(found) == expected and len(found) == len(expected)
        client.disconnect()


def test_a_role_that_changes_changes_running_sessions_and_their_items(plant):
    vedette = plant()
    client = come(vedette, "the operator")
    set_point, dark = node(client, "Tags/demo/set_point"), node(client, "Tags/dark/sine")
    set_point.write_value(double(1.0))
    tag, image = Values(), Values()
    client.create_subscription(50, tag).subscribe_data_change(dark)
    client.create_subscription(50, image).subscribe_data_change(node(client, "Cameras/line1/Camera Image"))
    wait_until("values", lambda: len(tag.seen) > 2 and len(image.seen) > 0)
    assert "denied" not in tag.seen + image.seen

    good(user(vedette, "set", "the operator", "--role", "viewer"))
    refused("BadUserAccessDenied", set_point.write_value, double(1.0))
    for values in [tag, image]:
        wait_until("denied", lambda: values.seen[-1] == "denied")
    count = len(tag.seen)
    time.sleep(0.5)
    assert len(tag.seen) == count, "nothing more comes"

    good(user(vedette, "set", "the operator", "--role", "operator"))
    set_point.write_value(double(1.0))
    for values in [tag, image]:
        wait_until("values again", lambda: values.seen[-1] != "denied")


def test_who_is_removed_has_no_rights_any_more(plant):
    vedette = plant()
    client, other = come(vedette, "the admin"), come(vedette, "the operator")
    set_point = node(client, "Tags/demo/set_point")
    values = Values()
    client.create_subscription(50, values).subscribe_data_change(node(client, "Tags/demo/sine"))
    wait_until("values", lambda: len(values.seen) > 2)
    good(user(vedette, "remove", "the admin"))
    refused("BadUserAccessDenied", set_point.read_value)
    refused("BadUserAccessDenied", set_point.write_value, double(1.0))
    assert set_point.get_children() == [] and node(client, "Tags").get_children() == []
    wait_until("denied", lambda: values.seen[-1] == "denied")
    refused("BadUserAccessDenied", come, vedette, "the admin")
    # Somebody new of that name is somebody else.
    good(user(vedette, "add", "the admin", "--role", "admin", password=PASSWORD))
    refused("BadUserAccessDenied", set_point.read_value)
    # A password that has been changed ends what was opened with the old one.
    other_point = node(other, "Tags/demo/set_point")
    other_point.read_value()
    good(user(vedette, "password", "the operator", password="another password"))
    refused("BadUserAccessDenied", other_point.read_value)
    come(vedette, "the operator", "another password").disconnect()


def test_another_user_on_the_same_session(plant):
    vedette = plant()
    client = come(vedette, "the operator")
    values = Values()
    client.create_subscription(50, values).subscribe_data_change(node(client, "Tags/dark/sine"))
    wait_until("values", lambda: len(values.seen) > 2)

    def become(name):
        client.tloop.post(client.aio_obj.activate_session(username=name, password=PASSWORD))

    become("the viewer")
    refused("BadUserAccessDenied", node(client, "Tags/demo/set_point").write_value, double(1.0))
    wait_until("denied", lambda: values.seen[-1] == "denied")
    become("the admin")
    wait_until("values again", lambda: values.seen[-1] != "denied")
    assert "secret" in names(client, "Tags")


def test_an_item_on_what_may_not_be_read_is_made_and_told_so(plant):
    vedette = plant()
    client = come(vedette, "the viewer")
    values, picture = Values(), Values()
    client.create_subscription(50, values).subscribe_data_change(node(client, "Tags/dark/sine"))
    client.create_subscription(50, picture).subscribe_data_change(node(client, "Cameras/line1/Camera Image"))
    wait_until("denied", lambda: values.seen == ["denied"] and picture.seen == ["denied"])
    good(user(vedette, "set", "the viewer", "--role", "operator"))
    wait_until("values", lambda: values.seen[-1] != "denied" and picture.seen[-1] != "denied")


def test_guessing_gets_slower_and_the_right_password_still_comes_in(plant):
    vedette = plant()
    begun = []
    for _ in range(7):
        begun.append(time.monotonic())
        refused("BadUserAccessDenied", come, vedette, "the operator", "guess guess guess")
    # From the fifth on each waits 0.5, 1 and 2 s after the one before: no machine is fast enough to be done sooner.
    assert time.monotonic() - begun[3] >= 3.5, begun
    # The next would wait 4 s. Somebody else does not, and comes in first although he began later.
    come_in = []
    both = [("the operator", 0.0), ("the viewer", 0.5)]

    def come_later(name, later):
        time.sleep(later)
        client = come(vedette, name)
        come_in.append(name)
        client.disconnect()

    threads = [threading.Thread(target=come_later, args=one) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert come_in == ["the viewer", "the operator"]
    assert vedette.text().count("Refused a login.") <= 2, "not a line for each"


def test_a_name_is_logged_without_what_would_spoil_the_log(plant):
    vedette = plant()
    refused("BadUserAccessDenied", come, vedette, "eve\n2026 INFO All is well." + "x" * 1000)
    wait_until("said", lambda: vedette.says("Refused a login."))
    (line,) = [line for line in vedette.text().splitlines() if "Refused a login." in line]
    assert "eve" in line and "All is well" in line and len(line) < 300


def test_broken_users_are_refused_at_start_and_ignored_later(plant, make):
    vedette = make(PLANT.replace("ANONYMOUS", "viewer"))
    good(user(vedette, "add", "anna", "--role", "admin", password=PASSWORD))
    users = vedette.data / "users.toml"
    text = users.read_text()
    users.write_text(text.replace('"admin"', '"boss"'))
    vedette.start(wait=False)
    assert vedette.process.wait(30) == 1
    line = 1 + text[: text.index("role")].count("\n")
    assert f"{users}:{line}: unknown variant `boss`" in vedette.text()

    vedette = plant()
    client = come(vedette, "the operator")
    users = vedette.data / "users.toml"
    text = users.read_text()
    users.write_text(text + "nonsense")
    wait_until("said", lambda: vedette.says("The users stay as they were."))
    assert f"{users}:{1 + text.count(chr(10))}: " in vedette.text()
    node(client, "Tags/demo/set_point").write_value(double(1.0))
    come(vedette, "the viewer").disconnect()


def test_the_commands(make, tmp_path):
    vedette = make()
    assert good(user(vedette, "list")) == ""
    assert good(user(vedette, "add", "anna", "--role", "viewer", password=PASSWORD)) == "Added anna, viewer.\n"
    users = vedette.data / "users.toml"
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    assert PASSWORD not in users.read_text() and "$argon2id$v=19$m=19456,t=2,p=1$" in users.read_text()
    good(user(vedette, "set", "anna", "--role", "operator"))
    assert good(user(vedette, "list")).split() == ["anna", "operator", "password"]
    before = users.read_text()
    for arguments, password, what in [
        (("add", "anna", "--role", "admin"), PASSWORD, "user anna is there already"),
        (("add", "bert", "--role", "admin"), "short", "the password has 5 characters; 10 are the least"),
        (("add", "bert12345678", "--role", "admin"), "bert12345678", "the password is the user's name"),
        (("add", "bert", "--role", "boss"), PASSWORD, "viewer, operator and admin are roles"),
        (("add", "bert\"", "--role", "admin"), PASSWORD, "is no user name"),
        (("add", "bert", "--role", "admin"), None, "no terminal to ask for the password"),
        (("add", "bert", "--role", "admin", "--certificate", "/nowhere"), None, "/nowhere: cannot read it"),
        (("set", "anna"), None, "required"),
        (("set", "carl", "--role", "admin"), None, "there is no user carl"),
        (("password", "carl"), PASSWORD, "there is no user carl"),
        (("remove", "carl"), None, "there is no user carl"),
    ]:
        done = user(vedette, *arguments, password=password)
        assert done.returncode != 0 and what in done.stderr, (arguments, done.stderr)
        assert users.read_text() == before
    good(user(vedette, "remove", "anna"))
    assert good(user(vedette, "list")) == ""


def test_a_password_is_asked_for_twice_unseen(make):
    vedette = make()
    vedette.data.mkdir()

    def add(name, *lines):
        pid, terminal = os.forkpty()
        if pid == 0:
            command = [str(BINARY), "user", "add", name, "--role", "viewer", "--data-dir", str(vedette.data)]
            os.execv(command[0], command)
        shown = b""
        for prompt, line in zip([b"Password for", b"Once more"], lines):
            while prompt not in shown:
                shown += os.read(terminal, 1024)
            time.sleep(0.1)
            os.write(terminal, line)
        try:
            while more := os.read(terminal, 1024):
                shown += more
        except OSError:
            pass  # The other end is closed.
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()

    line = PASSWORD.encode() + b"\n"
    code, shown = add("anna", line, line)
    assert code == 0 and "Added anna, viewer." in shown and PASSWORD not in shown
    code, shown = add("bert", line, b"something else\n")
    assert code == 1 and "the two are not the same" in shown
    code, shown = add("bert", b"\x03")
    assert code == 1 and "interrupted" in shown
    assert good(user(vedette, "list")).split()[0] == "anna"


def test_many_log_in_at_once(plant):
    vedette = plant()
    clients = [secure_client(vedette, vedette.identity, SecurityPolicyBasic256Sha256, ENCRYPT) for _ in range(8)]
    for client in clients:
        client.set_user("the operator")
        client.set_password(PASSWORD)
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda client: client.connect(), clients))
    for client in clients:
        assert node(client, "Tags/demo/set_point").read_value() is not None
        client.disconnect()


def test_the_old_client_comes_in_too(plant):
    import opcua
    from opcua.crypto.security_policies import SecurityPolicyBasic256Sha256 as Policy

    vedette = plant("none")

    def connect(password):
        client = opcua.Client(vedette.url)
        client.application_uri = "urn:vedette-test:client"
        client.set_security(Policy, str(vedette.identity / "cert.der"), str(vedette.identity / "key.pem"))
        client.set_user("the operator")
        client.set_password(password)
        try:
            client.connect()
        except Exception:
            # Else its thread goes on for ever.
            client.disconnect_socket()
            raise
        return client

    with pytest.raises(Exception):
        connect("wrong")
    client = connect(PASSWORD)
    try:
        client.get_node("ns=2;s=Tags/demo/set_point").set_value(20.0)
        with pytest.raises(opcua.ua.UaStatusCodeError):
            client.get_node("ns=2;s=Tags/dark/set_point").set_value(20.0)
    finally:
        client.disconnect()
