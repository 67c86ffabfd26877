// Sums of products of a few rows with a few tiles of packed weights: the innermost loops.
//
// Sixteen output channels make a tile, up to kPanel tiles a panel. A panel holds, one after the
// other, what all its channels need of a few inputs, [K/n][tiles][16][n] with n = 2 for bfloat16
// and 4 for int8: it is read from its first byte to its last. Work goes group by group of 64
// inputs, so that rows that come in several blocks find a group near the processor. Sums are kept
// in float32 between groups; each is added up in the order of the inputs, whatever the blocking, so
// that a row's result depends neither on how many rows stand beside it nor on the number of
// threads.
#pragma once

#include "simd.h"

namespace hocket {

constexpr int kPanel = 4;   // tiles that lie side by side
constexpr int kGroup = 64;  // inputs of an output, or of a row, that share a scale in int8

// Rows of activations, as `write_row` leaves them.
struct Rows {
  int32_t count;
  int32_t stride;          // elements between rows
  const void* values;      // int8 or bf16
  const float* scales;     // [count][in / kGroup], int8 alone
  const int32_t* offsets;  // [count][in / kGroup], minus 128 times the group's sum, int8 alone
};

// One group of the inputs of T tiles that lie side by side in a panel.
struct Tiles {
  const char* weights;
  size_t width;        // bytes between vectors of inputs: those of the whole panel
  const bf16* scales;  // [tiles][16], int8 alone
  const char* next;    // what is fetched meanwhile for later; null: these weights, a little ahead
  size_t step;         // bytes of `next` for each vector of inputs
};

namespace detail {

constexpr size_t kAhead = 512;  // bytes of weights that are fetched before they are used

template <int T, bool kOwn>
HOCKET_INLINE void fetch(const char* at, const char*& next, size_t step) {
  if constexpr (kOwn) {
    each<T>([&](auto t) HOCKET_INLINED { _mm_prefetch(at + kAhead + t * 64, _MM_HINT_T0); });
  } else {
    _mm_prefetch(next, _MM_HINT_T0);
    next += step;
  }
}

// The products are written as assembly because compilers up to GCC 12 otherwise copy accumulators
// to memory and back in each turn of the loop.
inline void multiply_add(__m512& sum, __m512i weights, __m512i inputs) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
}

inline void multiply_add(__m512i& sum, __m512i weights, __m512i inputs) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
}

// Adds the products of one group to sums; a vector of inputs is 4 bytes of a row.
template <int R, int T, bool kOwn, int kVectors, class Sum>
HOCKET_INLINE void add_products(const Tiles& tiles, const char* row, size_t stride,
                                Sum (&sums)[R * T]) {
  const char *at = tiles.weights, *next = tiles.next;
  const size_t width = tiles.width, step = tiles.step;
  for (int vector = 0; vector < kVectors; ++vector) {
    __m512i weights[T];
    each<T>([&](auto t) HOCKET_INLINED { weights[t] = _mm512_loadu_si512(at + t * 64); });
    fetch<T, kOwn>(at, next, step);
    each<R>([&](auto r) HOCKET_INLINED {
      int32_t few;
      __builtin_memcpy(&few, row + r * stride, sizeof few);
      const __m512i inputs = _mm512_set1_epi32(few);
      each<T>([&](auto t) HOCKET_INLINED { multiply_add(sums[r * T + t], weights[t], inputs); });
    });
    at += width;
    row += sizeof(int32_t);
  }
}

template <int R, int T, bool kOwn>
inline void dot_bf16(const Tiles& tiles, const Rows& rows, int row, int group, float* totals) {
  const size_t stride = rows.stride * sizeof(bf16);
  const char* from =
      static_cast<const char*>(rows.values) + row * stride + group * kGroup * sizeof(bf16);
  __m512 sums[R * T];
  each<R * T>([&](auto i) HOCKET_INLINED { sums[i] = load(totals + i * 16); });
  add_products<R, T, kOwn, kGroup / 2>(tiles, from, stride, sums);
  each<R * T>([&](auto i) HOCKET_INLINED { store(totals + i * 16, sums[i]); });
}

// Weights are stored with 128 added; what that adds to a sum is taken off before it begins. Sums
// are exact within a group.
template <int R, int T, bool kOwn>
inline void dot_int8(const Tiles& tiles, const Rows& rows, int row, int group, float* totals) {
  const size_t stride = rows.stride;
  const char* from = static_cast<const char*>(rows.values) + row * stride + group * kGroup;
  const size_t groups = rows.stride / kGroup, first = row * groups + group;
  __m512i sums[R * T];
  each<R>([&](auto r) HOCKET_INLINED {
    const __m512i offset = _mm512_set1_epi32(rows.offsets[first + r * groups]);
    each<T>([&](auto t) HOCKET_INLINED { sums[r * T + t] = offset; });
  });
  add_products<R, T, kOwn, kGroup / 4>(tiles, from, stride, sums);
  asm("" : "+r"(totals) : : "memory");  // they stay in memory: registers are wanted for the sums
  each<T>([&](auto t) HOCKET_INLINED {
    const __m512 weight_scale = load(tiles.scales + t * 16);
    each<R>([&](auto r) HOCKET_INLINED {
      const __m512 scale =
          _mm512_mul_ps(_mm512_set1_ps(rows.scales[first + r * groups]), weight_scale);
      float* total = totals + (r * T + t) * 16;
      store(total, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r * T + t]), scale, load(total)));
    });
  });
}

}  // namespace detail

constexpr int kMostRows = 6;  // of a block; with 4 tiles: 24 sums, 4 weights, an input

// Adds the products of `count` rows, from `row` on, with one group of T tiles to `totals`
// [count][T][16].
template <int T>
inline void dot(int count, bool is_int8, const Tiles& tiles, const Rows& rows, int row, int group,
                float* totals) {
  with_count<kMostRows>(count, [&](auto height) HOCKET_INLINED {
    constexpr int R = height;
    if (is_int8)
      tiles.next ? detail::dot_int8<R, T, false>(tiles, rows, row, group, totals)
                 : detail::dot_int8<R, T, true>(tiles, rows, row, group, totals);
    else
      tiles.next ? detail::dot_bf16<R, T, false>(tiles, rows, row, group, totals)
                 : detail::dot_bf16<R, T, true>(tiles, rows, row, group, totals);
  });
}

}  // namespace hocket
