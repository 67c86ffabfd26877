// The threads of a forward pass: they share the work of a phase, then wait for each other.
//
// Each thread has a stretch of the work, so that what it reads lies together, and takes it in
// portions; when it is through it helps the others. Where another process takes a core for a while,
// the other threads go on with what is left.
#pragma once

#include <immintrin.h>
#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>

namespace hocket {

constexpr int kMostThreads = 256;

class Team {
 public:
  // Says how many threads there are, at most kMostThreads; by one thread, before any of them works.
  // OpenMP may have given fewer than were asked for, and nobody may wait for one that never comes.
  void assemble(int size) { size_ = size; }

  // Calls work(first, last) for portions of [0, count): of `grain`, and of `least` at the end of a
  // stretch. Returns when all of it is done by all threads.
  template <typename Work>
  void each(int count, int grain, int least, const Work& work) {
    if (size_ == 1) {
      if (count > 0) work(0, count);
      return;
    }
    const int self = omp_get_thread_num(), portions = (count + grain - 1) / grain;
    for (int i = 0; i < size_; ++i) {
      const int owner = self + i < size_ ? self + i : self + i - size_;
      const int begin = portions * owner / size_ * grain;
      const int end = std::min(portions * (owner + 1) / size_ * grain, count);
      take(taken_[owner].count, begin, end, grain, least, work);
    }
    wait();
  }

 private:
  struct alignas(64) Counter {
    std::atomic<int> count{0};
  };

  template <typename Work>
  void take(std::atomic<int>& taken, int begin, int end, int grain, int least, const Work& work) {
    for (int done = taken.load(std::memory_order_relaxed);;) {
      const int first = begin + done;
      if (first >= end) return;
      const int portion = std::min(end - first, end - first > grain ? grain : least);
      if (!taken.compare_exchange_weak(done, done + portion, std::memory_order_relaxed)) continue;
      work(first, first + portion);
      done = taken.load(std::memory_order_relaxed);
    }
  }

  void wait() {
    const int turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      for (int i = 0; i < size_; ++i) taken_[i].count.store(0, std::memory_order_relaxed);
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
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> turn_{0};
  Counter taken_[kMostThreads];
};

}  // namespace hocket
