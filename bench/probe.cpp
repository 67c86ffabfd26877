// What the processor can do at most: multiply-adds in registers, and reading memory.
#include <immintrin.h>
#include <omp.h>

#include <cstddef>
#include <cstdint>

namespace {

// More than latency times throughput asks for, and with the operands fewer than the registers. Each
// loop over them is unrolled, or they would lie in memory; they begin apart, or they would be one.
constexpr int kAccumulators = 16;
#define UNROLL _Pragma("GCC unroll 16")
constexpr int kTurns = 1 << 20;

volatile float sink;

}  // namespace

extern "C" {

// Returns int8 operations a second of all threads; a multiply-add is two.
double probe_int8(int threads) {
  const double begun = omp_get_wtime();
#pragma omp parallel num_threads(threads)
  {
    __m512i sums[kAccumulators], left = _mm512_set1_epi8(3), right = _mm512_set1_epi8(1);
    UNROLL for (int i = 0; i < kAccumulators; ++i) sums[i] = _mm512_set1_epi32(i);
    for (int turn = 0; turn < kTurns; ++turn) {
      UNROLL for (int i = 0; i < kAccumulators; ++i)
        sums[i] = _mm512_dpbusd_epi32(sums[i], left, right);
    }
    __m512i all = sums[0];
    UNROLL for (int i = 1; i < kAccumulators; ++i) all = _mm512_add_epi32(all, sums[i]);
    sink = static_cast<float>(_mm512_reduce_add_epi32(all));
  }
  return 128.0 * kAccumulators * kTurns * threads / (omp_get_wtime() - begun);
}

// Returns bfloat16 operations a second of all threads.
double probe_bf16(int threads) {
  const double begun = omp_get_wtime();
#pragma omp parallel num_threads(threads)
  {
    const __m512bh left = (__m512bh)_mm512_set1_epi16(0x3f80), right = left;
    __m512 sums[kAccumulators];
    UNROLL for (int i = 0; i < kAccumulators; ++i) sums[i] = _mm512_set1_ps(i);
    for (int turn = 0; turn < kTurns; ++turn) {
      UNROLL for (int i = 0; i < kAccumulators; ++i)
        sums[i] = _mm512_dpbf16_ps(sums[i], left, right);
    }
    __m512 all = sums[0];
    UNROLL for (int i = 1; i < kAccumulators; ++i) all = _mm512_add_ps(all, sums[i]);
    sink = _mm512_reduce_add_ps(all);
  }
  return 64.0 * kAccumulators * kTurns * threads / (omp_get_wtime() - begun);
}

// Returns bytes a second at which all threads together read memory once, front to back.
double probe_read(const uint8_t* memory, size_t bytes, int threads) {
  const double begun = omp_get_wtime();
#pragma omp parallel num_threads(threads)
  {
    const size_t share = bytes / threads / 512 * 512;
    const uint8_t* at = memory + share * omp_get_thread_num();
    __m512i sums[8];
    UNROLL for (int k = 0; k < 8; ++k) sums[k] = _mm512_setzero_si512();
    for (size_t i = 0; i < share; i += 512) {
      UNROLL for (int k = 0; k < 8; ++k) {
        _mm_prefetch(reinterpret_cast<const char*>(at + i + 64 * k + 4096), _MM_HINT_T0);
        sums[k] = _mm512_xor_si512(sums[k], _mm512_loadu_si512(at + i + 64 * k));
      }
    }
    UNROLL for (int k = 1; k < 8; ++k) sums[0] = _mm512_xor_si512(sums[0], sums[k]);
    sink = static_cast<float>(_mm512_reduce_add_epi32(sums[0]));
  }
  return static_cast<double>(bytes / threads / 512 * 512 * threads) / (omp_get_wtime() - begun);
}
}
