//! The core's own log lines: tracing events in a small ring, out of which the host takes them in batches.
//!
//! There is one ring in a process, as there is one tracing subscriber. Who logs never waits: what finds no room is
//! counted and dropped, and lines of one kind (one place in the code) are bounded per minute, so that whoever makes the
//! core say something cannot make it say that for ever. Redacting and writing the lines is the host's.

use std::{
    collections::{HashMap, VecDeque},
    fmt::{self, Write},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::event::{EventfdFlags, eventfd};
use serde_json::{Map, Value, json};
use tracing::{
    Event, Level, Metadata, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt},
    reload,
};

use crate::{Error, Result};

/// Lines waiting for the host: so many, and so many bytes.
const RING_LINES: usize = 1024;
const RING_BYTES: usize = 1024 * 1024;
/// A line's message, each of its other fields, and how many of those; what goes beyond is cut.
const MESSAGE_MAX_BYTES: usize = 4096;
const FIELD_MAX_BYTES: usize = 1024;
const FIELDS_MAX: usize = 16;
/// Lines of one kind that are kept in one period; the first line of the next one comes with their number.
const KIND_LINES_MAX: u64 = 600;
const KIND_PERIOD: Duration = Duration::from_secs(60);
/// Whose lines have the level that is asked for; other crates only say what is wrong.
const OWN_TARGET: &str = "chorus_core";
/// It warns of every agent that has not met another yet.
const KADEMLIA_TARGET: &str = "libp2p_kad";

static INSTALLED: OnceLock<Result<Installed>> = OnceLock::new();

struct Installed {
    ring: Arc<Ring>,
    filter: reload::Handle<Targets, Registry>,
}

/// The lines of this process's cores, from the opening on. One may be open at a time.
pub struct Lines {
    ring: Arc<Ring>,
}

impl Lines {
    /// Begins to keep lines of this level (`debug`, `info`, `warning` or `error`) and graver ones.
    ///
    /// # Errors
    /// `invalid` for another level; `refused` when lines are open already, in a forked child, or when this process's
    /// tracing goes elsewhere.
    pub fn open(level: &str) -> Result<Self> {
        let targets = targets(level)?;
        let installed = INSTALLED.get_or_init(install).as_ref().map_err(Clone::clone)?;
        installed.ring.check_process()?;
        {
            let mut kept = installed.ring.lock();
            if kept.open {
                return Err(Error::Refused("the core's lines are taken by somebody else in this process".into()));
            }
            kept.open = true;
        }
        set(&installed.filter, targets);
        Ok(Self { ring: Arc::clone(&installed.ring) })
    }

    /// A descriptor that can be read from while lines wait; only for waiting.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.ring.signal.as_raw_fd()
    }

    /// At most `max` lines, oldest first, and how many were dropped since the last call. A line is a JSON object:
    /// `time` (seconds since the epoch), `level`, `target`, `message`, `fields`.
    ///
    /// # Errors
    /// `closed` after the closing, `refused` in a forked child.
    pub fn take(&self, max: usize) -> Result<(Vec<Vec<u8>>, u64)> {
        self.ring.check_process()?;
        self.ring.take(max)
    }

    /// Keeps no more lines; safe to call twice. What was not taken is gone.
    pub fn close(&self) {
        if self.ring.check_process().is_err() {
            return;
        }
        if let Some(Ok(installed)) = INSTALLED.get() {
            set(&installed.filter, Targets::new());
        }
        self.ring.clear();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.close();
    }
}

fn targets(level: &str) -> Result<Targets> {
    let own = match level {
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warning" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        _ => return Err(Error::Invalid("level: debug, info, warning or error".into())),
    };
    let others = own.min(LevelFilter::WARN);
    Ok(Targets::new()
        .with_default(others)
        .with_target(KADEMLIA_TARGET, others.min(LevelFilter::ERROR))
        .with_target(OWN_TARGET, own))
}

fn set(filter: &reload::Handle<Targets, Registry>, targets: Targets) {
    // Fails only when the subscriber is gone, and it lasts as long as the process.
    let _ = filter.reload(targets);
}

fn install() -> Result<Installed> {
    let ring = Arc::new(Ring::new()?);
    let (targets, filter) = reload::Layer::new(Targets::new());
    let subscriber = Registry::default().with(RingLayer(Arc::clone(&ring)).with_filter(targets));
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| Error::Refused("this process's tracing goes elsewhere".into()))?;
    Ok(Installed { ring, filter })
}

struct Ring {
    /// After a fork the child's copy may be locked for ever: it is left alone there.
    pid: u32,
    kept: Mutex<Kept>,
    /// Readable while lines wait.
    signal: OwnedFd,
}

#[derive(Default)]
struct Kept {
    open: bool,
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// By place in the code, of which there are some hundreds.
    kinds: HashMap<Identifier, Kind>,
    /// When a period may have ended in which lines were left out.
    look_at: Option<Instant>,
}

/// Lines of one kind in the present period.
struct Kind {
    since: Instant,
    kept: u64,
    left_out: u64,
    of: &'static Metadata<'static>,
}

impl Kept {
    /// Whether one more line of this kind has a place in its period.
    fn admits(&mut self, of: &'static Metadata<'static>, now: Instant) -> bool {
        let kind = self.kinds.entry(of.callsite()).or_insert(Kind { since: now, kept: 0, left_out: 0, of });
        if kind.kept >= KIND_LINES_MAX {
            kind.left_out += 1;
            self.look_at.get_or_insert(kind.since + KIND_PERIOD);
            return false;
        }
        kind.kept += 1;
        true
    }

    /// Begins new periods, with a line for every kind of which something was left out.
    fn turn(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.look_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.look_at = None;
        let mut lines = Vec::new();
        self.kinds.retain(|_, kind| {
            if now < kind.since + KIND_PERIOD {
                if kind.left_out > 0 {
                    let at = kind.since + KIND_PERIOD;
                    self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
                }
                return true;
            }
            if kind.left_out > 0 {
                lines.push(left_out(kind));
            }
            false
        });
        lines
    }
}

impl Ring {
    fn new() -> Result<Self> {
        let signal = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::Internal(format!("eventfd: {error}")))?;
        Ok(Self { pid: std::process::id(), kept: Mutex::default(), signal })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_process(&self) -> Result<()> {
        if std::process::id() == self.pid {
            return Ok(());
        }
        Err(Error::Refused("the core's lines belong to the process that opened them".into()))
    }

    /// Whether another line of this kind has a chance; counts it when it has none.
    fn wants(&self, of: &'static Metadata<'static>, now: Instant) -> bool {
        if self.check_process().is_err() {
            return false;
        }
        let mut kept = self.lock();
        if !kept.open {
            return false;
        }
        for line in kept.turn(now) {
            self.keep(&mut kept, line);
        }
        if !kept.admits(of, now) {
            return false;
        }
        let full = kept.lines.len() >= RING_LINES;
        kept.dropped += u64::from(full);
        !full
    }

    fn push(&self, line: Vec<u8>) {
        let mut kept = self.lock();
        if kept.open {
            self.keep(&mut kept, line);
        }
    }

    fn keep(&self, kept: &mut Kept, line: Vec<u8>) {
        if kept.lines.len() >= RING_LINES || kept.bytes + line.len() > RING_BYTES {
            kept.dropped += 1;
            return;
        }
        kept.bytes += line.len();
        kept.lines.push_back(line);
        if kept.lines.len() == 1 {
            // Cannot overflow: it is read whenever the ring is empty again.
            let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
        }
    }

    fn take(&self, max: usize) -> Result<(Vec<Vec<u8>>, u64)> {
        let mut kept = self.lock();
        if !kept.open {
            return Err(Error::Closed);
        }
        for line in kept.turn(Instant::now()) {
            self.keep(&mut kept, line);
        }
        let count = kept.lines.len().min(max);
        let lines: Vec<Vec<u8>> = kept.lines.drain(..count).collect();
        kept.bytes -= lines.iter().map(Vec::len).sum::<usize>();
        if kept.lines.is_empty() {
            self.calm();
        }
        Ok((lines, std::mem::take(&mut kept.dropped)))
    }

    fn clear(&self) {
        let mut kept = self.lock();
        *kept = Kept::default();
        self.calm();
    }

    fn calm(&self) {
        let _ = rustix::io::read(&self.signal, &mut [0u8; 8]);
    }
}

struct RingLayer(Arc<Ring>);

impl<S: Subscriber> Layer<S> for RingLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if self.0.wants(event.metadata(), Instant::now()) {
            self.0.push(line(event));
        }
    }
}

fn line(event: &Event<'_>) -> Vec<u8> {
    let mut found = Found::default();
    event.record(&mut found);
    written(event.metadata(), &found.message, found.fields)
}

/// The line that says how many of a kind are missing.
fn left_out(kind: &Kind) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("count".into(), kind.left_out.into());
    if let (Some(file), Some(line)) = (kind.of.file(), kind.of.line()) {
        fields.insert("place".into(), format!("{}:{line}", file.rsplit('/').next().unwrap_or(file)).into());
    }
    let message = format!("more lines of one kind were left out; a minute has room for {KIND_LINES_MAX}");
    written(kind.of, &message, fields)
}

fn written(metadata: &Metadata<'_>, message: &str, fields: Map<String, Value>) -> Vec<u8> {
    let level = match *metadata.level() {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let line = json!({
        "time": time,
        "level": level,
        "target": metadata.target(),
        "message": message,
        "fields": fields,
    });
    line.to_string().into_bytes()
}

#[derive(Default)]
struct Found {
    message: String,
    fields: Map<String, Value>,
}

impl Found {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        if self.fields.len() < FIELDS_MAX {
            self.fields.insert(field.name().to_owned(), value.into());
        }
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            self.message = short(value, MESSAGE_MAX_BYTES);
        } else {
            self.put(field, short(value, FIELD_MAX_BYTES));
        }
    }
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

/// The text up to `max` bytes, on one line; what is cut is not even formatted.
fn short(text: fmt::Arguments<'_>, max: usize) -> String {
    let mut short = Short { text: String::new(), max };
    if short.write_fmt(text).is_err() {
        short.text.push('…');
    }
    short.text
}

struct Short {
    text: String,
    max: usize,
}

impl Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars() {
            if self.text.len() + c.len_utf8() > self.max {
                return Err(fmt::Error);
            }
            if c.is_control() {
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use super::*;

    /// What a ring of its own keeps of the events in `log`.
    fn kept(log: impl FnOnce()) -> Arc<Ring> {
        let ring = Arc::new(Ring::new().unwrap());
        ring.lock().open = true;
        let subscriber = Registry::default().with(RingLayer(Arc::clone(&ring)));
        tracing::subscriber::with_default(subscriber, log);
        ring
    }

    fn waits(ring: &Ring) -> bool {
        let mut count = [0u8; 8];
        rustix::io::read(&ring.signal, &mut count).is_ok()
    }

    #[test]
    fn an_event_becomes_one_structured_line() {
        let ring = kept(|| tracing::warn!(n = 7u32, ok = true, who = %"a\nb", "the {} broke", "pipe"));
        let (lines, dropped) = ring.take(10).unwrap();
        let line: Value = serde_json::from_slice(&lines[0]).unwrap();
        assert_eq!((lines.len(), dropped), (1, 0));
        assert_eq!(line["level"], "warning");
        assert_eq!(line["target"], "chorus_core::trace::tests");
        assert_eq!(line["message"], "the pipe broke");
        assert_eq!(line["fields"], json!({"n": 7, "ok": true, "who": "a\\nb"}));
        assert!(line["time"].as_f64().unwrap() > 1.7e9);
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let ring = kept(|| ());
        (0..RING_LINES + 500).for_each(|n| ring.push(n.to_string().into_bytes()));
        assert_eq!(ring.lock().lines.len(), RING_LINES);
        let (lines, dropped) = ring.take(RING_LINES / 2).unwrap();
        assert_eq!((lines.len(), dropped), (RING_LINES / 2, 500));
        assert_eq!(ring.take(RING_LINES).unwrap().1, 0);
        (0..RING_LINES).for_each(|_| ring.push(vec![b'x'; 2 * FIELD_MAX_BYTES]));
        assert!(ring.lock().bytes <= RING_BYTES);
        let (lines, dropped) = ring.take(RING_LINES).unwrap();
        assert_eq!(lines.len() as u64 + dropped, RING_LINES as u64);
        assert_eq!(ring.lock().bytes, 0);
        let long = "x".repeat(10 * MESSAGE_MAX_BYTES);
        let (lines, _) = kept(|| tracing::info!(a = long, b = long, "{long}")).take(1).unwrap();
        assert!(lines[0].len() < MESSAGE_MAX_BYTES + 3 * FIELD_MAX_BYTES);
    }

    #[test]
    fn lines_of_one_kind_are_bounded_and_the_rest_is_counted() {
        let ring = kept(|| {
            for n in 0..10_000 {
                tracing::info!(n, "of a stranger");
                if n % 1000 == 0 {
                    tracing::info!(n, "of another kind");
                }
            }
        });
        let (lines, dropped) = ring.take(RING_LINES).unwrap();
        assert_eq!((lines.len() as u64, dropped), (KIND_LINES_MAX + 10, 0));
        let later = Instant::now() + KIND_PERIOD;
        let lines = ring.lock().turn(later);
        let line: Value = serde_json::from_slice(&lines[0]).unwrap();
        assert_eq!((lines.len(), &line["fields"]["count"]), (1, &json!(10_000 - KIND_LINES_MAX)));
        assert_eq!(
            (line["level"].as_str(), line["target"].as_str()),
            (Some("info"), Some("chorus_core::trace::tests"))
        );
        assert!(ring.lock().kinds.is_empty());
    }

    #[test]
    fn the_signal_stands_while_lines_wait() {
        let ring = kept(|| (0..3).for_each(|n| tracing::info!(n, "x")));
        ring.take(2).unwrap();
        assert!(waits(&ring));
        ring.take(2).unwrap();
        assert!(!waits(&ring));
    }

    #[test]
    fn nothing_is_kept_once_closed() {
        let ring = kept(|| tracing::info!("x"));
        ring.clear();
        ring.push(Vec::new());
        assert!(matches!(ring.take(1), Err(Error::Closed)));
        assert!(ring.lock().lines.is_empty());
    }

    #[test]
    fn levels_are_those_of_the_settings() {
        let own = |level: &str, at| targets(level).unwrap().would_enable("chorus_core::hub", &at);
        let others = |level: &str, at| targets(level).unwrap().would_enable("libp2p_swarm", &at);
        assert!(own("debug", Level::DEBUG) && !own("info", Level::DEBUG));
        assert!(others("debug", Level::WARN) && !others("debug", Level::INFO) && !others("error", Level::WARN));
        assert!(targets("loud").is_err());
    }
}
