//! Reload: a value read from files, exchanged whole when they change.
//!
//! Knows when files changed and who waits for it. Never knows what the value is. Invariants: readers see the old value or the new one,
//! never a mixture; what cannot be loaded leaves the old one in place, with the error kept and logged; reloads happen one after another.
//! A change is taken up when the files stood still from one look to the next, so that certificate and key are not read half exchanged.
use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
    task::block_in_place,
};
use tokio_util::sync::CancellationToken;

/// Between two looks at the files: four `stat` calls a second cost nothing and make a rotation visible within two.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

type Load<T, E> = dyn Fn(Option<&T>) -> Loaded<T, E> + Send + Sync;
type Prints = Vec<Option<(u64, u64, i64, i64)>>;

/// What a load came to: a value that may have kept old parts, and what was wrong.
pub(crate) struct Loaded<T, E> {
    pub(crate) value: Option<T>,
    pub(crate) error: Option<E>,
}

impl<T, E> Loaded<T, E> {
    pub(crate) fn of(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self { value: Some(value), error: None },
            Err(error) => Self { value: None, error: Some(error) },
        }
    }
}

/// A value that follows its files.
pub(crate) struct Reloadable<T, E> {
    what: &'static str,
    current: ArcSwap<T>,
    load: Box<Load<T, E>>,
    files: Vec<PathBuf>,
    /// Files as they were when last loaded, successfully or not. Its lock also orders reloads.
    tried: Mutex<Prints>,
    generation: watch::Sender<u64>,
    last_error: Mutex<Option<String>>,
}

impl<T, E: std::error::Error> Reloadable<T, E> {
    /// Loads for the first time: any error is final.
    pub(crate) fn start(
        what: &'static str,
        files: Vec<PathBuf>,
        load: impl Fn(Option<&T>) -> Loaded<T, E> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, E> {
        let tried = prints(&files);
        let value = match load(None) {
            Loaded { error: Some(error), .. } => return Err(error),
            Loaded { value, .. } => value,
        };
        let value = value.expect("a first load gives a value or an error");
        Ok(Arc::new(Self {
            what,
            current: ArcSwap::from_pointee(value),
            load: Box::new(load),
            files,
            tried: Mutex::new(tried),
            generation: watch::Sender::new(0),
            last_error: Mutex::new(None),
        }))
    }

    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Rises with each exchange; the receiver tells when.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    pub(crate) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// What the last reload said, when it was not content.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. An error leaves what it concerns as it was.
    pub(crate) fn reload(&self) -> Result<(), E> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        *tried = prints(&self.files);
        let loaded = (self.load)(Some(&self.current.load()));
        if let Some(value) = loaded.value {
            self.current.store(Arc::new(value));
            self.generation.send_modify(|generation| *generation += 1);
        }
        let text = loaded.error.as_ref().map(|error| chain(error));
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = text.clone();
        match (loaded.error, text) {
            (Some(error), Some(text)) => {
                tracing::error!(what = self.what, error = text, "reload failed; what was in use before stays in use");
                Err(error)
            }
            _ => {
                tracing::info!(what = self.what, generation = self.generation(), "reloaded");
                Ok(())
            }
        }
    }

    fn changed_since_tried(&self, now: &Prints) -> bool {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) != *now
    }
}

impl<T: Send + Sync + 'static, E: std::error::Error + Send + 'static> Reloadable<T, E> {
    /// Looks at the files until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut before = Prints::new();
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            before = on_this_thread(|| {
                let now = prints(&self.files);
                if now == before && self.changed_since_tried(&now) {
                    // Logged there; the next change tries again.
                    let _ = self.reload();
                }
                now
            });
        }
    }
}

impl<T, E> fmt::Debug for Reloadable<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloadable").field("what", &self.what).field("files", &self.files).finish_non_exhaustive()
    }
}

/// Looks at files, which may stand on a disk that hangs: no other task waits for it. On a run time of one thread (a simulation's) they
/// would wait for any thread, and when another one answers would be chance.
fn on_this_thread<R>(look: impl FnOnce() -> R) -> R {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(look),
        _ => look(),
    }
}

/// Inode, length and time of the last change: enough to see a file that was replaced or rewritten.
fn prints(files: &[PathBuf]) -> Prints {
    let print = |file: &PathBuf| fs::metadata(file).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
    files.iter().map(print).collect()
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
