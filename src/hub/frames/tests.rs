use super::*;
use crate::base::Clock;
use crate::model::Timestamp;

const FRAME: Duration = Duration::from_millis(40);

fn picture(sequence: u64) -> Picture {
    let jpeg = bytes::Bytes::from_static(b"jpeg");
    Picture { jpeg, width: 1, height: 1, sequence, captured: Timestamp::UNIX_EPOCH }
}

fn traits() -> Traits {
    let comparison = Comparison { noise_floor: 0.0, ignore_brightness: false, heartbeat: Some(FRAME * 1000) };
    Traits { comparison, reshape: |picture, _, _| Ok(picture.clone()), max_bytes: 1 }
}

fn camera() -> (Camera, Port) {
    let hub = Hub::new(Clock::real());
    let port = hub.register_camera("line1", traits()).unwrap();
    assert!(hub.register_camera("line1", traits()).is_none(), "names are unique");
    (hub.cameras().remove(0), port)
}

/// Feeds frames at 25 a second, with some jitter, and returns which of them each lease got.
fn feed(port: &Port, leases: &[&Lease], frames: u32) -> Vec<Vec<u64>> {
    let start = Instant::now();
    let mut got = vec![Vec::new(); leases.len()];
    for frame in 0..frames {
        let jitter = Duration::from_millis(if frame % 2 == 0 { 3 } else { 0 });
        let captured = start + FRAME * frame + jitter;
        if port.wanted(captured, FRAME) == Wanted::Nothing {
            continue;
        }
        port.deliver(captured, FRAME, &picture(frame.into()), None);
        for (lease, got) in leases.iter().zip(&mut got) {
            if let Some(Ok(picture)) = lock(&lease.slot.shot).take() {
                got.push(picture.sequence);
            }
        }
    }
    got
}

#[test]
fn each_lease_gets_its_own_rate() {
    let (camera, port) = camera();
    let leases = [0, 200, 1000].map(|ms| camera.lease(Duration::from_millis(ms)));
    let got = feed(&port, &leases.each_ref(), 100);
    assert_eq!(got[0].len(), 100);
    assert_eq!(got[1].len(), 20, "{:?}", got[1]);
    assert_eq!(got[2].len(), 4, "{:?}", got[2]);
}

#[test]
fn without_a_lease_nothing_is_wanted() {
    let (camera, port) = camera();
    assert_eq!(port.wait_for_demand(Duration::ZERO).leases, 0);
    assert!(port.wanted(Instant::now(), FRAME) == Wanted::Nothing);
    let lease = camera.lease(Duration::ZERO);
    assert_eq!(port.wait_for_demand(Duration::from_secs(9)).leases, 1);
    drop(lease);
    assert_eq!(port.demand().leases, 0);
}

#[test]
fn a_camera_that_takes_its_time_to_start_does_not_leave_the_grid_behind() {
    let (camera, port) = camera();
    let lease = camera.lease(Duration::from_secs(10));
    let first = Instant::now() + Duration::from_secs(1);
    assert_eq!(port.deliver(first, FRAME, &picture(0), None), 1);
    assert!(
        port.wanted(first + Duration::from_secs(9), FRAME) == Wanted::Nothing,
        "ten seconds from the first picture on"
    );
    assert!(port.wanted(first + Duration::from_secs(10), FRAME) == Wanted::Picture);
    drop(lease);
}

#[test]
fn after_a_pause_a_lease_does_not_catch_up() {
    let (camera, port) = camera();
    let lease = camera.lease(Duration::from_millis(200));
    let late = Instant::now() + Duration::from_secs(60);
    assert_eq!(port.deliver(late, FRAME, &picture(0), None), 1);
    assert!(port.wanted(late + FRAME, FRAME) == Wanted::Nothing);
    assert!(port.wanted(late + Duration::from_millis(200), FRAME) == Wanted::Picture);
    drop(lease);
}

/// A picture of one brightness.
fn grey(luma: u8) -> LumaGrid {
    LumaGrid::new(64, 64, [u16::from(luma) << 8; LumaGrid::CELLS])
}

fn deadband(percent: f64) -> Terms {
    Terms { interval: FRAME, deadband: Some(percent) }
}

/// Shows frames of these brightnesses and returns which of them the lease got.
fn show(port: &Port, lease: &Lease, start: Instant, lumas: &[u8]) -> Vec<usize> {
    let mut got = Vec::new();
    for (index, luma) in lumas.iter().enumerate() {
        let (captured, grid) = (start + FRAME * index as u32, grey(*luma));
        if port.wanted(captured, FRAME) == Wanted::Comparison && port.judge(captured, FRAME, &grid) {
            port.deliver(captured, FRAME, &picture(0), Some(&grid));
        }
        if let Some(Ok(_)) = lock(&lease.slot.shot).take() {
            got.push(index);
        }
    }
    got
}

#[test]
fn a_deadband_is_against_the_last_picture_that_the_lease_got() {
    let (camera, port) = camera();
    let lease = camera.lease(deadband(10.0));
    // 26 of 255 is more than 10 percent. A slow drift adds up until it is enough.
    assert_eq!(show(&port, &lease, Instant::now(), &[0, 0, 20, 20, 30, 40, 50, 60, 30]), [0, 4, 7, 8]);
}

#[test]
fn two_deadbands_are_judged_apart() {
    let (camera, port) = camera();
    let (fine, coarse) = (camera.lease(deadband(5.0)), camera.lease(deadband(30.0)));
    let start = Instant::now();
    assert_eq!(show(&port, &fine, start, &[0, 20, 40, 60]), [0, 1, 2, 3]);
    drop(fine);
    lock(&coarse.slot.shot).take();
    assert_eq!(show(&port, &coarse, start + FRAME * 4, &[70, 76, 77, 78]), [2], "against 0, not against 60");
}

#[test]
fn a_heartbeat_and_a_loss_let_an_equal_picture_through() {
    let (camera, port) = camera();
    let lease = camera.lease(deadband(50.0));
    let start = Instant::now();
    assert_eq!(show(&port, &lease, start, &[9, 9]), [0]);
    assert_eq!(show(&port, &lease, start + FRAME * 999, &[9, 9, 9]), [1]);
    port.set_quality(Quality::new(Status::BAD_NOT_CONNECTED, "unplugged"));
    assert_eq!(show(&port, &lease, start + FRAME * 1003, &[9, 9]), [0]);
}

#[test]
fn new_terms_hold_from_the_next_picture_on() {
    let (camera, port) = camera();
    let lease = camera.lease(Duration::from_secs(1000));
    let start = Instant::now();
    port.deliver(start, FRAME, &picture(0), Some(&grey(0)));
    lock(&lease.slot.shot).take();
    lease.set_terms(deadband(10.0));
    assert_eq!(show(&port, &lease, start + FRAME * 2, &[0, 100]), [1], "what it got before still counts");
}

#[test]
fn a_nudge_ends_the_wait_once() {
    let (camera, port) = camera();
    camera.nudge();
    port.wait_for_nudge(Duration::from_secs(99));
    assert_eq!(port.wait_for_demand(Duration::from_secs(99)).leases, 0);
    assert!(port.take_nudge() && !port.take_nudge());
}

#[tokio::test]
async fn a_snapshot_is_as_young_as_asked() {
    let (camera, port) = camera();
    let timeout = Duration::from_millis(20);
    let now = Instant::now();
    let lease = camera.lease(Duration::ZERO);
    port.deliver(now + Duration::from_micros(1), FRAME, &picture(1), None);
    assert_eq!(camera.snapshot(Duration::from_secs(60), timeout).await.unwrap().sequence, 1);
    let error = camera.snapshot(Duration::ZERO, timeout).await.unwrap_err();
    assert_eq!(error.status, Status::BAD_TIMEOUT);
    drop(lease);

    let shot = camera.snapshot(Duration::ZERO, Duration::from_secs(9));
    let capture = async {
        while port.demand().leases == 0 {
            tokio::task::yield_now().await;
        }
        port.deliver(now, FRAME, &picture(2), None);
        port.deliver(Instant::now(), FRAME, &picture(3), None);
    };
    let (shot, ()) = tokio::join!(shot, capture);
    assert_eq!(shot.unwrap().sequence, 3, "the frame from before the request does not count");
}

#[tokio::test]
async fn a_lost_camera_reaches_every_lease_and_every_new_one() {
    let (camera, port) = camera();
    let mut lease = camera.lease(Duration::from_secs(1));
    let lost = Quality::new(Status::BAD_NOT_CONNECTED, "unplugged");
    port.set_quality(lost.clone());
    assert_eq!(lease.next().await.unwrap_err(), lost);
    assert_eq!(camera.lease(Duration::ZERO).next().await.unwrap_err(), lost);
    assert_eq!(camera.snapshot(Duration::MAX, Duration::ZERO).await.unwrap_err(), lost);

    port.deliver(Instant::now(), FRAME, &picture(1), None);
    assert!(lease.next().await.is_ok());
    drop(port);
    assert_eq!(lease.next().await.unwrap_err().status, Status::BAD_SHUTDOWN);
}

#[tokio::test]
async fn a_camera_that_is_registered_anew_serves_the_leases_it_had_and_a_retired_one_says_so() {
    let hub = Hub::new(crate::base::Clock::real());
    let port = hub.register_camera("a", traits()).unwrap();
    assert!(hub.register_camera("a", traits()).is_none(), "somebody has it");
    let camera = hub.cameras().remove(0);
    let mut lease = camera.lease(Duration::ZERO);
    drop(port);
    assert_eq!(lease.next().await.unwrap_err().status, Status::BAD_SHUTDOWN);

    let port = hub.register_camera("a", traits()).unwrap();
    assert_eq!(port.demand().leases, 1);
    port.deliver(Instant::now(), Duration::ZERO, &picture(1), None);
    assert_eq!(lease.next().await.unwrap().sequence, 1);

    drop(port);
    hub.retire();
    let last = tokio::time::timeout(Duration::from_secs(5), lease.next()).await.unwrap().unwrap_err();
    assert_eq!(last.status, Status::BAD_NODE_ID_UNKNOWN);
    assert!(hub.cameras().is_empty());
    assert!(hub.register_camera("a", traits()).is_some());
    assert_eq!(hub.cameras().len(), 1);
}
