//! Flow removal: by time-out in packet time, or by eviction from a full table.

use capstan_model::{FlowEnd, Time};

use super::queue::Queue;
use super::{FlowTable, SECOND, Timeouts};

/// Interval between time-out sweeps, in packet time.
const SWEEP_EVERY: i64 = 10 * SECOND;
/// After this many packets in a row that are earlier by more than that, the clock goes back.
const TURNED_BACK: u32 = 4_096;

impl FlowTable {
    /// The time of a packet. A packet without a time has the time of the previous packet. Sweeps
    /// time-outs now and then.
    #[inline]
    pub(super) fn moment(&mut self, time: Option<Time>) -> i64 {
        let Some([last, before, _]) = self.times else {
            let now = time.map_or(0, |time| time.0);
            if time.is_some() {
                self.times = Some([now; 3]);
                (self.clock, self.swept) = (now, now);
            }
            return now;
        };
        let Some(Time(now)) = time else { return last };
        self.times = Some([now, last, before]);
        self.tell_time(median([now, last, before]));
        now
    }

    /// Advances the time-out clock. It follows the latest packet time. It goes back only after many
    /// earlier packets in a row, because interfaces with different clocks may alternate.
    #[inline]
    fn tell_time(&mut self, settled: i64) {
        if settled >= self.clock.saturating_sub(SWEEP_EVERY) {
            self.clock = self.clock.max(settled);
            self.behind = 0;
            if self.clock.saturating_sub(self.swept) >= SWEEP_EVERY {
                self.sweep();
            }
            return;
        }
        self.behind += 1;
        if self.behind >= TURNED_BACK {
            (self.clock, self.behind) = (settled, 0);
            self.sweep();
        }
    }

    /// Ends all flows past their time-out.
    pub fn sweep_now(&mut self) {
        if self.times.is_some() {
            self.sweep();
        }
    }

    #[cold]
    fn sweep(&mut self) {
        let now = self.clock;
        self.swept = now;
        self.datagrams.sweep(now, self.timeouts.fragment);
        for queue in Queue::ALL {
            while let Some((slot, idle, timeout)) = self.idlest(queue, now) {
                if idle > timeout {
                    self.end(slot, FlowEnd::Timeout);
                } else if queue != Queue::Stranded && idle < -timeout {
                    self.queues.remove(slot);
                    self.queues.push(slot, Queue::Stranded);
                } else {
                    break;
                }
            }
        }
    }

    /// The least recently used flow of a queue, its idle time in packet time, and its time-out.
    fn idlest(&mut self, queue: Queue, now: i64) -> Option<(u32, i64, i64)> {
        loop {
            let slot = self.queues.front(queue)?;
            let flow = self.flows[slot as usize].as_mut()?;
            if !std::mem::take(&mut flow.used) {
                let idle = now.saturating_sub(flow.last);
                return Some((slot, idle, self.timeouts.of(flow.queue())));
            }
            let queue = flow.queue();
            self.queues.remove(slot);
            self.queues.push(slot, queue);
        }
    }

    /// Evicts one flow: the one whose idle time is the largest fraction of its time-out.
    pub(super) fn evict(&mut self, now: i64) {
        let share = |idle: i64, timeout: i64| {
            let stranded = idle < timeout.saturating_neg();
            if stranded { f64::INFINITY } else { idle as f64 / timeout.max(1) as f64 }
        };
        let mut idlest: Option<(u32, FlowEnd, f64)> = None;
        for queue in Queue::ALL {
            let Some((slot, idle, timeout)) = self.idlest(queue, now) else { continue };
            let share = if queue == Queue::Stranded { f64::INFINITY } else { share(idle, timeout) };
            let end = if idle > timeout { FlowEnd::Timeout } else { FlowEnd::Evicted };
            if idlest.is_none_or(|(.., most)| share > most) {
                idlest = Some((slot, end, share));
            }
        }
        if let Some((slot, end, _)) = idlest {
            self.end(slot, end);
            self.evicted += u64::from(end == FlowEnd::Evicted);
        }
    }
}

impl Timeouts {
    pub(super) fn of(&self, queue: Queue) -> i64 {
        match queue {
            Queue::Closed => self.tcp_closed,
            Queue::Tcp => self.tcp,
            Queue::Other | Queue::Stranded => self.other,
        }
    }
}

fn median([a, b, c]: [i64; 3]) -> i64 {
    a.max(b).min(a.min(b).max(c))
}
