// How Python sees the native reader: buffers in, pooled numpy arrays out, faults as plain values.
#include "bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <system_error>
#include <vector>

#include "buffers.hpp"
#include "cold.hpp"
#include "reader.hpp"
#include "unlocked.hpp"
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
  if (name == "uring") return How::uring;
  if (name == "direct") return How::direct;
  throw std::invalid_argument("a way of reading is auto, mapped, pread, uring or direct");
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
    case Fault::unable: return "unable";
  }
  return "";
}

nb::tuple fault(const Outcome& outcome) {
  return nb::make_tuple(name_of(outcome.fault), outcome.position, outcome.error);
}

// Samples that other threads are reading into bytes of their own.
class Coming {
 public:
  // `owner` holds the reader; `samples` are what the running batch writes to.
  Coming(nb::object owner, std::shared_ptr<Running> running, std::vector<nb::object> samples)
      : owner_(std::move(owner)), running_(std::move(running)), samples_(std::move(samples)) {}

  Coming(const Coming&) = delete;
  Coming& operator=(const Coming&) = delete;

  ~Coming() {
    running_->stop();
    if (process_ == getpid() && (running_->wait_for(no_time) || ended_in(closing))) return;
    owner_.release();  // somebody still writes there, or never will: nobody else may have it
    for (nb::object& sample : samples_) sample.release();
    new std::shared_ptr<Running>(std::move(running_));
  }

  size_t size_bytes() const { return running_->plan().bytes(); }

  nb::object take() {
    if (process_ != getpid()) throw std::runtime_error("what a process reads ahead is not there in one forked off it");
    if (!running_->wait_for(no_time)) {
      {
        const Unlocked unlocked;
        running_->help();  // rather than to sleep and be woken
      }
      while (!ended_in(between_signals)) {
        if (PyErr_CheckSignals() != 0) throw nb::python_error();
      }
    }
    const Outcome outcome = running_->outcome();
    if (outcome.fault != Fault::none) return fault(outcome);
    const nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(samples_.size())));
    if (!list.is_valid()) nb::raise_python_error();
    for (size_t i = 0; i < samples_.size(); ++i) {
      PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), samples_[i].release().ptr());
    }
    samples_.clear();
    return list;
  }

 private:
  static constexpr std::chrono::milliseconds no_time{0}, between_signals{50}, closing{2000};

  bool ended_in(std::chrono::milliseconds most) {
    const Unlocked unlocked;
    return running_->wait_for(most);
  }

  const pid_t process_ = getpid();
  nb::object owner_;
  std::shared_ptr<Running> running_;
  std::vector<nb::object> samples_;
};

// A reader and the buffers it looks into.
class SpaceReader {
 public:
  SpaceReader(Bytes index, Flags verified, size_t body_at, size_t records_at, size_t samples, size_t checks_at,
              size_t shards)
      : index_(std::move(index)), verified_(std::move(verified)),
        reader_({index_.data() + body_at, checks_at - body_at, index_.data() + records_at, samples,
                 index_.data() + checks_at, verified_.data()},
                shards) {}

  uint64_t attach(size_t shard, const std::string& path) {
    try {
      return reader_.attach(shard, path);
    } catch (const std::system_error& error) {  // else it became a RuntimeError
      errno = error.code().value();
      PyErr_SetFromErrno(PyExc_OSError);
      throw nb::python_error();
    }
  }

  nb::object read(const Numbers& numbers, size_t threads, const std::string& how) {
    const How way = how_from(how);
    auto plan = std::make_unique<Plan>();
    Buffer* buffer = nullptr;
    Outcome outcome;
    {
      const Unlocked unlocked;
      outcome = reader_.look_up(numbers.data(), numbers.shape(0), *plan);
      if (outcome.fault == Fault::none) {
        buffer = take_buffer(plan->bytes());
        plan->into(buffer->data);
        outcome = reader_.read(*plan, threads, way);
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
    plan.into(reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(made.ptr())));
    {
      const Unlocked unlocked;
      outcome = reader_.read(plan, 1, way);
    }
    return outcome.fault == Fault::none ? made : nb::object(fault(outcome));
  }

  // Begins to read; `self` is this object as Python has it.
  static nb::object begin(nb::handle self, const Numbers& numbers, size_t threads, const std::string& how) {
    Reader& reader = nb::cast<SpaceReader&>(self).reader_;
    const How way = how_from(how);
    Plan plan;
    Outcome outcome;
    {
      const Unlocked unlocked;
      outcome = reader.look_up(numbers.data(), numbers.shape(0), plan);
    }
    if (outcome.fault != Fault::none) return fault(outcome);
    std::vector<nb::object> samples(plan.records.size());
    plan.places.resize(samples.size());
    for (size_t i = 0; i < samples.size(); ++i) {
      samples[i] = nb::steal(PyBytes_FromStringAndSize(nullptr, plan.offsets[i + 1] - plan.offsets[i]));
      if (!samples[i].is_valid()) nb::raise_python_error();
      plan.places[i] = reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(samples[i].ptr()));
    }
    std::shared_ptr<Running> running;
    {
      const Unlocked unlocked;
      running = reader.begin(std::move(plan), threads, way);
    }
    return nb::cast(new Coming(nb::borrow(self), std::move(running), std::move(samples)), nb::rv_policy::take_ownership);
  }

 private:
  const Bytes index_;
  const Flags verified_;
  Reader reader_;
};

uint64_t hash(const Bytes& bytes, bool scalar) {
  const Unlocked unlocked;
  return (scalar ? xxh3_scalar : xxh3)(bytes.data(), bytes.shape(0));
}

uint64_t copy(const Flags& to, const Bytes& bytes, bool scalar) {
  if (to.shape(0) < bytes.shape(0)) throw std::invalid_argument("the target is shorter than the source");
  const Unlocked unlocked;
  return (scalar ? copy_xxh3_scalar : copy_xxh3)(to.data(), bytes.data(), bytes.shape(0));
}

}  // namespace

void bind(nb::module_& module) {
  module.def("xxh3", &hash, "bytes"_a, "scalar"_a = false, "XXH3-64 of a buffer, seed 0.");
  module.def("copy_xxh3", &copy, "to"_a, "bytes"_a, "scalar"_a = false, "Copy a buffer; XXH3-64 of what was copied.");
  module.def("xxh3_backend", &xxh3_backend, "The code that xxh3() runs: avx2 or scalar.");
  module.def("has_io_uring", &has_io_uring, "Whether the kernel gives this process an io_uring.");
  module.def("idle_buffer_bytes", &idle_buffer_bytes, "Bytes that lie unused in the pool of batch buffers.");
  nb::class_<Coming>(module, "Coming", "Samples that are being read.")
      .def_prop_ro("size_bytes", &Coming::size_bytes, "Of all of them.")
      .def("take", &Coming::take, "Wait for them: a list of bytes, or (fault, position, errno); once.");
  nb::class_<SpaceReader>(module, "SpaceReader", "Verified reads through the index of a space.")
      .def(nb::init<Bytes, Flags, size_t, size_t, size_t, size_t, size_t>(), "index"_a, "verified"_a, "body_at"_a,
           "records_at"_a, "samples"_a, "checks_at"_a, "shards"_a)
      .def("attach", &SpaceReader::attach, "shard"_a, "path"_a, "Open a shard's file; its size in bytes.")
      .def("read", &SpaceReader::read, "numbers"_a, "threads"_a, "how"_a,
           "(data, offsets) of a batch, or (fault, position, errno).")
      .def_static("begin", &SpaceReader::begin, "reader"_a, "numbers"_a, "threads"_a, "how"_a,
                  "Samples in bytes that other threads fill, or (fault, position, errno).")
      .def("read_one", &SpaceReader::read_one, "number"_a, "how"_a, "Bytes, or (fault, position, errno).");
}

}  // namespace tandem::data
