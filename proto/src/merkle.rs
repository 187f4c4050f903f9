//! The RFC 6962 Merkle tree: leaf and node hashes, root, inclusion path.
//!
//! Knows SHA-256 and the shape of the tree. Never knows what a leaf means: statements in a batch and entries of a log use the same
//! hashing. Invariants: a path is accepted only at its exact length, so no two (index, n, path) triples name the same proof.
use aws_lc_rs::digest;

/// A leaf or node hash, or a root: SHA-256.
pub type Hash = [u8; 32];

/// The hash of a leaf: `SHA-256(0x00 || data)` (RFC 6962 §2.1).
pub fn leaf(data: &[u8]) -> Hash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[0x00]);
    context.update(data);
    hash(context.finish())
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut pair = [0x01; 65];
    let (first, second) = pair[1..].split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    hash(digest::digest(&digest::SHA256, &pair))
}

/// The root over `leaves`; over none it is the SHA-256 of nothing, as RFC 6962 has it.
pub fn root(leaves: &[Hash]) -> Hash {
    Tree::new(leaves.to_vec()).root()
}

/// The inclusion path of the leaf at `index`, its sibling first. Empty when there is no such leaf.
pub fn path(leaves: &[Hash], index: usize) -> Vec<Hash> {
    Tree::new(leaves.to_vec()).path(index)
}

/// A whole tree in memory, for as many paths as there are leaves without hashing anything twice.
///
/// RFC 6962 splits at the largest power of two below n. Built from below, that is: pair neighbours, and pass a last one that has no
/// neighbour up unchanged.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The leaves first, the root's level last; empty only when there are no leaves.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Hashes the tree over `leaves`.
    pub fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = Vec::new();
        let mut level = leaves;
        while level.len() > 1 {
            let above = level
                .chunks(2)
                .filter_map(|pair| match pair {
                    [left, right] => Some(node(left, right)),
                    [alone] => Some(*alone),
                    _ => None,
                })
                .collect();
            levels.push(level);
            level = above;
        }
        levels.push(level);
        Self { levels }
    }

    /// The root.
    pub fn root(&self) -> Hash {
        self.levels
            .last()
            .and_then(|top| top.first())
            .copied()
            .unwrap_or_else(|| hash(digest::digest(&digest::SHA256, &[])))
    }

    /// The inclusion path of the leaf at `index`, its sibling first. Empty when there is no such leaf.
    pub fn path(&self, index: usize) -> Vec<Hash> {
        if self.levels.first().is_none_or(|leaves| index >= leaves.len()) {
            return Vec::new();
        }
        self.levels.iter().enumerate().filter_map(|(height, level)| level.get((index >> height) ^ 1)).copied().collect()
    }
}

/// How many hashes the inclusion path of leaf `index` in a tree of `n` leaves has; `None` when there is no such leaf.
pub fn path_len(index: u64, n: u64) -> Option<usize> {
    let mut length = 0;
    climb(index, n, |_| length += 1)?;
    Some(length)
}

/// The root to which `path` leads from `leaf` at `index` of `n` (RFC 9162 §2.1.3.2); `None` when there is no such leaf or the path
/// is not exactly as long as that place asks for.
pub fn root_from_path(leaf: &Hash, index: u64, n: u64, path: &[Hash]) -> Option<Hash> {
    if path_len(index, n)? != path.len() {
        return None;
    }
    let mut hash = *leaf;
    let mut siblings = path.iter();
    climb(index, n, |side| {
        if let Some(sibling) = siblings.next() {
            hash = match side {
                Side::Left => node(sibling, &hash),
                Side::Right => node(&hash, sibling),
            };
        }
    })?;
    Some(hash)
}

/// Where the sibling stands.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Goes from a leaf to the root and names the side of each sibling on the way. A last node without a neighbour has no sibling there.
fn climb(index: u64, n: u64, mut sibling: impl FnMut(Side)) -> Option<()> {
    let mut last = n.checked_sub(1)?;
    let mut here = index;
    if here > last {
        return None;
    }
    while last > 0 {
        if here & 1 == 1 {
            sibling(Side::Left);
        } else if here < last {
            sibling(Side::Right);
        }
        here >>= 1;
        last >>= 1;
    }
    Some(())
}

fn hash(digest: digest::Digest) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf(format!("leaf {i}").as_bytes())).collect()
    }

    /// RFC 6962 §2.1 as it is written: split at the largest power of two below n.
    fn root_by_the_book(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => hash(digest::digest(&digest::SHA256, &[])),
            [one] => *one,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node(&root_by_the_book(&leaves[..split]), &root_by_the_book(&leaves[split..]))
            }
        }
    }

    /// RFC 6962 §2.1.1 as it is written.
    fn path_by_the_book(leaves: &[Hash], index: usize) -> Vec<Hash> {
        if leaves.len() < 2 {
            return vec![];
        }
        let split = leaves.len().next_power_of_two() / 2;
        let (mut path, other) = if index < split {
            (path_by_the_book(&leaves[..split], index), root_by_the_book(&leaves[split..]))
        } else {
            (path_by_the_book(&leaves[split..], index - split), root_by_the_book(&leaves[..split]))
        };
        path.push(other);
        path
    }

    #[test]
    fn roots_and_paths_are_those_of_rfc_6962() {
        for n in 0..=130 {
            let leaves = leaves(n);
            let tree = Tree::new(leaves.clone());
            assert_eq!(tree.root(), root_by_the_book(&leaves), "n={n}");
            assert_eq!(root(&leaves), tree.root());
            for index in 0..n {
                let path = tree.path(index);
                assert_eq!(path, path_by_the_book(&leaves, index), "n={n} index={index}");
                assert_eq!(path_len(index as u64, n as u64), Some(path.len()));
                assert_eq!(root_from_path(&leaves[index], index as u64, n as u64, &path), Some(tree.root()));
            }
            assert_eq!(tree.path(n), Vec::<Hash>::new());
            assert_eq!(path_len(n as u64, n as u64), None);
            assert_eq!(root_from_path(&[0; 32], n as u64, n as u64, &[]), None);
        }
    }

    #[test]
    fn a_path_of_another_length_leads_nowhere() {
        let leaves = leaves(5);
        let mut path = path(&leaves, 1);
        path.push([7; 32]);
        assert_eq!(root_from_path(&leaves[1], 1, 5, &path), None);
        path.truncate(2);
        assert_eq!(root_from_path(&leaves[1], 1, 5, &path), None);
    }

    #[test]
    fn a_leaf_is_never_a_node() {
        let pair = leaves(2);
        let joined = [pair[0], pair[1]].concat();
        assert_ne!(leaf(&joined), node(&pair[0], &pair[1]));
    }

    proptest! {
        #[test]
        fn a_changed_path_leaf_or_index_leads_to_another_root(n in 2_usize..64, index in 0_usize..64, bit in 0_usize..256, place in 0_usize..6) {
            let leaves = leaves(n);
            let index = index % n;
            let whole = root(&leaves);
            let mut path = path(&leaves, index);
            let place = place % path.len();
            path[place][bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(root_from_path(&leaves[index], index as u64, n as u64, &path), Some(whole));
            path[place][bit / 8] ^= 1 << (bit % 8);
            let mut other = leaves[index];
            other[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(root_from_path(&other, index as u64, n as u64, &path), Some(whole));
            let elsewhere = (index + 1) % n;
            prop_assert_ne!(root_from_path(&leaves[index], elsewhere as u64, n as u64, &path), Some(whole));
        }

        #[test]
        fn no_numbers_break_it(index: u64, n: u64, path in prop::collection::vec(any::<[u8; 32]>(), 0..70)) {
            let _ = path_len(index, n);
            let _ = root_from_path(&[1; 32], index, n, &path);
        }
    }
}
