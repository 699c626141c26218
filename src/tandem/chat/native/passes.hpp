// What lies between a training step's products, forward and backward, each in one pass over memory, in float32.
//
// Shapes: M tokens, E width, I width of the MLP, R rows of W tokens, H heads of D numbers, P pieces of tokens.
#pragma once

#include <cstdint>

namespace tandem::chat {

// Tokens whose shares of a norm's gradient are summed by one thread, in one order: sums do not depend on threads.
constexpr int64_t PIECE_TOKENS = 32;

struct Norm {
  int64_t tokens;
  int64_t width;
  const float* weight;  // [E]
};

// sum = x + added; y = weight sum / sqrt(mean(sum^2) + eps), and that divisor's inverse of each token, [M]. Without
// `added` (null) nothing is added, and `sum` is not written.
void norm(const Norm& norm, float eps, const float* x, const float* added, float* sum, float* y, float* factors,
          int threads);

// dx = what y's gradient says of the sum + dsum (null: 0); shares [P, E] of the weight's gradient, P = ceil(M / 32).
void norm_backward(const Norm& norm, const float* dy, const float* dsum, const float* sum, const float* factors,
                   float* dx, float* shares, int threads);

// Heads of tokens, wherever they lie; a head's numbers are neighbours.
struct Heads {
  const float* x;
  int64_t rows, tokens, heads, size;
  int64_t row_stride, token_stride, head_stride;
};

// y [R, W, H, D]: heads turned by their tokens' angles, or, transposed, turned back. cosines and sines are [T, D], T
// being W or R W.
void rotate(const Heads& heads, const float* cosines, const float* sines, int64_t table, bool transposed, float* y,
            int threads);

// y = silu(gate) up, each of `count` numbers.
void gate(const float* gates, const float* ups, int64_t count, float* y, int threads);

// Both gradients of it.
void gate_backward(const float* dy, const float* gates, const float* ups, int64_t count, float* dgates, float* dups,
                   int threads);

}  // namespace tandem::chat
