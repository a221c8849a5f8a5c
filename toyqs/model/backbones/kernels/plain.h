// The loss of a GRU language model without thoughts, a linear head on its states, with all gradients: the whole step but
// for the rows of the token table.
#pragma once
#include "draw.h"
#include "gru.h"

template <typename F> struct PlainArguments {
  const F* x;  // (seeds, vocab, 3 d), input rows of the tokens
  const int64_t *ids, *places, *targets;  // (seeds, batch, length), (seeds, batch, counted) or null: all, as places
  const F *weights, *w_hh, *b_hh, *w_head, *b_head;
  F *loss, *at_x, *at_w_hh, *at_b_hh, *at_w_head, *at_b_head;  // (seeds,); at_x holds zeros
  int64_t seeds, batch, length, counted, vocab, d, classes;
};

// Adds the gradients at the states of one seed; returns its loss, the weighted mean of -log p(target).
template <typename F>
double loss_of(Layer<F>& head, const PlainArguments<F>& a, int64_t seed, const F* states, F* at_states) {
  const int64_t rows = a.batch * a.counted, d = a.d, v_p = head.out_p;
  const Buffer<F> h(BLOCK * d), logits(BLOCK * v_p), p(v_p), at_h(BLOCK * head.d_p);
  const F* const weights = a.weights + seed * rows;
  double loss = 0, all = 0;
  for (int64_t i = 0; i < rows; ++i) all += weights[i];
  const auto place = [&](int64_t i) { return (a.places ? i / a.counted * a.length + a.places[seed * rows + i] : i) * d; };
  for (int64_t first = 0; first < rows; first += BLOCK) {
    const int64_t count = std::min(BLOCK, rows - first);
    for (int64_t i = 0; i < count; ++i) std::copy_n(states + place(first + i), d, &h[i * d]);
    head.outputs(logits.data(), h.data(), d, count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t target = a.targets[seed * rows + first + i];
      const F share = F(weights[first + i] / std::max(all, 1e-12));
      normalise(&logits[i * v_p], p.data(), static_cast<F*>(nullptr), v_p);
      loss -= share * logits[i * v_p + target];
      for (int64_t j = 0; j < v_p; j += Lanes<F>::count) put(&logits[i * v_p + j], V<F>(share * at(&p[j])));
      logits[i * v_p + target] -= share;
    }
    std::fill_n(at_h.data(), count * head.d_p, F(0));
    head.gradients(at_h.data(), logits.data(), h.data(), d, count);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < d; ++j) at_states[place(first + i) + j] += at_h[i * head.d_p + j];
  }
  return loss;
}

template <typename F> bool plain_step(const PlainArguments<F>& a) {
  const int64_t places = a.seeds * a.batch * a.length, counted = a.seeds * a.batch * a.counted;
  if (!are_rows(a.ids, places, a.vocab) || !are_rows(a.places, counted, a.length)) return false;
  if (!are_rows(a.targets, counted, a.classes)) return false;
  for (int64_t seed = 0, d = a.d; seed < a.seeds; ++seed) {
    const int64_t w = seed * d * 3 * d, b = seed * 3 * d, of_x = seed * a.vocab * 3 * d, v = seed * a.classes;
    Layer<F> recurrent(a.w_hh + w, a.b_hh + b, d, d, 3, true);
    Layer<F> head(a.w_head + v * d, a.b_head + v, d, a.classes, 1, true, -std::numeric_limits<F>::infinity());
    const Buffer<F> states(a.batch * a.length * d), at_states(a.batch * a.length * d);
    const int64_t* const ids = a.ids + seed * a.batch * a.length;
    scan<F>(recurrent, a.x + of_x, ids, states.data(), nullptr, nullptr, a.batch, a.length);
    a.loss[seed] = loss_of(head, a, seed, states.data(), at_states.data());
    scan(recurrent, a.x + of_x, ids, states.data(), at_states.data(), a.at_x + of_x, a.batch, a.length);
    recurrent.give(a.at_w_hh + w, a.at_b_hh + b);
    head.give(a.at_w_head + v * d, a.at_b_head + v);
  }
  return true;
}
EXPORT(plain_step, PlainArguments)
