//! Tells the running calls of every thread that something has happened which may end them: the drain is over, credentials
//! were revoked. Whoever made it happen rings; each call then looks for itself.
//!
//! A call waits at its own thread's bell, so that waiting costs nothing that threads share.

use tokio::sync::{Notify, watch};

/// The one that is rung. Clones are the same bell.
#[derive(Clone, Debug)]
pub struct Bell(watch::Sender<()>);

impl Default for Bell {
    fn default() -> Bell {
        Bell(watch::Sender::new(()))
    }
}

impl Bell {
    /// Wakes every call that runs. What the calls shall see has been stored before.
    pub fn ring(&self) {
        self.0.send_replace(());
    }
}

/// One thread's own.
#[derive(Debug, Default)]
pub struct LocalBell(Notify);

impl LocalBell {
    /// Passes on every ring of `bell`, forever; run by one task of the thread, from before its first call on.
    pub async fn follow(&self, bell: &Bell) {
        let mut rings = bell.0.subscribe();
        // Never an error: `bell` is there as long as this is.
        while rings.changed().await.is_ok() {
            self.0.notify_waiters();
        }
    }

    /// Waits for the next ring after this was called.
    pub fn rung(&self) -> impl Future<Output = ()> {
        self.0.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use tokio::task::LocalSet;

    #[test]
    fn a_ring_of_another_thread_wakes_everybody_here() {
        let (bell, local) = (Bell::default(), Rc::new(LocalBell::default()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let (following, followed) = (local.clone(), bell.clone());
            tokio::task::spawn_local(async move { following.follow(&followed).await });
            tokio::task::yield_now().await;
            let (first, second) = (local.rung(), local.rung());
            let ringing = std::thread::spawn(move || bell.ring());
            tokio::join!(first, second);
            ringing.join().unwrap();
        });
    }
}
