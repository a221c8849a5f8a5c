// The whole step of a GRU language model without thoughts and with a linear head: its loss, as `log_softmax` and the
// weighted mean over positions make it, with all gradients.
#pragma once
#include "draw.h"
#include "gru.h"

template <typename F> struct Plain {
  const int64_t *ids, *places;  // (seeds, batch, length), (seeds, batch, counted) or null: all
  int64_t* targets;             // (seeds, batch, counted), as weights
  const F *weights, *share;     // (seeds,) a factor of the loss, or null: 1
  const F* tokens;              // (seeds, vocab, d)
  F *at_tokens, *loss;          // gradients, which more are added to; (seeds,), the weighted mean of -log p(target)
  Weights<F> input, recurrent, head;
  int64_t seeds, batch, length, counted, vocab, d, classes;
};

// Adds the gradients at the states of one seed; returns its loss. A target is a symbol that was drawn, and its weight
// the gradient at its log-probability.
template <typename F> double loss_of(const Plain<F>& a, int64_t seed, const F* states, F* at_states) {
  const int64_t rows = a.batch * a.counted, d = a.d;
  const Buffer<F> h(a.places ? rows * d : 0), at_h(a.places ? rows * d : 0), log_p(rows), at_log_p(rows);
  const auto place = [&](int64_t i) { return (i / a.counted * a.length + a.places[seed * rows + i]) * d; };
  double loss = 0, all = 0;
  for (int64_t i = 0; i < rows; ++i) all += a.weights[seed * rows + i];
  const double factor = (a.share ? a.share[seed] : 1) / std::max(all, 1e-12);
  for (int64_t i = 0; i < rows; ++i) at_log_p[i] = F(-a.weights[seed * rows + i] * factor);
  for (int64_t i = 0; a.places && i < rows; ++i) std::copy_n(states + place(i), d, h + i * d);
  const Draw<F> drawn{a.places ? h : states, a.head, nullptr, a.targets + seed * rows, log_p, nullptr,
                      at_log_p, nullptr, a.places ? at_h : at_states, 1, rows, 1, d, a.classes};
  draw_rows({a.head, seed, d, a.classes, 1, -std::numeric_limits<F>::infinity()}, drawn, 0);
  for (int64_t i = 0; i < rows; ++i) loss += at_log_p[i] * log_p[i];
  for (int64_t i = 0; a.places && i < rows; ++i)
    for (int64_t j = 0; j < d; ++j) at_states[place(i) + j] += at_h[i * d + j];
  return loss;
}

template <typename F> bool plain_step(const Plain<F>& a) {
  const int64_t places = a.batch * a.length, counted = a.seeds * a.batch * a.counted, d = a.d;
  if (!are_rows(a.ids, a.seeds * places, a.vocab) || !are_rows(a.places, counted, a.length) ||
      !are_rows(a.targets, counted, a.classes)) return false;
  for (int64_t seed = 0; seed < a.seeds; ++seed) {
    const Layer<F> input(a.input, seed, d, d, 3), recurrent(a.recurrent, seed, d, d, 3);
    const Buffer<F> x(a.vocab * input.out_p), at_x(a.vocab * input.out_p), at_tokens(a.vocab * input.d_p);
    const Buffer<F> states(places * d), at_states(places * d);
    const F* const tokens = a.tokens + seed * a.vocab * d;
    input.outputs(x, tokens, d, a.vocab);
    Gru<F> gru{x, a.ids + seed * places, nullptr, a.recurrent, states, nullptr, at_x, nullptr, nullptr,
               1, a.batch, 1, a.length, a.vocab, input.part_p, d};
    steps<false>(recurrent, gru, 0);
    a.loss[seed] = loss_of<F>(a, seed, states, at_states);
    gru.grad = at_states;
    steps<true>(recurrent, gru, 0);
    input.gradients(at_tokens, at_x, tokens, d, a.vocab);
    F* const to = a.at_tokens + seed * a.vocab * d;
    for (int64_t i = 0; i < a.vocab * d; ++i) to[i] += at_tokens[i / d * input.d_p + i % d];
  }
  return true;
}
EXPORT(plain_step, Plain)
