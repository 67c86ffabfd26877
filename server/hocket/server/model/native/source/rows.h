// Row by row work between the matrix products: normalise, round, quantise, rotate.
#pragma once

#include <limits>

#include "linear.h"
#include "simd.h"

namespace hocket {

constexpr float kLeastScaled = 1e-30f;

// Writes a row as a linear layer takes it: bfloat16, or int8 with a scale and an offset a group.
inline void write_row(const float* x, int size, bool is_int8, void* values, float* scales,
                      int32_t* offsets) {
  if (!is_int8) {
    auto* to = static_cast<bf16*>(values);
    for (int i = 0; i < size; i += 16) store(to + i, load(x + i));
    return;
  }
  auto* to = static_cast<int8_t*>(values);
  for (int group = 0; group * kGroup < size; ++group) {
    const float* from = x + group * kGroup;
    // Of positive numbers the bits sort like the numbers, and NaN above infinity: no maximum of
    // floats would keep it.
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < kGroup; i += 16)
      most = _mm512_max_epi32(most, _mm512_castps_si512(_mm512_abs_ps(load(from + i))));
    const int32_t bits = _mm512_reduce_max_epi32(most);
    float largest;
    __builtin_memcpy(&largest, &bits, sizeof largest);
    if (!(largest <= std::numeric_limits<float>::max())) {  // reaches all outputs as NaN
      __builtin_memset(to + group * kGroup, 0, kGroup);
      scales[group] = std::numeric_limits<float>::quiet_NaN();
      offsets[group] = 0;
      continue;
    }
    // What is smaller has no inverse, and is nothing beside any other number.
    const float step = largest > kLeastScaled ? largest / 127.0f : 1.0f;
    const __m512 factor = _mm512_set1_ps(1.0f / step);
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < kGroup; i += 16) {
      const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(load(from + i), factor));
      sum = _mm512_add_epi32(sum, whole);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + group * kGroup + i),
                       _mm512_cvtsepi32_epi8(whole));
    }
    scales[group] = step;
    offsets[group] = -128 * _mm512_reduce_add_epi32(sum);  // at most 64 * 127 each
  }
}

// y = x / rms(x) * weight, after Zhang and Sennrich (2019). y may be x.
inline void rms_norm(const float* x, const float* weight, int size, float epsilon, float* y) {
  __m512 sum = _mm512_setzero_ps();
  for (int i = 0; i < size; i += 16) sum = _mm512_fmadd_ps(load(x + i), load(x + i), sum);
  const __m512 factor =
      _mm512_set1_ps(1.0f / __builtin_sqrtf(_mm512_reduce_add_ps(sum) / size + epsilon));
  for (int i = 0; i < size; i += 16)
    store(y + i, _mm512_mul_ps(_mm512_mul_ps(load(x + i), factor), load(weight + i)));
}

// Rotates one head in place: the halves of a head are the two coordinates (Su et al., 2021).
// `table` holds head_dim / 2 cosines, then as many sines.
inline void rotate(float* head, const float* table, int dim) {
  const int half = dim / 2;
  for (int i = 0; i < half; i += 16) {
    const __m512 a = load(head + i), b = load(head + half + i);
    const __m512 cosine = load(table + i), sine = load(table + half + i);
    store(head + i, _mm512_fmsub_ps(a, cosine, _mm512_mul_ps(b, sine)));
    store(head + half + i, _mm512_fmadd_ps(b, cosine, _mm512_mul_ps(a, sine)));
  }
}

}  // namespace hocket
