//! Who may come in: names, roles, and what proves them.
//!
//!     <data_dir>/users.toml ◄── edit ── vedette user add | set | password | remove
//!            │ read again when it changed
//!            ▼
//!     Users ── log_in(name, password), log_in_with_certificate(thumbprint) ──► token ── role(token) ──► Role, or nobody
//!
//! - `file.rs` is the file: reading it with its faults by line, writing it whole or not at all.
//! - `password.rs` is argon2id and what a password must be.
//! - `throttle.rs` is how long guessing takes.
//! - `live.rs` is [`Users`], which a server asks; `news.rs` is heard of changes of the file.
//!
//! A token stands for a user who came in with a certain password or certificate. It is worth nothing any more once the
//! user, or that password or certificate, has been taken away: whoever holds one asks for its role each time.

mod file;
mod live;
mod news;
mod password;
mod throttle;

pub use file::{Certificate, User, UserName, UsersError, UsersFile};
pub use live::{OpenError, Refused, Token, Users};
pub use password::{LINE, PasswordError, check, hash, line_of};

/// Below the data folder.
pub const FILE: &str = "users.toml";
