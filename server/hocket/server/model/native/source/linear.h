// Matrix products with packed constant weights, for bfloat16 and for int8.
//
// Weights lie in tiles of 16 output channels: bfloat16 as [N/16][K/2][16][2], int8 as
// [N/16][K/4][16][4], so that one vector holds what 16 channels need of a few inputs. An output is
// summed by one accumulator over k in order, whatever the blocking: a row's result depends neither
// on how many rows stand beside it nor on the number of threads.
#pragma once

#include <algorithm>

#include "simd.h"

namespace hocket {

constexpr int kGroup = 64;  // inputs of an output, or of a row, that share a scale in int8

enum class Epilogue : int32_t { kStore = 0, kAdd = 1, kSilu = 2, kGelu = 3 };

// One linear layer. For the gated epilogues the tiles of gate and up alternate.
struct Linear {
  int32_t in, out;  // padded to whole vectors
  int32_t is_int8;
  int32_t reserved;
  const void* weights;  // packed; int8 is stored with 128 added
  const bf16* scales;   // [out/16][in / kGroup][16], int8 alone
  const float* bias;    // [out] or null
};

// Rows of activations, as `write_row` leaves them.
struct Rows {
  int32_t count;
  int32_t stride;          // elements between rows
  const void* values;      // int8 or bf16
  const float* scales;     // [count][in / kGroup], int8 alone
  const int32_t* offsets;  // [count][in / kGroup], minus 128 times the group's sum, int8 alone
};

namespace detail {

constexpr size_t kAhead = 1024;  // bytes of weights that are fetched before they are used
constexpr int kMostRows = 6;     // with 4 tiles: 24 accumulators, 4 weights, an input

template <int R, int T>
inline void dot_bf16(const bf16* w, int tile, const bf16* x, int stride, int k, size_t ahead,
                     __m512 (&result)[R][T]) {
  __m512 acc[R][T];
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int t = 0; t < T; ++t) acc[r][t] = _mm512_setzero_ps();
  const int pairs = k / 2;
  const size_t tile_size = static_cast<size_t>(pairs) * 32;
  const bf16* base = w + tile * tile_size;
  for (int p = 0; p < pairs; ++p) {
    __m512bh weight[T];
    HOCKET_UNROLL for (int t = 0; t < T; ++t) {
      const bf16* at = base + t * tile_size + static_cast<size_t>(p) * 32;
      weight[t] = (__m512bh)_mm512_loadu_si512(at);
      _mm_prefetch(reinterpret_cast<const char*>(at) + ahead, _MM_HINT_T0);
    }
    HOCKET_UNROLL for (int r = 0; r < R; ++r) {
      int32_t two;
      __builtin_memcpy(&two, x + static_cast<size_t>(r) * stride + 2 * p, sizeof two);
      __m512bh input = (__m512bh)_mm512_set1_epi32(two);
      HOCKET_UNROLL for (int t = 0; t < T; ++t)
        acc[r][t] = _mm512_dpbf16_ps(acc[r][t], weight[t], input);
    }
  }
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int t = 0; t < T; ++t) result[r][t] = acc[r][t];
}

// Inputs have a scale and an offset for each group; sums are exact within a group.
template <int R, int T>
inline void dot_int8(const uint8_t* w, const bf16* scales, int tile, const Rows& rows, int row,
                     int k, size_t ahead, __m512 (&result)[R][T]) {
  __m512 total[R][T];
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int t = 0; t < T; ++t) total[r][t] = _mm512_setzero_ps();
  const int groups = k / kGroup;
  const size_t tile_size = static_cast<size_t>(k) * 16;
  const uint8_t* base = w + tile * tile_size;
  const int8_t* x =
      static_cast<const int8_t*>(rows.values) + static_cast<size_t>(row) * rows.stride;
  for (int g = 0; g < groups; ++g) {
    __m512i acc[R][T];
    HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
      for (int t = 0; t < T; ++t)
        acc[r][t] = _mm512_set1_epi32(rows.offsets[(row + r) * groups + g]);
    for (int q = 0; q < kGroup / 4; ++q) {
      __m512i weight[T];
      HOCKET_UNROLL for (int t = 0; t < T; ++t) {
        const uint8_t* at = base + t * tile_size + static_cast<size_t>(g * (kGroup / 4) + q) * 64;
        weight[t] = _mm512_loadu_si512(at);
        _mm_prefetch(reinterpret_cast<const char*>(at) + ahead, _MM_HINT_T0);
      }
      HOCKET_UNROLL for (int r = 0; r < R; ++r) {
        int32_t four;
        __builtin_memcpy(&four, x + static_cast<size_t>(r) * rows.stride + g * kGroup + 4 * q,
                         sizeof four);
        const __m512i input = _mm512_set1_epi32(four);
        HOCKET_UNROLL for (int t = 0; t < T; ++t)
          acc[r][t] = _mm512_dpbusd_epi32(acc[r][t], weight[t], input);
      }
    }
    __m512 weight_scale[T];
    HOCKET_UNROLL for (int t = 0; t < T; ++t)
      weight_scale[t] = load(scales + static_cast<size_t>((tile + t) * groups + g) * 16);
    HOCKET_UNROLL for (int r = 0; r < R; ++r) {
      const __m512 scale = _mm512_set1_ps(rows.scales[(row + r) * groups + g]);
      HOCKET_UNROLL for (int t = 0; t < T; ++t)
        total[r][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][t]),
                                      _mm512_mul_ps(scale, weight_scale[t]), total[r][t]);
    }
  }
  HOCKET_UNROLL for (int r = 0; r < R; ++r) HOCKET_UNROLL
    for (int t = 0; t < T; ++t) result[r][t] = total[r][t];
}

inline __m512 activate(__m512 gate, Epilogue kind) {
  const __m512 one = _mm512_set1_ps(1.0f);
  __m512 argument = gate;
  if (kind == Epilogue::kGelu) {  // tanh form: x * sigmoid(2 * sqrt(2/pi) * (x + 0.044715 x^3))
    __m512 cube = _mm512_mul_ps(gate, _mm512_mul_ps(gate, gate));
    argument = _mm512_mul_ps(_mm512_set1_ps(1.5957691216f),
                             _mm512_fmadd_ps(_mm512_set1_ps(0.044715f), cube, gate));
  }
  argument = _mm512_min_ps(argument, _mm512_set1_ps(80.0f));
  argument = _mm512_max_ps(argument, _mm512_set1_ps(-80.0f));
  __m512 sigmoid =
      _mm512_div_ps(one, _mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), argument))));
  return _mm512_mul_ps(gate, sigmoid);
}

template <int R, int T>
inline void finish(const Linear& layer, int row, int tile, __m512 (&value)[R][T], Epilogue kind,
                   float* out, int out_stride) {
  HOCKET_UNROLL for (int r = 0; r < R; ++r) {
    float* line = out + static_cast<size_t>(row + r) * out_stride;
    if (layer.bias) HOCKET_UNROLL
      for (int t = 0; t < T; ++t)
        value[r][t] = _mm512_add_ps(value[r][t], load(layer.bias + (tile + t) * 16));
    if constexpr (T >= 2) {
      if (kind == Epilogue::kSilu || kind == Epilogue::kGelu) {
        HOCKET_UNROLL for (int t = 0; t + 1 < T; t += 2)
          store(line + (tile + t) / 2 * 16,
                _mm512_mul_ps(activate(value[r][t], kind), value[r][t + 1]));
        continue;
      }
    }
    HOCKET_UNROLL for (int t = 0; t < T; ++t) {
      float* at = line + (tile + t) * 16;
      store(at, kind == Epilogue::kAdd ? _mm512_add_ps(load(at), value[r][t]) : value[r][t]);
    }
  }
}

template <int R, int T>
inline void block(const Linear& layer, const Rows& rows, int row, int tile, size_t ahead,
                  Epilogue kind, float* out, int out_stride) {
  __m512 value[R][T];
  if (layer.is_int8) {
    dot_int8<R, T>(static_cast<const uint8_t*>(layer.weights), layer.scales, tile, rows, row,
                   layer.in, ahead, value);
  } else {
    const auto* x = static_cast<const bf16*>(rows.values) + static_cast<size_t>(row) * rows.stride;
    dot_bf16<R, T>(static_cast<const bf16*>(layer.weights), tile, x, rows.stride, layer.in, ahead,
                   value);
  }
  finish<R, T>(layer, row, tile, value, kind, out, out_stride);
}

template <int T>
inline void rows_block(int count, const Linear& layer, const Rows& rows, int row, int tile,
                       size_t ahead, Epilogue kind, float* out, int out_stride) {
  switch (count) {
    case 6:
      return block<6, T>(layer, rows, row, tile, ahead, kind, out, out_stride);
    case 5:
      return block<5, T>(layer, rows, row, tile, ahead, kind, out, out_stride);
    case 4:
      return block<4, T>(layer, rows, row, tile, ahead, kind, out, out_stride);
    case 3:
      return block<3, T>(layer, rows, row, tile, ahead, kind, out, out_stride);
    case 2:
      return block<2, T>(layer, rows, row, tile, ahead, kind, out, out_stride);
    default:
      return block<1, T>(layer, rows, row, tile, ahead, kind, out, out_stride);
  }
}

// All rows against T tiles, in blocks of nearly equal height.
template <int T>
inline void column(const Linear& layer, const Rows& rows, int tile, Epilogue kind, float* out,
                   int out_stride) {
  const int blocks = (rows.count + kMostRows - 1) / kMostRows;
  for (int b = 0, row = 0; b < blocks; ++b) {
    const int height = (rows.count - row + blocks - b - 1) / (blocks - b);
    // The last block of several fetches the tiles that come next; a single one its own.
    const size_t next = static_cast<size_t>(layer.in) * 16 * T * (layer.is_int8 ? 1 : 2);
    rows_block<T>(height, layer, rows, row, tile, blocks > 1 && b + 1 == blocks ? next : kAhead,
                  kind, out, out_stride);
    row += height;
  }
}

}  // namespace detail

// Computes the tiles [first, last) of 16 output channels for all rows.
inline void linear(const Linear& layer, const Rows& rows, int first, int last, Epilogue kind,
                   float* out, int out_stride) {
  int tile = first;
  // Groups of int8 need a second set of accumulators: blocks of many rows are two tiles wide.
  if (!layer.is_int8 || rows.count <= 3)
    for (; tile + 4 <= last; tile += 4) detail::column<4>(layer, rows, tile, kind, out, out_stride);
  for (; tile + 2 <= last; tile += 2) detail::column<2>(layer, rows, tile, kind, out, out_stride);
  for (; tile < last; ++tile) detail::column<1>(layer, rows, tile, kind, out, out_stride);
}

}  // namespace hocket
