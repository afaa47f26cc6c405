// Fused layers for training on a CPU, forward and backward, as nodes of libtorch's graph, and
// libtorch's fused AdamW. fp32 or bf16 in memory, fp32 arithmetic; a row's result does not depend
// on the others. Functions return null, or an error message that the caller frees.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "caught.h"
#include "numbers.h"
#include "twice.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Loops over one row.

// y = x r w with r = 1 / sqrt(mean(x²) + eps), which is returned.
CLONES float rms_norm(const float* x, const float* w, float* y, int64_t n, float eps) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
  const float r = 1 / std::sqrt(sum / float(n) + eps);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * r * w[i];
  return r;
}

// dx = r (g w - x̂ mean(g w x̂)) with x̂ = x r; dw += g x̂.
CLONES void rms_norm_backward(const float* x, const float* w, const float* g, float r, float* dx, float* dw, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) {
    const float h = g[i] * x[i] * r;
    dw[i] += h;
    sum += h * w[i];
  }
  const float mean = sum / float(n) * r;
  for (int64_t i = 0; i < n; i++) dx[i] = r * (g[i] * w[i] - x[i] * mean);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

CLONES void swiglu(const float* a, const float* b, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = a[i] * sigmoid(a[i]) * b[i];
}

CLONES void swiglu_backward(const float* a, const float* b, const float* g, float* da, float* db, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const float s = sigmoid(a[i]);
    db[i] = g[i] * a[i] * s;
    da[i] = g[i] * b[i] * s * (1.0f + a[i] * (1.0f - s));
  }
}

// Returns -log softmax(x)[code] · weight; y becomes its gradient by x, weight (softmax(x) -
// one-hot). y may be x.
CLONES float cross_entropy(const float* x, float* y, int64_t n, int64_t code, float weight) {
  float largest = x[0];
#pragma omp simd reduction(max : largest)
  for (int64_t i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
  const float chosen = x[code] - largest;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) {
    y[i] = exponential(x[i] - largest);
    sum += y[i];
  }
  const float scale = weight / sum;
  for (int64_t i = 0; i < n; i++) y[i] *= scale;
  y[code] -= weight;
  return weight * (std::log(sum) - chosen);
}

inline uint32_t mix(uint32_t h) {  // lowbias32 of Chris Wellons' hash-prospector
  h = (h ^ h >> 16) * 0x7feb352du;
  h = (h ^ h >> 15) * 0x846ca68bu;
  return h ^ h >> 16;
}

// y = a / (1 - p) where the mask, a function of the row's key, keeps it.
CLONES void dropped(const float* a, float* y, int64_t n, uint32_t key, uint32_t limit, float scale) {
  for (int64_t i = 0; i < n; i++) y[i] = mix(mix(uint32_t(i) + key) ^ key) >= limit ? a[i] * scale : 0.0f;
}

// y = x + the same.
CLONES void add_dropped(const float* x, const float* a, float* y, int64_t n, uint32_t key, uint32_t limit, float scale) {
  for (int64_t i = 0; i < n; i++) y[i] = x[i] + (mix(mix(uint32_t(i) + key) ^ key) >= limit ? a[i] * scale : 0.0f);
}

// Rows of tensors as fp32: in place, or in a buffer.

struct Rows {
  char* data;
  int64_t width;
  bool wide;

  explicit Rows(const Tensor& t)
      : data(static_cast<char*>(t.data_ptr())), width(t.size(-1)), wide(t.scalar_type() == at::kFloat) {}

  char* at(int64_t row) const { return data + row * width * (wide ? 4 : 2); }

  const float* read(int64_t row, std::vector<float>& buffer) const {
    if (wide) return reinterpret_cast<const float*>(at(row));
    buffer.resize(width);
    widen(reinterpret_cast<const uint16_t*>(at(row)), buffer.data(), width);
    return buffer.data();
  }

  // Memory to write a row to; `written` must follow.
  float* place(int64_t row, std::vector<float>& buffer) const {
    if (wide) return reinterpret_cast<float*>(at(row));
    buffer.resize(width);
    return buffer.data();
  }

  void written(int64_t row, const std::vector<float>& buffer) const {
    if (!wide) narrow(buffer.data(), reinterpret_cast<uint16_t*>(at(row)), width);
  }
};

// Rows of a chunk, whatever the number of threads, so that sums over rows are deterministic.
constexpr int64_t CHUNK = 64;

int64_t count(const Tensor& t) { return t.numel() / std::max<int64_t>(t.size(-1), 1); }

// Calls `work(chunk, first row, end)` for all chunks.
template <class Work>
void in_chunks(int64_t rows, const Work& work) {
  const int64_t chunks = (rows + CHUNK - 1) / CHUNK;
  at::parallel_for(0, chunks, 1, [&](int64_t from, int64_t to) {
    for (int64_t c = from; c < to; c++) work(c, c * CHUNK, std::min(rows, (c + 1) * CHUNK));
  });
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, double eps) {
    const Tensor x = input.contiguous(), w = weight.to(at::kFloat).contiguous();
    const int64_t rows = count(x);
    Tensor y = at::empty_like(x), r = at::empty({rows}, w.options());
    const Rows xs(x), ys(y);
    float* scales = r.data_ptr<float>();
    const float* weights = w.data_ptr<float>();
    in_chunks(rows, [&](int64_t, int64_t from, int64_t to) {
      std::vector<float> in, out;
      for (int64_t i = from; i < to; i++) {
        scales[i] = rms_norm(xs.read(i, in), weights, ys.place(i, out), xs.width, float(eps));
        ys.written(i, out);
      }
    });
    ctx->save_for_backward({input, weight, r});
    ctx->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    if (differentiates_twice()) {
      const double eps = ctx->saved_data["eps"].toDouble();
      const auto plain = [eps](const variable_list& in) {
        const Tensor x = in[0].to(at::kFloat);
        const Tensor r = (x.square().mean(-1, true) + eps).rsqrt();
        return (x * r * in[1].to(at::kFloat)).to(in[0].scalar_type());
      };
      const auto found = recorded_gradients(plain, {saved[0], saved[1]}, grads[0]);
      return {found[0], found[1], Tensor()};
    }
    const Tensor x = saved[0].contiguous(), w = saved[1].to(at::kFloat).contiguous(), r = saved[2],
                 g = grads[0].contiguous();
    const int64_t rows = count(x), width = x.size(-1);
    Tensor dx = at::empty_like(x), dw = at::zeros({(rows + CHUNK - 1) / CHUNK, width}, w.options());
    const Rows xs(x), gs(g), dxs(dx);
    const float *weights = w.data_ptr<float>(), *scales = r.data_ptr<float>();
    float* sums = dw.data_ptr<float>();
    in_chunks(rows, [&](int64_t chunk, int64_t from, int64_t to) {
      std::vector<float> in, grad, out;
      for (int64_t i = from; i < to; i++) {
        rms_norm_backward(xs.read(i, in), weights, gs.read(i, grad), scales[i], dxs.place(i, out), sums + chunk * width,
                          width);
        dxs.written(i, out);
      }
    });
    return {dx, dw.sum(0).to(saved[1].scalar_type()), Tensor()};
  }
};

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate, const Tensor& up) {
    const Tensor a = gate.contiguous(), b = up.contiguous();
    Tensor y = at::empty_like(a);
    const Rows as(a), bs(b), ys(y);
    in_chunks(count(a), [&](int64_t, int64_t from, int64_t to) {
      std::vector<float> in, other, out;
      for (int64_t i = from; i < to; i++) {
        swiglu(as.read(i, in), bs.read(i, other), ys.place(i, out), as.width);
        ys.written(i, out);
      }
    });
    ctx->save_for_backward({gate, up});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    if (differentiates_twice()) {
      const auto plain = [](const variable_list& in) { return in[0] * in[0].sigmoid() * in[1]; };
      return recorded_gradients(plain, saved, grads[0]);
    }
    const Tensor a = saved[0].contiguous(), b = saved[1].contiguous(), g = grads[0].contiguous();
    Tensor da = at::empty_like(a), db = at::empty_like(b);
    const Rows as(a), bs(b), gs(g), das(da), dbs(db);
    in_chunks(count(a), [&](int64_t, int64_t from, int64_t to) {
      std::vector<float> in, other, grad, out, out_other;
      for (int64_t i = from; i < to; i++) {
        swiglu_backward(as.read(i, in), bs.read(i, other), gs.read(i, grad), das.place(i, out), dbs.place(i, out_other),
                        as.width);
        das.written(i, out);
        dbs.written(i, out_other);
      }
    });
    return {da, db};
  }
};

// `x`, if there is one, plus dropout of `a`.
Tensor with_dropped(const Tensor* x, const Tensor& a, double p, int64_t seed) {
  Tensor y = at::empty_like(a);
  const Rows as(a), ys(y), xs(x ? *x : a);
  const auto limit = uint32_t(p * 4294967296.0);
  const auto scale = float(1 / (1 - p));
  const auto low = uint32_t(seed), high = uint32_t(uint64_t(seed) >> 32);
  in_chunks(count(a), [&](int64_t, int64_t from, int64_t to) {
    std::vector<float> in, other, out;
    for (int64_t i = from; i < to; i++) {
      const uint32_t key = mix(mix(uint32_t(i) ^ low) + high);
      const float* from_a = as.read(i, in);
      float* to_y = ys.place(i, out);
      if (x)
        add_dropped(xs.read(i, other), from_a, to_y, as.width, key, limit, scale);
      else
        dropped(from_a, to_y, as.width, key, limit, scale);
      ys.written(i, out);
    }
  });
  return y;
}

// Linear, so that it is its own gradient.
struct Dropped : torch::autograd::Function<Dropped> {
  static Tensor forward(AutogradContext* ctx, const Tensor& a, double p, int64_t seed) {
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    return with_dropped(nullptr, a.contiguous(), p, seed);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {apply(grads[0], ctx->saved_data["p"].toDouble(), ctx->saved_data["seed"].toInt()), Tensor(), Tensor()};
  }
};

struct AddDropped : torch::autograd::Function<AddDropped> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& a, double p, int64_t seed) {
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    const Tensor base = x.contiguous();
    return with_dropped(&base, a.contiguous(), p, seed);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const double p = ctx->saved_data["p"].toDouble();
    const int64_t seed = ctx->saved_data["seed"].toInt();
    return {grads[0], Dropped::apply(grads[0], p, seed), Tensor(), Tensor()};
  }
};

// The identity, with a gradient that cannot be differentiated again.
struct Once : torch::autograd::Function<Once> {
  static Tensor forward(AutogradContext*, const Tensor& x) { return x.view_as(x); }

  static variable_list backward(AutogradContext*, const variable_list& grads) {
    TORCH_CHECK(!differentiates_twice(), "this can be differentiated once only: its gradient was taken along with it, and has no graph");
    return {grads[0]};
  }
};

// Loss of each row; its gradient replaces the logits.
Tensor cross_entropies(const Tensor& logits, const Tensor& codes, const Tensor& weights) {
  Tensor losses = at::empty({count(logits)}, weights.options());
  const Rows rows(logits);
  const int64_t* code = codes.data_ptr<int64_t>();
  const float* weight = weights.data_ptr<float>();
  float* loss = losses.data_ptr<float>();
  in_chunks(count(logits), [&](int64_t, int64_t from, int64_t to) {
    std::vector<float> in;
    for (int64_t i = from; i < to; i++) {
      TORCH_CHECK_INDEX(0 <= code[i] && code[i] < rows.width, "code ", code[i], " of ", rows.width);
      const float* x = rows.read(i, in);
      loss[i] = cross_entropy(x, rows.place(i, in), rows.width, code[i], weight[i]);
      rows.written(i, in);
    }
  });
  return losses;
}

}  // namespace

extern "C" {

char* ext_rms_norm(Tensor** out, const Tensor* x, const Tensor* weight, double eps) {
  return caught([&] { *out = new Tensor(RmsNorm::apply(*x, *weight, eps)); });
}

char* ext_swiglu(Tensor** out, const Tensor* gate, const Tensor* up) {
  return caught([&] { *out = new Tensor(SwiGlu::apply(*gate, *up)); });
}

char* ext_add_dropped(Tensor** out, const Tensor* x, const Tensor* a, double p, int64_t seed) {
  return caught([&] { *out = new Tensor(AddDropped::apply(*x, *a, p, seed)); });
}

char* ext_once(Tensor** out, const Tensor* x) {
  return caught([&] { *out = new Tensor(Once::apply(*x)); });
}

char* ext_cross_entropies(Tensor** out, const Tensor* logits, const Tensor* codes, const Tensor* weights) {
  return caught([&] { *out = new Tensor(cross_entropies(*logits, *codes, *weights)); });
}

// Lists of `n`: parameters, gradients, both moments, and the number of this step for each.
char* ext_adamw(Tensor* const* lists, size_t n, double lr, double beta1, double beta2, double weight_decay, double eps) {
  return caught([&] {
    std::vector<Tensor> of[5];
    for (size_t list = 0; list < 5; list++)
      for (size_t i = 0; i < n; i++) of[list].push_back(*lists[list * n + i]);
    at::_fused_adamw_(of[0], of[1], of[2], of[3], {}, of[4], lr, beta1, beta2, weight_decay, eps, false, false);
  });
}

void ext_free(char* text) { free(text); }
}
