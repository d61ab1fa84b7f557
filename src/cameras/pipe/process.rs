//! The program behind a pipe camera: started without a shell, read without waiting for ever, ended with its children.
//!
//! It is the leader of a process group of its own, so that what it starts ends with it. Its output comes through a pipe
//! (as large as the kernel allows), what it says on stderr goes to the log, and the last of it into the error when the
//! program ends. It has no input.
//!
//!     drop: SIGTERM to the group ── all have ended, or GRACE is over ──► SIGKILL to the group ──► reaped
//!
//! The leader is not reaped before the last signal has been sent: as long as it is a zombie, the group's number can
//! belong to no other. A program that makes itself a session of its own leaves the group and is not followed; it ends
//! when it next writes, because nobody reads any more. The same holds for all of them when this process is killed.

use crate::cameras::device::CameraError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, OFlags, access, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, kill_process_group, waitid, waitpgid,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// The most that the kernel gives an ordinary user (pipe(7), /proc/sys/fs/pipe-max-size).
const PIPE: usize = 1 << 20;
/// How long a program has to end after SIGTERM, and how long the kernel has after SIGKILL.
const GRACE: Duration = Duration::from_secs(1);
/// The end of the output is seen a moment before the end of the program.
const LAST_BREATH: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(10);

pub(super) struct Process {
    program: String,
    child: Child,
    group: Pid,
    stdout: ChildStdout,
    words: Words,
}

/// The file of a program: it is a path, or a name that is looked for in PATH.
pub(super) fn find(program: &str) -> Result<PathBuf, CameraError> {
    let no_program = |reason| CameraError::NoProgram { program: program.into(), reason };
    // A folder may be passed through (X) but not run.
    let is_runnable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        let path = Path::new(program);
        return match path.is_file() {
            _ if is_runnable(path) => Ok(path.into()),
            true => Err(no_program("is not executable".into())),
            false => Err(no_program("does not exist".into())),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(program));
    let found = candidates.find(|candidate| is_runnable(candidate));
    found.ok_or_else(|| no_program(format!("is not in PATH ({})", path.to_string_lossy())))
}

impl Process {
    /// `command`: the program and its arguments.
    pub(super) fn start(command: &[String]) -> Result<Self, CameraError> {
        let program = command.first().map_or("", String::as_str);
        find(program)?;
        let child = Command::new(program)
            .args(command.get(1..).unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut child = child.map_err(|error| CameraError::NoProgram {
            program: program.into(),
            reason: format!("cannot be started: {error}"),
        })?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both were asked for")
        };
        let group = Pid::from_child(&child);
        let words = Words { program: program.into(), stderr: Some(stderr), line: Vec::new(), last: String::new() };
        let process = Self { program: program.into(), child, group, stdout, words };
        // From here on a failure ends the program, because `process` is dropped.
        process.set_up().map_err(|error| CameraError::Failed {
            device: program.into(),
            operation: "set up its pipes",
            reason: error.to_string(),
        })?;
        debug!(program, process = process.id(), "Started the program of a camera.");
        Ok(process)
    }

    fn set_up(&self) -> io::Result<()> {
        fcntl_setfl(&self.stdout, OFlags::NONBLOCK)?;
        if let Some(stderr) = &self.words.stderr {
            fcntl_setfl(stderr, OFlags::NONBLOCK)?;
        }
        // A smaller pipe works as well: the program waits more often.
        let _ = rustix::pipe::fcntl_setpipe_size(&self.stdout, PIPE);
        Ok(())
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last line that the program said on stderr.
    #[cfg(test)]
    pub(super) fn last_words(&self) -> &str {
        &self.words.last
    }

    /// Bytes that can be read now. Listens to what the program says.
    pub(super) fn look(&mut self) -> usize {
        self.words.listen();
        rustix::io::ioctl_fionread(&self.stdout).map_or(0, |bytes| bytes as usize)
    }

    /// Reads what there is into the spare capacity of `buffer`, or nothing. An error when the program has ended.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, CameraError> {
        match rustix::io::read(&self.stdout, rustix::buffer::spare_capacity(buffer)) {
            Ok(0) => Err(self.ended()),
            Ok(length) => Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(CameraError::Failed {
                device: self.program.clone(),
                operation: "read its output",
                reason: error.to_string(),
            }),
        }
    }

    /// Waits until there is output, or its end; `false` if there was none by `deadline`. Meanwhile listens to what the
    /// program says.
    pub(super) fn wait(&mut self, deadline: Instant) -> Result<bool, CameraError> {
        while Instant::now() < deadline {
            if self.poll(deadline.saturating_duration_since(Instant::now())) {
                return Ok(true);
            }
            self.words.listen();
        }
        // What it started may hold the pipe open, but pictures do not come any more.
        if self.exit().is_some() { Err(self.ended()) } else { Ok(false) }
    }

    /// Whether the output can be read. Returns early when the program says something.
    fn poll(&self, timeout: Duration) -> bool {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.stdout, PollFlags::IN)];
        fds.extend(self.words.stderr.iter().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        poll(&mut fds, Some(&timeout)).is_ok() && !fds[0].revents().is_empty()
    }

    /// How the program ended, if it did. It stays a zombie.
    fn exit(&self) -> Option<WaitIdStatus> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.group), options).ok().flatten()
    }

    /// The output ended: why.
    fn ended(&mut self) -> CameraError {
        let until = Instant::now() + LAST_BREATH;
        while self.exit().is_none() && Instant::now() < until {
            std::thread::sleep(STEP);
        }
        self.words.listen();
        let how = match self.exit() {
            None => "closed its output".to_owned(),
            Some(exit) => match (exit.exit_status(), exit.terminating_signal()) {
                (Some(status), _) => format!("ended with status {status}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
        };
        let last = &self.words.last;
        let what = if last.is_empty() { how } else { format!("{how}: {last}") };
        CameraError::Ended { program: self.program.clone(), what }
    }

    /// Whether children of the program became ours, as they do where this is process 1, and have not ended. Reaps those
    /// that have.
    fn has_orphans(&self) -> bool {
        while let Ok(ended) = waitpgid(self.group, WaitOptions::NOHANG) {
            if ended.is_none() {
                return true;
            }
        }
        false
    }

    /// Whether somebody still holds the other ends of the pipes. What comes is thrown away, so that nobody waits for us.
    fn is_heard(&mut self) -> bool {
        let mut scratch = [0; 65536];
        let is_open = !matches!(rustix::io::read(&self.stdout, &mut scratch), Ok(0));
        self.words.listen();
        is_open || self.words.stderr.is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors of both signals say that nobody is left to get them.
        let _ = kill_process_group(self.group, Signal::TERM);
        let until = Instant::now() + GRACE;
        while (self.is_heard() || self.exit().is_none()) && Instant::now() < until {
            std::thread::sleep(STEP);
        }
        let _ = kill_process_group(self.group, Signal::KILL);
        let until = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) || self.is_heard() || self.has_orphans() {
            if Instant::now() >= until {
                let process = self.id();
                warn!(program = %self.program, process, "A program, or what it started, does not end though it was killed.");
                return;
            }
            std::thread::sleep(STEP);
        }
    }
}

/// What the program says on stderr, by lines.
struct Words {
    program: String,
    /// None after its end.
    stderr: Option<ChildStderr>,
    line: Vec<u8>,
    /// The last line that was not empty.
    last: String,
}

/// A longer line is taken in parts.
const LINE: usize = 500;

impl Words {
    /// Takes in what has been said, without waiting; of one that never stops as much as a pipe holds.
    fn listen(&mut self) {
        let mut said = [0; 4096];
        for _ in 0..16 {
            let Some(stderr) = &self.stderr else { return };
            match rustix::io::read(stderr, &mut said) {
                Ok(0) => {
                    self.end_line();
                    self.stderr = None;
                }
                Ok(length) => said[..length].iter().for_each(|&byte| self.hear(byte)),
                Err(_) => return,
            }
        }
    }

    fn hear(&mut self, byte: u8) {
        // Progress is often said over and over on one line, with returns.
        match byte {
            b'\n' | b'\r' => self.end_line(),
            _ => self.line.push(byte),
        }
        if self.line.len() >= LINE {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        let line: String = String::from_utf8_lossy(&self.line).chars().filter(|c| !c.is_control()).collect();
        self.line.clear();
        if !line.trim().is_empty() {
            debug!(program = %self.program, "{}", line.trim());
            self.last = line.trim().to_owned();
        }
    }
}
