//! What the gateway writes to its log while a test listens. A test's gateway runs on the test's own thread.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex, Once},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use super::world::SOON;

/// Every line since it was made, with its fields.
pub(super) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _listening: DefaultGuard,
}

/// Before any gateway of this process writes a line. What is written while nobody listens is otherwise taken for what nobody will ever hear,
/// and stays so if somebody begins to listen at that very moment.
pub(super) fn be_heard() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Listener(None)).unwrap());
}

impl Log {
    /// How many lines say so by now.
    pub(super) fn count(&self, words: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line.contains(words)).count()
    }

    pub(super) fn listen() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let _listening = tracing::subscriber::set_default(Listener(Some(Arc::clone(&lines))));
        Self { lines, _listening }
    }

    /// The first line that says so, as soon as it is there.
    pub(super) async fn line(&self, words: &str) -> String {
        let said = async {
            loop {
                if let Some(line) = self.lines.lock().unwrap().iter().find(|line| line.contains(words)) {
                    return line.clone();
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, said).await.unwrap_or_else(|_| panic!("nobody says {words:?}"))
    }
}

/// Keeps lines for somebody, or for nobody.
struct Listener(Option<Arc<Mutex<Vec<String>>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let Some(lines) = &self.0 else { return };
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        lines.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
