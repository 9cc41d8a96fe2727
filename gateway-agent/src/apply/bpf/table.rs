//! A hash or an array of the pinned tables: read and written in batches, and row by row where the kernel stops at one.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError};

use super::BpfError;
use super::batch::{Batch, CHUNK};

/// A hash.
pub(super) struct Table<K, V> {
    name: &'static str,
    /// `None` where it cannot be had.
    batch: Option<Batch<K, V>>,
    single: HashMap<MapData, K, V>,
}

impl<K: Pod + Ord + Default, V: Pod + Default> Table<K, V> {
    /// The hash of this name.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, BpfError> {
        let batch = if let Map::HashMap(data) = &map { Batch::new(data).ok() } else { None };
        Ok(Self { name, batch, single: HashMap::try_from(map).map_err(BpfError::map(name))? })
    }

    /// All rows.
    pub(super) fn read(&self) -> Result<BTreeMap<K, V>, BpfError> {
        if let Some(Ok(rows)) = self.batch.as_ref().map(|batch| batch.rows(|_| true)) {
            return Ok(rows.into_iter().collect());
        }
        self.single.iter().collect::<Result<_, _>>().map_err(BpfError::map(self.name))
    }

    /// Writes rows, in their order. At an error, those before it are written.
    pub(super) fn put(&mut self, rows: impl Iterator<Item = (K, V)>) -> Result<(), BpfError> {
        let Self { name, batch, single } = self;
        put(batch.as_ref(), rows, |key, value| single.insert(key, value, 0).map_err(BpfError::map(name)))
    }

    /// Deletes rows, in their order. One that is not there is fine.
    pub(super) fn delete(&mut self, keys: impl Iterator<Item = K>) -> Result<(), BpfError> {
        let keys: Vec<K> = keys.collect();
        for keys in keys.chunks(CHUNK) {
            let done = self.batch.as_ref().map_or(0, |batch| batch.delete(keys));
            for key in keys.iter().skip(done) {
                absent_is_fine(self.single.remove(key)).map_err(BpfError::map(self.name))?;
            }
        }
        Ok(())
    }
}

/// An array. As a table it is those of its rows that are not the default.
pub(super) struct Indexed<V: Pod> {
    name: &'static str,
    /// `None` where it cannot be had.
    batch: Option<Batch<u32, V>>,
    single: Array<MapData, V>,
}

impl<V: Pod + Default + PartialEq> Indexed<V> {
    /// The array of this name.
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, BpfError> {
        let batch = if let Map::Array(data) = &map { Batch::new(data).ok() } else { None };
        Ok(Self { name, batch, single: Array::try_from(map).map_err(BpfError::map(name))? })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> u32 {
        self.single.len()
    }

    /// So many rows from one on.
    pub(super) fn range(&self, first: u32, count: u32) -> Result<Vec<V>, BpfError> {
        if let Some(Ok(rows)) = self.batch.as_ref().map(|batch| batch.range(first, count)) {
            return Ok(rows);
        }
        let rows = (first..).zip(0..count).map(|(row, _)| self.single.get(&row, 0));
        rows.collect::<Result<_, _>>().map_err(BpfError::map(self.name))
    }

    /// All rows that hold something.
    pub(super) fn read(&self) -> Result<BTreeMap<u32, V>, BpfError> {
        let holds_something = |row: &V| *row != V::default();
        if let Some(Ok(rows)) = self.batch.as_ref().map(|batch| batch.rows(holds_something)) {
            return Ok(rows.into_iter().collect());
        }
        let rows = (0..self.single.len()).map(|key| Ok((key, self.single.get(&key, 0)?)));
        let kept = rows
            .filter(|row: &Result<_, MapError>| row.as_ref().map_or(true, |(_, row)| holds_something(row)));
        kept.collect::<Result<_, _>>().map_err(BpfError::map(self.name))
    }

    /// Writes rows, in their order. At an error, those before it are written.
    pub(super) fn put(&mut self, rows: impl Iterator<Item = (u32, V)>) -> Result<(), BpfError> {
        let Self { name, batch, single } = self;
        put(batch.as_ref(), rows, |key, value| single.set(*key, value, 0).map_err(BpfError::map(name)))
    }
}

/// Writes rows in batches; `single` those of a batch at which the kernel stopped.
fn put<K: Pod, V: Pod>(
    batch: Option<&Batch<K, V>>,
    rows: impl Iterator<Item = (K, V)>,
    mut single: impl FnMut(&K, &V) -> Result<(), BpfError>,
) -> Result<(), BpfError> {
    let (mut keys, mut values) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    let mut rows = rows.fuse();
    loop {
        keys.clear();
        values.clear();
        for (key, value) in rows.by_ref().take(CHUNK) {
            keys.push(key);
            values.push(value);
        }
        if keys.is_empty() {
            return Ok(());
        }
        let done = batch.map_or(0, |batch| batch.update(&keys, &values));
        for (key, value) in keys.iter().zip(&values).skip(done) {
            single(key, value)?;
        }
    }
}

/// Of a deletion.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
