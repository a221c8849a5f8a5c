// Vectors of 32 bytes, functions of them, and a layer's products (`affine` in model/layers.py, and its gradients).
//
// Each row is computed by the same operations wherever it stands, and lanes beyond a row's end hold zeros: a seed's
// bits do not depend on its neighbours. Sizes that end in _p are padded to whole vectors.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define INLINE __attribute__((always_inline)) inline
// Every function takes its arguments as one struct of 8-byte fields, which calls.py fills in their order. It does
// nothing and returns false where an id is no row of its table.
#define EXPORT(name, Arguments)                                              \
  extern "C" bool name##_f32(const Arguments<float>* a) { return name(*a); } \
  extern "C" bool name##_f64(const Arguments<double>* a) { return name(*a); }

inline bool are_rows(const int64_t* ids, int64_t count, int64_t n) {
  return !ids || std::all_of(ids, ids + count, [n](int64_t id) { return id >= 0 && id < n; });
}

template <typename F> constexpr int64_t LANES = 32 / sizeof(F);
template <typename F, int BYTES = 32> struct Vector {
  typedef F Whole __attribute__((vector_size(BYTES)));
  typedef F Anywhere __attribute__((vector_size(BYTES), aligned(sizeof(F)), may_alias));  // at any address
};
template <typename F> using V = typename Vector<F>::Whole;
template <typename F> constexpr int64_t padded(int64_t d) { return (d + LANES<F> - 1) & -LANES<F>; }

template <typename F> INLINE V<F> at(const F* p) { return *reinterpret_cast<const typename Vector<F>::Anywhere*>(p); }
template <typename F> INLINE void put(F* p, V<F> v) { *reinterpret_cast<typename Vector<F>::Anywhere*>(p) = v; }
template <typename F> INLINE void add(F* p, V<F> v) { put<F>(p, at(p) + v); }

// A vector of which the first `left` numbers are a row's. At widths of 2 and 12 loops take 2 to 3 times as long.
template <typename F> INLINE V<F> load(const F* p, int64_t left) {
  if (left >= LANES<F>) return at(p);
#ifdef __AVX512VL__
  return (V<F>)_mm256_maskz_loadu_epi32((1 << left * sizeof(F) / 4) - 1, p);
#else
  V<F> v = {};
  for (int64_t i = 0; i < left; ++i) v[i] = p[i];
  return v;
#endif
}
template <typename F> INLINE void store(F* p, V<F> v, int64_t left) {
  if (left >= LANES<F>) return put<F>(p, v);
#ifdef __AVX512VL__
  _mm256_mask_storeu_epi32(p, (1 << left * sizeof(F) / 4) - 1, (__m256i)v);
#else
  for (int64_t i = 0; i < left; ++i) p[i] = v[i];
#endif
}
template <typename F> INLINE void add(F* p, V<F> v, int64_t left) { store<F>(p, load(p, left) + v, left); }

// a b + c, by one kind of instruction wherever it stands: left to itself the compiler takes another in each `tile`.
#ifdef __FMA__
INLINE V<float> fused(float a, V<float> b, V<float> c) { return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c); }
INLINE V<double> fused(double a, V<double> b, V<double> c) { return _mm256_fmadd_pd(_mm256_set1_pd(a), b, c); }
#else
template <typename F, typename V> INLINE V fused(F a, V b, V c) { return a * b + c; }
#endif
#ifdef __AVX512F__
constexpr int64_t WIDEST = 64;  // bytes of a vector, in products alone: elsewhere rows are narrow
INLINE __m512 fused(float a, __m512 b, __m512 c) { return _mm512_fmadd_ps(_mm512_set1_ps(a), b, c); }
INLINE __m512d fused(double a, __m512d b, __m512d c) { return _mm512_fmadd_pd(_mm512_set1_pd(a), b, c); }
#else
constexpr int64_t WIDEST = 32;
#endif

constexpr double inverse_factorial(int k) { return k ? inverse_factorial(k - 1) / k : 1.0; }

// e^x - less, which is 0 or 1; exact near 0 too: e^x = 2^n e^r with |r| <= ln 2 / 2, and (e^r - 1) / r by its series.
// e^x is 0 below 2^-126 (float), the number before the last power of two above all others; NaN stays NaN.
template <typename F> INLINE V<F> exponential(V<F> x, F less = 0) {
  constexpr int bias = std::numeric_limits<F>::max_exponent - 1, mantissa = std::numeric_limits<F>::digits - 1;
  constexpr int terms = sizeof(F) == 4 ? 7 : 13;
  constexpr F ln2 = 0.693359375, ln2_rest = -2.1219444005469058e-4;  // n ln2 is exact
  constexpr F shift = 1.5 * (int64_t(1) << mantissa), highest = bias * 0.6931471805599453;
  const V<F> y = x > highest ? V<F>{} + highest : x, shifted = y * F(1.4426950408889634) + shift;
  const V<F> n = shifted - shift, r = (y - n * ln2) - n * ln2_rest;  // n is in the lowest bits of `shifted`
  V<F> series = V<F>{} + F(inverse_factorial(terms));
  for (int k = terms; k-- > 1;) series = series * r + F(inverse_factorial(k));
  const V<F> power = (V<F>)(((decltype(x < y))shifted + bias) << mantissa);  // of 2, from an integer vector
  return x < F((1 - bias) * 0.6931471805599453) ? V<F>{} - less : series * r * power + (power - less);
}
template <typename F> INLINE V<F> logistic(V<F> x) { return F(1) / (F(1) + exponential<F>(-x)); }
template <typename F> INLINE V<F> tangent(V<F> x) {
  const V<F> e = exponential<F>(x + x, F(1));
  return e / (e + F(2));
}

template <typename F> struct Buffer {  // zeros at first, aligned to vectors; used as a pointer to them
  struct Held { V<F> v; };
  std::vector<Held> held;
  explicit Buffer(int64_t size) : held(padded<F>(size) / LANES<F>) {}
  operator F*() const { return (F*)held.data(); }
};

template <typename F, int BYTES, int M, int N>
void tile(F* c, int64_t ldc, const F* a, int64_t row, int64_t column, const F* b, int64_t ldb, int64_t k) {
  using At = typename Vector<F, BYTES>::Anywhere;
  constexpr int64_t lanes = BYTES / sizeof(F);
  typename Vector<F, BYTES>::Whole sum[M][N];
  for (int i = 0; i < M * N; ++i) sum[i / N][i % N] = *(const At*)(c + i / N * ldc + i % N * lanes);
  for (int64_t p = 0; p < k; ++p) {
    for (int j = 0; j < N; ++j) {
      auto right = *(const At*)(b + p * ldb + j * lanes);
#ifdef __AVX__
      asm("" : "+v"(right));  // stays in a register: the compiler would read it again for each row
#endif
      for (int i = 0; i < M; ++i) sum[i][j] = fused(a[i * row + p * column], right, sum[i][j]);
    }
  }
  for (int i = 0; i < M * N; ++i) *(At*)(c + i / N * ldc + i % N * lanes) = sum[i / N][i % N];
}

// N vectors of columns of a product; returns how many columns these are. Tall tiles fill the registers with sums.
template <typename F, int64_t BYTES, int N>
int64_t columns(F* c, int64_t ldc, const F* a, int64_t row, int64_t column, const F* b, int64_t ldb, int64_t m,
                int64_t k) {
  constexpr int M = N == 1 ? 8 : BYTES / 8;
  for (int64_t i = 0; i < m; i += m - i < M ? 1 : M)
    (m - i < M ? tile<F, BYTES, 1, N> : tile<F, BYTES, M, N>)(c + i * ldc, ldc, a + i * row, row, column, b, ldb, k);
  return N * BYTES / sizeof(F);
}

// C (m, n) += A (m, k) B (k, n), n whole vectors; entry (i, p) of A is a[i * row + p * column]. Each number is the same
// sum in the same order, whatever vectors it is computed in.
template <typename F> void add_product(F* c, int64_t ldc, const F* a, int64_t row, int64_t column, const F* b,
                                       int64_t ldb, int64_t m, int64_t k, int64_t n) {
  for (int64_t j = 0, wide; j < n;) {
    wide = (n - j) * sizeof(F) / WIDEST;
    const auto some = wide == 2 ? columns<F, WIDEST, 2> : wide == 1 ? columns<F, WIDEST, 1> : columns<F, 32, 1>;
    j += (wide > 2 ? columns<F, WIDEST, 3> : some)(c + j, ldc, a, row, column, b + j, ldb, m, k);
  }
}

// Rows taken at a time, so that all about them stays in the nearest caches; wide ones more, as their weights do not.
constexpr int64_t block_of(int64_t d) { return d < 128 ? 32 : 128; }

template <typename F> struct Weights {  // of all seeds, (seeds, d, outputs) and (seeds, outputs)
  const F *weight, *bias;
  F *at_weight, *at_bias;  // gradients, which more are added to; null forwards
};

// One seed's layer, `parts` * `width` outputs of which each part is padded. The bias is a row below the weight.
template <typename F> struct Layer {
  const Weights<F> given;
  const int64_t seed, d, width, parts, d_p = padded<F>(d), part_p = padded<F>(width), out_p = parts * part_p;
  const Buffer<F> weight{(d + 1) * out_p}, transposed, at_weight;  // the last two backwards alone

  Layer(const Weights<F>& all, int64_t seed, int64_t d, int64_t width, int64_t parts, F beyond = 0)
      : given(all), seed(seed), d(d), width(width), parts(parts), transposed(all.at_weight ? out_p * d_p : 0),
        at_weight(all.at_weight ? (d + 1) * out_p : 0) {
    std::fill_n(weight + d * out_p, out_p, beyond);  // what outputs beyond the width are
    each(given.weight, given.bias, [&](F from, int64_t place) { weight[place] = from; });
    for (int64_t i = 0; i < (all.at_weight ? d : 0); ++i)
      for (int64_t j = 0; j < out_p; ++j) transposed[j * d_p + i] = weight[i * out_p + j];
  }

  template <typename P, typename Use> void each(P w, P b, Use use) const {  // numbers, their places here
    for (int64_t i = 0; i <= d; ++i)
      for (int64_t part = 0; part < parts; ++part)
        for (int64_t j = 0; j < width; ++j)
          use((i < d ? w + (seed * d + i) * parts * width : b + seed * parts * width)[part * width + j],
              i * out_p + part * part_p + j);
  }

  void outputs(F* out, const F* rows, int64_t stride, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) std::copy_n(weight + d * out_p, out_p, out + i * out_p);
    add_product<F>(out, out_p, rows, stride, 1, weight, out_p, count, d, out_p);
  }

  // Adds to the gradients at weight, bias and rows (count, d_p), given those at the outputs.
  void gradients(F* at_rows, const F* at_out, const F* rows, int64_t stride, int64_t count) const {
    add_product<F>(at_rows, d_p, at_out, out_p, 1, transposed, d_p, count, out_p, d_p);
    add_product<F>(at_weight, out_p, rows, 1, stride, at_out, out_p, d, count, out_p);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < out_p; j += LANES<F>) add<F>(at_weight + d * out_p + j, at(at_out + i * out_p + j));
  }

  ~Layer() {  // adds the gradients to those given
    if (given.at_weight) each(given.at_weight, given.at_bias, [&](F& to, int64_t place) { to += at_weight[place]; });
  }
};
