// Attention over the blocks of the KV cache, for decodes and prefill chunks alike.
//
// A block of one head holds its keys as [S/16][D/2][16][2] and its values as [S/2][D][2], all in
// bfloat16: a vector of keys gives 16 scores without a horizontal sum, a vector of values takes two
// weights at once. Scores and sums are float32; the softmax runs along the keys in stripes (Milakov
// and Gimelshein, 2018). Each query goes through its stripes in the same order with the same
// arithmetic, whoever is computed beside it: chunks and company change no bit.
#pragma once

#include <limits>

#include "simd.h"

namespace hocket {

constexpr int kMostDim = 256;

// Where one head's key or value of a token begins, in a layer's cache.
inline size_t head_of(int block, int kv_head, int kv_heads, int block_size, int dim) {
  return (static_cast<size_t>(block) * kv_heads + kv_head) * block_size * dim;
}

inline void write_key(bf16* head, int slot, const float* key, int dim) {
  bf16 rounded[kMostDim];
  for (int i = 0; i < dim; i += 16) store(rounded + i, load(key + i));
  bf16* to = head + static_cast<size_t>(slot / 16) * 16 * dim + (slot % 16) * 2;
  for (int i = 0; i < dim; i += 2) __builtin_memcpy(to + i * 16, rounded + i, 2 * sizeof(bf16));
}

inline void write_value(bf16* head, int slot, const float* value, int dim) {
  bf16 rounded[kMostDim];
  for (int i = 0; i < dim; i += 16) store(rounded + i, load(value + i));
  bf16* to = head + static_cast<size_t>(slot / 2) * 2 * dim + slot % 2;
  for (int i = 0; i < dim; ++i) to[2 * i] = rounded[i];
}

// One head group of a sequence: its blocks, and the queries that look at them.
struct Heads {
  const bf16* keys;  // the layer's
  const bf16* values;
  const int32_t* blocks;
  int kv_head, kv_heads, block_size, dim;
  float scale;
  int window;         // 0: all
  const bf16* after;  // the keys that are wanted when these queries are done

  // Where the head's keys or values from a position on begin; it is a multiple of 16.
  size_t at(int position) const {
    return head_of(blocks[position / block_size], kv_head, kv_heads, block_size, dim) +
           static_cast<size_t>(position % block_size) * dim;
  }
};

namespace detail {

// Fetches lines [i * N, (i + 1) * N) of what lies at `from` and is wanted next: blocks lie
// anywhere, and the processor by itself sees too late where reading goes on.
template <int N>
inline void fetch(const bf16* from, int i) {
  HOCKET_UNROLL for (int n = 0; n < N; ++n)
    _mm_prefetch(reinterpret_cast<const char*>(from) + (i * N + n) * 64, _MM_HINT_T1);
}

// R queries against the keys of one stripe of T tiles: scores [R][16 * T]. Fetches the stripe's
// values meanwhile.
template <int R, int T>
inline void score(const bf16* keys, const bf16* values, const bf16* const* queries, int dim,
                  float* scores) {
  __m512 acc[R][T];
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int t = 0; t < T; ++t) acc[r][t] = _mm512_setzero_ps();
  for (int i = 0; i < dim; i += 2) {
    fetch<T>(values, i / 2);
    __m512bh key[T];
    HOCKET_UNROLL for (int t = 0; t < T; ++t)
      key[t] = (__m512bh)_mm512_loadu_si512(keys + static_cast<size_t>(t) * 16 * dim + i * 16);
    HOCKET_UNROLL for (int r = 0; r < R; ++r) {
      int32_t two;
      __builtin_memcpy(&two, queries[r] + i, sizeof two);
      const __m512bh query = (__m512bh)_mm512_set1_epi32(two);
      HOCKET_UNROLL for (int t = 0; t < T; ++t)
        acc[r][t] = _mm512_dpbf16_ps(acc[r][t], key[t], query);
    }
  }
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int t = 0; t < T; ++t) store(scores + (r * T + t) * 16, acc[r][t]);
}

// Adds R rows of weights [R][16 * T], in pairs, times 16 * C dimensions of the stripe's values.
// Fetches the keys that come next meanwhile.
template <int R, int C>
inline void mix(const bf16* values, const bf16* next, const bf16* weights, int weights_stride,
                int pairs, int dim, float* out) {
  __m512 acc[R][C];
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int c = 0; c < C; ++c) acc[r][c] = load(out + r * kMostDim + c * 16);
  for (int p = 0; p < pairs; ++p) {
    fetch<C>(next, p);
    __m512bh value[C];
    HOCKET_UNROLL for (int c = 0; c < C; ++c)
      value[c] = (__m512bh)_mm512_loadu_si512(values + static_cast<size_t>(p) * 2 * dim + c * 32);
    HOCKET_UNROLL for (int r = 0; r < R; ++r) {
      int32_t two;
      __builtin_memcpy(&two, weights + r * weights_stride + 2 * p, sizeof two);
      const __m512bh weight = (__m512bh)_mm512_set1_epi32(two);
      HOCKET_UNROLL for (int c = 0; c < C; ++c)
        acc[r][c] = _mm512_dpbf16_ps(acc[r][c], value[c], weight);
    }
  }
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int c = 0; c < C; ++c) store(out + r * kMostDim + c * 16, acc[r][c]);
}

// R queries, query r at position[r], against all keys they may see.
template <int R, int T>
inline void attend(const Heads& heads, const bf16* const* queries, const int* position,
                   float* const* outputs) {
  constexpr int kStripe = 16 * T;
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  alignas(64) float out[R][kMostDim];
  alignas(64) float scores[R * kStripe];
  alignas(64) bf16 weights[R * kStripe];
  float most[R], sum[R];
  int last = 0, first = position[0];
  for (int r = 0; r < R; ++r) {
    most[r] = -std::numeric_limits<float>::infinity();
    sum[r] = 0.0f;
    for (int i = 0; i < heads.dim; i += 16) store(out[r] + i, _mm512_setzero_ps());
    last = std::max(last, position[r]);
    first = std::min(first, heads.window ? std::max(0, position[r] - heads.window + 1) : 0);
  }
  for (int begin = first / kStripe * kStripe; begin <= last; begin += kStripe) {
    const size_t head = heads.at(begin);
    const bf16* next =
        begin + kStripe <= last ? heads.keys + heads.at(begin + kStripe) : heads.after;
    score<R, T>(heads.keys + head, heads.values + head, queries, heads.dim, scores);
    for (int r = 0; r < R; ++r) {
      float* own = scores + r * kStripe;
      const __m512i end = _mm512_set1_epi32(position[r] - begin);
      const __m512i start =
          _mm512_set1_epi32(heads.window ? position[r] - heads.window - begin : -1);
      __m512 highest = lowest;
      for (int t = 0; t < T; ++t) {
        const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32(16 * t));
        const __mmask16 seen =
            _mm512_cmple_epi32_mask(at, end) & _mm512_cmpgt_epi32_mask(at, start);
        const __m512 scaled = _mm512_mul_ps(load(own + 16 * t), _mm512_set1_ps(heads.scale));
        const __m512 masked = _mm512_mask_mov_ps(lowest, seen, scaled);
        store(own + 16 * t, masked);
        highest = _mm512_max_ps(highest, masked);
      }
      const float most_now = std::max(most[r], _mm512_reduce_max_ps(highest));
      bf16* own_weights = weights + r * kStripe;
      if (most_now == -std::numeric_limits<float>::infinity()) {  // a stripe outside the window
        for (int t = 0; t < T; ++t) store(own_weights + 16 * t, _mm512_setzero_ps());
        continue;
      }
      __m512 total = _mm512_setzero_ps();
      for (int t = 0; t < T; ++t) {
        const __m512 weight = exp(_mm512_sub_ps(load(own + 16 * t), _mm512_set1_ps(most_now)));
        total = _mm512_add_ps(total, weight);
        store(own_weights + 16 * t, weight);
      }
      const __m512 shrink = exp(_mm512_set1_ps(most[r] - most_now));
      sum[r] = __builtin_fmaf(sum[r], _mm512_cvtss_f32(shrink), _mm512_reduce_add_ps(total));
      if (most[r] != most_now)
        for (int i = 0; i < heads.dim; i += 16)
          store(out[r] + i, _mm512_mul_ps(load(out[r] + i), shrink));
      most[r] = most_now;
    }
    const int pairs = (std::min(kStripe, last - begin + 1) + 1) / 2;
    int i = 0;
    for (; i + 64 <= heads.dim; i += 64)
      mix<R, 4>(heads.values + head + 2 * i, next + 16 * T * i, weights, kStripe, pairs, heads.dim,
                out[0] + i);
    for (; i < heads.dim; i += 32)
      mix<R, 2>(heads.values + head + 2 * i, next + 16 * T * i, weights, kStripe, pairs, heads.dim,
                out[0] + i);
  }
  for (int r = 0; r < R; ++r) {
    const __m512 factor = _mm512_set1_ps(1.0f / sum[r]);
    for (int i = 0; i < heads.dim; i += 16)
      store(outputs[r] + i, _mm512_mul_ps(load(out[r] + i), factor));
  }
}

template <int T>
inline void attend_some(int count, const Heads& heads, const bf16* const* queries,
                        const int* position, float* const* outputs) {
  switch (count) {
    case 6:
      return attend<6, T>(heads, queries, position, outputs);
    case 5:
      return attend<5, T>(heads, queries, position, outputs);
    case 4:
      return attend<4, T>(heads, queries, position, outputs);
    case 3:
      return attend<3, T>(heads, queries, position, outputs);
    case 2:
      return attend<2, T>(heads, queries, position, outputs);
    default:
      return attend<1, T>(heads, queries, position, outputs);
  }
}

}  // namespace detail

constexpr int kMostQueries = 6;

// Up to kMostQueries queries of one head group.
inline void attend(int count, const Heads& heads, const bf16* const* queries, const int* position,
                   float* const* outputs) {
  if (heads.block_size % 64 == 0)
    detail::attend_some<4>(count, heads, queries, position, outputs);
  else
    detail::attend_some<1>(count, heads, queries, position, outputs);
}

}  // namespace hocket
