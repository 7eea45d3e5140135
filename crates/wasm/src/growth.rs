//! `Growth`: how far memory and tables of one instance may grow. What is refused is counted; the guest learns of it by
//! -1, and mostly traps.

use std::sync::Arc;

use wasmtime::{ResourceLimiter, StoreLimits};

use crate::generation::Generation;
use crate::limits::Bound;

/// The bounds of one instance.
pub(crate) struct Growth {
    pub(crate) limits: StoreLimits,
    pub(crate) generation: Arc<Generation>,
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, now: usize, wanted: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        let may = self.limits.memory_growing(now, wanted, most)?;
        if !may {
            self.generation.metrics.beyond(Bound::Memory);
        }
        Ok(may)
    }

    fn table_growing(&mut self, now: usize, wanted: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        let may = self.limits.table_growing(now, wanted, most)?;
        if !may {
            self.generation.metrics.beyond(Bound::Table);
        }
        Ok(may)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}
