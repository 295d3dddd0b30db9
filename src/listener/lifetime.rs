//! When a client connection is to go although nothing is wrong with it: it is idle, it is old, the process drains, or its
//! certificate is worth nothing any more. A task of its own waits for that, so that the connection's own task, which every
//! call wakes, looks at one place.

use crate::config::Limits;
use crate::drain::Drain;
use aws_lc_rs::rand;
use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

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

    /// Tells when the connection is to go; and after that also when it is `distrusted`, which is more urgent.
    pub(super) fn watch(self, activity: Rc<Activity>, mut drain: Drain, distrusted: impl Future<Output = ()> + 'static) -> Farewells {
        let told = Rc::new(Told::default());
        let tell = told.clone();
        // Boxed: pinned within the task it would take its room twice.
        let mut distrusted = Box::pin(distrusted);
        let watch = tokio::task::spawn_local(async move {
            let farewell = tokio::select! {
                () = &mut distrusted => Farewell::Distrust,
                _ = drain.draining() => Farewell::Drain,
                farewell = self.end(&activity) => farewell,
            };
            tell.tell(farewell);
            if farewell != Farewell::Distrust {
                distrusted.await;
                tell.tell(Farewell::Distrust);
            }
        });
        Farewells { told, watch: watch.abort_handle() }
    }

    /// Idle or old, whichever comes first, by one timer. Looks four times in the time a connection may be idle, so that no call
    /// has to note when it ended: it takes up to a quarter more.
    async fn end(self, activity: &Activity) -> Farewell {
        const LOOKS: u8 = 4;
        let (since, age) = (Instant::now(), self.age.map(jittered));
        let pause = self.idle.map(|allowed| allowed / u32::from(LOOKS));
        let (mut quiet, mut begun) = (0, activity.begun.get());
        loop {
            let left = age.map(|age| age.saturating_sub(since.elapsed()));
            let Some(next) = [pause, left].into_iter().flatten().min() else { return pending().await };
            sleep(next).await;
            if age.is_some_and(|age| since.elapsed() >= age) {
                return Farewell::Age;
            }
            let before = std::mem::replace(&mut begun, activity.begun.get());
            quiet = if activity.active.get() == 0 && before == begun { quiet + 1 } else { 0 };
            if quiet == LOOKS && pause.is_some() {
                return Farewell::Idle;
            }
        }
    }
}

/// Where a connection is told to go. The watch ends when this is dropped.
pub(super) struct Farewells {
    told: Rc<Told>,
    watch: AbortHandle,
}

/// Some bytes of one thread, where a channel would be half a KiB for each connection.
#[derive(Default)]
struct Told {
    farewell: Cell<Option<Farewell>>,
    waiting: RefCell<Option<Waker>>,
}

impl Farewells {
    /// Waits for the next.
    pub(super) async fn next(&self) -> Farewell {
        poll_fn(|cx| self.told.poll(cx)).await
    }
}

impl Drop for Farewells {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Told {
    /// What nobody has heard yet is replaced: what comes second is more urgent.
    fn tell(&self, farewell: Farewell) {
        self.farewell.set(Some(farewell));
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Farewell> {
        if let Some(farewell) = self.farewell.take() {
            return Poll::Ready(farewell);
        }
        match &mut *self.waiting.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// A tenth more or less, lest connections that were opened together, by a restart say, are opened anew together for ever.
fn jittered(age: Duration) -> Duration {
    let mut random = [0; 2];
    rand::fill(&mut random).expect("the operating system has random numbers");
    age.mul_f64(jitter(u16::from_le_bytes(random)))
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
            let farewells = Lifetime { idle: SHORT, age: None }.watch(activity.clone(), drain, pending());
            activity.active.set(1);
            sleep(Duration::from_millis(300)).await;
            assert_eq!(farewells.told.farewell.get(), None, "a call is in flight");
            activity.active.set(0);
            for _ in 0..30 {
                sleep(Duration::from_millis(10)).await;
                activity.begun.set(activity.begun.get() + 1);
            }
            assert_eq!(farewells.told.farewell.get(), None, "calls come and go");
            let stopped = Instant::now();
            assert_eq!(farewells.next().await, Farewell::Idle);
            assert!(stopped.elapsed() >= Duration::from_millis(70), "{:?}", stopped.elapsed());
        });
    }

    #[test]
    fn age_comes_whatever_the_calls_do() {
        run(async {
            let (_trigger, drain) = drain();
            let activity = Rc::new(Activity { active: Cell::new(1), begun: Cell::new(1) });
            let started = Instant::now();
            assert_eq!(Lifetime { idle: SHORT, age: SHORT }.watch(activity, drain, pending()).next().await, Farewell::Age);
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
            let farewells = forever.watch(kept, drain, pending());
            while Rc::strong_count(&dropped) > 1 {
                tokio::task::yield_now().await;
            }
            trigger.begin(tokio::time::Instant::now());
            assert_eq!(farewells.next().await, Farewell::Drain);
        });
    }

    #[test]
    fn distrust_comes_also_after_another_farewell_and_is_the_last() {
        run(async {
            let (trigger, drain) = drain();
            let (lose, lost) = tokio::sync::oneshot::channel::<()>();
            let lost = async { lost.await.unwrap_or_default() };
            let farewells = Lifetime { idle: None, age: None }.watch(Rc::default(), drain, lost);
            trigger.begin(tokio::time::Instant::now());
            assert_eq!(farewells.next().await, Farewell::Drain);
            assert_eq!(farewells.told.farewell.get(), None);
            lose.send(()).unwrap();
            assert_eq!(farewells.next().await, Farewell::Distrust);
            while !farewells.watch.is_finished() {
                tokio::task::yield_now().await;
            }
            assert_eq!(farewells.told.farewell.get(), None);
        });
    }
}
