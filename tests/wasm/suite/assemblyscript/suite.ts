// The suite's plugin in AssemblyScript, straight on the proxy-wasm ABI 0.2.1.

@external("env", "proxy_get_buffer_bytes")
declare function getBuffer(type: i32, start: usize, most: usize, data: usize, size: usize): i32;
@external("env", "proxy_set_buffer_bytes")
declare function setBuffer(type: i32, start: usize, size: usize, data: usize, length: usize): i32;
@external("env", "proxy_get_header_map_value")
declare function getHeader(map: i32, key: usize, keySize: usize, value: usize, size: usize): i32;
@external("env", "proxy_replace_header_map_value")
declare function replaceHeader(map: i32, key: usize, keySize: usize, value: usize, size: usize): i32;
@external("env", "proxy_remove_header_map_value")
declare function removeHeader(map: i32, key: usize, keySize: usize): i32;
@external("env", "proxy_send_local_response")
declare function sendLocalResponse(status: i32, details: usize, detailsSize: usize, body: usize, bodySize: usize, headers: usize, headersSize: usize, grpc: i32): i32;
@external("env", "proxy_http_call")
declare function httpCall(cluster: usize, clusterSize: usize, headers: usize, headersSize: usize, body: usize, bodySize: usize, trailers: usize, trailersSize: usize, timeout: i32, token: usize): i32;
@external("env", "proxy_redis_init")
declare function redisInit(cluster: usize, clusterSize: usize, user: usize, userSize: usize, password: usize, passwordSize: usize, timeout: i32): i32;
@external("env", "proxy_redis_call")
declare function redisCall(cluster: usize, clusterSize: usize, query: usize, querySize: usize, token: usize): i32;
@external("env", "proxy_continue_stream")
declare function continueStream(type: i32): i32;
@external("env", "proxy_set_effective_context")
declare function setEffectiveContext(context: u32): i32;
@external("env", "proxy_log")
declare function log(level: i32, text: usize, size: usize): i32;

const LANGUAGE = "assemblyscript";
const REDIS_CLUSTER = "outbound|6379||redis.static";
const INCR = "*2\r\n$4\r\nINCR\r\n$5\r\nsuite\r\n";
const REQUEST_BODY = 0, RESPONSE_BODY = 1, PLUGIN_CONFIG = 7, REDIS_REPLY = 9;
const REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2, CALL_HEADERS = 6;
// In this version of the ABI a paused header callback stops the body too: who waits for the body pauses there.
const CONTINUE = 0, PAUSE = 1, STOP_ALL = 4;

let mode = "";
const waiting = new Map<u32, u32>();
const place = memory.data(8);

export function onAbort(message: string | null, file: string | null, line: u32, column: u32): void {
  unreachable();
}

class Text {
  bytes: ArrayBuffer;
  constructor(text: string) {
    this.bytes = String.UTF8.encode(text);
  }
  get at(): usize {
    return changetype<usize>(this.bytes);
  }
  get size(): usize {
    return <usize>this.bytes.byteLength;
  }
}

function say(text: string): void {
  const bytes = new Text(text);
  log(4, bytes.at, bytes.size);
}

function replace(map: i32, key: string, value: string): void {
  const name = new Text(key), content = new Text(value);
  replaceHeader(map, name.at, name.size, content.at, content.size);
}

function remove(map: i32, key: string): void {
  const name = new Text(key);
  removeHeader(map, name.at, name.size);
}

// What the host wrote at `place`: an address from our allocator, and a size.
function taken(): string {
  const data = load<usize>(place), size = load<usize>(place, 4);
  const text = String.UTF8.decodeUnsafe(data, size);
  if (data) heap.free(data);
  return text;
}

function header(map: i32, key: string): string | null {
  const name = new Text(key);
  store<u64>(place, 0);
  return getHeader(map, name.at, name.size, place, place + 4) == 0 ? taken() : null;
}

function buffer(type: i32, size: usize): string {
  store<u64>(place, 0);
  return size > 0 && getBuffer(type, 0, size, place, place + 4) == 0 ? taken() : "";
}

function pairs(texts: string[]): ArrayBuffer {
  const encoded = texts.map<ArrayBuffer>((text) => String.UTF8.encode(text, true));
  let size = 4;
  for (let index = 0; index < encoded.length; index++) size += 4 + encoded[index].byteLength;
  const out = new ArrayBuffer(size);
  const start = changetype<usize>(out);
  store<u32>(start, texts.length / 2);
  let at = start + 4;
  for (let index = 0; index < encoded.length; index++, at += 4) store<u32>(at, encoded[index].byteLength - 1);
  for (let index = 0; index < encoded.length; index++) {
    memory.copy(at, changetype<usize>(encoded[index]), encoded[index].byteLength);
    at += encoded[index].byteLength;
  }
  return out;
}

export function proxy_abi_version_0_2_1(): void {}
export function proxy_on_memory_allocate(size: usize): usize {
  return heap.alloc(size);
}
export function proxy_on_context_create(context: u32, parent: u32): void {}
export function proxy_on_vm_start(context: u32, size: i32): i32 {
  return 1;
}
export function proxy_on_done(context: u32): i32 {
  return 1;
}
export function proxy_on_delete(context: u32): void {}
export function proxy_on_log(context: u32): void {}

export function proxy_on_configure(context: u32, size: i32): i32 {
  const config = buffer(PLUGIN_CONFIG, size);
  const known = ["transform", "reply", "callout", "stream", "rewrite", "redis", "trap"];
  mode = "";
  for (let index = 0; index < known.length; index++) {
    if (config.includes('"mode"') && config.includes('"' + known[index] + '"')) mode = known[index];
  }
  if (mode == "redis") {
    const cluster = new Text(REDIS_CLUSTER);
    if (redisInit(cluster.at, cluster.size, 0, 0, 0, 0, 1000) != 0) return 0;
  }
  if (mode == "") say("no known mode");
  return mode == "" ? 0 : 1;
}

export function proxy_on_request_headers(context: u32, count: i32, end: i32): i32 {
  if (mode == "transform") {
    replace(REQUEST_HEADERS, "x-suite", LANGUAGE);
    remove(REQUEST_HEADERS, "x-remove");
  } else if (mode == "reply" && header(REQUEST_HEADERS, "x-deny") != null) {
    const body = new Text("denied by " + LANGUAGE), details = new Text("suite");
    const headers = pairs(["x-denied", "yes"]);
    sendLocalResponse(403, details.at, details.size, body.at, body.size, changetype<usize>(headers), headers.byteLength, -1);
    return PAUSE;
  } else if (mode == "callout") {
    return callOut(context);
  } else if (mode == "redis") {
    return countUp(context);
  } else if (mode == "rewrite") {
    remove(REQUEST_HEADERS, "content-length");
  } else if (mode == "trap" && header(REQUEST_HEADERS, "x-trap") != null) {
    unreachable();
  }
  return CONTINUE;
}

function callOut(context: u32): i32 {
  const cluster = new Text("outbound|80||callout.static");
  const headers = pairs([":method", "GET", ":path", "/echo", ":authority", "callout"]);
  const status = httpCall(cluster.at, cluster.size, changetype<usize>(headers), headers.byteLength, 0, 0, 0, 0, 1000, place);
  if (status != 0) return CONTINUE;
  waiting.set(load<u32>(place), context);
  return STOP_ALL;
}

export function proxy_on_http_call_response(context: u32, token: u32, headers: i32, size: i32, trailers: i32): void {
  const status = header(CALL_HEADERS, ":status");
  if (!waiting.has(token)) return;
  setEffectiveContext(waiting.get(token));
  waiting.delete(token);
  replace(REQUEST_HEADERS, "x-callout-status", status == null ? "none" : status);
  continueStream(0);
}

function countUp(context: u32): i32 {
  const cluster = new Text(REDIS_CLUSTER), query = new Text(INCR);
  if (redisCall(cluster.at, cluster.size, query.at, query.size, place) != 0) return CONTINUE;
  waiting.set(load<u32>(place), context);
  return STOP_ALL;
}

export function proxy_on_redis_call_response(context: u32, token: u32, status: u32, size: i32): void {
  const reply = buffer(REDIS_REPLY, size);
  if (!waiting.has(token)) return;
  setEffectiveContext(waiting.get(token));
  waiting.delete(token);
  // ":7\r\n"
  if (status == 0 && reply.startsWith(":") && reply.endsWith("\r\n")) replace(REQUEST_HEADERS, "x-redis", reply.slice(1, -2));
  continueStream(0);
}

export function proxy_on_request_body(context: u32, size: i32, end: i32): i32 {
  if (mode != "rewrite") return CONTINUE;
  if (!end) return PAUSE;
  const whole = new Text(LANGUAGE + ":" + buffer(REQUEST_BODY, size));
  setBuffer(REQUEST_BODY, 0, size, whole.at, whole.size);
  return CONTINUE;
}

export function proxy_on_response_headers(context: u32, count: i32, end: i32): i32 {
  if (mode == "transform") replace(RESPONSE_HEADERS, "x-suite-response", "done");
  if (mode == "stream") remove(RESPONSE_HEADERS, "content-length");
  return CONTINUE;
}

export function proxy_on_response_body(context: u32, size: i32, end: i32): i32 {
  if (mode != "stream") return CONTINUE;
  // Bytes, not text: a chunk may end inside a character.
  store<u64>(place, 0);
  if (size > 0 && getBuffer(RESPONSE_BODY, 0, size, place, place + 4) != 0) return CONTINUE;
  const data = load<usize>(place), length = load<usize>(place, 4);
  const out = new ArrayBuffer(<i32>length + 5);
  const start = changetype<usize>(out);
  for (let index: usize = 0; index < length; index++) {
    const byte = load<u8>(data + index);
    store<u8>(start + index, byte >= 97 && byte <= 122 ? byte - 32 : byte);
  }
  if (data) heap.free(data);
  const mark = new Text("[end]");
  memory.copy(start + length, mark.at, 5);
  setBuffer(RESPONSE_BODY, 0, size, start, length + (end ? 5 : 0));
  return CONTINUE;
}
