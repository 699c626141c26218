// One decoding step of a model of Llama's shape, in float32, on the weights where they train.
//
// Shapes: N rows, E width, Q heads of queries, H heads of keys, G = Q / H, D numbers a head, I width of the MLP,
// V vocabulary, S tokens of room; M outputs and K inputs of a product.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::chat {

// y = x weight^T + bias; weight is [M, K] by rows, bias is null where there is none.
struct Dense {
  const float* weight;
  const float* bias;
};

struct Layer {
  const float* norm;
  Dense qkv;
  Dense out;
  const float* mlp_norm;
  Dense gate_up;
  Dense down;
};

struct Shape {
  int64_t width;
  int64_t queries;
  int64_t keys;
  int64_t size;
  int64_t mlp_width;
  int64_t vocabulary;
  float eps;
  float scale;
};

struct Model {
  Shape shape;
  std::vector<Layer> layers;
  const float* embedding;  // [V, E]
  const float* norm;
  Dense head;
  const float* cosines;  // [S, D]
  const float* sines;    // [S, D / 2]
};

struct Step {
  const int64_t* tokens;     // [N]
  const int64_t* positions;  // [N]
  int64_t rows;
  float* cache;  // [L, 2, slots, H, S, D]
  int64_t slots;
  int64_t capacity;
};

// Appends a token to each row and writes the logits of the next, [N, V]. A row's numbers depend on its own tokens
// alone, to the last bit: each sum is taken in one order, whatever runs beside it and on how many threads.
void decode(const Model& model, const Step& step, int threads, float* logits);

// y [N, M] = x [N, K] weight^T + bias, as a step computes it.
void product(const float* x, int64_t rows, int64_t inputs, Dense dense, int64_t outputs, int threads, float* y);

}  // namespace tandem::chat
