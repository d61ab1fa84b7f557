//! [`Users`]: the users as they are now, and logins.
//!
//! The table is replaced as a whole when the file has changed: the folder is watched (news.rs), looked at now and then for
//! systems where that is silent, and looked at before each login. A file that has a fault keeps the last good table.
//!
//! A password is checked on a thread of its own, at most [`CHECKS`] at a time, because one check takes 19 MiB and a good
//! part of a second of a small CPU; what comes beyond [`WAITING`] is refused unseen, and so is what comes beyond [`IN_LINE`]
//! for a name that has to wait. Whether a name exists changes neither the
//! answer nor the time it takes.

use super::file::{User, UserName, UsersError, UsersFile};
use super::news::News;
use super::throttle::Throttle;
use super::{PasswordError, password};
use crate::base::files::{Stamp, is_private};
use crate::model::{Role, Timestamp};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{info, warn};

/// Passwords that are checked at once.
const CHECKS: usize = 2;
/// Logins that wait for their turn.
const WAITING: usize = 64;
/// Logins of one name that wait because others of it have failed.
const IN_LINE: usize = 2;
/// How often the file is looked at without news of it.
const LOOK_ANYWAY: Duration = Duration::from_secs(2);

/// A cheap handle.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    file: UsersFile,
    table: RwLock<Arc<Table>>,
    /// The file that the table was made of, or that was refused.
    seen: Mutex<Option<Stamp>>,
    changed: watch::Sender<u64>,
    throttle: Mutex<Throttle>,
    /// By name, how many wait because others have failed.
    lines: Mutex<HashMap<String, usize>>,
    checks: Arc<Semaphore>,
    waiting: Semaphore,
    /// The hash that is checked for names that are unknown.
    nobodys: String,
}

#[derive(Default)]
struct Table {
    users: Vec<User>,
    roles: HashMap<Token, Role>,
}

/// Stands for a user who came in: the name, and which password or certificate it was. Contains a '#', which no name does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub String);

impl std::borrow::Borrow<str> for Token {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("unknown user or wrong password")]
    Password,
    #[error("no user has this certificate")]
    Certificate,
    #[error("the user's certificate is not valid now")]
    Validity,
    #[error("too many logins at once")]
    Busy,
}

impl Users {
    /// Reads the file, which must be without a fault.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let file = UsersFile::new(data_dir);
        let seen = stamp(file.path());
        let table = Arc::new(Table::new(file.load()?));
        warn_if_public(file.path());
        Ok(Self(Arc::new(Inner {
            file,
            table: RwLock::new(table),
            seen: Mutex::new(seen),
            changed: watch::Sender::new(0),
            throttle: Mutex::default(),
            lines: Mutex::default(),
            checks: Arc::new(Semaphore::new(CHECKS)),
            waiting: Semaphore::new(WAITING),
            nobodys: password::nobodys()?,
        })))
    }

    /// What the holder of a token may do now.
    pub fn role(&self, token: &str) -> Option<Role> {
        self.0.table().roles.get(token).copied()
    }

    /// Changes when the users did.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub async fn log_in(&self, name: &str, password: &str) -> Result<Token, Refused> {
        // What cannot be a name is counted as one, so that the count stays small.
        let name: Option<UserName> = name.parse().ok();
        let counted = name.as_ref().map_or("", UserName::as_str);
        let own_wait = || lock(&self.0.throttle).own_wait(counted, Instant::now());
        // What all together have failed delays once: else nobody would come in while somebody guesses.
        let mut wait = lock(&self.0.throttle).wait(counted, Instant::now());
        let mut in_line = None;
        let (_place, permit) = loop {
            if in_line.is_none() && !own_wait().is_zero() {
                in_line = Some(InLine::new(&self.0, counted)?);
            }
            tokio::time::sleep(wait).await;
            wait = own_wait();
            if !wait.is_zero() {
                continue;
            }
            // Only now, so that those who wait for one name are not in the way of others.
            let place = self.0.waiting.try_acquire().map_err(|_| Refused::Busy)?;
            let permit = self.0.checks.clone().acquire_owned().await.map_err(|_| Refused::Busy)?;
            // Those before may have failed.
            wait = own_wait();
            if wait.is_zero() {
                break (place, permit);
            }
        };
        let (inner, password) = (self.0.clone(), password.to_owned());
        // Permit and count go with it: a client that hangs up gains nothing.
        let checked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            inner.look();
            inner.check(name.as_ref(), &password)
        });
        checked.await.unwrap_or(Err(Refused::Busy))
    }

    /// For a certificate whose owner has proven to have its key.
    pub fn log_in_with_certificate(&self, thumbprint: &str, now: Timestamp) -> Result<Token, Refused> {
        self.0.look();
        let table = self.0.table();
        let mut all = table.users.iter().flat_map(|user| user.certificates.iter().map(move |found| (user, found)));
        let found = all.find(|(_, certificate)| certificate.thumbprint == thumbprint);
        let (user, certificate) = found.ok_or(Refused::Certificate)?;
        let valid = Timestamp::from(certificate.not_before)..=certificate.not_after.into();
        if !valid.contains(&now) {
            return Err(Refused::Validity);
        }
        Ok(Token::new(&user.name, thumbprint))
    }

    /// Keeps the table up to date, for ever.
    pub async fn follow(&self) {
        let news = News::of_folder_of(self.0.file.path());
        if let Err(error) = &news {
            warn!(%error, "Cannot watch the data folder; changes of users take effect after seconds.");
        }
        loop {
            let heard = async {
                match &news {
                    Ok(news) => news.hear().await,
                    Err(_) => std::future::pending().await,
                }
            };
            let _ = tokio::time::timeout(LOOK_ANYWAY, heard).await;
            self.0.look();
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    File(#[from] UsersError),
    #[error(transparent)]
    Password(#[from] PasswordError),
}

impl Inner {
    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again if it has changed.
    fn look(&self) {
        let mut seen = lock(&self.seen);
        let now = stamp(self.file.path());
        if *seen == now {
            return;
        }
        *seen = now;
        match self.file.load() {
            Ok(users) => {
                info!(users = users.len(), "Users have changed.");
                *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Table::new(users));
                warn_if_public(self.file.path());
                self.changed.send_modify(|count| *count += 1);
            }
            Err(error) => warn!(%error, "The users stay as they were."),
        }
    }

    fn check(&self, name: Option<&UserName>, password: &str) -> Result<Token, Refused> {
        let table = self.table();
        let user = name.and_then(|name| table.users.iter().find(|user| user.name == *name));
        let hash = user.and_then(|user| Some((user, user.password.as_deref()?)));
        let is_right = password::verify(hash.map_or(&*self.nobodys, |(_, phc)| phc), password);
        let counted = name.map_or("", UserName::as_str);
        let mut throttle = lock(&self.throttle);
        match hash.filter(|_| is_right) {
            Some((user, phc)) => {
                throttle.succeeded(counted);
                Ok(Token::new(&user.name, phc))
            }
            None => {
                throttle.failed(counted, Instant::now());
                Err(Refused::Password)
            }
        }
    }
}

/// A place among those of one name who wait because others have failed.
struct InLine {
    inner: Arc<Inner>,
    name: String,
}

impl InLine {
    fn new(inner: &Arc<Inner>, name: &str) -> Result<Self, Refused> {
        let mut lines = lock(&inner.lines);
        let count = lines.entry(name.to_owned()).or_default();
        if *count >= IN_LINE {
            return Err(Refused::Busy);
        }
        *count += 1;
        Ok(Self { inner: inner.clone(), name: name.to_owned() })
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut lines = lock(&self.inner.lines);
        if let Some(count) = lines.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                lines.remove(&self.name);
            }
        }
    }
}

impl Table {
    fn new(users: Vec<User>) -> Self {
        let mut roles = HashMap::new();
        for user in &users {
            let certificates = user.certificates.iter().map(|certificate| certificate.thumbprint.as_str());
            for proof in certificates.chain(user.password.as_deref()) {
                roles.insert(Token::new(&user.name, proof), user.role);
            }
        }
        Self { users, roles }
    }
}

impl Token {
    fn new(name: &UserName, proof: &str) -> Self {
        // Only to tell the proofs of one user apart, within this process.
        let mut hasher = DefaultHasher::new();
        proof.hash(&mut hasher);
        Self(format!("{name}#{:016x}", hasher.finish()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stamp(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().as_ref().map(Stamp::of)
}

fn warn_if_public(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|about| !is_private(&about)) {
        warn!(path = %path.display(), "Others on this device may read the users and their hashes; chmod 600 it.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::{Certificate, hash};
    use std::time::UNIX_EPOCH;

    const PASSWORD: &str = "correct horse battery";

    fn add(file: &UsersFile, name: &str, role: Role) {
        let name: UserName = name.parse().unwrap();
        let password = Some(hash(&name, PASSWORD).unwrap());
        let certificates = vec![Certificate {
            thumbprint: "00112233445566778899aabbccddeeff00112233".into(),
            not_before: UNIX_EPOCH + Duration::from_secs(1000),
            not_after: UNIX_EPOCH + Duration::from_secs(2000),
        }];
        file.edit(|users| {
            users.push(User { name, role, password, certificates });
            Ok(())
        })
        .unwrap();
    }

    #[tokio::test]
    async fn tokens_live_as_long_as_what_they_were_given_for() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(folder.path()).unwrap();
        let file = UsersFile::new(folder.path());
        assert_eq!(users.log_in("anna", PASSWORD).await, Err(Refused::Password));
        add(&file, "anna", Role::Operator);
        let token = users.log_in("anna", PASSWORD).await.unwrap();
        assert_eq!(users.role(&token.0), Some(Role::Operator));
        assert_eq!(users.log_in("anna", "wrong").await, Err(Refused::Password));
        assert_eq!(users.log_in("no\nname", PASSWORD).await, Err(Refused::Password));

        let thumbprint = "00112233445566778899aabbccddeeff00112233";
        let at = |seconds| Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds));
        let other = users.log_in_with_certificate(thumbprint, at(1500)).unwrap();
        assert_eq!(users.log_in_with_certificate(thumbprint, at(500)), Err(Refused::Validity));
        assert_eq!(users.log_in_with_certificate(thumbprint, at(2500)), Err(Refused::Validity));
        assert_eq!(users.log_in_with_certificate("00", at(1500)), Err(Refused::Certificate));

        let change = |change: fn(&mut Vec<User>)| {
            file.edit(|users| {
                change(users);
                Ok(())
            })
            .unwrap();
            users.0.look();
        };
        change(|users| users[0].role = Role::Viewer);
        assert_eq!(users.role(&token.0), Some(Role::Viewer));
        change(|users| users[0].password = Some(hash(&users[0].name, "another password").unwrap()));
        assert_eq!((users.role(&token.0), users.role(&other.0)), (None, Some(Role::Viewer)));
        change(Vec::clear);
        assert_eq!(users.role(&other.0), None);
    }

    #[tokio::test]
    async fn a_broken_file_keeps_the_last_good_users_and_news_come_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let file = UsersFile::new(folder.path());
        add(&file, "anna", Role::Admin);
        let users = Users::open(folder.path()).unwrap();
        let token = users.log_in("anna", PASSWORD).await.unwrap();
        let good = std::fs::read(file.path()).unwrap();

        let mut changed = users.changed();
        let seen = async {
            std::fs::write(file.path(), "nonsense").unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(users.role(&token.0), Some(Role::Admin));
            assert!(Users::open(folder.path()).is_err());
            std::fs::write(file.path(), good).unwrap();
            changed.changed().await.unwrap();
            file.edit(|users| {
                users.clear();
                Ok(())
            })
            .unwrap();
            let start = Instant::now();
            changed.changed().await.unwrap();
            start.elapsed()
        };
        tokio::select! {
            () = users.follow() => unreachable!(),
            took = seen => assert!(took < LOOK_ANYWAY / 2, "no news came: {took:?}"),
        }
        assert_eq!(users.role(&token.0), None);
    }

    #[tokio::test]
    async fn a_flood_is_refused_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(folder.path()).unwrap();
        let _all = users.0.waiting.try_acquire_many(WAITING as u32).unwrap();
        assert_eq!(users.log_in("anna", PASSWORD).await, Err(Refused::Busy));
    }

    #[tokio::test(start_paused = true)]
    async fn many_guesses_for_one_name_stand_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(folder.path()).unwrap();
        for _ in 0..8 {
            lock(&users.0.throttle).failed("anna", Instant::now());
        }
        let start = Instant::now();
        let guesses = futures_util::future::join_all((0..2 * WAITING).map(|_| users.log_in("anna", PASSWORD)));
        let other = async {
            tokio::task::yield_now().await;
            (users.log_in("bert", PASSWORD).await, start.elapsed())
        };
        let (guesses, (other, took)) = tokio::join!(guesses, other);
        assert_eq!(guesses.iter().filter(|guess| **guess == Err(Refused::Busy)).count(), 2 * WAITING - IN_LINE);
        assert!(start.elapsed() >= Duration::from_secs(8));
        assert_eq!(other, Err(Refused::Password));
        assert!(took < Duration::from_secs(8), "bert waited for anna: {took:?}");
        assert!(lock(&users.0.lines).is_empty());
    }

    #[tokio::test]
    async fn guesses_at_once_are_not_all_checked() {
        let folder = tempfile::tempdir().unwrap();
        let users = Users::open(folder.path()).unwrap();
        let guesses = futures_util::future::join_all((0..20).map(|_| users.log_in("anna", PASSWORD)));
        let guesses = guesses.await;
        let checked = guesses.iter().filter(|guess| **guess == Err(Refused::Password)).count();
        assert!(checked <= 3 + CHECKS + IN_LINE, "{checked} were checked");
    }
}
