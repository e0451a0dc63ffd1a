//! A table of bounded size whose keys are never mistaken for those of an earlier entry.

/// A key: what kind of thing (for the one epoll instance and the one timer heap), which slot, and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub kind: Kind,
    index: u32,
    generation: u32,
}

/// What a [`Key`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Tcp = 1,
    Udp = 2,
    Dns = 3,
    Ping = 4,
    Forward = 5,
    Peer = 6,
    Held = 7,
}

const GENERATIONS: u32 = (1 << 24) - 1;

impl Key {
    /// A key of something that is never removed.
    pub fn fixed(kind: Kind, index: usize) -> Key {
        Key { kind, index: index as u32, generation: 0 }
    }

    pub fn index(self) -> usize {
        self.index as usize
    }

    /// As epoll keeps it.
    pub fn to_u64(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub fn from_u64(value: u64) -> Option<Key> {
        let kind = match value >> 56 {
            1 => Kind::Tcp,
            2 => Kind::Udp,
            3 => Kind::Dns,
            4 => Kind::Ping,
            5 => Kind::Forward,
            6 => Kind::Peer,
            7 => Kind::Held,
            _ => return None,
        };
        Some(Key { kind, index: value as u32, generation: (value >> 32) as u32 & GENERATIONS })
    }
}

/// The table.
pub(crate) struct Slab<T> {
    kind: Kind,
    limit: usize,
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    hand: usize,
}

impl<T> Slab<T> {
    pub fn new(kind: Kind, limit: usize) -> Slab<T> {
        Slab { kind, limit, slots: Vec::new(), free: Vec::new(), hand: 0 }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Take a slot for what `make` gives; `None` if the table is full or `make` gives none.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> Option<T>) -> Option<Key> {
        if self.is_full() {
            return None;
        }
        let index = match self.free.last() {
            Some(&index) => index,
            None => u32::try_from(self.slots.len()).ok()?,
        };
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.0);
        let key = Key { kind: self.kind, index, generation };
        let value = make(key)?;
        if self.free.pop().is_none() {
            self.slots.push((0, None));
        }
        self.slots.get_mut(index as usize)?.1 = Some(value);
        Some(key)
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.slots.get(key.index())?;
        if *generation == key.generation { value.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(key.index())?;
        if *generation == key.generation { value.as_mut() } else { None }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, value) = self.slots.get_mut(key.index())?;
        if *generation != key.generation {
            return None;
        }
        let value = value.take()?;
        *generation = (*generation + 1) & GENERATIONS;
        self.free.push(key.index);
        Some(value)
    }

    /// The key of what is in a slot.
    pub fn key_at(&self, index: usize) -> Option<Key> {
        let (generation, value) = self.slots.get(index)?;
        value.as_ref()?;
        Some(Key { kind: self.kind, index: u32::try_from(index).ok()?, generation: *generation })
    }

    /// The first entry that fits. Only for small tables.
    pub fn find(&self, fits: impl Fn(&T) -> bool) -> Option<Key> {
        let found = |(index, (generation, value)): (usize, &(u32, Option<T>))| {
            let value = value.as_ref()?;
            fits(value).then_some(Key { kind: self.kind, index: index as u32, generation: *generation })
        };
        self.slots.iter().enumerate().find_map(found)
    }

    /// Of the next few entries, the one with the smallest `rank`: a victim at constant cost.
    pub fn sample_min<R: Ord>(&mut self, rank: impl Fn(&T) -> R) -> Option<Key> {
        let mut best: Option<(R, Key)> = None;
        for _ in 0..self.slots.len().min(8) {
            self.hand = (self.hand + 1) % self.slots.len();
            let Some((generation, Some(value))) = self.slots.get(self.hand) else { continue };
            let rank = rank(value);
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, Key { kind: self.kind, index: self.hand as u32, generation: *generation }));
            }
        }
        best.map(|(_, key)| key)
    }
}

#[cfg(test)]
#[path = "slab_tests.rs"]
mod tests;
