// How Python sees the native reader: buffers in, pooled numpy arrays out, faults as plain values.
#include "bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include "buffers.hpp"
#include "reader.hpp"
#include "xxh3.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tandem::data {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

How how_from(const std::string& name) {
  if (name == "auto") return How::automatic;
  if (name == "mapped") return How::mapped;
  if (name == "pread") return How::pread;
  throw std::invalid_argument("a way of reading is auto, mapped or pread");
}

const char* name_of(Fault fault) {
  switch (fault) {
    case Fault::none: return "";
    case Fault::number: return "number";
    case Fault::index: return "index";
    case Fault::bounds: return "bounds";
    case Fault::checksum: return "checksum";
    case Fault::vanished: return "vanished";
    case Fault::io: return "io";
    case Fault::detached: return "detached";
  }
  return "";
}

nb::tuple fault(const Outcome& outcome) {
  return nb::make_tuple(name_of(outcome.fault), outcome.position, outcome.error);
}

// A reader and the buffers it looks into.
class SpaceReader {
 public:
  SpaceReader(Bytes index, Flags verified, size_t body_at, size_t records_at, size_t samples, size_t checks_at,
              size_t shards)
      : index_(std::move(index)), verified_(std::move(verified)),
        reader_({index_.data() + body_at, checks_at - body_at, index_.data() + records_at, samples,
                 index_.data() + checks_at, verified_.data()},
                shards) {}

  uint64_t attach(size_t shard, const std::string& path) { return reader_.attach(shard, path); }

  nb::object read(const Numbers& numbers, size_t threads, const std::string& how) {
    const How way = how_from(how);
    auto plan = std::make_unique<Plan>();
    Buffer* buffer = nullptr;
    Outcome outcome;
    {
      const nb::gil_scoped_release unlocked;
      outcome = reader_.look_up(numbers.data(), numbers.shape(0), *plan);
      if (outcome.fault == Fault::none) {
        buffer = take_buffer(plan->bytes());
        outcome = reader_.read(*plan, buffer->data, threads, way);
        if (outcome.fault != Fault::none) give_buffer(buffer);
      }
    }
    if (outcome.fault != Fault::none) return fault(outcome);
    const nb::capsule keeps_data(buffer, [](void* one) noexcept { give_buffer(static_cast<Buffer*>(one)); });
    auto* const offsets = new std::vector<int64_t>(std::move(plan->offsets));
    const nb::capsule keeps_offsets(offsets, [](void* all) noexcept { delete static_cast<std::vector<int64_t>*>(all); });
    const auto size = static_cast<size_t>(offsets->back());
    return nb::make_tuple(nb::ndarray<nb::numpy, uint8_t>(buffer->data, {size}, keeps_data),
                          nb::ndarray<nb::numpy, int64_t>(offsets->data(), {offsets->size()}, keeps_offsets));
  }

  nb::object read_one(int64_t number, const std::string& how) {
    const How way = how_from(how);
    Plan plan;
    Outcome outcome = reader_.look_up(&number, 1, plan);
    if (outcome.fault != Fault::none) return fault(outcome);
    const nb::object made = nb::steal(PyBytes_FromStringAndSize(nullptr, plan.offsets[1]));
    if (!made.is_valid()) nb::raise_python_error();
    auto* const to = reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(made.ptr()));
    {
      const nb::gil_scoped_release unlocked;
      outcome = reader_.read(plan, to, 1, way);
    }
    return outcome.fault == Fault::none ? made : nb::object(fault(outcome));
  }

 private:
  const Bytes index_;
  const Flags verified_;
  Reader reader_;
};

uint64_t hash(const Bytes& bytes, bool scalar) {
  const nb::gil_scoped_release unlocked;
  return (scalar ? xxh3_scalar : xxh3)(bytes.data(), bytes.shape(0));
}

uint64_t copy(const Flags& to, const Bytes& bytes, bool scalar) {
  if (to.shape(0) < bytes.shape(0)) throw std::invalid_argument("the target is shorter than the source");
  const nb::gil_scoped_release unlocked;
  return (scalar ? copy_xxh3_scalar : copy_xxh3)(to.data(), bytes.data(), bytes.shape(0));
}

}  // namespace

void bind(nb::module_& module) {
  module.def("xxh3", &hash, "bytes"_a, "scalar"_a = false, "XXH3-64 of a buffer, seed 0.");
  module.def("copy_xxh3", &copy, "to"_a, "bytes"_a, "scalar"_a = false, "Copy a buffer; XXH3-64 of what was copied.");
  module.def("xxh3_backend", &xxh3_backend, "The code that xxh3() runs: avx2 or scalar.");
  module.def("idle_buffer_bytes", &idle_buffer_bytes, "Bytes that lie unused in the pool of batch buffers.");
  nb::class_<SpaceReader>(module, "SpaceReader", "Verified reads through the index of a space.")
      .def(nb::init<Bytes, Flags, size_t, size_t, size_t, size_t, size_t>(), "index"_a, "verified"_a, "body_at"_a,
           "records_at"_a, "samples"_a, "checks_at"_a, "shards"_a)
      .def("attach", &SpaceReader::attach, "shard"_a, "path"_a, "Open a shard's file; its size in bytes.")
      .def("read", &SpaceReader::read, "numbers"_a, "threads"_a, "how"_a,
           "(data, offsets) of a batch, or (fault, position, errno).")
      .def("read_one", &SpaceReader::read_one, "number"_a, "how"_a, "Bytes, or (fault, position, errno).");
}

}  // namespace tandem::data
