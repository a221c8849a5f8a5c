// A step of a GRU's branches, and its scan along sequences, forwards and backwards: `_Branch` in ../gru.py, `Sequence`
// in ../gru_scan.py. Backwards the gates are computed again, unless the recurrent rows were kept.
#pragma once
#include "vectors.h"

// Where the rows of one step of one seed lie: `each` branches from every state.
template <typename F> struct Step {
  const F* x;  // input rows: that of branch i is ids[i * id_stride], or i / x_each
  const int64_t* ids;
  int64_t id_stride, x_each, x_stride;
  const F* h;  // states
  int64_t h_stride, states, each;
  F* out;  // new states; backwards the gradients there
  int64_t out_stride;
  F *at_x, *at_h;  // backwards: gradients, added, laid out as x and h
  F* kept;         // recurrent rows g of the states, written forwards, read backwards; null: computed again

  int64_t x_row(int64_t i) const { return (ids ? ids[i * id_stride] : i / x_each) * x_stride; }
};

template <typename F> struct Scratch {
  int64_t states;  // at a time
  Buffer<F> g, rz, at_g, at_h;

  Scratch(const Layer<F>& layer, int64_t each)
      : states(std::max<int64_t>(1, BLOCK / each)), g(states * layer.out_p), rz(states * each * 2 * layer.d_p),
        at_g(states * layer.out_p), at_h(states * layer.d_p) {}
};

// Computes r and z of all branches of some states before any n, whose operations depend on them; returns g.
template <typename F>
F* gates(const Layer<F>& layer, const Step<F>& s, int64_t first, int64_t count, const Scratch<F>& to, bool known) {
  const int64_t d = layer.d, d_p = layer.d_p;
  F* const g = s.kept ? s.kept + first * layer.out_p : to.g.data();
  if (!known) layer.outputs(g, s.h + first * s.h_stride, s.h_stride, count);
  for (int64_t i = 0; i < count * s.each; ++i) {
    const F *const x = s.x + s.x_row(first * s.each + i), *const own = g + i / s.each * layer.out_p;
    F* const rz = &to.rz[i * 2 * d_p];
    for (int64_t j = 0; j < d; j += Lanes<F>::count) {
      put(rz + j, logistic<F>(load(x + j, d - j) + at(own + j)));
      put(rz + d_p + j, logistic<F>(load(x + d + j, d - j) + at(own + d_p + j)));
    }
  }
  return g;
}

template <typename F> void forward(const Layer<F>& layer, const Step<F>& s, const Scratch<F>& scratch) {
  const int64_t d = layer.d, d_p = layer.d_p;
  for (int64_t first = 0, count; first < s.states; first += count) {
    count = std::min(scratch.states, s.states - first);
    const F* const g = gates(layer, s, first, count, scratch, false);
    for (int64_t i = 0; i < count * s.each; ++i) {
      const int64_t row = first * s.each + i, state = i / s.each;
      const F *x = s.x + s.x_row(row) + 2 * d, *h = s.h + (first + state) * s.h_stride;
      const F *g_n = g + state * layer.out_p + 2 * d_p, *rz = &scratch.rz[i * 2 * d_p];
      for (int64_t j = 0; j < d; j += Lanes<F>::count) {
        const V<F> n = tangent<F>(load(x + j, d - j) + at(rz + j) * at(g_n + j));
        store(s.out + row * s.out_stride + j, n + at(rz + d_p + j) * (load(h + j, d - j) - n), d - j);
      }
    }
  }
}

template <typename F> void backward(Layer<F>& layer, const Step<F>& s, const Scratch<F>& scratch) {
  const int64_t d = layer.d, d_p = layer.d_p;
  F *const at_g = scratch.at_g.data(), *const at_h = scratch.at_h.data();
  for (int64_t first = 0, count; first < s.states; first += count) {
    count = std::min(scratch.states, s.states - first);
    const F *const g = gates(layer, s, first, count, scratch, s.kept), *const states = s.h + first * s.h_stride;
    std::fill_n(at_g, count * layer.out_p, F(0));
    std::fill_n(at_h, count * d_p, F(0));
    for (int64_t i = 0; i < count * s.each; ++i) {
      const int64_t row = first * s.each + i, x_row = s.x_row(row), state = i / s.each;
      const F *x = s.x + x_row + 2 * d, *h = states + state * s.h_stride, *rz = &scratch.rz[i * 2 * d_p];
      const F *const g_n = g + state * layer.out_p + 2 * d_p, *const grad = s.out + row * s.out_stride;
      F *const at_x = s.at_x + x_row, *const to = at_g + state * layer.out_p;
      for (int64_t j = 0; j < d; j += Lanes<F>::count) {
        const int64_t left = d - j;
        const V<F> r = at(rz + j), z = at(rz + d_p + j), of_n = at(g_n + j), now = load(grad + j, left);
        const V<F> n = tangent<F>(load(x + j, left) + r * of_n);
        const V<F> at_n = now * (F(1) - z) * (F(1) - n * n), at_r = at_n * of_n * r * (F(1) - r);
        const V<F> at_z = now * (load(h + j, left) - n) * z * (F(1) - z);
        add(at_x + j, at_r, left);
        add(at_x + d + j, at_z, left);
        add(at_x + 2 * d + j, at_n, left);
        add(to + j, at_r);
        add(to + d_p + j, at_z);
        add(to + 2 * d_p + j, V<F>(at_n * r));
        add(at_h + state * d_p + j, V<F>(now * z));
      }
    }
    layer.gradients(at_h, at_g, states, s.h_stride, count);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < d; j += Lanes<F>::count)
        add(s.at_h + (first + i) * s.h_stride + j, at(at_h + i * d_p + j), d - j);
  }
}

template <typename F> struct StepArguments {
  const F* x;          // (seeds, x_rows, 3 d)
  const int64_t* ids;  // (seeds, rows), or null: each input row serves equally many branches
  const F *h, *weight, *bias;
  F *kept, *out;  // (seeds, states, out_p) or null; (seeds, rows, d), backwards the gradients there
  F *at_x, *at_h, *at_weight, *at_bias;  // null forwards; the first two hold zeros
  int64_t seeds, rows, states, x_rows, d;
};

template <typename F> bool gru_step(const StepArguments<F>& a) {
  if (!a.rows) return true;
  if (!are_rows(a.ids, a.seeds * a.rows, a.x_rows)) return false;
  for (int64_t seed = 0, d = a.d; seed < a.seeds; ++seed) {
    const int64_t w = seed * d * 3 * d, b = seed * 3 * d, of_x = seed * a.x_rows * 3 * d, of_h = seed * a.states * d;
    Layer<F> layer(a.weight + w, a.bias + b, d, d, 3, a.at_x);
    const Step<F> s{a.x + of_x, a.ids ? a.ids + seed * a.rows : nullptr, 1, a.ids ? 1 : a.rows / a.x_rows, 3 * d,
                    a.h + of_h, d, a.states, a.rows / a.states, a.out + seed * a.rows * d, d, a.at_x + of_x,
                    a.at_h + of_h, a.kept ? a.kept + seed * a.states * layer.out_p : nullptr};
    const Scratch<F> scratch(layer, s.each);
    if (!a.at_x) {
      forward(layer, s, scratch);
      continue;
    }
    backward(layer, s, scratch);
    layer.give(a.at_weight + w, a.at_bias + b);
  }
  return true;
}
EXPORT(gru_step, StepArguments)

// One seed's sequences (batch, length) from a zero state. Backwards `grad` holds the gradients at the states, and is
// overwritten; forwards it is null.
template <typename F>
void scan(Layer<F>& layer, const F* x, const int64_t* ids, F* states, F* grad, F* at_x, int64_t batch, int64_t length) {
  const int64_t d = layer.d, stride = length * d;
  const Scratch<F> scratch(layer, 1);
  const Buffer<F> zeros(batch * d), unused(batch * d);
  for (int64_t i = 0; i < length; ++i) {
    const int64_t t = grad ? length - 1 - i : i, of_x = ids ? 0 : t * 3 * d;
    const Step<F> s{x + of_x, ids ? ids + t : nullptr, length, 1, ids ? 3 * d : length * 3 * d,
                    t ? states + (t - 1) * d : zeros.data(), t ? stride : d, batch, 1, (grad ? grad : states) + t * d,
                    stride, at_x + of_x, t ? grad + (t - 1) * d : unused.data(), nullptr};
    grad ? backward(layer, s, scratch) : forward(layer, s, scratch);
  }
}

template <typename F> struct ScanArguments {
  const F* x;          // (seeds, x_rows, 3 d)
  const int64_t* ids;  // (seeds, batch, length), or null: x has a row for each place
  const F *weight, *bias;
  F *states, *grad, *at_x, *at_weight, *at_bias;  // from grad on null forwards; at_x holds zeros
  int64_t seeds, batch, length, x_rows, d;
};

template <typename F> bool gru_scan(const ScanArguments<F>& a) {
  if (!are_rows(a.ids, a.seeds * a.batch * a.length, a.x_rows)) return false;
  for (int64_t seed = 0, d = a.d, places = a.batch * a.length; seed < a.seeds; ++seed) {
    const int64_t w = seed * d * 3 * d, b = seed * 3 * d, of_x = seed * a.x_rows * 3 * d, of_h = seed * places * d;
    Layer<F> layer(a.weight + w, a.bias + b, d, d, 3, a.grad);
    scan(layer, a.x + of_x, a.ids ? a.ids + seed * places : nullptr, a.states + of_h, a.grad ? a.grad + of_h : nullptr,
         a.at_x + of_x, a.batch, a.length);
    if (a.grad) layer.give(a.at_weight + w, a.at_bias + b);
  }
  return true;
}
EXPORT(gru_scan, ScanArguments)
