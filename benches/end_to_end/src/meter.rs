//! Counts what clients do, between two moments.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{Failure, process::cpu_time, spec::Measured};

/// Shared by all tasks of the one thread.
#[derive(Clone)]
pub(crate) struct Meter(Rc<Inner>);

struct Inner {
    done: Cell<u64>,
    is_counting: Cell<bool>,
    /// Nanoseconds.
    times: RefCell<Vec<u32>>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self(Rc::new(Inner {
            done: Cell::new(0),
            is_counting: Cell::new(false),
            times: RefCell::new(Vec::with_capacity(1 << 20)),
        }))
    }

    /// So many are done.
    pub(crate) fn add(&self, count: u64) {
        self.0.done.set(self.0.done.get() + count);
    }

    /// One is done, that took this long.
    pub(crate) fn time(&self, since: Instant) {
        self.add(1);
        if self.0.is_counting.get() {
            self.0.times.borrow_mut().push(since.elapsed().as_nanos().min(u32::MAX.into()) as u32);
        }
    }

    /// Lets the tasks run: a fifth of the time to warm up, then counts.
    pub(crate) async fn run(&self, duration: Duration, server: Option<u32>) -> Result<Measured, Failure> {
        let server_cpu = || server.map_or(Ok(Duration::ZERO), cpu_time);
        tokio::time::sleep(duration / 5).await;
        self.0.is_counting.set(true);
        let (begin, done) = (Instant::now(), self.0.done.get());
        let (own_before, server_before) = (cpu_time(std::process::id())?, server_cpu()?);
        tokio::time::sleep(duration).await;
        let (own, server) = (cpu_time(std::process::id())? - own_before, server_cpu()? - server_before);
        let (elapsed, done) = (begin.elapsed(), (self.0.done.get() - done) as f64);
        if done == 0.0 {
            return Err("nothing was answered".into());
        }
        Ok(Measured {
            p50_us: self.median_us(),
            per_s: done / elapsed.as_secs_f64(),
            cpu_us: (own + server).as_secs_f64() * 1e6 / done,
            server_cpu_us: server.as_secs_f64() * 1e6 / done,
            kib: f64::NAN,
        })
    }

    fn median_us(&self) -> f64 {
        let mut times = self.0.times.borrow_mut();
        if times.is_empty() {
            return f64::NAN;
        }
        let middle = times.len() / 2;
        f64::from(*times.select_nth_unstable(middle).1) / 1e3
    }
}
