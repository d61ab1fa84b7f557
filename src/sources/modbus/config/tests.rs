use super::*;

const LINE: &str = "name = 'a'\nurl = 'tcp://plc'\n";
const UNIT: &str = "name = 'a'\nurl = 'tcp://plc'\n[[unit]]\nid = 1\n";

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What is said about one tag.
fn of_tag(tag: &str) -> Vec<String> {
    let findings = config(&format!("{UNIT}[[unit.tag]]\nname = 't'\n{tag}")).faults();
    findings.into_iter().map(|found| format!("{}: {}", found.key, found.what)).collect()
}

#[test]
fn what_is_wrong_with_a_tag_is_said_with_the_way_out() {
    for (tag, expected) in [
        ("", "address: is missing; add address = 0 (counted from 0) or register = 40001 (as manuals have it)"),
        ("address = 0\nregister = 40001", "register: there is an address as well; take one of them away"),
        (
            "address = 70000",
            "address: 70000 is out of range; addresses of the protocol go from 0 to 65535, and the numbers of manuals are \
             written as register = 70000",
        ),
        ("address = 65535\ntype = 'Float'", "address: it takes 2 registers from 65535 on, but the last one is 65535"),
        (
            "register = 40001\ntable = 'coil'",
            "table: the register says \"holding\"; take the table away, or use address",
        ),
        (
            "address = 0\ntable = 'input'\nwritable = true",
            "writable: inputs cannot be written; only tables \"coil\" and \"holding\" can",
        ),
        ("address = 0\ntable = 'coil'\nbit = 3", "bit: coils and discrete inputs are bits already; take it away"),
        ("address = 0\ntable = 'coil'\ntype = 'Int16'", "type: coils and discrete inputs are of type \"Boolean\""),
        (
            "address = 0\ntype = 'Boolean'",
            "type: a Boolean in a register needs to know which bit; add bit = 0 (the lowest) to 15",
        ),
        ("address = 0\nbit = 16", "bit: a register has the bits 0 (the lowest) to 15"),
        ("address = 0\ntype = 'String'", "type: a String needs its length in bytes; add length = 16"),
        (
            "address = 0\ntype = 'Double'\ncount = 32",
            "count: it takes 128 registers; one request reads 1 to 125, and a tag is read in one",
        ),
        ("address = 0\ncount = 0", "count: it takes 0 registers; one request reads 1 to 125, and a tag is read in one"),
        (
            "address = 0\nlength = 5\nwritable = true",
            "length: a text that is written fills whole registers of two bytes; make the length even",
        ),
        ("address = 0\nscale = 0", "scale: it must be a number other than 0"),
        ("address = 0\nscale = nan", "scale: it must be a number other than 0"),
        ("address = 0\nlength = 4\nscale = 2", "scale: only numbers are scaled"),
        ("address = 0\nrange = [5, 5]", "range: write the lower end first, as in [0, 100]"),
        (
            "address = 0\ntype = 'Float'\nstates = ['a']",
            "states: only a Boolean and an unsigned number without scale have states",
        ),
        (
            "address = 0\ngroup = 'slow'",
            "group: there is no group \"slow\"; add a table [[modbus.group]] with that name and an interval",
        ),
        ("address = 0\ncount = 124\nwritable = true", "writable: one request writes 123 registers at most"),
    ] {
        assert_eq!(of_tag(tag), [expected], "{tag}");
    }
    for register in ["40000", "'20001'", "7", "'4000x'", "465537", "1040001"] {
        let said = of_tag(&format!("register = {register}"));
        assert!(said[0].contains("is no register number; write 00001 (coils)"), "{said:?}");
    }
}

#[test]
fn what_is_wrong_with_lines_and_units_is_said() {
    let tag = "[[unit.tag]]\nname = 't'\naddress = 0\n";
    let said = |text: &str| {
        let findings = config(text).faults();
        findings.into_iter().map(|found| format!("{}: {}", found.key, found.what)).collect::<Vec<_>>()
    };
    for (line, expected) in [
        ("name = 'a'\n[[unit]]\nid = 1\n", "url: says not where"),
        ("name = 'a'\nurl = 'tcp://x'\ndevice = '/dev/ttyS0'\n[[unit]]\nid = 1\n", "device: there is a url as well"),
        ("name = 'a'\nurl = 'plc:502'\n[[unit]]\nid = 1\n", "url: \"plc:502\" is no URL; write it as"),
        ("name = 'a'\nurl = 'udp://plc'\n[[unit]]\nid = 1\n", "url: \"udp\" is not known; write it as"),
        ("name = 'a'\ndevice = 'ttyS0'\n[[unit]]\nid = 1\n", "device: write its path, as in \"/dev/ttyUSB0\""),
        ("name = 'a'\ndevice = '/dev/ttyS0'\n[[unit]]\nid = 0\n", "id: 0 is out of range; on a line of RTU frames"),
        (
            "name = 'a'\nurl = 'tcp://x'\nmax_registers = 126\n[[unit]]\nid = 1\n",
            "max_registers: it goes from 1 to 125",
        ),
        ("name = 'a'\nurl = 'tcp://x'\nretries = 11\n[[unit]]\nid = 1\n", "retries: it goes from 0 to 10"),
        ("name = 'a'\nurl = 'tcp://x'\ninterval = '90y'\n[[unit]]\nid = 1\n", "interval: it is too long"),
        (
            "name = 'a'\nurl = 'tcp://x'\ngroup = [{ name = 'g', interval = '2days' }]\n[[unit]]\nid = 1\n",
            "interval: it is too long; use \"1day\" or less",
        ),
        (
            "name = 'a'\nurl = 'tcp://x'\nmax_registers = 1\n[[unit]]\nid = 1\ntag = [{ name = 'f', address = 0, type = 'Float' }]\n\
             [[unit]]\nid = 2\n",
            "type: it takes 2 registers; one request reads 1 to 1",
        ),
        ("name = 'a'\nurl = 'tcp://x'\ntimeout = '1ms'\n[[unit]]\nid = 1\n", "timeout: it is too short"),
        ("name = 'a'\nurl = 'tcp://x'\n[[unit]]\nids = '1-300'\n", "ids: \"1-300\" is no list of unit ids"),
        ("name = 'a'\nurl = 'tcp://x'\n[[unit]]\nids = '1-3,2'\n", "ids: \"1-3,2\" is no list of unit ids"),
        (
            "name = 'a'\nurl = 'tcp://x'\n[[unit]]\nids = '1-3'\nname = 'x'\n",
            "name: all have the same; write {id} in it, as in \"x{id}\"",
        ),
        ("name = 'a'\nurl = 'tcp://x'\n[[unit]]\n", "id: is missing; add id = 1"),
        ("name = 'a'\nurl = 'tcp://x'\n[[unit]]\nid = 1\nlike = 'b'\n", "like: there is no other unit \"b\""),
    ] {
        let said = said(&format!("{line}{tag}"));
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?} for {line}");
    }
    let twice = said(&format!("{LINE}[[unit]]\nid = 1\n{tag}[[unit]]\nid = 2\nname = 'unit1'\n{tag}"));
    assert_eq!(twice, ["name: there is another unit \"unit1\"; each needs its own"]);
    let both = format!("{LINE}[[unit]]\nid = 1\n{tag}[[unit]]\nid = 2\nlike = 'unit{{id}}'\nname = 'b'\n{tag}");
    assert_eq!(said(&both).len(), 1);
    let own_line = config(&both).faults()[0].at.clone().unwrap();
    assert!(own_line.start > both.find("like").unwrap(), "it is the tag's own");
    assert_eq!(
        said(&both),
        ["name: this unit, or \"unit{id}\", which it is like, has another tag \"t\"; give it another name"]
    );
    let same = said(&format!("{UNIT}{tag}{tag}"));
    assert_eq!(same, ["name: this unit has another tag \"t\"; give it another name"]);
    assert!(said(UNIT)[0].starts_with("tag: it has no tags"));
    assert!(said(LINE)[0].starts_with("unit: it has no units"));
}

#[test]
fn manuals_count_from_one_and_the_protocol_from_zero() {
    for (tag, expected) in [
        ("register = 40001", (Area::Holding, 0)),
        ("register = '00017'", (Area::Coil, 16)),
        ("register = 10002", (Area::Discrete, 1)),
        ("register = 30100", (Area::Input, 99)),
        ("register = 465536", (Area::Holding, 65535)),
        ("register = '065536'", (Area::Coil, 65535)),
        ("address = 40001", (Area::Holding, 40001)),
        ("address = 3\ntable = 'input'", (Area::Input, 3)),
    ] {
        let tag: Tag = toml::from_str(&format!("name = 't'\n{tag}")).unwrap();
        assert_eq!(tag.place(), Ok(expected), "{tag:?}");
    }
}

#[test]
fn a_hundred_units_and_a_hundred_addresses_take_few_lines() {
    let text = "name = 'a'\n[[unit]]\nids = '1-100'\nurl = 'tcp://10.0.0.{id}'\ntag = [{ name = 't', address = 0 }]";
    let config = config(text);
    assert_eq!(config.faults(), []);
    let unit = config.unit[0].get_ref();
    assert_eq!(unit.ids().map(|ids| ids.len()), Ok(100));
    let Some(Ok(Endpoint::Tcp(place))) = unit.endpoint(7) else { panic!("tcp") };
    assert_eq!((place.host.as_str(), place.port, unit.name_of(7).as_str()), ("10.0.0.7", 502, "unit7"));
}
