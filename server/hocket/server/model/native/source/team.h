// The threads of a forward pass: they share the work of a phase, then wait for each other.
//
// Work is taken in portions from a counter, not divided beforehand: where another process takes a
// core for a while, the other threads go on with what is left.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <atomic>

namespace hocket {

class Team {
 public:
  // Says how many threads there are; by one thread, before any of them works. OpenMP may have given
  // fewer than were asked for, and nobody may wait for one that never comes.
  void assemble(int size) { size_ = size; }

  // Calls work(first, last) for portions of [0, count), in multiples of `grain` and smaller
  // towards the end; returns when all of it is done by all threads.
  template <typename Work>
  void each(int count, int grain, int least, const Work& work) {
    if (size_ == 1) {
      if (count > 0) work(0, count);
      return;
    }
    for (int first = next_.load(std::memory_order_relaxed);;) {
      if (first >= count) break;
      const int left = count - first;
      int portion = left > size_ * grain ? grain : least;
      if (portion > left) portion = left;
      if (!next_.compare_exchange_weak(first, first + portion, std::memory_order_relaxed)) continue;
      work(first, first + portion);
      first = next_.load(std::memory_order_relaxed);
    }
    wait();
  }

 private:
  void wait() {
    const int turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      next_.store(0, std::memory_order_relaxed);
      turn_.store(turn + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; turn_.load(std::memory_order_acquire) == turn; ++spins) {
      if (spins < 2000)
        _mm_pause();
      else
        sched_yield();
    }
  }

  int size_ = 1;
  alignas(64) std::atomic<int> next_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> turn_{0};
};

}  // namespace hocket
