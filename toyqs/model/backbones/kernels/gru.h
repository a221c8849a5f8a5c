// A GRU's steps along sequences, forwards and backwards: `Sequence` in ../gru_scan.py; as sequences of a single step of
// which several start from a state, `_Branch` in ../gru.py. x rows by ids are `gather_rows` of model/layers.py.
#pragma once
#include "vectors.h"

template <typename F> struct Gru {
  const F* x;          // (seeds, x_rows, 3 x_part), of which d numbers of each part count
  const int64_t* ids;  // (seeds, starts, each, length) of rows of x, or null: each row is for equally many places
  const F* h;          // (seeds, starts, d) first states; null: zeros
  Weights<F> recurrent;
  F *states, *grad;  // (seeds, starts, each, length, d); gradients there, which later steps add to, null forwards
  F *at_x, *at_h;    // gradients, which more are added to at x; null forwards
  F* kept;           // (seeds, starts, out_p) recurrent rows, written forwards, read backwards; null: computed again
  int64_t seeds, starts, each, length, x_rows, x_part, d;  // several `each` or `kept`: a length of 1
};

// The steps of a seed's sequences, forwards, or backwards from the last. All r and z of a block come before any n,
// which waits for them.
template <bool back, typename F> void steps(const Layer<F>& layer, const Gru<F> a, int64_t seed) {
  const int64_t d = a.d, part = a.x_part, d_p = layer.d_p, out_p = layer.out_p;
  const int64_t block = std::max<int64_t>(1, block_of(d) / a.each), x_first = seed * a.x_rows;
  const int64_t x_each = a.starts * a.each * a.length / std::max<int64_t>(1, a.x_rows);
  const Buffer<F> zeros(block * d), own_g(block * out_p), gates(block * a.each * 2 * d_p);
  const Buffer<F> at_gs(block * out_p), at_hs(block * d_p);  // gradients
  for (int64_t i = 0; i < a.length; ++i)
    for (int64_t first = 0; first < a.starts; first += block) {
      const int64_t t = back ? a.length - 1 - i : i, start = seed * a.starts + first;
      const int64_t count = std::min(block, a.starts - first), rows = count * a.each, h_stride = t ? a.length * d : d;
      const int64_t before = t ? (start * a.length + t - 1) * d : start * d;
      const auto place = [&](int64_t i) { return (start * a.each + i) * a.length + t; };
      const auto x_row = [&](int64_t i) { return (a.ids ? x_first + a.ids[place(i)] : place(i) / x_each) * 3 * part; };
      const F* const h = t ? a.states + before : a.h ? a.h + before : zeros;
      F* const g = a.kept ? a.kept + start * out_p : own_g;
      if (!back || !a.kept) layer.outputs(g, h, h_stride, count);
      for (int64_t i = 0; i < rows; ++i) {
        const F *const x = a.x + x_row(i), *const own = g + (a.each == 1 ? i : i / a.each) * out_p;
        F* const rz = gates + i * 2 * d_p;
        for (int64_t j = 0; j < d; j += LANES<F>) {
          put<F>(rz + j, logistic<F>(load(x + j, d - j) + at(own + j)));
          put<F>(rz + d_p + j, logistic<F>(load(x + part + j, d - j) + at(own + d_p + j)));
        }
      }
      if (back) std::fill_n(at_gs + 0, count * out_p, F(0)), std::fill_n(at_hs + 0, count * d_p, F(0));
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t state = a.each == 1 ? i : i / a.each, x_place = x_row(i), at_row = place(i) * d;
        const F *x = a.x + x_place + 2 * part, *rz = gates + 2 * i * d_p, *g_n = g + state * out_p + 2 * d_p;
        F *const at_x = a.at_x + x_place, *const at_g = at_gs + state * out_p, *const at_h = at_hs + state * d_p;
        for (int64_t j = 0, left = d; j < d; j += LANES<F>, left -= LANES<F>) {
          const V<F> r = at(rz + j), z = at(rz + d_p + j), of_n = at(g_n + j);
          const V<F> n = tangent<F>(load(x + j, left) + r * of_n), fall = load(h + state * h_stride + j, left) - n;
          if (!back) { store<F>(a.states + at_row + j, n + z * fall, left); continue; }
          const V<F> now = load<F>(a.grad + at_row + j, left), at_z = now * fall * z * (F(1) - z);
          const V<F> at_n = now * (F(1) - z) * (F(1) - n * n), at_r = at_n * of_n * r * (F(1) - r);
          add<F>(at_x + j, at_r, left);
          add<F>(at_x + part + j, at_z, left);
          add<F>(at_x + 2 * part + j, at_n, left);
          add<F>(at_g + j, at_r);
          add<F>(at_g + d_p + j, at_z);
          add<F>(at_g + 2 * d_p + j, at_n * r);
          add<F>(at_h + j, now * z);
        }
      }
      if (!back) continue;
      layer.gradients(at_hs, at_gs, h, h_stride, count);
      F* const to = t ? a.grad + before : a.at_h ? a.at_h + before : nullptr;
      for (int64_t i = 0; to && i < count; ++i)
        for (int64_t j = 0; j < d; j += LANES<F>)
          store<F>(to + i * h_stride + j,
                   at(at_hs + i * d_p + j) + (t ? load(to + i * h_stride + j, d - j) : V<F>{}), d - j);
    }
}

template <typename F> bool gru(const Gru<F>& a) {
  if (!are_rows(a.ids, a.seeds * a.starts * a.each * a.length, a.x_rows)) return false;
  for (int64_t seed = 0; seed < a.seeds && a.each; ++seed)
    (a.grad ? steps<true, F> : steps<false, F>)({a.recurrent, seed, a.d, a.d, 3}, a, seed);
  return true;
}
EXPORT(gru, Gru)
