// Reads one launch from standard input, plays it, and writes all tensors to standard output as they are then (../playing.py).
//
// A launch: the kernel's name, then numbers of the grid (two), threads of a block, bytes of shared memory, whether columns of the
// grid are clusters; then arguments, `i` and a number, `n` for none, or `t`, a size, by how
// many bytes it lies behind a multiple of 16, and its bytes. Numbers are int64.
#pragma once

#include <iostream>
#include <string>
#include <tuple>
#include <utility>

namespace played {

inline int64_t number() {
  int64_t found;
  if (!std::cin.read(reinterpret_cast<char*>(&found), sizeof found)) fail("a launch that is cut short");
  return found;
}

struct Argument {
  int value = 0;
  std::unique_ptr<Memory> tensor;
  size_t size = 0;
};

template <class T>
T as(const Argument& argument) {
  if constexpr (std::is_pointer_v<T>)
    return argument.tensor ? reinterpret_cast<T>(argument.tensor->bytes) : nullptr;
  else
    return argument.value;
}

struct Launch {
  unsigned threads;
  size_t shared_bytes;
  bool clustered;
};

template <class Run>
void play_cluster(const Launch& launch, unsigned column, unsigned first, unsigned blocks, const Run& run) {
  Cluster all(blocks, launch.threads, launch.shared_bytes);
  struct Thread {
    Cluster* all;
    const Run* run;
    unsigned column, row, block, index;
  };
  std::vector<Thread> own;
  for (unsigned i = 0; i < blocks * launch.threads; ++i)
    own.push_back({&all, &run, column, first + i / launch.threads, i / launch.threads, i % launch.threads});
  std::vector<pthread_t> running(own.size());
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 1 << 20);
  for (size_t i = 0; i < own.size(); ++i) {
    const auto begin = [](void* given) -> void* {
      const Thread& me = *static_cast<Thread*>(given);
      cluster = me.all;
      block = me.all->of[me.block].get();
      warp = &block->warps[me.index / 32];
      lane = me.index % 32;
      threadIdx = {me.index, 0};
      blockIdx = {me.column, me.row};
      (*me.run)();
      if (!begun.empty() || !committed.empty()) fail("copies that nobody waited for");
      block->end_of_thread();
      return nullptr;
    };
    if (pthread_create(&running[i], &small, begin, &own[i]) != 0) fail("no thread");
  }
  for (pthread_t one : running) pthread_join(one, nullptr);
}

template <class... Types, size_t... i>
void play(void (*kernel)(Types...), const Launch& launch, const std::vector<Argument>& arguments, std::index_sequence<i...>) {
  if (arguments.size() != sizeof...(Types)) fail("another number of arguments than the kernel has");
  const auto run = [&] { kernel(as<Types>(arguments[i])...); };
  for (unsigned x = 0; x < gridDim.x; ++x) {
    if (launch.clustered)
      play_cluster(launch, x, 0, gridDim.y, run);
    else
      for (unsigned y = 0; y < gridDim.y; ++y) play_cluster(launch, x, y, 1, run);
  }
}

template <class... Types>
void play(void (*kernel)(Types...), const Launch& launch, const std::vector<Argument>& arguments) {
  play(kernel, launch, arguments, std::index_sequence_for<Types...>());
}

}  // namespace played

int main() {
  using namespace played;
  std::string name;
  std::getline(std::cin, name);
  gridDim.x = static_cast<unsigned>(number());
  gridDim.y = static_cast<unsigned>(number());
  Launch launch{};
  blockDim = {launch.threads = static_cast<unsigned>(number()), 1};
  launch.shared_bytes = static_cast<size_t>(number());
  launch.clustered = number() != 0;
  std::vector<Argument> arguments;
  for (int kind = std::cin.get(); kind != std::char_traits<char>::eof(); kind = std::cin.get()) {
    Argument& one = arguments.emplace_back();
    if (kind == 'i') one.value = static_cast<int>(number());
    if (kind != 't') continue;
    one.size = static_cast<size_t>(number());
    one.tensor = std::make_unique<Memory>(one.size, static_cast<size_t>(number()));
    std::cin.read(reinterpret_cast<char*>(one.tensor->bytes), static_cast<std::streamsize>(one.size));
  }
  if (name == "product")
    play(&product, launch, arguments);
  else if (name == "finish")
    play(&finish, launch, arguments);
  else if (name == "decode")
    play(&decode, launch, arguments);
#if defined(PLAYED_COUNT)
  else if (name == "count")
    play(&count, launch, arguments);
#endif
  else
    fail("a kernel of another name");
  for (const auto& one : arguments)
    if (one.tensor) std::cout.write(reinterpret_cast<char*>(one.tensor->bytes), static_cast<std::streamsize>(one.size));
  std::cout.flush();
}
