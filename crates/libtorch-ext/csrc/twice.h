// Second derivatives.

#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

namespace {

// Whether the gradient needs a graph itself (`create_graph`): libtorch then records a node's
// backward pass, and would silently treat work outside of its operations as constant.
inline bool differentiates_twice() { return c10::GradMode::is_enabled(); }

// Gradients of `plain(inputs)` by `inputs`, with a graph, by libtorch's operations; undefined for
// inputs that need none. `g` is the gradient by the result.
template <class Plain>
torch::autograd::variable_list recorded_gradients(const Plain& plain, const torch::autograd::variable_list& inputs,
                                                  const at::Tensor& g) {
  torch::autograd::variable_list wanted;
  for (const at::Tensor& input : inputs)
    if (input.requires_grad()) wanted.push_back(input);
  auto found = torch::autograd::grad({plain(inputs)}, wanted, {g}, true, true, true);
  torch::autograd::variable_list all;
  size_t next = 0;
  for (const at::Tensor& input : inputs) all.push_back(input.requires_grad() ? found[next++] : at::Tensor());
  return all;
}

}  // namespace
