// The threads of a forward pass: they share the work of a phase, then wait for each other.
//
// Each thread has a stretch of the work, so that what it reads lies together, and takes it in
// portions; when it is through it helps the others. Where another process takes a core for a while,
// the other threads go on with what is left.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>

namespace hocket {

constexpr int kMostThreads = 256;

// GCC's OpenMP runtime as torch has loaded it, so that both use the same threads. Its functions are
// given, not linked: any compiler will do, and a second runtime cannot slip in.
struct OpenMP {
  void (*parallel)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
  int (*thread_num)();
  int (*num_threads)();
};
inline OpenMP openmp{};

class Team {
 public:
  // Calls work(team) on so many threads, at most kMostThreads, and waits for all of them.
  template <typename Work>
  static void run(int threads, const Work& work) {
    struct Call {
      const Work& work;
      Team team;
    } call{work, {}};
    const auto enter = [](void* data) {
      Call& call = *static_cast<Call*>(data);
      // OpenMP may give fewer than were asked for; all of them are told the same.
      call.team.size_.store(openmp.num_threads(), std::memory_order_relaxed);
      call.work(call.team);
    };
    openmp.parallel(enter, &call, std::min(threads, kMostThreads), 0);
  }

  // Calls work(first, last) for portions of [0, count): of `grain`, and of `least` at the end of a
  // stretch. Returns when all of it is done by all threads.
  template <typename Work>
  void each(int count, int grain, int least, const Work& work) {
    const int size = size_.load(std::memory_order_relaxed);
    if (size == 1) {
      if (count > 0) work(0, count);
      return;
    }
    const int self = openmp.thread_num(), portions = (count + grain - 1) / grain;
    for (int i = 0; i < size; ++i) {
      const int owner = self + i < size ? self + i : self + i - size;
      const int begin = portions * owner / size * grain;
      const int end = std::min(portions * (owner + 1) / size * grain, count);
      take(taken_[owner].count, begin, end, grain, least, work);
    }
    wait(size);
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

  void wait(int size) {
    const int turn = turn_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      for (int i = 0; i < size; ++i) taken_[i].count.store(0, std::memory_order_relaxed);
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

  std::atomic<int> size_{1};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> turn_{0};
  Counter taken_[kMostThreads];
};

}  // namespace hocket
