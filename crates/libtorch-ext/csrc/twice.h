// Gradients that are differentiated again.

#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

namespace {

// Whether the gradient being taken is to have a graph itself (`create_graph`): libtorch records what a node's backward
// does then, and what it does outside of libtorch's operations would count as constant without a word.
inline bool differentiates_twice() { return c10::GradMode::is_enabled(); }

// The gradients of `plain(inputs)` by `inputs`, which take part in the graph themselves, in libtorch's own operations;
// undefined where none is needed. `g` is the gradient by the result.
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
