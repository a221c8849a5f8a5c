// Symbols sampled from the softmax of a linear layer, with log-probabilities and entropy, forwards and backwards:
// `_Draw` in model/thoughts.py and the layer before it. Backwards the softmax is computed again.
#pragma once
#include "vectors.h"

template <typename F> F total(V<F> v) {
  F parts[Lanes<F>::count];
  put(parts, v);
  for (int half = Lanes<F>::count / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) parts[i] += parts[i + half];
  return parts[0];
}

// Makes logits log p in place; p; the sum of each vector of p, where asked for. Returns the entropy.
template <typename F> F normalise(F* logits, F* p, F* sums, int64_t v_p) {
  constexpr int lanes = Lanes<F>::count;
  V<F> highest = at(logits), sum = {}, information = {};
  for (int64_t j = lanes; j < v_p; j += lanes) highest = at(logits + j) > highest ? at(logits + j) : highest;
  F most = highest[0];
  for (int i = 1; i < lanes; ++i) most = std::max(most, F(highest[i]));
  for (int64_t j = 0; j < v_p; j += lanes) {
    put(p + j, exponential<F>(at(logits + j) - most));
    sum += at(p + j);
  }
  const F all = total<F>(sum), log_all = most + std::log(all), share = 1 / all;
  for (int64_t j = 0; j < v_p; j += lanes) {
    const V<F> log_p = at(logits + j) - log_all, lowest = V<F>{} + F(-1e30);  // not -inf: 0 times it is NaN
    const V<F> kept = log_p < lowest ? lowest : log_p, q = at(p + j) * share;
    put(logits + j, kept);
    put(p + j, q);
    if (sums) sums[j / lanes] = total<F>(q);
    information += q * kept;
  }
  return -total<F>(information);
}

// Inverts the cumulative distribution as `sample_symbols` does; v - 1 where it is NaN.
template <typename F> int64_t sample(const F* p, const F* sums, int64_t v, F noise) {
  constexpr int64_t lanes = Lanes<F>::count;
  const int64_t vectors = padded<F>(v) / lanes;
  F all = 0, before = 0;
  for (int64_t b = 0; b < vectors; ++b) all += sums[b];
  const F point = std::min(noise * all, std::nextafter(all, F(0)));
  for (int64_t b = 0; b < vectors; before += sums[b++]) {
    if (!(before + sums[b] > point)) continue;
    int64_t found = b * lanes;
    for (int64_t i = found; i < std::min(v, (b + 1) * lanes); ++i) {
      if (p[i] > 0) found = i;  // the last one, where rounding leaves their sum below the vector's
      before += p[i];
      if (before > point) break;
    }
    return found;
  }
  return v - 1;
}

template <typename F> struct DrawArguments {
  const F *h, *weight, *bias;  // (seeds, rows, d), (seeds, d, v), (seeds, v)
  const F* noise;              // (seeds, rows, draws), or null: the symbols are given
  int64_t* symbols;
  F *log_prob, *entropy;           // (seeds, rows, draws), (seeds, rows); backwards the gradients there
  F *at_h, *at_weight, *at_bias;  // null forwards
  int64_t seeds, rows, draws, d, v;
};

// The rows of one seed from `start` on.
template <typename F> void draw_rows(Layer<F>& layer, const DrawArguments<F>& a, int64_t start, int64_t count) {
  const int64_t v_p = layer.out_p, d = layer.d;
  const Buffer<F> logits(count * v_p), p(v_p), sums(v_p), at_rows(count * layer.d_p);
  layer.outputs(logits.data(), a.h + start * d, d, count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = start + i;
    F *const log_p = &logits[i * v_p], *const own = a.log_prob + row * a.draws;
    int64_t* const symbols = a.symbols + row * a.draws;
    const F entropy = normalise(log_p, p.data(), a.noise ? sums.data() : nullptr, v_p);
    if (!a.at_h) {
      a.entropy[row] = entropy;
      for (int64_t k = 0; k < a.draws; ++k) {
        if (a.noise) symbols[k] = sample(p.data(), sums.data(), a.v, a.noise[row * a.draws + k]);
        own[k] = log_p[symbols[k]];
      }
      continue;
    }
    const F at_entropy = a.entropy[row];
    F of_row = at_entropy * entropy;
    for (int64_t k = 0; k < a.draws; ++k) of_row += own[k];
    for (int64_t j = 0; j < v_p; j += Lanes<F>::count) put(log_p + j, -at(&p[j]) * (of_row + at_entropy * at(log_p + j)));
    for (int64_t k = 0; k < a.draws; ++k) log_p[symbols[k]] += own[k];
  }
  if (!a.at_h) return;
  layer.gradients(at_rows.data(), logits.data(), a.h + start * d, d, count);
  for (int64_t i = 0; i < count; ++i) std::copy_n(&at_rows[i * layer.d_p], d, a.at_h + (start + i) * d);
}

template <typename F> bool draw(const DrawArguments<F>& a) {
  if (!a.noise && !are_rows(a.symbols, a.seeds * a.rows * a.draws, a.v)) return false;
  for (int64_t seed = 0; seed < a.seeds; ++seed) {
    const int64_t w = seed * a.d * a.v, b = seed * a.v;
    Layer<F> layer(a.weight + w, a.bias + b, a.d, a.v, 1, a.at_h, -std::numeric_limits<F>::infinity());
    for (int64_t i = 0; i < a.rows; i += BLOCK) draw_rows(layer, a, seed * a.rows + i, std::min(BLOCK, a.rows - i));
    if (a.at_h) layer.give(a.at_weight + w, a.at_bias + b);
  }
  return true;
}
EXPORT(draw, DrawArguments)
