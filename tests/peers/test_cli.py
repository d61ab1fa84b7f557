"""The command line and its bad days: what is wrong is said once, with file, line, key and a way out."""

import json
import os
import pty
import signal
import socket
import subprocess
import time

from conftest import BINARY, DEMO, picture, wait_until


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
    done = run("check", "--config", make(DEMO.replace("operator", "viewer")).config)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_should_not_stay_so_is_a_warning(make):
    vedette = make()
    done = run("check", "--config", vedette.config)
    assert done.returncode == 0
    assert f"vedette: warning: {vedette.config}:7: [ua_server] anonymous: every client that connects" in done.stderr


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
    assert f"{vedette.config}:25: [[simulator]] name: tag demo/sine/sine of " in vedette.text()


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
    assert f"{vedette.config}:18: [[camera]] device" in vedette.text()


def test_a_broken_certificate_is_refused_before_anything_listens(make):
    vedette = make().start()
    vedette.stop()
    (vedette.data / "pki/own/cert.der").write_bytes(b"nonsense")
    vedette.start(wait=False)
    assert vedette.process.wait(30) == 1
    assert "cert.der" in vedette.text() and "(DER or PEM)" in vedette.text()


def test_cameras_are_listed_for_people_and_for_scripts():
    assert run("cameras").returncode == 0
    assert isinstance(json.loads(run("cameras", "--json").stdout), list)


def test_cameras_that_come_and_go_are_watched():
    """What comes and goes needs a kernel of its own (tests/vm); here that it goes on, and ends when told to."""
    with subprocess.Popen([BINARY, "cameras", "--watch"], stdout=subprocess.PIPE) as watch:
        assert watch.stdout.readline()
        time.sleep(1)
        assert watch.poll() is None
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == -signal.SIGINT


def snapshot(*arguments, **options):
    return subprocess.run([BINARY, "snapshot", *map(str, arguments)], capture_output=True, timeout=60, **options)


def test_a_snapshot_goes_into_a_pipe_or_a_file(make, tmp_path):
    piped = snapshot("test-pattern", cwd=tmp_path)
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert picture(piped.stdout).size == (1280, 720)
    assert not list(tmp_path.glob("*.jpg"))

    file = tmp_path / "x.jpg"
    done = snapshot("test-pattern", "-o", file, "--size", "320x240", "--quality", 20)
    assert picture(file.read_bytes()).size == (320, 240)
    assert done.stdout.decode() == f"{file}: 320x240, {file.stat().st_size} bytes\n"

    by_name = snapshot("line1", "--config", make().config, "-o", "-")
    assert picture(by_name.stdout).size == (640, 480), "as configured"

    # Nothing that takes a picture: a file named after the camera.
    with open(os.devnull, "wb") as null:
        subprocess.run([BINARY, "snapshot", "test-pattern"], stdout=null, cwd=tmp_path, timeout=60, check=True)
    assert picture((tmp_path / "test-pattern.jpg").read_bytes())


def test_a_terminal_gets_no_jpeg():
    master, slave = pty.openpty()
    done = subprocess.run([BINARY, "snapshot", "test-pattern", "-o", "-"], stdout=slave, stderr=subprocess.PIPE, timeout=60)
    os.close(slave)
    os.close(master)
    assert done.returncode == 2 and b"a terminal cannot show a JPEG" in done.stderr


def test_a_snapshot_that_cannot_be_taken_says_why(make, tmp_path):
    config = make(DEMO).config
    for arguments, code, words in [
        (["lin1", "--config", config], 2, 'no camera has the name "lin1"; did you mean "line1"?'),
        (["xyz", "--config", config], 2, "there are line1, absent"),
        (["absent", "--config", config], 1, "/dev/video99 does not exist; `vedette cameras` lists what there is"),
        (["/dev/null"], 1, "/dev/null"),
        (["x", "--config", tmp_path / "none.toml"], 2, "none.toml: cannot read it"),
        (["test-pattern", "--size", "3x3"], 2, "as in 1280x720"),
        (["test-pattern", "-o", tmp_path], 1, f"cannot write {tmp_path}"),
    ]:
        done = snapshot(*arguments)
        assert (done.returncode, done.stdout) == (code, b""), done
        assert words in done.stderr.decode(), done.stderr


PIPE = """
[[camera]]
name = "csi"
device = "pipe"
command = ["sh", "-c", "sleep 1000 & wait"]
"""


def test_an_interrupted_snapshot_leaves_no_program_behind(make):
    config = make(PIPE).config
    with subprocess.Popen([BINARY, "snapshot", "csi", "--config", config, "-o", "-"], stdout=subprocess.PIPE) as command:
        def program():
            for task in os.listdir(f"/proc/{command.pid}/task"):
                with open(f"/proc/{command.pid}/task/{task}/children") as children:
                    for pid in children.read().split():
                        return int(pid)

        pid = wait_until("the program", program)
        command.send_signal(signal.SIGINT)
        assert command.wait(15) == 1
    assert not os.path.exists(f"/proc/{pid}")
