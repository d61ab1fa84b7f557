//! The relay as it is configured: who comes in, which DA servers there are and who holds each, and the UA server before them.
//!
//! Which DA servers there are beside those of the configuration, and which program holds which, is the caller's to find out: only
//! Windows knows.

use super::config::{Config, Server};
use super::ua::{self, Served, Setup, Writable};
use super::worker::{Launch, Patience};
use crate::base::{Clock, Stop, Tasks, net};
use crate::model::{EventKind, Role, Timestamp};
use crate::opcua::certificate::{Application, host_name};
use crate::opcua::server::Notices;
use crate::opcua::server::authenticator::{Action, Refused, Rights};
use crate::opcua::server::pki::{Pki, PkiError};
use crate::opcua::trust::{PKI, Rules};
use crate::users::{self, Users};
use ::opcua::server::authenticator::UserToken;
use ::opcua::types::{NodeId, StatusCode};
use async_trait::async_trait;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::info;

/// A DA server and what holds it.
pub struct Held {
    pub server: Server,
    /// The program of its bitness, which is started with `worker` and this ProgID or CLSID.
    pub program: PathBuf,
    pub class: String,
    /// What it says of itself where it is registered.
    pub about: String,
    /// Further arguments of the worker.
    pub more: Vec<OsString>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] net::BindError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("the users: {0}")]
    Users(#[from] users::OpenError),
}

/// How long what a DA server says of its address space is kept.
const KEEP: Duration = Duration::from_secs(60);
/// How long workers may take to stop.
const STOP: Duration = Duration::from_secs(5);

/// Serves until the stop. Whatever can be wrong with the configuration is an error at once.
pub async fn run(config: &Config, held: Vec<Held>, clock: Clock, stop: &Stop) -> Result<(), StartError> {
    let setup = setup(config, clock)?;
    let tasks = Tasks::new("DA servers");
    let das = ua::start(held.into_iter().map(served).collect(), &tasks, &setup.clock);
    let users = setup.rights.users.clone();
    tokio::select! {
        () = async { while !stop.is_stopped() { ua::run(&setup, &das, stop).await } } => {}
        () = users.follow() => {}
    }
    tasks.stop(STOP).await;
    Ok(())
}

fn setup(config: &Config, clock: Clock) -> Result<Setup<Access>, StartError> {
    let application = Application::of_device(&config.name, Some(config.listen.ip()));
    let rules = Rules { require_crls: config.require_crls, ..Rules::default() };
    Ok(Setup {
        name: config.name.clone(),
        listen: config.listen,
        listener: net::listen(config.listen)?,
        pki: Pki::open(&config.data_dir.join(PKI), application, rules, clock.clone())?,
        rights: Access { anonymous: config.anonymous, users: Users::open(&config.data_dir)? },
        notices: Arc::new(Log),
        limits: config.limits(),
        with_none: config.insecure_on_loopback,
        clock,
    })
}

fn served(held: Held) -> Served {
    let Held { server, program, class, about, more } = held;
    let arguments = ["worker".into(), class.into()].into_iter().chain(more).collect();
    let patience = Patience {
        start: server.start_timeout,
        status_every: server.status_interval,
        status: server.status_timeout,
        data: server.call_timeout,
        browse: server.browse_timeout,
    };
    let name = server.title().to_owned();
    Served {
        uri: ua::namespace_uri(&host_name(), &name),
        launch: Launch { server: name.into(), program, arguments, patience },
        text: about,
        time_offset: server.time_offset.to_utc(),
        fastest: server.fastest,
        items: server.items,
        keep: KEEP,
        writable: Writable::new(server.write),
    }
}

/// Who may come in, and do what: viewers look, operators write.
#[derive(Clone)]
struct Access {
    anonymous: Option<Role>,
    users: Users,
}

impl Access {
    fn role(&self, token: &UserToken) -> Option<Role> {
        if token.is_anonymous() { self.anonymous } else { self.users.role(&token.0) }
    }
}

#[async_trait]
impl Rights for Access {
    fn is_open(&self) -> bool {
        self.anonymous.is_some()
    }

    async fn log_in(&self, name: &str, password: &str) -> Result<UserToken, Refused> {
        let token = self.users.log_in(name, password).await.map_err(|why| {
            let is_busy = why == users::Refused::Busy;
            let status = if is_busy { StatusCode::BadServerTooBusy } else { StatusCode::BadUserAccessDenied };
            Refused { status, why: Box::new(why) }
        })?;
        Ok(UserToken(token.0))
    }

    fn log_in_with_certificate(&self, thumbprint: &str, now: Timestamp) -> Result<UserToken, Refused> {
        let status = StatusCode::BadIdentityTokenRejected;
        let token = self.users.log_in_with_certificate(thumbprint, now);
        token.map(|token| UserToken(token.0)).map_err(|why| Refused { status, why: Box::new(why) })
    }

    fn may(&self, token: &UserToken, action: Action, _: &NodeId) -> bool {
        let needed = match action {
            Action::Browse | Action::Read => Role::Viewer,
            Action::Write => Role::Operator,
            // There are no methods but the standard's own.
            Action::Call => Role::Viewer,
        };
        self.role(token).is_some_and(|role| role >= needed)
    }

    fn may_see_sessions(&self, token: &UserToken) -> bool {
        self.role(token) == Some(Role::Admin)
    }
}

/// What somebody may want to know later goes into the log: there is nothing else here that keeps it.
struct Log;

impl Notices for Log {
    fn raise(&self, kind: EventKind, message: String) {
        info!(?kind, message, "It happened.");
    }
}
