//! The table of importable functions, by name: modules import some twice, so position says nothing.

use wasmtime::{Engine, ExternType, FuncType, Linker, Module, Val};

use super::{Guest, Status, answer};
use super::{body, calls, control, foreign, header, log, property, shared, stat, wasi};
use crate::state::State;

const WASI: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// Everything that `module` may import.
///
/// # Errors
/// When a function cannot be defined.
pub(crate) fn linker(engine: &Engine, module: &Module) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    // A module that imports a name twice is linked twice to the same.
    linker.allow_shadowing(true);
    define(&mut linker)?;
    define_typed(&mut linker, module)?;
    Ok(linker)
}

/// One `env.proxy_*` function: its name, its parameters, and what answers.
macro_rules! proxy {
    ($linker:ident, $($name:literal ($guest:ident $(, $parameter:ident: $type:ty)*) => $body:expr;)+) => {
        $($linker.func_wrap("env", concat!("proxy_", $name), |mut guest: Guest<'_>, $($parameter: $type),*| {
            let $guest = &mut guest;
            only_running($guest, $name).and_then(|()| answer($body))
        })?;)+
    };
}

/// While a module is loaded only logging is possible.
fn only_running(guest: &Guest<'_>, name: &str) -> wasmtime::Result<()> {
    if guest.data().stage == crate::state::Stage::Loading && name != "log" {
        return Err(wasmtime::Error::msg(format!(
            "proxy_{name} was called before the module had started"
        )));
    }
    Ok(())
}

fn define(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    define_headers(linker)?;
    define_flow(linker)?;
    define_calls(linker)?;
    define_shared(linker)?;
    define_toolchains(linker)?;
    for module in WASI {
        define_wasi(linker, module)?;
    }
    Ok(())
}

fn define_headers(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    proxy! { linker,
        "get_header_map_value"(guest, map: u32, key: u32, size: u32, to: u32, size_to: u32) => header::get(guest, map, key, size, to, size_to);
        "get_header_map_pairs"(guest, map: u32, to: u32, size_to: u32) => header::pairs(guest, map, to, size_to);
        "get_header_map_size"(guest, map: u32, to: u32) => header::size(guest, map, to);
        "set_header_map_pairs"(guest, map: u32, at: u32, size: u32) => header::set_pairs(guest, map, at, size);
        "add_header_map_value"(guest, map: u32, key: u32, key_size: u32, value: u32, size: u32) => header::edit(guest, header::Edit::Add, map, (key, key_size), (value, size));
        "replace_header_map_value"(guest, map: u32, key: u32, key_size: u32, value: u32, size: u32) => header::edit(guest, header::Edit::Replace, map, (key, key_size), (value, size));
        "remove_header_map_value"(guest, map: u32, key: u32, size: u32) => header::remove(guest, map, key, size);
        "get_buffer_bytes"(guest, buffer: u32, start: u32, most: u32, to: u32, size_to: u32) => body::get(guest, buffer, start, most, to, size_to);
        "get_buffer_status"(guest, buffer: u32, size_to: u32, flags_to: u32) => body::status(guest, buffer, size_to, flags_to);
        "set_buffer_bytes"(guest, buffer: u32, start: u32, length: u32, data: u32, size: u32) => body::set(guest, buffer, start, length, data, size);
        "get_property"(guest, path: u32, size: u32, to: u32, size_to: u32) => property::get(guest, (path, size), to, size_to);
        "set_property"(guest, path: u32, path_size: u32, value: u32, size: u32) => property::set(guest, (path, path_size), (value, size));
    }
    Ok(())
}

fn define_flow(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    proxy! { linker,
        "log"(guest, level: u32, text: u32, size: u32) => log::log(guest, level, text, size);
        "get_log_level"(guest, to: u32) => log::get_log_level(guest, to);
        "get_current_time_nanoseconds"(guest, to: u32) => log::current_time(guest, to);
        "set_tick_period_milliseconds"(guest, period: u32) => log::set_tick_period(guest, period);
        "set_effective_context"(guest, id: u32) => log::set_effective_context(guest, id);
        "done"(guest) => log::done(guest);
        "send_local_response"(guest, status: u32, details: u32, details_size: u32, body: u32, body_size: u32, headers: u32, headers_size: u32, grpc_status: u32) =>
            control::send_local_response(guest, status, &control::Reply { details: (details, details_size), body: (body, body_size), headers: (headers, headers_size), grpc_status });
        "continue_stream"(guest, kind: u32) => control::continue_stream(guest, kind);
        "close_stream"(guest, kind: u32) => control::close_stream(guest, kind);
        "inject_encoded_data_to_filter_chain"(guest, at: u32, size: u32, end: u32) => control::inject(guest, at, size, end != 0);
        "call_foreign_function"(guest, name: u32, name_size: u32, argument: u32, size: u32, to: u32, size_to: u32) => foreign::call(guest, (name, name_size), (argument, size), to, size_to);
    }
    Ok(())
}

fn define_calls(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    proxy! { linker,
        "http_call"(guest, upstream: u32, upstream_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32, trailers: u32, trailers_size: u32, timeout: u32, to: u32) =>
            calls::http_call(guest, &calls::HttpCall { upstream: (upstream, upstream_size), headers: (headers, headers_size), body: (body, body_size), trailers: (trailers, trailers_size), timeout }, to);
        "redis_init"(guest, upstream: u32, upstream_size: u32, user: u32, user_size: u32, password: u32, password_size: u32, timeout: u32) =>
            calls::redis_init(guest, (upstream, upstream_size), (user, user_size), (password, password_size), timeout);
        "redis_call"(guest, upstream: u32, upstream_size: u32, query: u32, size: u32, to: u32) => calls::redis_call(guest, (upstream, upstream_size), (query, size), to);
        "grpc_call"(_guest, _service: u32, _size1: u32, _name: u32, _size2: u32, _method: u32, _size3: u32, _metadata: u32, _size4: u32, _message: u32, _size5: u32, _timeout: u32, _to: u32) => Err(Status::ParseFailure.into());
        "grpc_stream"(_guest, _service: u32, _size1: u32, _name: u32, _size2: u32, _method: u32, _size3: u32, _metadata: u32, _size4: u32, _to: u32) => Err(Status::ParseFailure.into());
        "grpc_send"(_guest, _id: u32, _message: u32, _size: u32, _end: u32) => Err(Status::NotFound.into());
        "grpc_cancel"(_guest, _id: u32) => Err(Status::NotFound.into());
        "grpc_close"(_guest, _id: u32) => Err(Status::NotFound.into());
        "get_status"(guest, code_to: u32, to: u32, size_to: u32) => calls::get_status(guest, code_to, to, size_to);
        "get_upstream_hosts"(guest, to: u32, size_to: u32) => calls::upstream_hosts(guest, to, size_to);
        "set_upstream_override_host"(guest, at: u32, size: u32) => calls::override_host(guest, (at, size));
    }
    Ok(())
}

fn define_shared(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    proxy! { linker,
        "get_shared_data"(guest, key: u32, size: u32, to: u32, size_to: u32, cas_to: u32) => shared::get(guest, (key, size), to, size_to, cas_to);
        "set_shared_data"(guest, key: u32, key_size: u32, value: u32, size: u32, cas: u32) => shared::set(guest, (key, key_size), (value, size), cas);
        "register_shared_queue"(guest, name: u32, size: u32, to: u32) => shared::register(guest, (name, size), to);
        "resolve_shared_queue"(guest, vm: u32, vm_size: u32, name: u32, size: u32, to: u32) => shared::resolve(guest, (vm, vm_size), (name, size), to);
        "dequeue_shared_queue"(guest, id: u32, to: u32, size_to: u32) => shared::dequeue(guest, id, to, size_to);
        "enqueue_shared_queue"(guest, id: u32, item: u32, size: u32) => shared::enqueue(guest, id, (item, size));
        "define_metric"(guest, kind: u32, name: u32, size: u32, to: u32) => stat::define(guest, kind, (name, size), to);
        "increment_metric"(guest, id: u32, by: i64) => stat::increment(guest, id, by);
        "record_metric"(guest, id: u32, value: i64) => stat::record(guest, id, value);
        "get_metric"(guest, id: u32, to: u32) => stat::get(guest, id, to);
    }
    Ok(())
}

/// What C++, emscripten and AssemblyScript bring along.
fn define_toolchains(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_: u32| {})?;
    linker.func_wrap("env", "pthread_equal", |one: u32, other: u32| {
        u32::from(one == other)
    })?;
    linker.func_wrap("env", "envoy_resolve_dns", |_: u32, _: u32, _: u32| {
        Status::Unimplemented as u32
    })?;
    linker.func_wrap(
        "env",
        "abort",
        |_: u32, _: u32, line: u32, column: u32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::msg(format!(
                "abort at line {line}, column {column}"
            )))
        },
    )?;
    Ok(())
}

fn define_wasi(linker: &mut Linker<State>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap(module, "args_get", |_: u32, _: u32| 0_u32)?;
    linker.func_wrap(
        module,
        "args_sizes_get",
        |mut guest: Guest<'_>, count: u32, size: u32| wasi::args_sizes(&mut guest, count, size),
    )?;
    linker.func_wrap(
        module,
        "environ_get",
        |mut guest: Guest<'_>, places: u32, texts: u32| wasi::environ(&mut guest, places, texts),
    )?;
    linker.func_wrap(
        module,
        "environ_sizes_get",
        |mut guest: Guest<'_>, count: u32, size: u32| wasi::environ_sizes(&mut guest, count, size),
    )?;
    linker.func_wrap(
        module,
        "clock_time_get",
        |mut guest: Guest<'_>, id: u32, _: u64, to: u32| wasi::clock_time(&mut guest, id, to),
    )?;
    linker.func_wrap(
        module,
        "clock_res_get",
        |mut guest: Guest<'_>, id: u32, to: u32| wasi::clock_resolution(&mut guest, id, to),
    )?;
    linker.func_wrap(
        module,
        "random_get",
        |mut guest: Guest<'_>, to: u32, size: u32| wasi::random(&mut guest, to, size),
    )?;
    linker.func_wrap(
        module,
        "fd_write",
        |mut guest: Guest<'_>, file: u32, vectors: u32, count: u32, to: u32| {
            wasi::write_file(&mut guest, file, vectors, count, to)
        },
    )?;
    linker.func_wrap(
        module,
        "fd_fdstat_get",
        |mut guest: Guest<'_>, file: u32, to: u32| wasi::file_status(&mut guest, file, to),
    )?;
    linker.func_wrap(module, "fd_sync", |mut guest: Guest<'_>, file: u32| {
        wasi::standard_only(&mut guest, file)
    })?;
    linker.func_wrap(
        module,
        "fd_filestat_set_size",
        |mut guest: Guest<'_>, file: u32, _: u64| wasi::standard_only(&mut guest, file),
    )?;
    linker.func_wrap(
        module,
        "poll_oneoff",
        |mut guest: Guest<'_>, _: u32, _: u32, _: u32, to: u32| wasi::poll(&mut guest, to),
    )?;
    linker.func_wrap(module, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(super::Exited(code).into())
    })?;
    Ok(())
}

/// WASI functions that `define_wasi` gives.
const DEFINED: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "environ_get",
    "environ_sizes_get",
    "clock_time_get",
    "clock_res_get",
    "random_get",
    "fd_write",
    "fd_fdstat_get",
    "fd_sync",
    "fd_filestat_set_size",
    "poll_oneoff",
    "proc_exit",
];

/// WASI functions that only ever give this errno; any other that a module imports gives 52, "not supported".
const REFUSALS: &[(&str, u32)] = &[
    ("sched_yield", 0),
    ("fd_close", 0),
    ("fd_seek", 0),
    ("fd_prestat_get", 8),
    ("fd_filestat_get", 8),
    ("path_open", 44),
    ("path_filestat_get", 58),
    ("sock_shutdown", 58),
];
const NOT_SUPPORTED: u32 = 52;

/// Functions whose type only the module knows: unknown parts of WASI, and those of ABI 0.1.0 that differ between SDKs.
fn define_typed(linker: &mut Linker<State>, module: &Module) -> wasmtime::Result<()> {
    for import in module.imports() {
        let (from, name) = (import.module(), import.name());
        let ExternType::Func(kind) = import.ty() else {
            continue;
        };
        if WASI.contains(&from) && !DEFINED.contains(&name) {
            let refusal = REFUSALS.iter().find(|(known, _)| *known == name);
            let code = refusal.map_or(NOT_SUPPORTED, |(_, code)| *code);
            linker.func_new(from, name, kind, move |_, _, results| fill(results, code))?;
        } else if from == "env" {
            define_first_abi(linker, name, kind)?;
        }
    }
    Ok(())
}

fn define_first_abi(linker: &mut Linker<State>, name: &str, kind: FuncType) -> wasmtime::Result<()> {
    let act: fn(&mut Guest<'_>) -> super::Outcome = match name {
        "proxy_continue_request" => |guest| control::continue_stream(guest, 0),
        "proxy_continue_response" => |guest| control::continue_stream(guest, 1),
        "proxy_clear_route_cache" => control::clear_route_cache,
        "proxy_get_configuration" => {
            linker.func_wrap("env", name, |mut guest: Guest<'_>, to: u32, size_to: u32| {
                let config = guest.data().generation.spec.config.clone();
                let is_plugins = guest.data().stage == crate::state::Stage::Configuring;
                answer(super::give(
                    &mut guest,
                    if is_plugins { &config } else { &[] },
                    to,
                    size_to,
                ))
            })?;
            return Ok(());
        }
        _ => return Ok(()),
    };
    linker.func_new("env", name, kind, move |mut guest, _, results| {
        let status = answer(act(&mut guest))?;
        fill(results, status)
    })?;
    Ok(())
}

/// Puts a number into the one result, if there is one.
fn fill(results: &mut [Val], code: u32) -> wasmtime::Result<()> {
    if let [result] = results {
        *result = match result {
            Val::I64(_) => Val::I64(i64::from(code)),
            _ => Val::I32(i32::from_ne_bytes(code.to_ne_bytes())),
        };
    }
    Ok(())
}
