// The suite's plugin in C, straight on the proxy-wasm ABI 0.2.1: no SDK, so what is tested is the ABI alone.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>

#define IMPORT(name) __attribute__((import_module("env"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))
#define LANGUAGE "c"

IMPORT(proxy_log) int proxy_log(int level, const char *text, size_t size);
IMPORT(proxy_get_buffer_bytes) int proxy_get_buffer_bytes(int type, size_t start, size_t most, char **data, size_t *size);
IMPORT(proxy_set_buffer_bytes) int proxy_set_buffer_bytes(int type, size_t start, size_t size, const char *data, size_t length);
IMPORT(proxy_get_header_map_value) int proxy_get_header_map_value(int map, const char *key, size_t key_size, char **value, size_t *size);
IMPORT(proxy_replace_header_map_value) int proxy_replace_header_map_value(int map, const char *key, size_t key_size, const char *value, size_t size);
IMPORT(proxy_remove_header_map_value) int proxy_remove_header_map_value(int map, const char *key, size_t key_size);
IMPORT(proxy_send_local_response) int proxy_send_local_response(int status, const char *details, size_t details_size, const char *body, size_t body_size, const char *headers, size_t headers_size, int grpc);
IMPORT(proxy_http_call) int proxy_http_call(const char *cluster, size_t cluster_size, const char *headers, size_t headers_size, const char *body, size_t body_size, const char *trailers, size_t trailers_size, int timeout, uint32_t *token);
IMPORT(proxy_redis_init) int proxy_redis_init(const char *cluster, size_t cluster_size, const char *user, size_t user_size, const char *password, size_t password_size, int timeout);
IMPORT(proxy_redis_call) int proxy_redis_call(const char *cluster, size_t cluster_size, const char *query, size_t query_size, uint32_t *token);
IMPORT(proxy_continue_stream) int proxy_continue_stream(int type);
IMPORT(proxy_set_effective_context) int proxy_set_effective_context(uint32_t context);

enum { REQUEST_BODY = 0, RESPONSE_BODY = 1, CALL_BODY = 4, PLUGIN_CONFIG = 7, REDIS_BODY = 9 };
enum { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2, CALL_HEADERS = 6 };
// In this version of the ABI a paused header callback stops the body too: who waits for the body pauses there.
enum { CONTINUE = 0, PAUSE = 1, STOP_ALL = 4 };
enum mode { NONE, TRANSFORM, REPLY, CALLOUT, STREAM, REWRITE, REDIS, TRAP };

static const char *const NAMES[] = {"", "transform", "reply", "callout", "stream", "rewrite", "redis", "trap"};
static const char CALLOUT_CLUSTER[] = "outbound|80||callout.static";
static const char REDIS_CLUSTER[] = "outbound|6379||redis.static";
static const char INCR[] = "*2\r\n$4\r\nINCR\r\n$5\r\nsuite\r\n";

static enum mode mode;
// Who waits for which call; calls are few and short.
static struct { uint32_t token, context; } waiting[256];
static size_t next_slot;

EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(size_t size) { return malloc(size); }
EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}
EXPORT(proxy_on_context_create) void proxy_on_context_create(uint32_t context, uint32_t parent) { (void)context; (void)parent; }
EXPORT(proxy_on_vm_start) int proxy_on_vm_start(uint32_t context, int size) { (void)context; (void)size; return 1; }
EXPORT(proxy_on_done) int proxy_on_done(uint32_t context) { (void)context; return 1; }
EXPORT(proxy_on_delete) void proxy_on_delete(uint32_t context) { (void)context; }
EXPORT(proxy_on_log) void proxy_on_log(uint32_t context) { (void)context; }

static void replace(int map, const char *key, const char *value, size_t size) {
  proxy_replace_header_map_value(map, key, strlen(key), value, size);
}

// Whether the header is there; its value is not needed.
static int has_header(const char *key) {
  char *value = NULL;
  size_t size = 0;
  int status = proxy_get_header_map_value(REQUEST_HEADERS, key, strlen(key), &value, &size);
  free(value);
  return status == 0 && size > 0;
}

EXPORT(proxy_on_configure) int proxy_on_configure(uint32_t context, int size) {
  (void)context;
  char *config = NULL;
  size_t length = 0;
  if (size <= 0 || proxy_get_buffer_bytes(PLUGIN_CONFIG, 0, (size_t)size, &config, &length) != 0) return 0;
  char text[512] = {0};
  memcpy(text, config, length < sizeof text - 1 ? length : sizeof text - 1);
  free(config);
  mode = NONE;
  for (size_t index = 1; index < sizeof NAMES / sizeof *NAMES; index++) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\"", NAMES[index]);
    if (strstr(text, "\"mode\"") && strstr(text, quoted)) mode = (enum mode)index;
  }
  if (mode == REDIS) {
    const char *cluster = REDIS_CLUSTER;
    if (proxy_redis_init(cluster, strlen(cluster), "", 0, "", 0, 1000) != 0) return 0;
  }
  if (mode == NONE) proxy_log(4, "no known mode", 13);
  return mode != NONE;
}

// A header map as the ABI passes it: count, sizes, then texts with a zero behind each.
static size_t pairs(char *out, const char *const *texts, uint32_t count) {
  char *at = out;
  memcpy(at, &count, 4);
  at += 4;
  for (uint32_t index = 0; index < count * 2; index++) {
    uint32_t size = (uint32_t)strlen(texts[index]);
    memcpy(at, &size, 4);
    at += 4;
  }
  for (uint32_t index = 0; index < count * 2; index++) {
    size_t size = strlen(texts[index]) + 1;
    memcpy(at, texts[index], size);
    at += size;
  }
  return (size_t)(at - out);
}

static void remember(uint32_t token, uint32_t context) {
  waiting[next_slot % 256].token = token;
  waiting[next_slot % 256].context = context;
  next_slot++;
}

static uint32_t who_waits(uint32_t token) {
  for (size_t index = 0; index < 256; index++)
    if (waiting[index].token == token && waiting[index].context) return waiting[index].context;
  return 0;
}

static int call_out(uint32_t context) {
  static const char *const headers[] = {":method", "GET", ":path", "/echo", ":authority", "callout"};
  char map[256];
  uint32_t token = 0;
  size_t size = pairs(map, headers, 3);
  if (proxy_http_call(CALLOUT_CLUSTER, strlen(CALLOUT_CLUSTER), map, size, "", 0, "", 0, 1000, &token) != 0) return CONTINUE;
  remember(token, context);
  return STOP_ALL;
}

static int count(uint32_t context) {
  uint32_t token = 0;
  if (proxy_redis_call(REDIS_CLUSTER, strlen(REDIS_CLUSTER), INCR, strlen(INCR), &token) != 0) return CONTINUE;
  remember(token, context);
  return STOP_ALL;
}

static int deny(void) {
  static const char *const headers[] = {"x-denied", "yes"};
  static const char body[] = "denied by " LANGUAGE;
  char map[64];
  size_t size = pairs(map, headers, 1);
  proxy_send_local_response(403, "suite", 5, body, strlen(body), map, size, -1);
  return PAUSE;
}

EXPORT(proxy_on_request_headers) int proxy_on_request_headers(uint32_t context, int count_of, int end) {
  (void)count_of; (void)end;
  switch (mode) {
  case TRANSFORM:
    replace(REQUEST_HEADERS, "x-suite", LANGUAGE, strlen(LANGUAGE));
    proxy_remove_header_map_value(REQUEST_HEADERS, "x-remove", 8);
    return CONTINUE;
  case REPLY: return has_header("x-deny") ? deny() : CONTINUE;
  case CALLOUT: return call_out(context);
  case REDIS: return count(context);
  case REWRITE:
    proxy_remove_header_map_value(REQUEST_HEADERS, "content-length", 14);
    return CONTINUE;
  case TRAP:
    if (has_header("x-trap")) __builtin_trap();
    return CONTINUE;
  default: return CONTINUE;
  }
}

EXPORT(proxy_on_request_body) int proxy_on_request_body(uint32_t context, int size, int end) {
  (void)context;
  if (mode != REWRITE) return CONTINUE;
  if (!end) return PAUSE;
  char *body = NULL;
  size_t length = 0;
  if (proxy_get_buffer_bytes(REQUEST_BODY, 0, (size_t)size, &body, &length) != 0) return CONTINUE;
  static const char mark[] = LANGUAGE ":";
  char *whole = malloc(strlen(mark) + length);
  memcpy(whole, mark, strlen(mark));
  memcpy(whole + strlen(mark), body, length);
  proxy_set_buffer_bytes(REQUEST_BODY, 0, (size_t)size, whole, strlen(mark) + length);
  free(body);
  free(whole);
  return CONTINUE;
}

EXPORT(proxy_on_response_headers) int proxy_on_response_headers(uint32_t context, int count_of, int end) {
  (void)context; (void)count_of; (void)end;
  if (mode == TRANSFORM) replace(RESPONSE_HEADERS, "x-suite-response", "done", 4);
  if (mode == STREAM) proxy_remove_header_map_value(RESPONSE_HEADERS, "content-length", 14);
  return CONTINUE;
}

EXPORT(proxy_on_response_body) int proxy_on_response_body(uint32_t context, int size, int end) {
  (void)context;
  if (mode != STREAM) return CONTINUE;
  char *body = NULL;
  size_t length = 0;
  if (size > 0 && proxy_get_buffer_bytes(RESPONSE_BODY, 0, (size_t)size, &body, &length) != 0) return CONTINUE;
  char *out = malloc(length + 5);
  for (size_t index = 0; index < length; index++)
    out[index] = body[index] >= 'a' && body[index] <= 'z' ? (char)(body[index] - 32) : body[index];
  size_t written = length;
  if (end) {
    memcpy(out + length, "[end]", 5);
    written += 5;
  }
  proxy_set_buffer_bytes(RESPONSE_BODY, 0, (size_t)size, out, written);
  free(body);
  free(out);
  return CONTINUE;
}

EXPORT(proxy_on_http_call_response) void proxy_on_http_call_response(uint32_t context, uint32_t token, int headers, int size, int trailers) {
  (void)context; (void)headers; (void)size; (void)trailers;
  char *status = NULL;
  size_t length = 0;
  int found = proxy_get_header_map_value(CALL_HEADERS, ":status", 7, &status, &length);
  uint32_t waiter = who_waits(token);
  if (!waiter) return;
  proxy_set_effective_context(waiter);
  replace(REQUEST_HEADERS, "x-callout-status", found == 0 ? status : "none", found == 0 ? length : 4);
  free(status);
  proxy_continue_stream(0);
}

EXPORT(proxy_on_redis_call_response) void proxy_on_redis_call_response(uint32_t context, uint32_t token, int status, int size) {
  (void)context;
  char *reply = NULL;
  size_t length = 0;
  if (size > 0) proxy_get_buffer_bytes(REDIS_BODY, 0, (size_t)size, &reply, &length);
  uint32_t waiter = who_waits(token);
  if (!waiter) return;
  proxy_set_effective_context(waiter);
  // ":7\r\n"
  if (status == 0 && length > 3 && reply[0] == ':') replace(REQUEST_HEADERS, "x-redis", reply + 1, length - 3);
  free(reply);
  proxy_continue_stream(0);
}
