//! First start, renewal, replacement, and what is refused.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::time::UNIX_EPOCH;
use tempfile::TempDir;

/// 2048-01-01: what is made then ends after the years of two digits (RFC 5280, 4.1.2.5).
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_461_449_600)
}

fn application(uri: &str) -> Application {
    let hosts = ["device", "10.0.0.7", "2001:db8::7", "Gerät", "device"].map(String::from).into();
    Application { name: "Linie 1, Süd + \"Nord\"".into(), uri: uri.into(), hosts }
}

fn open(pki: &TempDir, now: SystemTime) -> Result<OwnCertificate, CertificateError> {
    OwnCertificate::open(pki.path(), application("urn:vedette:test"), now)
}

fn read(pki: &TempDir, file: &str) -> Vec<u8> {
    fs::read(pki.path().join(file)).unwrap()
}

fn stored(pki: &TempDir) -> Cert {
    Cert::from_der(&read(pki, ".store/own/cert.der")).unwrap()
}

/// As if somebody had it made elsewhere: another organization, signed by itself.
fn foreign(uri: &str, until: SystemTime) -> (Vec<u8>, String) {
    let key = Key::generate().unwrap();
    let made = make::certificate(&application(uri), &key, until - Duration::from_secs(5 * 365 * 86_400)).unwrap();
    // The one place where the name stands twice; its length stays.
    let mut der = made.clone();
    for at in 0..der.len() - 7 {
        if der[at..at + 7] == *b"Vedette" {
            der[at..at + 7].copy_from_slice(b"Foreign");
        }
    }
    (der, key.pem)
}

fn put(pki: &TempDir, (der, pem): &(Vec<u8>, String)) {
    fs::write(pki.path().join("own/theirs.crt"), der).unwrap();
    fs::write(pki.path().join("private/theirs.key"), pem).unwrap();
    fs::set_permissions(pki.path().join("private/theirs.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn look_twice(own: &mut OwnCertificate, now: SystemTime) -> Option<News> {
    assert!(own.look(now).is_none(), "it did not wait for the files to settle");
    own.look(now)
}

#[test]
fn a_pair_is_made_once_and_says_what_clients_ask_for() {
    let pki = tempfile::tempdir().unwrap();
    let own = open(&pki, now()).unwrap();
    let first = read(&pki, CERTIFICATE);
    assert_eq!(open(&pki, now()).unwrap().identity(), own.identity());
    assert_eq!(read(&pki, CERTIFICATE), first);
    let key = fs::metadata(pki.path().join(PRIVATE_KEY)).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    let x509 = opcua::crypto::X509::from_der(&first).unwrap();
    x509.is_application_uri_valid("urn:vedette:test").unwrap();
    for host in ["device", "10.0.0.7", "2001:db8::7"] {
        x509.is_hostname_valid(host).unwrap();
    }
    let certificate = Cert::from_der(&first).unwrap();
    // The URI, and each host once; what cannot be written in ASCII is left out.
    assert_eq!(certificate.alternative_names().len(), 4);
    assert!(certificate.title().contains("Süd"), "{}", certificate.title());
    assert!(certificate.not_before() <= now() - DAY && certificate.not_after() > now() + 1800 * DAY);
}

#[test]
fn two_certificates_never_have_one_number() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(&a, now()).unwrap();
    fs::create_dir_all(b.path().join("private")).unwrap();
    fs::copy(a.path().join(PRIVATE_KEY), b.path().join(PRIVATE_KEY)).unwrap();
    // A key alone, as a power cut may leave it, gets its certificate.
    open(&b, now()).unwrap();
    assert_eq!(read(&a, PRIVATE_KEY), read(&b, PRIVATE_KEY));
    assert_ne!(stored(&a).serial(), stored(&b).serial());
}

#[test]
fn a_clock_that_is_not_set_makes_no_nonsense() {
    let pki = tempfile::tempdir().unwrap();
    let mut own = open(&pki, UNIX_EPOCH + DAY).unwrap();
    let made = stored(&pki);
    assert!(made.not_before() == earliest() && made.not_after() > earliest() + 7000 * DAY);
    // Neither does it renew anything, then or when it is set.
    for now in [UNIX_EPOCH, earliest(), earliest() + 6000 * DAY] {
        assert!(own.look(now).is_none());
    }
}

#[test]
fn ours_is_renewed_before_it_ends_with_its_key_and_its_uri() {
    let pki = tempfile::tempdir().unwrap();
    let mut own = open(&pki, now()).unwrap();
    let (before, key) = (stored(&pki), read(&pki, PRIVATE_KEY));
    let nearly = before.not_after() - 29 * DAY;
    assert!(own.look(nearly - 2 * DAY).is_none());
    let Some(News::Replaced(identity)) = own.look(nearly) else { panic!("it was not renewed") };
    assert!(identity.not_after > nearly + 1800 * DAY);
    assert_eq!(stored(&pki).thumbprint(), identity.thumbprint);
    assert_eq!((read(&pki, PRIVATE_KEY), own.look(nearly).is_none()), (key, true));
    // Also at a start, long after, and with another name in the configuration.
    let late = identity.not_after + 100 * DAY;
    let own = OwnCertificate::open(pki.path(), application("urn:another"), late).unwrap();
    assert!(own.identity().not_after > late);
    assert_eq!(own.identity().application_uri, "urn:vedette:test");
}

#[test]
fn theirs_counts_is_never_written_to_and_its_end_is_said() {
    let pki = tempfile::tempdir().unwrap();
    let mut own = open(&pki, now()).unwrap();
    let theirs = foreign("urn:plant:device", now() + 20 * DAY);
    put(&pki, &theirs);
    let Some(News::Replaced(identity)) = look_twice(&mut own, now()) else { panic!("it did not count") };
    assert_eq!(identity.application_uri, "urn:plant:device");
    assert_eq!(stored(&pki).der(), theirs.0);
    assert!(matches!(own.look(now()), Some(News::Expires(_))));
    assert!(own.look(now() + DAY / 2).is_none());
    assert!(matches!(own.look(now() + DAY), Some(News::Expires(_))));
    // Nor is a start refused when it has ended.
    let late = now() + 21 * DAY;
    let mut own = open(&pki, late).unwrap();
    assert!(matches!(own.look(late), Some(News::Expires(identity)) if identity.end(late).contains("expired at")));
    assert_eq!(read(&pki, "own/theirs.crt"), theirs.0);
    // Taken away again, ours counts.
    fs::remove_file(pki.path().join("own/theirs.crt")).unwrap();
    let Some(News::Replaced(identity)) = look_twice(&mut own, late) else { panic!("ours does not count") };
    assert_eq!(identity.application_uri, "urn:vedette:test");
}

#[test]
fn what_is_broken_changes_nothing_while_it_runs_and_is_said_once() {
    let pki = tempfile::tempdir().unwrap();
    let mut own = open(&pki, now()).unwrap();
    let before = stored(&pki);
    fs::write(pki.path().join("own/cert.pem"), "nonsense").unwrap();
    let Some(News::Broken(error)) = look_twice(&mut own, now()) else { panic!("it was not said") };
    assert!(error.to_string().contains("cert.pem"), "{error}");
    assert!(own.look(now()).is_none() && own.look(now()).is_none());
    assert_eq!(stored(&pki).der(), before.der());
    fs::remove_file(pki.path().join("own/cert.pem")).unwrap();
    assert!(look_twice(&mut own, now()).is_none());
}

#[test]
fn what_is_broken_is_no_start() {
    let pki = tempfile::tempdir().unwrap();
    open(&pki, now()).unwrap();
    let refused = |what: &str| {
        let error = open(&pki, now()).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
    };
    let theirs = foreign("urn:plant:device", now() + 100 * DAY);
    put(&pki, &theirs);
    fs::remove_file(pki.path().join("private/theirs.key")).unwrap();
    refused("are not a pair");
    fs::write(pki.path().join("private/theirs.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----").unwrap();
    refused("needs a password");
    fs::write(pki.path().join("private/theirs.key"), "x").unwrap();
    refused("theirs.key");
    put(&pki, &theirs);
    fs::write(pki.path().join("own/second.der"), foreign("urn:x", now() + 100 * DAY).0).unwrap();
    refused("only one of");
    fs::remove_file(pki.path().join("own/second.der")).unwrap();
    fs::remove_dir_all(pki.path().join("private")).unwrap();
    refused("its key is not");
    put_fixture(&pki, "no-uri");
    fs::remove_file(pki.path().join("own/theirs.crt")).unwrap();
    refused("its key is not");
}

fn put_fixture(pki: &TempDir, name: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pki").join(name).with_extension("der");
    fs::copy(from, pki.path().join("own").join(name)).unwrap();
}

#[test]
fn some_certificates_are_not_for_an_application() {
    let unfit = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pki").join(name).with_extension("der");
        Identity::new(path.clone(), &Cert::from_der(&fs::read(path).unwrap()).unwrap()).unwrap_err().to_string()
    };
    assert!(unfit("no-uri").contains("ApplicationUri"), "{}", unfit("no-uri"));
    assert!(unfit("short").contains("1024 bits"), "{}", unfit("short"));
    assert!(unfit("curve").contains("not RSA"), "{}", unfit("curve"));
}

#[test]
fn a_key_for_all_to_read_is_closed() {
    let pki = tempfile::tempdir().unwrap();
    open(&pki, now()).unwrap();
    let key = pki.path().join(PRIVATE_KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    open(&pki, now()).unwrap();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn keys_come_in_many_forms() {
    let pki = tempfile::tempdir().unwrap();
    let mut own = open(&pki, now()).unwrap();
    let pem = String::from_utf8(read(&pki, PRIVATE_KEY)).unwrap();
    let (_, der) = x509_cert::der::pem::decode_vec(pem.as_bytes()).unwrap();
    let first = own.identity().clone();
    for (name, content) in [("key.der", der.clone()), ("key.pem", format!("Bag\n{pem}\n").into_bytes())] {
        fs::remove_file(pki.path().join(PRIVATE_KEY)).unwrap_or_default();
        let path = pki.path().join("private").join(name);
        fs::write(&path, content).unwrap();
        own = open(&pki, now()).unwrap();
        assert_eq!(own.identity(), &first);
        fs::remove_file(path).unwrap();
    }
}
