//! The operator killed at each call it makes.
//!
//! A first life of a Tenant is recorded: what is called when it is created, updated, and deleted by either policy.
//! Then one life after the other repeats it, and the operator is killed once in each step: at every write, before it
//! and after it, and at every fourth read. A read that is not executed leaves the same behind as the call before it that
//! was, so what this leaves out differs in nothing that outlives the process.

use futures::future::join_all;

use crate::between::{Call, Fault, Kind, Point, Side, Wire};
use crate::lane::{BYSTANDER, Lane, Mishaps, Step};

const LANES: usize = 2;
const EVERY_READ: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_it_converges() {
    let mut lanes = Lane::new(LANES).await;
    join_all(lanes.iter_mut().map(Lane::start)).await;
    let [creation, update, drop] = lanes[0].life("dropped", "Delete", &Mishaps::default()).await;
    let [_, _, release] = lanes[0].life("released", "Retain", &Mishaps::default()).await;
    let lives = lives(&creation, &update, &drop, &release);
    println!("{} lives", lives.len());
    let lives = &lives;
    join_all(lanes.into_iter().enumerate().map(|(number, mut lane)| async move {
        for (index, (policy, mishaps)) in lives.iter().enumerate().skip(number).step_by(LANES) {
            lane.life(&format!("t-{index}"), policy, mishaps).await;
        }
        lane.end().await;
    }))
    .await;
}

/// As few lives as have every point of each step.
fn lives(creation: &[Call], update: &[Call], drop: &[Call], release: &[Call]) -> Vec<(&'static str, Mishaps)> {
    let [creation, update, drop, release] = [creation, update, drop, release].map(points);
    let kill = |point: &Point| (point.clone(), Fault::Hold);
    let deletion: Vec<_> = drop
        .iter()
        .map(|point| ("Delete", kill(point)))
        .chain(release.iter().map(|point| ("Retain", kill(point))))
        .collect();
    let count = creation.len().max(update.len()).max(deletion.len());
    let life = |index| {
        let (policy, deletion) =
            deletion.get(index).cloned().map_or(("Delete", None), |(policy, kill)| (policy, Some(kill)));
        (policy, [creation.get(index).map(kill), update.get(index).map(kill), deletion])
    };
    (0..count).map(life).collect()
}

/// Where to kill in a step of these calls. What follows its last write are visits that find everything done.
pub fn points(calls: &[Call]) -> Vec<Point> {
    let end = calls.iter().rposition(|call| call.wrote).map_or(0, |last| last + 1);
    let mut points = Vec::new();
    for wire in [Wire::Api, Wire::Postgres] {
        let count = |kind| calls[..end].iter().filter(|call| call.wire == wire && call.kind == kind).count();
        let (reads, writes) = (count(Kind::Read), count(Kind::Write));
        println!("{wire:?}: {reads} reads, {writes} writes");
        let point = |kind, nth, side| Point { wire, kind: Some(kind), about: String::new(), nth, side };
        for nth in 0..writes {
            points.extend([Side::Before, Side::After].map(|side| point(Kind::Write, nth, side)));
        }
        points.extend((0..reads).step_by(EVERY_READ).map(|nth| point(Kind::Read, nth, Side::Before)));
    }
    points
}

/// A database that no operator has used before.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_takes_over_a_database_it_converges() {
    const TAKES_OVER: &str = "UPDATE finaiflow_system.leadership";
    let mut lane = Lane::new(1).await.remove(0);
    lane.act(Step::Create, BYSTANDER, "Delete").await;
    lane.world.configure(&[&lane.world.banks.clone()]);
    let epochs = |lane: &Lane| lane.between.since(0).iter().filter(|call| call.what.starts_with(TAKES_OVER)).count();
    let mut nth = 0;
    while epochs(&lane) == 0 {
        killed_at_write(&mut lane, "", nth).await;
        nth += 1;
    }
    let before = epochs(&lane);
    killed_at_write(&mut lane, TAKES_OVER, 0).await;
    assert_eq!(epochs(&lane), before + 2);
    lane.world.start_again();
    lane.settled(Step::Create, BYSTANDER).await;
    lane.nothing_is_written(&[BYSTANDER]).await;
    // One of them was not let through.
    let epoch = lane.world.query("SELECT epoch::text FROM finaiflow_system.leadership").await;
    assert_eq!(epoch, [(before + 2).to_string()]);
    lane.end().await;
}

async fn killed_at_write(lane: &mut Lane, about: &str, nth: usize) {
    for side in [Side::Before, Side::After] {
        let point = Point { wire: Wire::Postgres, kind: Some(Kind::Write), about: about.to_owned(), nth, side };
        lane.between.arm(point, Fault::Hold);
        lane.world.start_again();
        lane.between.holds().await;
        lane.world.kill();
        lane.between.release();
    }
}
