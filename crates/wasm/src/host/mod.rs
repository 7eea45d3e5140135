//! The functions that modules import. Each works on the store's `State` and answers with a proxy-wasm status.
//!
//! Guest memory is touched only through the bounds-checked helpers here; nothing calls the guest but its allocator.

mod body;
mod calls;
mod control;
mod foreign;
mod header;
mod link;
mod log;
mod property;
mod shared;
mod stat;
mod wasi;

use wasmtime::{AsContext, AsContextMut, Caller};

pub(crate) use calls::trailer_count;
pub(crate) use link::linker;
pub(crate) use wasi::flush as flush_lines;

use crate::state::State;

/// A guest's call to the host.
pub(crate) type Guest<'a> = Caller<'a, State>;

/// Proxy-wasm's status codes that the host answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    NotFound = 1,
    BadArgument = 2,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
    Unimplemented = 12,
    /// Statuses that only gRPC and properties use.
    SerializationFailure = 3,
    ParseFailure = 4,
}

/// Why a host call did not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The guest is told.
    Status(Status),
    /// The guest's allocator trapped: so does the call.
    Trap(wasmtime::Error),
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The module called `proc_exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exited(pub(crate) u32);

impl std::fmt::Display for Exited {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the module ended itself with code {}", self.0)
    }
}

impl std::error::Error for Exited {}

/// What a host function returns.
pub(crate) type Outcome = Result<(), Fault>;

/// The answer as the guest gets it.
pub(crate) fn answer(outcome: Outcome) -> wasmtime::Result<u32> {
    match outcome {
        Ok(()) => Ok(0),
        Err(Fault::Status(status)) => Ok(status as u32),
        Err(Fault::Trap(trap)) => Err(trap),
    }
}

/// Bytes of the guest's memory.
pub(crate) fn slice<'g>(guest: &'g Guest<'_>, at: u32, length: u32) -> Result<&'g [u8], Status> {
    let memory = guest.data().memory.ok_or(Status::InvalidMemoryAccess)?;
    piece(memory.data(guest.as_context()), at, length)
}

/// The guest's memory and what the host keeps for it, both at once.
pub(crate) fn parts<'g>(guest: &'g mut Guest<'_>) -> Result<(&'g mut [u8], &'g mut State), Status> {
    let memory = guest.data().memory.ok_or(Status::InvalidMemoryAccess)?;
    Ok(memory.data_and_store_mut(guest.as_context_mut()))
}

/// `length` bytes of `memory` from `at` on.
pub(crate) fn piece(memory: &[u8], at: u32, length: u32) -> Result<&[u8], Status> {
    let start = usize::try_from(at).map_err(|_| Status::InvalidMemoryAccess)?;
    let length = usize::try_from(length).map_err(|_| Status::InvalidMemoryAccess)?;
    let end = start.checked_add(length).ok_or(Status::InvalidMemoryAccess)?;
    memory.get(start..end).ok_or(Status::InvalidMemoryAccess)
}

fn put(memory: &mut [u8], at: u32, bytes: &[u8]) -> Result<(), Status> {
    let start = usize::try_from(at).map_err(|_| Status::InvalidMemoryAccess)?;
    let end = start
        .checked_add(bytes.len())
        .ok_or(Status::InvalidMemoryAccess)?;
    let place = memory.get_mut(start..end);
    place.ok_or(Status::InvalidMemoryAccess)?.copy_from_slice(bytes);
    Ok(())
}

/// A copy of bytes of the guest's memory.
pub(crate) fn read(guest: &Guest<'_>, at: u32, length: u32) -> Result<Vec<u8>, Status> {
    slice(guest, at, length).map(<[u8]>::to_vec)
}

/// The same as text; what is not UTF-8 is replaced.
pub(crate) fn read_text(guest: &Guest<'_>, at: u32, length: u32) -> Result<String, Status> {
    slice(guest, at, length).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Overwrites bytes of the guest's memory.
pub(crate) fn write(guest: &mut Guest<'_>, at: u32, bytes: &[u8]) -> Result<(), Status> {
    put(parts(guest)?.0, at, bytes)
}

pub(crate) fn write_u32(guest: &mut Guest<'_>, at: u32, value: u32) -> Result<(), Status> {
    write(guest, at, &value.to_le_bytes())
}

pub(crate) fn write_u64(guest: &mut Guest<'_>, at: u32, value: u64) -> Result<(), Status> {
    write(guest, at, &value.to_le_bytes())
}

/// Hands bytes over in a block of the guest's own: its address and length go to `to` and `size_to`. For no bytes the
/// allocator is not asked: Go's panics on 0.
pub(crate) fn give(guest: &mut Guest<'_>, bytes: &[u8], to: u32, size_to: u32) -> Outcome {
    let mut address = 0;
    if !bytes.is_empty() {
        let length = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
        // Lying out-pointers are found before the guest allocates.
        let (memory, state) = parts(guest)?;
        piece(memory, to, 4)?;
        piece(memory, size_to, 4)?;
        let allocate = state.allocate.clone().ok_or(Status::InvalidMemoryAccess)?;
        address = allocate
            .call(guest.as_context_mut(), length)
            .map_err(Fault::Trap)?;
        if address == 0 {
            return Err(Status::InvalidMemoryAccess.into());
        }
    }
    let (memory, _) = parts(guest)?;
    put(memory, address, bytes)?;
    put(memory, to, &address.to_le_bytes())?;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Ok(put(memory, size_to, &length.to_le_bytes())?)
}
