// PyTorch's own engine for many processes: the key-value store that they meet at, and a Gloo group of them on CPUs.
// Functions return null, or what went wrong as text that the caller frees.

#include <ATen/core/Tensor.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "caught.h"

using at::Tensor;
using std::chrono::milliseconds;

struct ExtStore {
  c10::intrusive_ptr<c10d::Store> base;   // the connection
  c10::intrusive_ptr<c10d::Store> store;  // its keys under a prefix
  std::string prefix;
};

struct ExtGroup {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group;
};

struct ExtWork {
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<Tensor> tensors;  // alive until the work is done
};

namespace {

// Only the first line is for people; c10 appends a backtrace.
template <class Work>
char* first_line(const Work& work) {
  char* text = nullptr;
  try {
    text = caught(work);
  } catch (...) {
    text = strdup("unknown error");
  }
  if (text) text[strcspn(text, "\n")] = 0;
  return text;
}

// c10d writes warnings with backtraces to stderr, beside our own message.
void quiet() {
  static std::once_flag once;
  std::call_once(once, [] {
    setenv("TORCH_CPP_LOG_LEVEL", "FATAL", 0);
    c10::initLogging();
  });
}

// Gloo takes the first values of the storage of whatever it is given.
Tensor flat(const Tensor* tensor) {
  TORCH_CHECK(tensor->is_contiguous(), "a collective takes contiguous tensors");
  TORCH_CHECK(tensor->is_cpu(), "Gloo takes tensors on the CPU");
  return *tensor;
}

template <class Start>
char* started(ExtWork** out, const Tensor* tensor, const Start& start) {
  return first_line([&] {
    std::vector<Tensor> tensors{flat(tensor)};
    auto work = start(tensors);
    *out = new ExtWork{std::move(work), std::move(tensors)};
  });
}

c10::intrusive_ptr<c10d::Store> under(const c10::intrusive_ptr<c10d::Store>& base, const std::string& prefix) {
  return c10::make_intrusive<c10d::PrefixStore>(prefix, base);
}

}  // namespace

extern "C" {

// The store at `host`:`port`, which this process serves where `server` is set (port 0: any free one). Keys of this
// handle are under `prefix`.
char* ext_store_tcp(ExtStore** out, const char* host, uint16_t port, bool server, const char* prefix, int64_t timeout_ms) {
  return first_line([&] {
    quiet();
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = server;
    options.multiTenant = server;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    auto base = c10::make_intrusive<c10d::TCPStore>(std::string(host), options);
    *out = new ExtStore{base, under(base, prefix), prefix};
  });
}

char* ext_store_port(const ExtStore* store, uint16_t* port) {
  return first_line([&] { *port = c10::static_intrusive_pointer_cast<c10d::TCPStore>(store->base)->getPort(); });
}

// A connection of its own: one serves one thread at a time.
char* ext_store_clone(ExtStore** out, const ExtStore* store) {
  return first_line([&] {
    auto base = store->base->clone();
    *out = new ExtStore{base, under(base, store->prefix), store->prefix};
  });
}

void ext_store_free(ExtStore* store) { delete store; }

char* ext_store_set(ExtStore* store, const char* key, const uint8_t* value, size_t n) {
  return first_line([&] { store->store->set(key, std::vector<uint8_t>(value, value + n)); });
}

// Waits until the key is there. The value is freed by `ext_bytes_free`.
char* ext_store_get(ExtStore* store, const char* key, int64_t timeout_ms, uint8_t** value, size_t* n) {
  return first_line([&] {
    store->store->wait({key}, milliseconds(timeout_ms));
    const std::vector<uint8_t> found = store->store->get(key);
    *value = static_cast<uint8_t*>(malloc(found.size() + 1));
    *n = found.size();
    memcpy(*value, found.data(), found.size());
  });
}

void ext_bytes_free(uint8_t* bytes) { free(bytes); }

char* ext_store_check(ExtStore* store, const char* key, bool* there) {
  return first_line([&] { *there = store->store->check({key}); });
}

char* ext_store_add(ExtStore* store, const char* key, int64_t by, int64_t* now) {
  return first_line([&] { *now = store->store->add(key, by); });
}

// Sets a key that nobody has set.
char* ext_store_first(ExtStore* store, const char* key, const uint8_t* value, size_t n) {
  return first_line([&] { store->store->compareSet(key, {}, std::vector<uint8_t>(value, value + n)); });
}

// A group whose processes reach this one at `address`, or by the network interface of that name.
char* ext_group_gloo(
    ExtGroup** out, const ExtStore* store, int rank, int world, int64_t timeout_ms, const char* address, bool interface) {
  return first_line([&] {
    using c10d::ProcessGroupGloo;
    auto options = ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(
        interface ? ProcessGroupGloo::createDeviceForInterface(address)
                  : ProcessGroupGloo::createDeviceForHostname(address));
    *out = new ExtGroup{c10::make_intrusive<ProcessGroupGloo>(store->store, rank, world, options)};
  });
}

void ext_group_free(ExtGroup* group) { delete group; }

char* ext_group_send(ExtWork** out, ExtGroup* group, const Tensor* tensor, int to, int tag) {
  return started(out, tensor, [&](std::vector<Tensor>& tensors) { return group->group->send(tensors, to, tag); });
}

char* ext_group_receive(ExtWork** out, ExtGroup* group, const Tensor* tensor, int from, int tag) {
  return started(out, tensor, [&](std::vector<Tensor>& tensors) { return group->group->recv(tensors, from, tag); });
}

// Slices of `in` of these lengths go to the processes in order; `out` gets theirs, one after the other.
char* ext_group_all_to_all(
    ExtGroup* group, const Tensor* out, const Tensor* in, const int64_t* out_lengths, const int64_t* in_lengths, size_t n) {
  return first_line([&] {
    Tensor to = flat(out), from = flat(in);
    std::vector<int64_t> outs(out_lengths, out_lengths + n), ins(in_lengths, in_lengths + n);
    group->group->alltoall_base(to, from, outs, ins)->wait();
  });
}

// Fills in `whole` the slices of the other processes: that of process r ends at `ends[r]`. Broadcasts in flight together
// take a quarter of the time of Gloo's all-gather.
char* ext_group_gather_in_place(ExtGroup* group, const Tensor* whole, const int64_t* ends, size_t n) {
  return first_line([&] {
    const Tensor all = flat(whole);
    std::vector<std::vector<Tensor>> slices;
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    slices.reserve(n);
    int64_t start = 0;
    for (size_t rank = 0; rank < n; start = ends[rank++]) {
      if (ends[rank] == start) continue;
      c10d::BroadcastOptions options;
      options.rootRank = static_cast<int64_t>(rank);
      slices.push_back({all.narrow(0, start, ends[rank] - start)});
      works.push_back(group->group->broadcast(slices.back(), options));
    }
    for (const auto& work : works) work->wait();
  });
}

char* ext_group_barrier(ExtWork** out, ExtGroup* group) {
  return first_line([&] { *out = new ExtWork{group->group->barrier(), {}}; });
}

char* ext_work_wait(ExtWork* work) {
  return first_line([&] { work->work->wait(); });
}

void ext_work_free(ExtWork* work) { delete work; }

// Ends the process without libtorch's destructors, which must not run while other threads are inside it.
[[noreturn]] void ext_exit(int code) { _exit(code); }
}
