//! How many segments are opened before they are needed. In a bucket each read of a segment waits for several
//! requests, one after the other, so that the reads of many segments have to overlap. In a folder one segment ahead
//! is enough. A pure decision.

/// Segments opened ahead at most.
const MOST: usize = 32;

/// Segments opened ahead before it is known how much memory one takes.
const AT_FIRST: usize = 8;

/// See the module.
#[derive(Debug, Clone)]
pub struct Ahead {
    depth: usize,
    most: usize,
    /// Memory that the segments opened ahead may take together, bytes.
    budget: usize,
}

impl Ahead {
    /// For a store whose requests take time or not, with a memory budget in bytes.
    pub fn new(is_remote: bool, budget: usize) -> Ahead {
        if is_remote { Ahead::remote(budget) } else { Ahead { depth: 1, most: 1, budget } }
    }

    fn remote(budget: usize) -> Ahead {
        Ahead { depth: AT_FIRST, most: MOST, budget }
    }

    /// Segments to open ahead now; at least one.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Adapts to the memory that an opened segment takes, bytes. The depth shrinks at once and grows step by step, as
    /// the next segments may take more.
    pub fn opened(&mut self, bytes: usize) {
        let fits = (self.budget / bytes.max(1)).clamp(1, self.most);
        self.depth = fits.min(self.depth.saturating_mul(2));
    }

    /// From now on one segment at a time: there is not enough memory.
    pub fn limit_to_one(&mut self) {
        (self.depth, self.most) = (1, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_follows_what_segments_take() {
        let mut ahead = Ahead::remote(1_000);
        assert_eq!(ahead.depth(), AT_FIRST);
        ahead.opened(0);
        ahead.opened(10);
        assert_eq!(ahead.depth(), MOST);
        ahead.opened(10);
        assert_eq!(ahead.depth(), MOST);
        ahead.opened(400);
        assert_eq!(ahead.depth(), 2);
        ahead.opened(usize::MAX);
        assert_eq!(ahead.depth(), 1);
        ahead.limit_to_one();
        ahead.opened(1);
        assert_eq!(ahead.depth(), 1);
    }
}
