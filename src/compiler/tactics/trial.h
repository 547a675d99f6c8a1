// One problem, or consecutive ones, with memory behind them, to run and time tactics on.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/function_ref.h"
#include "base/repeated_bytes.h"
#include "compiler/problem.h"
#include "device/device.h"

namespace millrace::compiler {

/// What one trial leaves to the next. THREAD: one at a time.
class TrialStore {
 public:
  explicit TrialStore(device::Device& device);
  ~TrialStore();
  TrialStore(const TrialStore&) = delete;
  TrialStore& operator=(const TrialStore&) = delete;

 private:
  friend class Trial;
  struct Placed;
  class Contents;
  class SmallKernel;

  /// What tensors of one type are filled with, again and again.
  struct Numbers {
    std::vector<std::byte> bytes;
    std::unique_ptr<RepeatedBytes> repeated;  // for the host's side of an asynchronous device
  };
  const Numbers& numbers(ir::DType dtype);
  /// Integers are below `named`.
  std::shared_ptr<const Contents> make_input(const ops::Tensor& tensor, int64_t copies,
                                             int64_t named);
  std::shared_ptr<const Contents> make_input_of_ids(const ops::Tensor& tensor, int64_t copies,
                                                    int64_t named);
  std::byte* workspace(int64_t bytes);
  void make_room(std::span<const Problem> problems, int64_t copies, int64_t room);

  device::Device& device_;
  std::map<ir::DType, Numbers> numbers_;
  std::vector<std::shared_ptr<const Contents>> inputs_;  // of the last trial
  std::unique_ptr<device::Memory> workspace_;
  std::unique_ptr<device::Memory> samples_;  // of outputs, on the host
  std::unique_ptr<SmallKernel> between_;     // on an asynchronous device
};

/// Input `input` of problem `to` is the first output of problem `from`, an earlier one.
struct Flow {
  size_t to, input, from;
};

/// On an asynchronous device there are so many copies of the problems that its cache cannot hold
/// what the next launch reads.
class Trial {
 public:
  /// Takes the inputs of the trial before that are the same: a weight is, for every number of rows.
  /// Each problem has inputs of its own, for the check of all outputs; while launches are timed,
  /// they read what others write as `flow` says.
  /// `max_bytes` bounds tensors, copies of them and a workspace of up to `workspace_bytes`.
  /// `problems`, `flow` and `store` outlive this.
  Trial(std::span<const Problem> problems, std::span<const Flow> flow, TrialStore& store,
        int64_t workspace_bytes, int64_t max_bytes);
  ~Trial();
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  static int64_t tensor_bytes(std::span<const Problem> problems);

  /// Enqueues the launches, one for each problem.
  using Run = FunctionRef<void(std::span<const ops::Launch>)>;

  /// Microseconds of the launches, or nothing when their outputs are wrong. On an asynchronous
  /// device those of the launches and of a small kernel, by turns. The farther behind
  /// `best_us`, the rougher: what cannot win is not measured twice.
  /// `name`: of the way to run them. `workspace_bytes`: the largest of theirs.
  std::optional<double> time(const char* name, Run run, int64_t workspace_bytes, double best_us);

 private:
  using Placed = TrialStore::Placed;
  using Contents = TrialStore::Contents;

  void join(bool joined);
  double run_us(Run run);
  double median_us(Run run, double first_us, double best_us);
  double median_device_us(Run run, double first_us, double best_us);
  bool right();
  bool right(size_t problem);
  ops::Tensor fetch_samples(const ops::Tensor& out);
  std::shared_ptr<const Contents> input(const ops::Tensor& tensor, int64_t copies, int64_t named);

  const std::span<const Problem> problems_;
  const std::span<const Flow> flow_;
  TrialStore& store_;
  device::Device& device_;
  std::vector<std::shared_ptr<const Contents>> inputs_, outputs_;
  std::unique_ptr<Placed> host_;            // inputs only: what exact numbers are computed from
  std::vector<std::vector<double>> exact_;  // by problem, of the samples: the same for all tactics
  std::vector<std::unique_ptr<Placed>> copies_;
};

}  // namespace millrace::compiler
