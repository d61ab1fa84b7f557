"""The command line and its bad days: what is wrong is said once, with file, line, key and a way out."""

import json
import signal
import socket
import subprocess

from conftest import BINARY, DEMO, wait_until


def run(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_version_and_help():
    assert run("--version").stdout.startswith("vedette ")
    assert "run" in run("--help").stdout


def test_a_bad_configuration_ends_with_2_before_anything_starts(make):
    vedette = make(DEMO.replace("insecure_on_loopback", "insecure_on_lopback"))
    for command in ["check", "run"]:
        done = run(command, "--config", vedette.config)
        assert done.returncode == 2
        expected = f"{vedette.config}:6: [ua_server]: unknown key `insecure_on_lopback`; did you mean `insecure_on_loopback`?"
        assert done.stderr == f"vedette: {expected}\n"
    assert not vedette.data.exists()


def test_a_good_configuration_is_called_good(make):
    done = run("check", "--config", make().config)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_port_in_use_is_said_with_its_holder_and_line(make):
    vedette = make()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", vedette.port))
        holder.listen()
        vedette.start(wait=False)
        assert vedette.process.wait(30) == 2
        assert f"{vedette.config}:5: [ua_server] listen: 127.0.0.1:{vedette.port} is in use by " in vedette.text()
        assert "--ua-port" in vedette.text()


def test_tags_that_exclude_each_other_are_said_with_the_line(make):
    vedette = make(DEMO + '[[simulator]]\nname = "demo/sine"\n')
    vedette.start(wait=False)
    assert vedette.process.wait(30) == 2
    assert f"{vedette.config}:24: [[simulator]] name: tag demo/sine/sine of " in vedette.text()


def test_another_port_on_the_command_line(make):
    vedette = make()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        other = probe.getsockname()[1]
    vedette.start("--ua-port", str(other))
    vedette.url = f"opc.tcp://127.0.0.1:{other}"
    with vedette.client() as client:
        assert client.get_namespace_array()


def test_it_stops_cleanly_on_both_signals(make):
    for how in [signal.SIGINT, signal.SIGTERM]:
        vedette = make().start()
        with vedette.client():
            vedette.process.send_signal(how)
            assert vedette.process.wait(30) == 0
        assert "did not end in time" not in vedette.text()


def test_a_device_that_is_missing_is_a_warning_with_its_line(vedette):
    wait_until("warned", lambda: vedette.says("/dev/video99 does not exist (yet)"))
    assert f"{vedette.config}:17: [[camera]] device" in vedette.text()


def test_a_broken_certificate_is_refused_before_anything_listens(make):
    vedette = make().start()
    vedette.stop()
    (vedette.data / "pki/own/cert.der").write_bytes(b"nonsense")
    vedette.start(wait=False)
    assert vedette.process.wait(30) == 1
    assert "cert.der" in vedette.text() and "not readable as a certificate" in vedette.text()


def test_cameras_are_listed_for_people_and_for_scripts():
    assert run("cameras").returncode == 0
    assert isinstance(json.loads(run("cameras", "--json").stdout), list)
