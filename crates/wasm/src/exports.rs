//! What a module exports, looked up once per instance.

use wasmtime::{AsContextMut, Instance, TypedFunc, WasmParams, WasmResults};

use crate::artefact::Abi;
use crate::state::State;

type Store<'s> = wasmtime::StoreContextMut<'s, State>;

/// A body callback: context, size, end of stream.
type BodyCallback = TypedFunc<(u32, u32, u32), u32>;
/// Context, token, and the sizes of headers, body and trailers.
type HttpAnswerCallback = TypedFunc<(u32, u32, u32, u32, u32), ()>;

/// A header callback: the first interface has no end-of-stream flag.
pub(crate) enum HeadCallback {
    Two(TypedFunc<(u32, u32), u32>),
    Three(TypedFunc<(u32, u32, u32), u32>),
}

impl HeadCallback {
    pub(crate) fn call(&self, store: Store<'_>, id: u32, count: u32, end: bool) -> wasmtime::Result<u32> {
        match self {
            Self::Two(function) => function.call(store, (id, count)),
            Self::Three(function) => function.call(store, (id, count, u32::from(end))),
        }
    }
}

/// Callbacks of a module; what it does not export is skipped.
pub(crate) struct Exports {
    pub(crate) context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) configure: Option<TypedFunc<(u32, u32), u32>>,
    pub(crate) tick: Option<TypedFunc<u32, ()>>,
    pub(crate) queue_ready: Option<TypedFunc<(u32, u32), ()>>,
    pub(crate) heads: [Option<HeadCallback>; 2],
    pub(crate) bodies: [Option<BodyCallback>; 2],
    pub(crate) trailers: [Option<TypedFunc<(u32, u32), u32>>; 2],
    pub(crate) http_answer: Option<HttpAnswerCallback>,
    pub(crate) redis_answer: Option<TypedFunc<(u32, u32, u32, u32), ()>>,
    pub(crate) done: Option<TypedFunc<u32, u32>>,
    pub(crate) log: Option<TypedFunc<u32, ()>>,
    pub(crate) delete: Option<TypedFunc<u32, ()>>,
}

/// The function of this name; `None` when there is none.
///
/// # Errors
/// When it has another type than the interface says.
pub(crate) fn find<P: WasmParams, R: WasmResults>(
    store: &mut impl AsContextMut<Data = State>,
    instance: &Instance,
    name: &str,
) -> wasmtime::Result<Option<TypedFunc<P, R>>> {
    let Some(function) = instance.get_func(&mut *store, name) else {
        return Ok(None);
    };
    let typed = function.typed(&*store);
    typed
        .map(Some)
        .map_err(|cause| cause.context(format!("export {name}")))
}

impl Exports {
    pub(crate) fn find(
        store: &mut impl AsContextMut<Data = State>,
        instance: &Instance,
        abi: Abi,
    ) -> wasmtime::Result<Self> {
        let mut head = |name: &str| -> wasmtime::Result<Option<HeadCallback>> {
            Ok(match abi.is_first() {
                true => find(store, instance, name)?.map(HeadCallback::Two),
                false => find(store, instance, name)?.map(HeadCallback::Three),
            })
        };
        let heads = [
            head("proxy_on_request_headers")?,
            head("proxy_on_response_headers")?,
        ];
        Ok(Self {
            heads,
            context_create: find(store, instance, "proxy_on_context_create")?,
            vm_start: find(store, instance, "proxy_on_vm_start")?,
            configure: find(store, instance, "proxy_on_configure")?,
            tick: find(store, instance, "proxy_on_tick")?,
            queue_ready: find(store, instance, "proxy_on_queue_ready")?,
            bodies: [
                find(store, instance, "proxy_on_request_body")?,
                find(store, instance, "proxy_on_response_body")?,
            ],
            trailers: [
                find(store, instance, "proxy_on_request_trailers")?,
                find(store, instance, "proxy_on_response_trailers")?,
            ],
            http_answer: find(store, instance, "proxy_on_http_call_response")?,
            redis_answer: find(store, instance, "proxy_on_redis_call_response")?,
            done: find(store, instance, "proxy_on_done")?,
            log: find(store, instance, "proxy_on_log")?,
            delete: find(store, instance, "proxy_on_delete")?,
        })
    }
}
