//! When a client connection is to go although nothing is wrong with it: it is idle, it is old, the process drains, or its
//! certificate is worth nothing any more. A task of its own waits for that, so that the connection's own task, which every
//! call wakes, looks at one queue.

use crate::config::Limits;
use crate::drain::Drain;
use aws_lc_rs::rand;
use std::cell::Cell;
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Why a connection is told to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// The process drains.
    Drain,
    /// `limits.connection_idle`.
    Idle,
    /// `limits.connection_age`.
    Age,
    /// Other certificates of clients are taken now.
    Distrust,
}

/// How long a connection may live.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime {
    idle: Option<Duration>,
    age: Option<Duration>,
}

/// What a connection has done, for its lifetime to look at.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Calls in flight.
    pub(super) active: Cell<u32>,
    /// Calls that ever began.
    pub(super) begun: Cell<u64>,
}

impl Lifetime {
    pub(super) fn new(limits: &Limits) -> Lifetime {
        Lifetime { idle: limits.connection_idle, age: limits.connection_age }
    }

    /// Tells when the connection is to go; and after that also when it is `distrusted`, which is more urgent. Ends with the
    /// receiver.
    pub(super) fn watch(
        self,
        activity: Rc<Activity>,
        mut drain: Drain,
        distrusted: impl Future<Output = ()> + 'static,
    ) -> mpsc::Receiver<Farewell> {
        let (tell, told) = mpsc::channel(2);
        tokio::task::spawn_local(async move {
            let mut distrusted = pin!(distrusted);
            let farewell = tokio::select! {
                () = tell.closed() => return,
                () = &mut distrusted => Farewell::Distrust,
                _ = drain.draining() => Farewell::Drain,
                () = idle(&activity, self.idle) => Farewell::Idle,
                () = aged(self.age) => Farewell::Age,
            };
            let _ = tell.send(farewell).await;
            if farewell != Farewell::Distrust {
                tokio::select! {
                    () = tell.closed() => return,
                    () = distrusted => {}
                }
                let _ = tell.send(Farewell::Distrust).await;
            }
        });
        told
    }
}

/// Looks four times in the time allowed, so that no call has to note when it ended: it takes up to a quarter more.
async fn idle(activity: &Activity, allowed: Option<Duration>) {
    const LOOKS: u8 = 4;
    let Some(allowed) = allowed else { return pending().await };
    let (mut quiet, mut begun) = (0, activity.begun.get());
    while quiet < LOOKS {
        sleep(allowed / u32::from(LOOKS)).await;
        let before = std::mem::replace(&mut begun, activity.begun.get());
        quiet = if activity.active.get() == 0 && before == begun { quiet + 1 } else { 0 };
    }
}

/// A tenth more or less, lest connections that were opened together, by a restart say, are opened anew together for ever.
async fn aged(age: Option<Duration>) {
    let Some(age) = age else { return pending().await };
    let mut random = [0; 2];
    rand::fill(&mut random).expect("the operating system has random numbers");
    sleep(age.mul_f64(jitter(u16::from_le_bytes(random)))).await;
}

/// From 0.9 to 1.1.
fn jitter(random: u16) -> f64 {
    0.9 + 0.2 * f64::from(random) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::drain;
    use std::time::Instant;
    use tokio::task::LocalSet;

    const SHORT: Option<Duration> = Some(Duration::from_millis(100));

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        LocalSet::new().block_on(&runtime, test)
    }

    #[test]
    fn calls_keep_a_connection_from_being_idle() {
        run(async {
            let (_trigger, drain) = drain();
            let activity = Rc::new(Activity::default());
            let mut told = Lifetime { idle: SHORT, age: None }.watch(activity.clone(), drain, pending());
            activity.active.set(1);
            sleep(Duration::from_millis(300)).await;
            assert!(told.try_recv().is_err(), "a call is in flight");
            activity.active.set(0);
            for _ in 0..30 {
                sleep(Duration::from_millis(10)).await;
                activity.begun.set(activity.begun.get() + 1);
            }
            assert!(told.try_recv().is_err(), "calls come and go");
            let stopped = Instant::now();
            assert_eq!(told.recv().await, Some(Farewell::Idle));
            assert!(stopped.elapsed() >= Duration::from_millis(70), "{:?}", stopped.elapsed());
        });
    }

    #[test]
    fn age_comes_whatever_the_calls_do() {
        run(async {
            let (_trigger, drain) = drain();
            let activity = Rc::new(Activity { active: Cell::new(1), begun: Cell::new(1) });
            let started = Instant::now();
            assert_eq!(Lifetime { idle: SHORT, age: SHORT }.watch(activity, drain, pending()).recv().await, Some(Farewell::Age));
            assert!(started.elapsed() >= Duration::from_millis(90));
        });
        assert_eq!((jitter(0), (jitter(u16::MAX) * 10.0).round()), (0.9, 11.0));
    }

    #[test]
    fn the_drain_is_a_farewell_and_the_end_of_the_connection_none() {
        run(async {
            let (trigger, drain) = drain();
            let (dropped, kept) = (Rc::new(Activity::default()), Rc::new(Activity::default()));
            let forever = Lifetime { idle: None, age: None };
            drop(forever.watch(dropped.clone(), drain.clone(), pending()));
            let mut told = forever.watch(kept, drain, pending());
            while Rc::strong_count(&dropped) > 1 {
                tokio::task::yield_now().await;
            }
            trigger.begin(tokio::time::Instant::now());
            assert_eq!(told.recv().await, Some(Farewell::Drain));
        });
    }

    #[test]
    fn distrust_comes_also_after_another_farewell_and_is_the_last() {
        run(async {
            let (trigger, drain) = drain();
            let (lose, lost) = tokio::sync::oneshot::channel::<()>();
            let lost = async { lost.await.unwrap_or_default() };
            let mut told = Lifetime { idle: None, age: None }.watch(Rc::default(), drain, lost);
            trigger.begin(tokio::time::Instant::now());
            assert_eq!(told.recv().await, Some(Farewell::Drain));
            assert!(told.try_recv().is_err());
            lose.send(()).unwrap();
            assert_eq!((told.recv().await, told.recv().await), (Some(Farewell::Distrust), None));
        });
    }
}
