"""The command line for DA servers: list, browse, read, write, watch, info, check, explain."""

import pytest


def test_explain(plain):
    done = plain("explain", "800706BA")
    assert done.code == 0 and "RPC_S_SERVER_UNAVAILABLE" in done.out
    assert plain("explain", "C1234567").code == 1
    assert plain("explain", "E_FAIL").code == 2


def test_this_pc(plain):
    listed = plain("list")
    assert listed.code == 0 and "no DA servers" in listed.error
    checked = plain("check")
    assert checked.code == 0 and "program of" in checked.out
    unknown = plain("check", "Nobody.Server.1")
    assert unknown.code == 1 and "PROBLEM" in unknown.out and "CO_E_CLASSSTRING" in unknown.out
    assert "CO_E_CLASSSTRING" in plain("info", "Nobody.Server.1").error


@pytest.mark.parametrize("da", [2, 3])
def test_info_and_check(tool, da):
    info = tool("info", da=da)
    assert info.code == 0 and "running" in info.out and ("DA 3" in info.out) == (da == 3)
    (info,) = tool("info", "--json", da=da).json()
    assert info["vendor"] == "Vedette's test server" and info["browse3"] == (da == 3)
    checked = tool("check", da=da)
    assert checked.code == 0 and "it takes callbacks on" in checked.out
    assert "poll its cache" in tool("check", da=da, mute=True).out
    assert "no configuration" in tool("check", da=da, state=3).out


@pytest.mark.parametrize("da", [2, 3])
def test_browse(tool, da):
    root = tool("browse", da=da)
    assert "Types/" in root.lines and "Control  Control" in root.lines and len(root.lines) == 5
    assert "with/slash  Special.with/slash" in tool("browse", "Special", da=da).lines
    assert tool("browse", "Special.Twin", da=da).lines == ["Inner  Special.Twin.Inner"]
    tree = tool("browse", "--recursive", da=da)
    assert "  Twin/  Special.Twin" in tree.lines and "    Inner  Special.Twin.Inner" in tree.lines
    flat = tool("browse", "--flat", da=da)
    assert "Special.Twin.Inner" in flat.lines and "Types" not in flat.lines
    assert sorted(tool("browse", "*bool", da=da).lines) == ["Types.Arrays.Bool", "Types.Bool"]
    assert "none of" in tool("browse", "*nothing*", da=da).error
    missing = tool("browse", "Types/Nothing", da=da)
    assert missing.code == 1 and "there is no branch" in missing.error
    analog = tool("browse", "Special.Analog*", "--properties", da=da)
    assert '    100 EU Units = "°C"' in analog.lines
    (analog,) = tool("browse", "Special.Analog*", "--properties", "--json", da=da).json()
    assert {one["id"]: one.get("value") for one in analog["properties"]}[102] == 150.0


@pytest.mark.parametrize("da", [2, 3])
def test_read(tool, da):
    read = tool("read", "Types.R8", "Types.Arrays.Matrix", "Special.Uncertain", da=da)
    assert read.code == 0
    assert read.lines[0] == "Types.R8 = 2.25  good  2026-01-01T00:00:00.000Z  R8"
    assert read.lines[1].startswith("Types.Arrays.Matrix = [1, 2, 3, 4, 5, 6] (2x3)  good")
    assert "uncertain, engineering units exceeded, high limited" in read.lines[2]
    cache = tool("read", "--cache", "--json", "Types.Arrays.Matrix", "Nowhere", da=da)
    matrix, nowhere = cache.json()
    assert cache.code == 1 and matrix["value"] == [[1, 2, 3], [4, 5, 6]] and matrix["quality"] == 192
    assert nowhere["error"] == "OPC_E_UNKNOWNITEMID"
    assert len(tool("read", "Ramps.*", da=da).lines) == 10


def test_write(tool):
    assert tool("write", "Types.Arrays.I4", "[7, 8]").lines == ["Types.Arrays.I4 = [7, 8]  written"]
    assert tool("write", "Types.I4", "-5").code == 0
    assert tool("write", "Types.BSTR", "[x", "--text").code == 0
    assert tool("write", "Types.Arrays.I4", "[7").code == 2
    clamped = tool("write", "Special.Clamped", "500")
    assert clamped.code == 0 and "OPC_S_CLAMP" in clamped.out
    refused = tool("write", "Special.ReadOnly", "5")
    assert refused.code == 1 and "OPC_E_BADRIGHTS" in refused.error
    (refused,) = tool("write", "Types.I2", "70000", "--json").json()
    assert refused["error"] == "DISP_E_OVERFLOW"


@pytest.mark.parametrize("da", [2, 3])
def test_a_broken_branch_hides_no_other(tool, da):
    for arguments in (["--recursive"], ["*bool"], ["--flat"]):
        browsed = tool("browse", *arguments, da=da, broken="Arrays")
        assert browsed.code == 1 and "Types/Arrays: " in browsed.error, arguments
        assert any("Types.Bool" in line for line in browsed.lines), arguments
        assert not any("Types.Arrays.Bool" in line for line in browsed.lines), arguments
    assert "Control  Control" in tool("browse", "--recursive", da=da, broken="Arrays").lines
    assert tool("browse", "Types/Arrays", da=da, broken="Arrays").lines == []
    read = tool("read", "Types.Bo*", da=da, broken="Arrays")
    assert read.code == 1 and len(read.lines) == 1


def test_watch_polls_a_server_that_does_not_call_back(tool):
    watched = tool("watch", "Ramps.Ramp0", "Types.I4", "--rate", "100ms", "--count", "5", mute=True)
    assert watched.code == 0 and "its cache is polled" in watched.error
    assert len(watched.lines) == 5 and sum("Types.I4" in line for line in watched.lines) == 1
    over = tool("watch", "Types.I4", "--for", "1s", mute=True)
    assert over.code == 0 and len(over.lines) == 1


def test_watch(tool):
    watched = tool("watch", "Ramps.Ramp0", "Nowhere", "--rate", "10ms", "--count", "4")
    assert watched.code == 1 and len(watched.lines) == 4 and all("Ramps.Ramp0 = " in line for line in watched.lines)
    assert "every 50 ms" in watched.error and "OPC_E_UNKNOWNITEMID" in watched.error
    over = tool("watch", "Types.I4", "--for", "1s", "--json")
    assert over.code == 0 and over.json()[0]["value"] == -2_000_000_000
