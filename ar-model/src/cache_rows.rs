//! Some rows of a KV cache of the libtorch backend, each at its own position, and the parts in which
//! they attend.
//!
//! R rows, S new positions of each, T prefix length, L positions attended to

use tch::{Device, Tensor};

/// Indices into an axis, which are a view where they are consecutive.
#[derive(Debug)]
pub(crate) struct Selection {
    index: Tensor,           // int64 on the device
    run: Option<(i64, i64)>, // first and number, if consecutive
}

impl Selection {
    pub fn new(indices: &[i64], device: Device) -> Self {
        let consecutive = indices.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let run = indices.first().filter(|_| consecutive).map(|&first| (first, indices.len() as i64));
        Selection { index: Tensor::from_slice(indices).to_device(device), run }
    }

    /// These entries of the first axis.
    pub fn of(&self, t: &Tensor) -> Tensor {
        match self.run {
            Some((first, count)) => t.narrow(0, first, count),
            None => t.index_select(0, &self.index),
        }
    }
}

/// Rows that attend together.
#[derive(Debug)]
pub(crate) struct Group {
    /// Their numbers among the R rows.
    pub members: Selection,
    /// Their rows of the cache.
    pub rows: Selection,
    /// Positions of the cache that are read.
    pub length: i64,
    /// Allowed (query, key) pairs, broadcastable to (members, H, S, length); `None`: all.
    pub mask: Option<Tensor>,
}

impl Group {
    /// Keys or values of the cache, (B, H, L, K) → (members, H, length, K). Copies are as wide as
    /// the cache's own, in multiples of 8 positions: products of matrices may round differently
    /// with the alignment of memory.
    pub fn read(&self, cache: &Tensor) -> Tensor {
        let whole = (self.length + 7) / 8 * 8;
        self.rows.of(&cache.narrow(2, 0, whole)).narrow(2, 0, self.length)
    }
}

/// Rows of a cache with their groups, which together hold all of them.
#[derive(Debug)]
pub(crate) struct CacheRows {
    rows: Selection,
    /// Rows that attend together.
    pub groups: Vec<Group>,
}

impl CacheRows {
    pub fn new(rows: &[i64], groups: Vec<Group>, device: Device) -> Self {
        CacheRows { rows: Selection::new(rows, device), groups }
    }

    /// Rows of the cache, (R) int64.
    pub fn index(&self) -> &Tensor {
        &self.rows.index
    }

    /// The entries of these rows.
    pub fn select(&self, of: &Tensor) -> Tensor {
        self.rows.of(of)
    }

    /// Attends in groups: queries (R, H, S, K), and the cache's keys and values (B, G, L, K) →
    /// (R, H, S, K). `attend` takes queries, keys, values and mask of a group.
    pub fn attend(
        &self,
        q: &Tensor,
        [keys, values]: [&Tensor; 2],
        attend: impl Fn(&Tensor, Tensor, Tensor, Option<&Tensor>) -> Tensor,
    ) -> Tensor {
        let of = |group: &Group| {
            let (k, v) = (group.read(keys), group.read(values));
            attend(&group.members.of(q), k, v, group.mask.as_ref())
        };
        if let [all] = &self.groups[..]
            && all.members.run == Some((0, q.size()[0]))
        {
            return of(all);
        }
        let mut out = Tensor::zeros(q.size(), (q.kind(), q.device()));
        for group in &self.groups {
            let _ = out.index_copy_(0, &group.members.index, &of(group));
        }
        out
    }
}
