// Thread-local random generators: libtorch's operations take a generator, for which tch always
// passes the global one. Functions return null, or an error message that the caller frees.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>

#include <cstdint>
#include <limits>
#include <optional>

#include "caught.h"

using at::Tensor;

namespace {

// Empty: libtorch uses the global generator.
thread_local std::optional<at::Generator> own;

}  // namespace

extern "C" {

char* ext_random_begin(int64_t seed) {
  return caught([&] { own = at::detail::createCPUGenerator(uint64_t(seed)); });
}

void ext_random_end() { own.reset(); }

// False if the thread has no generator.
bool ext_random_seed(int64_t seed) {
  if (own) own->set_current_seed(uint64_t(seed));
  return own.has_value();
}

char* ext_random_uniform(Tensor** out, const int64_t* shape, size_t axes, bool wide) {
  return caught([&] {
    *out = new Tensor(at::rand(at::IntArrayRef(shape, axes), own, at::TensorOptions(wide ? at::kDouble : at::kFloat)));
  });
}

char* ext_random_integer(int64_t* out) {
  return caught([&] {
    const Tensor drawn = at::randint(std::numeric_limits<int64_t>::max(), {1}, own, at::TensorOptions(at::kLong));
    *out = drawn.data_ptr<int64_t>()[0];
  });
}

// Bit by bit libtorch's own dropout.
char* ext_random_dropout(Tensor** out, const Tensor* x, double p) {
  return caught([&] {
    Tensor kept = at::empty_like(*x);
    kept.bernoulli_(1 - p, own).div_(1 - p);
    *out = new Tensor(x->mul(kept));
  });
}
}
