// The suite's plugin in C++, with what C++ brings along: constructors that run before anything else, virtual calls, the standard
// library. As in Higress's own C++ SDK a context is an object, memory comes from `malloc`, and the ABI is 0.2.100; that SDK itself is
// built by Bazel with Emscripten, so the ABI is declared here.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#define IMPORT(name) extern "C" __attribute__((import_module("env"), import_name(#name)))
#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

IMPORT(proxy_log) int proxy_log(int level, const char *text, size_t size);
IMPORT(proxy_get_property) int proxy_get_property(const char *path, size_t path_size, char **value, size_t *size);
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

namespace {

using namespace std::string_view_literals;

constexpr auto LANGUAGE = "cpp"sv;
constexpr auto CALLOUT_CLUSTER = "outbound|80||callout.static"sv;
constexpr auto REDIS_CLUSTER = "outbound|6379||redis.static"sv;
constexpr auto INCR = "*2\r\n$4\r\nINCR\r\n$5\r\nsuite\r\n"sv;

enum Buffer { REQUEST_BODY = 0, RESPONSE_BODY = 1, PLUGIN_CONFIG = 7, REDIS_BODY = 9 };
enum Map { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2, CALL_HEADERS = 6 };
// As Envoy has them: a header callback that stops lets the body come, one that stops all does not.
enum Headers { CONTINUE = 0, STOP = 1, STOP_ALL_AND_WATERMARK = 4 };
enum Data { PASS = 0, STOP_AND_BUFFER = 1 };

using Pairs = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// What the host wrote, when it did: it had the memory from `malloc`.
template <typename Ask> std::optional<std::string> given(Ask ask) {
  char *data = nullptr;
  size_t size = 0;
  if (ask(&data, &size) != 0) return std::nullopt;
  const std::unique_ptr<char, decltype(&free)> owned(data, &free);
  return std::string(data ? data : "", data ? size : 0);
}

std::optional<std::string> header(Map map, std::string_view name) {
  return given([&](char **data, size_t *size) { return proxy_get_header_map_value(map, name.data(), name.size(), data, size); });
}

std::string buffer(Buffer type, size_t most) {
  return given([&](char **data, size_t *size) { return proxy_get_buffer_bytes(type, 0, most, data, size); }).value_or("");
}

void replace(Map map, std::string_view name, std::string_view value) {
  proxy_replace_header_map_value(map, name.data(), name.size(), value.data(), value.size());
}

void remove(Map map, std::string_view name) { proxy_remove_header_map_value(map, name.data(), name.size()); }

// A header map as the ABI passes it: count, sizes, then texts with a zero behind each.
std::string encoded(Pairs pairs) {
  std::string out;
  const auto number = [&](size_t value) {
    const auto narrow = static_cast<uint32_t>(value);
    out.append(reinterpret_cast<const char *>(&narrow), sizeof narrow);
  };
  number(pairs.size());
  for (const auto &[name, value] : pairs) number(name.size()), number(value.size());
  for (const auto &[name, value] : pairs) out.append(name).append(1, '\0').append(value).append(1, '\0');
  return out;
}

// Who waits for which call, and what happens then; a mode makes calls of one kind.
std::unordered_map<uint32_t, std::pair<uint32_t, std::function<void()>>> waiting;

Headers wait_for(int refused, uint32_t token, uint32_t context, std::function<void()> then) {
  if (refused) return CONTINUE;
  waiting[token] = {context, std::move(then)};
  return STOP_ALL_AND_WATERMARK;
}

void answered(uint32_t token) {
  const auto found = waiting.find(token);
  if (found == waiting.end()) return;
  const auto [context, then] = std::move(found->second);
  waiting.erase(found);
  proxy_set_effective_context(context);
  then();
  proxy_continue_stream(0);
}

// One mode; what it does not say passes.
struct Mode {
  virtual ~Mode() = default;
  virtual bool start() { return true; }
  virtual Headers request_headers(uint32_t) { return CONTINUE; }
  virtual Data request_body(size_t, bool) { return PASS; }
  virtual void response_headers() {}
  virtual void response_body(size_t, bool) {}
};

struct Transform : Mode {
  Headers request_headers(uint32_t) override {
    replace(REQUEST_HEADERS, "x-suite", LANGUAGE);
    remove(REQUEST_HEADERS, "x-remove");
    return CONTINUE;
  }
  void response_headers() override { replace(RESPONSE_HEADERS, "x-suite-response", "done"); }
};

struct Reply : Mode {
  Headers request_headers(uint32_t) override {
    if (header(REQUEST_HEADERS, "x-deny").value_or("").empty()) return CONTINUE;
    const auto body = std::string("denied by ").append(LANGUAGE), headers = encoded({{"x-denied", "yes"}});
    proxy_send_local_response(403, "suite", 5, body.data(), body.size(), headers.data(), headers.size(), -1);
    return STOP;
  }
};

struct Callout : Mode {
  Headers request_headers(uint32_t context) override {
    const auto headers = encoded({{":method", "GET"}, {":path", "/echo"}, {":authority", "callout"}});
    uint32_t token = 0;
    const int refused = proxy_http_call(CALLOUT_CLUSTER.data(), CALLOUT_CLUSTER.size(), headers.data(), headers.size(), "", 0, "", 0, 1000, &token);
    return wait_for(refused, token, context, [] { replace(REQUEST_HEADERS, "x-callout-status", header(CALL_HEADERS, ":status").value_or("none")); });
  }
};

struct Stream : Mode {
  void response_headers() override { remove(RESPONSE_HEADERS, "content-length"); }
  void response_body(size_t size, bool end) override {
    auto chunk = buffer(RESPONSE_BODY, size);
    std::transform(chunk.begin(), chunk.end(), chunk.begin(), [](char letter) { return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 32) : letter; });
    if (end) chunk += "[end]";
    proxy_set_buffer_bytes(RESPONSE_BODY, 0, size, chunk.data(), chunk.size());
  }
};

struct Rewrite : Mode {
  Headers request_headers(uint32_t) override {
    remove(REQUEST_HEADERS, "content-length");
    return STOP;
  }
  Data request_body(size_t size, bool end) override {
    if (!end) return STOP_AND_BUFFER;
    const auto whole = std::string(LANGUAGE) + ":" + buffer(REQUEST_BODY, size);
    proxy_set_buffer_bytes(REQUEST_BODY, 0, size, whole.data(), whole.size());
    return PASS;
  }
};

struct Redis : Mode {
  // Of the reply that is being told.
  inline static int status;
  inline static size_t size;

  bool start() override { return proxy_redis_init(REDIS_CLUSTER.data(), REDIS_CLUSTER.size(), "", 0, "", 0, 1000) == 0; }
  Headers request_headers(uint32_t context) override {
    uint32_t token = 0;
    const int refused = proxy_redis_call(REDIS_CLUSTER.data(), REDIS_CLUSTER.size(), INCR.data(), INCR.size(), &token);
    return wait_for(refused, token, context, [] {
      const auto reply = buffer(REDIS_BODY, size);
      // ":7\r\n"
      if (status == 0 && reply.size() > 3 && reply[0] == ':') replace(REQUEST_HEADERS, "x-redis", reply.substr(1, reply.size() - 3));
    });
  }
};

struct Trap : Mode {
  Headers request_headers(uint32_t) override {
    // There are no exceptions here: what would be one ends the module.
    if (header(REQUEST_HEADERS, "x-trap")) return static_cast<Headers>(std::vector<int>().at(1));
    return CONTINUE;
  }
};

template <typename Kind> std::unique_ptr<Mode> make() { return std::make_unique<Kind>(); }

// Filled by a constructor that runs before anything else.
const std::map<std::string, std::unique_ptr<Mode> (*)()> MODES = {
    {"transform", make<Transform>}, {"reply", make<Reply>}, {"callout", make<Callout>}, {"stream", make<Stream>},
    {"rewrite", make<Rewrite>},     {"redis", make<Redis>}, {"trap", make<Trap>},
};

struct Context {
  virtual ~Context() = default;
};

struct Plugin : Context {
  std::shared_ptr<Mode> mode;
  bool configure(const std::string &config) {
    mode.reset();
    const auto key = config.find("\"mode\"");
    for (const auto &[name, build] : MODES)
      if (key != std::string::npos && config.find('"' + name + '"', key + 6) != std::string::npos) mode = build();
    if (!mode) proxy_log(4, "no known mode", 13);
    return mode && mode->start();
  }
};

struct Request : Context {
  const std::shared_ptr<Mode> mode;
  explicit Request(const Plugin &plugin) : mode(plugin.mode) {}
};

std::unordered_map<uint32_t, std::unique_ptr<Context>> contexts;

Mode &mode_of(uint32_t context) { return *static_cast<Request &>(*contexts.at(context)).mode; }

} // namespace

EXPORT(proxy_abi_version_0_2_100) void proxy_abi_version_0_2_100() {}

EXPORT(proxy_on_context_create) void proxy_on_context_create(uint32_t context, uint32_t parent) {
  if (parent) {
    contexts[context] = std::make_unique<Request>(static_cast<Plugin &>(*contexts.at(parent)));
    return;
  }
  // The SDK looks for its contexts by this name.
  const auto root = given([](char **data, size_t *size) { return proxy_get_property("plugin_root_id", 14, data, size); });
  if (!root) std::abort();
  contexts[context] = std::make_unique<Plugin>();
}

EXPORT(proxy_on_vm_start) int proxy_on_vm_start(uint32_t, size_t) { return 1; }

EXPORT(proxy_on_configure) int proxy_on_configure(uint32_t context, size_t size) {
  return static_cast<Plugin &>(*contexts.at(context)).configure(buffer(PLUGIN_CONFIG, size));
}

EXPORT(proxy_on_request_headers) int proxy_on_request_headers(uint32_t context, uint32_t, int) {
  return mode_of(context).request_headers(context);
}

EXPORT(proxy_on_request_body) int proxy_on_request_body(uint32_t context, size_t size, int end) {
  return mode_of(context).request_body(size, end != 0);
}

EXPORT(proxy_on_response_headers) int proxy_on_response_headers(uint32_t context, uint32_t, int) {
  mode_of(context).response_headers();
  return CONTINUE;
}

EXPORT(proxy_on_response_body) int proxy_on_response_body(uint32_t context, size_t size, int end) {
  mode_of(context).response_body(size, end != 0);
  return PASS;
}

EXPORT(proxy_on_http_call_response) void proxy_on_http_call_response(uint32_t, uint32_t token, uint32_t, size_t, uint32_t) {
  answered(token);
}

EXPORT(proxy_on_redis_call_response) void proxy_on_redis_call_response(uint32_t, uint32_t token, int status, size_t size) {
  Redis::status = status;
  Redis::size = size;
  answered(token);
}

EXPORT(proxy_on_done) int proxy_on_done(uint32_t) { return 1; }
EXPORT(proxy_on_log) void proxy_on_log(uint32_t) {}
EXPORT(proxy_on_delete) void proxy_on_delete(uint32_t context) { contexts.erase(context); }
