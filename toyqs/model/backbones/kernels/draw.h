// Symbols sampled from the softmax of a linear layer, with log-probabilities and entropy, forwards and backwards:
// `_Draw` in model/thoughts.py and the layer before it. Backwards the softmax is computed again.
#pragma once
#include "vectors.h"

template <typename F> F total(V<F> v) {
  for (int half = LANES<F> / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

// Makes logits log p in place; p; the sum of each vector of p, where asked for. Returns the entropy.
template <typename F> F normalise(F* logits, F* p, F* sums, int64_t v_p) {
  V<F> highest = at(logits), sum = {}, information = {};
  for (int64_t j = LANES<F>; j < v_p; j += LANES<F>) highest = at(logits + j) > highest ? at(logits + j) : highest;
  F most = highest[0];
  for (int i = 1; i < LANES<F>; ++i) most = std::max(most, F(highest[i]));
  for (int64_t j = 0; j < v_p; j += LANES<F>) {
    put<F>(p + j, exponential<F>(at(logits + j) - most));
    sum += at(p + j);
  }
  const F all = total<F>(sum), log_all = most + std::log(all), share = 1 / all;
  for (int64_t j = 0; j < v_p; j += LANES<F>) {
    const V<F> log_p = at(logits + j) - log_all, lowest = V<F>{} + F(-1e30);  // not -inf: 0 times it is NaN
    const V<F> kept = log_p < lowest ? lowest : log_p, q = at(p + j) * share;
    put<F>(logits + j, kept);
    put<F>(p + j, q);
    if (sums) sums[j / LANES<F>] = total<F>(q);
    information += q * kept;
  }
  return -total<F>(information);
}

// Inverts the cumulative distribution as `sample_symbols` does; v - 1 where it is NaN.
template <typename F> int64_t sample(const F* p, const F* sums, int64_t v, F noise) {
  int64_t vectors = padded<F>(v) / LANES<F>, b = 0, found = v - 1;
  F all = 0, before = 0;
  for (int64_t i = 0; i < vectors; ++i) all += sums[i];
  const F point = std::min(noise * all, std::nextafter(all, F(0)));
  while (b < vectors && !(before + sums[b] > point)) before += sums[b++];
  for (int64_t i = b * LANES<F>; i < std::min(v, (b + 1) * LANES<F>) && !(before > point); before += p[i++])
    if (p[i] > 0) found = i;  // the last one, where rounding leaves their sum below the vector's
  return found;
}

template <typename F> struct Draw {
  const F* h;  // (seeds, rows, d)
  Weights<F> layer;
  const F* noise;    // (seeds, rows, draws), or null: the symbols are given
  int64_t* symbols;  // (seeds, rows, draws)
  F *log_prob, *entropy;  // (seeds, rows, draws) and (seeds, rows), or null; then the gradients there
  const F *at_log_prob, *at_entropy;
  F* at_h;  // gradients, which more are added to; null forwards
  int64_t seeds, rows, draws, d, v;
};

template <typename F> void draw_rows(const Layer<F>& layer, const Draw<F> a, int64_t seed) {
  const int64_t v_p = layer.out_p, d = layer.d, d_p = layer.d_p, end = (seed + 1) * a.rows, block = block_of(d);
  const Buffer<F> logits(block * v_p), p(v_p), sums(v_p), at_rows(block * d_p);
  for (int64_t first = seed * a.rows, count; first < end; first += count) {
    count = std::min(block, end - first);
    layer.outputs(logits, a.h + first * d, d, count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = first + i, at_draws = row * a.draws;
      F* const log_p = logits + i * v_p;
      const F entropy = normalise<F>(log_p, p, a.noise ? sums + 0 : nullptr, v_p);
      if (a.entropy) a.entropy[row] = entropy;
      for (int64_t k = 0; a.log_prob && k < a.draws; ++k) {
        if (a.noise) a.symbols[at_draws + k] = sample<F>(p, sums, a.v, a.noise[at_draws + k]);
        a.log_prob[at_draws + k] = log_p[a.symbols[at_draws + k]];
      }
      if (!a.at_h) continue;
      const F at_entropy = a.at_entropy ? a.at_entropy[row] : 0, *const own = a.at_log_prob + at_draws;
      F of_row = at_entropy * entropy;
      for (int64_t k = 0; k < a.draws; ++k) of_row += own[k];
      for (int64_t j = 0; j < v_p; j += LANES<F>) put(log_p + j, -at(p + j) * (of_row + at_entropy * at(log_p + j)));
      for (int64_t k = 0; k < a.draws; ++k) log_p[a.symbols[at_draws + k]] += own[k];
    }
    if (!a.at_h) continue;
    std::fill_n(at_rows + 0, count * d_p, F(0));
    layer.gradients(at_rows, logits, a.h + first * d, d, count);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < d; j += LANES<F>) add(a.at_h + (first + i) * d + j, at(at_rows + i * d_p + j), d - j);
  }
}

template <typename F> bool draw(const Draw<F>& a) {
  if (!a.noise && !are_rows(a.symbols, a.seeds * a.rows * a.draws, a.v)) return false;
  for (int64_t seed = 0; seed < a.seeds; ++seed)
    draw_rows({a.layer, seed, a.d, a.v, 1, -std::numeric_limits<F>::infinity()}, a, seed);
  return true;
}
EXPORT(draw, Draw)
