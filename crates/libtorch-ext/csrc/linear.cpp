// The linear layer for training on a CPU in fp32: its three products by oneDNN. libtorch uses MKL,
// which is slower on some processors (it reaches two thirds of the peak of an AMD processor with
// AVX-512, oneDNN nearly all of it). Functions return null, or an error message that the caller
// frees.

#include <ATen/Parallel.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "caught.h"
#include "twice.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

using Bias = std::optional<Tensor>;
using Text = std::optional<c10::string_view>;
using Scalars = c10::List<std::optional<at::Scalar>>;
using Product = Tensor(const Tensor&, const Tensor&, const Bias&, c10::string_view, Scalars, Text);

// libtorch's operation for oneDNN; null if this libtorch has none.
std::optional<c10::TypedOperatorHandle<Product>> find() {
  const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found) return std::nullopt;
  return found->typed<Product>();
}

const auto& operation() {
  static const auto found = find();
  return found;
}

// (M, K), (N, K) → (M, N).
Tensor product(const Tensor& x, const Tensor& weight, const Bias& bias) {
  return operation()->call(x, weight, bias, "none", Scalars(), std::nullopt);
}

typedef float Four __attribute__((vector_size(16)));

// Transposes four rows of `from`.
void transpose_four(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  Four a[4], b[4];
  for (int i = 0; i < 4; i++) std::memcpy(&a[i], from + i * from_stride, sizeof(Four));
  for (int i = 0; i < 2; i++) {
    b[2 * i] = __builtin_shufflevector(a[i], a[i + 2], 0, 4, 1, 5);
    b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 2], 2, 6, 3, 7);
  }
  for (int i = 0; i < 2; i++) {
    a[2 * i] = __builtin_shufflevector(b[i], b[i + 2], 0, 4, 1, 5);
    a[2 * i + 1] = __builtin_shufflevector(b[i], b[i + 2], 2, 6, 3, 7);
  }
  for (int i = 0; i < 4; i++) std::memcpy(to + i * to_stride, &a[i], sizeof(Four));
}

// Transposes (M, N) → (N, M), a square at a time.
Tensor transposed(const Tensor& x) {
  constexpr int64_t SIDE = 64; // a square fits the first-level cache and touches few pages
  const int64_t m = x.size(0), n = x.size(1);
  Tensor y = at::empty({n, m}, x.options());
  const float* from = x.data_ptr<float>();
  float* to = y.data_ptr<float>();
  at::parallel_for(0, (n + SIDE - 1) / SIDE, 1, [&](int64_t begin, int64_t end) {
    for (int64_t square = begin; square < end; square++) {
      const int64_t left = square * SIDE, width = std::min(SIDE, n - left);
      for (int64_t top = 0; top < m; top += SIDE) {
        const int64_t height = std::min(SIDE, m - top);
        const float* corner = from + top * n + left;
        float transposed[SIDE][SIDE];
        if (height == SIDE && width == SIDE)
          for (int64_t i = 0; i < SIDE; i += 4)
            for (int64_t j = 0; j < SIDE; j += 4) transpose_four(corner + i * n + j, n, &transposed[j][i], SIDE);
        else
          for (int64_t i = 0; i < height; i++)
            for (int64_t j = 0; j < width; j++) transposed[j][i] = corner[i * n + j];
        for (int64_t j = 0; j < width; j++) std::memcpy(to + (left + j) * m + top, transposed[j], height * sizeof(float));
      }
    }
  });
  return y;
}

// Gradients by x (M, K) and by the weight (N, K), from the gradient by the output (M, N).
Tensor of_input(const Tensor& g, const Tensor& weight) { return product(g, transposed(weight), {}); }
Tensor of_weight(const Tensor& g, const Tensor& x) { return product(transposed(g), transposed(x), {}); }

Tensor rows(const Tensor& x) { return x.contiguous().view({-1, x.size(-1)}); }

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, const Tensor& weight, const Bias& bias) {
    // The original inputs, since tensors made here have no graph.
    ctx->save_for_backward({input, weight});
    ctx->saved_data["biased"] = bias.has_value();
    auto size = input.sizes().vec();
    size.back() = weight.size(0);
    return product(rows(input), weight.contiguous(), bias).view(size);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &input = saved[0], &weight = saved[1], g = rows(grads[0]);
    const bool twice = differentiates_twice();
    Tensor dx, dw, db;
    if (ctx->needs_input_grad(0))
      dx = (twice ? g.matmul(weight) : of_input(g, weight.contiguous())).view(input.sizes());
    if (ctx->needs_input_grad(1)) dw = twice ? g.t().matmul(rows(input)) : of_weight(g, rows(input));
    if (ctx->saved_data["biased"].toBool() && ctx->needs_input_grad(2)) db = g.sum(0);
    return {dx, dw, db};
  }
};

}  // namespace

extern "C" {

bool ext_has_linear() { return operation().has_value(); }

char* ext_linear(Tensor** out, const Tensor* x, const Tensor* weight, const Tensor* bias) {
  return caught([&] { *out = new Tensor(Linear::apply(*x, *weight, bias ? Bias(*bias) : Bias())); });
}

// All tensors are contiguous and have two axes.
char* ext_linear_of_input(Tensor** out, const Tensor* g, const Tensor* weight) {
  return caught([&] { *out = new Tensor(of_input(*g, *weight)); });
}

char* ext_linear_of_weight(Tensor** out, const Tensor* g, const Tensor* x) {
  return caught([&] { *out = new Tensor(of_weight(*g, *x)); });
}
}
