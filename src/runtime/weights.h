// The weights of an engine, in the memory of a device. On the CPU they are read in place where
// their file has them as ops want them, else stacked, transposed and converted into memory of their
// own, never both; a GPU gets all of them copied.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "device/device.h"
#include "engine/engine_file.h"

namespace millrace::runtime {

/// Makes one weight's final bytes from its slices. THREAD: several at a time.
class WeightReader {
 public:
  /// Maps the engine's files and checks that they are those it was built from. Throws Error when
  /// one is missing or has changed.
  explicit WeightReader(std::shared_ptr<const engine::EngineFile> file);
  explicit WeightReader(const engine::Engine& engine);

  /// The weight's bytes inside a mapped file, or null when it must be made.
  const std::byte* in_place(const engine::Weight& weight) const;
  /// Writes rows [begin, end) of the weight, in its own type, to `target`.
  void read_rows(const engine::Weight& weight, int64_t begin, int64_t end, std::byte* target) const;
  /// Throws Error when a file was truncated or failed while it was read.
  void check_intact() const;

 private:
  void map_files();
  const std::byte* data(const engine::WeightSlice& slice) const;
  /// Rows [begin, end) of one slice.
  void read_slice(const engine::Weight& weight, const engine::WeightSlice& slice, int64_t begin,
                  int64_t end, std::byte* target) const;
  /// Rows [begin, end) of a weight whose rows are divided by their length.
  void read_unit_rows(const engine::Weight& weight, int64_t begin, int64_t end,
                      std::byte* target) const;
  /// One row of a weight whose matrices are stored transposed.
  void read_transposed(const engine::Weight& weight, int64_t row, std::byte* target) const;

  std::shared_ptr<const engine::EngineFile> file_;
  const engine::Engine& engine_;
  std::vector<MappedFile> files_;
};

class Weights {
 public:
  /// Plans them and reads none. Throws Error with the numbers when they do not fit into memory. The
  /// device must outlive them.
  Weights(std::shared_ptr<const engine::EngineFile> file, device::Device& device);
  /// Loads all weights, unless that has been done: sessions do so when they are known to fit
  /// beside them. THREAD: safe.
  void load();

  /// REQUIRES: load().
  const void* data(size_t weight) const { return data_[weight]; }
  int64_t copied_bytes() const { return copied_bytes_; }
  int64_t mapped_bytes() const { return mapped_bytes_; }
  /// Of the copied ones, what load() has still to allocate: all or nothing.
  int64_t pending_bytes() const;
  /// What load() took; 0 before.
  double load_seconds() const;
  /// Of the device, before they were loaded.
  int64_t free_before() const { return free_before_; }
  void check_intact() const { reader_.check_intact(); }

 private:
  // Rows of one weight that one thread makes.
  struct Task {
    const engine::Weight* weight;
    int64_t begin, end;
    std::byte* target;  // on the device
  };
  void verify() const;
  void upload(const std::vector<Task>& tasks) const;

  std::shared_ptr<const engine::EngineFile> file_;
  device::Device& device_;
  WeightReader reader_;
  bool on_host_;
  std::vector<const void*> data_;  // null: to be copied
  int64_t copied_bytes_ = 0, mapped_bytes_ = 0, free_before_ = 0;

  mutable std::mutex mutex_;  // of loading
  std::unique_ptr<device::Memory> memory_;
  double load_seconds_ = 0;
};

/// Bytes of a weight as ops read it.
int64_t weight_bytes(const engine::Weight& weight);

}  // namespace millrace::runtime
