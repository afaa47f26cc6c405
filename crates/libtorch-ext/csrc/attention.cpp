// Attention for training on a CPU, forward and backward, with rotary embedding: from the qkv
// projection's output to the output projection's input. A thread computes one head of one sequence
// within its second-level cache: a few queries at a time against all keys, so that the matrix of
// scores is never stored; the backward pass recomputes softmaxes. fp32 or bf16 in memory, fp32
// arithmetic.
//
// L queries, S positions of keys and values, H heads, K channels of a head

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "caught.h"
#include "numbers.h"
#include "products.h"
#include "twice.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr int64_t QUERIES = 48;  // at a time
constexpr int64_t AHEAD = 8;     // rows prefetched

// Queries, keys or values of all positions, (B, length, H, K), in a contiguous tensor that they may
// share.
struct Part {
  Tensor tensor;
  Tensor gradient;  // backward only
  int64_t length, stride, offset;
};

// Arguments of a call; out, or its gradient, is (B, L, H, K).
struct Call {
  const Part* parts;  // queries, keys, values
  const Tensor& out;
  bool back;
  const float* rotary;  // (S, K/2, 2) cosine and sine, or null; S = L then
  int64_t heads, width;
  bool causal;  // S = L then

  int64_t queries() const { return parts[0].length; }
  int64_t length() const { return parts[1].length; }

  float scale() const { return 1 / std::sqrt(float(width)); }
};

// Scratch memory of one thread.
struct Scratch {
  std::vector<float> memory;
  int64_t used = 0;
  Matrix q, k, v, keys, values, p, o, g, dp, dq, dk, dv;

  explicit Scratch(const Call& call) {
    const int64_t wide = padded(call.width) + GAP, far = padded(call.length()) + GAP;
    const int64_t l = call.queries(), s = call.length(), k_rows = padded(call.width);
    memory.resize((2 * l + 4 * s) * wide + 2 * k_rows * far + 2 * QUERIES * (far + wide));
    for (Matrix* m : {&q, &g}) *m = take(l, wide);
    for (Matrix* m : {&k, &v, &dk, &dv}) *m = take(s, wide);
    for (Matrix* m : {&keys, &values}) *m = take(k_rows, far);
    for (Matrix* m : {&p, &dp}) *m = take(QUERIES, far);
    for (Matrix* m : {&o, &dq}) *m = take(QUERIES, wide);
  }

  Matrix take(int64_t rows, int64_t stride) {
    const Matrix m = {memory.data() + used, stride};
    used += rows * stride;
    return m;
  }
};

// Reads the K numbers of a row of a tensor as fp32.
void read(const Tensor& t, int64_t at, float* to, int64_t n) {
  if (t.scalar_type() == at::kFloat)
    std::memcpy(to, static_cast<const float*>(t.data_ptr()) + at, n * sizeof(float));
  else
    widen(static_cast<const uint16_t*>(t.data_ptr()) + at, to, n);
}

void write(const Tensor& t, int64_t at, const float* from, int64_t n) {
  if (t.scalar_type() == at::kFloat)
    std::memcpy(static_cast<float*>(t.data_ptr()) + at, from, n * sizeof(float));
  else
    narrow(from, static_cast<uint16_t*>(t.data_ptr()) + at, n);
}

// Prefetches a head's row, too far from the last one for the hardware prefetcher.
void prefetch(const Tensor& t, int64_t at, int64_t n) {
  const char* data = static_cast<const char*>(t.data_ptr());
  for (int64_t byte = at * t.element_size(); byte < (at + n) * t.element_size(); byte += 64) __builtin_prefetch(data + byte);
}

// Rotates pairs of channels by a row of the table, or back by its transpose.
INLINE void rotate(float* x, const float* row, int64_t width, bool back) {
  for (int64_t i = 0; i < width; i += 2) {
    const float c = row[i], s = back ? -row[i + 1] : row[i + 1], x0 = x[i], x1 = x[i + 1];
    x[i] = x0 * c - x1 * s;
    x[i + 1] = x0 * s + x1 * c;
  }
}

INLINE void transpose(Matrix from, Matrix to, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i += 16)
    for (int64_t j = 0; j < columns; j++)
      for (int64_t r = i; r < std::min(rows, i + 16); r++) to.row(j)[r] = from.row(r)[j];
}

struct Head {
  const Call& call;
  int64_t batch, head;

  // Offset of this head's numbers of a position.
  int64_t at(const Part& part, int64_t position) const {
    return (batch * part.length + position) * part.stride + part.offset + head * call.width;
  }
  int64_t joined(int64_t position) const {
    return ((batch * call.queries() + position) * call.heads + head) * call.width;
  }
  const float* rotation(int64_t position) const { return call.rotary + position * call.width; }

  INLINE void load(Scratch& scratch) const {
    const Matrix targets[3] = {scratch.q, scratch.k, scratch.v};
    for (int64_t i = 0; i < std::max(call.queries(), call.length()); i++)
      for (int which = 0; which < 3; which++) {
        const Part& part = call.parts[which];
        if (i >= part.length) continue;
        if (i + AHEAD < part.length) prefetch(part.tensor, at(part, i + AHEAD), call.width);
        float* row = targets[which].row(i);
        read(part.tensor, at(part, i), row, call.width);
        if (which < 2 && call.rotary) rotate(row, rotation(i), call.width, false);
      }
    transpose(scratch.k, scratch.keys, call.length(), call.width);
  }

  // Number of positions that queries before `end` attend to.
  int64_t visible(int64_t end) const { return call.causal ? std::min(end, call.length()) : call.length(); }

  // softmax(q kᵀ / √K) of queries `from..from + count`, into p.
  template <class V>
  INLINE void weigh(Scratch& scratch, int64_t from, int64_t count) const {
    const Matrix q = {scratch.q.row(from), scratch.q.stride};
    const int64_t columns = padded(visible(from + count));
    const float scale = call.scale();
    product<V>(plain(q), scratch.keys, scratch.p, count, columns, call.width, false);
    for (int64_t i = 0; i < count; i++) {
      float* p = scratch.p.row(i);
      const int64_t n = visible(from + i + 1);
      float most = p[0], sum = 0;
#pragma omp simd reduction(max : most)
      for (int64_t j = 1; j < n; j++) most = p[j] > most ? p[j] : most;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < n; j++) {
        p[j] = exponential((p[j] - most) * scale);
        sum += p[j];
      }
      const float inverse = 1 / sum;
      for (int64_t j = 0; j < n; j++) p[j] *= inverse;
      for (int64_t j = n; j < columns; j++) p[j] = 0;
    }
  }

  template <class V>
  INLINE void forward(Scratch& scratch) const {
    load(scratch);
    for (int64_t from = 0; from < call.queries(); from += QUERIES) {
      const int64_t count = std::min(QUERIES, call.queries() - from);
      weigh<V>(scratch, from, count);
      product<V>(plain(scratch.p), scratch.v, scratch.o, count, padded(call.width), visible(from + count), false);
      for (int64_t i = 0; i < count; i++) write(call.out, joined(from + i), scratch.o.row(i), call.width);
    }
  }

  // dv = pᵀ g; dp = g vᵀ; ds = p (dp - Σ p dp) / √K; dq = ds k; dk = dsᵀ q.
  template <class V>
  INLINE void backward(Scratch& scratch) const {
    load(scratch);
    transpose(scratch.v, scratch.values, call.length(), call.width);
    for (int64_t i = 0; i < call.queries(); i++) {
      if (i + AHEAD < call.queries()) prefetch(call.out, joined(i + AHEAD), call.width);
      read(call.out, joined(i), scratch.g.row(i), call.width);
    }
    for (int64_t i = 0; i < call.length(); i++) {
      std::fill_n(scratch.dk.row(i), padded(call.width), 0.0f);
      std::fill_n(scratch.dv.row(i), padded(call.width), 0.0f);
    }
    const int64_t width = padded(call.width);
    const float scale = call.scale();
    for (int64_t from = 0; from < call.queries(); from += QUERIES) {
      const int64_t count = std::min(QUERIES, call.queries() - from), n = visible(from + count), columns = padded(n);
      const Matrix q = {scratch.q.row(from), scratch.q.stride}, g = {scratch.g.row(from), scratch.g.stride};
      weigh<V>(scratch, from, count);
      product<V>(transposed(scratch.p), g, scratch.dv, n, width, count, true);
      product<V>(plain(g), scratch.values, scratch.dp, count, columns, call.width, false);
      for (int64_t i = 0; i < count; i++) {
        const float* p = scratch.p.row(i);
        float *dp = scratch.dp.row(i), mean = 0;
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j < columns; j++) mean += p[j] * dp[j];
        for (int64_t j = 0; j < columns; j++) dp[j] = p[j] * (dp[j] - mean) * scale;
      }
      product<V>(plain(scratch.dp), scratch.k, scratch.dq, count, width, n, false);
      product<V>(transposed(scratch.dp), q, scratch.dk, n, width, count, true);
      for (int64_t i = 0; i < count; i++) give(0, from + i, scratch.dq.row(i));
    }
    for (int64_t i = 0; i < call.length(); i++) {
      give(1, i, scratch.dk.row(i));
      give(2, i, scratch.dv.row(i));
    }
  }

  INLINE void give(int which, int64_t position, float* row) const {
    if (which < 2 && call.rotary) rotate(row, rotation(position), call.width, true);
    write(call.parts[which].gradient, at(call.parts[which], position), row, call.width);
  }

  template <class V>
  INLINE void run(Scratch& scratch) const {
    call.back ? backward<V>(scratch) : forward<V>(scratch);
  }
};

void run(const Call& call) {
  const auto head = best<Head, Scratch>();
  at::parallel_for(0, call.parts[0].tensor.size(0) * call.heads, 1, [&](int64_t from, int64_t to) {
    Scratch scratch(call);
    for (int64_t i = from; i < to; i++) head({call, i / call.heads, i % call.heads}, scratch);
  });
}

using Table = std::optional<Tensor>;

// Attention by libtorch's operations, of one tensor or three.
Tensor plain_attention(const variable_list& inputs, const Tensor& rotary, int64_t heads, bool causal) {
  const variable_list parts = inputs.size() == 1 ? inputs[0].chunk(3, -1) : inputs;
  const auto split = [&](const Tensor& x) { return x.to(at::kFloat).unflatten(-1, {heads, -1}).transpose(1, 2); };
  const auto rotated = [&](const Tensor& x) {
    if (!rotary.defined()) return x;
    const Tensor pairs = x.unflatten(-1, {-1, 2}), cosine = rotary.select(-1, 0), sine = rotary.select(-1, 1);
    const Tensor re = pairs.select(-1, 0), im = pairs.select(-1, 1);
    return at::stack({re * cosine - im * sine, re * sine + im * cosine}, -1).flatten(-2);
  };
  const Tensor q = rotated(split(parts[0])), k = rotated(split(parts[1])), v = split(parts[2]);
  Tensor scores = q.matmul(k.transpose(-2, -1)) / std::sqrt(double(q.size(-1)));
  if (causal) scores = scores.masked_fill(at::ones({q.size(2), k.size(2)}, at::kBool).triu(1), -INFINITY);
  return scores.softmax(-1).matmul(v).transpose(1, 2).flatten(-2).to(inputs[0].scalar_type());
}

// One tensor (B, S, 3HK), or three, (B, L, HK), (B, S, HK) and (B, S, HK).
struct Attention : torch::autograd::Function<Attention> {
  static Tensor pass(const variable_list& inputs, const variable_list& gradients, const Tensor& rotary, int64_t heads,
                     bool causal, Tensor g) {
    const bool packed = inputs.size() == 1;
    const int64_t joined = inputs[0].size(2) / (packed ? 3 : 1);
    Part parts[3];
    for (size_t i = 0; i < 3; i++) {
      const size_t from = packed ? 0 : i;
      const Tensor& t = inputs[from];
      parts[i] = {t, gradients.empty() ? Tensor() : gradients[from], t.size(1), t.size(2), packed ? int64_t(i) * joined : 0};
    }
    const float* table = rotary.defined() ? rotary.data_ptr<float>() : nullptr;
    const Tensor out = g.defined() ? g : at::empty({inputs[0].size(0), inputs[0].size(1), joined}, inputs[0].options());
    run({parts, out, g.defined(), table, heads, joined / heads, causal});
    return out;
  }

  static variable_list contiguous(at::TensorList given) {
    variable_list all;
    for (const Tensor& t : given) all.push_back(t.contiguous());
    return all;
  }

  static Tensor forward(AutogradContext* ctx, at::TensorList given, const Table& table, int64_t heads, bool causal) {
    const Tensor rotary = table.value_or(Tensor());
    const Tensor out = pass(contiguous(given), {}, rotary, heads, causal, Tensor());
    // The original inputs, since contiguous copies have no graph.
    variable_list saved = given.vec();
    saved.push_back(rotary);
    ctx->save_for_backward(saved);
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["causal"] = causal;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list given = ctx->get_saved_variables(), gradients;
    const Tensor rotary = given.back();
    given.pop_back();
    const int64_t heads = ctx->saved_data["heads"].toInt();
    const bool causal = ctx->saved_data["causal"].toBool();
    if (differentiates_twice()) {
      const auto plain = [&](const variable_list& in) { return plain_attention(in, rotary, heads, causal); };
      gradients = recorded_gradients(plain, given, grads[0]);
    } else {
      const variable_list inputs = contiguous(given);
      for (const Tensor& t : inputs) gradients.push_back(at::empty_like(t));
      pass(inputs, gradients, rotary, heads, causal, grads[0].contiguous());
    }
    gradients.insert(gradients.end(), 3, Tensor());
    return gradients;
  }
};

}  // namespace

extern "C" {

// qkv (B, S, 3HK) → out (B, S, HK). The table (S, K/2, 2), if any, is fp32 and contiguous.
char* ext_attention(Tensor** out, const Tensor* qkv, const Tensor* rotary, int64_t heads, bool causal) {
  return caught([&] {
    const Tensor inputs[] = {*qkv};
    *out = new Tensor(Attention::apply(at::TensorList(inputs), rotary ? Table(*rotary) : Table(), heads, causal));
  });
}

// (B, L, HK), (B, S, HK), (B, S, HK) → (B, L, HK).
char* ext_attention_of(Tensor** out, const Tensor* q, const Tensor* k, const Tensor* v, int64_t heads) {
  return caught([&] {
    const Tensor inputs[] = {*q, *k, *v};
    *out = new Tensor(Attention::apply(at::TensorList(inputs), Table(), heads, false));
  });
}
}
