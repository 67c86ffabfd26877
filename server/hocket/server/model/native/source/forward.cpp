// The forward pass of the Llama family on one machine's cores: C functions over plain structures.
//
// Phases of a layer are shared by a team of threads; between them every thread waits for all. The
// structures are mirrored in `library.py`.
#include <algorithm>

#include "attention.h"
#include "linear.h"
#include "rows.h"
#include "team.h"

namespace hocket {

struct Layer {
  Linear qkv, output, gate_up, down;
  const float* before_attention;
  const float* after_attention;  // null without
  const float* before_mlp;
  const float* after_mlp;  // null without
  const float* q_norm;     // null without
  const float* k_norm;
  const float* rotation;  // [positions][head_dim]
  bf16* keys;
  bf16* values;
  int32_t window;
  int32_t reserved;
};

struct Model {
  const Layer* layers;
  const bf16* embedding;  // [vocabulary][hidden]
  const float* norm;
  Linear head;
  int32_t num_layers, hidden, num_heads, num_kv_heads, head_dim, intermediate, block_size,
      activation;
  float epsilon, scale, embedding_scale;
  int32_t num_threads;
};

// Consecutive tokens of one sequence.
struct Slice {
  const int32_t* blocks;
  int32_t first_row, count, start, reserved;
};

// One forward pass. All memory is the caller's.
struct Step {
  const int32_t* tokens;  // [rows]
  const Slice* slices;
  const int32_t* slice_of;  // [rows]
  float* x;                 // [rows][hidden]: in the end, the hidden states before the last norm
  float* wide;              // [rows][max(qkv, intermediate)]
  float* mixed;             // [rows][max(heads * head_dim, hidden)]
  bf16* queries;            // [rows][heads * head_dim]
  void* values;             // [rows][widest input of a linear], int8 or bf16
  float* scales;            // [rows][widest / kGroup]
  int32_t* offsets;         // the same
  int32_t rows;
};

namespace {

constexpr int kMostHidden = 16384;  // numbers of a row that is normalised at once

class Pass {
 public:
  Pass(const Model& model, const Step& step, Team& team)
      : model_(model), step_(step), team_(team) {}

  void run() {
    const int hidden = model_.hidden;
    team_.each(step_.rows, 16, 1, [&](int first, int last) {
      const __m512 scale = _mm512_set1_ps(model_.embedding_scale);
      for (int row = first; row < last; ++row) {
        const bf16* from = model_.embedding + static_cast<size_t>(step_.tokens[row]) * hidden;
        for (int i = 0; i < hidden; i += 16)
          store(step_.x + static_cast<size_t>(row) * hidden + i,
                _mm512_mul_ps(load(from + i), scale));
      }
    });
    for (int index = 0; index < model_.num_layers; ++index) layer(model_.layers[index]);
  }

 private:
  void layer(const Layer& layer) {
    const int heads = model_.num_heads * model_.head_dim;
    const int qkv = heads + 2 * model_.num_kv_heads * model_.head_dim;
    normalise(layer.before_attention, layer.qkv);
    product(layer.qkv, Epilogue::kStore, step_.wide, qkv);
    place(layer, qkv);
    attention(layer);
    prepare(step_.mixed, heads, layer.output);
    add(layer.output, layer.after_attention);
    normalise(layer.before_mlp, layer.gate_up);
    product(layer.gate_up, static_cast<Epilogue>(model_.activation), step_.wide,
            model_.intermediate);
    prepare(step_.wide, model_.intermediate, layer.down);
    add(layer.down, layer.after_mlp);
  }

  Rows rows_for(const Linear& linear) const {
    return Rows{step_.rows, linear.in, step_.values, step_.scales, step_.offsets};
  }

  void write(int row, const float* x, const Linear& next) const {
    const size_t width = next.is_int8 ? 1 : 2;
    void* to = static_cast<char*>(step_.values) + static_cast<size_t>(row) * next.in * width;
    write_row(x, next.in, next.is_int8, to, step_.scales + row * (next.in / kGroup),
              step_.offsets + row * (next.in / kGroup));
  }

  // Rows of x, normalised, as the next layer takes them.
  void normalise(const float* weight, const Linear& next) {
    team_.each(step_.rows, 8, 1, [&](int first, int last) {
      alignas(64) float line[kMostHidden];
      for (int row = first; row < last; ++row) {
        rms_norm(step_.x + static_cast<size_t>(row) * model_.hidden, weight, model_.hidden,
                 model_.epsilon, line);
        write(row, line, next);
      }
    });
  }

  void prepare(const float* from, int stride, const Linear& next) {
    team_.each(step_.rows, 8, 1, [&](int first, int last) {
      for (int row = first; row < last; ++row)
        write(row, from + static_cast<size_t>(row) * stride, next);
    });
  }

  void product(const Linear& layer, Epilogue epilogue, float* out, int stride) {
    team_.each(layer.out / 16, kPanel, 2, [&](int first, int last) {
      linear(layer, rows_for(layer), first, last, epilogue, out, stride);
    });
  }

  // x += the layer's output, normalised first where the model does so.
  void add(const Linear& layer, const float* norm) {
    if (!norm) return product(layer, Epilogue::kAdd, step_.x, model_.hidden);
    product(layer, Epilogue::kStore, step_.mixed, model_.hidden);
    team_.each(step_.rows, 8, 1, [&](int first, int last) {
      for (int row = first; row < last; ++row) {
        float* own = step_.mixed + static_cast<size_t>(row) * model_.hidden;
        float* x = step_.x + static_cast<size_t>(row) * model_.hidden;
        rms_norm(own, norm, model_.hidden, model_.epsilon, own);
        for (int i = 0; i < model_.hidden; i += 16)
          store(x + i, _mm512_add_ps(load(x + i), load(own + i)));
      }
    });
  }

  // Normalises and rotates the heads, and writes keys and values where they belong.
  void place(const Layer& layer, int stride) {
    const int dim = model_.head_dim, heads = model_.num_heads, kv_heads = model_.num_kv_heads;
    team_.each(step_.rows, 8, 1, [&](int first, int last) {
      for (int row = first; row < last; ++row) {
        const Slice& slice = step_.slices[step_.slice_of[row]];
        const int position = slice.start + row - slice.first_row;
        const int block = slice.blocks[position / model_.block_size],
                  slot = position % model_.block_size;
        const float* table = layer.rotation + static_cast<size_t>(position) * dim;
        float* own = step_.wide + static_cast<size_t>(row) * stride;
        for (int head = 0; head < heads + kv_heads; ++head) {
          const bool is_query = head < heads;
          float* at = own + static_cast<size_t>(head) * dim;
          if (layer.q_norm)
            rms_norm(at, is_query ? layer.q_norm : layer.k_norm, dim, model_.epsilon, at);
          rotate(at, table, dim);
          if (is_query) {
            bf16* to = step_.queries + (static_cast<size_t>(row) * heads + head) * dim;
            for (int i = 0; i < dim; i += 16) store(to + i, load(at + i));
            continue;
          }
          const size_t home = head_of(block, head - heads, kv_heads, model_.block_size, dim);
          write_key(layer.keys + home, slot, at, dim);
          write_value(layer.values + home, slot, at + static_cast<size_t>(kv_heads) * dim, dim);
        }
      }
    });
  }

  // The heads that a row looks at, from the first it sees on.
  Heads heads_of(const Layer& layer, int row, int kv_head) const {
    const Slice& slice = step_.slices[step_.slice_of[row]];
    Heads heads{layer.keys,        layer.values,    slice.blocks, kv_head,      model_.num_kv_heads,
                model_.block_size, model_.head_dim, model_.scale, layer.window, layer.keys};
    const int position = slice.start + row - slice.first_row;
    const int first = layer.window ? std::max(0, position - layer.window + 1) : 0;
    heads.after += heads.at(first / 16 * 16);
    return heads;
  }

  void attention(const Layer& layer) {
    const int kv_heads = model_.num_kv_heads, group = model_.num_heads / kv_heads,
              dim = model_.head_dim;
    // A row with all queries of one group, or as many rows as make a full block of queries.
    const int rows_at_once = std::max(1, kMostQueries / group);
    const int chunks = (step_.rows + rows_at_once - 1) / rows_at_once;
    team_.each(chunks * kv_heads, 2, 1, [&](int first, int last) {
      for (int item = first; item < last; ++item) {
        const int kv_head = item % kv_heads;
        const int begin = item / kv_heads * rows_at_once,
                  end = std::min(begin + rows_at_once, step_.rows);
        int count = 0;
        const bf16* queries[kMostQueries];
        int positions[kMostQueries];
        float* outputs[kMostQueries];
        for (int row = begin; row < end; ++row) {
          const Slice& slice = step_.slices[step_.slice_of[row]];
          Heads heads = heads_of(layer, row, kv_head);
          if (row + 1 < end)
            heads.after = heads_of(layer, row + 1, kv_head).after;
          else if (item + 1 < last)
            heads.after =
                heads_of(layer, (item + 1) / kv_heads * rows_at_once, (item + 1) % kv_heads).after;
          for (int g = 0; g < group; ++g) {
            const size_t at =
                (static_cast<size_t>(row) * model_.num_heads + kv_head * group + g) * dim;
            queries[count] = step_.queries + at;
            positions[count] = slice.start + row - slice.first_row;
            outputs[count++] = step_.mixed + at;
            const bool is_last = g + 1 == group &&
                                 (row + 1 == end || step_.slice_of[row + 1] != step_.slice_of[row]);
            if (count == kMostQueries || is_last) {
              attend(count, heads, queries, positions, outputs);
              count = 0;
            }
          }
        }
      }
    });
  }

  const Model& model_;
  const Step& step_;
  Team& team_;
};

}  // namespace
}  // namespace hocket

#pragma GCC visibility push(default)
extern "C" {

// Gives the threads; before anything else.
void hocket_use_openmp(hocket::OpenMP functions) { hocket::openmp = functions; }

// Computes hidden states into step.x and the cache.
void hocket_forward(const hocket::Model* model, const hocket::Step* step) {
  using namespace hocket;
  Team::run(model->num_threads, [&](Team& team) { Pass(*model, *step, team).run(); });
}

// Logits [count][head.out] of some rows of x. `values`, `scales`, `offsets`: room for `count` rows.
void hocket_logits(const hocket::Model* model, const float* x, const int32_t* rows, int32_t count,
                   void* values, float* scales, int32_t* offsets, float* logits) {
  using namespace hocket;
  const Linear& head = model->head;
  Team::run(model->num_threads, [&](Team& team) {
    team.each(count, 4, 1, [&](int first, int last) {
      alignas(64) float line[kMostHidden];
      for (int i = first; i < last; ++i) {
        rms_norm(x + static_cast<size_t>(rows[i]) * model->hidden, model->norm, model->hidden,
                 model->epsilon, line);
        void* to =
            static_cast<char*>(values) + static_cast<size_t>(i) * head.in * (head.is_int8 ? 1 : 2);
        write_row(line, head.in, head.is_int8, to, scales + i * (head.in / kGroup),
                  offsets + i * (head.in / kGroup));
      }
    });
    const Rows inputs{count, head.in, values, scales, offsets};
    team.each(head.out / 16, 16, 4, [&](int first, int last) {
      linear(head, inputs, first, last, Epilogue::kStore, logits, head.out);
    });
  });
}

// What the structures of the caller must be as large as.
void hocket_sizes(int32_t sizes[5]) {
  using namespace hocket;
  sizes[0] = sizeof(Linear);
  sizes[1] = sizeof(Layer);
  sizes[2] = sizeof(Model);
  sizes[3] = sizeof(Slice);
  sizes[4] = sizeof(Step);
}
}
#pragma GCC visibility pop
