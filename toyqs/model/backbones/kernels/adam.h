// Clip each seed's gradient to a norm, then step Adam or AdamW: `clip` and `_adam` of optimizers/optimizer.py, with
// the formula of torch's fused kernel. A seed's numbers come in the same order whatever stands beside it.
#pragma once
#include "vectors.h"

template <typename F> struct Adam {  // filled by adam.py
  F *values, *grads, *means, *squares;
  float* count;
  const int64_t *begins, *sizes;  // (seeds, spans) and (spans,): where a seed's part of a parameter lies
  const double* factors;          // (spans,) of the learning rate
  int64_t seeds, spans, decoupled;
  double beta1, beta2, epsilon, max_norm, lr, decay;
};

template <typename F> bool adam(const Adam<F>& a) {
  F *__restrict values = a.values, *__restrict means = a.means, *__restrict squares = a.squares;
  const F *__restrict grads = a.grads, beta2 = a.beta2, epsilon = a.epsilon, coupled = a.decoupled ? 0 : a.decay;
  const double steps = *a.count += 1, first = 1 - std::pow(a.beta1, steps);
  const F root = std::sqrt(1 - std::pow(a.beta2, steps)), lerp = 1 - a.beta1, rest = 1 - a.beta2;
  for (const int64_t* begin = a.begins; begin < a.begins + a.seeds * a.spans; begin += a.spans) {
    double lanes[8] = {}, sum = 0;  // by the place in the parameter
    for (int64_t span = 0; a.max_norm && span < a.spans; ++span)
      for (int64_t i = 0; i < a.sizes[span]; i += LANES<F>) {
        const V<F> some = load(grads + begin[span] + i, a.sizes[span] - i);
        for (int lane = 0; lane < LANES<F>; ++lane) lanes[lane] += double(some[lane]) * double(some[lane]);
      }
    for (double lane : lanes) sum += lane;
    const F most = F(a.max_norm) / (F(std::sqrt(sum)) + F(1e-6)), scale = !a.max_norm || most > 1 ? 1 : most;  // or NaN
    for (int64_t span = 0; span < a.spans; ++span) {
      const F kept = a.decoupled ? 1 - a.lr * a.factors[span] * a.decay : 1, pace = a.lr * a.factors[span] / first;
      for (int64_t i = begin[span]; i < begin[span] + a.sizes[span]; ++i) {
        const F grad = grads[i] * scale + values[i] * coupled;
        means[i] = std::fma(lerp, grad - means[i], means[i]);
        squares[i] = squares[i] * beta2 + rest * grad * grad;
        values[i] = values[i] * kept - pace * means[i] / (std::sqrt(squares[i]) / root + epsilon);
      }
    }
  }
  return true;
}
EXPORT(adam, Adam)
