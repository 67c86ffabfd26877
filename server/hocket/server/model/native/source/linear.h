// Matrix products with packed constant weights, for bfloat16 and for int8; see `dot.h`.
#pragma once

#include <algorithm>

#include "dot.h"
#include "simd.h"

namespace hocket {

enum class Epilogue : int32_t { kStore = 0, kAdd = 1, kSilu = 2, kGelu = 3 };

// One linear layer. For the gated epilogues the tiles of gate and up alternate.
struct Linear {
  int32_t in, out;  // whole groups; padded to whole tiles
  int32_t is_int8;
  int32_t reserved;
  const void* weights;  // panels, all of kPanel tiles but the last
  const bf16* scales;   // for each panel [in / kGroup][tiles][16], int8 alone
  const float* bias;    // [out] or null
};

namespace detail {

constexpr int kTallest = 48;  // rows whose sums are kept at once

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

// What comes of one row's sums for T tiles.
template <int T>
inline void finish(const Linear& layer, int tile, const float* totals, Epilogue kind, float* line) {
  __m512 value[T];
  HOCKET_UNROLL for (int t = 0; t < T; ++t) {
    value[t] = load(totals + t * 16);
    if (layer.bias) value[t] = _mm512_add_ps(value[t], load(layer.bias + (tile + t) * 16));
  }
  if constexpr (T >= 2) {
    if (kind == Epilogue::kSilu || kind == Epilogue::kGelu) {
      HOCKET_UNROLL for (int t = 0; t < T; t += 2)
        store(line + (tile + t) / 2 * 16, _mm512_mul_ps(activate(value[t], kind), value[t + 1]));
      return;
    }
  }
  HOCKET_UNROLL for (int t = 0; t < T; ++t) {
    float* at = line + (tile + t) * 16;
    store(at, kind == Epilogue::kAdd ? _mm512_add_ps(load(at), value[t]) : value[t]);
  }
}

// T tiles of one panel for rows [top, top + count), in blocks of nearly equal height.
template <int T>
inline void column(const Linear& layer, const Rows& rows, int top, int count, int tile,
                   Epilogue kind, float* out, int out_stride) {
  const int panel = tile / kPanel * kPanel, width = std::min(kPanel, layer.out / 16 - panel);
  const int vectors = kGroup / (layer.is_int8 ? 4 : 2), groups = layer.in / kGroup;
  const size_t tile_bytes = static_cast<size_t>(groups) * vectors * 64;
  const int blocks = (count + kMostRows - 1) / kMostRows;
  alignas(64) float totals[kTallest * T * 16];
  for (int i = 0; i < count * T; ++i) store(totals + i * 16, _mm512_setzero_ps());

  Tiles tiles;
  tiles.width = width * 64;
  tiles.weights =
      static_cast<const char*>(layer.weights) + panel * tile_bytes + (tile - panel) * 64;
  tiles.scales = layer.scales + (static_cast<size_t>(panel) * groups + tile - panel) * 16;
  for (int group = 0; group < groups; ++group) {
    const size_t bytes = vectors * tiles.width;
    for (int b = 0, row = 0; b < blocks; ++b) {
      const int height = (count - row + blocks - b - 1) / (blocks - b);
      // Few rows wait for memory, which sees best what they want from the order they read it in.
      // Many fetch the next group, each block its part.
      const bool is_own = blocks < 3 && b == 0, is_none = blocks < 3 && b == 1;
      tiles.next = is_own ? nullptr : tiles.weights + (is_none ? 0 : bytes + bytes / blocks * b);
      tiles.step = is_none ? 0 : tiles.width / blocks;
      dot<T>(height, layer.is_int8, tiles, rows, top + row, group, totals + row * T * 16);
      row += height;
    }
    tiles.weights += bytes;
    tiles.scales += width * 16;
  }
  for (int row = 0; row < count; ++row)
    finish<T>(layer, tile, totals + row * T * 16, kind,
              out + static_cast<size_t>(top + row) * out_stride);
}

}  // namespace detail

// Computes the tiles [first, last) of 16 output channels for all rows.
inline void linear(const Linear& layer, const Rows& rows, int first, int last, Epilogue kind,
                   float* out, int out_stride) {
  for (int tile = first; tile < last;) {
    const int left = std::min(last, tile / kPanel * kPanel + kPanel) - tile;
    const auto columns = [&](auto width) {
      for (int top = 0; top < rows.count; top += detail::kTallest)
        detail::column<width>(layer, rows, top, std::min(detail::kTallest, rows.count - top), tile,
                              kind, out, out_stride);
      tile += width;
    };
    if (left >= kPanel)
      columns(std::integral_constant<int, kPanel>{});
    else if (left >= 2)
      columns(std::integral_constant<int, 2>{});
    else
      columns(std::integral_constant<int, 1>{});
  }
}

}  // namespace hocket
