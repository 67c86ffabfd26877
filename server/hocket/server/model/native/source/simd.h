// Vectors of 16 floats, and what is missing from the intrinsics.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

// Loops over registers: only unrolled can their arrays be registers.
#define HOCKET_UNROLL _Pragma("GCC unroll 16")
#define HOCKET_INLINED __attribute__((always_inline))
#define HOCKET_INLINE HOCKET_INLINED inline

namespace hocket {

namespace detail {

template <class Body, int... I>
HOCKET_INLINE void each_of(const Body& body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>{}), ...);
}

}  // namespace detail

// Calls body(0) to body(N - 1) with constants.
template <int N, class Body>
HOCKET_INLINE void each(const Body& body) {
  detail::each_of(body, std::make_integer_sequence<int, N>{});
}

// Calls body(count) with a constant; count is in [1, N].
template <int N, class Body>
HOCKET_INLINE void with_count(int count, const Body& body) {
  if constexpr (N == 1)
    body(std::integral_constant<int, 1>{});
  else
    count == N ? body(std::integral_constant<int, N>{}) : with_count<N - 1>(count, body);
}

using bf16 = uint16_t;

inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, __m512 value) { _mm512_storeu_ps(to, value); }

inline void store(bf16* to, __m512 value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(value));
}

inline __m512 load(const bf16* from) {
  __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// e^x to about 2 ulp for x <= 0 and moderate x > 0; minus infinity gives 0.
inline __m512 exp(__m512 x) {
  const __m512 log2e = _mm512_set1_ps(1.44269504f);
  __m512 scaled = _mm512_mul_ps(x, log2e);
  __m512 whole = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 part = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693359375f), x);
  part = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.12194440e-4f), part);
  __m512 value = _mm512_set1_ps(1.9875691500e-4f);
  value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(1.3981999507e-3f));
  value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(8.3334519073e-3f));
  value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(4.1665795894e-2f));
  value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(1.6666665459e-1f));
  value = _mm512_fmadd_ps(value, part, _mm512_set1_ps(5.0000001201e-1f));
  value =
      _mm512_fmadd_ps(value, _mm512_mul_ps(part, part), _mm512_add_ps(part, _mm512_set1_ps(1.0f)));
  __m512 result = _mm512_scalef_ps(value, whole);
  // Far below the smallest float the polynomial's argument is no longer small, or is NaN.
  __mmask16 vanishes = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-103.0f), _CMP_LT_OQ);
  return _mm512_mask_mov_ps(result, vanishes, _mm512_setzero_ps());
}

}  // namespace hocket
