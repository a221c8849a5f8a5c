// Clip each seed's gradient to a norm, then step Adam or AdamW: `clip` and `_adam` of training/optimizer.py, with
// the formula of torch's fused kernel. A seed's numbers come in the same order whatever stands beside it.
#pragma once
#include <cmath>
#include <cstdint>

struct AdamBuffers {  // filled by adam.py
  void *values, *grads, *means, *squares, *count;
  int64_t seeds, spans, decoupled;
  const int64_t *begins, *sizes;  // (seeds, spans) and (spans,): where a seed's part of a parameter lies
  const double* factors;          // (spans,) of the learning rate
  double beta1, beta2, epsilon;
};

template <typename F> static double squared_norm(const F* grads, int64_t size) {
  double lanes[8] = {}, total = 0;  // by the place in the parameter, so that vectors hold them
  const auto add = [&](int64_t i, int lane) { lanes[lane] += double(grads[i + lane]) * double(grads[i + lane]); };
  for (int64_t i = 0; i < size / 8 * 8; i += 8)
    for (int lane = 0; lane < 8; ++lane) add(i, lane);
  for (int lane = 0; lane < size % 8; ++lane) add(size / 8 * 8, lane);
  for (double lane : lanes) total += lane;
  return total;
}

template <typename F> static void adam(const AdamBuffers& b, double max_norm, double lr, double decay) {
  F *__restrict values = (F*)b.values, *__restrict means = (F*)b.means, *__restrict squares = (F*)b.squares;
  const F *__restrict grads = (F*)b.grads, beta2 = b.beta2, epsilon = b.epsilon, coupled = b.decoupled ? 0 : decay;
  const double steps = *(float*)b.count += 1, first = 1 - std::pow(b.beta1, steps);
  const F root = std::sqrt(1 - std::pow(b.beta2, steps)), lerp = 1 - b.beta1, rest = 1 - b.beta2;
  for (const int64_t* begin = b.begins; begin < b.begins + b.seeds * b.spans; begin += b.spans) {
    double sum = 0;
    for (int64_t span = 0; max_norm && span < b.spans; ++span) sum += squared_norm(grads + begin[span], b.sizes[span]);
    const F most = F(max_norm) / (F(std::sqrt(sum)) + F(1e-6)), scale = !max_norm || most > 1 ? 1 : most;  // or NaN
    for (int64_t span = 0; span < b.spans; ++span) {
      const F kept = b.decoupled ? 1 - lr * b.factors[span] * decay : 1, pace = lr * b.factors[span] / first;
      for (int64_t i = begin[span]; i < begin[span] + b.sizes[span]; ++i) {
        const F grad = grads[i] * scale + values[i] * coupled;
        means[i] = std::fma(lerp, grad - means[i], means[i]);
        squares[i] = squares[i] * beta2 + rest * grad * grad;
        values[i] = values[i] * kept - pace * means[i] / (std::sqrt(squares[i]) / root + epsilon);
      }
    }
  }
}
extern "C" void adam_f32(AdamBuffers* b, double norm, double lr, double decay) { adam<float>(*b, norm, lr, decay); }
extern "C" void adam_f64(AdamBuffers* b, double norm, double lr, double decay) { adam<double>(*b, norm, lr, decay); }
