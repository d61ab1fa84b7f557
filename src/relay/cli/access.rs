//! `trust` and `user`: who may come in. They work on the files of the data folder, whether or not the relay runs, which follows.

use super::{complain, failed};
use crate::model::Role;
use crate::opcua::trust::{PKI, admin, program};
use crate::relay::config;
use crate::users::{self, User, UserName, UsersFile};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Trust {
    /// The certificate to trust, by its thumbprint or the beginning of it. Without one: list what there is.
    thumbprint: Option<String>,
    /// Trust it no longer; its connections end within seconds.
    #[arg(long, requires = "thumbprint")]
    remove: bool,
    /// The configuration file, which knows the data folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
pub struct Who {
    #[command(subcommand)]
    change: Change,
    /// The configuration file, which knows the data folder.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Change {
    /// Add a user, or give one another password and role. The password is one line of standard input.
    Add {
        name: UserName,
        /// viewer, operator or admin; each may do what those before it may.
        #[arg(long)]
        role: Role,
    },
    /// List users with their roles.
    List,
    /// Remove a user, whose sessions lose their rights.
    Remove { name: UserName },
}

fn data_dir(named: Option<&Path>) -> Result<PathBuf, ExitCode> {
    config::load(named).map(|config| config.data_dir).map_err(|faults| complain(&faults.to_string()))
}

pub fn trust(arguments: &Trust) -> ExitCode {
    let pki = match data_dir(arguments.config.as_deref()) {
        Ok(data_dir) => data_dir.join(PKI),
        Err(code) => return code,
    };
    let answer = match (&arguments.thumbprint, arguments.remove) {
        (None, _) => admin::list(&pki).map(|listing| listing.describe(&program())),
        (Some(thumbprint), false) => admin::trust(&pki, thumbprint).map(|entry| entry.said("Trusted")),
        (Some(thumbprint), true) => admin::distrust(&pki, thumbprint).map(|entry| entry.said("No longer trusted")),
    };
    answer.map_or_else(|error| failed(&error.to_string()), |text| print(&text))
}

pub fn user(arguments: Who) -> ExitCode {
    let file = match data_dir(arguments.config.as_deref()) {
        Ok(data_dir) => UsersFile::new(&data_dir),
        Err(code) => return code,
    };
    match change(arguments.change, &file) {
        Ok(said) => print(&said),
        Err(what) => failed(&what),
    }
}

fn change(change: Change, file: &UsersFile) -> Result<String, String> {
    let edit =
        |change: &dyn Fn(&mut Vec<User>) -> Result<(), String>| file.edit(change).map_err(|error| error.to_string());
    match change {
        Change::Add { name, role } => {
            let hash = users::hash(&name, &password_from_stdin()?).map_err(|error| error.to_string())?;
            edit(&|users| {
                users.retain(|user| user.name != name);
                users.push(User { name: name.clone(), role, password: Some(hash.clone()), certificates: Vec::new() });
                Ok(())
            })?;
            Ok(format!("{name} is {role} now.\n"))
        }
        Change::List => {
            let users = file.load().map_err(|error| error.to_string())?;
            Ok(users.iter().map(|user| format!("{}  {}\n", user.name, user.role)).collect())
        }
        Change::Remove { name } => {
            edit(&|users| {
                let before = users.len();
                users.retain(|user| user.name != name);
                if users.len() < before { Ok(()) } else { Err(format!("there is no user {name}")) }
            })?;
            Ok(format!("Removed {name}.\n"))
        }
    }
}

/// Never an argument, where every process could read it.
pub fn password_from_stdin() -> Result<String, String> {
    let line = users::line_of(std::io::stdin().lock());
    line.map_err(|error| format!("cannot read the password from standard input: {error}"))
}

fn print(text: &str) -> ExitCode {
    // Whoever closed the pipe has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
