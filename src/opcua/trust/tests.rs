//! The rules, with certificates of other people's making (tests/fixtures/pki/make.py).

use super::*;
use std::fs;
use std::time::UNIX_EPOCH;
use tempfile::TempDir;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pki").join(name).with_extension("der");
    fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn chain(names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| fixture(name)).collect()
}

/// 2027-01-01, when all that is not meant to have expired is valid.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_798_761_600)
}

const DAY: Duration = Duration::from_secs(86_400);

struct Plant {
    pki: TempDir,
    list: TrustList,
}

impl Plant {
    fn new(files: &[&str]) -> Self {
        Self::with(files, Rules::default())
    }

    /// Files as `trusted/root`.
    fn with(files: &[&str], rules: Rules) -> Self {
        let pki = tempfile::tempdir().unwrap();
        drop(TrustList::open(pki.path(), rules).unwrap());
        let list = TrustList::open(pki.path(), rules).unwrap();
        let plant = Self { pki, list };
        files.iter().for_each(|file| plant.put(file));
        plant
    }

    fn put(&self, file: &str) {
        let (_, name) = file.split_once('/').unwrap();
        fs::write(self.path(file), fixture(name)).unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.pki.path().join(file).with_extension("der")
    }

    fn check(&self, names: &[&str]) -> Result<Accepted, Refusal> {
        self.list.check(&chain(names), now())
    }

    #[track_caller]
    fn accepts(&self, names: &[&str]) -> Accepted {
        self.check(names).unwrap_or_else(|refusal| panic!("{refusal}"))
    }

    #[track_caller]
    fn refuses(&self, names: &[&str], status: Status) -> Refusal {
        let refusal = self.check(names).expect_err("it was let in");
        assert_eq!(refusal.status, status, "{refusal}");
        refusal
    }

    fn rejected(&self) -> usize {
        fs::read_dir(self.pki.path().join(REJECTED)).unwrap().count()
    }

    fn stored(&self) -> usize {
        fs::read_dir(self.list.store().join("trusted")).unwrap().count()
    }
}

#[test]
fn a_stranger_is_named_once_and_kept_until_somebody_trusts_it() {
    let plant = Plant::new(&[]);
    let refusal = plant.refuses(&["self"], Status::BAD_CERTIFICATE_UNTRUSTED);
    assert!(refusal.is_new && refusal.to_string().contains(&format!("`{} trust ", program())), "{refusal}");
    assert_eq!(refusal.status_for_client, Status::BAD_SECURITY_CHECKS_FAILED);
    assert!(!plant.refuses(&["self"], Status::BAD_CERTIFICATE_UNTRUSTED).is_new);
    assert_eq!((plant.rejected(), plant.stored()), (1, 0));

    let thumbprint = refusal.thumbprint.unwrap();
    admin::trust(plant.pki.path(), &thumbprint[..8].to_lowercase()).unwrap();
    let accepted = plant.accepts(&["self"]);
    assert_eq!((plant.rejected(), plant.stored()), (0, 1));
    assert_eq!((accepted.thumbprint, accepted.application_uri.as_deref()), (thumbprint, Some("urn:plant:client")));
}

#[test]
fn trust_that_is_taken_back_ends_what_is_open() {
    let plant = Plant::new(&["trusted/self", "trusted/root"]);
    let (by_itself, by_ca) = (plant.accepts(&["self"]), plant.accepts(&["direct"]));
    assert!(plant.list.still(&by_itself, now()));
    admin::distrust(plant.pki.path(), &by_itself.thumbprint).unwrap();
    plant.list.state().look();
    assert!(!plant.list.still(&by_itself, now()));
    assert!(plant.list.still(&by_ca, now()));
    assert_eq!((plant.rejected(), plant.stored()), (1, 1));
    assert!(plant.refuses(&["self"], Status::BAD_CERTIFICATE_UNTRUSTED).is_new);
    // Its end comes as well.
    assert!(!plant.list.still(&by_ca, now() + 8000 * DAY));
}

#[test]
fn who_wants_to_trust_what_is_not_there_learns_what_is() {
    let plant = Plant::new(&["trusted/root"]);
    plant.refuses(&["self"], Status::BAD_CERTIFICATE_UNTRUSTED);
    let said = |thumbprint: &str| admin::trust(plant.pki.path(), thumbprint).err().unwrap().to_string();
    assert!(said("0123").contains("there is ") && said("0123").contains("CN=self"), "{}", said("0123"));
    assert!(said("xyz").contains("hexadecimal"), "{}", said("xyz"));
    let root = x509::thumbprint(&fixture("root"));
    assert!(said(&root).contains("trusted already"), "{}", said(&root));
    let nowhere = admin::list(&plant.pki.path().join("nowhere")).err().unwrap().to_string();
    assert!(nowhere.contains("--data-dir"), "{nowhere}");
}

#[test]
fn a_trusted_ca_lets_its_clients_in() {
    let plant = Plant::new(&["trusted/root"]);
    for name in ["direct", "pss", "sha512"] {
        plant.accepts(&[name]);
    }
    plant.refuses(&["leaf"], Status::BAD_CERTIFICATE_CHAIN_INCOMPLETE);
    plant.accepts(&["leaf", "middle"]);
    plant.accepts(&["leaf", "middle", "root"]);
    plant.put("issuers/middle");
    plant.accepts(&["leaf"]);
}

#[test]
fn curves_sign_as_well() {
    let plant = Plant::new(&["trusted/p256-ca", "trusted/p384-ca"]);
    plant.accepts(&["by-p256"]);
    plant.accepts(&["by-p384"]);
}

#[test]
fn an_issuer_is_not_trusted_by_itself_and_an_intermediate_ca_needs_no_root() {
    let plant = Plant::new(&["issuers/root", "issuers/middle"]);
    let refusal = plant.refuses(&["leaf"], Status::BAD_CERTIFICATE_UNTRUSTED);
    assert!(refusal.to_string().contains("CN=root"), "{refusal}");
    plant.put("trusted/middle");
    plant.accepts(&["leaf"]);
    plant.refuses(&["direct"], Status::BAD_CERTIFICATE_UNTRUSTED);
}

#[test]
fn who_is_not_who_they_say_stays_out() {
    let plant = Plant::new(&["trusted/root", "trusted/leaf"]);
    plant.refuses(&["forged"], Status::BAD_CERTIFICATE_INVALID);
    plant.refuses(&["forged", "false-root"], Status::BAD_CERTIFICATE_INVALID);
    // A client is no CA, not even a trusted one.
    plant.refuses(&["by-leaf", "leaf"], Status::BAD_CERTIFICATE_ISSUER_USE_NOT_ALLOWED);
    plant.refuses(&["too-deep", "deep-ca", "middle"], Status::BAD_CERTIFICATE_ISSUER_USE_NOT_ALLOWED);
    // A limit that is not held here is no CA's certificate for us.
    plant.refuses(&["by-narrow-ca", "narrow-ca"], Status::BAD_CERTIFICATE_INVALID);
    assert_eq!(plant.stored(), 0);
}

#[test]
fn each_certificate_has_its_time() {
    let plant = Plant::new(&["trusted/root", "trusted/expired-ca"]);
    let refusal = plant.refuses(&["expired"], Status::BAD_CERTIFICATE_TIME_INVALID);
    assert!(refusal.to_string().contains("2026-11-02"), "{refusal}");
    assert_eq!(refusal.status_for_client, Status::BAD_CERTIFICATE_TIME_INVALID);
    let refusal = plant.refuses(&["early"], Status::BAD_CERTIFICATE_TIME_INVALID);
    assert!(refusal.to_string().contains("clock says 2027-01-01"), "{refusal}");
    plant.refuses(&["by-expired-ca"], Status::BAD_CERTIFICATE_ISSUER_TIME_INVALID);
    // With a clock that is not set nobody is too early, and what had expired has.
    plant.list.check(&fixture("direct"), UNIX_EPOCH).unwrap();
    plant.list.check(&fixture("early"), UNIX_EPOCH + 300 * DAY).unwrap();
}

#[test]
fn each_certificate_has_its_use() {
    let plant = Plant::new(&["trusted/root"]);
    plant.refuses(&["no-uri"], Status::BAD_CERTIFICATE_URI_INVALID);
    plant.refuses(&["no-sign"], Status::BAD_CERTIFICATE_USE_NOT_ALLOWED);
    plant.refuses(&["server-only"], Status::BAD_CERTIFICATE_USE_NOT_ALLOWED);
    plant.put("trusted/server-only");
    plant.accepts(&["server-only"]);
    for name in ["short", "curve", "sha1"] {
        plant.put(&format!("trusted/{name}"));
        plant.refuses(&[name], Status::BAD_CERTIFICATE_POLICY_CHECK_FAILED);
    }
    // They are trusted already; nobody has to decide.
    assert_eq!(plant.rejected(), 2);
}

#[test]
fn who_is_revoked_is_out_at_once() {
    let plant = Plant::new(&["trusted/root", "issuers/middle", "trusted/leaf"]);
    let (direct, by_itself) = (plant.accepts(&["direct"]), plant.accepts(&["leaf"]));
    plant.put("crls/crl-root-direct");
    plant.list.state().look();
    assert!(!plant.list.still(&direct, now()) && plant.list.still(&by_itself, now()));
    plant.refuses(&["direct"], Status::BAD_CERTIFICATE_REVOKED);
    // The list of a known CA counts for a certificate that is trusted by itself, too.
    plant.put("crls/crl-middle-leaf");
    plant.refuses(&["leaf"], Status::BAD_CERTIFICATE_REVOKED);
    plant.put("crls/crl-middle-free");
    plant.accepts(&["leaf"]);
    assert_eq!(plant.stored(), 1);
}

#[test]
fn a_ca_can_be_revoked_and_a_false_list_counts_nothing() {
    let plant = Plant::new(&["trusted/root", "crls/crl-root", "crls/crl-false"]);
    plant.accepts(&["direct"]);
    plant.accepts(&["leaf", "middle"]);
    plant.put("crls/crl-root-middle");
    plant.refuses(&["leaf", "middle"], Status::BAD_CERTIFICATE_ISSUER_REVOKED);
    // A trusted CA whose own issuer is known.
    let plant = Plant::new(&["trusted/middle", "issuers/root", "crls/crl-root-middle"]);
    plant.refuses(&["leaf"], Status::BAD_CERTIFICATE_ISSUER_REVOKED);
}

#[test]
fn lists_can_be_demanded() {
    let plant = Plant::with(&["trusted/root", "crls/crl-late"], Rules { require_crls: true, ..Rules::default() });
    plant.refuses(&["direct"], Status::BAD_CERTIFICATE_REVOCATION_UNKNOWN);
    plant.put("crls/crl-root");
    fs::remove_file(plant.path("crls/crl-late")).unwrap();
    plant.accepts(&["direct"]);
    plant.refuses(&["leaf", "middle"], Status::BAD_CERTIFICATE_REVOCATION_UNKNOWN);
    plant.put("crls/crl-middle");
    plant.accepts(&["leaf", "middle"]);
    // Nobody issues lists about who signs for itself.
    plant.put("trusted/self");
    plant.accepts(&["self"]);
}

#[test]
fn a_start_needs_every_revocation_list() {
    let refused = |plant: &Plant| TrustList::open(plant.pki.path(), Rules::default()).err().unwrap().to_string();
    let plant = Plant::new(&[]);
    fs::write(plant.pki.path().join("crls/x"), "garbage").unwrap();
    assert!(refused(&plant).contains("crls/x") && refused(&plant).contains("revocation"), "{}", refused(&plant));
    let plant = Plant::new(&["crls/crl-delta"]);
    assert!(refused(&plant).contains("critical extension"), "{}", refused(&plant));
    let plant = Plant::new(&[]);
    fs::create_dir(plant.pki.path().join("crls/lists")).unwrap();
    assert!(refused(&plant).contains("crls/lists") && refused(&plant).contains("no file"), "{}", refused(&plant));
    let plant = Plant::new(&[]);
    fs::remove_dir(plant.pki.path().join("trusted")).unwrap();
    fs::write(plant.pki.path().join("trusted"), "").unwrap();
    refused(&plant);
}

#[test]
fn a_certificate_that_cannot_be_read_shuts_out_nobody_else() {
    let plant = Plant::new(&["trusted/root", "trusted/self"]);
    let pki = plant.pki.path();
    fs::write(pki.join("trusted/provisioned-1.der"), &fixture("self")[..100]).unwrap();
    fs::write(pki.join("trusted/provisioned-2.pem"), "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----")
        .unwrap();
    fs::create_dir(pki.join("trusted/certs")).unwrap();
    fs::write(pki.join("issuers/x.pem"), "garbage").unwrap();
    let list = TrustList::open(pki, Rules::default()).unwrap();
    list.check(&fixture("direct"), now()).unwrap();
    list.check(&fixture("self"), now()).unwrap();
    let refusal = list.check(&fixture("server-only"), now());
    assert!(refusal.is_err());
    // Once it is whole it counts.
    fs::remove_file(plant.path("trusted/self")).unwrap();
    assert!(list.check(&fixture("self"), now()).is_err());
    fs::write(pki.join("trusted/provisioned-1.der"), fixture("self")).unwrap();
    list.check(&fixture("self"), now()).unwrap();
}

#[test]
fn a_file_that_breaks_later_keeps_what_it_held() {
    let plant = Plant::new(&["trusted/root", "crls/crl-root-direct"]);
    plant.refuses(&["direct"], Status::BAD_CERTIFICATE_REVOKED);
    fs::write(plant.path("crls/crl-root-direct"), "half a li").unwrap();
    plant.refuses(&["direct"], Status::BAD_CERTIFICATE_REVOKED);
    fs::remove_file(plant.path("crls/crl-root-direct")).unwrap();
    plant.accepts(&["direct"]);
}

#[test]
fn pem_will_do_and_several_in_one_file() {
    let plant = Plant::new(&[]);
    let pem = |name| x509_cert::der::pem::encode_string("CERTIFICATE", Default::default(), &fixture(name)).unwrap();
    let both = format!("# our CAs\n{}\nand\n{}", pem("root"), pem("middle"));
    fs::write(plant.pki.path().join("trusted/cas.pem"), both).unwrap();
    plant.accepts(&["leaf"]);
    plant.accepts(&["direct"]);
    let error = admin::distrust(plant.pki.path(), &x509::thumbprint(&fixture("root"))).err().unwrap();
    assert!(matches!(error, admin::AdminError::OneOfMany { .. }), "{error}");
}

#[test]
fn strangers_do_not_fill_the_disk_or_the_log() {
    let plant = Plant::new(&[]);
    let mut names = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pki")).unwrap();
    let certificates =
        names.by_ref().filter_map(|entry| Cert::from_der(&fs::read(entry.unwrap().path()).unwrap()).ok());
    let news = certificates.filter(|cert| plant.list.check(cert.der(), now()).is_err_and(|refusal| refusal.is_new));
    assert_eq!(news.count(), 20);
    assert_eq!(plant.rejected(), 20);

    for n in 0..rejected::MAX_FILES {
        fs::write(plant.pki.path().join(format!("rejected/{n}")), "x").unwrap();
    }
    Rejected::new(plant.pki.path().join(REJECTED)).keep(&Cert::from_der(&fixture("root")).unwrap()).unwrap();
    assert!(plant.rejected() <= rejected::MAX_FILES);
}

#[test]
fn nonsense_is_refused_and_not_kept() {
    let plant = Plant::new(&["trusted/root"]);
    let leaf = fixture("direct");
    let many = chain(&["direct"; 11]);
    let cut = &leaf[..leaf.len() - 1];
    let followed = [leaf.as_slice(), b"x"].concat();
    for bytes in [b"".as_slice(), b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", cut, &followed, &many] {
        let refusal = plant.list.check(bytes, now()).unwrap_err();
        assert_eq!(refusal.status, Status::BAD_CERTIFICATE_INVALID, "{refusal}");
    }
    assert_eq!((plant.rejected(), plant.stored()), (0, 0));
    // No bit of a certificate can be turned without its being noticed.
    for at in 0..leaf.len() {
        let mut turned = leaf.clone();
        turned[at] ^= 1;
        assert!(plant.list.check(&turned, now()).is_err(), "byte {at}");
    }
}
