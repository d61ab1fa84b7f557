"""What an image calls: `vedette provision` with a boot partition, and `vedette health` as the gate of what runs then."""

import subprocess
import tomllib

import pytest
from conftest import BINARY, free_port


@pytest.fixture
def card(tmp_path):
    """Folders in the places of a device's partitions."""
    for name in ("boot", "data", "run", "root/etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return tmp_path


def provision(card):
    places = [f"--{name}={card / name}" for name in ("boot", "data", "run", "root")]
    done = subprocess.run([BINARY, "provision", *places, f"--host-name={card / 'hostname'}"], capture_output=True, text=True)
    assert done.returncode == 0, "the device must come up"
    return done.stderr


def gate(card, *options):
    data = card / "data/vedette"
    return [BINARY, "health", f"--config={data / 'vedette.toml'}", f"--data-dir={data}", *options]


def health(card, within="1s"):
    return subprocess.run(gate(card, f"--within={within}"), capture_output=True, text=True)


def run(card):
    data = card / "data/vedette"
    arguments = [BINARY, "run", f"--config={data / 'vedette.toml'}", f"--data-dir={data}"]
    return subprocess.Popen(arguments, stderr=subprocess.DEVNULL)


def test_a_provisioned_device_runs_and_passes_the_gate(card):
    port = free_port()
    (card / "boot/vedette.toml").write_text(
        f"""
[provision]
host_name = "press-4"
[[provision.user]]
name = "anna"
role = "admin"
password = "a long one of hers"
[ua_server]
listen = "127.0.0.1:{port}"
mdns = false
[cameras]
discover = false
[[simulator]]
name = "demo"
"""
    )
    assert "the file is taken" in provision(card)
    assert list((card / "boot").iterdir()) == []
    assert (card / "hostname").read_text() == "press-4"
    config = tomllib.loads((card / "data/vedette/vedette.toml").read_text())
    assert config["device"]["name"] == "press-4" and "provision" not in config

    before = health(card)
    assert before.returncode == 1 and "no vedette runs" in before.stderr
    process = run(card)
    try:
        passed = health(card, "60s")
        assert passed.returncode == 0 and "healthy" in passed.stdout, passed
        # What worked in the slot before: a camera that is not here.
        (card / "data/vedette/health.json").write_text('{"cameras": {"front": ""}, "sources": {"demo": ""}}')
        missed = health(card)
        assert missed.returncode == 1
        assert "camera front worked before and is not there now" in missed.stderr and "demo" not in missed.stderr
    finally:
        process.terminate()
        process.wait(30)


def test_a_device_without_a_server_and_a_broker_that_was_away_before_passes_the_gate(card):
    (card / "boot/vedette.toml").write_text(
        f'[cameras]\ndiscover = false\n[mqtt]\nbroker = "mqtt://127.0.0.1:{free_port()}"\n[[simulator]]\nname = "demo"\n'
    )
    provision(card)
    kept = card / "data/vedette/health.json"
    process = run(card)
    try:
        first = health(card, "60s")
        assert first.returncode == 0 and "nothing is known of before" in first.stdout, first
        kept.write_text('{"uplink": "connection refused", "sources": {"demo": ""}}')
        assert health(card, "60s").returncode == 0
        kept.write_text('{"uplink": ""}')
        missed = health(card)
        assert missed.returncode == 1 and "the uplink was connected before and is not now" in missed.stderr, missed
    finally:
        process.terminate()
        process.wait(30)


def test_the_gate_believes_only_what_was_tried_and_what_lasts(card):
    # Cameras and a source that worked before: one gives no picture, one never answers, and one is as it should be.
    (card / "boot/vedette.toml").write_text(
        f"""
[cameras]
discover = false
test_pattern = "always"
[[camera]]
name = "dark"
device = "pipe"
command = ["sleep", "1000"]
[[ua_client]]
name = "plc"
url = "opc.tcp://127.0.0.1:{free_port()}"
[[ua_client.tag]]
name = "x"
node = "i=2258"
"""
    )
    provision(card)
    kept = card / "data/vedette/health.json"
    process = run(card)
    try:
        kept.write_text('{"cameras": {"dark": "", "Test pattern": ""}, "sources": {"plc": ""}}')
        missed = health(card, "25s").stderr
        assert "camera dark worked before and does not now" in missed and "Test pattern" not in missed, missed
        assert "source plc worked before and does not now" in missed, missed

        kept.write_text('{"cameras": {"Test pattern": ""}, "network": ""}')
        assert health(card, "30s").returncode == 0
        with subprocess.Popen(gate(card, "--steady=6s"), stdout=subprocess.PIPE, text=True) as lasting:
            assert "it has to stay so for 6s" in lasting.stdout.readline()
            process.kill()
            process.wait()
            process = run(card)
            said = lasting.stdout.read()
        assert "not yet healthy" in said and said.count("it has to stay so for 6s") == 1 and lasting.returncode == 0, said
        assert subprocess.run(gate(card, "--kept")).returncode == 0
    finally:
        process.terminate()
        process.wait(30)


def test_a_file_is_looked_at_without_a_device(tmp_path):
    file = tmp_path / "vedette.toml"
    file.write_bytes('[provision]\r\nhost_name = "press-4"\r\n[ua_server]\r\n'.encode("utf-16"))
    command = [BINARY, "provision", "--check", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "host name: press-4" in done.stdout and "[ua_server]" in done.stdout, done
    assert file.exists() and list(tmp_path.iterdir()) == [file]
    file.write_text('[provision]\nbroker_password = 12345678\n[ua_server]\nlistn = "x"\n')
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "vedette.toml:2: must be a string, not integer" in done.stderr, done
    assert "12345678" not in done.stderr


def test_a_bad_file_is_told_by_line_and_the_defaults_are_a_configuration_that_runs(card):
    (card / "boot/vedette.toml").write_text('[provision]\nhost_name = "x"\n\n[ua_server]\nlistn = "0.0.0.0:4840"\n')
    said = provision(card)
    wanted = "vedette.toml:5: [ua_server]: unknown key `listn`; did you mean `listen`?"
    assert wanted in said
    assert wanted in (card / "boot/vedette-errors.txt").read_text()
    assert (card / "hostname").read_text() == "vedette-abcdef"
    check = subprocess.run([BINARY, "check", f"--config={card / 'data/vedette/vedette.toml'}"], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("what", [["x.raucb"], ["--stick", "/"]], ids=["file", "stick"])
def test_an_update_needs_slots(card, what):
    refused = subprocess.run([BINARY, "update", *what, f"--data-dir={card / 'data'}"], capture_output=True, text=True)
    assert refused.returncode == 1 and "no update slots" in refused.stderr, refused
