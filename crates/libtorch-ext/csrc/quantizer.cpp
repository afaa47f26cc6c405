// Vector quantization for training on a CPU: the nearest code of each vector, and the entropy loss
// of soft assignments, a few vectors at a time, where libtorch makes some twenty passes over a
// matrix of all distances. The backward pass recomputes distances. fp32.
//
// M vectors, V codes, D channels

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>
#include <vector>

#include "caught.h"
#include "numbers.h"
#include "products.h"
#include "twice.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr int64_t VECTORS = 24;  // at a time
constexpr int64_t PARTS = 16;    // of all vectors, whatever the number of threads, so that sums are deterministic
constexpr float EPSILON = 1e-5f;

// Arguments of a call: vectors (M, D) and codes (V, D), contiguous.
struct Call {
  const float *vectors, *codes;
  int64_t m, v, d;
  float sharpness;            // 1 / temperature
  std::vector<float> transposed;  // codes as (D, V), padded
  std::vector<float> norms;   // |e|²
  std::vector<float> ones;    // backward: codes followed by a 1, (V, D + 1), padded

  Call(const Tensor& z, const Tensor& rows, double temperature, bool back)
      : vectors(z.data_ptr<float>()), codes(rows.data_ptr<float>()), m(z.size(0)), v(rows.size(0)), d(z.size(1)),
        sharpness(float(1 / temperature)), transposed(d * far(), 0.0f), norms(v, 0.0f) {
    for (int64_t code = 0; code < v; code++)
      for (int64_t i = 0; i < d; i++) {
        const float e = codes[code * d + i];
        transposed[i * far() + code] = e;
        norms[code] += e * e;
      }
    if (!back) return;
    ones.assign(v * wide(), 0.0f);
    for (int64_t code = 0; code < v; code++) {
      std::copy_n(codes + code * d, d, &ones[code * wide()]);
      ones[code * wide() + d] = 1;
    }
  }

  int64_t far() const { return padded(v) + GAP; }
  int64_t wide() const { return padded(d + 1); }
  // Rows of a part, and number of parts.
  int64_t share() const { return std::max(VECTORS, (m + PARTS - 1) / PARTS); }
  int64_t parts() const { return (m + share() - 1) / share(); }
};

// Results of a part, and scratch memory for a few of its vectors.
struct Scratch {
  std::vector<float> memory;
  Matrix distances, soft, z, dz;
  // Forward: nearest codes of all vectors; the part's sum of entropies, and of soft assignments
  // (V).
  int64_t* chosen = nullptr;
  float* usage = nullptr;
  double entropy = 0;
  // Backward: derivative by soft assignments (V), gradients of all vectors (M, D), of the part's
  // codes (V, D + 1), padded.
  const float* of_choice = nullptr;
  float scale = 0;
  float* of_vectors = nullptr;
  std::vector<float> of_codes;

  Scratch(const Scratch&) = delete;
  Scratch(Scratch&&) = default;
  explicit Scratch(const Call& call) : memory(2 * VECTORS * (call.far() + call.wide())) {
    const int64_t far = call.far(), wide = call.wide();
    distances = {memory.data(), far};
    soft = {distances.row(VECTORS), far};
    z = {soft.row(VECTORS), wide};
    dz = {z.row(VECTORS), wide};
  }
};

// Runs each part.
std::vector<Scratch> room_for(const Call& call) {
  std::vector<Scratch> targets;
  targets.reserve(call.parts());
  for (int64_t part = 0; part < call.parts(); part++) targets.emplace_back(call);
  return targets;
}

struct Some {
  const Call& call;
  int64_t from, end;  // vectors
  bool back;

  // |z|² + |e|² - 2 z·e of `count` vectors, which are copied to the scratch memory, followed by a 1.
  template <class V>
  INLINE void measure(Scratch& scratch, int64_t first, int64_t count) const {
    for (int64_t i = 0; i < count; i++) {
      float* row = scratch.z.row(i);
      std::copy_n(call.vectors + (first + i) * call.d, call.d, row);
      row[call.d] = 1;
    }
    product<V>(plain(scratch.z), {const_cast<float*>(call.transposed.data()), call.far()}, scratch.distances, count, padded(call.v),
               call.d, false);
    for (int64_t i = 0; i < count; i++) {
      float norm = 0, *d = scratch.distances.row(i);
      const float *z = scratch.z.row(i), *norms = call.norms.data();
      for (int64_t j = 0; j < call.d; j++) norm += z[j] * z[j];
      for (int64_t j = 0; j < call.v; j++) d[j] = norm + norms[j] - 2 * d[j];
    }
  }

  INLINE float least(const float* d) const {
    float least = std::numeric_limits<float>::infinity();
#pragma omp simd reduction(min : least)
    for (int64_t j = 0; j < call.v; j++) least = d[j] < least ? d[j] : least;
    return least;
  }

  // Soft assignments of a row and their entropy -Σ p log p.
  INLINE void choose(Scratch& scratch, int64_t i) const {
    const float *d = scratch.distances.row(i), nearest = least(d);
    float *p = scratch.soft.row(i), sum = 0, mean = 0;
    const float sharpness = call.sharpness;
#pragma omp simd reduction(+ : sum, mean)
    for (int64_t j = 0; j < call.v; j++) {
      const float x = (nearest - d[j]) * sharpness;
      p[j] = exponential(x);
      sum += p[j];
      mean += p[j] * x;
    }
    const float inverse = 1 / sum;
    scratch.entropy += std::log(sum) - mean * inverse;
    float* usage = scratch.usage;
    for (int64_t j = 0; j < call.v; j++) usage[j] += p[j] * inverse;
  }

  // Replaces distances by the loss's derivative: p (log p + H + c - Σ p c) / (M T), where c is the
  // derivative by p's mean.
  INLINE void derive(Scratch& scratch, int64_t i) const {
    float *d = scratch.distances.row(i), *p = scratch.soft.row(i), sum = 0, mean = 0, usual = 0;
    const float nearest = least(d), sharpness = call.sharpness, *c = scratch.of_choice;
#pragma omp simd reduction(+ : sum, mean, usual)
    for (int64_t j = 0; j < call.v; j++) {
      const float x = (nearest - d[j]) * sharpness;
      p[j] = exponential(x);
      sum += p[j];
      mean += p[j] * x;
      usual += p[j] * c[j];
    }
    const float inverse = 1 / sum, shift = -(mean + usual) * inverse, scale = scratch.scale * inverse;
    for (int64_t j = 0; j < call.v; j++) d[j] = scale * p[j] * ((nearest - d[j]) * sharpness + c[j] + shift);
  }

  template <class V>
  INLINE void run(Scratch& scratch) const {
    for (int64_t first = from; first < end; first += VECTORS) {
      const int64_t count = std::min(VECTORS, end - first);
      measure<V>(scratch, first, count);
      for (int64_t i = 0; i < count; i++) {
        const float* d = scratch.distances.row(i);
        if (back) {
          derive(scratch, i);
          continue;
        }
        const float nearest = least(d);
        int64_t code = 0;
        while (code + 1 < call.v && d[code] != nearest) code++;
        scratch.chosen[first + i] = d[code] == nearest ? code : 0;
        choose(scratch, i);
      }
      if (!back) continue;
      // By a vector 2 (z Σ g - Σ g e), by a code 2 (e Σ g - Σ g z); the trailing 1 gives the sum of
      // g.
      const int64_t wide = call.wide();
      product<V>(plain(scratch.distances), {const_cast<float*>(call.ones.data()), wide}, scratch.dz, count, wide, call.v, false);
      for (int64_t i = 0; i < count; i++) {
        const float *z = scratch.z.row(i), *sums = scratch.dz.row(i);
        float* out = scratch.of_vectors + (first + i) * call.d;
        for (int64_t j = 0; j < call.d; j++) out[j] = 2 * (z[j] * sums[call.d] - sums[j]);
      }
      product<V>(transposed(scratch.distances), scratch.z, {scratch.of_codes.data(), wide}, call.v, wide, count, true);
    }
  }
};

void run(const Call& call, std::vector<Scratch>& targets, bool back) {
  const auto some = best<Some, Scratch>();
  at::parallel_for(0, call.parts(), 1, [&](int64_t from, int64_t to) {
    for (int64_t part = from; part < to; part++)
      some({call, part * call.share(), std::min(call.m, (part + 1) * call.share()), back}, targets[part]);
  });
}

// The loss by libtorch's operations.
Tensor plain_loss(const Tensor& z, const Tensor& codes, double temperature) {
  const auto norms = [](const Tensor& x) { return x.square().sum(-1, true); };
  const Tensor distances = norms(z) + norms(codes).t() - 2 * z.matmul(codes.t());
  const Tensor choices = (distances / -temperature).log_softmax(-1), p = choices.exp(), mean = p.mean(0);
  return (mean * (mean + double(EPSILON)).log()).sum() - (p * choices).sum() / double(z.size(0));
}

// Codes (M), and mean entropy of soft assignments minus entropy of their mean.
struct Choice : torch::autograd::Function<Choice> {
  static variable_list forward(AutogradContext* ctx, const Tensor& given, const Tensor& rows, double temperature) {
    const Tensor z = given.contiguous(), codes = rows.contiguous();
    const Call call(z, codes, temperature, false);
    const Tensor chosen = at::empty({call.m}, z.options().dtype(at::kLong));
    Tensor usage = at::zeros({call.parts(), call.v}, z.options());
    std::vector<Scratch> targets = room_for(call);
    for (int64_t part = 0; part < call.parts(); part++) {
      targets[part].chosen = chosen.data_ptr<int64_t>();
      targets[part].usage = usage.data_ptr<float>() + part * call.v;
    }
    run(call, targets, false);
    double entropy = 0, spread = 0;
    for (const Scratch& scratch : targets) entropy += scratch.entropy;
    usage = usage.sum(0).div_(double(call.m));
    const float* mean = usage.data_ptr<float>();
    for (int64_t j = 0; j < call.v; j++) spread -= mean[j] * std::log(mean[j] + EPSILON);
    ctx->save_for_backward({given, rows, usage});
    ctx->saved_data["temperature"] = temperature;
    ctx->mark_non_differentiable({chosen});
    return {chosen, at::empty({}, z.options()).fill_(entropy / double(call.m) - spread)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const double temperature = ctx->saved_data["temperature"].toDouble();
    if (differentiates_twice()) {
      const auto plain = [&](const variable_list& in) { return plain_loss(in[0], in[1], temperature); };
      variable_list gradients = recorded_gradients(plain, {saved[0], saved[1]}, grads[1]);
      gradients.emplace_back();
      return gradients;
    }
    const Tensor z = saved[0].contiguous(), codes = saved[1].contiguous();
    const Call call(z, codes, temperature, true);
    std::vector<float> of_choice(call.v);
    const float* mean = saved[2].data_ptr<float>();
    for (int64_t j = 0; j < call.v; j++)
      of_choice[j] = -(std::log(mean[j] + EPSILON) + mean[j] / (mean[j] + EPSILON));
    Tensor dz = at::empty_like(z), de = at::empty_like(codes);
    std::vector<Scratch> targets = room_for(call);
    for (Scratch& scratch : targets) {
      scratch.of_choice = of_choice.data();
      scratch.scale = grads[1].item<float>() * call.sharpness / float(call.m);
      scratch.of_vectors = dz.data_ptr<float>();
      scratch.of_codes.assign(call.v * call.wide(), 0.0f);
    }
    run(call, targets, true);
    std::vector<float> sums = std::move(targets[0].of_codes);
    for (size_t part = 1; part < targets.size(); part++)
      for (size_t i = 0; i < sums.size(); i++) sums[i] += targets[part].of_codes[i];
    float* out = de.data_ptr<float>();
    for (int64_t code = 0; code < call.v; code++) {
      const float* sum = &sums[code * call.wide()];
      for (int64_t i = 0; i < call.d; i++)
        out[code * call.d + i] = 2 * (call.codes[code * call.d + i] * sum[call.d] - sum[i]);
    }
    return {dz, de, Tensor()};
  }
};

}  // namespace

// Vectors (M, D) and codes (V, D) → the nearest codes (M) int64, and the entropy loss.
extern "C" char* ext_choice(Tensor** chosen, Tensor** loss, const Tensor* z, const Tensor* codes, double temperature) {
  return caught([&] {
    const variable_list out = Choice::apply(*z, *codes, temperature);
    *chosen = new Tensor(out[0]);
    *loss = new Tensor(out[1]);
  });
}
