// The choice of codes in training on a CPU: the nearest code of each vector, and the entropy loss over soft choices, a few
// vectors at a time, where libtorch goes some twenty times over a matrix of all distances. On the way back distances are
// taken again. fp32.
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
constexpr int64_t PARTS = 16;    // of all vectors, whatever the number of threads, so that sums are always the same
constexpr float EPSILON = 1e-5f;

// What one call works on: vectors (M, D) and codes (V, D), contiguous.
struct Call {
  const float *vectors, *codes;
  int64_t m, v, d;
  float sharpness;            // 1 / temperature
  std::vector<float> turned;  // codes as (D, V), padded
  std::vector<float> norms;   // |e|²
  std::vector<float> ones;    // on the way back: codes with a 1 behind them, (V, D + 1), padded

  Call(const Tensor& z, const Tensor& rows, double temperature, bool back)
      : vectors(z.data_ptr<float>()), codes(rows.data_ptr<float>()), m(z.size(0)), v(rows.size(0)), d(z.size(1)),
        sharpness(float(1 / temperature)), turned(d * far(), 0.0f), norms(v, 0.0f) {
    for (int64_t code = 0; code < v; code++)
      for (int64_t i = 0; i < d; i++) {
        const float e = codes[code * d + i];
        turned[i * far() + code] = e;
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
  // Rows of one part, and how many parts there are.
  int64_t share() const { return std::max(VECTORS, (m + PARTS - 1) / PARTS); }
  int64_t parts() const { return (m + share() - 1) / share(); }
};

// What a part's vectors give, and the room for some of them.
struct Room {
  std::vector<float> memory;
  Matrix distances, soft, z, dz;
  // Forward: the nearest codes of all vectors; of the part the sum of entropies and of soft choices (V).
  int64_t* chosen = nullptr;
  float* usage = nullptr;
  double entropy = 0;
  // Back: the derivative by soft choices (V), gradients of all vectors (M, D), of the part's codes (V, D + 1), padded.
  const float* of_choice = nullptr;
  float scale = 0;
  float* of_vectors = nullptr;
  std::vector<float> of_codes;

  Room(const Room&) = delete;
  Room(Room&&) = default;
  explicit Room(const Call& call) : memory(2 * VECTORS * (call.far() + call.wide())) {
    const int64_t far = call.far(), wide = call.wide();
    distances = {memory.data(), far};
    soft = {distances.row(VECTORS), far};
    z = {soft.row(VECTORS), wide};
    dz = {z.row(VECTORS), wide};
  }
};

// For each part.
std::vector<Room> room_for(const Call& call) {
  std::vector<Room> rooms;
  rooms.reserve(call.parts());
  for (int64_t part = 0; part < call.parts(); part++) rooms.emplace_back(call);
  return rooms;
}

struct Some {
  const Call& call;
  int64_t from, end;  // vectors
  bool back;

  // |z|² + |e|² - 2 z·e of `count` vectors, which come to lie in the room with a 1 behind them.
  template <class V>
  INLINE void measure(Room& room, int64_t first, int64_t count) const {
    for (int64_t i = 0; i < count; i++) {
      float* row = room.z.row(i);
      std::copy_n(call.vectors + (first + i) * call.d, call.d, row);
      row[call.d] = 1;
    }
    product<V>(plain(room.z), {const_cast<float*>(call.turned.data()), call.far()}, room.distances, count, padded(call.v),
               call.d, false);
    for (int64_t i = 0; i < count; i++) {
      float norm = 0, *d = room.distances.row(i);
      const float *z = room.z.row(i), *norms = call.norms.data();
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

  // Soft choices of a row and their entropy -Σ p log p.
  INLINE void choose(Room& room, int64_t i) const {
    const float *d = room.distances.row(i), nearest = least(d);
    float *p = room.soft.row(i), sum = 0, mean = 0;
    const float sharpness = call.sharpness;
#pragma omp simd reduction(+ : sum, mean)
    for (int64_t j = 0; j < call.v; j++) {
      const float x = (nearest - d[j]) * sharpness;
      p[j] = exponential(x);
      sum += p[j];
      mean += p[j] * x;
    }
    const float inverse = 1 / sum;
    room.entropy += std::log(sum) - mean * inverse;
    float* usage = room.usage;
    for (int64_t j = 0; j < call.v; j++) usage[j] += p[j] * inverse;
  }

  // Distances become the loss's derivative by them: p (log p + H + c - Σ p c) / (M T), where c is the derivative by p's mean.
  INLINE void derive(Room& room, int64_t i) const {
    float *d = room.distances.row(i), *p = room.soft.row(i), sum = 0, mean = 0, usual = 0;
    const float nearest = least(d), sharpness = call.sharpness, *c = room.of_choice;
#pragma omp simd reduction(+ : sum, mean, usual)
    for (int64_t j = 0; j < call.v; j++) {
      const float x = (nearest - d[j]) * sharpness;
      p[j] = exponential(x);
      sum += p[j];
      mean += p[j] * x;
      usual += p[j] * c[j];
    }
    const float inverse = 1 / sum, shift = -(mean + usual) * inverse, scale = room.scale * inverse;
    for (int64_t j = 0; j < call.v; j++) d[j] = scale * p[j] * ((nearest - d[j]) * sharpness + c[j] + shift);
  }

  template <class V>
  INLINE void run(Room& room) const {
    for (int64_t first = from; first < end; first += VECTORS) {
      const int64_t count = std::min(VECTORS, end - first);
      measure<V>(room, first, count);
      for (int64_t i = 0; i < count; i++) {
        const float* d = room.distances.row(i);
        if (back) {
          derive(room, i);
          continue;
        }
        const float nearest = least(d);
        int64_t code = 0;
        while (code + 1 < call.v && d[code] != nearest) code++;
        room.chosen[first + i] = d[code] == nearest ? code : 0;
        choose(room, i);
      }
      if (!back) continue;
      // By a vector 2 (z Σ g - Σ g e), by a code 2 (e Σ g - Σ g z); the 1 behind takes the sum of g.
      const int64_t wide = call.wide();
      product<V>(plain(room.distances), {const_cast<float*>(call.ones.data()), wide}, room.dz, count, wide, call.v, false);
      for (int64_t i = 0; i < count; i++) {
        const float *z = room.z.row(i), *sums = room.dz.row(i);
        float* out = room.of_vectors + (first + i) * call.d;
        for (int64_t j = 0; j < call.d; j++) out[j] = 2 * (z[j] * sums[call.d] - sums[j]);
      }
      product<V>(turned(room.distances), room.z, {room.of_codes.data(), wide}, call.v, wide, count, true);
    }
  }
};

void run(const Call& call, std::vector<Room>& rooms, bool back) {
  const auto some = best<Some, Room>();
  at::parallel_for(0, call.parts(), 1, [&](int64_t from, int64_t to) {
    for (int64_t part = from; part < to; part++)
      some({call, part * call.share(), std::min(call.m, (part + 1) * call.share()), back}, rooms[part]);
  });
}

// The loss alone, in libtorch's operations.
Tensor plain_loss(const Tensor& z, const Tensor& codes, double temperature) {
  const auto norms = [](const Tensor& x) { return x.square().sum(-1, true); };
  const Tensor distances = norms(z) + norms(codes).t() - 2 * z.matmul(codes.t());
  const Tensor choices = (distances / -temperature).log_softmax(-1), p = choices.exp(), mean = p.mean(0);
  return (mean * (mean + double(EPSILON)).log()).sum() - (p * choices).sum() / double(z.size(0));
}

// Codes (M), and mean entropy of soft choices minus entropy of the mean choice.
struct Choice : torch::autograd::Function<Choice> {
  static variable_list forward(AutogradContext* ctx, const Tensor& given, const Tensor& rows, double temperature) {
    const Tensor z = given.contiguous(), codes = rows.contiguous();
    const Call call(z, codes, temperature, false);
    const Tensor chosen = at::empty({call.m}, z.options().dtype(at::kLong));
    Tensor usage = at::zeros({call.parts(), call.v}, z.options());
    std::vector<Room> rooms = room_for(call);
    for (int64_t part = 0; part < call.parts(); part++) {
      rooms[part].chosen = chosen.data_ptr<int64_t>();
      rooms[part].usage = usage.data_ptr<float>() + part * call.v;
    }
    run(call, rooms, false);
    double entropy = 0, spread = 0;
    for (const Room& room : rooms) entropy += room.entropy;
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
    std::vector<Room> rooms = room_for(call);
    for (Room& room : rooms) {
      room.of_choice = of_choice.data();
      room.scale = grads[1].item<float>() * call.sharpness / float(call.m);
      room.of_vectors = dz.data_ptr<float>();
      room.of_codes.assign(call.v * call.wide(), 0.0f);
    }
    run(call, rooms, true);
    std::vector<float> sums = std::move(rooms[0].of_codes);
    for (size_t part = 1; part < rooms.size(); part++)
      for (size_t i = 0; i < sums.size(); i++) sums[i] += rooms[part].of_codes[i];
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
