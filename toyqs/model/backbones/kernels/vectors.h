// Vectors of 32 bytes, functions of them, and a layer's products.
//
// Each row is computed by the same operations wherever it stands, and lanes beyond a row's end hold zeros: a seed's
// bits depend on neither its neighbours nor the processor. Sizes that end in _p are padded to whole vectors.
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
#define EXPORT(name, Arguments)                                                   \
  extern "C" bool name##_f32(const Arguments<float>* a) { return name(*a); }      \
  extern "C" bool name##_f64(const Arguments<double>* a) { return name(*a); }

inline bool are_rows(const int64_t* ids, int64_t count, int64_t n) {
  return !ids || std::all_of(ids, ids + count, [n](int64_t id) { return id >= 0 && id < n; });
}

template <typename F> struct Lanes;
template <> struct Lanes<float> {
  typedef float V __attribute__((vector_size(32)));
  typedef int32_t I __attribute__((vector_size(32)));
  static constexpr int count = 8, mantissa = 23, bias = 127, terms = 7;
  static constexpr float shift = 12582912.0f, lowest = -87.0f, highest = 88.0f;  // shift: 1.5 * 2^mantissa
  static constexpr float ln2 = 0.693359375f, ln2_rest = -2.12194440e-4f;
};
template <> struct Lanes<double> {
  typedef double V __attribute__((vector_size(32)));
  typedef int64_t I __attribute__((vector_size(32)));
  static constexpr int count = 4, mantissa = 52, bias = 1023, terms = 13;
  static constexpr double shift = 6755399441055744.0, lowest = -708.0, highest = 709.0;
  static constexpr double ln2 = 0.693145751953125, ln2_rest = 1.42860682030941723212e-6;
};
template <typename F> using V = typename Lanes<F>::V;
template <typename F> struct Anywhere {  // a whole vector at any address
  typedef V<F> In __attribute__((aligned(sizeof(F)), may_alias));
};
template <typename F> constexpr int64_t padded(int64_t d) { return (d + Lanes<F>::count - 1) & -Lanes<F>::count; }

template <typename F> INLINE V<F> at(const F* p) { return *reinterpret_cast<const typename Anywhere<F>::In*>(p); }
template <typename F> INLINE void put(F* p, V<F> v) { *reinterpret_cast<typename Anywhere<F>::In*>(p) = v; }
template <typename F> INLINE void add(F* p, V<F> v) { put(p, at(p) + v); }

#ifdef __AVX512VL__
INLINE Lanes<float>::V some(const float* p, int n) { return _mm256_maskz_loadu_ps((1 << n) - 1, p); }
INLINE Lanes<double>::V some(const double* p, int n) { return _mm256_maskz_loadu_pd((1 << n) - 1, p); }
INLINE void put_some(float* p, Lanes<float>::V v, int n) { _mm256_mask_storeu_ps(p, (1 << n) - 1, v); }
INLINE void put_some(double* p, Lanes<double>::V v, int n) { _mm256_mask_storeu_pd(p, (1 << n) - 1, v); }
#else
template <typename F> INLINE V<F> some(const F* p, int n) {
  V<F> v = {};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
template <typename F> INLINE void put_some(F* p, V<F> v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
#endif
// A vector of which only the first `left` numbers are a row's.
template <typename F> INLINE V<F> load(const F* p, int64_t left) { return left >= Lanes<F>::count ? at(p) : some(p, left); }
template <typename F> INLINE void store(F* p, V<F> v, int64_t left) {
  left >= Lanes<F>::count ? put(p, v) : put_some(p, v, left);
}
template <typename F> INLINE void add(F* p, V<F> v, int64_t left) { store(p, load(p, left) + v, left); }

constexpr double inverse_factorial(int k) { return k ? inverse_factorial(k - 1) / k : 1.0; }

// e^x - less, which is 0 or 1; exact near 0 too: e^x = 2^n e^r with |r| <= ln 2 / 2, and (e^r - 1) / r by its series.
// e^x is 0 below `lowest`, NaN stays NaN.
template <typename F> INLINE V<F> exponential(V<F> x, F less = 0) {
  using L = Lanes<F>;
  const V<F> high = V<F>{} + L::highest, y = x > high ? high : x;
  const V<F> shifted = y * F(1.4426950408889634) + L::shift, n = shifted - L::shift;  // n is in its lowest bits
  const V<F> r = (y - n * L::ln2) - n * L::ln2_rest;
  V<F> series = V<F>{} + F(inverse_factorial(L::terms));
  for (int k = L::terms; k-- > 1;) series = series * r + F(inverse_factorial(k));
  const typename L::I bits = ((typename L::I)shifted + L::bias) << L::mantissa;
  const V<F> power = (V<F>)bits;
  return x < V<F>{} + L::lowest ? V<F>{} - less : series * r * power + (power - less);
}
template <typename F> INLINE V<F> logistic(V<F> x) { return F(1) / (F(1) + exponential<F>(-x)); }
template <typename F> INLINE V<F> tangent(V<F> x) {
  const V<F> e = exponential<F>(x + x, F(1));
  return e / (e + F(2));
}

template <typename F> struct Buffer {  // zeros at first, aligned to vectors
  struct Whole {
    V<F> v;
  };
  std::vector<Whole> held;
  explicit Buffer(int64_t size) : held(padded<F>(size) / Lanes<F>::count) {}
  F* data() const { return reinterpret_cast<F*>(const_cast<Whole*>(held.data())); }
  F& operator[](int64_t i) const { return data()[i]; }
};

// a b + c, by one kind of instruction wherever it stands: left to itself the compiler takes another in each `tile`.
#ifdef __FMA__
INLINE Lanes<float>::V fused(float a, Lanes<float>::V b, Lanes<float>::V c) {
  return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c);
}
INLINE Lanes<double>::V fused(double a, Lanes<double>::V b, Lanes<double>::V c) {
  return _mm256_fmadd_pd(_mm256_set1_pd(a), b, c);
}
#else
template <typename F, typename V> INLINE V fused(F a, V b, V c) { return a * b + c; }
#endif

template <typename F, int M, int N>
void tile(F* c, int64_t ldc, const F* a, int64_t row, int64_t column, const F* b, int64_t ldb, int64_t k) {
  constexpr int lanes = Lanes<F>::count;
  V<F> sum[M][N], right[N];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) sum[i][j] = at(c + i * ldc + j * lanes);
  for (int64_t p = 0; p < k; ++p) {
    for (int j = 0; j < N; ++j) {
      right[j] = at(b + p * ldb + j * lanes);
#ifdef __AVX__
      asm("" : "+x"(right[j]));  // stays in a register: the compiler would read it again for each row
#endif
    }
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < N; ++j) sum[i][j] = fused(a[i * row + p * column], right[j], sum[i][j]);
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) put(c + i * ldc + j * lanes, sum[i][j]);
}

// C (m, n) += A (m, k) B (k, n), n whole vectors; entry (i, p) of A is a[i * row + p * column].
template <typename F>
void add_product(F* c, int64_t ldc, const F* a, int64_t row, int64_t column, const F* b, int64_t ldb, int64_t m,
                 int64_t k, int64_t n) {
  constexpr int lanes = Lanes<F>::count;
  for (int64_t j = 0, wide; j < n; j += wide) {
    wide = std::min<int64_t>(n - j, 3 * lanes);
    for (int64_t i = 0, tall; i < m; i += tall) {
      tall = m - i < 4 ? 1 : 4;
      const auto f = wide == lanes       ? (tall == 1 ? tile<F, 1, 1> : tile<F, 4, 1>)
                     : wide == 2 * lanes ? (tall == 1 ? tile<F, 1, 2> : tile<F, 4, 2>)
                                         : (tall == 1 ? tile<F, 1, 3> : tile<F, 4, 3>);
      f(c + i * ldc + j, ldc, a + i * row, row, column, b + j, ldb, k);
    }
  }
}

constexpr int64_t BLOCK = 32;  // rows taken at a time, so that all about them stays in the nearest caches

// One seed's layer: weight (d, parts * width) and bias, each part padded; backwards the transpose, and gradients.
template <typename F> struct Layer {
  int64_t d, width, parts, d_p, part_p, out_p;
  Buffer<F> weight, transposed, bias, at_weight, at_bias;

  Layer(const F* w, const F* b, int64_t d, int64_t width, int64_t parts, bool back, F beyond = 0)
      : d(d), width(width), parts(parts), d_p(padded<F>(d)), part_p(padded<F>(width)), out_p(parts * part_p),
        weight(d * out_p), transposed(back ? out_p * d_p : 0), bias(out_p), at_weight(back ? d * out_p : 0),
        at_bias(back ? out_p : 0) {
    std::fill_n(bias.data(), out_p, beyond);  // what outputs beyond the width are
    each([&](int64_t own, int64_t given) { bias[own] = b[given]; });
    for (int64_t i = 0; i < d; ++i)
      each([&](int64_t own, int64_t given) {
        weight[i * out_p + own] = w[i * parts * width + given];
        if (back) transposed[own * d_p + i] = w[i * parts * width + given];
      });
  }

  template <typename Use> void each(Use use) const {  // output -> its place here, and where it was given
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t j = 0; j < width; ++j) use(part * part_p + j, part * width + j);
  }

  void outputs(F* out, const F* rows, int64_t stride, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) std::copy_n(bias.data(), out_p, out + i * out_p);
    add_product(out, out_p, rows, stride, int64_t(1), weight.data(), out_p, count, d, out_p);
  }

  // Adds to the gradients at weight, bias and rows (count, d_p), given those at the outputs.
  void gradients(F* at_rows, const F* at_out, const F* rows, int64_t stride, int64_t count) {
    add_product(at_rows, d_p, at_out, out_p, int64_t(1), transposed.data(), d_p, count, out_p, d_p);
    add_product(at_weight.data(), out_p, rows, int64_t(1), stride, at_out, out_p, d, count, out_p);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < out_p; j += Lanes<F>::count) add(&at_bias[j], at(at_out + i * out_p + j));
  }

  void give(F* at_w, F* at_b) const {  // the gradients, to where the weights came from
    each([&](int64_t own, int64_t given) { at_b[given] = at_bias[own]; });
    for (int64_t i = 0; i < d; ++i)
      each([&](int64_t own, int64_t given) { at_w[i * parts * width + given] = at_weight[i * out_p + own]; });
  }
};
