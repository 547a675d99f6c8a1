#include "runtime/weights.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/dummy_weights.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "runtime/program.h"

namespace millrace::runtime {
namespace {

int64_t aligned(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Steps need their arena beside the weights, whatever the session.
void check_fits(const engine::Engine& engine, int64_t copied, const device::Device& device) {
  const int64_t arena = arena_bytes(engine), free = device.free_bytes();
  if (copied + arena <= free) return;
  throw_failed(str("the model needs ", format_bytes(copied), " for its weights and ",
                   format_bytes(arena), " for the activations of a step, and ", format_bytes(free),
                   " of ", device.properties().name, " are free"),
               engine.manifest.model,
               "use a smaller model or narrower weights (--dtype), lower --max-num-tokens, or stop "
               "other programs");
}

int64_t row_elements(const engine::Weight& weight) {
  int64_t product = 1;
  for (size_t i = 1; i < weight.shape.size(); ++i)
    product *= weight.shape[i];
  return product;
}

}  // namespace

int64_t weight_bytes(const engine::Weight& weight) {
  return weight.shape[0] * row_elements(weight) * ir::dtype_size(weight.dtype);
}

WeightReader::WeightReader(std::shared_ptr<const engine::EngineFile> file)
    : file_(std::move(file)), engine_(file_->engine()) {
  map_files();
}

WeightReader::WeightReader(const engine::Engine& engine) : engine_(engine) {
  map_files();
}

void WeightReader::map_files() {
  if (engine_.dummy_weights) return;
  for (const engine::SourceFile& source : engine_.files) {
    files_.push_back(MappedFile::open(source.path));
    if (files_.back().size() != source.size || files_.back().mtime_ns() != source.mtime_ns) {
      throw_bad_input("the weights have changed since the engine was built", source.path,
                      "build the engine again");
    }
  }
}

const std::byte* WeightReader::data(const engine::WeightSlice& slice) const {
  if (slice.file < 0) return file_->file().data() + file_->weights_offset() + slice.offset;
  return files_[static_cast<size_t>(slice.file)].data() + slice.offset;
}

const std::byte* WeightReader::in_place(const engine::Weight& weight) const {
  if (engine_.dummy_weights || weight.transposed || weight.unit_rows || weight.slices.size() != 1)
    return nullptr;
  const engine::WeightSlice& slice = weight.slices[0];
  const std::byte* bytes = data(slice);
  const auto address = reinterpret_cast<uintptr_t>(bytes);
  const bool fits = slice.dtype == weight.dtype &&
                    address % static_cast<uintptr_t>(ir::dtype_size(weight.dtype)) == 0;
  return fits ? bytes : nullptr;
}

// A stored [K, N] gives our row n from its column n; a stored [E, K, N] our matrix e, all at once,
// from its matrix e. By pieces of stored rows, so that memory is read as it lies.
void WeightReader::read_transposed(const engine::Weight& weight, int64_t row,
                                   std::byte* target) const {
  const bool stacked = weight.shape.size() == 3;
  const int64_t cols = *(weight.shape.end() - 2), depth = weight.shape.back();  // N, K
  const int64_t matrix = stacked ? row * cols * depth : 0;
  const int64_t first = stacked ? 0 : row, last = stacked ? cols : row + 1;
  const engine::WeightSlice& slice = weight.slices[0];
  std::vector<int64_t> stored = weight.shape;
  std::swap(*(stored.end() - 2), stored.back());
  const DummyTensor dummy(engine_.dummy_seed, slice.tensor, stored);
  constexpr int64_t kPiece = 64;
  std::array<float, kPiece> values;
  std::array<std::byte, kPiece * sizeof(float)> piece;
  const auto size = static_cast<size_t>(ir::dtype_size(weight.dtype));
  for (int64_t n = first; n < last; n += kPiece) {
    const int64_t count = std::min(kPiece, last - n);
    for (int64_t k = 0; k < depth; ++k) {
      const int64_t at = matrix + k * cols + n;
      if (engine_.dummy_weights) {
        dummy.fill(at, at + count, values.data());
        ir::convert(ir::DType::kF32, values.data(), weight.dtype, piece.data(), count);
      } else {
        ir::convert(slice.dtype, data(slice) + at * ir::dtype_size(slice.dtype), weight.dtype,
                    piece.data(), count);
      }
      std::byte* to = target + static_cast<size_t>((n - first) * depth + k) * size;
      for (size_t i = 0; i < static_cast<size_t>(count); ++i)
        std::memcpy(to + i * static_cast<size_t>(depth) * size, piece.data() + i * size, size);
    }
  }
}

void WeightReader::read_slice(const engine::Weight& weight, const engine::WeightSlice& slice,
                              int64_t begin, int64_t end, std::byte* target) const {
  const int64_t count = row_elements(weight);
  if (!engine_.dummy_weights) {
    ir::convert(slice.dtype, data(slice) + begin * slice.row_bytes, weight.dtype, target,
                (end - begin) * count);
    return;
  }
  std::vector<int64_t> stored = weight.shape;
  stored[0] = slice.tensor_rows > 0 ? slice.tensor_rows : slice.rows;
  const DummyTensor tensor(engine_.dummy_seed, slice.tensor, stored);
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t row = begin; row < end; ++row) {
    const int64_t stored_row = slice.first_row + row;
    tensor.fill(stored_row * count, (stored_row + 1) * count, values.data());
    ir::convert(ir::DType::kF32, values.data(), weight.dtype, target, count);
    target += count * ir::dtype_size(weight.dtype);
  }
}

void WeightReader::read_unit_rows(const engine::Weight& weight, int64_t begin, int64_t end,
                                  std::byte* target) const {
  constexpr double kLeastLength = 1e-12;  // as in torch: a row of zeros stays one
  engine::Weight stored = weight;
  stored.unit_rows = false;
  stored.dtype = ir::DType::kF32;
  const int64_t count = row_elements(weight);
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t row = begin; row < end; ++row) {
    read_rows(stored, row, row + 1, reinterpret_cast<std::byte*>(values.data()));
    double squares = 0;
    for (const float value : values)
      squares += double{value} * double{value};
    const double length = std::max(std::sqrt(squares), kLeastLength);
    for (float& value : values)
      value = static_cast<float>(double{value} / length);
    ir::convert(ir::DType::kF32, values.data(), weight.dtype, target, count);
    target += count * ir::dtype_size(weight.dtype);
  }
}

void WeightReader::read_rows(const engine::Weight& weight, int64_t begin, int64_t end,
                             std::byte* target) const {
  const int64_t row_bytes = row_elements(weight) * ir::dtype_size(weight.dtype);
  if (weight.unit_rows) {
    read_unit_rows(weight, begin, end, target);
    return;
  }
  if (weight.transposed) {
    for (int64_t row = begin; row < end; ++row)
      read_transposed(weight, row, target + (row - begin) * row_bytes);
    return;
  }
  int64_t first = 0;  // row of the weight that the slice begins with
  for (const engine::WeightSlice& slice : weight.slices) {
    const int64_t from = std::max(begin, first), to = std::min(end, first + slice.rows);
    if (from < to) {
      read_slice(weight, slice, from - first, to - first, target + (from - begin) * row_bytes);
    }
    first += slice.rows;
  }
  CHECK(end <= first, "rows beyond weight ", weight.name);
}

void WeightReader::check_intact() const {
  for (const MappedFile& file : files_)
    file.check_intact();
  if (file_) file_->check_intact();
}

Weights::Weights(std::shared_ptr<const engine::EngineFile> file, device::Device& device)
    : file_(std::move(file)),
      device_(device),
      reader_(file_),
      on_host_(device.properties().kind == device::Kind::kCpu),
      free_before_(device.free_bytes()) {
  const engine::Engine& engine = file_->engine();
  for (const engine::Weight& weight : engine.weights) {
    const std::byte* mapped = on_host_ ? reader_.in_place(weight) : nullptr;
    data_.push_back(mapped);
    if (mapped != nullptr) {
      mapped_bytes_ += weight_bytes(weight);
    } else {
      copied_bytes_ += aligned(weight_bytes(weight));
    }
  }
  const int64_t limit = device.properties().memory_bytes;
  if (limit > 0 && copied_bytes_ + mapped_bytes_ > limit) {
    throw_failed(
        str("the model needs ", format_bytes(copied_bytes_ + mapped_bytes_),
            " for its weights and ", device.properties().name, " has ", format_bytes(limit)),
        engine.manifest.model, "use a smaller model, or --dtype bf16 if it is in fp32");
  }
  check_fits(engine, copied_bytes_, device);
}

int64_t Weights::pending_bytes() const {
  const std::scoped_lock lock(mutex_);
  return memory_ == nullptr ? copied_bytes_ : 0;
}

double Weights::load_seconds() const {
  const std::scoped_lock lock(mutex_);
  return load_seconds_;
}

// What an engine file holds itself has checksums.
void Weights::verify() const {
  const engine::Engine& engine = file_->engine();
  for (const engine::Weight& weight : engine.weights) {
    for (const engine::WeightSlice& slice : weight.slices) {
      if (slice.file < 0 && !engine.dummy_weights) {
        file_->verify_weights(slice.offset, slice.rows * slice.row_bytes);
      }
    }
  }
}

void Weights::load() {
  const std::scoped_lock lock(mutex_);
  if (memory_ != nullptr) return;
  const auto start = std::chrono::steady_clock::now();
  verify();
  auto memory = device_.allocate(std::max<int64_t>(copied_bytes_, 64), "weights");
  std::vector<const void*> data = data_;

  // Tasks of some hundred kilobytes, over all weights, so that every thread has work to the end.
  std::vector<Task> tasks;
  std::byte* next = memory->data();
  for (size_t w = 0; w < data.size(); ++w) {
    if (data[w] != nullptr) continue;
    const engine::Weight& weight = file_->engine().weights[w];
    data[w] = next;
    const int64_t row_bytes = weight_bytes(weight) / weight.shape[0];
    const int64_t step =
        std::max<int64_t>(1, (int64_t{256} << 10) / std::max<int64_t>(1, row_bytes));
    for (int64_t row = 0; row < weight.shape[0]; row += step) {
      tasks.push_back(
          {&weight, row, std::min(row + step, weight.shape[0]), next + row * row_bytes});
    }
    next += aligned(weight_bytes(weight));
  }
  if (on_host_) {
    device_.queue().pool->parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
      const Task& task = tasks[static_cast<size_t>(i)];
      reader_.read_rows(*task.weight, task.begin, task.end, task.target);
    });
  } else {
    upload(tasks);
  }
  reader_.check_intact();
  memory_ = std::move(memory);
  data_ = std::move(data);
  load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Through two pinned buffers: while one is copied, the threads fill the other. Tasks follow each
// other in memory but for the padding between weights, so a stretch of them is one copy.
void Weights::upload(const std::vector<Task>& tasks) const {
  constexpr int64_t kBufferBytes = int64_t{32} << 20;
  struct Buffer {
    std::unique_ptr<device::Memory> memory;
    std::unique_ptr<device::Event> copied;
  };
  int64_t largest = kBufferBytes;
  const auto end_of = [](const Task& t) {
    return t.target + (t.end - t.begin) * (weight_bytes(*t.weight) / t.weight->shape[0]);
  };
  for (const Task& t : tasks)
    largest = std::max<int64_t>(largest, end_of(t) - t.target);
  std::array<Buffer, 2> buffers;
  for (Buffer& b : buffers)
    b = {device_.allocate_host(largest, "weight upload"), device_.make_event()};
  int turn = 0;
  for (size_t first = 0; first < tasks.size();) {
    Buffer& buffer = buffers[static_cast<size_t>(turn % 2)];
    if (turn >= 2) buffer.copied->wait();
    ++turn;
    std::byte* const base = tasks[first].target;
    size_t last = first;
    while (last < tasks.size() && end_of(tasks[last]) - base <= largest)
      ++last;
    device_.queue().pool->parallel_for(static_cast<int64_t>(last - first), [&](int64_t i) {
      const Task& task = tasks[first + static_cast<size_t>(i)];
      reader_.read_rows(*task.weight, task.begin, task.end,
                        buffer.memory->data() + (task.target - base));
    });
    device_.copy_to_device(base, buffer.memory->data(), end_of(tasks[last - 1]) - base);
    buffer.copied->record();
    first = last;
  }
  device_.synchronize();
}

}  // namespace millrace::runtime
