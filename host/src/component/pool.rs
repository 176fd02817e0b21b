//! The engine for many guests at once, each with a store of its own.

use crate::component::engine::{one_line, tick_epoch};
use crate::grant::guest_limits::GuestLimits;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, UpdateDeadline,
};

/// An engine, with the pooling allocator if the machine has the address space for it, and a
/// thread that advances its epoch for as long as it lives.
pub(crate) fn pooled_engine(limits: &GuestLimits) -> wasmtime::Result<Engine> {
    let engine = Engine::new(&config(limits, true)).or_else(|error| {
        tracing::warn!(error = one_line(&error), "no pooling of guest memories");
        Engine::new(&config(limits, false))
    })?;
    tick_epoch(&engine)?;
    Ok(engine)
}

/// Core instances, memories and tables that one component may be made of.
const CORE_PARTS_MAX: u32 = 16;

/// Room for this many memories in each instance. A component usually has one, and a composed one
/// has one for each part. A memory costs 4 GiB of addresses.
const MEMORIES_USUAL: u32 = 4;

fn config(limits: &GuestLimits, pooling: bool) -> Config {
    let mut config = Config::new();
    config.wasm_component_model_async(true);
    config.epoch_interruption(true);
    if pooling {
        let mut pool = PoolingAllocationConfig::new();
        let each = |parts: u32| limits.instances_max.saturating_mul(parts);
        pool.total_component_instances(limits.instances_max)
            .total_core_instances(each(CORE_PARTS_MAX))
            .total_memories(each(MEMORIES_USUAL))
            // One of its own, and one for what it imports.
            .total_tables(each(2 * MEMORIES_USUAL))
            .total_stacks(limits.instances_max.saturating_mul(2))
            .max_core_instances_per_component(CORE_PARTS_MAX)
            .max_memories_per_component(CORE_PARTS_MAX)
            .max_tables_per_component(CORE_PARTS_MAX)
            .max_memory_size(limits.memory_bytes_max)
            .table_elements(limits.table_elements_max);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Bounds a store's guest, except its memories. The epoch makes a computing guest yield; its caller
/// then decides by its time whether it goes on.
pub(crate) fn bound<T>(store: &mut Store<T>, limits: &GuestLimits) {
    store.set_hostcall_fuel(limits.hostcall_bytes_max);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(limits.handles_max);
    }
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
    store.set_epoch_deadline(1);
}
