//! `vedette user`: who may log in. Works on the file of users, whether or not a server runs, which follows at once.
//!
//! A password is asked for twice on the terminal, unseen, or comes in one line from standard input with
//! `--password-stdin`; never as an argument, where every process could read it.

use super::{DEFAULT_CONFIG, FAILED, WRONG, complain, password};
use crate::app;
use crate::model::Role;
use crate::users::{self, Certificate, User, UserName, UsersFile};
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The configuration file, which says where data are kept.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG, global = true)]
    config: PathBuf,
    /// Where users.toml is kept, instead of [device] data_dir.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Add a user, with a password or a certificate or both.
    Add {
        name: UserName,
        /// viewer, operator or admin; each may do what those before it may.
        #[arg(long)]
        role: Role,
        /// A user certificate (DER or PEM). No password is asked for then, unless with --password-stdin.
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// List users with their roles and how they log in.
    List,
    /// Change a user's role or certificates.
    #[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
    Set {
        name: UserName,
        #[arg(long, group = "change")]
        role: Option<Role>,
        /// One more user certificate (DER or PEM).
        #[arg(long, value_name = "FILE", group = "change")]
        add_certificate: Option<PathBuf>,
        /// A certificate that is not the user's any more.
        #[arg(long, value_name = "THUMBPRINT", group = "change")]
        remove_certificate: Option<String>,
    },
    /// Give a user another password. Sessions that were opened with the old one lose their rights.
    Password {
        name: UserName,
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Remove a user. The user's sessions lose their rights.
    Remove { name: UserName },
}

#[derive(Args)]
struct PasswordFrom {
    /// Read the password from standard input, one line, instead of asking for it.
    #[arg(long)]
    password_stdin: bool,
}

pub(super) fn run(arguments: Arguments) -> ExitCode {
    let data_dir = match app::data_folder(&arguments.config, arguments.data_dir.as_deref()) {
        Ok(data_dir) => data_dir,
        Err(faults) => return complain(WRONG, &faults.to_string()),
    };
    match carry_out(arguments.command, &UsersFile::new(&data_dir)) {
        Ok(said) => {
            // Whoever closed the pipe has read enough.
            let _ = std::io::stdout().write_all(said.as_bytes());
            ExitCode::SUCCESS
        }
        Err(what) => complain(FAILED, &what),
    }
}

/// Does it, and says what was done.
fn carry_out(command: Command, file: &UsersFile) -> Result<String, String> {
    match command {
        Command::Add { name, role, certificate, password } => {
            let taken = |users: &[User]| match users.iter().any(|user| user.name == name) {
                true => Err(format!("user {name} is there already; see `vedette user set` and `password`")),
                false => Ok(()),
            };
            // Before anything is asked.
            taken(&file.load().map_err(text)?)?;
            let certificates: Vec<_> =
                certificate.map(|path| Certificate::read(&path)).transpose()?.into_iter().collect();
            let has_password = password.password_stdin || certificates.is_empty();
            let hash = has_password.then(|| password.hash(&name)).transpose()?;
            edit(file, |users| {
                taken(users)?;
                certificates.iter().try_for_each(|certificate| is_free(users, certificate))?;
                users.push(User { name: name.clone(), role, password: hash, certificates });
                Ok(())
            })?;
            Ok(format!("Added {name}, {role}.\n"))
        }
        Command::List => Ok(list(&file.load().map_err(text)?)),
        Command::Set { name, role, add_certificate, remove_certificate } => {
            let more = add_certificate.map(|path| Certificate::read(&path)).transpose()?;
            edit(file, |users| {
                if let Some(more) = &more {
                    is_free(users, more)?;
                }
                let user = find(users, &name)?;
                user.role = role.unwrap_or(user.role);
                if let Some(less) = remove_certificate {
                    let before = user.certificates.len();
                    user.certificates.retain(|certificate| !certificate.thumbprint.eq_ignore_ascii_case(&less));
                    if user.certificates.len() == before {
                        return Err(format!("{name} has no certificate {less}; see `vedette user list`"));
                    }
                }
                user.certificates.extend(more);
                Ok(())
            })?;
            Ok(format!("Changed {name}.\n"))
        }
        Command::Password { name, password } => {
            find(&mut file.load().map_err(text)?, &name)?;
            let hash = password.hash(&name)?;
            edit(file, |users| {
                find(users, &name)?.password = Some(hash);
                Ok(())
            })?;
            Ok(format!("{name} has another password now.\n"))
        }
        Command::Remove { name } => {
            edit(file, |users| {
                find(users, &name)?;
                users.retain(|user| user.name != name);
                Ok(())
            })?;
            Ok(format!("Removed {name}.\n"))
        }
    }
}

fn edit(file: &UsersFile, change: impl FnOnce(&mut Vec<User>) -> Result<(), String>) -> Result<(), String> {
    file.edit(change).map_err(text)
}

fn text(error: users::UsersError) -> String {
    error.to_string()
}

fn find<'a>(users: &'a mut [User], name: &UserName) -> Result<&'a mut User, String> {
    let found = users.iter_mut().find(|user| user.name == *name);
    found.ok_or_else(|| format!("there is no user {name}; see `vedette user list`"))
}

fn is_free(users: &[User], certificate: &Certificate) -> Result<(), String> {
    match users.iter().find(|user| user.certificates.iter().any(|other| other.thumbprint == certificate.thumbprint)) {
        Some(user) => Err(format!("certificate {} is that of {}", certificate.thumbprint, user.name)),
        None => Ok(()),
    }
}

fn list(users: &[User]) -> String {
    let mut lines = String::new();
    let width = users.iter().map(|user| user.name.as_str().chars().count()).max().unwrap_or_default();
    for User { name, role, password, certificates } in users {
        let password = password.iter().map(|_| "password".to_owned());
        let certificates = certificates.iter().map(|Certificate { thumbprint, not_after, .. }| {
            let until = humantime::format_rfc3339_seconds(*not_after).to_string();
            format!("certificate {thumbprint} until {}", until.split('T').next().unwrap_or_default())
        });
        let logins: Vec<_> = password.chain(certificates).collect();
        lines += &format!("{:width$}  {:8}  {}\n", name.as_str(), role.to_string(), logins.join(", "));
    }
    lines
}

impl PasswordFrom {
    fn hash(&self, name: &UserName) -> Result<String, String> {
        let password = if self.password_stdin { password::from_stdin()? } else { ask_twice(name)? };
        users::hash(name, &password).map_err(|error| error.to_string())
    }
}

fn ask_twice(name: &UserName) -> Result<String, String> {
    let option = "--password-stdin";
    let password = password::ask(&format!("Password for {name}: "), option)?;
    if password::ask("Once more: ", option)? == password {
        Ok(password)
    } else {
        Err("the two are not the same".into())
    }
}
