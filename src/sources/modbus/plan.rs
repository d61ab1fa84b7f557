//! Which requests read a set of tags. Pure.
//!
//!     extents, sorted:   [0][1]  [4][5]......[90]      blocks:   0..6   90..91
//!
//! Neighbours are read in one request, over gaps that are not larger than allowed. What a device refuses is learned as
//! [`Lessons`]: a cut between two extents, or an extent that is bad and so stands alone. A block that is refused is cut
//! where the largest gap is (the registers between may not exist), else in the middle, until the one that is at fault stands
//! alone; then the cuts in the middle, which were made only to find it, are forgotten.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;

/// The four tables of a device (Modbus Application Protocol V1.1b3, 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    Coil,
    Discrete,
    Input,
    Holding,
}

impl Area {
    pub fn is_bits(self) -> bool {
        matches!(self, Area::Coil | Area::Discrete)
    }

    pub fn is_writable(self) -> bool {
        matches!(self, Area::Coil | Area::Holding)
    }

    pub fn name(self) -> &'static str {
        match self {
            Area::Coil => "coil",
            Area::Discrete => "discrete",
            Area::Input => "input",
            Area::Holding => "holding",
        }
    }
}

/// What one tag, or several that lie in the same registers, take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    pub area: Area,
    pub address: u16,
    pub size: u16,
}

impl Extent {
    /// The first address after it.
    pub fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.size)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub registers: u16,
    pub bits: u16,
    /// Registers that may lie unused between two tags of one request; for bits 16 times as many.
    pub gap: u16,
}

/// What a device has taught by refusing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lessons {
    /// Between the extent before and this one: there is a gap that cannot be read.
    pub gaps: BTreeSet<usize>,
    /// The same, only until the one at fault is found.
    pub trials: BTreeSet<usize>,
    /// Extents that cannot be read.
    pub bad: BTreeSet<usize>,
}

/// One request to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub area: Area,
    pub address: u16,
    pub count: u16,
    /// The extents within it, by their place in the sorted list.
    pub extents: Range<usize>,
}

/// `extents` are sorted and each fits into one request. Bad ones are left out.
pub fn plan(extents: &[Extent], limits: &Limits, lessons: &Lessons) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (index, extent) in extents.iter().enumerate() {
        if lessons.bad.contains(&index) {
            continue;
        }
        let is_cut = lessons.gaps.contains(&index) || lessons.trials.contains(&index);
        let last = blocks.last_mut().filter(|last| !is_cut && last.extents.end == index && last.area == extent.area);
        match last {
            Some(last) if joins(last, extent, limits) => {
                let end = extent.end().max(u32::from(last.address) + u32::from(last.count));
                last.count = (end - u32::from(last.address)) as u16;
                last.extents.end = index + 1;
            }
            _ => blocks.push(alone(extents, index)),
        }
    }
    blocks
}

fn joins(block: &Block, extent: &Extent, limits: &Limits) -> bool {
    let (most, gap) = match extent.area.is_bits() {
        true => (limits.bits, u32::from(limits.gap) * 16),
        false => (limits.registers, limits.gap.into()),
    };
    let start = u32::from(block.address);
    let end = start + u32::from(block.count);
    u32::from(extent.address) <= end + gap && extent.end().max(end) - start <= u32::from(most)
}

/// The request that reads one extent.
pub fn alone(extents: &[Extent], index: usize) -> Block {
    let Extent { area, address, size } = extents[index];
    Block { area, address, count: size, extents: index..index + 1 }
}

/// Learns from a block that was refused. Without a second extent in it, the one is bad.
pub fn learn(extents: &[Extent], block: &Block, lessons: &mut Lessons) {
    let Range { start, end } = block.extents;
    if end - start < 2 {
        lessons.bad.insert(start);
        lessons.trials.clear();
        return;
    }
    let gap = |&index: &usize| {
        let before = extents[start..index].iter().map(Extent::end).max().unwrap_or_default();
        u32::from(extents[index].address).saturating_sub(before)
    };
    match (start + 1..end).max_by_key(gap).filter(|index| gap(index) > 0) {
        Some(index) => lessons.gaps.insert(index),
        None => lessons.trials.insert(start + (end - start) / 2),
    };
}

/// A block anew after [`learn`]: its parts, as they are read now.
pub fn parts(extents: &[Extent], block: &Block, limits: &Limits, lessons: &Lessons) -> Vec<Block> {
    let all = plan(extents, limits, lessons);
    all.into_iter().filter(|part| block.extents.contains(&part.extents.start)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { registers: 125, bits: 2000, gap: 10 };

    fn holding(all: &[(u16, u16)]) -> Vec<Extent> {
        all.iter().map(|&(address, size)| Extent { area: Area::Holding, address, size }).collect()
    }

    fn spans(blocks: &[Block]) -> Vec<(u16, u16)> {
        blocks.iter().map(|block| (block.address, block.count)).collect()
    }

    #[test]
    fn neighbours_are_read_together_and_far_ones_are_not() {
        let extents = holding(&[(0, 1), (1, 2), (1, 4), (12, 1), (90, 2), (102, 1), (114, 1), (200, 30)]);
        let plan = |limits| spans(&plan(&extents, &limits, &Lessons::default()));
        assert_eq!(plan(LIMITS), [(0, 13), (90, 13), (114, 1), (200, 30)]);
        assert_eq!(plan(Limits { gap: 100, ..LIMITS }), [(0, 115), (200, 30)]);
        assert_eq!(plan(Limits { registers: 30, ..LIMITS }), [(0, 13), (90, 25 - 12), (114, 1), (200, 30)]);
        assert_eq!(plan(Limits { gap: 0, ..LIMITS }), [(0, 5), (12, 1), (90, 2), (102, 1), (114, 1), (200, 30)]);
        let mut mixed = extents.clone();
        mixed.insert(0, Extent { area: Area::Coil, address: 0, size: 1 });
        assert_eq!(super::plan(&mixed, &LIMITS, &Lessons::default()).len(), 5, "tables are read apart");
    }

    #[test]
    fn the_last_address_is_reached() {
        let extents = holding(&[(65_400, 1), (65_534, 2)]);
        let plan = plan(&extents, &Limits { gap: 200, registers: 65_535, ..LIMITS }, &Lessons::default());
        assert_eq!(spans(&plan), [(65_400, 136)]);
    }

    /// Reads as a device would that refuses what touches one of `illegal`, until nothing is refused.
    fn settle(extents: &[Extent], illegal: &[u16]) -> (Lessons, Vec<Block>, usize) {
        let mut lessons = Lessons::default();
        for round in 1.. {
            let blocks = plan(extents, &LIMITS, &lessons);
            let is_refused = |block: &&Block| {
                let span = u32::from(block.address)..u32::from(block.address) + u32::from(block.count);
                illegal.iter().any(|&address| span.contains(&address.into()))
            };
            let Some(refused) = blocks.iter().find(is_refused) else { return (lessons, blocks, round) };
            learn(extents, refused, &mut lessons);
        }
        unreachable!("it returns")
    }

    #[test]
    fn only_the_one_at_fault_is_left_out() {
        let extents = holding(&(0..100).map(|address| (address, 1)).collect::<Vec<_>>());
        let (lessons, blocks, rounds) = settle(&extents, &[42]);
        assert_eq!(lessons.bad, [42].into());
        assert_eq!(spans(&blocks), [(0, 42), (43, 57)], "and the others are read together again");
        assert!(rounds < 12, "{rounds}");
    }

    #[test]
    fn a_gap_that_cannot_be_read_is_no_fault_of_its_neighbours() {
        let extents = holding(&[(0, 1), (1, 1), (5, 1), (6, 1)]);
        let (lessons, blocks, _) = settle(&extents, &[3]);
        assert!(lessons.bad.is_empty());
        assert_eq!(spans(&blocks), [(0, 2), (5, 2)]);
    }

    proptest! {
        #[test]
        fn each_extent_is_in_one_block_that_holds_it_and_no_block_is_too_large(
            mut all in prop::collection::vec((0_u16..2000, 1_u16..60), 1..80), gap in 0_u16..50, most in 60_u16..125,
        ) {
            all.sort();
            all.dedup();
            let extents = holding(&all);
            let blocks = plan(&extents, &Limits { registers: most, bits: 2000, gap }, &Lessons::default());
            let covered: Vec<usize> = blocks.iter().flat_map(|block| block.extents.clone()).collect();
            prop_assert_eq!(covered, (0..extents.len()).collect::<Vec<_>>());
            for block in &blocks {
                prop_assert!(block.count <= most);
                for extent in &extents[block.extents.clone()] {
                    prop_assert!(extent.address >= block.address);
                    prop_assert!(extent.end() <= u32::from(block.address) + u32::from(block.count));
                }
            }
        }

        #[test]
        fn what_can_be_read_alone_is_read_in_the_end(
            mut all in prop::collection::vec((0_u16..300, 1_u16..6), 1..60), illegal in prop::collection::vec(0_u16..300, 0..8),
        ) {
            all.sort();
            all.dedup();
            let extents = holding(&all);
            let (lessons, _, rounds) = settle(&extents, &illegal);
            for (index, extent) in extents.iter().enumerate() {
                let touches = illegal.iter().any(|&a| (u32::from(extent.address)..extent.end()).contains(&a.into()));
                prop_assert_eq!(lessons.bad.contains(&index), touches);
            }
            prop_assert!(rounds < 1000);
        }
    }
}
