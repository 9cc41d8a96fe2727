//! Many rows of a table in one system call: the batch commands of bpf(2), which aya does not have.
#![expect(
    unsafe_code,
    reason = "aya has no batch commands; the kernel reads and writes slices of rows by their address"
)]

use std::ffi::{c_int, c_long};
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use aya::Pod;
use aya::maps::{MapData, MapError};
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Rows of one call: enough that the call itself costs nothing, few enough to stay in the cache.
pub(super) const CHUNK: usize = 4096;

/// A map with keys `K` and values `V`.
#[derive(Debug)]
pub(super) struct Batch<K, V> {
    fd: OwnedFd,
    rows: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Batch<K, V> {
    /// A map that has one value to a key: none of the per-CPU ones.
    pub(super) fn new(map: &MapData) -> Result<Self, MapError> {
        let info = map.info()?;
        let (size, expected) = (size_of::<K>(), info.key_size() as usize);
        if size != expected {
            return Err(MapError::InvalidKeySize { size, expected });
        }
        let (size, expected) = (size_of::<V>(), info.value_size() as usize);
        if size != expected {
            return Err(MapError::InvalidValueSize { size, expected });
        }
        let fd = map.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { fd, rows: PhantomData })
    }

    /// Writes rows. Returns how many went in, the first ones; fewer than given where the kernel stopped, whatever the
    /// reason: it says so when asked for the next one alone.
    pub(super) fn update(&self, keys: &[K], values: &[V]) -> usize {
        let count = keys.len().min(values.len());
        self.change(bpf_cmd::BPF_MAP_UPDATE_BATCH, &keys[..count], values.as_ptr())
    }

    /// Deletes rows. Returns how many, the first ones; the kernel stops at one that is not there.
    pub(super) fn delete(&self, keys: &[K]) -> usize {
        self.change(bpf_cmd::BPF_MAP_DELETE_BATCH, keys, ptr::null())
    }

    fn change(&self, command: bpf_cmd, keys: &[K], values: *const V) -> usize {
        if keys.is_empty() {
            return 0;
        }
        let mut attr = self.attr(keys.len());
        attr.batch.keys = keys.as_ptr() as u64;
        attr.batch.values = values as u64;
        // SAFETY: `keys` is as long as the count says and each of them as large as the kernel takes it to be (`new`);
        // `values`, where the command reads it, is as long by `update`. Neither is written to.
        let (result, count) = unsafe { call(command, &mut attr) };
        match result {
            Ok(()) => keys.len(),
            // Linux before 6.8 leaves the count alone when it refuses at once.
            Err(_) if count >= keys.len() => 0,
            Err(_) => count,
        }
    }

    fn attr(&self, count: usize) -> bpf_attr {
        // SAFETY: a union of integers, for which zeros are a value; the kernel wants what is not used to be zero.
        let mut attr: bpf_attr = unsafe { mem::zeroed() };
        attr.batch.map_fd = self.fd.as_raw_fd().cast_unsigned();
        attr.batch.count = u32::try_from(count).unwrap_or(u32::MAX);
        attr
    }
}

impl<K: Pod + Default, V: Pod + Default> Batch<K, V> {
    /// The rows of a hash or an array that are to be kept, in no order; of a hash whose keys nobody deletes meanwhile, each
    /// once.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) fn rows(&self, keep: impl Fn(&V) -> bool) -> io::Result<Vec<(K, V)>> {
        let mut rows = Vec::new();
        let (mut keys, mut values) = (vec![K::default(); CHUNK], vec![V::default(); CHUNK]);
        let mut from = None;
        // Each call goes on behind the buckets of the one before it, or has more room.
        loop {
            let (result, next, count) = self.lookup(from, &mut keys, &mut values);
            let read = keys.iter().copied().zip(values.iter().copied()).take(count);
            rows.extend(read.filter(|(_, value)| keep(value)));
            match result.map_err(|error| error.raw_os_error()) {
                Ok(()) => from = Some(next),
                Err(Some(libc::ENOENT)) => return Ok(rows),
                // A bucket is longer than there is room for.
                Err(Some(libc::ENOSPC)) => {
                    keys.resize(keys.len() * 2, K::default());
                    values.resize(values.len() * 2, V::default());
                }
                Err(errno) => return Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
            }
        }
    }

    /// Rows of an array, so many from one on.
    ///
    /// # Errors
    /// The kernel refused, or there are not so many.
    pub(super) fn range(&self, first: u32, count: u32) -> io::Result<Vec<V>> {
        let count = count as usize;
        let (mut keys, mut values) = (vec![K::default(); count], vec![V::default(); count]);
        // An array goes on behind the row that it is told.
        let (result, _, read) = self.lookup(first.checked_sub(1), &mut keys, &mut values);
        match result {
            // Past the last.
            Err(error) if read < count => Err(error),
            _ => Ok(values),
        }
    }

    /// Rows of the buckets from `from` on, `None` for all, as many as there is room for. Returns the bucket behind them, and
    /// the number of rows; `ENOENT` says that these are the last.
    fn lookup(&self, from: Option<u32>, keys: &mut [K], values: &mut [V]) -> (io::Result<()>, u32, usize) {
        let (start, mut next) = (from.unwrap_or_default(), 0_u32);
        let room = keys.len().min(values.len());
        let mut attr = self.attr(room);
        attr.batch.in_batch = from.map_or(0, |_| ptr::from_ref(&start) as u64);
        attr.batch.out_batch = ptr::from_mut(&mut next) as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        // SAFETY: both slices have room for what the count says, in keys and values as large as the kernel takes them to be
        // (`new`); the position in a hash or array is 32 bits; any bytes make a `Pod`.
        let (result, count) = unsafe { call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
        let count = match &result {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => 0,
            _ => count.min(room),
        };
        (result, next, count)
    }
}

/// One batch command, and the count the kernel leaves.
///
/// # Safety
/// The addresses in `attr` are good for what the command reads and writes.
unsafe fn call(command: bpf_cmd, attr: &mut bpf_attr) -> (io::Result<()>, usize) {
    // SAFETY: `attr` is what bpf(2) wants, with its size; what it refers to is the caller's.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as c_int, ptr::from_mut(attr), size_of::<bpf_attr>() as c_long)
    };
    let result = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the field of the union that was written above.
    let count = unsafe { attr.batch.count };
    (result, count as usize)
}
