use super::*;

/// A file with a fault, and what is said about it.
const BAD: &[(&str, &str)] = &[
    ("[ua_server]\nlistn = '127.0.0.1:4840'\n", "x.toml:2: [ua_server]: unknown key `listn`; did you mean `listen`?"),
    (
        "[opc]\n",
        "x.toml:1: [opc]: unknown key `opc`; known are device, update, ua_server, mqtt, store, history, cameras, camera, system, simulator, \
         ua_client, modbus, gpio, sensors, computed",
    ),
    ("\n[device]\nname = 5\n", "x.toml:3: [device] name: wrong type: integer `5` where text in quotes belongs"),
    ("[ua_server]\nlisten = 'here'\n", "x.toml:2: [ua_server] listen: 'here': invalid socket address syntax"),
    ("[[camera]]\nname = 'a'\n", "x.toml:1: [[camera]]: the key `device` is missing; add device = ..."),
    (
        "[[camera]]\nname = 'a'\ndevice = 'video0'\n",
        "x.toml:3: [[camera]] device: \"video0\" is no device; write its path, as in \"/dev/video0\", or \"test-pattern\" or \"pipe\"",
    ),
    (
        "[[camera]]\nname = 'a'\ndevice = '/dev/video0'\n\n[[camera]]\ndevice = '/dev/video1'\nname = 'a'\n",
        "x.toml:7: [[camera]] name: \"a\" is the name of the one in line 2; each needs its own",
    ),
    (
        "[system]\ninterval = '5'\n",
        "x.toml:2: [system] interval: '5': invalid duration \"5\": write a number and a unit, as in \"500ms\", \"10s\", \"5m\"",
    ),
    (
        "[[simulator]]\nname = 'system'\n",
        "x.toml:2: [[simulator]] name: \"system\" is the folder of the device's own tags; choose another name",
    ),
    (
        "[cameras]\ntest_pattern = 'sometimes'\n",
        "x.toml:2: [cameras] test_pattern: 'sometimes': unknown variant `sometimes`, expected one of `never`, `if-none`, `always`",
    ),
    (
        "[ua_server]\nlisten = '0.0.0.0:4840'\ninsecure_on_loopback = true\n",
        "x.toml:3: [ua_server] insecure_on_loopback: SecurityPolicy None is only offered on a loopback address, and \
         `listen` is 0.0.0.0:4840; set it to false, or `listen` to \"127.0.0.1:4840\"",
    ),
    (
        "[ua_server]\nanonymous = 'guest'\n",
        "x.toml:2: [ua_server] anonymous: 'guest': unknown variant `guest`, expected one of `none`, `viewer`, \
         `operator`, `admin`",
    ),
    (
        "[ua_server]\n[[ua_server.access]]\npath = 'Tags'\nread = 'admin'\n[[ua_server.access]]\npath = '/x'\nread = 'admin'\n",
        "x.toml:6: [[ua_server.access]] path: \"/x\" must be names as browsed below Objects, with / between them, as in \
         \"Tags/line1\"",
    ),
    (
        "[[ua_server.access]]\npath = 'Tags'\n",
        "x.toml:2: [[ua_server.access]] path: says nothing about it; add browse, read, write or call",
    ),
    (
        "[[ua_server.access]]\npath = 'Tags'\nread = 'boss'\n",
        "x.toml:3: [[ua_server.access]] read: 'boss': unknown variant `boss`, expected one of `viewer`, `operator`, `admin`",
    ),
    (
        "[store]\nmax_age = '1h'\nmax_bytes = '64'\n",
        "x.toml:3: [store] max_bytes: '64': invalid size \"64\": write a text with a whole number and a unit, as in \
         \"500kB\", \"64MiB\", \"1GiB\"",
    ),
    (
        "[history]\ntags = ['a//b']\n",
        "x.toml:2: [history] tags: \"a//b\" has an empty segment or blanks around one; write it as in \"system/**\" or \
         \"line1/*\"",
    ),
    (
        "[[computed]]\nname = 'c'\n[[computed.tag]]\nname = 'a'\nexpression = '{c/b}'\n[[computed.tag]]\nname = 'b'\n\
         expression = '{c/a}'\n",
        "x.toml:5: [[computed]] expression: it needs itself: c/a -> c/b -> c/a",
    ),
    (
        "[device]\nname = ''\n",
        "x.toml:2: [device] name: must be a name without control characters, as in \"line1-gateway\"",
    ),
];

fn said(text: &str) -> String {
    parse(Path::new("x.toml"), text.into()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn every_fault_is_said_with_line_key_and_way_out() {
    for (text, expected) in BAD {
        assert_eq!(said(text), *expected, "for {text}");
    }
}

#[test]
fn what_is_no_toml_is_said_with_its_line() {
    let said = said("[device]\nname = \"a\"\nthis is nothing\n");
    assert!(said.starts_with("x.toml:3: "), "{said}");
}

#[test]
fn all_faults_of_values_are_said_at_once() {
    let said = said("[[camera]]\nname = 'a'\ndevice = '/dev/video0'\nquality = 0\nwidth = 1\n");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn an_empty_file_is_a_configuration() {
    let (config, _) = parse(Path::new("x.toml"), String::new()).unwrap();
    assert_eq!(config.device.name, "vedette");
}

#[test]
fn a_missing_file_is_named() {
    let said = load(Path::new("/does/not/exist.toml")).map(|_| ()).unwrap_err().to_string();
    assert!(said.starts_with("/does/not/exist.toml: cannot read it (No such file"), "{said}");
}

#[test]
fn every_shipped_file_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let folders = [root.clone(), root.join("examples")];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    let files = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(files.map(|path| load(path).map(|_| ()).unwrap_or_else(|faults| panic!("{faults}"))).count() > 3);
}
