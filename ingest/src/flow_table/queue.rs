//! Eviction queues, one per time-out, with the clock (second-chance) algorithm. A flow used since it
//! entered its queue moves to the back instead of leaving. So a packet only sets a flag, and the
//! search for the least recently used flow takes amortized constant time, for any packet times.

/// No slot.
const NONE: u32 = u32::MAX;

/// A queue of flows with one time-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Queue {
    /// TCP connections that were closed or reset.
    Closed = 0,
    /// What is not TCP.
    Other = 1,
    /// TCP connections that are open.
    Tcp = 2,
    /// Flows whose last packet is further in the future than their time-out. The clock went back
    /// since and may never reach that time.
    Stranded = 3,
}

impl Queue {
    pub(super) const ALL: [Queue; 4] = [Queue::Closed, Queue::Other, Queue::Tcp, Queue::Stranded];
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    behind: u32,
    queue: Queue,
}

/// All queues. A slot is in one of them at most.
#[derive(Debug)]
pub(super) struct Queues {
    links: Vec<Link>,
    /// Head and tail of each queue.
    ends: [(u32, u32); Queue::ALL.len()],
}

impl Queues {
    /// Memory of a flow in its queue, bytes.
    #[cfg(test)]
    pub(super) const BYTES_PER_FLOW: usize = size_of::<Link>();

    pub(super) fn new() -> Self {
        Queues { links: Vec::new(), ends: [(NONE, NONE); Queue::ALL.len()] }
    }

    /// The oldest slot of a queue.
    pub(super) fn front(&self, queue: Queue) -> Option<u32> {
        let (first, _) = self.ends[queue as usize];
        (first != NONE).then_some(first)
    }

    /// The queue a slot is in.
    pub(super) fn of(&self, slot: u32) -> Queue {
        self.links[slot as usize].queue
    }

    /// Appends a slot that is in no queue.
    pub(super) fn push(&mut self, slot: u32, queue: Queue) {
        let (_, last) = self.ends[queue as usize];
        let link = Link { before: last, behind: NONE, queue };
        match self.links.get_mut(slot as usize) {
            Some(place) => *place = link,
            // Slots are numbered without gaps.
            None => self.links.push(link),
        }
        self.join(last, slot, queue);
        self.ends[queue as usize].1 = slot;
    }

    /// Takes a slot out of its queue.
    pub(super) fn remove(&mut self, slot: u32) {
        let Link { before, behind, queue } = self.links[slot as usize];
        self.join(before, behind, queue);
        if behind == NONE {
            self.ends[queue as usize].1 = before;
        }
    }

    /// Links `before` to `behind`. Either may be none.
    fn join(&mut self, before: u32, behind: u32, queue: Queue) {
        match self.links.get_mut(before as usize) {
            Some(link) => link.behind = behind,
            None => self.ends[queue as usize].0 = behind,
        }
        if let Some(link) = self.links.get_mut(behind as usize) {
            link.before = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn queues_keep_their_order(
            steps in proptest::collection::vec((0_u32..12, 0_usize..4), 0..200),
        ) {
            let mut queues = Queues::new();
            let mut expected: [VecDeque<u32>; 4] = Default::default();
            let mut known = 0;
            for (slot, queue) in steps {
                let slot = slot.min(known);
                if slot == known {
                    known += 1;
                } else if expected.iter().any(|slots| slots.contains(&slot)) {
                    prop_assert!(expected[queues.of(slot) as usize].contains(&slot));
                    queues.remove(slot);
                    expected.iter_mut().for_each(|slots| slots.retain(|other| *other != slot));
                }
                queues.push(slot, Queue::ALL[queue]);
                expected[queue].push_back(slot);
                for queue in Queue::ALL {
                    prop_assert_eq!(queues.front(queue), expected[queue as usize].front().copied());
                }
            }
            for queue in Queue::ALL {
                while let Some(slot) = expected[queue as usize].pop_front() {
                    prop_assert_eq!(queues.front(queue), Some(slot));
                    queues.remove(slot);
                }
                prop_assert_eq!(queues.front(queue), None);
            }
        }
    }
}
