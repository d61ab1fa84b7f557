//! Ends of real processes, which say nothing.

use super::*;
use crate::base::Tasks;
use crate::relay::protocol::{Event, FromWorker, News, frame};
use std::path::Path;
use tempfile::TempDir;

struct Nobody;

impl Listener for Nobody {
    fn up(&self, _: u64) {}

    fn data(&self, _: u32, _: Vec<News>) {}

    fn down(&self, _: Phase) {}
}

/// Runs a worker that starts and then does what the script says, until it runs and is stopped.
async fn stopped_while_running(folder: &Path, script: &str) {
    let started = folder.join("started");
    std::fs::write(&started, frame(&FromWorker::Event(Event::Started(Capabilities::default()))).unwrap()).unwrap();
    let launch = Launch {
        server: "test".into(),
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), format!("cat {}; {script}", started.display()).into()],
        patience: Patience::default(),
    };
    let (worker, mut questions) = Worker::new();
    let (tasks, clock) = (Tasks::new("test"), Clock::real());
    let stop = tasks.stop_signal();
    tokio::join!(supervise(&launch, &mut questions, &Nobody, &clock, &stop), async {
        worker.follow().wait_for(|state| state.phase == Phase::Running).await.unwrap();
        tasks.stop(Duration::ZERO).await;
    });
    assert_eq!(worker.state().phase, Phase::Down);
}

#[tokio::test]
async fn a_worker_whose_input_ends_may_let_go_of_its_server() {
    let folder = TempDir::new().unwrap();
    let done = folder.path().join("done");
    let script = format!("cat > /dev/null; sleep 0.2; echo let go > {}", done.display());
    stopped_while_running(folder.path(), &script).await;
    assert!(done.exists());
}

#[tokio::test]
async fn a_worker_that_does_not_end_is_ended() {
    let folder = TempDir::new().unwrap();
    let process = folder.path().join("process");
    stopped_while_running(folder.path(), &format!("echo $$ > {}; exec sleep 1000", process.display())).await;
    let process = std::fs::read_to_string(process).unwrap();
    // Until it is waited for it stays in the table; the signal may be on its way yet.
    let is_there =
        || std::fs::read_to_string(format!("/proc/{}/stat", process.trim())).is_ok_and(|it| !it.contains(") Z "));
    for _ in 0..1000 {
        if !is_there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it still runs");
}
