//! Notices that nothing moves while something waits, at no cost for what does move: no clock is read and no timer set as
//! long as nothing waits, and one timer serves however often the wait begins anew.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How many looks in a row must find that nothing has moved. So it takes between the time allowed and a quarter more.
const LOOKS: u8 = 4;

/// Looks four times in the time allowed whether anything has moved.
#[derive(Debug)]
pub struct Standstill {
    allowed: Duration,
    looking: Option<Looking>,
}

#[derive(Debug)]
struct Looking {
    next: Pin<Box<Sleep>>,
    /// What had moved at the last look.
    mark: u64,
    quiet: u8,
}

impl Standstill {
    /// Ends after `allowed`.
    pub fn new(allowed: Duration) -> Standstill {
        Standstill { allowed, looking: None }
    }

    /// To be polled only while something waits. `moved` grows with everything that moves: ready once it has stood still for
    /// the time allowed.
    pub fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        let pause = self.allowed / u32::from(LOOKS);
        let looking = self.looking.get_or_insert_with(|| Looking { next: Box::pin(tokio::time::sleep(pause)), mark: moved, quiet: 0 });
        loop {
            ready!(looking.next.as_mut().poll(cx));
            if looking.mark == moved {
                looking.quiet += 1;
            } else {
                (looking.mark, looking.quiet) = (moved, 0);
            }
            if looking.quiet == LOOKS {
                return Poll::Ready(());
            }
            looking.next.as_mut().reset(Instant::now() + pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::poll_fn;
    use tokio::time::sleep;

    const ALLOWED: Duration = Duration::from_millis(200);

    async fn ended(standstill: &mut Standstill, moved: &Cell<u64>) -> Duration {
        let started = Instant::now();
        poll_fn(|cx| standstill.poll(cx, moved.get())).await;
        started.elapsed()
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    #[test]
    fn what_stands_still_ends_after_the_time_allowed() {
        run(async {
            let took = ended(&mut Standstill::new(ALLOWED), &Cell::new(0)).await;
            assert!(took >= ALLOWED, "{took:?}");
        });
    }

    #[test]
    fn what_moves_has_all_its_time_again() {
        run(async {
            let (mut standstill, moved) = (Standstill::new(ALLOWED), Cell::new(0));
            let moving = async {
                for _ in 0..10 {
                    sleep(ALLOWED / 4).await;
                    moved.set(moved.get() + 1);
                }
                Instant::now()
            };
            let ending = async {
                ended(&mut standstill, &moved).await;
                Instant::now()
            };
            let (stopped, ended) = tokio::join!(moving, ending);
            assert!(ended >= stopped + ALLOWED, "{:?} after it stopped", ended.duration_since(stopped));
        });
    }

    #[test]
    fn a_wait_that_begins_later_is_not_charged_with_the_pause_before_it() {
        run(async {
            let (mut standstill, moved) = (Standstill::new(ALLOWED), Cell::new(0));
            // A short wait, then movement, then a pause in which nothing waits.
            poll_fn(|cx| Poll::Ready(standstill.poll(cx, 0))).await.is_pending().then_some(()).unwrap();
            moved.set(1);
            sleep(ALLOWED * 2).await;
            let took = ended(&mut standstill, &moved).await;
            assert!(took >= ALLOWED, "{took:?}");
        });
    }
}
